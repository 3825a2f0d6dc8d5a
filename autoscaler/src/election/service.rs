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
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    /// A client that is answered with these codes, one after the other and the last again and again; and what it asked.
    fn answered(codes: &'static [u16]) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let mut noted = noted.lock().unwrap();
            let code = codes[noted.len().min(codes.len() - 1)];
            let plural = request.uri().path().rsplit('/').find(|part| *part != "bucket").unwrap_or_default().to_owned();
            noted.push(format!("{} {plural}", request.method()));
            let status =
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "m" });
            let object = json!({ "metadata": { "name": "bucket" }, "addressType": "IPv4", "endpoints": [] });
            let body = if code < 300 { object } else { status }.to_string().into_bytes();
            let answer = Response::builder().status(code).body(Body::from(body)).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        (Client::new(service, "default"), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn s70_calls_that_fail_are_repeated() {
        let place = || Place { namespace: "ns".into(), ip: "10.0.0.1".parse().unwrap() };
        let (post, slice) = ("POST services", "POST endpointslices");
        let cases: [(&[u16], &[&str]); 3] = [
            (&[201], &[post, slice]),
            // Both are there already: of another holder.
            (&[409, 409, 200], &[post, slice, "PATCH endpointslices"]),
            (&[500, 201, 503, 409, 201], &[post, post, slice, post, slice]),
        ];
        for (codes, calls) in cases {
            let (client, asked) = answered(codes);
            announce(client, place(), "bucket".into()).await;
            assert_eq!(*asked.lock().unwrap(), calls, "{codes:?}");
        }
        let (client, asked) = answered(&[500]);
        announce(client, place(), "bucket".into()).await;
        assert_eq!(asked.lock().unwrap().len(), TRIES, "given up, and that is said");
    }

    #[test]
    fn s70_a_slice_points_to_its_holder() {
        let of = |ip: &str| slice(&Place { namespace: "ns".into(), ip: ip.parse().unwrap() }, "bucket");
        let slice: EndpointSlice = serde_json::from_value(of("10.0.0.1")).unwrap();
        assert_eq!((slice.address_type.as_str(), slice.endpoints[0].addresses[0].as_str()), ("IPv4", "10.0.0.1"));
        assert_eq!(of("fd00::1")["addressType"], "IPv6");
    }
}
