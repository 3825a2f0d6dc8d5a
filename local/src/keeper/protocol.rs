//! What `up` and the keeper say to each other: frames of a length (u32, little endian) and JSON, over a socket pair.
//!
//! Both ends are the same executable, so there are no versions. A frame is bounded; a broken one ends the connection,
//! and with it every process.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Larger than any environment that `execve` takes.
const MAX_FRAME: u32 = 8 * 1024 * 1024;

/// Which process; chosen by `up`, never used twice.
pub(super) type Id = u64;

/// A process to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// The program (an absolute path) and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Where its output goes; without, nowhere.
    pub log: Option<PathBuf>,
}

/// Signals that a node sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// Please stop.
    Term,
    /// Stop.
    Kill,
}

/// From `up` to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Spawn { id: Id, command: Command },
    Signal { id: Id, signal: Signal },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, when it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// As container runtimes write it: the code, or 128 + the signal.
    pub fn exit_code(self) -> i32 {
        self.code.or(self.signal.map(|signal| 128 + signal)).unwrap_or(255)
    }
}

/// From the keeper to `up`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Started { id: Id, pid: i32 },
    Failed { id: Id, error: String },
    Exited { id: Id, exit: Exit },
}

/// A message as it goes over the socket.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).ok().filter(|&length| length <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "environment too large"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Sends one message.
pub(super) async fn send(
    to: &mut (impl tokio::io::AsyncWrite + Unpin + Send),
    message: &(impl Serialize + Sync),
) -> io::Result<()> {
    to.write_all(&encode(message)?).await
}

/// Receives one message; an error is also the end of the connection.
pub(super) async fn receive<T: DeserializeOwned>(
    from: &mut (impl tokio::io::AsyncRead + Unpin + Send),
) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length);
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    let mut frame = vec![0; length as usize];
    from.read_exact(&mut frame).await?;
    Ok(serde_json::from_slice(&frame)?)
}
