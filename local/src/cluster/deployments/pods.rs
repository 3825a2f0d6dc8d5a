//! The pod that a deployment makes. Pure but for the random part of the name.

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use sha2::{Digest as _, Sha256};

use super::plan::TEMPLATE_HASH;
use crate::node;

/// The letters of generated names: none that make words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest name of a pod whose host name is not cut.
const MAX_NAME: usize = 63;

/// Identifies a template: pods of one template have one hash.
pub(super) fn template_hash(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let digest = Sha256::digest(serde_json::to_vec(&template).unwrap_or_default());
    digest.iter().take(10).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// A new pod of the current template, on the node.
pub(super) fn pod(deployment: &Deployment, hash: &str) -> Pod {
    let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let owner = deployment.metadata.name.clone().unwrap_or_default();
    let random: String = (0..5).map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())])).collect();
    let suffix = format!("-{hash}-{random}");
    let head: String = owner.chars().take(MAX_NAME - suffix.len()).collect();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
    let mut spec = template.spec.unwrap_or_default();
    spec.node_name = Some(node::NAME.to_owned());
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{}{suffix}", head.trim_end_matches('-'))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: owner,
                uid: deployment.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(name: &str, image: &str) -> Deployment {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"}, "spec": {
            "selector": {}, "template": {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"containers": [{"name": "x", "image": image}]}}}}))
        .unwrap()
    }

    #[test]
    fn a_pod_is_its_template_with_an_owner_and_a_node() {
        let deployment = deployment("hello-00001-deployment", "app");
        let hash = template_hash(&deployment);
        let pod = pod(&deployment, &hash);
        let name = pod.metadata.name.unwrap();
        assert!(name.starts_with(&format!("hello-00001-deployment-{hash}-")), "{name}");
        let labels = pod.metadata.labels.unwrap();
        assert_eq!((labels["a"].as_str(), labels[TEMPLATE_HASH].as_str()), ("b", hash.as_str()));
        assert_eq!(pod.metadata.annotations.unwrap()["c"], "d");
        assert_eq!(pod.metadata.owner_references.unwrap()[0].uid, "u");
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("dormouse"));
    }

    #[test]
    fn the_hash_follows_the_template_and_nothing_else() {
        let mut other = deployment("other", "app");
        other.spec.as_mut().unwrap().replicas = Some(7);
        assert_eq!(template_hash(&deployment("d", "app")), template_hash(&other));
        assert_ne!(template_hash(&deployment("d", "app")), template_hash(&deployment("d", "app2")));
    }

    #[test]
    fn long_names_are_cut_to_a_label() {
        let pod = pod(&deployment(&"x".repeat(80), "app"), "hash");
        assert_eq!(pod.metadata.name.unwrap().len(), MAX_NAME);
    }
}
