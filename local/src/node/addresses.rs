//! Which address and which ports a pod gets.
//!
//! Every pod has a loopback address of its own, `127.A.x.y`. `A` belongs to one node at a time, also between several
//! `dormouse up`s on one machine: whoever holds a certain UDP socket on `127.A.0.1` owns the range, and the kernel gives
//! it back when the holder dies, however it dies.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

/// The port whose holder owns a range; nothing is ever sent there.
const CLAIM_PORT: u16 = 7946;
const RANGES: std::ops::RangeInclusive<u8> = 16..=250;
/// User ports come from below the range from which the kernel takes ports for outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Hands out the addresses of one range. Pure but for the claim.
#[derive(Debug)]
pub(super) struct Addresses {
    range: u8,
    next: u16,
    used: HashSet<u16>,
    _claim: Option<UdpSocket>,
}

impl Addresses {
    /// Takes a range that no other node on this machine has.
    pub(super) fn claim() -> io::Result<Self> {
        let mut ranges: Vec<u8> = RANGES.collect();
        fastrand::shuffle(&mut ranges);
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for range in ranges {
            match UdpSocket::bind((Ipv4Addr::new(127, range, 0, 1), CLAIM_PORT)) {
                Ok(socket) => return Ok(Self { _claim: Some(socket), ..Self::of(range) }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn of(range: u8) -> Self {
        Self { range, next: 1, used: HashSet::new(), _claim: None }
    }

    /// An address that was given back longest ago, or never used; `None` when all are in use.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..=u16::MAX {
            self.next = self.next.checked_add(1).unwrap_or(2);
            let [x, y] = self.next.to_be_bytes();
            // .0 and .255 look like network and broadcast addresses to careful programs.
            if y != 0 && y != 255 && self.used.insert(self.next) {
                return Some(Ipv4Addr::new(127, self.range, x, y));
            }
        }
        None
    }

    /// Gives an address back.
    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        let [_, _, x, y] = address.octets();
        self.used.remove(&u16::from_be_bytes([x, y]));
    }
}

/// Hands out ports for user processes.
#[derive(Debug, Default)]
pub(super) struct Ports {
    used: HashSet<u16>,
}

impl Ports {
    /// A port on which nothing listens now and which no other pod of this node has.
    pub(super) fn take(&mut self) -> Option<u16> {
        let start = fastrand::u16(PORTS);
        let candidates = (start..PORTS.end).chain(PORTS.start..start);
        for port in candidates {
            if !self.used.contains(&port) && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
                self.used.insert(port);
                return Some(port);
            }
        }
        None
    }

    /// Gives a port back.
    pub(super) fn give_back(&mut self, port: u16) {
        self.used.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_reused_late() {
        let mut addresses = Addresses::of(77);
        let first = addresses.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(127, 77, 0, 2));
        addresses.give_back(first);
        assert_eq!(addresses.take().unwrap(), Ipv4Addr::new(127, 77, 0, 3));
        let mut seen = HashSet::from([Ipv4Addr::new(127, 77, 0, 3)]);
        while let Some(address) = addresses.take() {
            assert!(seen.insert(address));
            assert!(!matches!(address.octets()[3], 0 | 255));
        }
        assert!(seen.len() > 60_000 && seen.contains(&first));
        addresses.give_back(first);
        assert_eq!(addresses.take(), Some(first));
    }

    #[test]
    fn two_nodes_have_two_ranges() {
        let (one, two) = (Addresses::claim().unwrap(), Addresses::claim().unwrap());
        assert_ne!(one.range, two.range);
    }

    #[test]
    fn ports_are_distinct_and_free() {
        let mut ports = Ports::default();
        let (one, two) = (ports.take().unwrap(), ports.take().unwrap());
        assert_ne!(one, two);
        assert!(PORTS.contains(&one));
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, one)).unwrap();
    }
}
