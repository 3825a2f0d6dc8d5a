//! A collector for both protocols of OTLP, for the tests of whoever sends. It decodes with the messages that the
//! OpenTelemetry project publishes, so that a wrong field number of ours is seen.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use proxy::{Body, BoxError, Drain, ServerConfig};
use tokio::sync::Notify;

/// What has come, and what is answered.
#[derive(Clone, Default)]
pub struct Collector(Rc<Shared>);

#[derive(Default)]
struct Shared {
    calls: RefCell<Vec<Call>>,
    /// The HTTP status of answers, or for gRPC the status; 0 is success.
    fails_with: Cell<u16>,
    came: Notify,
}

/// One export.
#[derive(Clone)]
pub struct Call {
    pub version: Version,
    pub path: String,
    pub headers: HeaderMap,
    pub message: Bytes,
    pub taken: bool,
}

impl Collector {
    /// Listens at a free port.
    pub fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let at = collector.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ServerConfig::default());
        (collector, at)
    }

    /// Listens.
    pub fn listen(&self, at: SocketAddr, config: ServerConfig) -> SocketAddr {
        let listener = proxy::accept::bind(at, false).unwrap();
        let at = listener.local_addr().unwrap();
        let shared = Rc::clone(&self.0);
        tokio::task::spawn_local(proxy::serve(listener, config, Drain::default(), move |_peer| {
            let shared = Rc::clone(&shared);
            service_fn(move |request: http::Request<_>| {
                let shared = Rc::clone(&shared);
                async move {
                    let (head, body) = request.into_parts();
                    let body: Bytes =
                        BodyExt::collect(body).await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    Ok::<_, Infallible>(shared.take(&head, body))
                }
            })
        }));
        at
    }

    /// From now on exports fail with a status; 0 takes them again.
    pub fn fail_with(&self, status: u16) {
        self.0.fails_with.set(status);
    }

    /// All exports so far, refused ones too.
    pub fn calls(&self) -> Vec<Call> {
        self.0.calls.borrow().clone()
    }

    /// Waits until something holds for what has been taken.
    pub async fn until<T>(&self, found: impl Fn(&[Call]) -> Option<T>) -> T {
        loop {
            let came = self.0.came.notified();
            if let Some(found) = found(&self.calls()) {
                return found;
            }
            came.await;
        }
    }

    /// Waits for so many spans, by name.
    pub async fn spans(&self, count: usize) -> BTreeMap<String, Scoped> {
        self.until(|calls| {
            let spans = spans(calls);
            (spans.len() >= count).then_some(spans)
        })
        .await
        .into_iter()
        .map(|span| (span.span.name.clone(), span))
        .collect()
    }
}

impl Shared {
    fn take(&self, head: &http::request::Parts, body: Bytes) -> Response<Body> {
        let grpc = head.version == Version::HTTP_2;
        let message = if grpc { body.slice(5..) } else { body };
        let status = self.fails_with.get();
        self.calls.borrow_mut().push(Call {
            version: head.version,
            path: head.uri.path().to_string(),
            headers: head.headers.clone(),
            message,
            taken: status == 0,
        });
        self.came.notify_waiters();
        if !grpc {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = if status == 0 { StatusCode::OK } else { StatusCode::from_u16(status).unwrap() };
            return response;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(status));
        let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)].map(Ok::<_, BoxError>);
        Response::new(Body::boxed(StreamBody::new(futures::stream::iter(frames))))
    }
}

/// A span, who made it and for whom.
#[derive(Clone, Debug)]
pub struct Scoped {
    pub scope: String,
    pub resource: Vec<KeyValue>,
    pub span: Span,
}

impl Scoped {
    pub fn text(&self, name: &str) -> String {
        text(&self.span.attributes, name)
    }

    pub fn int(&self, name: &str) -> i64 {
        int(&self.span.attributes, name)
    }

    pub fn failed(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code == 2)
    }

    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }
}

/// The spans among some calls.
pub fn spans(calls: &[Call]) -> Vec<Scoped> {
    let traces = calls.iter().filter(|call| call.taken && (call.path.contains("race")));
    let requests = traces.map(|call| ExportTraceServiceRequest::decode(call.message.clone()).expect("no traces"));
    let mut spans = Vec::new();
    for of_resource in requests.flat_map(|request| request.resource_spans) {
        let resource = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        for of_scope in of_resource.scope_spans {
            let scope = of_scope.scope.map(|scope| scope.name).unwrap_or_default();
            spans.extend(of_scope.spans.into_iter().map(|span| Scoped {
                scope: scope.clone(),
                resource: resource.clone(),
                span,
            }));
        }
    }
    spans
}

/// The exports of metrics among some calls.
pub fn metrics(calls: &[Call]) -> Vec<ExportMetricsServiceRequest> {
    let metrics = calls.iter().filter(|call| call.taken && call.path.contains("etrics"));
    metrics.map(|call| ExportMetricsServiceRequest::decode(call.message.clone()).expect("no metrics")).collect()
}

fn value(attributes: &[KeyValue], name: &str) -> Option<Value> {
    attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value
}

/// A text attribute; empty if there is none.
pub fn text(attributes: &[KeyValue], name: &str) -> String {
    match value(attributes, name) {
        Some(Value::StringValue(text)) => text,
        None => String::new(),
        other => panic!("{name}: {other:?}"),
    }
}

/// A number attribute; -1 if there is none.
pub fn int(attributes: &[KeyValue], name: &str) -> i64 {
    match value(attributes, name) {
        Some(Value::IntValue(number)) => number,
        None => -1,
        other => panic!("{name}: {other:?}"),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
