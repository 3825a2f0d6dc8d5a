//! Annotations of the scaling, rollout and sidecar groups: what each may say (upstream
//! `pkg/apis/autoscaling/annotation_validation.go`, `pkg/apis/serving/metadata_validation.go`), and our own for the
//! activator in the same manner.

use std::collections::BTreeMap;

use api::{
    activation,
    annotations::{Problem, Wrong},
    labels::{
        autoscaling::{self as keys, Annotation, HPA_CLASS, KPA_CLASS},
        serving,
    },
    scaling as extras,
    settings::Autoscaler,
};

use super::{
    field_error::{Errors, SELF},
    go_duration::GoDuration,
    quantity::is_quantity,
};

type Map = BTreeMap<String, String>;

const GROUP: &str = "autoscaling.knative.dev";
const WINDOW_MIN: &str = "6s";
const WINDOW_MAX: &str = "1h0m0s";
const HOUR: i128 = 3_600_000_000_000;
const SECOND: i128 = 1_000_000_000;

/// Scaling annotations of a revision template.
pub fn scaling(map: &Map, defaults: &Autoscaler) -> Errors {
    [
        class(map),
        scale_bounds(map, defaults),
        floats(map),
        window(map),
        duration_up_to_an_hour(map, keys::SCALE_TO_ZERO_POD_RETENTION_PERIOD, false),
        duration_up_to_an_hour(map, keys::SCALE_DOWN_DELAY, true),
        metric(map, defaults),
        algorithm(map),
        initial_scale(map, defaults),
    ]
    .into_iter()
    .collect()
}

/// Activator annotations of a revision template.
pub fn activation(map: &Map) -> Errors {
    told(activation::read(map).1)
}

/// Autoscaler annotations of a revision template that upstream's does not have.
pub fn scaling_extras(map: &Map) -> Errors {
    told(extras::read(map).1)
}

fn told(problems: Vec<Problem>) -> Errors {
    problems
        .into_iter()
        .map(|problem| {
            let (key, value, why) = (&problem.key, &problem.value, problem.wrong.to_string());
            match problem.wrong {
                Wrong::Want(_) | Wrong::Needs(_) => Errors::invalid_because(value, key, &why),
                Wrong::Bounds(low, high) => Errors::out_of_bounds(value, low, high, key),
                Wrong::UnknownKey => Errors::invalid_key(key, SELF, &why),
            }
        })
        .collect()
}

/// Where annotations of a revision do nothing they must not stand.
pub fn no_revision_settings(map: &Map) -> Errors {
    let misplaced = |prefix: &'static str, word: &str| -> Errors {
        let why = format!(r#"{word} annotations must be put under "spec.template.metadata.annotations" to work"#);
        map.keys().filter(|key| key.starts_with(prefix)).map(|key| Errors::invalid_key(key, SELF, &why)).collect()
    };
    [
        misplaced(GROUP, "autoscaling"),
        misplaced(activation::PREFIX, "activator"),
        misplaced(extras::PREFIX, "autoscaler"),
    ]
    .into_iter()
    .collect()
}

/// `serving.knative.dev/rollout-duration` and the like: whole seconds, not negative.
pub fn whole_seconds(map: &Map, keys: &[&str], word: &str) -> Errors {
    let Some((key, value)) = keys.iter().find_map(|k| map.get(*k).map(|v| (*k, v))) else { return Errors::none() };
    if value.is_empty() {
        return Errors::none();
    }
    match GoDuration::parse(value) {
        None => Errors::invalid(value, key),
        Some(d) if d.nanos % SECOND != 0 => Errors::new(format!("{word}={value} is not at second precision"), &[key]),
        Some(d) if d.nanos < 0 => Errors::new(format!("{word}={value} must be positive"), &[key]),
        Some(_) => Errors::none(),
    }
}

/// Rollout of Services and Routes.
pub fn rollout_duration(map: &Map) -> Errors {
    whole_seconds(map, &[serving::ROLLOUT_DURATION, serving::ROLLOUT_DURATION_OLD], "rollout-duration")
}

