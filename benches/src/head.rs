//! Just enough HTTP/1 to count messages at full speed: where a head ends and how long its body is.
//!
//! Not a parser for strangers: load and backend speak it with programs under test only, and what it does not know is
//! an error and never a guess.

use anyhow::{Context, bail};

/// The head of a request or an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// Request line or status line.
    pub(crate) first_line: &'a [u8],
    /// Bytes up to and with the empty line.
    pub(crate) length: usize,
    /// Bytes of the body that follows.
    pub(crate) content_length: usize,
}

impl<'a> Head<'a> {
    /// The head at the start of these bytes, once all of it is there.
    pub(crate) fn parse(bytes: &'a [u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
        let mut lines = bytes[..end].split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first_line = lines.next().unwrap_or_default();
        let mut content_length = 0;
        for line in lines {
            let Some(colon) = line.iter().position(|b| *b == b':') else { bail!("a header line without a colon") };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let text = std::str::from_utf8(value).context("bad content-length")?;
                content_length = text.parse().context("bad content-length")?;
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                bail!("a body of unknown length, where all lengths are known");
            }
        }
        Ok(Some(Self { first_line, length: end + 4, content_length }))
    }

    /// An answer's status; 0 when the line holds none.
    pub(crate) fn status(&self) -> u16 {
        let code = self.first_line.split(|b| *b == b' ').nth(1).unwrap_or_default();
        std::str::from_utf8(code).ok().and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// A request's path.
    pub(crate) fn path(&self) -> &'a [u8] {
        self.first_line.split(|b| *b == b' ').nth(1).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_there_only_as_a_whole() {
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n").unwrap(), None);
        let head = Head::parse(b"HTTP/1.1 200 OK\r\ncontent-LENGTH:  3 \r\nA: b\r\n\r\nabc").unwrap().unwrap();
        assert_eq!((head.status(), head.length, head.content_length), (200, 46, 3));
    }

    #[test]
    fn a_request_may_have_no_body() {
        let head = Head::parse(b"GET /mib HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.path(), head.content_length), (b"/mib".as_slice(), 0));
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        for bad in ["A: 1\r\nTransfer-Encoding: chunked", "Content-Length: x", "Content-Length: -1", "no colon"] {
            assert!(Head::parse(format!("HTTP/1.1 200 OK\r\n{bad}\r\n\r\n").as_bytes()).is_err(), "{bad}");
        }
    }
}
