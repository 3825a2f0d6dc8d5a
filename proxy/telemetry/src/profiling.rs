//! Port 8008: a CPU profile of the process for whoever debugs it, in the paths and the format of Go's `net/http/pprof`.
//!
//! For those who asked for it in the configuration only, which is the caller's part. While nobody asks, it is a listener and nothing else: the signal handler
//! and its buffers exist as long as a profile is taken (the buffers stay). What Go has and this process has not
//! (goroutines, its heap, its tracer) is a 404 that says so.

mod profile;
#[cfg(feature = "profiling")]
mod sampler;

use std::time::Duration;

use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use proxy::Body;
use tokio::sync::Semaphore;
#[cfg(not(feature = "profiling"))]
use tokio::sync::SemaphorePermit;

/// If the caller does not say, as in Go.
const DEFAULT_SECONDS: u64 = 30;
/// The longest profile.
const MAX_SECONDS: u64 = 120;

const INDEX: &str = "/debug/pprof/

profile?seconds=N  CPU profile of N seconds (30 if not said, at most 120), one at a time; for `go tool pprof`
cmdline            the command line, arguments separated by NUL
";

/// One profile at a time: the signal and its handler are the process's.
static TURN: Semaphore = Semaphore::const_new(1);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Page {
    Index,
    CommandLine,
    Profile(Duration),
    /// A page that Go has and that has no meaning here.
    Foreign(String),
    None,
}

impl Page {
    fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let Some(name) = path.strip_prefix("/debug/pprof/") else { return Self::None };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Self::None;
        }
        match name {
            "" => Self::Index,
            "cmdline" => Self::CommandLine,
            "profile" => Self::Profile(seconds(query.unwrap_or_default())),
            "allocs" | "block" | "goroutine" | "heap" | "mutex" | "symbol" | "threadcreate" | "trace" => {
                Self::Foreign(name.into())
            }
            _ => Self::None,
        }
    }
}

/// `seconds=N`; anything else than a number from 1 means the default, as in Go.
fn seconds(query: &str) -> Duration {
    let said = query.split('&').find_map(|pair| pair.strip_prefix("seconds="));
    let seconds = said.and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_SECONDS);
    Duration::from_secs(seconds.min(MAX_SECONDS))
}

/// Answers a request to the port. Dropping the future ends a profile that is being taken.
pub async fn answer<B>(request: Request<B>) -> Response<Body> {
    let uri = request.uri();
    match Page::of(request.method(), uri.path(), uri.query()) {
        Page::Index => text(StatusCode::OK, INDEX),
        Page::CommandLine => {
            let arguments: Vec<String> = std::env::args_os().map(|text| text.to_string_lossy().into()).collect();
            text(StatusCode::OK, arguments.join("\0"))
        }
        Page::Profile(length) => profile_for(length).await,
        Page::Foreign(name) => text(
            StatusCode::NOT_FOUND,
            format!("{name}: nothing of the kind in this process, which is not Go; there is profile and cmdline\n"),
        ),
        Page::None => not_found(),
    }
}

/// The answer of a port that has nothing to show.
pub fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

async fn profile_for(length: Duration) -> Response<Body> {
    let Ok(turn) = TURN.try_acquire() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "another profile is being taken, try again later\n");
    };
    match take(length, turn).await {
        Ok(bytes) => {
            let mut response = Response::new(Body::full(bytes));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"profile\""));
            response
        }
        Err(error) => {
            tracing::warn!(error, "no profile");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("no profile: {error}\n"))
        }
    }
}

#[cfg(feature = "profiling")]
use sampler::take;

/// Stands in for the sampler in a build without it.
#[cfg(not(feature = "profiling"))]
fn take(_length: Duration, _turn: SemaphorePermit<'static>) -> std::future::Ready<Result<Vec<u8>, String>> {
    std::future::ready(Err("this program is built without the feature `profiling`".into()))
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let profile = |seconds| Page::Profile(Duration::from_secs(seconds));
        for (path, query, expected) in [
            ("/debug/pprof/", None, Page::Index),
            ("/debug/pprof", None, Page::None),
            ("/debug/pprof/cmdline", None, Page::CommandLine),
            ("/debug/pprof/profile", None, profile(30)),
            ("/debug/pprof/profile", Some("seconds=5"), profile(5)),
            ("/debug/pprof/profile", Some("debug=1&seconds=7"), profile(7)),
            ("/debug/pprof/profile", Some("seconds=0"), profile(30)),
            ("/debug/pprof/profile", Some("seconds=-1"), profile(30)),
            ("/debug/pprof/profile", Some("seconds=99999999"), profile(120)),
            ("/debug/pprof/heap", None, Page::Foreign("heap".into())),
            ("/debug/pprof/nothing", None, Page::None),
            ("/metrics", None, Page::None),
        ] {
            assert_eq!(Page::of(&Method::GET, path, query), expected, "{path} {query:?}");
        }
        assert_eq!(Page::of(&Method::POST, "/debug/pprof/profile", None), Page::None);
    }
}
