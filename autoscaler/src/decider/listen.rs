//! Load from pods that tell it by themselves: what each said last holds until it says otherwise, and fills the windows
//! second by second when somebody looks at them. A pod whose load stays as it is costs nothing in between.
//!
//! A revision with few pods is listened to, all of them. One with many, or with pods that cannot tell (upstream's
//! queue-proxy), is asked ([`super::load`]).

use std::{net::IpAddr, time::Duration};

use api::stat::Stat;

use super::{
    Engine,
    engine::TICK,
    event::Effect,
    load::{BURST_GAP, is_good},
    revision::{Live, Revision},
};
use crate::{
    algorithm::RevisionScaling,
    collect::{Heard, Load},
    key::Key,
    moment::Moment,
};

/// Ready pods up to which a revision is listened to. Asking costs more per pod, but never more than sixteen pods a round.
const MOST: usize = 64;
/// Rhythm of looking whether all are heard.
pub(super) const CHECK: Duration = Duration::from_secs(15);
/// Until one that was lost is tried again; twice as long for each further time while none says anything, up to [`CHECK`].
const RETRY: Duration = Duration::from_secs(1);
/// Until pods that could not tell are tried again.
const UNABLE: Duration = Duration::from_secs(600);
/// The most seconds that are filled in at once; no window is longer.
const MOST_SECONDS: i64 = 3600;

/// The pods of one revision that are listened to.
#[derive(Debug, Default)]
pub(super) struct Listening {
    pods: Vec<Listened>,
    /// Losses since one said something.
    lost: u32,
    /// The newest second that the windows have, and what they have of it from here.
    filled: Option<(i64, (f64, f64))>,
}

#[derive(Debug)]
struct Listened {
    pod: IpAddr,
    /// A task listens to it, as far as is known.
    connected: bool,
    last: Last,
}

/// What is known of a pod.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Last {
    /// Nothing: it is new here. Its load is none, as far as anybody knows.
    New,
    /// Requests in flight and per second, beside those through activators.
    Told(f64, f64),
    /// It is not heard any more. Its load is as that of the others.
    Lost,
}

impl Listening {
    /// Load of all pods, if any is heard.
    fn load(&self) -> Option<(f64, f64)> {
        let (mut told, mut lost, mut in_flight, mut rate) = (0, 0, 0.0, 0.0);
        for pod in &self.pods {
            match pod.last {
                Last::Told(more_in_flight, more_rate) => {
                    told += 1;
                    in_flight += more_in_flight;
                    rate += more_rate;
                }
                Last::Lost => lost += 1,
                Last::New => {}
            }
        }
        let all = f64::from(told + lost) / f64::from(told);
        (told > 0).then_some((in_flight * all, rate * all))
    }

    /// Brings the windows up to `now`: seconds since the last time are as the last load says, and so is the present one
    /// as far as it has come.
    fn fill(&mut self, load: &mut Load, now: Moment) {
        let Some(value) = self.load() else { return };
        let second = now.seconds();
        match self.filled {
            // A clock that was set back waits for itself.
            Some((filled, _)) if filled > second => return,
            Some((filled, there)) if filled == second => load.add(now, (value.0 - there.0, value.1 - there.1)),
            Some((filled, _)) => {
                for second in (filled + 1).max(second - MOST_SECONDS)..=second {
                    load.add(Moment::from_seconds(second), value);
                }
            }
            None => load.add(now, value),
        }
        self.filled = Some((second, value));
    }

    fn pod(&mut self, pod: IpAddr) -> Option<&mut Listened> {
        self.pods.iter_mut().find(|listened| listened.pod == pod)
    }

    /// Makes these all there are.
    fn follow(&mut self, ready: impl Iterator<Item = IpAddr>) {
        let mut before = std::mem::take(&mut self.pods);
        self.pods = ready
            .map(|pod| match before.iter().position(|listened| listened.pod == pod) {
                Some(nth) => before.swap_remove(nth),
                None => Listened { pod, connected: false, last: Last::New },
            })
            .collect();
    }
}

