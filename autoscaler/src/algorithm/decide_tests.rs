//! Upstream's cases S01 to S31 and S34 (`pkg/autoscaler/scaling/autoscaler_test.go`), and what must hold for any load.

use std::time::Duration;

use super::*;

/// Upstream's test spec: threshold 2, rates 10, window 60 s, total = target / 0.75.
fn scaling(target: f64, burst: f64) -> RevisionScaling {
    RevisionScaling {
        target,
        total: target / 0.75,
        target_burst_capacity: burst,
        panic_threshold: 2.0,
        max_scale_up_rate: 10.0,
        max_scale_down_rate: 10.0,
        stable_window: Duration::from_secs(60),
        ..RevisionScaling::default()
    }
}

fn inputs(stable: f64, panic: f64, ready: i32) -> Inputs {
    Inputs { stable, panic, ready, reachable: true }
}

fn at(second: u64) -> Moment {
    Moment::from_seconds(1_000_000).plus(Duration::from_secs(second))
}

#[track_caller]
fn expect(got: Option<Decision>, desired: i32, ebc: i32) {
    let got = got.unwrap();
    assert_eq!(got.desired, desired, "{got:?}");
    assert!((got.excess_burst_capacity - ebc).abs() <= 1, "want about {ebc}: {got:?}");
}

#[test]
fn single_decisions() {
    // case, target, burst, stable, panic, ready → desired, excess burst capacity
    let table = [
        ("S01", 10.0, 100.0, 50.0, 50.0, 1, 5, -137),
        ("S02", 10.0, 101.0, 50.0, 10.0, 1, 5, -98),
        ("S02", 10.0, 101.0, 100.0, 10.0, 1, 10, -98),
        ("S03", 10.0, 101.0, 100.0, 99.0, 1, 10, -187),
        ("S05", 181.0, -1.0, 21.0, 26.0, 1, 1, -1),
        ("S06", 10.0, 0.0, 50.0, 49.0, 1, 5, 0),
        ("S07", 10.0, 100.0, 0.0, 0.0, 1, 0, -87),
        ("S08", 10.0, 100.0, 50.0, 50.0, 5, 5, -84),
        ("S09", 10.0, 98.0, 100.0, 100.0, 8, 10, -92),
        ("S09", 10.0, 98.0, 50.0, 50.0, 8, 5, -42),
        ("S10", 10.0, 75.0, 1.0, 0.0, 1, 1, -62),
        ("S10", 10.0, 75.0, 0.0, 0.0, 1, 0, -62),
        ("S13", 10.0, 84.0, 50.0, 100.0, 1, 10, -171),
        ("S19", 10.0, 61.0, 1000.0, 1001.0, 1, 10, -1049),
        ("S19", 10.0, 61.0, 1000.0, 1001.0, 10, 100, -929),
        ("S20", 10.0, 61.0, 1.0, 1.0, 100, 10, 1271),
        ("S20", 10.0, 61.0, 1.0, 1.0, 10, 1, 71),
        ("S21", 10.0, 81.0, 1000.0, 888.0, 0, 10, -969),
    ];
    for (case, target, burst, stable, panic, ready, desired, ebc) in table {
        let got = decide(&scaling(target, burst), &mut State::default(), inputs(stable, panic, ready), at(0)).unwrap();
        assert_eq!(got.desired, desired, "{case}: {got:?}");
        assert!((got.excess_burst_capacity - ebc).abs() <= 1, "{case}: want about {ebc}: {got:?}");
    }
}

#[test]
fn s04_ten_times_what_is_ready_is_a_panic() {
    let mut state = State::default();
    expect(decide(&scaling(10.0, 100.0), &mut state, inputs(100.0, 99.0, 1), at(61)), 10, -186);
    assert!(state.in_panic());
}

#[test]
fn s11_activation_scale() {
    let s = RevisionScaling { activation_scale: 2, ..scaling(10.0, 75.0) };
    expect(decide(&s, &mut State::default(), inputs(0.0, 0.0, 1), at(0)), 0, -62);
    let got = decide(&s, &mut State::default(), inputs(1.0, 0.0, 1), at(0));
    assert!(got.unwrap().reasons.has(Reason::ActivationScale));
    expect(got, 2, -62);
}

#[test]
fn s12_in_panic_the_larger_window_counts() {
    let panicking = || State { panic_since: Some(at(0)), max_panic_pods: 5, ..State::default() };
    expect(decide(&scaling(1.0, 100.0), &mut panicking(), inputs(50.0, 30.0, 5), at(5)), 50, -124);
    expect(decide(&scaling(1.0, 100.0), &mut panicking(), inputs(20.0, 30.0, 5), at(5)), 30, -124);
}

