//! Takes load reports as an autoscaler does, remembers who was named, and decides nothing.

use std::{
    cell::RefCell,
    collections::HashSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
};

use futures::StreamExt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

/// Serves on this thread until dropped.
pub(super) struct Autoscaler {
    pub(super) address: SocketAddr,
    heard: Rc<Heard>,
    serving: AbortHandle,
}

/// Revisions that reports have named.
#[derive(Default)]
struct Heard {
    names: RefCell<HashSet<Vec<u8>>>,
    changed: Notify,
}

impl Autoscaler {
    pub(super) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let heard = Rc::<Heard>::default();
        let ears = Rc::clone(&heard);
        let serving = tokio::task::spawn_local(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn_local(take(stream, Rc::clone(&ears)));
            }
        });
        Ok(Self { address, heard, serving: serving.abort_handle() })
    }

    /// Waits until a report has named this revision.
    pub(super) async fn hears_of(&self, revision: &str) {
        self.until(|names| names.contains(revision.as_bytes())).await;
    }

    /// Waits until reports have named so many revisions.
    pub(super) async fn hears_of_all(&self, revisions: usize) {
        self.until(|names| names.len() >= revisions).await;
    }

    async fn until(&self, holds: impl Fn(&HashSet<Vec<u8>>) -> bool) {
        loop {
            let changed = self.heard.changed.notified();
            if holds(&self.heard.names.borrow()) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Autoscaler {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Pings are answered while messages are read.
async fn take(stream: TcpStream, heard: Rc<Heard>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() {
            let frame = message.into_data();
            heard.names.borrow_mut().extend(names(&frame).map(<[u8]>::to_vec));
            heard.changed.notify_waiters();
        }
    }
}

/// The names in a frame of reports: field 2 of each message in field 1.
fn names(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    fields(frame)
        .filter(|(tag, _)| *tag == 0x0a)
        .filter_map(|(_, message)| fields(message).find(|(tag, _)| *tag == 0x12).map(|(_, name)| name))
}

/// The fields of a protobuf message that have a length; it ends at the first that has none.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&tag, mut rest) = bytes.split_first()?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let (&byte, after) = rest.split_first()?;
            length |= usize::from(byte & 0x7f) << shift;
            rest = after;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (value, after) = rest.split_at_checked(length).filter(|_| tag & 7 == 2)?;
        bytes = after;
        Some((tag, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_reports() {
        // namespace "ns", name "rev", a stat; upstream's own bytes.
        let one = b"\x0a\x24\x0a\x02ns\x12\x03rev\x1a\x19\x0a\x05act-1\x11\0\0\0\0\0\0\xf0\x3f\x21\0\0\0\0\0\0\xf0\x3f";
        let two = [&one[..], &one[..]].concat();
        assert_eq!(names(&two).collect::<Vec<_>>(), [b"rev", b"rev"]);
        assert_eq!(names(b"\x0a\xff\x01").count(), 0);
    }
}
