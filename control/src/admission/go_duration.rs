//! Durations as Go reads them, negative ones too: validation says of those that they are out of bounds, not that they
//! are no durations.

/// A signed duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration {
    /// Nanoseconds.
    pub nanos: i128,
}

impl GoDuration {
    /// Reads `-1h2m3.5s`; nothing where it is no duration.
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        // The shared parser takes a plus sign and spaces for itself.
        if !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.' || sign == 1 && c == '+') {
            return None;
        }
        let duration = api::duration::parse(rest).ok()?;
        Some(Self { nanos: sign * i128::try_from(duration.as_nanos()).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_read() {
        assert_eq!(GoDuration::parse("-1.5s"), Some(GoDuration { nanos: -1_500_000_000 }));
        assert_eq!(GoDuration::parse("1m"), Some(GoDuration { nanos: 60_000_000_000 }));
        assert_eq!(GoDuration::parse("--1s"), None);
        assert_eq!(GoDuration::parse("soon"), None);
    }
}
