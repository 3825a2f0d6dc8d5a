//! Reads a body from a wire by its framing, frame by frame.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::chunked::{Chunked, Step};
use super::framing::Framing;
use super::wire::Wire;

/// Where a body is. [`Decoder::is_done`] once all of it has been handed on.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// Bytes that are still to come; zero is the end.
    Length(u64),
    Chunked(Box<Chunked>),
    UntilClose,
}

impl Default for Decoder {
    /// No body.
    fn default() -> Self {
        Self::Length(0)
    }
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether the body is over.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Whether the rest of the body has been read from the socket already.
    pub(crate) fn is_read(&self, wire: &Wire) -> bool {
        match self {
            Self::Length(left) => *left <= wire.input.len() as u64,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(chunked) if chunked.is_done() => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// The next frame. An end before the end of the body is an error.
    pub(crate) fn poll_frame(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let expected = match self {
                Self::Length(0) => return Poll::Ready(None),
                Self::Length(left) => {
                    if !wire.input.is_empty() {
                        let some = usize::try_from(*left).unwrap_or(usize::MAX).min(wire.input.len());
                        *left -= some as u64;
                        if some == wire.input.len() {
                            // Nothing behind it: the buffer itself goes on.
                            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut wire.input).freeze()))));
                        }
                        return Poll::Ready(Some(Ok(Frame::data(wire.input.split_to(some).freeze()))));
                    }
                    *left
                }
                Self::Chunked(chunked) => match chunked.step(&mut wire.input) {
                    Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Step::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    Ok(Step::End) => return Poll::Ready(None),
                    Ok(Step::More) => u64::MAX,
                    Err(malformed) => return broken(io::ErrorKind::InvalidData, &malformed.to_string()),
                },
                Self::UntilClose => {
                    if !wire.input.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(wire.input.split().freeze()))));
                    }
                    u64::MAX
                }
            };
            match ready!(wire.poll_fill_body(cx, expected)) {
                Ok(0) if matches!(self, Self::UntilClose) => {
                    *self = Self::Length(0);
                    return Poll::Ready(None);
                }
                Ok(0) => return broken(io::ErrorKind::UnexpectedEof, "unexpected EOF"),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

fn broken(kind: io::ErrorKind, why: &str) -> Poll<Option<io::Result<Frame<Bytes>>>> {
    Poll::Ready(Some(Err(io::Error::new(kind, why))))
}
