//! Conditions of objects: what they say is shared, since when is not.

use std::sync::Arc;

use api::conditions::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Shared;
use crate::moment::Moment;

/// A condition without its time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Saying {
    type_: String,
    status: String,
    severity: Option<String>,
    reason: Option<String>,
    message: Option<String>,
}

/// Conditions as they are kept.
#[derive(Debug)]
pub(super) struct Conditions {
    say: Arc<Vec<Saying>>,
    since: Since,
}

/// Since when each of them is so.
#[derive(Debug, PartialEq)]
enum Since {
    /// Whole seconds, as Kubernetes writes them, of as many as ours have; [`NO_SECOND`] where a condition does not say.
    Few([u32; 4]),
    /// Any other; [`NEVER`] where a condition does not say.
    Many(Box<[Moment]>),
}

const NO_SECOND: u32 = u32::MAX;
const NEVER: Moment = Moment::MIN;

impl Since {
    fn of(moments: &[Moment]) -> Self {
        let mut few = [NO_SECOND; 4];
        let fits = moments.len() <= few.len();
        let fits = fits
            && few.iter_mut().zip(moments).all(|(second, moment)| {
                let whole = u32::try_from(moment.seconds()).ok().filter(|whole| *whole != NO_SECOND);
                *second = whole.unwrap_or(NO_SECOND);
                *moment == NEVER || whole.is_some_and(|whole| Moment::from_seconds(i64::from(whole)) == *moment)
            });
        if fits { Self::Few(few) } else { Self::Many(moments.into()) }
    }

    fn get(&self, nth: usize) -> Option<Moment> {
        match self {
            Self::Few(seconds) => {
                let second = seconds.get(nth).filter(|second| **second != NO_SECOND)?;
                Some(Moment::from_seconds(i64::from(*second)))
            }
            Self::Many(moments) => moments.get(nth).copied().filter(|moment| *moment != NEVER),
        }
    }
}

impl Conditions {
    pub(super) fn of(conditions: Vec<Condition>, shared: &mut Shared) -> Self {
        let mut since = Vec::with_capacity(conditions.len());
        let say = conditions
            .into_iter()
            .map(|c| {
                since.push(c.last_transition_time.map_or(NEVER, |at| Moment::from_timestamp(at.0)));
                Saying { type_: c.type_, status: c.status, severity: c.severity, reason: c.reason, message: c.message }
            })
            .collect();
        Self { say: shared.conditions.share(say), since: Since::of(&since) }
    }

    pub(super) fn list(&self) -> Vec<Condition> {
        let each = self.say.iter().enumerate();
        each.map(|(nth, say)| Condition {
            type_: say.type_.clone(),
            status: say.status.clone(),
            severity: say.severity.clone(),
            last_transition_time: self.since.get(nth).map(|since| Time(since.timestamp())),
            reason: say.reason.clone(),
            message: say.message.clone(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_were() {
        let at = Moment::from_seconds;
        let half = at(1_800_000_000).plus(std::time::Duration::from_millis(500));
        for (moments, few) in [
            (vec![], true),
            (vec![at(0), at(1_800_000_000), NEVER], true),
            (vec![at(1), at(2), at(3), at(4)], true),
            (vec![at(1), at(2), at(3), at(4), at(5)], false),
            (vec![at(1), half], false),
            (vec![at(-1)], false),
            (vec![at(i64::from(u32::MAX))], false),
        ] {
            let since = Since::of(&moments);
            assert_eq!(matches!(since, Since::Few(_)), few, "{moments:?}");
            for (nth, moment) in moments.iter().enumerate() {
                assert_eq!(since.get(nth), Some(*moment).filter(|moment| *moment != NEVER), "{moments:?}");
            }
        }
        assert_eq!(size_of::<Since>(), 24);
    }
}
