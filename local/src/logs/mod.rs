//! Container logs: one file per container instance, in the format of the container runtimes.
//!
//! The keeper writes them ([`writer`]), the API server reads them for `kubectl logs` ([`reader`], [`text`], [`notify`]),
//! both know the line format ([`cri`]). A log is a file and nothing else: whoever follows it is told of changes by the kernel, so writer
//! and reader need no channel between them and may live in different processes.
//!
//! `DATA_DIR/pods/<pod uid>/<container>/<restart>.log`, and `<restart>.log.1` for the part before the last rotation. A
//! log that gets no more lines is read-only; that is how a follower knows the end.

pub mod cri;
mod notify;
mod reader;
mod text;
mod writer;

use std::path::{Path, PathBuf};

pub use reader::{Error, Query, open, tail};
pub use writer::Writer;

/// A log file is rotated when it reaches this size; one rotated file is kept, so a container has at most twice this.
pub const MAX_FILE_BYTES: u64 = 10 * 1024 * 1024;

/// Folder of everything that belongs to one pod.
pub fn pod_dir(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join("pods").join(uid)
}

/// Log file of the `restart`-th instance of a container.
pub fn file(data_dir: &Path, uid: &str, container: &str, restart: u32) -> PathBuf {
    pod_dir(data_dir, uid).join(container).join(format!("{restart}.log"))
}

/// The part of a log that was rotated away last.
fn rotated(file: &Path) -> PathBuf {
    file.with_extension("log.1")
}
