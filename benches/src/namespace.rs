//! A network of its own for a program whose fixed ports are taken here.
//!
//! Sockets belong to the network in which they were made, whichever thread uses them later: so backend and clients
//! step in, make a socket, and step out again. It needs root, `unshare` and `ip`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::fd::AsFd,
    process::{Command, Stdio},
    rc::Rc,
};

use anyhow::{Context, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where sockets are made: here, or in a network of their own that lasts as long as this value and its sockets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Namespace(Option<Rc<Other>>);

#[derive(Debug)]
struct Other {
    there: File,
    home: File,
}

impl Namespace {
    /// A new one with loopback up.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up && echo up && read -r end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run unshare")?;
        let mut line = String::new();
        let read = holder.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let there = File::open(format!("/proc/{}/ns/net", holder.id()));
        drop(holder.stdin.take());
        holder.wait()?;
        if !matches!(read, Some(Ok(_))) || line.trim() != "up" {
            bail!("a network of its own needs root, unshare and ip");
        }
        let home = File::open("/proc/thread-self/ns/net")?;
        Ok(Self(Some(Rc::new(Other { there: there?, home }))))
    }

    /// Runs this with the thread in that network; a process started in it stays there.
    pub(crate) fn within<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(other) = &self.0 else { return make() };
        let go = |file: &File| move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        go(&other.there)?;
        let made = make();
        go(&other.home)?;
        made
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_is_taken_here_is_free_there() {
        // Only root can make one.
        let Ok(namespace) = Namespace::new() else { return };
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = here.local_addr().unwrap();
        assert!(TcpListener::bind(address).is_err());
        let there = namespace.within(|| TcpListener::bind(address)).unwrap();
        assert_eq!(there.local_addr().unwrap(), address);
    }
}
