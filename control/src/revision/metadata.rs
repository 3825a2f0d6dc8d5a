//! Labels and annotations that a Revision hands down.

use api::{labels, serving::Revision};
use kube::ResourceExt;

use crate::owner::{self, Map};

/// Tells kubectl which container a user means.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Label with the app's name, for tools that trace.
pub const APP: &str = "app";
/// When traffic last referred to the Revision explicitly (upstream's older way).
const LAST_PINNED: &str = "serving.knative.dev/lastPinned";

/// Labels of everything that belongs to the Revision.
pub fn labels(revision: &Revision) -> Map {
    let mut map =
        owner::without(revision.labels(), |key| key == labels::serving::ROUTE || key == labels::serving::ROUTING_STATE);
    map.insert(labels::serving::REVISION.to_owned(), revision.name_any());
    map.insert(labels::serving::REVISION_UID.to_owned(), revision.uid().unwrap_or_default());
    map.entry(APP.to_owned()).or_insert_with(|| revision.name_any());
    map
}

/// Labels that select the Revision's pods.
pub fn selector(revision: &Revision) -> Map {
    Map::from([(labels::serving::REVISION_UID.to_owned(), revision.uid().unwrap_or_default())])
}

/// Bookkeeping that is about the Revision alone.
fn is_bookkeeping(key: &str) -> bool {
    [LAST_PINNED, labels::serving::NO_GC, labels::serving::ROUTING_STATE_MODIFIED, labels::serving::ROUTES]
        .contains(&key)
}

/// Annotations of the PodAutoscaler: scaling settings included.
pub fn autoscaler_annotations(revision: &Revision) -> Map {
    owner::without(revision.annotations(), is_bookkeeping)
}

/// Annotations of the Deployment: scaling settings are the PodAutoscaler's, a change there must not roll pods.
pub fn deployment_annotations(revision: &Revision) -> Map {
    let scales = |key: &str| key.starts_with("autoscaling.knative.dev") || key.starts_with(api::scaling::PREFIX);
    owner::without(revision.annotations(), |key| is_bookkeeping(key) || scales(key))
}

/// Annotations of the pods.
pub fn pod_annotations(revision: &Revision, user_container: &str) -> Map {
    let map = deployment_annotations(revision);
    if user_container.is_empty() { map } else { owner::with(map, DEFAULT_CONTAINER, user_container) }
}
