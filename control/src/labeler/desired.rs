//! What a Route notes on the Configurations and Revisions that it uses, so that the autoscaler knows which revisions
//! are reachable and the garbage collector which are in use (upstream `pkg/reconciler/labeler`).

use std::collections::BTreeMap;

use api::{
    labels::serving,
    serving::{ROUTING_ACTIVE, ROUTING_RESERVE},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{configuration::desired::timestamp, owner};

/// Labels and annotations of an object.
type Marks = BTreeMap<String, String>;

/// The merge patch that adds or removes `route`; absent when everything is noted already.
///
/// `routing_state` holds for Revisions: active while any Route uses it, else in reserve.
pub fn patch(
    labels: &Marks,
    annotations: &Marks,
    route: &str,
    remove: bool,
    routing_state: bool,
    now: Timestamp,
) -> Option<Value> {
    let mut new_labels = Map::new();
    let mut new_annotations = Map::new();
    let before = owner::list_value(annotations, serving::ROUTES);
    let mut after = before.clone();
    if remove {
        after.remove(route);
    } else {
        after.insert(route);
    }
    if after != before {
        let list = after.iter().copied().collect::<Vec<_>>().join(",");
        let value = if list.is_empty() { Value::Null } else { Value::from(list) };
        new_annotations.insert(serving::ROUTES.to_owned(), value);
    }
    let state = if after.is_empty() { ROUTING_RESERVE } else { ROUTING_ACTIVE };
    if routing_state && labels.get(serving::ROUTING_STATE).map(String::as_str) != Some(state) {
        new_labels.insert(serving::ROUTING_STATE.to_owned(), state.into());
        new_annotations.insert(serving::ROUTING_STATE_MODIFIED.to_owned(), timestamp(now).into());
    }
    let mut metadata = Map::new();
    if !new_labels.is_empty() {
        metadata.insert("labels".to_owned(), new_labels.into());
    }
    if !new_annotations.is_empty() {
        metadata.insert("annotations".to_owned(), new_annotations.into());
    }
    (!metadata.is_empty()).then(|| json!({ "metadata": metadata }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: &str = serving::ROUTES;
    const S: &str = serving::ROUTING_STATE;
    const M: &str = serving::ROUTING_STATE_MODIFIED;
    const T: &str = "1970-01-01T00:00:00Z";

    #[test]
    fn routes_come_and_go() {
        let none: &[(&str, &str)] = &[];
        let cases = [
            (
                "first route",
                vec![(S, "pending")],
                none.to_vec(),
                false,
                Some(json!({
                    "labels": {S: "active"}, "annotations": {R: "hello", M: T}
                })),
            ),
            ("already noted", vec![(S, "active")], vec![(R, "hello")], false, None),
            (
                "second route",
                vec![(S, "active")],
                vec![(R, "zoo")],
                false,
                Some(json!({"annotations": {R: "hello,zoo"}})),
            ),
            (
                "one of two leaves",
                vec![(S, "active")],
                vec![(R, "hello,zoo")],
                true,
                Some(json!({"annotations": {R: "zoo"}})),
            ),
            (
                "last one leaves",
                vec![(S, "active")],
                vec![(R, "hello")],
                true,
                Some(json!({
                    "labels": {S: "reserve"}, "annotations": {R: null, M: T}
                })),
            ),
        ];
        for (case, labels, annotations, remove, want) in cases {
            let map = |pairs: Vec<(&str, &str)>| pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
            let got = patch(&map(labels), &map(annotations), "hello", remove, true, Timestamp::UNIX_EPOCH);
            assert_eq!(got, want.map(|m| json!({"metadata": m})), "{case}");
        }
        assert_eq!(
            patch(&Marks::new(), &Marks::new(), "hello", false, false, Timestamp::UNIX_EPOCH),
            Some(json!({"metadata": {"annotations": {R: "hello"}}})),
            "Configurations have no routing state"
        );
    }
}
