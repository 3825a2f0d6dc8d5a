//! The request log: one line per request on stdout, by a Go template from the configuration.
//!
//! The line is made when the last byte of the answer is out. Probes are left out unless asked for. A template that
//! does not parse turns the log off; one that fails on a request gives a fixed line instead.

mod fields;
mod headers;
mod number;
mod template;
mod value;
pub mod writer;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::HOST;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use hyper::body::Body;
use proxy::Peer;

use crate::Identity;
use fields::{Answered, Asked, Facts, Field};
use number::push_float;
pub use template::TemplateError;
use template::{Begun, Template};
use value::into_text;
use writer::Writer;

/// Used when the log is on and no template is given.
pub use api::settings::DEFAULT_REQUEST_LOG_TEMPLATE as DEFAULT_TEMPLATE;

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
    let identity = Identity { revision: "revision".into(), pod: "pod".into(), ..Identity::default() };
    let log = Arc::new(RequestLog::of(Template::parse(template)?, false, true, Arc::new(Writer::none())));
    let mut request = Request::new(String::new());
    let headers = request.headers_mut();
    headers.insert(HOST, http::HeaderValue::from_static("app.example"));
    headers.insert(
        "traceparent",
        http::HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    );
    let peer = Peer::new(([127, 0, 0, 1], 1).into());
    let mut entry =
        log.arrive(&request, &peer, false, &Arc::new(identity)).ok_or_else(|| TemplateError::new("not logged"))?;
    entry.answers(StatusCode::OK);
    let mut line = Vec::new();
    entry.line(&mut line)?;
    Ok(into_text(line))
}

/// A line in the making that has grown beyond this is given back.
const SPARE_BYTES: usize = 16 << 10;

