//! `pods/log`: the log of one container, as text.
use futures::StreamExt as _;
use http::{HeaderValue, header};
use jiff::Timestamp;
use serde_json::Value;

use super::{Call, Reply, reply_bytes};
use crate::apiserver::body::Body;
use crate::apiserver::errors::ApiError;
use crate::apiserver::server::Server;
use crate::logs;

/// Opens the log the query asks for.
pub(crate) async fn read(server: &Server, call: &Call) -> Result<Reply, ApiError> {
    let stored = server.store.get(&call.resource.collection, &call.key()).ok_or_else(|| call.not_found())?;
    let pod = stored.value();
    let container = choose_container(&pod, call.options.get("container").unwrap_or_default())?;
    let query = query(call)?;
    let stream =
        logs::open(&server.pod_logs, &stored.meta.uid, &container, query).await.map_err(|error| match &error {
            logs::Error::NotStarted(_) | logs::Error::NoPrevious(_) => ApiError::bad_request(format!(
                "container {container:?} in pod {:?} is waiting to start or has no such log: {error}",
                call.name()
            )),
            logs::Error::Io { .. } => ApiError::internal(&error),
        })?;
    let pieces = stream
        .filter_map(|piece| async move { piece.inspect_err(|error| tracing::warn!(%error, "log broke off")).ok() });
    let stopping = server.stopping.clone();
    let pieces = pieces.take_until(async move { stopping.cancelled().await });
    let mut reply = reply_bytes(200, Body::Stream(Box::pin(pieces)));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(reply)
}

fn query(call: &Call) -> Result<logs::Query, ApiError> {
    let options = &call.options;
    let mut since = match options.get("sinceTime") {
        Some(text) => Some(
            text.parse::<Timestamp>()
                .map_err(|_| ApiError::bad_request(format!("sinceTime: Invalid value: {text:?}: must be RFC 3339")))?,
        ),
        None => None,
    };
    if let Some(seconds) = options.number::<i64>("sinceSeconds")? {
        since = Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok();
    }
    Ok(logs::Query {
        tail_lines: options.number("tailLines")?,
        since,
        limit_bytes: options.number("limitBytes")?,
        timestamps: options.flag("timestamps"),
        previous: options.flag("previous"),
        follow: options.flag("follow"),
    })
}

/// The container asked for; the only one when none is.
fn choose_container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = |list: &str| -> Vec<String> {
        pod["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    if asked.is_empty() {
        return match containers.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]{}",
                containers.join(" "),
                if init.is_empty() {
                    String::new()
                } else {
                    format!(" or one of the init containers: [{}]", init.join(" "))
                }
            ))),
        };
    }
    if containers.iter().chain(&init).any(|container| container == asked) {
        Ok(asked.to_owned())
    } else {
        Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
    }
}
