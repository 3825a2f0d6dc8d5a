//! Go duration text (`1h2m3.5s`, `300ms`): what ConfigMaps and annotations carry.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {0:?}: want a number with a unit, such as 300ms, 6s, 1m30s or 1h")]
pub struct InvalidDuration(pub String);

/// Parses Go's syntax. Negative durations are refused: none of our settings has a use for one.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let bad = || InvalidDuration(text.to_owned());
    let mut rest = text.trim();
    rest = rest.strip_prefix('+').unwrap_or(rest);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut nanos: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        nanos += number * scale;
        rest = &rest[unit..];
    }
    // Go's durations end at 2^63 ns, about 292 years.
    if nanos > i64::MAX as f64 { Err(bad()) } else { Ok(Duration::from_nanos(nanos.round() as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax_is_read() {
        for (text, ms) in [
            ("6s", 6000.0),
            ("1m30s", 90_000.0),
            ("1.5h", 5_400_000.0),
            ("300ms", 300.0),
            ("0", 0.0),
            ("0s", 0.0),
            ("250us", 0.25),
        ] {
            assert_eq!(parse(text).unwrap().as_secs_f64() * 1000.0, ms, "{text}");
        }
    }

    #[test]
    fn junk_is_refused() {
        for text in ["", "5", "s", "-1s", "1x", "1s2", "99999999h", "1..5s", "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