/// Brings the windows of a revision that is listened to up to `now`.
pub(super) fn fill(live: &mut Live, scaling: &RevisionScaling, now: Moment) {
    let Some(listening) = &mut live.listening else { return };
    if listening.load().is_some() {
        listening.fill(live.load.get_or_insert_with(|| Box::new(Load::new(scaling))), now);
    } else {
        // Seconds in which nobody was heard are not made up afterwards.
        listening.filled = None;
    }
}

impl Engine {
    /// Pods can be listened to, unless a revision's cannot tell.
    #[must_use]
    pub fn listening(mut self) -> Self {
        self.listens = true;
        self
    }

    /// Follows which pods are ready, if the revision is to be listened to. Tells whether it is.
    pub(super) fn listen(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) -> bool {
        let Some(revision) = self.revisions.get_mut(key) else { return false };
        let Revision { live: Some(live), scaling, metric, .. } = &mut **revision else { return false };
        let ready = self.pods.ready(key);
        fill(live, scaling, now);
        let able = live.unable_until.is_none_or(|until| until <= now);
        if !self.listens || !able || scaling.extras.prometheus.is_some() || ready.len() > MOST {
            live.listening = None;
            return false;
        }
        let listening = live.listening.get_or_insert_default();
        listening.follow(ready.into_iter().map(|(_, pod)| pod));
        for listened in listening.pods.iter_mut().filter(|listened| !listened.connected) {
            listened.connected = true;
            let service = metric.as_ref().map(|metric| metric.scrape_target(key)).unwrap_or_default();
            out.push(Effect::Listen { key: key.clone(), pod: listened.pod, service });
        }
        true
    }

    /// Pods changed: whose revision is listened to already is listened to from now on, or no longer.
    pub(super) fn follow_pods(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        let live = self.revisions.get(key).and_then(|revision| revision.live.as_ref());
        if live.is_some_and(|live| live.listening.is_some()) && !self.listen(key, now, out) {
            // Too many for that: they are asked, from now on.
            if let Some(live) = self.revisions.get_mut(key).and_then(|revision| revision.live.as_mut()) {
                live.scrape_at = live.scrape_at.map(|_| now);
            }
        }
    }

    /// Something came of listening to a pod.
    pub(super) fn heard(&mut self, key: &Key, pod: IpAddr, heard: Heard, now: Moment, out: &mut Vec<Effect>) {
        let live = self.revisions.get_mut(key).and_then(|revision| {
            let Revision { live, scaling, desired, .. } = &mut **revision;
            live.as_mut().map(|live| (live, scaling, *desired))
        });
        let known =
            live.filter(|(live, ..)| live.listening.as_ref().is_some_and(|l| l.pods.iter().any(|p| p.pod == pod)));
        let Some((live, scaling, desired)) = known else {
            // Of a pod that is not wanted any more, or not here.
            if matches!(heard, Heard::Told(_)) {
                out.push(Effect::Hush(key.clone(), pod));
            }
            return;
        };
        fill(live, scaling, now);
        match heard {
            Heard::Told(stat) => {
                if is_good(live, key, &stat, &self.metrics) {
                    told(live, scaling, desired, pod, &stat, now);
                }
            }
            Heard::Lost => {
                let Some(listening) = &mut live.listening else { return };
                if let Some(listened) = listening.pod(pod) {
                    (listened.connected, listened.last) = (false, Last::Lost);
                }
                let retry = now.plus((RETRY * (1 << listening.lost.min(4))).min(CHECK));
                listening.lost += 1;
                live.scrape_at = live.scrape_at.map(|at| at.min(retry));
            }
            Heard::Unable => {
                live.listening = None;
                live.unable_until = Some(now.plus(UNABLE));
                live.scrape_at = live.scrape_at.map(|_| now);
            }
        }
        self.tick_and_look(key, now, out);
        self.reschedule(key, now);
    }
}

