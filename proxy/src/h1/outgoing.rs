//! A body on its way onto a wire, of a request or of an answer: frames become chunks or counted bytes.

use bytes::Bytes;
use http_body::Frame;

use super::encode::{self, Ending};
use super::wire::Wire;
use crate::BoxError;

/// How far a body has come.
#[derive(Debug)]
pub(crate) struct Outgoing {
    ending: Ending,
    written: u64,
    ended: bool,
    /// Bytes that the peer had not taken yet when it was last asked.
    unsent: usize,
}

impl Outgoing {
    /// A body that ends as its head said.
    pub(crate) fn new(ending: Ending) -> Self {
        let ended = matches!(ending, Ending::None | Ending::Spared(_) | Ending::Length(0));
        Self { ending, written: 0, ended, unsent: 0 }
    }

    /// Whether all of it is on the wire.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the peer has taken anything since this was last asked.
    pub(crate) fn moved(&mut self, wire: &Wire) -> bool {
        let unsent = wire.unsent();
        std::mem::replace(&mut self.unsent, unsent) != unsent
    }

    /// Puts a frame on the wire; `None` is the end. A body that is longer or shorter than its head said is an error:
    /// the connection must be cut, or the next message would be read out of the middle of this one.
    pub(crate) fn put(
        &mut self,
        frame: Option<Frame<Bytes>>,
        wire: &mut Wire,
        title_case: bool,
    ) -> Result<(), BoxError> {
        let trailers = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                if !data.is_empty() {
                    self.written += data.len() as u64;
                    let after = encode::before_data(wire.small(), &data, self.ending);
                    wire.put(data, after);
                }
                if let Ending::Length(length) = self.ending {
                    if self.written > length {
                        return Err("the body is longer than its Content-Length".into());
                    }
                    self.ended = self.written == length;
                }
                return Ok(());
            }
            Some(Err(frame)) => frame.into_trailers().ok(),
            None => None,
        };
        if let Ending::Length(length) = self.ending
            && self.written < length
        {
            return Err("the body is shorter than its Content-Length".into());
        }
        if self.ending == Ending::Chunked {
            encode::last_chunk(wire.small(), trailers.as_ref(), title_case);
        }
        self.ended = true;
        Ok(())
    }
}
