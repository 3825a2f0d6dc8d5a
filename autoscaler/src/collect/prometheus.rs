//! Load from a Prometheus server: one instant query, one number (HTTP API, "Instant queries"). Over plain HTTP only; who
//! may be asked is the revision's owner's business, as with any address a container could ask itself.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Empty;
use serde::Deserialize;

use super::http as client;

/// A query may take this long.
const TIMEOUT: Duration = Duration::from_secs(4);
/// An answer of one number is far below.
const MAX_ANSWER: usize = 16 << 10;

/// Why there is no number.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("bad address {0:?}")]
    Address(String),
    /// The name leads nowhere.
    #[error("cannot resolve {0:?}: {1}")]
    Resolve(String, std::io::Error),
    /// No answer.
    #[error(transparent)]
    Http(#[from] client::Error),
    /// The request could not be built.
    #[error("bad request: {0}")]
    Request(#[from] http::Error),
    /// An answer that is no single number.
    #[error("want one number, got {0}")]
    Answer(String),
}

/// Asks for the present value of `query`.
pub async fn load(address: &str, query: &str) -> Result<f64, Error> {
    tokio::time::timeout(TIMEOUT, ask(address, query)).await.map_err(|_| client::Error::Timeout)?
}

async fn ask(address: &str, query: &str) -> Result<f64, Error> {
    let bad = || Error::Address(address.to_owned());
    let uri: Uri = address.parse().map_err(|_| bad())?;
    let host = uri.host().ok_or_else(bad)?;
    let authority = uri.authority().ok_or_else(bad)?.as_str();
    let port = uri.port_u16().unwrap_or(80);
    let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
    let mut found = found.map_err(|error| Error::Resolve(host.to_owned(), error))?;
    let socket: SocketAddr = found.next().ok_or_else(bad)?;
    let path = format!("{}/api/v1/query?query={}", uri.path().trim_end_matches('/'), encode(query));
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let mut connection = client::connect(socket).await?;
    let response = client::exchange(&mut connection, request, MAX_ANSWER, TIMEOUT).await?;
    if !response.status().is_success() {
        return Err(Error::Answer(format!("status {}", response.status())));
    }
    number(response.body())
}

/// Percent-encoding of a query's value (RFC 3986, §2.1).
fn encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar((f64, String)),
    Vector(Vec<Sample>),
}

#[derive(Deserialize)]
struct Sample {
    value: (f64, String),
}

/// The one number of an answer. An empty vector is a load of zero: nothing was counted.
fn number(json: &[u8]) -> Result<f64, Error> {
    let answer: Answer = serde_json::from_slice(json).map_err(|error| Error::Answer(error.to_string()))?;
    let text = match answer.data {
        Data::Scalar((_, text)) => text,
        Data::Vector(samples) => match <[Sample; 1]>::try_from(samples) {
            Ok([sample]) => sample.value.1,
            Err(samples) if samples.is_empty() => return Ok(0.0),
            Err(samples) => return Err(Error::Answer(format!("{} series", samples.len()))),
        },
    };
    text.parse().ok().filter(|n: &f64| n.is_finite()).ok_or(Error::Answer(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_wanted() {
        let of = |data: &str| number(format!(r#"{{"status":"success","data":{data}}}"#).as_bytes());
        let vector = |values: &str| of(&format!(r#"{{"resultType":"vector","result":[{values}]}}"#));
        let sample = r#"{"metric":{"a":"b"},"value":[1.5,"7.25"]}"#;
        assert_eq!(vector(sample).ok(), Some(7.25));
        assert_eq!(vector("").ok(), Some(0.0));
        assert_eq!(of(r#"{"resultType":"scalar","result":[1,"3"]}"#).ok(), Some(3.0));
        assert!(vector(&format!("{sample},{sample}")).unwrap_err().to_string().contains("2 series"));
        assert!(of(r#"{"resultType":"scalar","result":[1,"NaN"]}"#).is_err());
        assert!(of(r#"{"resultType":"matrix","result":[]}"#).is_err());
        assert!(number(b"<html>").is_err());
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode(r#"sum(a{b="ü"}) + 1"#), "sum%28a%7Bb%3D%22%C3%BC%22%7D%29%20%2B%201");
    }
}