#[test]
fn s14_s15_s16_rates_near_one_and_unreachable() {
    let up = RevisionScaling { max_scale_up_rate: 1.1, ..scaling(1.0, 1982.0) };
    expect(decide(&up, &mut State::default(), inputs(3.0, 3.1, 2), at(0)), 3, -1983);
    let down = RevisionScaling { max_scale_down_rate: 1.1, ..scaling(10.0, 1982.0) };
    let got = decide(&down, &mut State::default(), inputs(1.0, 1.0, 100), at(0));
    assert!(got.unwrap().reasons.has(Reason::ScaleDownRate));
    expect(got, 90, -650);
    let lost = Inputs { reachable: false, ..inputs(1.0, 1.0, 100) };
    expect(decide(&down, &mut State::default(), lost, at(0)), 1, -650);
}

#[test]
fn s17_exponential_growth_is_followed() {
    let s = scaling(1.0, 101.0);
    let mut state = State::default();
    expect(decide(&s, &mut state, inputs(6.0, 6.0, 1), at(0)), 6, -106);
    expect(decide(&s, &mut state, inputs(36.0, 36.0, 6), at(0)), 36, -129);
    expect(decide(&s, &mut state, inputs(216.0, 216.0, 36), at(1)), 216, -269);
    assert_eq!(state.panic_since, Some(at(1)));
    expect(decide(&s, &mut state, inputs(1296.0, 1296.0, 216), at(1)), 1296, -1109);
    expect(decide(&s, &mut state, inputs(1296.0, 1296.0, 1296), at(2)), 1296, 331);
}

#[test]
fn s18_panic_holds_pods_until_the_window_has_passed() {
    let s = scaling(10.0, 93.0);
    let mut state = State::default();
    expect(decide(&s, &mut state, inputs(100.0, 100.0, 1), at(0)), 10, -180);
    expect(decide(&s, &mut state, inputs(100.0, 1000.0, 10), at(0)), 100, -960);
    let held = decide(&s, &mut state, inputs(1.0, 1.0, 10), at(30));
    assert!(held.unwrap().reasons.has(Reason::PanicHold));
    expect(held, 100, 39);
    let over = decide(&s, &mut state, inputs(1.0, 1.0, 10), at(61));
    assert!(over.unwrap().reasons.has(Reason::PanicEnded));
    expect(over, 1, 39);
}

#[test]
fn s22_s23_no_numbers_no_decision() {
    for bad in [f64::NAN, f64::INFINITY] {
        assert_eq!(decide(&scaling(1.0, 1.0), &mut State::default(), inputs(bad, 1.0, 1), at(0)), None);
        assert_eq!(decide(&scaling(1.0, 1.0), &mut State::default(), inputs(1.0, bad, 1), at(0)), None);
    }
}

#[test]
fn s24_settings_may_change_between_decisions() {
    let mut state = State::default();
    expect(decide(&scaling(10.0, 77.0), &mut state, inputs(100.0, 101.0, 1), at(0)), 10, -165);
    expect(decide(&scaling(1.0, 71.0), &mut state, inputs(100.0, 101.0, 10), at(1)), 100, -159);
}

#[test]
fn s25_s26_panic_starts_extends_and_ends() {
    let s = scaling(1.0, 98.0);
    let mut state = State::default();
    expect(decide(&s, &mut state, inputs(11.0, 25.0, 10), at(0)), 25, -110);
    let mut surging = state.clone();
    expect(decide(&s, &mut state, inputs(30.0, 41.0, 40), at(30)), 41, -86);
    assert_eq!(state.panic_since, Some(at(0)));
    expect(decide(&s, &mut state, inputs(50.0, 56.0, 55), at(62)), 50, -81);
    assert!(!state.in_panic());
    expect(decide(&s, &mut surging, inputs(30.0, 80.0, 40), at(30)), 80, -125);
    assert_eq!(surging.panic_since, Some(at(30)));
}

fn delayed(delay: u64) -> RevisionScaling {
    RevisionScaling {
        panic_threshold: 100.0,
        scale_down_delay: Duration::from_secs(delay),
        stable_window: Duration::ZERO,
        ..scaling(10.0, 0.0)
    }
}

