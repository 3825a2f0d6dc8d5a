//! What a pod's row says: the real server's `printPod`, for READY, STATUS and RESTARTS.
use jiff::Timestamp;
use serde_json::Value;

use super::age;

fn statuses<'v>(pod: &'v Value, list: &str) -> impl DoubleEndedIterator<Item = &'v Value> {
    pod["status"][list].as_array().into_iter().flatten()
}

fn count(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

/// `1/2`.
pub(crate) fn ready(pod: &Value, _: Timestamp) -> Value {
    let ready = statuses(pod, "containerStatuses").filter(|status| status["ready"] == true).count();
    format!("{ready}/{}", count(&pod["spec"]["containers"])).into()
}

/// `3 (5m ago)`.
pub(crate) fn restarts(pod: &Value, now: Timestamp) -> Value {
    let total: i64 =
        statuses(pod, "containerStatuses").map(|status| status["restartCount"].as_i64().unwrap_or(0)).sum();
    let last = statuses(pod, "containerStatuses")
        .filter_map(|status| status["lastState"]["terminated"]["finishedAt"].as_str())
        .max();
    match last {
        Some(time) if total > 0 => format!("{total} ({} ago)", age::of(time, now)).into(),
        _ => total.to_string().into(),
    }
}

/// `Running`, `CrashLoopBackOff`, `Terminating`, …
pub(crate) fn status(pod: &Value, _: Timestamp) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut reason = text(&pod["status"]["phase"]);
    let own = text(&pod["status"]["reason"]);
    if !own.is_empty() {
        reason = own;
    }
    let mut initializing = false;
    let total = count(&pod["spec"]["initContainers"]);
    for (index, status) in statuses(pod, "initContainerStatuses").enumerate() {
        let state = &status["state"];
        let (ended, waiting) = (&state["terminated"], text(&state["waiting"]["reason"]));
        if ended.is_object() && ended["exitCode"].as_i64().unwrap_or(0) == 0 {
            continue;
        }
        reason = if ended.is_object() {
            format!("Init:{}", ended_reason(ended))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{total}")
        };
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        for status in statuses(pod, "containerStatuses").rev() {
            let state = &status["state"];
            let waiting = text(&state["waiting"]["reason"]);
            if !waiting.is_empty() {
                reason = waiting;
            } else if state["terminated"].is_object() {
                reason = ended_reason(&state["terminated"]);
            } else if status["ready"] == true && state["running"].is_object() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            let is_ready = pod["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            reason = String::from(if is_ready { "Running" } else { "NotReady" });
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        reason = String::from("Terminating");
    }
    reason.into()
}

fn ended_reason(ended: &Value) -> String {
    match (ended["reason"].as_str(), ended["signal"].as_i64()) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statuses_as_kubectl_shows_them() {
        let pod =
            |status: Value| json!({ "spec": { "containers": [{}, {}], "initContainers": [{}] }, "status": status });
        let cases = [
            (json!({ "phase": "Pending" }), "Pending"),
            (
                json!({ "phase": "Pending", "containerStatuses": [{ "state": { "waiting": { "reason": "ImagePullBackOff" } } }] }),
                "ImagePullBackOff",
            ),
            (
                json!({ "phase": "Running", "containerStatuses": [{ "ready": true, "state": { "running": {} } }] }),
                "Running",
            ),
            (
                json!({ "phase": "Failed", "containerStatuses": [{ "state": { "terminated": { "exitCode": 3 } } }] }),
                "ExitCode:3",
            ),
            (json!({ "phase": "Pending", "initContainerStatuses": [{ "state": { "running": {} } }] }), "Init:0/1"),
        ];
        for (value, want) in cases {
            assert_eq!(status(&pod(value.clone()), Timestamp::UNIX_EPOCH), want, "{value}");
        }
        let mut going =
            pod(json!({ "phase": "Running", "containerStatuses": [{ "ready": true }, { "restartCount": 2 }] }));
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(status(&going, Timestamp::UNIX_EPOCH), "Terminating");
        assert_eq!(ready(&going, Timestamp::UNIX_EPOCH), "1/2");
        assert_eq!(restarts(&going, Timestamp::UNIX_EPOCH), "2");
    }
}
