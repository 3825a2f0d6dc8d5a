//! Rules of `spec.traffic` (upstream `route_validation.go`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    field_error::{Errors, SELF},
    json::{get, has, list, some_number, text},
    syntax::{dns1035_label, go_list, qualified_name},
};

/// Checks the traffic of a Route, or of a Service (whose targets follow its own Configuration).
pub fn validate(spec: &Value, in_service: bool) -> Errors {
    let mut errors = Errors::none();
    let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sum: i64 = 0;
    for (i, target) in list(spec, "traffic").iter().enumerate() {
        errors.add(validate_target(target, in_service).via_index(i));
        sum = sum.saturating_add(some_number(target, "percent").unwrap_or_default());
        let tag = text(target, "tag");
        if tag.is_empty() {
            continue;
        }
        let wrong = dns1035_label(tag);
        if !wrong.is_empty() {
            let value = format!("not a DNS 1035 label: {}", go_list(&wrong));
            errors.add(Errors::invalid(value, SELF).via_index(i).via("tag"));
        }
        match tags.get(tag) {
            Some(first) => errors.add(Errors::new(
                format!("Multiple definitions for {tag:?}"),
                &[&format!("[{i}].tag"), &format!("[{first}].tag")],
            )),
            None => {
                tags.insert(tag, i);
            }
        }
    }
    if sum != 100 {
        errors.add(Errors::new(format!("Traffic targets sum to {sum}, want 100"), &[SELF]));
    }
    errors.via("traffic")
}

fn validate_target(target: &Value, in_service: bool) -> Errors {
    let mut errors = Errors::none();
    let (revision, configuration) = (text(target, "revisionName"), text(target, "configurationName"));
    if let Some(latest) = get(target, &["latestRevision"]).as_bool()
        && latest != revision.is_empty()
    {
        let message = format!("may not set revisionName {revision:?} when latestRevision is {latest}");
        errors.add(Errors::new(message, &["latestRevision"]));
    }
    let names = |name: &str, field: &str| {
        let wrong = qualified_name(name);
        if wrong.is_empty() { Errors::none() } else { Errors::invalid_key(name, field, &wrong.join(", ")) }
    };
    errors.add(if in_service && !configuration.is_empty() {
        Errors::disallowed(&["configurationName"])
    } else if !revision.is_empty() && !configuration.is_empty() {
        Errors::multiple_one_of(&["revisionName", "configurationName"])
    } else if !revision.is_empty() {
        names(revision, "revisionName")
    } else if !configuration.is_empty() {
        names(configuration, "configurationName")
    } else if in_service {
        Errors::none()
    } else {
        Errors::missing_one_of(&["revisionName", "configurationName"])
    });
    if let Some(percent) = some_number(target, "percent").filter(|p| !(0..=100).contains(p)) {
        errors.add(Errors::out_of_bounds(percent, 0, 100, "percent"));
    }
    if has(target, "url") && !text(target, "url").is_empty() {
        errors.add(Errors::disallowed(&["url"]));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn traffic_is_judged_in_upstreams_words() {
        let long = "a".repeat(64);
        let cases = [
            (true, json!([{"percent": 100, "latestRevision": true}]), String::new()),
            (
                true,
                json!([{"percent": 90, "latestRevision": true}]),
                "Traffic targets sum to 90, want 100: traffic".into(),
            ),
            (true, json!([]), "Traffic targets sum to 0, want 100: traffic".into()),
            (
                true,
                json!([{"percent": 100, "configurationName": "x"}]),
                "must not set the field(s): traffic[0].configurationName".into(),
            ),
            (false, json!([{"percent": 100, "configurationName": "x"}]), String::new()),
            (
                false,
                json!([{"percent": 100}]),
                "expected exactly one, got neither: traffic[0].configurationName, traffic[0].revisionName".into(),
            ),
            (
                false,
                json!([{"percent": 100, "configurationName": "x", "revisionName": "y"}]),
                "expected exactly one, got both: traffic[0].configurationName, traffic[0].revisionName".into(),
            ),
            (
                true,
                json!([{"percent": 101, "revisionName": "a"}, {"percent": -1, "revisionName": "b"}]),
                "expected 0 <= -1 <= 100: traffic[1].percent\nexpected 0 <= 101 <= 100: traffic[0].percent".into(),
            ),
            (
                true,
                json!([{"tag": "a", "percent": 50, "revisionName": "x"}, {"tag": "a", "percent": 50, "revisionName": "y"}]),
                "Multiple definitions for \"a\": traffic[0].tag, traffic[1].tag".into(),
            ),
            (
                true,
                json!([{"percent": 100, "revisionName": "x", "latestRevision": true}]),
                "may not set revisionName \"x\" when latestRevision is true: traffic[0].latestRevision".into(),
            ),
            (
                true,
                json!([{"percent": 100, "latestRevision": false}]),
                "may not set revisionName \"\" when latestRevision is false: traffic[0].latestRevision".into(),
            ),
            (true, json!([{"percent": 100, "url": "http://x"}]), "must not set the field(s): traffic[0].url".into()),
            (
                true,
                json!([{"percent": 100, "tag": long}]),
                "invalid value: not a DNS 1035 label: [must be no more than 63 characters]: traffic.tag[0]".into(),
            ),
        ];
        for (in_service, traffic, want) in cases {
            assert_eq!(validate(&json!({"traffic": traffic}), in_service).to_string(), want, "{traffic}");
        }
        assert!(
            validate(&json!({"traffic": [{"percent": 100, "revisionName": "-x"}]}), true)
                .to_string()
                .starts_with("invalid key name \"-x\": traffic[0].revisionName\n")
        );
    }

    proptest::proptest! {
        #[test]
        fn percents_are_accepted_exactly_when_they_sum_to_100(percents in proptest::collection::vec(0_i64..=100, 0..6)) {
            let traffic: Vec<Value> = percents.iter().map(|p| json!({"percent": p, "revisionName": "x"})).collect();
            let good = validate(&json!({"traffic": traffic}), true).is_empty();
            proptest::prop_assert_eq!(good, percents.iter().sum::<i64>() == 100);
        }
    }
}
