//! The request log: one line per request on stdout, by a Go template from `OBSERVABILITY_CONFIG`.
//!
//! The line is made when the last byte of the answer is out. Probes are left out unless asked for. A template that
//! does not parse turns the log off; one that fails on a request gives a fixed line instead.

mod template;
mod value;
pub(crate) mod writer;

use std::io::{self, Write};
use std::rc::Rc;
use std::time::Instant;

use http::header::{HOST, REFERER, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Version};
use hyper::body::Body;
use proxy::Peer;

use crate::config::Identity;
pub use template::TemplateError;
use template::{Data, Template};
use value::Value;
use writer::Writer;

/// Used when the log is on and no template is given.
pub const DEFAULT_TEMPLATE: &str = concat!(
    r#"{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", "#,
    r#""requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "#,
    r#""responseSize": "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", "#,
    r#""remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", "#,
    r#""referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "#,
    r#""protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}"#,
);

/// What is wanted of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The template; empty means no lines.
    pub template: String,
    /// Whether probes are logged too.
    pub probes: bool,
}

/// The line that a template makes of a made-up request: to try a template before it is rolled out.
pub fn sample(template: &str) -> Result<String, TemplateError> {
    let template = Template::parse(template)?;
    let identity = Identity { revision: "revision".into(), pod: "pod".into(), ..Identity::default() };
    let log = Rc::new(RequestLog { template, probes: false, identity, writer: Writer::none() });
    let mut request = Request::new(String::new());
    let headers = request.headers_mut();
    headers.insert(HOST, http::HeaderValue::from_static("app.example"));
    headers.insert(
        "traceparent",
        http::HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    );
    let peer = Peer::new(([127, 0, 0, 1], 1).into());
    let mut entry = log.arrive(&request, &peer, false).ok_or_else(|| TemplateError::new("not logged"))?;
    entry.answers(StatusCode::OK);
    log.template.render(&*entry)
}

/// The log of a pod.
#[derive(Debug)]
pub struct RequestLog {
    template: Template,
    probes: bool,
    identity: Identity,
    writer: Writer,
}

impl RequestLog {
    /// A log on stdout; `None` if none is wanted or the template cannot be used, which is said once.
    pub fn start(settings: Option<&Settings>, identity: &Identity) -> Option<Rc<Self>> {
        let settings = settings.filter(|settings| !settings.template.is_empty())?;
        let template = Template::parse(&settings.template)
            .inspect_err(|error| tracing::error!(%error, "request log off: the template does not parse"))
            .ok()?;
        Self::to(template, settings.probes, identity, io::stdout())
            .inspect_err(|error| tracing::error!(%error, "request log off"))
            .ok()
    }

    fn to(
        template: Template,
        probes: bool,
        identity: &Identity,
        sink: impl Write + Send + 'static,
    ) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self { template, probes, identity: identity.clone(), writer: Writer::new(sink)? }))
    }

    /// Notes a request at its arrival, if it is to be logged.
    pub fn arrive<B: Body>(self: &Rc<Self>, request: &Request<B>, peer: &Peer, probe: bool) -> Option<Box<Entry>> {
        if probe && !self.probes {
            return None;
        }
        let uri = request.uri();
        let mut headers = request.headers().clone();
        let host = uri.authority().map(|authority| authority.as_str().to_string());
        let host = host.unwrap_or_else(|| text(&headers, &HOST));
        // Go keeps Host out of the headers; the original host is not for the user.
        headers.remove(HOST);
        headers.remove(api::headers::ORIGINAL_HOST);
        Some(Box::new(Entry {
            log: Rc::clone(self),
            since: Instant::now(),
            method: request.method().to_string(),
            uri: uri.path_and_query().map_or_else(|| uri.to_string(), ToString::to_string),
            path: uri.path().to_string(),
            query: uri.query().unwrap_or_default().to_string(),
            version: request.version(),
            length: request.body().size_hint().exact().map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
            host,
            headers,
            remote: peer.address.to_string(),
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            size: 0,
            latency: 0.0,
        }))
    }

    fn line(&self, entry: &Entry) {
        let mut line = self.template.render(entry).unwrap_or_else(|error| {
            tracing::debug!(%error, "request log template");
            format!(
                "Invalid request log template: method: {}, response code: {}, latency: {}, url: {}",
                entry.method,
                entry.status.as_u16(),
                Value::Float(entry.latency).print(),
                entry.uri
            )
        });
        if !line.ends_with('\n') {
            line.push('\n');
        }
        self.writer.line(line);
    }
}

