//! The time of a line, in the forms zap knows by name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a time is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2006-01-02T15:04:05.123456789Z`, without trailing zeros.
    #[default]
    Rfc3339Nanos,
    /// `2006-01-02T15:04:05Z`.
    Rfc3339,
    /// `2006-01-02T15:04:05.123Z`.
    Iso8601,
    /// Seconds since 1970, with a fraction.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Nanoseconds since 1970.
    Nanos,
}

impl TimeFormat {
    /// By zap's word; any other word means seconds, as there.
    pub(super) fn named(word: &str) -> Self {
        match word {
            "rfc3339nano" | "RFC3339Nano" => Self::Rfc3339Nanos,
            "rfc3339" | "RFC3339" => Self::Rfc3339,
            "iso8601" | "ISO8601" => Self::Iso8601,
            "millis" => Self::Millis,
            "nanos" => Self::Nanos,
            _ => Self::Seconds,
        }
    }

    /// Whether it is text rather than a number.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Rfc3339Nanos | Self::Rfc3339 | Self::Iso8601)
    }

    pub(super) fn print(self, at: SystemTime) -> String {
        let at = since_epoch(at);
        let nanos = at.subsec_nanos();
        match self {
            Self::Seconds => at.as_secs_f64().to_string(),
            Self::Millis => format!("{}", at.as_secs_f64() * 1e3),
            Self::Nanos => at.as_nanos().to_string(),
            Self::Rfc3339 => format!("{}Z", date_time(at)),
            Self::Iso8601 => format!("{}.{:03}Z", date_time(at), nanos / 1_000_000),
            Self::Rfc3339Nanos if nanos == 0 => format!("{}Z", date_time(at)),
            Self::Rfc3339Nanos => {
                let fraction = format!("{nanos:09}");
                format!("{}.{}Z", date_time(at), fraction.trim_end_matches('0'))
            }
        }
    }
}

/// Zero for a clock before 1970.
pub(super) fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `2006-01-02T15:04:05`, for a time since 1970.
pub fn date_time(at: Duration) -> String {
    let seconds = at.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Days since 1970 as a date of the Gregorian calendar: "days to civil" of Howard Hinnant's chrono-compatible
/// algorithms. Years begin in March, so that the leap day is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(date_time(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn forms() {
        let at = UNIX_EPOCH + Duration::new(951_782_400, 120_000_000);
        for (word, expected) in [
            ("rfc3339nano", "2000-02-29T00:00:00.12Z"),
            ("RFC3339", "2000-02-29T00:00:00Z"),
            ("iso8601", "2000-02-29T00:00:00.120Z"),
            ("", "951782400.12"),
            ("epoch", "951782400.12"),
            ("millis", "951782400120"),
            ("nanos", "951782400120000000"),
        ] {
            assert_eq!(TimeFormat::named(word).print(at), expected, "{word}");
        }
    }
}
