//! The smallest client that can be timed: one blocking socket, one request at a time.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// An answer with the time its first byte took.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) first_byte: Duration,
}

/// A kept-alive connection.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(stream))
    }

    /// One GET; the clock starts before the request is written.
    pub(crate) fn get(&mut self, host: &str, path: &str) -> anyhow::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let started = Instant::now();
        self.0.write_all(request.as_bytes())?;
        let mut bytes = Vec::with_capacity(1024);
        let mut buffer = [0; 16 * 1024];
        let mut first_byte = Duration::ZERO;
        loop {
            let n = self.0.read(&mut buffer)?;
            if bytes.is_empty() {
                first_byte = started.elapsed();
            }
            bytes.extend_from_slice(&buffer[..n]);
            if let Some(answer) = parse(&bytes, n == 0)? {
                let (status, body) = answer;
                return Ok(Answer { status, body, first_byte });
            }
        }
    }
}

/// One GET on a connection of its own.
pub(crate) fn get(to: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    Connection::open(to)?.get(host, path)
}

/// The status and the body, once all of it is there.
fn parse(bytes: &[u8], ended: bool) -> anyhow::Result<Option<(u16, Vec<u8>)>> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        if ended {
            bail!("the connection ended in the middle of an answer's head");
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).context("the answer's head is not text")?.to_ascii_lowercase();
    let body = &bytes[end + 4..];
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).context("no status line")?;
    let header = |name: &str| head.lines().find_map(|l| Some(l.split_once(':')?).filter(|(n, _)| *n == name));
    if let Some((_, length)) = header("content-length") {
        let length: usize = length.trim().parse().context("bad content-length")?;
        if body.len() >= length {
            return Ok(Some((status, body[..length].to_vec())));
        }
    } else if header("transfer-encoding").is_some() {
        if let Some(decoded) = dechunk(body) {
            return Ok(Some((status, decoded)));
        }
    } else if ended {
        return Ok(Some((status, body.to_vec())));
    }
    if ended {
        bail!("the connection ended in the middle of a body");
    }
    Ok(None)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_complete_only_at_their_end() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", false).unwrap().is_none());
        let whole = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false).unwrap();
        assert_eq!(whole, Some((200, b"abc".to_vec())));
        let chunked = b"HTTP/1.1 404 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(parse(chunked, false).unwrap(), Some((404, b"abc".to_vec())));
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", true).is_err());
    }
}
