//! Why a request got no response, and whether it may go elsewhere.

use std::io;
use std::net::SocketAddr;

use crate::h1::client::{ExchangeError, Failure, Repeat};

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct SendError {
    fault: SendFault,
    stage: Stage,
}

/// How far a request had come.
#[derive(Debug)]
enum Stage {
    /// Nothing was written: the request is whole.
    Unsent,
    /// Something was written, and the target ended before the first byte of an answer. `Some` if the request may be
    /// sent once more.
    Unanswered(Option<Box<Repeat>>),
    /// An answer had begun, or came and was none.
    Answered,
}

/// The part of it that went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SendFault {
    /// No connection could be opened.
    #[error("dial tcp {target}: {source}")]
    Dial {
        /// Where to.
        target: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A connection was opened, but the target did not prove who it is.
    #[error("tls {target}: {source}")]
    Tls {
        /// Where to.
        target: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// An HTTP/1 connection failed or broke the protocol.
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    /// The same of an h2 connection.
    #[error("{}", describe(.0))]
    H2(hyper::Error),
}

fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl SendError {
    pub(super) fn unsent(fault: SendFault) -> Self {
        Self { fault, stage: Stage::Unsent }
    }

    pub(super) fn sent(fault: SendFault) -> Self {
        Self { fault, stage: Stage::Answered }
    }

    pub(super) fn unanswered(fault: SendFault, repeat: Option<Box<Repeat>>) -> Self {
        Self { fault, stage: Stage::Unanswered(repeat) }
    }

    /// What went wrong.
    pub fn fault(&self) -> &SendFault {
        &self.fault
    }

    /// Whether no connection could be opened at all.
    pub fn is_dial(&self) -> bool {
        matches!(self.fault, SendFault::Dial { .. })
    }

    /// Whether the target refused the connection: nobody listens there.
    pub fn is_refused(&self) -> bool {
        matches!(&self.fault, SendFault::Dial { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Whether certainly no byte of the request was written, so that it may go to another target.
    pub fn is_unsent(&self) -> bool {
        matches!(self.stage, Stage::Unsent)
    }

    /// Whether the target could not be reached, or ended before the first byte of an answer: it is probably gone.
    pub fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Unsent | Stage::Unanswered(_))
    }

    /// The request as it was written, if it may be sent once more although something of it may have arrived: it has no
    /// body, its method is safe or it carries an idempotency key, and no answer had begun.
    pub fn into_repeat(self) -> Option<Box<Repeat>> {
        match self.stage {
            Stage::Unanswered(repeat) => repeat,
            Stage::Unsent | Stage::Answered => None,
        }
    }
}

impl From<Failure> for SendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsent(error) => Self::unsent(error.into()),
            Failure::Died(error, repeat) => Self::unanswered(error.into(), repeat),
            Failure::Broken(error) => Self::sent(error.into()),
        }
    }
}
