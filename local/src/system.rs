//! The objects a fresh API server starts with: the system namespace, its ConfigMaps, and the address of the gateway.
//!
//! ConfigMaps that exist are left as the user last had them; `--set` is laid over them at each start.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, anyhow, bail};
use api::{
    labels::{SYSTEM_NAMESPACE, networking::DORMOUSE_INGRESS_CLASS},
    ports, settings,
};
use control::settings::Settings;
use k8s_openapi::api::core::v1::{ConfigMap, EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Namespace};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};

use crate::cli::Setting;

/// Name of the Endpoints that list the activators.
pub const ACTIVATOR_SERVICE: &str = "activator-service";
/// Image name that the node runs as our own sidecar.
pub const QUEUE_IMAGE: &str = "dormouse.dev/queue-proxy";
/// Domain of the names inside the cluster.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// The ConfigMaps and the keys in which a laptop differs from upstream's defaults.
fn config_maps() -> [(&'static str, settings::Data); 10] {
    let with = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    [
        // Upstream waits for gateways all over a cluster to learn that a revision sleeps; here there is one, and it knows.
        ("config-autoscaler", with(&[("scale-to-zero-grace-period", "1s")])),
        ("config-defaults", with(&[])),
        ("config-deployment", with(&[("queue-sidecar-image", QUEUE_IMAGE)])),
        ("config-domain", with(&[("example.com", "")])),
        ("config-features", with(&[])),
        ("config-gc", with(&[])),
        ("config-leader-election", with(&[])),
        ("config-logging", with(&[])),
        // All namespaces are one user's, who need not ask for a host.
        (
            "config-network",
            with(&[("ingress-class", DORMOUSE_INGRESS_CLASS), ("autocreate-cluster-domain-claims", "true")]),
        ),
        ("config-observability", with(&[])),
    ]
}

/// Lays `--set` over the defaults and refuses what could not be read, before anything runs.
pub fn check_settings(sets: &[Setting]) -> anyhow::Result<()> {
    let mut maps = BTreeMap::from(config_maps());
    for set in sets {
        let Some(data) = maps.get_mut(set.config_map.as_str()) else {
            let known: Vec<&str> = config_maps().iter().map(|(name, _)| *name).collect();
            bail!("--set {}.{}: no ConfigMap of that name; there are {}", set.config_map, set.key, known.join(", "));
        };
        data.insert(set.key.clone(), set.value.clone());
    }
    // By the controller's own reading; ConfigMaps that it does not read are taken as they are.
    let mut settings = Settings::new(CLUSTER_DOMAIN);
    for (name, data) in &maps {
        settings.apply(name, data).map_err(|e| anyhow!("--set: {e}"))?;
    }
    Ok(())
}

/// Makes the objects that are missing, applies `sets`, and writes where the gateway is.
pub async fn prepare(client: &Client, gateway: SocketAddr, sets: &[Setting]) -> anyhow::Result<()> {
    let metadata = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let post = PostParams::default();
    for name in ["default", SYSTEM_NAMESPACE] {
        let namespace = Namespace { metadata: metadata(name), ..Namespace::default() };
        unless_exists(Api::all(client.clone()).create(&post, &namespace).await)
            .with_context(|| format!("cannot create namespace {name}"))?;
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    for (name, data) in config_maps() {
        let map = ConfigMap { metadata: metadata(name), data: Some(data), ..ConfigMap::default() };
        unless_exists(maps.create(&post, &map).await).with_context(|| format!("cannot create ConfigMap {name}"))?;
        let set: settings::Data =
            sets.iter().filter(|s| s.config_map == name).map(|s| (s.key.clone(), s.value.clone())).collect();
        if !set.is_empty() {
            let patch = Patch::Merge(serde_json::json!({ "data": set }));
            maps.patch(name, &PatchParams::default(), &patch)
                .await
                .with_context(|| format!("cannot set keys of ConfigMap {name}"))?;
        }
    }
    publish_gateway(client, gateway).await
}

/// Says where the activator listens: what the control plane puts behind a revision that is asleep.
async fn publish_gateway(client: &Client, gateway: SocketAddr) -> anyhow::Result<()> {
    let port = |name: &str| EndpointPort {
        name: Some(name.to_owned()),
        port: i32::from(gateway.port()),
        protocol: Some("TCP".to_owned()),
        ..EndpointPort::default()
    };
    let subset = EndpointSubset {
        addresses: Some(vec![EndpointAddress { ip: gateway.ip().to_string(), ..EndpointAddress::default() }]),
        ports: Some(vec![port(ports::NAME_HTTP1), port(ports::NAME_H2C)]),
        ..EndpointSubset::default()
    };
    let endpoints = Endpoints {
        metadata: ObjectMeta { name: Some(ACTIVATOR_SERVICE.to_owned()), ..ObjectMeta::default() },
        subsets: Some(vec![subset]),
    };
    let all: Api<Endpoints> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    unless_exists(all.create(&PostParams::default(), &endpoints).await)?;
    // The port may be another one than last time.
    let patch = Patch::Merge(serde_json::json!({ "subsets": endpoints.subsets }));
    all.patch(ACTIVATOR_SERVICE, &PatchParams::default(), &patch)
        .await
        .context("cannot write the gateway's address")?;
    Ok(())
}

fn unless_exists<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(config_map: &str, key: &str, value: &str) -> Setting {
        Setting { config_map: config_map.into(), key: key.into(), value: value.into() }
    }

    #[test]
    fn our_own_defaults_are_readable() {
        check_settings(&[]).unwrap();
        check_settings(&[set("config-autoscaler", "stable-window", "6s")]).unwrap();
    }

    #[test]
    fn a_bad_setting_is_refused_with_its_name() {
        let error = check_settings(&[set("config-autoscaler", "stable-window", "6")]).unwrap_err().to_string();
        assert!(error.contains("config-autoscaler: stable-window"), "{error}");
        let error = check_settings(&[set("config-nope", "a", "b")]).unwrap_err().to_string();
        assert!(error.contains("config-autoscaler"), "{error}");
    }
}
