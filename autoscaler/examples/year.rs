//! A year of sparse traffic in virtual time: what keep-warm costs and saves beside upstream's defaults.
//!
//! `cargo run --release -p autoscaler --example year`. Arrivals are generated in the shapes that "Serverless in the
//! Wild" (USENIX ATC 2020, §3) found in Azure Functions: most functions are called by timers or seldom, some follow the
//! day, some come in clumps. One revision a shape, one pod is enough for it; the decisions about keeping it are the real
//! ones (`autoscaler::algorithm::keep_warm`), and the way to zero takes its real times.

#![allow(clippy::print_stdout)] // that is what it is for

use std::time::Duration;

use api::scaling::WarmWindow;
use autoscaler::{
    algorithm::{
        RevisionScaling,
        keep_warm::{IdleTimes, scheduled},
    },
    moment::Moment,
};

const START: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z
const YEAR: i64 = 365 * 86_400;
/// From the first request to a ready pod.
const COLD_START: f64 = 2.0;

type Shape = (&'static str, fn(&mut fastrand::Rng) -> Vec<i64>);

fn main() {
    let shapes: [Shape; 5] = [
        ("timer, every 30 min", |_| (0..YEAR).step_by(1800).collect()),
        ("timer with jitter, about every 20 min", |random| gaps(random, |random, _| 1080 + random.i64(0..240))),
        ("office hours, every 6 min on average", |random| {
            gaps(random, |random, second| if office(second) { exponential(random, 360.0) } else { 3600 })
                .into_iter()
                .filter(|second| office(*second))
                .collect()
        }),
        ("any time, every 45 min on average", |random| gaps(random, |random, _| exponential(random, 2700.0))),
        ("clumps of 20 calls, every 5 h on average", |random| {
            let starts = gaps(random, |random, _| exponential(random, 18_000.0));
            let mut all: Vec<i64> = starts.iter().flat_map(|start| (0..20).map(move |n| start + n * 7)).collect();
            all.sort_unstable();
            all
        }),
    ];
    let office_hours: Vec<WarmWindow> = match "0 7 * * 1-5".parse() {
        Ok(opens) => vec![WarmWindow { opens, lasts: Duration::from_secs(11 * 3600), min_scale: 1 }],
        Err(error) => return println!("{error}"),
    };
    println!("{:<41} {:<22} {:>9} {:>10} {:>12}", "arrivals", "policy", "wake-ups", "pod-hours", "waited, s");
    for (name, arrivals) in shapes {
        let arrivals = arrivals(&mut fastrand::Rng::with_seed(7));
        let policies = [
            ("upstream's defaults", Policy { windows: &[], learned: false }),
            ("learned keep-warm", Policy { windows: &[], learned: true }),
            ("weekdays 7 to 18 h", Policy { windows: &office_hours, learned: false }),
        ];
        for (policy_name, policy) in policies {
            let Year { wakes, pod_seconds } = live(&arrivals, &policy);
            let (hours, waited) = (pod_seconds as f64 / 3600.0, f64::from(wakes) * COLD_START);
            println!("{name:<41} {policy_name:<22} {wakes:>9} {hours:>10.0} {waited:>12.0}");
        }
    }
}

/// Seconds of the year, each so long after the one before as `gap` says.
fn gaps(random: &mut fastrand::Rng, gap: impl Fn(&mut fastrand::Rng, i64) -> i64) -> Vec<i64> {
    let mut second = 0;
    let mut all = Vec::new();
    while second < YEAR {
        all.push(second);
        second += gap(random, second).max(1);
    }
    all
}

fn exponential(random: &mut fastrand::Rng, mean: f64) -> i64 {
    (-mean * (1.0 - random.f64()).ln()).ceil() as i64
}

/// Monday to Friday from 8 to 18 h, in UTC; the year begins on a Thursday.
fn office(second: i64) -> bool {
    let (day, hour) = (second / 86_400, second % 86_400 / 3600);
    (day + 3) % 7 < 5 && (8..18).contains(&hour)
}

struct Policy<'a> {
    windows: &'a [WarmWindow],
    learned: bool,
}

struct Year {
    wakes: u32,
    pod_seconds: i64,
}

/// From arrival to arrival: between two of them the pod is there until its way to zero is over, and while it is kept.
fn live(arrivals: &[i64], policy: &Policy<'_>) -> Year {
    let scaling = RevisionScaling::default();
    // A stable window without load; with the default burst capacity an activator has been in the path all along, so
    // that the last pod need not wait for it.
    let stays = scaling.stable_window.as_secs().cast_signed();
    let mut idle = IdleTimes::default();
    let mut year = Year { wakes: 0, pod_seconds: 0 };
    let mut there = false;
    for (nth, arrival) in arrivals.iter().enumerate() {
        let now = Moment::from_seconds(START + arrival);
        if policy.learned {
            idle.active(now);
        }
        if !there {
            year.wakes += 1;
        }
        let next = arrivals.get(nth + 1).copied().unwrap_or(YEAR);
        let asleep_at = (arrival + stays).min(next);
        year.pod_seconds += asleep_at - arrival;
        there = next == asleep_at;
        // From change to change of what is kept.
        let mut second = asleep_at;
        while second < next {
            let at = Moment::from_seconds(START + second);
            let (pods, change) = scheduled(policy.windows, at);
            let (due, until) = idle.due(at);
            let until = change.into_iter().chain(until).min().map_or(next, |until| until.seconds() - START);
            let until = until.max(second + 1).min(next);
            there = pods > 0 || due;
            if there {
                year.pod_seconds += until - second;
            }
            second = until;
        }
    }
    year
}