/// Deadline of a revision.
pub fn progress_deadline(map: &Map) -> Errors {
    whole_seconds(map, &[serving::PROGRESS_DEADLINE], "progress-deadline")
}

/// Resources of queue-proxy.
pub fn queue_sidecar(map: &Map) -> Errors {
    const PREFIX: &str = "queue.sidecar.serving.knative.dev/";
    let mut errors = Errors::none();
    let percentage = [format!("{PREFIX}resource-percentage"), format!("{PREFIX}resourcePercentage")];
    if let Some((key, value)) = percentage.iter().find_map(|k| map.get(k).map(|v| (k, v))) {
        match value.parse::<f64>() {
            Err(_) => errors.add(Errors::invalid(value, SELF).via_key(key)),
            Ok(n) if !(0.1..=100.0).contains(&n) => {
                errors.add(Errors::out_of_bounds(n, 0.1, 100, SELF).via_key(key));
            }
            Ok(_) => {}
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        for what in ["request", "limit"] {
            let key = format!("{PREFIX}{name}-resource-{what}");
            if let Some(value) = map.get(&key).filter(|v| !is_quantity(v)) {
                errors.add(Errors::invalid(value, SELF).via_key(&key));
            }
        }
    }
    errors
}

/// Creator never changes; the modifier changes only with the spec.
pub fn creator_and_modifier(old: &Map, new: &Map, same_spec: bool) -> Errors {
    let mut errors = Errors::none();
    if old.get(serving::CREATOR) != new.get(serving::CREATOR) {
        errors.add(Errors::new("annotation value is immutable", &[serving::CREATOR]));
    }
    let (before, after) = (old.get(serving::LAST_MODIFIER), new.get(serving::LAST_MODIFIER));
    if same_spec && before != after {
        errors.add(Errors::invalid(after.map_or("", String::as_str), serving::LAST_MODIFIER));
    }
    errors
}

fn class(map: &Map) -> Errors {
    match keys::CLASS.get(map) {
        Some((key, v)) if v.ends_with(".knative.dev") && v != KPA_CLASS && v != HPA_CLASS => Errors::invalid(v, key),
        _ => Errors::none(),
    }
}

/// A whole number, at least 0; 0 where absent or wrong.
fn count(map: &Map, annotation: Annotation, errors: &mut Errors) -> i32 {
    let Some((key, value)) = annotation.get(map) else { return 0 };
    let wrong = match value.parse::<i64>() {
        Ok(n) => match i32::try_from(n) {
            Ok(n) if n >= 0 => return n,
            _ => Errors::out_of_bounds(value, 0, i32::MAX, key),
        },
        Err(e) if matches!(e.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow) => {
            Errors::out_of_bounds(value, 0, i32::MAX, key)
        }
        Err(_) => Errors::invalid(value, key),
    };
    errors.add(wrong);
    0
}

fn scale_bounds(map: &Map, defaults: &Autoscaler) -> Errors {
    let mut errors = Errors::none();
    let min = count(map, keys::MIN_SCALE, &mut errors);
    let max = count(map, keys::MAX_SCALE, &mut errors);
    if max != 0 && max < min {
        let message = format!("max-scale={max} is less than min-scale={min}");
        errors.add(Errors::new(message, &[keys::MAX_SCALE.key, keys::MIN_SCALE.key]));
    }
    if let (Some((key, _)), limit) = (keys::MAX_SCALE.get(map), defaults.max_scale_limit)
        && limit != 0
    {
        if max > limit {
            errors.add(Errors::out_of_bounds(max, 1, limit, key));
        }
        if max == 0 {
            errors.add(Errors::new(format!("max-scale=0 (unlimited), must be less than {limit}"), &[key]));
        }
    }
    if let Some((key, value)) = keys::ACTIVATION_SCALE.get(map) {
        errors.add(match value.parse::<i32>() {
            Err(_) => Errors::invalid(value, key),
            Ok(n) if min > n => Errors::new(format!("min-scale={min} is greater than activation-scale={n}"), &[key]),
            Ok(n) if max < n && max != 0 => {
                Errors::new(format!("max-scale={max} is less than activation-scale={n}"), &[key])
            }
            Ok(n) if n < 2 => Errors::new(format!("activation-scale={n} must be greater than 1"), &[key]),
            Ok(_) => Errors::none(),
        });
    }
    errors
}

fn floats(map: &Map) -> Errors {
    let mut errors = Errors::none();
    let bounded = [
        (keys::PANIC_WINDOW_PERCENTAGE, 1.0, 100.0),
        (keys::PANIC_THRESHOLD_PERCENTAGE, 110.0, 1000.0),
        (keys::TARGET_UTILIZATION_PERCENTAGE, 1.0, 100.0),
    ];
    for (annotation, low, high) in bounded {
        let Some((key, value)) = annotation.get(map) else { continue };
        match value.parse::<f64>() {
            Err(_) => errors.add(Errors::invalid(value, key)),
            Ok(n) if n < low || n > high => errors.add(Errors::out_of_bounds(value, low, high, key)),
            Ok(_) => {}
        }
    }
    if let Some((key, value)) = keys::TARGET.get(map) {
        match value.parse::<f64>() {
            Err(_) => errors.add(Errors::invalid(value, key)),
            Ok(n) if n < 0.01 => errors.add(Errors::new(format!("target {value} should be at least 0.01"), &[key])),
            Ok(_) => {}
        }
    }
    if let Some((key, value)) = keys::TARGET_BURST_CAPACITY.get(map) {
        let good = value.parse::<f64>().is_ok_and(|n| n >= 0.0 || (n + 1.0).abs() < f64::EPSILON);
        if !good {
            errors.add(Errors::invalid(value, key));
        }
    }
    errors
}

fn duration_up_to_an_hour(map: &Map, annotation: Annotation, whole_seconds: bool) -> Errors {
    let Some((key, value)) = annotation.get(map) else { return Errors::none() };
    match GoDuration::parse(value) {
        None => Errors::invalid(value, key),
        Some(d) if d.nanos < 0 || d.nanos > HOUR => Errors::out_of_bounds(value, "0s", WINDOW_MAX, key),
        Some(d) if whole_seconds && d.nanos % SECOND != 0 => {
            Errors::new("must be specified with at most second precision", &[key])
        }
        Some(_) => Errors::none(),
    }
}

fn window(map: &Map) -> Errors {
    let Some((_, value)) = keys::WINDOW.get(map) else { return Errors::none() };
    let key = keys::WINDOW.key;
    match GoDuration::parse(value) {
        None => Errors::invalid(value, key),
        Some(d) if d.nanos < 6 * SECOND || d.nanos > HOUR => Errors::out_of_bounds(value, WINDOW_MIN, WINDOW_MAX, key),
        Some(d) if d.nanos % SECOND != 0 => Errors::new("must be specified with at most second precision", &[key]),
        Some(_) => Errors::none(),
    }
}

fn metric(map: &Map, defaults: &Autoscaler) -> Errors {
    let Some(metric) = keys::METRIC.value(map) else { return Errors::none() };
    let good = match keys::CLASS.value(map).unwrap_or(&defaults.pod_autoscaler_class) {
        KPA_CLASS => metric == "concurrency" || metric == "rps",
        HPA_CLASS => !metric.is_empty(),
        _ => true,
    };
    if good { Errors::none() } else { Errors::invalid(metric, keys::METRIC.key) }
}

fn algorithm(map: &Map) -> Errors {
    if keys::CLASS.value(map) != Some(KPA_CLASS) {
        return Errors::none();
    }
    match keys::METRIC_AGGREGATION_ALGORITHM.get(map) {
        Some((key, v)) if !["", "linear", "weighted-exponential", "weightedExponential"].contains(&v) => {
            Errors::invalid(v, key)
        }
        _ => Errors::none(),
    }
}

fn initial_scale(map: &Map, defaults: &Autoscaler) -> Errors {
    let Some((key, value)) = keys::INITIAL_SCALE.get(map) else { return Errors::none() };
    match value.parse::<i64>() {
        Err(_) => Errors::invalid(value, key),
        Ok(n) if n < 0 => Errors::invalid(value, &format!("{key} must be greater than 0")),
        Ok(0) if !defaults.allow_zero_initial_scale => {
            Errors::invalid(value, &format!("{key}=0 not allowed by cluster"))
        }
        Ok(_) => Errors::none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)]) -> String {
        let map = pairs.iter().map(|(k, v)| (format!("{GROUP}/{k}"), (*v).to_owned())).collect();
        scaling(&map, &Autoscaler::default()).to_string().replace("autoscaling.knative.dev/", "")
    }

    #[test]
    fn good_annotations_pass() {
        for good in [
            vec![],
            vec![("min-scale", "2"), ("max-scale", "2")],
            vec![("minScale", "1"), ("maxScale", "0")],
            vec![("class", "my.class"), ("metric", "anything")],
            vec![("class", HPA_CLASS), ("metric", "cpu")],
            vec![("window", "1h"), ("scale-down-delay", "0s"), ("scaleToZeroPodRetentionPeriod", "60m")],
            vec![("target", "0.01"), ("target-burst-capacity", "-1"), ("panic-threshold-percentage", "110")],
            vec![("activation-scale", "3"), ("min-scale", "2"), ("max-scale", "3")],
            vec![("initial-scale", "1")],
            vec![("class", KPA_CLASS), ("metric-aggregation-algorithm", "weightedExponential")],
        ] {
            assert_eq!(check(&good), "", "{good:?}");
        }
    }

    #[test]
    fn upstream_s72_is_refused_in_its_words() {
        let max = i32::MAX;
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("min-scale", "-1")], &format!("expected 0 <= -1 <= {max}: min-scale")),
            (&[("min-scale", "2147483648")], &format!("expected 0 <= 2147483648 <= {max}: min-scale")),
            (&[("min-scale", "foo")], "invalid value: foo: min-scale"),
            (&[("min-scale", "4"), ("max-scale", "2")], "max-scale=2 is less than min-scale=4: max-scale, min-scale"),
            (&[("maxScale", "foo")], "invalid value: foo: maxScale"),
            (&[("scale-down-delay", "-1s")], "expected 0s <= -1s <= 1h0m0s: scale-down-delay"),
            (&[("scale-down-delay", "61m")], "expected 0s <= 61m <= 1h0m0s: scale-down-delay"),
            (&[("scale-down-delay", "1.5s")], "must be specified with at most second precision: scale-down-delay"),
            (
                &[("scale-to-zero-pod-retention-period", "later")],
                "invalid value: later: scale-to-zero-pod-retention-period",
            ),
            (&[("panic-window-percentage", "0.1")], "expected 1 <= 0.1 <= 100: panic-window-percentage"),
            (&[("panic-threshold-percentage", "109")], "expected 110 <= 109 <= 1000: panic-threshold-percentage"),
            (&[("target-utilization-percentage", "0")], "expected 1 <= 0 <= 100: target-utilization-percentage"),
            (&[("target", "0")], "target 0 should be at least 0.01: target"),
            (&[("target-burst-capacity", "-2")], "invalid value: -2: target-burst-capacity"),
            (&[("window", "0s")], "expected 6s <= 0s <= 1h0m0s: window"),
            (&[("window", "365h")], "expected 6s <= 365h <= 1h0m0s: window"),
            (&[("window", "62.5s")], "must be specified with at most second precision: window"),
            (&[("window", "jerry-was-a-racecar-driver")], "invalid value: jerry-was-a-racecar-driver: window"),
            (&[("class", "unknown.knative.dev")], "invalid value: unknown.knative.dev: class"),
            (&[("metric", "memory")], "invalid value: memory: metric"),
            (&[("class", HPA_CLASS), ("metric", "")], "invalid value: : metric"),
            (
                &[("class", KPA_CLASS), ("metric-aggregation-algorithm", "x")],
                "invalid value: x: metric-aggregation-algorithm",
            ),
            (&[("initial-scale", "0")], "invalid value: 0: initial-scale=0 not allowed by cluster"),
            (&[("initial-scale", "-6")], "invalid value: -6: initial-scale must be greater than 0"),
            (&[("initial-scale", "x")], "invalid value: x: initial-scale"),
            (&[("activation-scale", "1")], "activation-scale=1 must be greater than 1: activation-scale"),
            (
                &[("activation-scale", "2"), ("min-scale", "3")],
                "min-scale=3 is greater than activation-scale=2: activation-scale",
            ),
            (
                &[("activation-scale", "5"), ("max-scale", "4")],
                "max-scale=4 is less than activation-scale=5: activation-scale",
            ),
        ];
        for (pairs, want) in cases {
            assert_eq!(check(pairs), *want, "{pairs:?}");
        }
    }

    #[test]
    fn activator_annotations_are_judged_like_the_others() {
        let of = |key: &str, v: &str| {
            let key = format!("{}{key}", activation::PREFIX);
            super::activation(&Map::from([(key, v.into())])).to_string().replace(activation::PREFIX, "")
        };
        assert_eq!(of("queue-length", "100"), "");
        assert_eq!(of("queue-length", "0"), "expected 1 <= 0 <= 1000000: queue-length");
        assert_eq!(of("queue-timeout", "2h"), "expected 1ms <= 2h <= 1h: queue-timeout");
        assert_eq!(of("fair-share", "me"), "invalid value: me: fair-share\nwant ip, or header:NAME");
        assert_eq!(of("queue-size", "1"), "invalid key name \"queue-size\": \nthere is no such annotation");
    }

    #[test]
    fn annotations_beyond_upstream_are_judged_too() {
        let of = |key: &str, v: &str| {
            let key = format!("{}{key}", extras::PREFIX);
            super::scaling_extras(&Map::from([(key, v.into())])).to_string().replace(extras::PREFIX, "")
        };
        assert_eq!(of("keep-warm", "0 7 * * 1-5 for 11h min 2"), "");
        assert_eq!(of("learned-keep-warm", "yes"), "invalid value: yes: learned-keep-warm\nwant true or false");
        assert!(of("prometheus-query", "up").ends_with("means nothing without prometheus-address"));
        assert_eq!(of("keep-cold", "1"), "invalid key name \"keep-cold\": \nthere is no such annotation");
    }

    #[test]
    fn limits_of_the_cluster_hold() {
        let limited = Autoscaler { max_scale_limit: 10, ..Autoscaler::default() };
        let of = |v: &str| scaling(&Map::from([(keys::MAX_SCALE.key.into(), v.into())]), &limited).to_string();
        assert!(of("10").is_empty());
        assert!(of("11").starts_with("expected 1 <= 11 <= 10"));
        assert!(of("0").starts_with("max-scale=0 (unlimited), must be less than 10"));
    }

    #[test]
    fn other_durations_are_whole_seconds() {
        let of = |v: &str| rollout_duration(&Map::from([(serving::ROLLOUT_DURATION.into(), v.into())])).to_string();
        assert_eq!(of("60s"), "");
        assert_eq!(
            of("1.5s"),
            "rollout-duration=1.5s is not at second precision: serving.knative.dev/rollout-duration"
        );
        assert_eq!(of("-5s"), "rollout-duration=-5s must be positive: serving.knative.dev/rollout-duration");
        assert_eq!(of("soon"), "invalid value: soon: serving.knative.dev/rollout-duration");
    }
}
