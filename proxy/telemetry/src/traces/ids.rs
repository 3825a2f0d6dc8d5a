//! Names of traces and spans: made at random, written as lower-case hex.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A trace, the same over all its hops. Never all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// One span of a trace. Never all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Reads 32 digits of lower-case hex that are not all zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        parse(text).map(Self)
    }

    /// Reads the 16 digits of the time when trace ids had 64 bits.
    pub fn parse_short(text: &[u8]) -> Option<Self> {
        let low: [u8; 8] = parse(text)?;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&low);
        Some(Self(id))
    }

    /// The half by which ratio samplers of all languages decide.
    pub fn low(self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }
}

impl SpanId {
    /// Reads 16 digits of lower-case hex that are not all zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        parse(text).map(Self)
    }
}

fn parse<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut id = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
        *byte = parse_byte(pair)?;
    }
    (id != [0; N]).then_some(id)
}

/// Two digits of lower-case hex.
pub(crate) fn parse_byte(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    match text {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// Appends bytes as hex.
pub(crate) fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

/// Bytes as hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    String::from_utf8(text).unwrap_or_default()
}

/// Makes ids. Two generators, because one has 64 bits of state: the streams of two pods of a large fleet could meet.
#[derive(Debug)]
pub struct Ids {
    high: fastrand::Rng,
    low: fastrand::Rng,
}

impl Default for Ids {
    /// Seeded by the operating system, by way of what std seeds its maps with.
    fn default() -> Self {
        let seed = || RandomState::new().build_hasher().finish();
        Self::seeded(seed(), seed())
    }
}

impl Ids {
    /// Ids that follow from two seeds.
    pub fn seeded(high: u64, low: u64) -> Self {
        Self { high: fastrand::Rng::with_seed(high), low: fastrand::Rng::with_seed(low) }
    }

    /// A new trace.
    pub fn trace(&mut self) -> TraceId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.high.u64(..).to_be_bytes());
        id[8..].copy_from_slice(&self.low.u64(1..).to_be_bytes());
        TraceId(id)
    }

    /// A new span.
    pub fn span(&mut self) -> SpanId {
        SpanId(self.high.u64(1..).to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_an_id() {
        assert_eq!(SpanId::parse(b"00f067aa0ba902b7"), Some(SpanId([0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7])));
        assert_eq!(TraceId::parse_short(b"00f067aa0ba902b7").map(TraceId::low), Some(0x00f0_67aa_0ba9_02b7));
        for bad in [
            &b""[..],
            b"0000000000000000",
            b"00F067AA0BA902B7",
            b"00f067aa0ba902b",
            b"00f067aa0ba902b77",
            b"g0f067aa0ba902b7",
        ] {
            assert_eq!(SpanId::parse(bad), None, "{bad:?}");
            assert_eq!(TraceId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_no_two_are_the_same() {
        let mut ids = Ids::default();
        let (one, two, span) = (ids.trace(), ids.trace(), ids.span());
        assert_ne!(one, two);
        assert_eq!(TraceId::parse(hex(&one.0).as_bytes()), Some(one));
        assert_eq!(SpanId::parse(hex(&span.0).as_bytes()), Some(span));
        assert_ne!(Ids::default().trace(), Ids::default().trace());
    }
}
