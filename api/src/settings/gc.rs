//! `config-gc`: which revisions that nobody uses are kept.

use std::time::Duration;

use super::{Data, InvalidSetting, Reader};

/// Word that switches a rule off.
const DISABLED: &str = "disabled";

/// Settings of revision garbage collection (upstream `pkg/gc/config.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gc {
    /// Younger ones are kept; `None` = age does not protect.
    pub retain_since_create: Option<Duration>,
    /// Those that were used since are kept; `None` = that does not protect. With both rules off none is stale.
    pub retain_since_last_active: Option<Duration>,
    /// As many unused revisions stay whatever their age.
    pub min_non_active: usize,
    /// More than this go, the longest unused first, whatever their age; `None` = no limit.
    pub max_non_active: Option<usize>,
}

impl Default for Gc {
    fn default() -> Self {
        Self {
            retain_since_create: Some(Duration::from_hours(48)),
            retain_since_last_active: Some(Duration::from_hours(15)),
            min_non_active: 20,
            max_non_active: Some(1000),
        }
    }
}

impl Gc {
    /// Reads the ConfigMap.
    pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
        let reader = Reader { config_map: "config-gc", data };
        let default = Self::default();
        let is_off = |key: &str| reader.text(key).is_some_and(|value| value.eq_ignore_ascii_case(DISABLED));
        let duration = |key: &str, default: Option<Duration>| {
            if is_off(key) {
                return Ok(None);
            }
            reader.duration(key, default.unwrap_or_default()).map(Some)
        };
        let (min, max) = ("min-non-active-revisions", "max-non-active-revisions");
        let max_non_active =
            if is_off(max) { None } else { Some(reader.number(max, default.max_non_active.unwrap_or_default())?) };
        let min_non_active = reader.number(min, default.min_non_active)?;
        let fits = max_non_active.is_none_or(|most| min_non_active <= most);
        reader.check(max, fits, format!("want at least {min}, which is {min_non_active}"))?;
        Ok(Self {
            retain_since_create: duration("retain-since-create-time", default.retain_since_create)?,
            retain_since_last_active: duration("retain-since-last-active-time", default.retain_since_last_active)?,
            min_non_active,
            max_non_active,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Gc, String> {
        let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Gc::parse(&data).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_and_words() {
        assert_eq!(parse(&[]).unwrap(), Gc::default());
        let all = parse(&[
            ("retain-since-create-time", "17h"),
            ("retain-since-last-active-time", "16h"),
            ("min-non-active-revisions", "5"),
            ("max-non-active-revisions", "500"),
        ]);
        let hours = |n| Some(Duration::from_hours(n));
        let want = Gc {
            retain_since_create: hours(17),
            retain_since_last_active: hours(16),
            min_non_active: 5,
            max_non_active: Some(500),
        };
        assert_eq!(all.unwrap(), want);
        let off = parse(&[
            ("retain-since-create-time", "disabled"),
            ("retain-since-last-active-time", "Disabled"),
            ("max-non-active-revisions", "disabled"),
        ]);
        let off = off.unwrap();
        assert_eq!((off.retain_since_create, off.retain_since_last_active, off.max_non_active), (None, None, None));
    }

    #[test]
    fn nonsense_names_its_key() {
        for (key, value) in [
            ("retain-since-create-time", "two days"),
            ("retain-since-last-active-time", "-1"),
            ("min-non-active-revisions", "-1"),
            ("max-non-active-revisions", "many"),
            ("max-non-active-revisions", "19"),
        ] {
            let error = parse(&[(key, value)]).unwrap_err();
            assert!(error.contains("config-gc") && error.contains(key), "{error}");
        }
    }
}
