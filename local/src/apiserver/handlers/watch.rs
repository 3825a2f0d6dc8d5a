//! `watch`: a stream of changes.
//!
//! Each change was serialised once by the store; a watcher that wants objects as they are stored is sent those very
//! bytes. A watcher too slow for its buffer is closed by the store and resumes from its last resourceVersion.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Call, Reply, Shape, reply_bytes};
use crate::apiserver::body::Body;
use crate::apiserver::convert;
use crate::apiserver::errors::ApiError;
use crate::apiserver::registry::Resource;
use crate::apiserver::selector::Filter;
use crate::apiserver::server::Server;
use crate::apiserver::store::{Event, Events, Happened, Start, Stored, WatchError};
use crate::apiserver::table;

/// How often a watcher that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lives when the client does not say; jittered up to twice this, so that they do not end together.
const LIFETIME: Duration = Duration::from_mins(30);

struct Watch {
    server: Arc<Server>,
    view: View,
    events: Events,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
}

struct View {
    resource: Arc<Resource>,
    shape: Shape,
    include: String,
    /// The next table event is the first, which carries the column definitions.
    headed: bool,
}

/// Starts a watch.
pub(crate) fn watch(server: &Arc<Server>, call: &Call) -> Result<Reply, ApiError> {
    let (resource, options) = (&call.resource, &call.options);
    let mut fields = options.field_selector.clone();
    if let Some(name) = &call.path.name {
        fields = format!("metadata.name={name}");
    }
    let filter = Filter::parse(call.path.namespace.clone(), &options.label_selector, &fields, &resource.selectable)?;
    let asked = match options.resource_version.as_str() {
        "" | "0" => None,
        text => Some(text.parse::<u64>().map_err(|_| {
            ApiError::bad_request(format!(
                "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })?),
    };
    let start = match (options.initial_events, asked) {
        (Some(true), _) | (None, None) => Start::Everything,
        (Some(false), None) => Start::Now,
        (_, Some(version)) => Start::After(version),
    };
    let (first, version, events) =
        server.store.watch(&resource.collection, filter, start).map_err(|error| match error {
            WatchError::Expired { oldest } => ApiError::expired(asked.unwrap_or(0), oldest),
            WatchError::TooMany => ApiError::too_many("too many watches are open"),
        })?;
    let lifetime = options
        .timeout_seconds
        .map_or_else(|| LIFETIME + Duration::from_secs(fastrand::u64(0..LIFETIME.as_secs())), Duration::from_secs);
    let mut view = View {
        resource: resource.clone(),
        shape: call.shape,
        include: options.get("includeObject").unwrap_or("Metadata").to_owned(),
        headed: false,
    };
    let mut head: Vec<Bytes> = first.iter().map(|stored| view.line_of(Happened::Added, stored)).collect();
    if options.initial_events == Some(true) {
        head.push(view.bookmark(version, true));
    }
    let now = Instant::now();
    let watch = Watch {
        server: server.clone(),
        view,
        events,
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        ends: now + lifetime,
    };
    let head = stream::iter(head);
    let tail = stream::unfold(watch, |mut watch| async move { watch.next().await.map(|line| (line, watch)) });
    Ok(reply_bytes(200, Body::Stream(Box::pin(futures::StreamExt::chain(head, tail)))))
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let wake = if self.bookmarks { self.next_bookmark.min(self.ends) } else { self.ends };
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    let (seen, event) = event?;
                    return Some(self.view.line(seen, &event));
                }
                () = self.server.stopping.cancelled() => return None,
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.ends {
                        return None;
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    // The version is read before looking into the channel: an empty channel then means that
                    // everything up to that version has been sent.
                    let version = self.server.store.resource_version();
                    if self.events.is_empty() {
                        return Some(self.view.bookmark(version, false));
                    }
                }
            }
        }
    }
}

impl View {
    /// The line for an event; the shared bytes when nothing about it is special to this watcher.
    fn line(&mut self, seen: Happened, event: &Event) -> Bytes {
        if self.shape == Shape::Object && seen == event.happened && convert::is_identity(&self.resource) {
            return event.line.clone();
        }
        self.line_of(seen, &event.object)
    }

    fn line_of(&mut self, seen: Happened, stored: &Stored) -> Bytes {
        if self.shape == Shape::Object {
            let json = convert::json(&self.resource, stored);
            let mut line = Vec::with_capacity(json.len() + 40);
            line.extend_from_slice(br#"{"type":""#);
            line.extend_from_slice(seen.word().as_bytes());
            line.extend_from_slice(br#"","object":"#);
            line.extend_from_slice(&json);
            line.extend_from_slice(b"}\n");
            return line.into();
        }
        let object = convert::value(&self.resource, stored);
        let object = if self.shape == Shape::Table {
            let version = object["metadata"]["resourceVersion"].clone();
            let columns = !std::mem::replace(&mut self.headed, true);
            table::render(&self.resource, [object].into_iter(), &self.include, &version, columns)
        } else {
            convert::metadata_only(object)
        };
        to_line(seen.word(), &object)
    }

    fn bookmark(&self, version: u64, initial: bool) -> Bytes {
        let mut metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let bare = |kind: &str, version: &str| json!({ "kind": kind, "apiVersion": version, "metadata": metadata });
        let object = match self.shape {
            Shape::Object => bare(&self.resource.kind, &self.resource.api_version()),
            Shape::Metadata => bare("PartialObjectMetadata", "meta.k8s.io/v1"),
            Shape::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": version.to_string() },
                "columnDefinitions": null,
                "rows": [{ "cells": [], "object": bare("PartialObjectMetadata", "meta.k8s.io/v1") }],
            }),
        };
        to_line("BOOKMARK", &object)
    }
}

fn to_line(word: &str, object: &Value) -> Bytes {
    format!("{{\"type\":\"{word}\",\"object\":{object}}}\n").into()
}
