//! What to do with a lease. Pure.
//!
//! As in client-go, nobody compares clocks: a lease counts as expired when it has not changed for its duration by the
//! watcher's own clock.

use std::time::Duration;

use api::settings::LeaderElection;
use tokio::time::Instant;

/// A lease as read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty = nobody.
    pub holder: String,
    /// What its holder promised.
    pub duration: Duration,
    /// Changes with every renewal.
    pub version: String,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is none: make it.
    Create,
    /// Write it with us as its holder.
    Write {
        /// The number of times it changed hands, then.
        transitions: i32,
    },
    /// Another holds it: look again after this.
    Wait(Duration),
}

/// What one candidate remembers of one lease.
#[derive(Debug, Clone)]
pub struct Candidate {
    identity: String,
    settings: LeaderElection,
    seen: Option<(Record, Instant)>,
    /// When we wrote it last.
    renewed: Option<Instant>,
}

impl Candidate {
    /// Knows nothing yet.
    pub fn new(identity: String, settings: LeaderElection) -> Self {
        Self { identity, settings, seen: None, renewed: None }
    }

    /// Takes the lease as it is now, or that there is none.
    pub fn see(&mut self, lease: Option<Record>, now: Instant) -> Step {
        let Some(lease) = lease else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((known, since)) if *known == lease => *since,
            _ => now,
        };
        let step = if lease.holder == self.identity {
            Step::Write { transitions: lease.transitions }
        } else {
            let rest = lease.duration.saturating_sub(now.saturating_duration_since(since));
            if lease.holder.is_empty() || rest.is_zero() {
                Step::Write { transitions: lease.transitions.saturating_add(1) }
            } else {
                Step::Wait(rest.min(self.settings.retry_period))
            }
        };
        self.seen = Some((lease, since));
        step
    }

    /// A write that began at `at` ended well: the lease is ours from then on.
    pub fn renewed(&mut self, at: Instant) {
        self.renewed = Some(at);
    }

    /// The lease is known to be another's.
    pub fn lost(&mut self) {
        self.renewed = None;
    }

    /// Whether we may act as its holder: renewed within the deadline, whatever the API server says meanwhile.
    pub fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now.saturating_duration_since(at) < self.settings.renew_deadline)
    }

    /// How long [`Self::leads`] stays true without another renewal.
    pub fn leads_for(&self, now: Instant) -> Option<Duration> {
        self.renewed.map(|at| self.settings.renew_deadline.saturating_sub(now.saturating_duration_since(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This long after all began.
    fn at(second: u64) -> Instant {
        static BEGINNING: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGINNING.get_or_init(Instant::now) + Duration::from_secs(second)
    }

    fn record(holder: &str, version: &str) -> Record {
        let duration = Duration::from_secs(60);
        Record { holder: holder.into(), duration, version: version.into(), transitions: 3 }
    }

    #[test]
    fn a_lease_is_taken_when_it_has_not_changed_for_its_duration() {
        let mut us = Candidate::new("us".into(), LeaderElection::default());
        assert_eq!(us.see(None, at(0)), Step::Create);
        let wait = Step::Wait(Duration::from_secs(10));
        assert_eq!(us.see(Some(record("them", "1")), at(0)), wait);
        assert_eq!(us.see(Some(record("them", "1")), at(50)), wait);
        assert_eq!(us.see(Some(record("them", "2")), at(55)), wait, "renewed");
        assert_eq!(us.see(Some(record("them", "2")), at(112)), Step::Wait(Duration::from_secs(3)));
        assert_eq!(us.see(Some(record("them", "2")), at(115)), Step::Write { transitions: 4 });
        assert_eq!(us.see(Some(record("", "3")), at(116)), Step::Write { transitions: 4 }, "released");
        assert_eq!(us.see(Some(record("us", "4")), at(117)), Step::Write { transitions: 3 }, "ours: renewed");
    }

    #[test]
    fn a_holder_that_cannot_renew_stops_before_anybody_else_begins() {
        let settings = LeaderElection::default();
        let mut us = Candidate::new("us".into(), settings);
        assert!(!us.leads(at(0)));
        us.renewed(at(0));
        assert!(us.leads(at(39)));
        assert_eq!(us.leads_for(at(30)), Some(Duration::from_secs(10)));
        assert!(!us.leads(at(40)) && settings.renew_deadline < settings.lease_duration);
        us.renewed(at(41));
        us.lost();
        assert!(!us.leads(at(41)));
    }
}
