//! Which annotations of a PodAutoscaler are ours: scaling settings are exactly the Revision's, save for class and
//! metric, which the cluster's defaults filled in when it was made; anything else is only added.

use api::labels::autoscaling::{self, Annotation};

use crate::owner::Map;

const GROUP: &str = "autoscaling.knative.dev";
const DEFAULTED: [Annotation; 2] = [autoscaling::CLASS, autoscaling::METRIC];

fn is_defaulted(key: &str) -> bool {
    DEFAULTED.iter().any(|a| a.key == key || a.alias == Some(key))
}

/// `have` as it should be so that it says what `want` says.
pub fn merged(have: &Map, want: &Map) -> Map {
    let mut merged: Map = have
        .iter()
        .filter(|(key, _)| !key.starts_with(GROUP) || is_defaulted(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    merged.extend(want.iter().map(|(k, v)| (k.clone(), v.clone())));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn scaling_settings_follow_the_revision_and_the_rest_stays() {
        let (class, min, max, other) = (
            "autoscaling.knative.dev/class",
            "autoscaling.knative.dev/min-scale",
            "autoscaling.knative.dev/max-scale",
            "x",
        );
        let have = map(&[(class, "kpa"), (min, "1"), (max, "3"), (other, "kept")]);
        let want = map(&[(max, "5"), ("y", "new")]);
        assert_eq!(merged(&have, &want), map(&[(class, "kpa"), (max, "5"), (other, "kept"), ("y", "new")]));
        assert_eq!(merged(&have, &map(&[(class, "hpa")]))[class], "hpa", "the Revision's own word counts");
    }
}
