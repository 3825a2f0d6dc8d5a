//! Every order in which threads may meet in the throttle (loom explores them all, up to three preemptions each).
//!
//! `cargo test -p activator --features loom --lib throttle::model`. A lost wake-up shows as a deadlock, a slot too many
//! as a count above the limit, a leak as a count that is not zero at the end.

use loom::future::block_on;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::*;

fn throttle(limit: u32) -> Arc<Throttle> {
    let lines = Lines::each(10);
    Throttle::new(lines.terms(limit, None), lines.budget)
}

fn pods(n: u8) -> Vec<Arc<Target>> {
    (1..=n).map(|n| Arc::new(Target::new(([10, 0, 0, n], 8012).into()))).collect()
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn admitted(throttle: &Arc<Throttle>) -> Permit {
    match throttle.enter(&Ask::default()) {
        Admission::Admitted(permit) => permit,
        other => panic!("no slot: {other:?}"),
    }
}

fn waiting(throttle: &Arc<Throttle>) -> Wait {
    match throttle.enter(&Ask::default()) {
        Admission::Waiting(wait, _) => wait,
        other => panic!("did not have to wait: {other:?}"),
    }
}

/// A request from beginning to end; never more than `most` at once.
fn request(throttle: &Arc<Throttle>, running: &AtomicU32, most: u32) {
    let permit = match throttle.enter(&Ask::default()) {
        Admission::Admitted(permit) => permit,
        Admission::Waiting(wait, _) => block_on(wait),
        Admission::Full(full) => panic!("{full}"),
    };
    assert!(running.fetch_add(1, Ordering::Relaxed) < most, "above the limit");
    running.fetch_sub(1, Ordering::Relaxed);
    drop(permit);
}

fn assert_nothing_left(throttle: &Throttle) {
    assert_eq!((throttle.in_flight(), throttle.waiting()), (0, 0));
    assert_eq!((throttle.budget.waiters(), throttle.budget.bytes()), (0, 0));
    throttle.set_pods(&[]);
    assert!(throttle.lock().core.is_none(), "a core that nobody needs");
}

#[test]
fn two_releases_and_a_cancel() {
    check(|| {
        let throttle = throttle(2);
        throttle.set_pods(&pods(1));
        let [first, second] = [0, 1].map(|_| admitted(&throttle));
        let wait = waiting(&throttle);
        let threads = [first, second].map(|permit| thread::spawn(move || drop(permit)));
        drop(wait);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_nothing_left(&throttle);
    });
}

#[test]
fn a_grant_that_races_with_a_cancel_goes_to_the_next() {
    check(|| {
        let throttle = throttle(1);
        throttle.set_pods(&pods(1));
        let permit = admitted(&throttle);
        let (first, second) = (waiting(&throttle), waiting(&throttle));
        let release = thread::spawn(move || drop(permit));
        let cancel = thread::spawn(move || drop(first));
        drop(block_on(second));
        release.join().unwrap();
        cancel.join().unwrap();
        assert_nothing_left(&throttle);
    });
}

#[test]
fn a_pod_comes_while_requests_come_and_go() {
    check(|| {
        let (throttle, running) = (throttle(1), Arc::new(AtomicU32::new(0)));
        let wake = thread::spawn({
            let throttle = Arc::clone(&throttle);
            move || throttle.set_pods(&pods(1))
        });
        let other = thread::spawn({
            let (throttle, running) = (Arc::clone(&throttle), Arc::clone(&running));
            move || request(&throttle, &running, 1)
        });
        request(&throttle, &running, 1);
        wake.join().unwrap();
        other.join().unwrap();
        assert_nothing_left(&throttle);
    });
}

#[test]
fn a_pod_flickers_under_a_request() {
    check(|| {
        let (throttle, running) = (throttle(1), Arc::new(AtomicU32::new(0)));
        throttle.set_pods(&pods(1));
        let flicker = thread::spawn({
            let throttle = Arc::clone(&throttle);
            move || {
                throttle.set_pods(&[]);
                throttle.set_pods(&pods(1));
            }
        });
        let other = thread::spawn({
            let (throttle, running) = (Arc::clone(&throttle), Arc::clone(&running));
            move || request(&throttle, &running, 1)
        });
        request(&throttle, &running, 1);
        flicker.join().unwrap();
        other.join().unwrap();
        assert_nothing_left(&throttle);
    });
}

#[test]
fn a_refused_request_comes_back_first() {
    check(|| {
        let throttle = throttle(1);
        throttle.set_pods(&pods(1));
        let permit = admitted(&throttle);
        let newcomer = waiting(&throttle);
        let world = thread::spawn({
            let throttle = Arc::clone(&throttle);
            move || throttle.set_pods(&pods(2)[1..])
        });
        let newcomer = thread::spawn(move || drop(block_on(newcomer)));
        throttle.set_aside(permit.target());
        drop(permit);
        match throttle.enter_again(&Ask::default()) {
            Admission::Admitted(permit) => drop(permit),
            Admission::Waiting(wait, _) => drop(block_on(wait)),
            Admission::Full(full) => panic!("{full}"),
        }
        newcomer.join().unwrap();
        world.join().unwrap();
        assert_nothing_left(&throttle);
    });
}

/// With a first batch of one (see [`gate::FIRST_BATCH`]).
#[test]
fn the_gate_opens_for_everybody_whoever_opens_it() {
    check(|| {
        let throttle = throttle(0);
        let waits = [0; 3].map(|_| waiting(&throttle));
        let told = throttle.set_pods_of(&pods(1), 1, Instant::now()).unwrap();
        let timer = thread::spawn({
            let throttle = Arc::clone(&throttle);
            move || throttle.time(told)
        });
        let sibling = thread::spawn({
            let throttle = Arc::clone(&throttle);
            move || throttle.set_pods(&pods(2))
        });
        // Held together: none of them lets the next one in by ending.
        let permits = waits.map(block_on);
        assert_eq!(throttle.in_flight(), 3);
        drop(permits);
        timer.join().unwrap();
        sibling.join().unwrap();
        assert_nothing_left(&throttle);
    });
}

#[test]
fn two_lines_keep_to_one_budget() {
    check(|| {
        let lines = Lines { length: 10, budget: Budget::new(1, 10) };
        let [a, b] = [0, 1].map(|limit| Throttle::new(lines.terms(limit, None), Arc::clone(&lines.budget)));
        let other = thread::spawn({
            let budget = Arc::clone(&lines.budget);
            move || {
                let admission = a.enter(&Ask::plain(6));
                assert!(budget.waiters() <= 1 && budget.bytes() <= 10);
                drop(admission);
                a
            }
        });
        let admission = b.enter(&Ask::plain(6));
        assert!(lines.budget.waiters() <= 1 && lines.budget.bytes() <= 10);
        drop(admission);
        let a = other.join().unwrap();
        assert_nothing_left(&a);
        assert_nothing_left(&b);
        assert!(matches!(a.enter(&Ask::plain(10)), Admission::Waiting(..)), "nothing of a refusal is left");
    });
}
