//! The connection to one pod that tells its load by itself (`api::stat::STREAM`). Thousands of these are held, mostly
//! silent: each is a socket, a few words of state, and no buffer.

use std::{io, net::SocketAddr, time::Duration};

use api::stat::{CONTENT_TYPE, HEARTBEAT, MAX_SCRAPE_BYTES, STREAM_CONTENT_TYPE, Stat};
use prost::Message;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::pod::{self, Error};

/// A pod that is silent for longer than this is frozen, or out of reach.
const SILENCE: Duration = Duration::from_secs(2 * HEARTBEAT.as_secs() + 5);
/// Longest head of an answer.
const MAX_HEAD: usize = 2048;
/// Any varint ends within so many bytes.
const VARINT: usize = 10;
/// Bytes taken at a time.
const READ: usize = 1024;

/// How listening to a pod ended.
#[derive(Debug)]
pub enum End {
    /// It does not tell by itself: an answer came, and that was all.
    Unable,
    /// The connection could not be had, or is lost.
    Lost(Error),
}

/// Sends `request` and gives each report to `told`, until the pod or the connection ends.
pub async fn follow<F>(address: SocketAddr, request: String, patience: Duration, mut told: impl FnMut(Stat) -> F) -> End
where
    F: Future<Output = ()>,
{
    let lost = |error| End::Lost(Error::Io(address, error));
    let stream = match timeout(patience, open(address, request)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return lost(error),
        Err(_) => return End::Lost(Error::Timeout(address)),
    };
    let mut answer = Answer::Head(Vec::new());
    // What one read brought; more than one report only if this side is slow.
    let mut stats = Vec::new();
    loop {
        match timeout(SILENCE, stream.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return lost(error),
            Err(_) => return End::Lost(Error::Timeout(address)),
        }
        let taken = take(&stream, &mut answer, &mut stats);
        for stat in stats.drain(..) {
            told(stat).await;
        }
        match taken {
            Ok(()) => {}
            Err(Stop::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(Stop::Io(error)) => return lost(error),
            Err(Stop::Unable) => return End::Unable,
            Err(Stop::Bad(error)) => return End::Lost(error),
        }
    }
}

async fn open(address: SocketAddr, request: String) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

enum Stop {
    Io(io::Error),
    Unable,
    Bad(Error),
}

enum Answer {
    Head(Vec<u8>),
    Body(Chunks),
}

/// Takes what is there. The buffer is on the stack, and nothing waits while it is.
fn take(stream: &TcpStream, answer: &mut Answer, stats: &mut Vec<Stat>) -> Result<(), Stop> {
    let mut buffer = [0; READ];
    let read = stream.try_read(&mut buffer).map_err(Stop::Io)?;
    if read == 0 {
        return Err(Stop::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    let bytes = &buffer[..read];
    match answer {
        Answer::Body(chunks) => chunks.take(bytes, stats).map_err(Stop::Bad),
        Answer::Head(head) => {
            head.extend_from_slice(bytes);
            let Some(parsed) = pod::head(head).map_err(Stop::Bad)? else {
                let bad = || Stop::Bad(Error::NoStat("a head without end".to_owned()));
                return if head.len() > MAX_HEAD { Err(bad()) } else { Ok(()) };
            };
            match parsed.content_type.as_str() {
                CONTENT_TYPE => return Err(Stop::Unable),
                STREAM_CONTENT_TYPE if parsed.chunked => {}
                other => return Err(Stop::Bad(Error::NoStat(format!("content type {other:?}")))),
            }
            let mut chunks = Chunks::default();
            chunks.take(&head[parsed.end..], stats).map_err(Stop::Bad)?;
            *answer = Answer::Body(chunks);
            Ok(())
        }
    }
}

/// A chunked body of length-delimited reports, as it comes.
#[derive(Debug, Default)]
pub struct Chunks {
    at: At,
    /// Begin of a report that is not all here.
    begun: Vec<u8>,
}

/// Where in a chunked body (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the line with a chunk's size, so far this one; `true` once digits are over.
    Size(usize, bool),
    /// In a chunk with so many bytes to come.
    Data(usize),
    /// In the line end after a chunk.
    Between,
}

impl Default for At {
    fn default() -> Self {
        Self::Size(0, false)
    }
}

impl Chunks {
    /// Takes some bytes and adds the reports that are complete with them to `stats`.
    pub fn take(&mut self, mut bytes: &[u8], stats: &mut Vec<Stat>) -> Result<(), Error> {
        let bad = |what: &str| Error::NoStat(what.to_owned());
        while let Some((first, rest)) = bytes.split_first() {
            match self.at {
                At::Data(left) => {
                    let (data, after) = bytes.split_at(left.min(bytes.len()));
                    self.data(data, stats)?;
                    self.at = if left > data.len() { At::Data(left - data.len()) } else { At::Between };
                    bytes = after;
                    continue;
                }
                At::Between if *first == b'\n' => self.at = At::Size(0, false),
                At::Between if *first == b'\r' => {}
                At::Between => return Err(bad("no line end after a chunk")),
                At::Size(0, _) if *first == b'\n' => return Err(bad("the pod has ended it")),
                At::Size(size, _) if *first == b'\n' => self.at = At::Data(size),
                At::Size(size, false) => {
                    self.at = match char::from(*first).to_digit(16) {
                        // Larger ones would not be reports.
                        Some(digit) if size < MAX_SCRAPE_BYTES * READ => At::Size(size * 16 + digit as usize, false),
                        Some(_) => return Err(bad("a chunk that is too long")),
                        None => At::Size(size, true),
                    };
                }
                At::Size(_, true) => {}
            }
            bytes = rest;
        }
        Ok(())
    }

    fn data(&mut self, data: &[u8], stats: &mut Vec<Stat>) -> Result<(), Error> {
        // Mostly a report is all of a chunk, and nothing is kept.
        if self.begun.is_empty() {
            let rest = complete(data, stats)?;
            self.begun.extend_from_slice(rest);
        } else {
            self.begun.extend_from_slice(data);
            let rest = complete(&self.begun, stats)?.len();
            self.begun.drain(..self.begun.len() - rest);
        }
        if self.begun.is_empty() {
            self.begun = Vec::new();
        }
        Ok(())
    }
}

/// The reports that are whole; returns what is left.
fn complete<'a>(mut bytes: &'a [u8], stats: &mut Vec<Stat>) -> Result<&'a [u8], Error> {
    let bad = |error: prost::DecodeError| Error::NoStat(error.to_string());
    while !bytes.is_empty() {
        let mut after = bytes;
        let length = match prost::decode_length_delimiter(&mut after) {
            Ok(length) => length,
            Err(_) if bytes.len() < VARINT => return Ok(bytes),
            Err(error) => return Err(bad(error)),
        };
        if length > MAX_SCRAPE_BYTES {
            return Err(Error::NoStat(format!("a report of {length} bytes")));
        }
        let Some((report, rest)) = after.split_at_checked(length) else { return Ok(bytes) };
        stats.push(Stat::decode(report).map_err(bad)?);
        bytes = rest;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stat(nth: usize) -> Stat {
        Stat { pod_name: "p".repeat(nth % 200), average_concurrent_requests: nth as f64, ..Stat::default() }
    }

    fn chunked(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut body, mut rest, mut sizes) = (Vec::new(), bytes, sizes.iter().cycle());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at((*sizes.next().unwrap_or(&1)).clamp(1, rest.len()));
            body.extend(format!("{:x};ext=1\r\n", chunk.len()).into_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
            rest = after;
        }
        body
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_reports_come(
            numbers in proptest::collection::vec(0..1000_usize, 0..8),
            chunks in proptest::collection::vec(1..400_usize, 1..5),
            reads in proptest::collection::vec(1..500_usize, 1..5),
        ) {
            let wanted: Vec<Stat> = numbers.iter().map(|nth| stat(*nth)).collect();
            let bytes: Vec<u8> = wanted.iter().flat_map(Message::encode_length_delimited_to_vec).collect();
            let (mut decoder, mut got) = (Chunks::default(), Vec::new());
            let body = chunked(&bytes, &chunks);
            let (mut rest, mut reads) = (&body[..], reads.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*reads.next().unwrap_or(&1)).min(rest.len()));
                decoder.take(now, &mut got).unwrap();
                rest = later;
            }
            prop_assert_eq!(got, wanted);
            prop_assert!(decoder.begun.is_empty() && decoder.at == At::Size(0, false));
        }

        #[test]
        fn no_bytes_are_too_odd_and_little_is_kept(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..900)) {
            let (mut decoder, mut stats) = (Chunks::default(), Vec::new());
            for chunk in [&bytes[..], &chunked(&bytes, &[97])] {
                drop(decoder.take(chunk, &mut stats));
            }
            prop_assert!(decoder.begun.len() <= MAX_SCRAPE_BYTES + 10 + bytes.len());
        }
    }

    #[test]
    fn what_is_no_report_ends_it() {
        for bad in
            [&b"0\r\n\r\n"[..], b"xyz\n", b"fffffffff\r\n", b"2\r\n\xff\x0f", b"3\r\n\x02\x0a\x09\r\n", b"1\r\n\x00x"]
        {
            let (mut decoder, mut stats) = (Chunks::default(), Vec::new());
            assert!(decoder.take(bad, &mut stats).is_err(), "{bad:?}: {stats:?}");
        }
    }
}
