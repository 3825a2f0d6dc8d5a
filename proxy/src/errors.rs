//! Every answer a hop makes itself: one enum → status, body, and the header that says which hop made it and why.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::deadline::Limit;
use crate::pool::SendError;

/// Why a hop answers instead of the user's code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A shape that two parsers could read differently, or that is no HTTP.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// A request head longer, or of more lines, than is taken.
    #[error("request header too large")]
    HeadTooLarge,
    /// Slots and waiting places are all taken.
    #[error("pending request queue full")]
    QueueFull,
    /// One of the request timeouts; the text is the hop's (upstream's differ).
    #[error("{text} ({limit})")]
    Timeout {
        /// Which of the three.
        limit: Limit,
        /// The body.
        text: &'static str,
    },
    /// No connection to the target could be opened.
    #[error("{0}")]
    Dial(String),
    /// The connection to the target broke or spoke no HTTP.
    #[error("{0}")]
    Target(String),
    /// The two sides did not agree on the protocol to switch to.
    #[error("the two sides do not agree on the protocol to upgrade to")]
    Upgrade,
    /// Anything else a hop has to say.
    #[error("{body}")]
    Other {
        /// The status.
        status: StatusCode,
        /// The word after `reason=`.
        reason: &'static str,
        /// The body, sent as it is.
        body: Cow<'static, str>,
        /// `Retry-After` in seconds.
        retry_after: Option<u32>,
    },
}

impl Fault {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::QueueFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Dial(_) | Self::Target(_) | Self::Upgrade => StatusCode::BAD_GATEWAY,
            Self::Other { status, .. } => *status,
        }
    }

    /// The stable word for logs, metrics and the error header.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::HeadTooLarge => "header-too-large",
            Self::QueueFull => "queue-full",
            Self::Timeout { limit, .. } => limit.reason(),
            Self::Dial(_) => "dial",
            Self::Target(_) => "target",
            Self::Upgrade => "upgrade-mismatch",
            Self::Other { reason, .. } => reason,
        }
    }

    /// The body of the answer. Upstream's error texts end with a newline, its timeout text does not.
    pub fn body(&self) -> Cow<'static, str> {
        match self {
            Self::BadRequest(why) => format!("400 Bad Request: {why}\n").into(),
            Self::HeadTooLarge => "431 Request Header Fields Too Large\n".into(),
            Self::QueueFull => "pending request queue full\n".into(),
            Self::Timeout { text, .. } => (*text).into(),
            Self::Dial(text) | Self::Target(text) => format!("{text}\n").into(),
            Self::Upgrade => format!("{self}\n").into(),
            Self::Other { body, .. } => body.clone(),
        }
    }

    /// The answer, signed by the hop that makes it (`queue-proxy`, `activator`).
    pub fn response(&self, hop: &str) -> Response<Body> {
        let body = self.body();
        let plain_text = !body.is_empty();
        let mut response = Response::new(match body {
            Cow::Borrowed(text) => Body::full(text),
            Cow::Owned(text) => Body::full(text),
        });
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if plain_text {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            if !matches!(self, Self::Timeout { .. }) {
                headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            }
        }
        if let Self::Other { retry_after: Some(seconds), .. } = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        headers.insert(api::headers::ERROR, error_header(hop, self.reason()));
        if matches!(self, Self::BadRequest(_)) {
            headers.insert(HeaderName::from_static("connection"), HeaderValue::from_static("close"));
        }
        response
    }
}

/// The value of `Dormouse-Error`: which hop, and why.
pub fn error_header(hop: &str, reason: &str) -> HeaderValue {
    HeaderValue::try_from(format!("{hop}; reason={reason}")).unwrap_or(HeaderValue::from_static("unknown"))
}

impl From<&SendError> for Fault {
    fn from(error: &SendError) -> Self {
        if error.is_dial() { Self::Dial(error.to_string()) } else { Self::Target(error.to_string()) }
    }
}

impl From<SendError> for Fault {
    fn from(error: SendError) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_status_hop_and_reason() {
        let timeout = Fault::Timeout { limit: Limit::Total, text: "request timeout" };
        let table = [
            (Fault::QueueFull, 503, "pending request queue full\n", "queue-proxy; reason=queue-full", true),
            (timeout, 504, "request timeout", "queue-proxy; reason=timeout", false),
            (Fault::Dial("no".into()), 502, "no\n", "queue-proxy; reason=dial", true),
            (
                Fault::Other { status: StatusCode::NOT_FOUND, reason: "no-route", body: "".into(), retry_after: None },
                404,
                "",
                "queue-proxy; reason=no-route",
                false,
            ),
        ];
        for (fault, status, body, header, nosniff) in table {
            let response = fault.response("queue-proxy");
            assert_eq!(response.status(), status, "{fault}");
            assert_eq!(fault.body(), body);
            assert_eq!(response.headers()[api::headers::ERROR], header);
            assert_eq!(response.headers().contains_key(X_CONTENT_TYPE_OPTIONS), nosniff);
            assert_eq!(response.headers().contains_key(CONTENT_TYPE), !body.is_empty());
        }
    }
}
