//! Waiting for a log to change, by the kernel's word (inotify).

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Wakes its owner when something in the log's folder changed.
pub(super) struct Notify(AsyncFd<OwnedFd>);

impl Notify {
    /// Watches the folder of a log file.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&fd, path.parent().unwrap_or(path), flags)?;
        // The unsafe replacement is for types that can give up their descriptor; an `OwnedFd` cannot.
        #[expect(deprecated, reason = "its replacement needs unsafe")]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    /// Waits for the next change.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(self.0.get_ref(), &mut buffer);
            let mut seen = false;
            loop {
                match events.next() {
                    Ok(_) => seen = true,
                    Err(rustix::io::Errno::WOULDBLOCK) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if seen {
                return Ok(());
            }
        }
    }
}