#[test]
fn s27_scale_down_waits_for_the_delay() {
    let mut state = State::default();
    let steps = [(2, 40.0, 4), (300, 0.0, 4), (302, 0.0, 0), (540, 40.0, 4), (600, 30.0, 4), (660, 0.0, 4)];
    for (second, load, want) in steps.into_iter().chain([(840, 0.0, 3), (900, 0.0, 0)]) {
        let got = decide(&delayed(300), &mut state, inputs(load, load, 0), at(second)).unwrap();
        assert_eq!(got.desired, want, "at {second}: {got:?}");
    }
}

#[test]
fn s28_s29_no_delay_when_unreachable_or_zero() {
    let mut state = State::default();
    assert_eq!(decide(&delayed(300), &mut state, inputs(40.0, 40.0, 0), at(2)).unwrap().desired, 4);
    assert_eq!(decide(&delayed(300), &mut state, inputs(0.0, 0.0, 0), at(60)).unwrap().desired, 4);
    let lost = Inputs { reachable: false, ..inputs(0.0, 0.0, 0) };
    assert_eq!(decide(&delayed(300), &mut state, lost, at(62)).unwrap().desired, 0);
    let mut state = State::default();
    assert_eq!(decide(&delayed(0), &mut state, inputs(40.0, 40.0, 0), at(0)).unwrap().desired, 4);
    assert_eq!(decide(&delayed(0), &mut state, inputs(20.0, 20.0, 0), at(0)).unwrap().desired, 2);
}

#[test]
fn s30_a_revision_found_with_pods_starts_in_panic() {
    for (ready, panic) in [(0, false), (1, false), (2, true)] {
        assert_eq!(State::started(ready, at(0)).in_panic(), panic, "{ready} ready");
    }
    assert_eq!(State::started(2, at(0)).max_panic_pods, 2);
}

#[test]
fn a_resumed_revision_keeps_its_pods_for_one_window_without_panic() {
    let mut state = State::resumed(7, at(60));
    let early = decide(&scaling(10.0, 0.0), &mut state, inputs(1.0, 1.0, 7), at(2)).unwrap();
    assert_eq!(early.desired, 7);
    assert!(early.reasons.has(Reason::RestartHold) && !state.in_panic());
    assert_eq!(decide(&scaling(10.0, 0.0), &mut state, inputs(1.0, 1.0, 7), at(60)).unwrap().desired, 1);
}

#[test]
fn s31_excess_burst_capacity_before_the_first_decision() {
    for (burst, initial, total, want) in [(0.0, 1, 100.0, 0), (42.0, 2, 25.0, 8), (-1.0, 2, 25.0, -1)] {
        let s = RevisionScaling { total, initial_scale: initial, ..scaling(10.0, burst) };
        assert_eq!(initial_excess_burst_capacity(&RevisionScaling { total, ..s }), want);
    }
}

#[test]
fn s32_s34_only_pods_and_the_sign_of_the_burst_capacity_matter() {
    let table = [(1982, 1984, true), (-1984, -1988, true), (-1988, 2006, false), (0, 1, true), (0, -42, false)];
    for (before, after, same) in table {
        let decision = Decision { desired: 1, excess_burst_capacity: after, reasons: Reasons::default() };
        assert_eq!(!differs((1, before), &decision), same, "{before} then {after}");
        assert!(differs((2, before), &decision));
    }
}

proptest::proptest! {
    #[test]
    fn more_load_never_wants_fewer_pods(
        low in 0.0f64..1e5, more in 0.0f64..1e5, ready in 0i32..500, target in 0.01f64..500.0, panicking: bool,
    ) {
        let s = RevisionScaling { activation_scale: 3, ..scaling(target, 211.0) };
        let start = || if panicking { State::started(ready.max(2), at(0)) } else { State::default() };
        let fewer = decide(&s, &mut start(), inputs(low, low, ready), at(1)).unwrap();
        let many = decide(&s, &mut start(), inputs(low + more, low + more, ready), at(1)).unwrap();
        proptest::prop_assert!(many.desired >= fewer.desired);
        proptest::prop_assert!(many.excess_burst_capacity <= fewer.excess_burst_capacity);
    }

    #[test]
    fn within_the_rates_and_never_negative(stable in 0.0f64..1e12, panic in 0.0f64..1e12, ready in 0i32..1000) {
        let got = decide(&scaling(10.0, 211.0), &mut State::default(), inputs(stable, panic, ready), at(0)).unwrap();
        proptest::prop_assert!(got.desired >= 0 && got.desired <= 10 * ready.max(1));
        proptest::prop_assert!(got.desired >= ready.max(1) / 10);
    }
}
