//! What a revision of the HPA class should have. Pure.

use api::{
    autoscaling::{PodAutoscaler, PodAutoscalerStatus},
    labels::autoscaling as keys,
    settings,
};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::{
    algorithm::{
        RevisionScaling,
        condition::{self, ACTIVE, SCALE_TARGET_INITIALIZED, SKS_READY, Sks},
    },
    moment::Moment,
};

/// No limit, in the words of a HorizontalPodAutoscaler.
const UNLIMITED: i32 = i32::MAX;

/// The HorizontalPodAutoscaler.
pub fn horizontal(pa: &PodAutoscaler, settings: &settings::Autoscaler) -> Value {
    let scaling = RevisionScaling::resolve(pa.annotations(), 0, settings, &settings::Deployment::default());
    let target = &pa.spec.scale_target_ref;
    let mut spec = json!({
        "maxReplicas": if scaling.max_scale > 0 { scaling.max_scale } else { UNLIMITED },
        "scaleTargetRef": { "apiVersion": target.api_version, "kind": target.kind, "name": target.name },
    });
    if scaling.min_scale > 0 {
        spec["minReplicas"] = json!(scaling.min_scale);
    }
    if let Some(metric) = metric(pa) {
        spec["metrics"] = json!([metric]);
    }
    let window = keys::WINDOW.value(pa.annotations()).and_then(|text| api::duration::parse(text).ok());
    if let Some(window) = window {
        let rule = json!({ "stabilizationWindowSeconds": window.as_secs() });
        spec["behavior"] = json!({ "scaleDown": rule, "scaleUp": rule });
    }
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": pa.name_any(), "namespace": pa.namespace(), "labels": pa.metadata.labels,
            "annotations": pa.metadata.annotations, "ownerReferences": pa.controller_owner_ref(&()).map(|owner| vec![owner]),
        },
        "spec": spec,
    })
}

/// The metric, only where a target says how much of it.
fn metric(pa: &PodAutoscaler) -> Option<Value> {
    let annotations = pa.annotations();
    let target: f64 = keys::TARGET.value(annotations)?.parse().ok().filter(|t: &f64| t.is_finite() && *t > 0.0)?;
    Some(match keys::METRIC.value(annotations).unwrap_or("cpu") {
        "cpu" => json!({ "type": "Resource", "resource": { "name": "cpu",
            "target": { "type": "Utilization", "averageUtilization": target.ceil() as i32 } } }),
        "memory" => json!({ "type": "Resource", "resource": { "name": "memory",
            "target": { "type": "AverageValue", "averageValue": format!("{}Mi", target as i64) } } }),
        custom => json!({ "type": "Pods", "pods": { "metric": { "name": custom },
            "target": { "type": "AverageValue", "averageValue": (target as i64).to_string() } } }),
    })
}

/// Whether an object has all that is wanted; the API server's defaults may be there beside it.
pub fn covers(object: &Value, wanted: &Value) -> bool {
    match (object, wanted) {
        (_, Value::Null) => true,
        (Value::Object(object), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| covers(object.get(key).unwrap_or(&Value::Null), wanted))
        }
        (Value::Array(object), Value::Array(wanted)) => {
            object.len() == wanted.len() && object.iter().zip(wanted).all(|(object, wanted)| covers(object, wanted))
        }
        _ => object == wanted,
    }
}

/// Replicas that a HorizontalPodAutoscaler wants and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replicas {
    /// Wanted.
    pub desired: i32,
    /// There.
    pub current: i32,
}

/// The PodAutoscaler's status. It is always active: there is no zero.
pub fn status(
    pa: &PodAutoscaler,
    settings: &settings::Autoscaler,
    sks: Option<&Sks<'_>>,
    replicas: Replicas,
    now: Moment,
) -> PodAutoscalerStatus {
    let mut status = pa.status.clone().unwrap_or_default();
    let scaling = RevisionScaling::resolve(pa.annotations(), 0, settings, &settings::Deployment::default());
    let mut editor = condition::SET.manage(&mut status.conditions, now.timestamp());
    editor.initialize().mark_true(ACTIVE);
    match sks {
        None => {
            editor.mark_unknown(SKS_READY, "NotReady", "No Private Service Name");
        }
        Some(sks) => {
            match sks.ready {
                Ok(()) => editor.mark_true(SKS_READY),
                Err(message) => editor.mark_unknown(SKS_READY, "NotReady", message),
            };
            // The first pods count as had once: the Deployment starts with them.
            let threshold = scaling.min_scale.max(scaling.initial_scale);
            if sks.ready.is_ok() && replicas.current >= threshold {
                editor.mark_true(SCALE_TARGET_INITIALIZED);
            }
            status.service_name = sks.service_name.map(str::to_owned);
            status.metrics_service_name = Some(sks.private_service_name.to_owned());
        }
    }
    status.desired_scale = Some(replicas.desired);
    status.actual_scale = Some(replicas.current);
    status.observed_generation = pa.metadata.generation;
    status
}

