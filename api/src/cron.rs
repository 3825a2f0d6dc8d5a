//! Times that recur: the five fields of cron (minute, hour, day of month, month, day of week), in UTC.
//!
//! A field is `*`, a number, a range `a-b`, any of these with a step `/n`, or several of them separated by commas. Days
//! of the week are 0 to 7, Sunday being both. As in cron, when both day fields are restricted, either is enough. No
//! names of months, no `@daily`, no seconds: less to get wrong. A crate for this would bring a second calendar.

use std::{fmt, str::FromStr};

/// A text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cron schedule of five fields")]
pub struct Error(String);

/// When something recurs. Each field is a set of bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether both day fields are restricted: then either counts.
    either_day: bool,
}

/// A minute of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calendar {
    month: u32,
    day: u32,
    weekday: u32,
}

const MINUTES_A_DAY: i64 = 24 * 60;

impl Cron {
    /// The last time it recurred in the `back` minutes up to and including `minute`, if it did. Minutes are counted
    /// from the Unix epoch.
    pub fn last(&self, minute: i64, back: i64) -> Option<i64> {
        self.find((minute.saturating_sub(back)..=minute).rev())
    }

    /// The next time it recurs in the `ahead` minutes after `minute`, if it does.
    pub fn next(&self, minute: i64, ahead: i64) -> Option<i64> {
        self.find(minute.saturating_add(1)..=minute.saturating_add(ahead))
    }

    fn find(&self, mut minutes: impl Iterator<Item = i64>) -> Option<i64> {
        let mut known: Option<(i64, bool)> = None;
        minutes.find(|minute| {
            let day = minute.div_euclid(MINUTES_A_DAY);
            let is_day = match known {
                Some((of, is_day)) if of == day => is_day,
                _ => {
                    let is_day = self.is_day(calendar(day));
                    known = Some((day, is_day));
                    is_day
                }
            };
            let of_day = minute.rem_euclid(MINUTES_A_DAY);
            is_day && has(self.hours, (of_day / 60) as u32) && has(self.minutes, (of_day % 60) as u32)
        })
    }

    fn is_day(&self, at: Calendar) -> bool {
        let (day, weekday) = (has(self.days, at.day), has(self.weekdays, at.weekday));
        has(self.months, at.month) && if self.either_day { day || weekday } else { day && weekday }
    }
}

fn has(set: u64, bit: u32) -> bool {
    set & (1 << bit) != 0
}

/// The date of a day counted from the Unix epoch (H. Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`).
fn calendar(day: i64) -> Calendar {
    let shifted = day.saturating_add(719_468);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    Calendar {
        month: (if month < 10 { month + 3 } else { month - 9 }) as u32,
        day: (of_year - (153 * month + 2) / 5 + 1) as u32,
        // The epoch was a Thursday.
        weekday: day.saturating_add(4).rem_euclid(7) as u32,
    }
}

impl FromStr for Cron {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error(text.to_owned());
        let mut fields = text.split_ascii_whitespace();
        let mut field = |low, high| fields.next().and_then(|field| set(field, low, high)).ok_or_else(error);
        let mut cron = Self {
            text: text.to_owned(),
            minutes: field(0, 59)?,
            hours: field(0, 23)?,
            days: field(1, 31)?,
            months: field(1, 12)?,
            weekdays: field(0, 7)?,
            either_day: false,
        };
        if fields.next().is_some() {
            return Err(error());
        }
        if has(cron.weekdays, 7) {
            cron.weekdays |= 1;
        }
        let restricted =
            |nth| text.split_ascii_whitespace().nth(nth).is_some_and(|field: &str| !field.starts_with('*'));
        cron.either_day = restricted(2) && restricted(4);
        Ok(cron)
    }
}

/// The numbers of a field.
fn set(field: &str, low: u32, high: u32) -> Option<u64> {
    let mut all = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, number(step).filter(|step| *step > 0)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((from, to)) => (number(from)?, number(to)?),
            None if part.contains('/') => (number(range)?, high),
            None => (number(range)?, number(range)?),
        };
        if from < low || to > high || from > to {
            return None;
        }
        all |= (from..=to).step_by(step as usize).fold(0, |bits, n| bits | 1 << n);
    }
    Some(all)
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Cron {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Cron {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_second() / 60
    }

    #[test]
    fn times_recur_as_cron_says() {
        let week = 7 * MINUTES_A_DAY;
        for (cron, from, next) in [
            ("0 7 * * *", "2026-01-01T06:59:00Z", "2026-01-01T07:00:00Z"),
            ("0 7 * * *", "2026-01-01T07:00:00Z", "2026-01-02T07:00:00Z"),
            ("*/15 * * * *", "2026-01-01T07:01:00Z", "2026-01-01T07:15:00Z"),
            ("5-10/5 1,2 * * *", "2026-01-01T01:06:00Z", "2026-01-01T01:10:00Z"),
            // 2026-01-01 is a Thursday.
            ("0 0 * * 1-5", "2026-01-02T00:00:00Z", "2026-01-05T00:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 3 * 6", "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"),
            ("0 0 2 * 6", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-28T00:00:00Z", "2028-02-29T00:00:00Z"),
        ] {
            let parsed: Cron = cron.parse().unwrap();
            assert_eq!(parsed.next(minute(from), week), Some(minute(next)), "{cron}");
            assert_eq!(parsed.last(minute(next), 0), Some(minute(next)), "{cron}");
        }
        let never: Cron = "0 0 30 2 *".parse().unwrap();
        assert_eq!(never.next(minute("2026-01-01T00:00:00Z"), 400 * MINUTES_A_DAY), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1, * * * *",
            "-1 * * * *",
            "@daily",
        ] {
            assert!(text.parse::<Cron>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn dates_agree_with_the_calendar(day in -100_000i64..100_000) {
            let date = jiff::Timestamp::from_second(day * 86_400).unwrap().to_zoned(jiff::tz::TimeZone::UTC).date();
            let ours = calendar(day);
            proptest::prop_assert_eq!((ours.month, ours.day), (date.month() as u32, date.day() as u32));
            proptest::prop_assert_eq!(ours.weekday, date.weekday().to_sunday_zero_offset() as u32);
        }
    }
}