/// One request; its line is written when this is dropped.
#[derive(Debug)]
pub struct Entry {
    log: Rc<RequestLog>,
    since: Instant,
    method: String,
    uri: String,
    path: String,
    query: String,
    version: Version,
    length: i64,
    host: String,
    headers: HeaderMap,
    remote: String,
    status: StatusCode,
    size: u64,
    latency: f64,
}

impl Entry {
    /// The status that goes to the client; 499 if it never gets one.
    pub fn answers(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// Body bytes went out.
    pub fn data(&mut self, bytes: usize) {
        self.size += bytes as u64;
    }

    /// The answer broke off.
    pub fn broken(&mut self) {
        (self.status, self.size) = (StatusCode::INTERNAL_SERVER_ERROR, 0);
    }

    fn proto(&self) -> &'static str {
        match self.version {
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }

    /// The trace that the request came with: W3C before B3.
    fn trace_id(&self) -> String {
        match text(&self.headers, "traceparent").split('-').nth(1) {
            Some(id) => id.to_string(),
            None => text(&self.headers, "x-b3-traceid"),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.latency = self.since.elapsed().as_secs_f64();
        let log = Rc::clone(&self.log);
        log.line(self);
    }
}

impl Data for Entry {
    fn field(&self, path: &[String], arguments: &[Value]) -> Option<Value> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let identity = &self.log.identity;
        Some(match (path.as_slice(), arguments) {
            (["Request", "Header", "Get"], [Value::Text(name)]) => Value::Text(text(&self.headers, name.as_str())),
            (_, [_, ..]) => return None,
            (["Request", "Method"], _) => Value::Text(self.method.clone()),
            (["Request", "RequestURI" | "URL"] | ["Request", "URL", "String"], _) => Value::Text(self.uri.clone()),
            (["Request", "URL", "Path"], _) => Value::Text(self.path.clone()),
            (["Request", "URL", "RawQuery"], _) => Value::Text(self.query.clone()),
            (["Request", "URL", "Host" | "Scheme" | "Fragment"], _) => Value::Text(String::new()),
            (["Request", "Proto"], _) => Value::Text(self.proto().into()),
            (["Request", "ProtoMajor"], _) => Value::Int(if self.version == Version::HTTP_2 { 2 } else { 1 }),
            (["Request", "ProtoMinor"], _) => Value::Int(i64::from(self.version == Version::HTTP_11)),
            (["Request", "Host"], _) => Value::Text(self.host.clone()),
            (["Request", "ContentLength"], _) => Value::Int(self.length),
            (["Request", "TransferEncoding"], _) => Value::List(lines(&self.headers, "transfer-encoding")),
            (["Request", "RemoteAddr"], _) => Value::Text(self.remote.clone()),
            (["Request", "UserAgent"], _) => Value::Text(text(&self.headers, USER_AGENT)),
            (["Request", "Referer"], _) => Value::Text(text(&self.headers, REFERER)),
            (["Request", "Header"], _) => {
                let names = self.headers.keys();
                Value::Headers(names.map(|name| (title_case(name.as_str()), lines(&self.headers, name))).collect())
            }
            (["Response", "Code"], _) => Value::Int(i64::from(self.status.as_u16())),
            (["Response", "Size"], _) => Value::Int(i64::try_from(self.size).unwrap_or(i64::MAX)),
            (["Response", "Latency"], _) => Value::Float(self.latency),
            (["Revision", "Name"], _) => Value::Text(identity.revision.clone()),
            (["Revision", "Namespace"], _) => Value::Text(identity.namespace.clone()),
            (["Revision", "Service"], _) => Value::Text(identity.service.clone()),
            (["Revision", "Configuration"], _) => Value::Text(identity.configuration.clone()),
            (["Revision", "PodName"], _) => Value::Text(identity.pod.clone()),
            (["Revision", "PodIP"], _) => Value::Text(identity.pod_ip.clone()),
            (["TraceID"], _) => Value::Text(self.trace_id()),
            _ => return None,
        })
    }
}

fn text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

fn lines(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Vec<String> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// Go's canonical form of a header name, by which templates ask.
fn title_case(name: &str) -> String {
    let mut up = true;
    name.chars()
        .map(|c| {
            let c = if up { c.to_ascii_uppercase() } else { c };
            up = c == '-';
            c
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(template: &str, probes: bool, probe: bool, headers: &[(&str, &str)]) -> String {
        let sink = Sink::default();
        let identity =
            Identity { revision: "rev".into(), pod: "pod1".into(), pod_ip: "10.0.0.1".into(), ..Identity::default() };
        let template = Template::parse(template).unwrap();
        let log = RequestLog::to(template, probes, &identity, sink.clone()).unwrap();
        let mut request = Request::builder().method("GET").uri("/a?b=c").header("Host", "app.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let peer = Peer::new("192.0.2.1:99".parse().unwrap());
        if let Some(mut entry) = log.arrive(&request, &peer, probe) {
            entry.answers(StatusCode::NOT_FOUND);
            entry.data(11);
        }
        drop(log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_default_template_is_one_line_of_json() {
        let line =
            logged(DEFAULT_TEMPLATE, false, false, &[("user-agent", "ua \"x\""), ("traceparent", "00-abc-def-01")]);
        let json: serde_json::Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
        let request = &json["httpRequest"];
        for (key, value) in [
            ("requestMethod", "GET"),
            ("requestUrl", "/a?b=c"),
            ("requestSize", "0"),
            ("responseSize", "11"),
            ("userAgent", "ua \"x\""),
            ("remoteIp", "192.0.2.1:99"),
            ("serverIp", "10.0.0.1"),
            ("referer", ""),
            ("protocol", "HTTP/1.1"),
        ] {
            assert_eq!(request[key], value, "{key}");
        }
        assert_eq!(request["status"], 404);
        assert!(request["latency"].as_str().unwrap().ends_with('s'));
        assert_eq!(json["traceId"], "abc");
    }

    #[test]
    fn fields() {
        let headers = &[("x-a", "1"), ("x-a", "2"), ("k-original-host", "o"), ("x-b3-traceid", "b3")];
        for (template, line) in [
            ("{{.Revision.Name}}/{{.Revision.PodName}}", "rev/pod1\n"),
            ("{{.Request.Host}} {{index .Request.Header \"X-A\"}}\n", "app.example [1 2]\n"),
            ("{{.Request.Header.Get \"x-a\"}}{{.Request.Header.Get \"Host\"}}", "1\n"),
            ("{{.Request.Header.Get \"K-Original-Host\"}}{{.Request.URL.Path}}", "/a\n"),
            ("{{.TraceID}}", "b3\n"),
            ("{{if eq .Response.Code 404}}lost{{end}}", "lost\n"),
        ] {
            assert_eq!(logged(template, false, false, headers), line, "{template}");
        }
        let failed = logged("{{.Request.Nope}}", false, false, &[]);
        assert!(failed.starts_with("Invalid request log template: method: GET, response code: 404, latency: "));
        assert!(failed.ends_with(", url: /a?b=c\n"));
    }

    #[test]
    fn a_template_can_be_tried() {
        assert_eq!(sample("{{.Request.Host}} {{.Response.Code}}").unwrap(), "app.example 200");
        assert!(sample("{{").is_err() && sample("{{.Nope}}").is_err());
    }

    #[test]
    fn trace_ids() {
        for (headers, id) in [
            (&[("traceparent", "00-abc-def-01"), ("x-b3-traceid", "b3")][..], "abc\n"),
            (&[("x-b3-traceid", "b3")], "b3\n"),
            (&[("traceparent", "invalid")], "\n"),
            (&[("traceparent", "00")], "\n"),
            (&[], "\n"),
        ] {
            assert_eq!(logged("{{.TraceID}}", false, false, headers), id);
        }
    }

    #[test]
    fn an_answer_that_broke_is_a_500_without_size() {
        let sink = Sink::default();
        let template = Template::parse("{{.Response.Code}} {{.Response.Size}}").unwrap();
        let log = RequestLog::to(template, false, &Identity::default(), sink.clone()).unwrap();
        let peer = Peer::new("192.0.2.1:99".parse().unwrap());
        let mut entry = log.arrive(&Request::new(Empty::<bytes::Bytes>::new()), &peer, false).unwrap();
        entry.answers(StatusCode::OK);
        entry.data(11);
        entry.broken();
        drop((entry, log));
        assert_eq!(*sink.0.lock().unwrap(), b"500 0\n");
    }

    #[test]
    fn probes_only_with_the_switch() {
        assert_eq!(logged("x", false, true, &[]), "");
        assert_eq!(logged("x", true, true, &[]), "x\n");
    }
}
