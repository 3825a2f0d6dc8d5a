//! `config-leader-election`: how replicas share the work (upstream `knative.dev/pkg/leaderelection/config.go`).

use std::time::Duration;

use super::{Data, InvalidSetting, Reader};

const NAME: &str = "config-leader-election";

/// Settings of leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderElection {
    /// Parts into which the work is divided: 1 to 10.
    pub buckets: u32,
    /// How long a lease is valid without being renewed.
    pub lease_duration: Duration,
    /// How long a holder goes on without having been able to renew.
    pub renew_deadline: Duration,
    /// Rhythm of renewing and of looking.
    pub retry_period: Duration,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            buckets: 1,
            lease_duration: Duration::from_secs(60),
            renew_deadline: Duration::from_secs(40),
            retry_period: Duration::from_secs(10),
        }
    }
}

impl LeaderElection {
    /// Most buckets.
    pub const MOST_BUCKETS: u32 = 10;

    /// Reads the ConfigMap's data. Old camelCase keys are read where the new one is absent.
    pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
        let r = Reader { config_map: NAME, data };
        let d = Self::default();
        let buckets = match r.text("buckets") {
            Some(text) => text.parse().map_err(|error| r.problem("buckets", error))?,
            None => d.buckets,
        };
        if !(1..=Self::MOST_BUCKETS).contains(&buckets) {
            return Err(r.problem("buckets", "must be 1 to 10"));
        }
        let duration = |key: &str, old: &str, default: Duration| -> Result<Duration, InvalidSetting> {
            let Some(key) = [key, old].into_iter().find(|key| r.text(key).is_some()) else { return Ok(default) };
            let text = r.text(key).unwrap_or_default();
            let duration = crate::duration::parse(text).map_err(|error| r.problem(key, error))?;
            if duration.is_zero() { Err(r.problem(key, "must be longer than 0s")) } else { Ok(duration) }
        };
        let settings = Self {
            buckets,
            lease_duration: duration("lease-duration", "leaseDuration", d.lease_duration)?,
            renew_deadline: duration("renew-deadline", "renewDeadline", d.renew_deadline)?,
            retry_period: duration("retry-period", "retryPeriod", d.retry_period)?,
        };
        // A holder that goes on past its lease would share it with the next.
        if settings.renew_deadline >= settings.lease_duration {
            return Err(r.problem("renew-deadline", "must be shorter than lease-duration"));
        }
        if settings.retry_period >= settings.renew_deadline {
            return Err(r.problem("retry-period", "must be shorter than renew-deadline"));
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<LeaderElection, InvalidSetting> {
        LeaderElection::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn settings_are_read_in_both_spellings() {
        assert_eq!(of(&[]), Ok(LeaderElection::default()));
        let got = of(&[("buckets", "3"), ("lease-duration", "10s"), ("renewDeadline", "7s"), ("retryPeriod", "2s")]);
        let got = got.unwrap();
        assert_eq!((got.buckets, got.lease_duration.as_secs()), (3, 10));
        assert_eq!((got.renew_deadline.as_secs(), got.retry_period.as_secs()), (7, 2));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for pairs in [
            [("buckets", "0")],
            [("buckets", "11")],
            [("lease-duration", "30s")],
            [("renew-deadline", "61s")],
            [("retry-period", "40s")],
            [("retry-period", "0s")],
            [("retry-period", "soon")],
        ] {
            assert!(of(&pairs).is_err(), "{pairs:?}");
        }
    }
}
