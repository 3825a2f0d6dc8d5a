//! One connection to a pod's stats port. Thousands of these are kept, and each carries one small request a second: a
//! general HTTP client would cost ten times the memory and several times the CPU of this.
//!
//! It knows what queue-proxies answer (a status, a type, a length, a short body) and calls everything else an error.

use std::{net::SocketAddr, time::Duration};

use api::stat::{CONTENT_TYPE, MAX_SCRAPE_BYTES, Stat};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Room for an answer as they mostly are.
const FIRST_READ: usize = 512;
/// Longest answer: head and report.
const MAX_ANSWER: usize = 2048;
/// Most lines of a head.
const MAX_HEADERS: usize = 24;

/// Why a pod gave no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("cannot talk to {0}: {1}")]
    Io(SocketAddr, std::io::Error),
    /// It took too long.
    #[error("no answer from {0} in time")]
    Timeout(SocketAddr),
    /// A mesh answered in the pod's place.
    #[error("status {0}: a mesh does not let us through")]
    Mesh(u16),
    /// An answer that is no report.
    #[error("answer is no report: {0}")]
    NoStat(String),
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Pod {
    stream: TcpStream,
    address: SocketAddr,
}

impl Pod {
    /// Connects.
    pub async fn connect(address: SocketAddr, patience: Duration) -> Result<Self, Error> {
        let connected = tokio::time::timeout(patience, TcpStream::connect(address)).await;
        let stream = connected.map_err(|_| Error::Timeout(address))?.map_err(|error| Error::Io(address, error))?;
        // A request is one write; where this fails it is only slower.
        drop(stream.set_nodelay(true));
        Ok(Self { stream, address })
    }

    /// Asks for the report; whether the connection can be kept comes with it.
    pub async fn ask(&mut self, request: &[u8], patience: Duration) -> Result<(Stat, bool), Error> {
        let asked = tokio::time::timeout(patience, self.exchange(request)).await;
        asked.map_err(|_| Error::Timeout(self.address))?
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<(Stat, bool), Error> {
        let io = |error| Error::Io(self.address, error);
        self.stream.write_all(request).await.map_err(io)?;
        // On the heap, and only now: thousands of these wait for their turn, and a buffer in each would be most of it.
        let mut bytes = Vec::with_capacity(FIRST_READ);
        loop {
            let read = self.stream.read_buf(&mut bytes).await.map_err(io)?;
            match parse(&bytes)? {
                Some(answer) => return Ok(answer),
                None if read == 0 || bytes.len() > MAX_ANSWER => {
                    return Err(Error::NoStat("it ends too early, or is too long".to_owned()));
                }
                None => {}
            }
        }
    }
}

/// The head of an answer.
pub(super) struct Head {
    /// Where its body begins.
    pub(super) end: usize,
    /// What of it matters here.
    pub(super) content_type: String,
    /// Length of the body, where it is told.
    length: Option<usize>,
    /// The body comes in chunks.
    pub(super) chunked: bool,
    /// The connection can be kept.
    keeps: bool,
}

/// The head of an answer that is good; `None` while there is more to come.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, Error> {
    let no = |what: &dyn std::fmt::Display| Error::NoStat(what.to_string());
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(bytes).map_err(|error| no(&error))? else { return Ok(None) };
    match head.code.unwrap_or(0) {
        status @ (502 | 503) => return Err(Error::Mesh(status)),
        status if !(200..300).contains(&status) => return Err(no(&format_args!("status {status}"))),
        _ => {}
    }
    let value = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let closes = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Head {
        end,
        content_type: value("content-type").unwrap_or_default().to_owned(),
        length: value("content-length").and_then(|text| text.parse().ok()),
        chunked: value("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")),
        // HTTP/1.0 keeps nothing unless asked.
        keeps: !closes && head.version == Some(1),
    }))
}

/// The report in an answer and whether the connection can be kept; `None` while there is more to come.
pub fn parse(bytes: &[u8]) -> Result<Option<(Stat, bool)>, Error> {
    let no = |what: &dyn std::fmt::Display| Error::NoStat(what.to_string());
    let Some(head) = head(bytes)? else { return Ok(None) };
    if head.content_type != CONTENT_TYPE {
        return Err(no(&format_args!("content type {:?}", head.content_type)));
    }
    let length = head.length.ok_or_else(|| no(&"no length"))?;
    if length > MAX_SCRAPE_BYTES {
        return Err(no(&format_args!("{length} bytes")));
    }
    let Some(body) = bytes.get(head.end..head.end + length) else { return Ok(None) };
    let stat = Stat::decode(body).map_err(|error| no(&error))?;
    // Bytes that nobody asked for are a sign of confusion.
    Ok(Some((stat, head.keeps && bytes.len() == head.end + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, headers: &str, body: &[u8]) -> Result<Option<(Stat, bool)>, Error> {
        let mut bytes = format!("HTTP/1.1 {status} X\r\n{headers}\r\n").into_bytes();
        bytes.extend(body);
        parse(&bytes)
    }

    const REPORT: &str = "Content-Type: application/protobuf\r\nContent-Length: 3\r\n";

    #[test]
    fn s55_only_a_report_is_a_report() {
        assert!(matches!(of(200, REPORT, b"\x0a\x01p"), Ok(Some((stat, true))) if stat.pod_name == "p"));
        assert!(matches!(of(200, REPORT, b"\x0a"), Ok(None)), "more to come");
        let closes = format!("{REPORT}Connection: close\r\n");
        assert!(matches!(of(200, &closes, b"\x0a\x01p"), Ok(Some((_, false)))));
        assert!(matches!(of(503, REPORT, b""), Err(Error::Mesh(503))));
        let plain = "Content-Type: text/html\r\nContent-Length: 0\r\n";
        let odd = "Content-Type: application/protobuf; x\r\nContent-Length: 0\r\n";
        let long = "Content-Type: application/protobuf\r\nContent-Length: 337\r\n";
        for (status, headers, body) in
            [(403, REPORT, &b"\x0a\x01p"[..]), (200, plain, b""), (200, odd, b""), (200, long, b"")]
        {
            assert!(matches!(of(status, headers, body), Err(Error::NoStat(_))), "{status} {headers}");
        }
        assert!(of(200, REPORT, b"\x0a\xffp").is_err());
        assert!(parse(b"not HTTP at all\r\n\r\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            drop(parse(&bytes));
        }
    }
}
