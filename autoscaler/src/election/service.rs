//! Where senders find a bucket's holder: a Service of the bucket's name without selector, and its EndpointSlice.

use std::{net::IpAddr, time::Duration};

use api::ports;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::apply::write::Error;

/// Between two tries; and how many there are.
const RETRY: Duration = Duration::from_millis(100);
const TRIES: usize = 30;

/// Where the holder is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where Services of buckets are.
    pub namespace: String,
    /// The holder's address.
    pub ip: IpAddr,
}

/// Makes the Service if it is not there, and points its EndpointSlice here. Where that does not succeed in three seconds
/// it is said: senders that look at the lease still find the holder.
pub async fn announce(client: Client, place: Place, bucket: String) {
    for _ in 0..TRIES {
        match once(&client, &place, &bucket).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(bucket, %error, "bucket's Service not written yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
    tracing::error!(bucket, "bucket's Service could not be written; reports reach its holder by the lease only");
}

async fn once(client: &Client, place: &Place, bucket: &str) -> Result<(), Error> {
    let services: Api<Service> = Api::namespaced(client.clone(), &place.namespace);
    let create = PostParams::default();
    match services.create(&create, &serde_json::from_value(service(place, bucket))?).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error.into()),
    }
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &place.namespace);
    let slice = slice(place, bucket);
    match slices.create(&create, &serde_json::from_value(slice.clone())?).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            slices.patch(bucket, &PatchParams::default(), &Patch::Merge(slice)).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn service(place: &Place, bucket: &str) -> Value {
    let port = json!({ "name": "http", "port": ports::AUTOSCALER, "targetPort": ports::AUTOSCALER, "protocol": "TCP" });
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": bucket, "namespace": place.namespace },
        "spec": { "ports": [port] },
    })
}

fn slice(place: &Place, bucket: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": bucket, "namespace": place.namespace, "labels": { "kubernetes.io/service-name": bucket },
        },
        "addressType": if place.ip.is_ipv6() { "IPv6" } else { "IPv4" },
        "endpoints": [{
            "addresses": [place.ip.to_string()],
            "conditions": { "ready": true, "serving": true, "terminating": false },
        }],
        "ports": [{ "name": "http", "port": ports::AUTOSCALER, "protocol": "TCP" }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s70_a_slice_points_to_its_holder() {
        let of = |ip: &str| slice(&Place { namespace: "ns".into(), ip: ip.parse().unwrap() }, "bucket");
        let slice: EndpointSlice = serde_json::from_value(of("10.0.0.1")).unwrap();
        assert_eq!((slice.address_type.as_str(), slice.endpoints[0].addresses[0].as_str()), ("IPv4", "10.0.0.1"));
        assert_eq!(of("fd00::1")["addressType"], "IPv6");
    }
}