#[cfg(test)]
mod tests {
    use api::{autoscaling::PodAutoscalerSpec, conditions};
    use kube::api::ObjectMeta;

    use super::*;

    fn pa(pairs: &[(&str, &str)]) -> PodAutoscaler {
        let annotations =
            pairs.iter().map(|(k, v)| (format!("autoscaling.knative.dev/{k}"), (*v).to_owned())).collect();
        PodAutoscaler {
            metadata: ObjectMeta {
                name: Some("rev".into()),
                namespace: Some("ns".into()),
                uid: Some("uid".into()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: PodAutoscalerSpec::default(),
            status: None,
        }
    }

    fn spec(pairs: &[(&str, &str)]) -> Value {
        horizontal(&pa(pairs), &settings::Autoscaler::default())["spec"].clone()
    }

    #[test]
    fn metrics_are_named_only_with_a_target() {
        assert_eq!(spec(&[("metric", "cpu")])["metrics"], Value::Null);
        let of = |metric, target| spec(&[("metric", metric), ("target", target)])["metrics"][0].clone();
        assert_eq!(of("cpu", "49.2")["resource"]["target"], json!({ "type": "Utilization", "averageUtilization": 50 }));
        assert_eq!(spec(&[("target", "50")])["metrics"][0]["resource"]["name"], "cpu", "the default");
        assert_eq!(of("memory", "75")["resource"]["target"]["averageValue"], "75Mi");
        assert_eq!(of("queue_depth", "5")["pods"]["metric"]["name"], "queue_depth");
    }

    #[test]
    fn bounds_and_window() {
        let free = spec(&[]);
        assert_eq!((&free["maxReplicas"], &free["minReplicas"]), (&json!(UNLIMITED), &Value::Null));
        let bound = spec(&[("min-scale", "2"), ("max-scale", "5"), ("window", "90s")]);
        assert_eq!((&bound["maxReplicas"], &bound["minReplicas"]), (&json!(5), &json!(2)));
        assert_eq!(bound["behavior"]["scaleUp"]["stabilizationWindowSeconds"], 90);
        assert_eq!(bound["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 90);
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let wanted = json!({ "a": 1, "b": [{ "c": "x" }], "n": null });
        assert!(covers(&json!({ "a": 1, "b": [{ "c": "x", "d": 2 }], "e": 3 }), &wanted));
        assert!(!covers(&json!({ "a": 2, "b": [{ "c": "x" }] }), &wanted));
        assert!(!covers(&json!({ "a": 1, "b": [] }), &wanted));
    }

    #[test]
    fn a_status_follows_the_replicas() {
        let settings = settings::Autoscaler::default();
        let sks = Sks { service_name: Some("rev"), private_service_name: "rev-private", ready: Ok(()) };
        let at = Moment::from_seconds(1);
        let none = status(&pa(&[]), &settings, None, Replicas::default(), at);
        assert!(conditions::is_true(&none.conditions, ACTIVE) && !conditions::is_true(&none.conditions, "Ready"));
        let few = status(&pa(&[("min-scale", "2")]), &settings, Some(&sks), Replicas { desired: 2, current: 1 }, at);
        assert!(!conditions::is_true(&few.conditions, SCALE_TARGET_INITIALIZED));
        let all = status(&pa(&[("min-scale", "2")]), &settings, Some(&sks), Replicas { desired: 3, current: 2 }, at);
        assert!(conditions::is_true(&all.conditions, "Ready"));
        assert_eq!((all.desired_scale, all.actual_scale), (Some(3), Some(2)));
    }
}