thread_local! {
    /// The line in the making; here, so that not every line takes memory of its own.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A log by one template. Threads share it; a new template is a new log on the same [`Writer`].
#[derive(Debug)]
pub struct RequestLog {
    template: Template<Field>,
    probes: bool,
    trace_ids: bool,
    writer: Arc<Writer>,
}

impl RequestLog {
    /// A log on stdout; `None` if none is wanted or the template cannot be used, which is said once.
    pub fn start(settings: Option<&Settings>) -> Option<Arc<Self>> {
        // No thread before it is needed.
        settings.filter(|settings| !settings.template.is_empty())?;
        let writer = Writer::new(io::stdout())
            .inspect_err(|error| tracing::error!(%error, "request log off: no thread to write it"))
            .ok()?;
        Self::on(settings, true, &Arc::new(writer))
    }

    /// A log on a writer; `None` as with [`RequestLog::start`]. Without `trace_ids`, `.TraceID` is empty in every line, as
    /// it is in upstream's activator.
    pub fn on(settings: Option<&Settings>, trace_ids: bool, writer: &Arc<Writer>) -> Option<Arc<Self>> {
        let settings = settings.filter(|settings| !settings.template.is_empty())?;
        let template = Template::parse(&settings.template)
            .inspect_err(|error| tracing::error!(%error, "request log off: the template does not parse"))
            .ok()?;
        Some(Arc::new(Self::of(template, settings.probes, trace_ids, Arc::clone(writer))))
    }

    fn of(template: Template<Field>, probes: bool, trace_ids: bool, writer: Arc<Writer>) -> Self {
        Self { template, probes, trace_ids, writer }
    }

    /// Notes a request at its arrival, if it is to be logged. `identity`: whose it is.
    pub fn arrive<B: Body>(
        self: &Arc<Self>,
        request: &Request<B>,
        peer: &Peer,
        probe: bool,
        identity: &Arc<Identity>,
    ) -> Option<Box<Entry>> {
        if probe && !self.probes {
            return None;
        }
        let length = request.body().size_hint().exact().map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
        let asked = Asked {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            length,
            peer: peer.address,
            trace_id: self.trace_ids,
        };
        let facts = Facts { identity, asked: Some(asked), answered: None };
        let (mut begun, failed) = match self.template.begin(&facts) {
            Ok(begun) => (begun, None),
            Err(error) => (Begun::default(), Some(error)),
        };
        begun.note(&asked.url());
        Some(Box::new(Entry {
            begun,
            failed,
            method: request.method().clone(),
            request: self.template.keeps_request().then(|| Box::new(Kept::of(&asked))),
            since: Instant::now(),
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            size: 0,
            identity: Arc::clone(identity),
            log: Arc::clone(self),
        }))
    }

    /// Writes a request's line, or says that there can be none by this template.
    fn write(&self, entry: &Entry) {
        let write = |line: &mut Vec<u8>| {
            line.clear();
            if let Err(error) = entry.line(line) {
                tracing::debug!(%error, "request log template");
                line.clear();
                entry.failed_line(line);
            }
            if !line.ends_with(b"\n") {
                line.push(b'\n');
            }
            self.writer.line(line);
            if line.capacity() > SPARE_BYTES {
                *line = Vec::new();
            }
        };
        // At the very end of a thread there is no such line any more; what is dropped then makes its own.
        if LINE.try_with(|line| write(&mut line.borrow_mut())).is_err() {
            write(&mut Vec::new());
        }
    }
}

/// One request; its line is written when this is dropped.
#[derive(Debug)]
pub struct Entry {
    log: Arc<RequestLog>,
    identity: Arc<Identity>,
    since: Instant,
    /// What the template takes from the request, filled in, and the URL, should a template fail.
    begun: Begun,
    failed: Option<TemplateError>,
    method: Method,
    /// The request itself, for the few templates that ask for it together with the answer.
    request: Option<Box<Kept>>,
    status: StatusCode,
    size: u64,
}

/// A copy of a request's head.
#[derive(Debug)]
struct Kept {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    length: i64,
    peer: SocketAddr,
    trace_id: bool,
}

impl Kept {
    fn of(asked: &Asked<'_>) -> Self {
        Self {
            method: asked.method.clone(),
            uri: asked.uri.clone(),
            version: asked.version,
            headers: asked.headers.clone(),
            length: asked.length,
            peer: asked.peer,
            trace_id: asked.trace_id,
        }
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.method,
            uri: &self.uri,
            version: self.version,
            headers: &self.headers,
            length: self.length,
            peer: self.peer,
            trace_id: self.trace_id,
        }
    }
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

    fn line(&self, out: &mut Vec<u8>) -> Result<(), TemplateError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let latency = self.since.elapsed().as_secs_f64();
        let facts = Facts {
            identity: &self.identity,
            asked: self.request.as_ref().map(|request| request.asked()),
            answered: Some(Answered { status: self.status, size: self.size, latency }),
        };
        self.log.template.finish(&self.begun, &facts, out)
    }

    fn failed_line(&self, out: &mut Vec<u8>) {
        let (method, code) = (&self.method, self.status.as_u16());
        let text = format!("Invalid request log template: method: {method}, response code: {code}, latency: ");
        out.extend_from_slice(text.as_bytes());
        push_float(out, self.since.elapsed().as_secs_f64());
        out.extend_from_slice(b", url: ");
        out.extend_from_slice(self.begun.noted());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log.write(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use std::io::Write;
    use std::sync::Mutex;

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
        let log = Arc::new(RequestLog::of(template, probes, true, Arc::new(Writer::new(sink.clone()).unwrap())));
        let mut request = Request::builder().method("GET").uri("/a?b=c").header("Host", "app.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let peer = Peer::new("192.0.2.1:99".parse().unwrap());
        if let Some(mut entry) = log.arrive(&request, &peer, probe, &Arc::new(identity)) {
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
            (
                "{{if eq .Response.Code 404}}{{.Request.Host}} {{index .Request.Header \"X-A\" 1}}{{end}}",
                "app.example 2\n",
            ),
            ("{{index .Request.Header \"x-a\"}}{{index .Request.Header \"Host\"}}", "[][]\n"),
            ("{{.Request.Header}}", "map[X-A:[1 2] X-B3-Traceid:[b3]]\n"),
        ] {
            assert_eq!(logged(template, false, false, headers), line, "{template}");
        }
        for fails in
            ["{{.Request.Nope}}", "{{.Request.Host}}{{index .Response.Code 1}}", "a{{index .Request.Header 1}}"]
        {
            let failed = logged(fails, false, false, &[]);
            assert!(failed.starts_with("Invalid request log template: method: GET, response code: 404, latency: "));
            assert!(failed.ends_with(", url: /a?b=c\n"), "{failed}");
        }
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
    fn trace_ids_can_be_kept_back() {
        let settings = Settings { template: "<{{.TraceID}}>{{.Revision.Name}}".into(), probes: false };
        let sink = Sink::default();
        let writer = Arc::new(Writer::new(sink.clone()).unwrap());
        let log = RequestLog::on(Some(&settings), false, &writer).unwrap();
        let request = Request::get("/").header("traceparent", "00-abc-def-01").body(Empty::<bytes::Bytes>::new());
        let identity = Identity { revision: "rev".into(), ..Identity::default() };
        drop(log.arrive(&request.unwrap(), &Peer::new(([127, 0, 0, 1], 1).into()), false, &Arc::new(identity)));
        drop((log, writer));
        assert_eq!(*sink.0.lock().unwrap(), b"<>rev\n");
    }

    #[test]
    fn an_answer_that_broke_is_a_500_without_size() {
        let sink = Sink::default();
        let template = Template::parse("{{.Response.Code}} {{.Response.Size}}").unwrap();
        let log = Arc::new(RequestLog::of(template, false, true, Arc::new(Writer::new(sink.clone()).unwrap())));
        let peer = Peer::new("192.0.2.1:99".parse().unwrap());
        let request = Request::new(Empty::<bytes::Bytes>::new());
        let mut entry = log.arrive(&request, &peer, false, &Arc::default()).unwrap();
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