/// A pod said what it has. More than what is wanted can take is decided soon, not at the next tick.
fn told(live: &mut Live, scaling: &RevisionScaling, desired: i32, pod: IpAddr, stat: &Stat, now: Moment) {
    let Some(listening) = &mut live.listening else { return };
    listening.lost = 0;
    let before = listening.load().map_or(0.0, |load| load.0);
    if let Some(listened) = listening.pod(pod) {
        let (in_flight, rate) = stat.direct();
        listened.last = Last::Told(in_flight, rate);
    }
    let load = listening.load().map_or(0.0, |load| load.0);
    fill(live, scaling, now);
    let next = if load > before && load > f64::from(desired.max(1)) * scaling.target {
        live.decided_at.map_or(now, |at| at.plus(BURST_GAP))
    } else {
        now.plus(TICK)
    };
    live.tick_at = Some(live.tick_at.map_or(next, |tick| tick.min(next)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::MetricKind;

    fn at(second: i64) -> Moment {
        Moment::from_seconds(1_000_000 + second)
    }

    fn ip(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn averages(load: &Load, now: Moment) -> (f64, f64) {
        (load.averages(MetricKind::Concurrency, now).0, load.averages(MetricKind::Rps, now).0)
    }

    #[test]
    fn what_was_said_holds_until_something_else_is() {
        let scaling = RevisionScaling::default();
        let (mut load, mut listening) = (Load::new(&scaling), Listening::default());
        listening.follow([ip(1), ip(2)].into_iter());
        listening.fill(&mut load, at(0));
        assert!(load.is_empty(at(0)), "nobody has said anything");
        listening.pod(ip(1)).unwrap().last = Last::Told(3.0, 30.0);
        listening.fill(&mut load, at(0));
        assert_eq!(averages(&load, at(0)), (3.0, 30.0), "the other is new");
        listening.pod(ip(2)).unwrap().last = Last::Lost;
        listening.fill(&mut load, at(0));
        assert_eq!(averages(&load, at(0)), (6.0, 60.0), "the other is taken to be alike");
        listening.pod(ip(2)).unwrap().last = Last::Told(1.0, 10.0);
        listening.fill(&mut load, at(0));
        assert_eq!(averages(&load, at(0)), (4.0, 40.0), "within the second, the newest counts");
        listening.fill(&mut load, at(9));
        assert_eq!(averages(&load, at(9)), (4.0, 40.0));
        // Ten seconds of four, then ten of none.
        for pod in [ip(1), ip(2)] {
            listening.pod(pod).unwrap().last = Last::Told(0.0, 0.0);
        }
        listening.fill(&mut load, at(19));
        assert_eq!(averages(&load, at(19)), (2.0, 20.0));
        listening.follow(std::iter::empty());
        listening.fill(&mut load, at(100));
        assert!(load.is_empty(at(100)), "no pods, no load");
    }

    proptest::proptest! {
        /// However often somebody looks in between, the windows are the same.
        #[test]
        fn looking_changes_nothing(
            steps in proptest::collection::vec((0..3_i64, 0..3_u8, 0..50_u32), 1..60),
            looks in proptest::collection::vec(proptest::bool::ANY, 60),
        ) {
            let scaling = RevisionScaling::default();
            let (mut loads, mut second) = ([Load::new(&scaling), Load::new(&scaling)], 0);
            let mut both = [Listening::default(), Listening::default()];
            for listening in &mut both {
                listening.follow((0..3).map(ip));
            }
            for ((pause, pod, value), look) in steps.into_iter().zip(looks) {
                for between in second..second + pause {
                    if look {
                        both[0].fill(&mut loads[0], at(between));
                    }
                }
                second += pause;
                for (listening, load) in both.iter_mut().zip(&mut loads) {
                    listening.fill(load, at(second));
                    listening.pod(ip(pod)).unwrap().last = Last::Told(f64::from(value), f64::from(value));
                    listening.fill(load, at(second));
                }
            }
            let now = at(second);
            let (looked, not) = (averages(&loads[0], now), averages(&loads[1], now));
            proptest::prop_assert!((looked.0 - not.0).abs() < 1e-6, "{looked:?} {not:?}");
        }
    }
}
