//! The chunked coding, read piece by piece (RFC 9112 §7.1). Pure: bytes in, steps out.
//!
//! Strict about line ends: a bare LF or a stray CR in a chunk's size line is where two parsers part ways, so it ends
//! the message. Extensions are read past and dropped, as a proxy may.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING,
};

use super::head::{self, Malformed};

/// Bytes of all extensions of a message.
const MOST_EXTENSIONS: usize = 16 * 1024;
/// Bytes of trailers.
const MOST_TRAILERS: usize = 64 * 1024;

/// A reader of one chunked message.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    extensions: usize,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// In a size line, with this many digits seen.
    #[default]
    Start,
    Size(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailers; bytes already searched for their end.
    Trailers(usize),
    Done,
    /// Malformed, whatever comes next.
    Broken,
}

/// What the bytes gave.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// A piece of the body.
    Data(Bytes),
    /// The body's last words; the message is over.
    Trailers(HeaderMap),
    /// The message is over.
    End,
    /// Nothing more without more bytes.
    More,
}

impl Chunked {
    /// Takes from the bytes what makes one step.
    pub(crate) fn step(&mut self, input: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            if let State::Data(left) = self.state {
                if input.is_empty() {
                    return Ok(Step::More);
                }
                let piece = input.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(input.len())).freeze();
                let left = left - piece.len() as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                return Ok(Step::Data(piece));
            }
            match self.state {
                State::Trailers(searched) => {
                    self.state = State::Broken; // unless it turns out well
                    return self.trailers(input, searched);
                }
                State::Done => return Ok(Step::End),
                _ => {}
            }
            let Some(&byte) = input.first() else { return Ok(Step::More) };
            input.advance(1);
            let next = self.next(byte);
            self.state = *next.as_ref().unwrap_or(&State::Broken);
            next?;
        }
    }

    /// Whether the message is over.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        let bad = Err(Malformed::Shape("malformed chunk"));
        let digit = char::from(byte).to_digit(16).map(u64::from);
        Ok(match (self.state, byte, digit) {
            (State::Start, _, Some(digit)) => State::Size(digit),
            // Sixteen digits at most, since the upper four bits must still be free.
            (State::Size(size), _, Some(digit)) if size >> 60 == 0 => State::Size(size << 4 | digit),
            (State::Size(size) | State::Extension(size), b'\r', _) => State::SizeLf(size),
            (State::Size(size), b';' | b' ' | b'\t', _) => State::Extension(size),
            (State::Extension(_), b'\n', _) => return bad,
            (State::Extension(size), ..) if self.extensions < MOST_EXTENSIONS => {
                self.extensions += 1;
                State::Extension(size)
            }
            (State::SizeLf(0), b'\n', _) => State::Trailers(0),
            (State::SizeLf(size), b'\n', _) => State::Data(size),
            (State::DataCr, b'\r', _) => State::DataLf,
            (State::DataLf, b'\n', _) => State::Start,
            _ => return bad,
        })
    }

    fn trailers(&mut self, input: &mut BytesMut, searched: usize) -> Result<Step, Malformed> {
        if input.starts_with(b"\r\n") {
            input.advance(2);
            self.state = State::Done;
            return Ok(Step::End);
        }
        let Some(end) = head::end(input, searched) else {
            if input.len() > MOST_TRAILERS {
                return Err(Malformed::TooLarge);
            }
            self.state = State::Trailers(input.len());
            return Ok(Step::More);
        };
        let mut trailers = head::trailers(&input.split_to(end))?;
        // What frames, routes or authorizes a message cannot be said after it (RFC 9110 §6.5.1).
        for name in
            [TRANSFER_ENCODING, CONTENT_LENGTH, HOST, TE, TRAILER, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE]
        {
            trailers.remove(name);
        }
        self.state = State::Done;
        Ok(if trailers.is_empty() { Step::End } else { Step::Trailers(trailers) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Whole = Option<(Vec<u8>, Vec<String>)>;

    /// Body and trailers of the message, fed in pieces of this size; `None` until it is over.
    fn read(message: &[u8], piece: usize) -> Result<Whole, Malformed> {
        let (mut chunked, mut input) = (Chunked::default(), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        for bytes in message.chunks(piece.max(1)) {
            input.extend_from_slice(bytes);
            loop {
                match chunked.step(&mut input)? {
                    Step::Data(data) => body.extend_from_slice(&data),
                    Step::Trailers(map) => {
                        trailers.extend(map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
                    }
                    Step::End => return Ok(Some((body, trailers))),
                    Step::More => break,
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn what_is_broken_stays_broken() {
        for message in ["3\r\nabcd\r\n0\r\n\r\n", "zz\r\n0\r\n\r\n", "0\r\nbad name: x\r\n\r\n0\r\n\r\n"] {
            let (mut chunked, mut input) = (Chunked::default(), BytesMut::from(message));
            while let Ok(Step::Data(_)) = chunked.step(&mut input) {}
            while !input.is_empty() {
                assert!(chunked.step(&mut input).is_err() && !chunked.is_done(), "{message:?}");
            }
        }
    }

    #[test]
    fn table() {
        let many_extensions = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MOST_EXTENSIONS + 1));
        let many_trailers = format!("0\r\nA: {}", "x".repeat(MOST_TRAILERS));
        // The body and its trailers; "..." where the message is not over; `None` where it is none.
        for (message, expected) in [
            ("3\r\nabc\r\n0\r\n\r\n", Some(("abc", ""))),
            ("3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\nnext", Some(("abc0123456789", ""))),
            ("3;name=\"v\"\r\nabc\r\n0;x\r\n\r\n", Some(("abc", ""))),
            ("3 \r\nabc\r\n0\r\n\r\n", Some(("abc", ""))),
            ("1\r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n", Some(("a", "a: b,c: d"))),
            ("0\r\nHost: evil\r\nContent-Length: 3\r\n\r\n", Some(("", ""))),
            ("0\r\n\r\n", Some(("", ""))),
            ("3\r\nab", Some(("...", ""))),
            ("0\r\n", Some(("...", ""))),
            ("0\r\nA: b\r\n", Some(("...", ""))),
            ("3\nabc\r\n0\r\n\r\n", None),
            ("3\r\nabc\n0\r\n\r\n", None),
            ("3;x\nabc\r\n0\r\n\r\n", None),
            ("3;x\rabc\r\n0\r\n\r\n", None),
            ("3\r\nabcd\r\n0\r\n\r\n", None),
            ("\r\n", None),
            ("-1\r\n", None),
            ("+3\r\nabc\r\n", None),
            ("0x3\r\nabc\r\n", None),
            (" 3\r\nabc\r\n", None),
            ("g\r\n", None),
            ("10000000000000000\r\n", None),
            ("0\r\nbad name: x\r\n\r\n", None),
            (&many_extensions, None),
            (&many_trailers, None),
        ] {
            for piece in [1, 2, 3, 7, message.len()] {
                let got = read(message.as_bytes(), piece).ok().map(|whole| {
                    whole.map_or(("...".into(), String::new()), |(body, trailers)| {
                        (String::from_utf8(body).unwrap(), trailers.join(","))
                    })
                });
                let expected = expected.map(|(body, trailers)| (body.to_string(), trailers.to_string()));
                assert_eq!(got, expected, "{:?} by {piece}", &message[..message.len().min(40)]);
            }
        }
    }

    proptest! {
        #[test]
        fn any_body_in_any_chunks_is_read_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
            piece in 1..100_usize,
        ) {
            let mut message = Vec::new();
            for chunk in &chunks {
                message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                message.extend_from_slice(chunk);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read(&message, piece).unwrap(), Some((chunks.concat(), Vec::new())));
        }

        #[test]
        fn how_it_is_cut_never_changes_what_it_means(message in "[0-3a\r\n;:x ]{0,40}", piece in 1..10_usize) {
            prop_assert_eq!(read(message.as_bytes(), piece), read(message.as_bytes(), 1000));
        }
    }
}
