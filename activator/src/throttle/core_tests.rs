use super::*;
use proptest::prelude::*;
use std::collections::{HashSet, VecDeque};

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8012))
}

fn targets(numbers: impl IntoIterator<Item = u8>) -> Vec<Arc<Target>> {
    numbers.into_iter().map(|n| Arc::new(Target::new(address(n)))).collect()
}

fn core(limit: u32, pods: impl IntoIterator<Item = u8>) -> Core<()> {
    let mut core = Core::new(limit, 100);
    core.set_pods(&targets(pods), &mut Vec::new());
    core
}

/// Enters until nobody is let in; the addresses in order.
fn fill(core: &mut Core<()>, most: usize) -> Vec<SocketAddr> {
    let mut taken = Vec::new();
    while taken.len() < most {
        match core.enter() {
            Enter::Admitted(slot) => taken.push(slot.target.address),
            Enter::Waiting(ticket) => {
                core.cancel(ticket, &mut Vec::new());
                break;
            }
            Enter::Full => break,
        }
    }
    taken
}

#[test]
fn t01_t04_t07_capacity_is_limit_times_pods() {
    for (limit, pods, expected) in [(10, 1, 10), (10, 10, 100), (10, 0, 0), (10, 2, 20), (1, 5, 5)] {
        assert_eq!(fill(&mut core(limit, 1..=pods), 1000).len(), expected, "limit {limit}, {pods} pods");
    }
}

#[test]
fn t05_without_a_limit_any_pod_opens_the_door() {
    assert_eq!(fill(&mut core(0, []), 1000).len(), 0);
    assert_eq!(fill(&mut core(0, [1]), 1000).len(), 1000);
}

#[test]
fn t08_t09_t10_t13_capacity_of_a_share() {
    for (limit, activators, index, pods, expected) in
        [(10, 2, 0, 2, 10), (10, 2, 0, 3, 20), (10, 2, 1, 3, 10), (1, 2, 0, 5, 3), (1, 2, 1, 5, 2), (42, 4, 0, 6, 84)]
    {
        let mut core = core(limit, 1..=pods);
        core.set_share(subset::Share { index: Some(index), activators }, &mut Vec::new());
        assert_eq!(fill(&mut core, 1000).len(), expected, "{limit} {activators} {index} {pods}");
    }
    let mut core = core(42, 0..6);
    core.set_share(subset::Share { index: Some(0), activators: 4 }, &mut Vec::new());
    let mine: Vec<_> = core.candidates().map(|target| target.address).collect();
    assert_eq!(mine, [address(0), address(4)]);
    core.set_pods(&[], &mut Vec::new());
    assert!(core.is_asleep());
    assert_eq!(fill(&mut core, 10).len(), 0);
}

#[test]
fn t11_t14_without_a_limit_every_pod_is_everybodys() {
    let mut core = core(0, 1..=3);
    core.set_share(subset::Share { index: Some(1), activators: 2 }, &mut Vec::new());
    assert_eq!(core.candidates().count(), 3);
    core.set_pods(&[], &mut Vec::new());
    assert!(core.is_asleep());
}

#[test]
fn t21_t22_t23_small_limits_pack_and_larger_ones_go_round() {
    assert_eq!(fill(&mut core(1, [1, 2]), 2), [address(1), address(2)]);
    assert_eq!(fill(&mut core(3, 1..=5), 3), [address(1); 3]);
    assert_eq!(fill(&mut core(5, 1..=3), 3), [address(1), address(2), address(3)]);
}

#[test]
fn t27_t28_t29_the_line_is_bounded_and_moves_one_by_one() {
    let mut core: Core<()> = Core::new(1, 2);
    let Enter::Waiting(first) = core.enter() else { panic!("no pod yet") };
    let Enter::Waiting(second) = core.enter() else { panic!("no pod yet") };
    assert!(matches!(core.enter(), Enter::Full));
    core.set_pods(&targets([1]), &mut Vec::new());
    let Turn::Admitted(slot) = core.poll(first, || ()) else { panic!("first in line") };
    assert!(matches!(core.poll(second, || ()), Turn::Waiting));
    let mut woken = Vec::new();
    core.leave(slot, &mut woken);
    assert_eq!(woken.len(), 1);
    assert!(matches!(core.poll(second, || ()), Turn::Admitted(_)));
}

#[test]
fn t30_a_waiter_that_leaves_makes_room() {
    let mut core: Core<()> = Core::new(1, 1);
    let Enter::Waiting(ticket) = core.enter() else { panic!() };
    assert!(matches!(core.enter(), Enter::Full));
    core.cancel(ticket, &mut Vec::new());
    assert!(matches!(core.enter(), Enter::Waiting(_)));
}

#[test]
fn a_granted_slot_of_a_waiter_that_left_goes_to_the_next() {
    let mut core: Core<()> = Core::new(1, 10);
    let Enter::Waiting(first) = core.enter() else { panic!() };
    let Enter::Waiting(second) = core.enter() else { panic!() };
    core.set_pods(&targets([1]), &mut Vec::new());
    core.cancel(first, &mut Vec::new());
    assert!(matches!(core.poll(second, || ()), Turn::Admitted(_)));
}

#[test]
fn a_pod_that_flickers_keeps_its_slots() {
    let mut core = core(1, [1]);
    let Enter::Admitted(slot) = core.enter() else { panic!() };
    core.set_pods(&[], &mut Vec::new());
    core.set_pods(&targets([1]), &mut Vec::new());
    let Enter::Waiting(ticket) = core.enter() else { panic!("the pod still works on the first request") };
    core.leave(slot, &mut Vec::new());
    assert!(matches!(core.poll(ticket, || ()), Turn::Admitted(_)));
}

#[test]
fn a_request_that_comes_back_is_first() {
    let mut core = core(1, [1]);
    let Enter::Admitted(slot) = core.enter() else { panic!() };
    let Enter::Waiting(newcomer) = core.enter() else { panic!() };
    assert!(core.set_aside(address(1), &mut Vec::new()));
    assert!(!core.set_aside(address(1), &mut Vec::new()), "reported once");
    core.leave(slot, &mut Vec::new());
    let Enter::Waiting(again) = core.enter_again() else { panic!() };
    core.set_pods(&targets([2]), &mut Vec::new());
    assert!(matches!(core.poll(newcomer, || ()), Turn::Waiting));
    assert!(matches!(core.poll(again, || ()), Turn::Admitted(slot) if slot.target.address == address(2)));
}

#[derive(Debug, Clone)]
enum Step {
    Enter,
    /// The n-th running request is over.
    Leave(usize),
    /// The n-th running request's pod refused it.
    ComeBack(usize),
    /// The n-th waiter hangs up, noticed or not.
    Cancel(usize),
    /// Woken waiters look.
    Look,
    Pods(Vec<u8>),
    Share(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Enter),
        3 => (0..64_usize).prop_map(Step::Leave),
        1 => (0..64_usize).prop_map(Step::ComeBack),
        2 => (0..64_usize).prop_map(Step::Cancel),
        3 => Just(Step::Look),
        2 => proptest::collection::vec(0..6_u8, 0..6).prop_map(Step::Pods),
        1 => (1..4_usize).prop_flat_map(|n| (0..n, Just(n))).prop_map(|(i, n)| Step::Share(i, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// The four invariants of the module's documentation, against a model that keeps the line as a list of names.
    #[test]
    fn slots_are_exact_and_fair(limit in 0..5_u32, queue in 0..12_usize, steps in proptest::collection::vec(step(), 0..200)) {
        let mut core: Core<u64> = Core::new(limit, queue);
        let mut running: Vec<Slot> = Vec::new();
        // Everybody in line who has not looked at a grant yet, in order of arrival, and who was woken.
        let mut line: VecDeque<(u64, Ticket)> = VecDeque::new();
        let mut woken: HashSet<u64> = HashSet::new();
        let mut names = 0;
        for step in steps {
            let mut wake = Vec::new();
            match step {
                Step::Enter => {
                    names += 1;
                    match core.enter() {
                        Enter::Admitted(slot) => {
                            prop_assert_eq!(core.waiting(), 0, "a newcomer overtook");
                            running.push(slot);
                        }
                        Enter::Waiting(ticket) => {
                            // As a future does: it looks once and leaves its waker.
                            prop_assert!(matches!(core.poll(ticket, || names), Turn::Waiting));
                            line.push_back((names, ticket));
                        }
                        Enter::Full => prop_assert!(core.waiting() >= queue),
                    }
                }
                Step::Leave(n) if !running.is_empty() => {
                    let slot = running.swap_remove(n % running.len());
                    core.leave(slot, &mut wake);
                }
                Step::ComeBack(n) if !running.is_empty() => {
                    let slot = running.swap_remove(n % running.len());
                    core.set_aside(slot.target.address, &mut wake);
                    core.leave(slot, &mut wake);
                    names += 1;
                    match core.enter_again() {
                        Enter::Admitted(slot) => running.push(slot),
                        Enter::Waiting(ticket) => {
                            prop_assert!(matches!(core.poll(ticket, || names), Turn::Waiting));
                            // Before all that have no grant yet.
                            let place = line.iter().position(|(name, _)| !woken.contains(name) && !wake.contains(name)).unwrap_or(line.len());
                            line.insert(place, (names, ticket));
                        }
                        Enter::Full => prop_assert!(false, "let in once, refused now"),
                    }
                }
                Step::Cancel(n) if !line.is_empty() => {
                    if let Some((name, ticket)) = line.remove(n % line.len()) {
                        core.cancel(ticket, &mut wake);
                        woken.remove(&name);
                    }
                }
                Step::Look => {
                    let looking: Vec<_> = line.iter().filter(|(name, _)| woken.contains(name)).copied().collect();
                    for (name, ticket) in looking {
                        match core.poll(ticket, || name) {
                            Turn::Admitted(slot) => running.push(slot),
                            Turn::Waiting => prop_assert!(false, "woken for nothing"),
                        }
                        woken.remove(&name);
                        line.retain(|(other, _)| *other != name);
                    }
                }
                Step::Pods(pods) => core.set_pods(&targets(pods), &mut wake),
                Step::Share(index, activators) => {
                    core.set_share(subset::Share { index: Some(index), activators }, &mut wake);
                }
                Step::Leave(_) | Step::ComeBack(_) | Step::Cancel(_) => {}
            }
            // Grants go from the front of the line, without a gap.
            for name in wake {
                let first = line.iter().find(|(name, _)| !woken.contains(name)).map(|(name, _)| *name);
                prop_assert_eq!(first, Some(name), "not first come, first served");
                woken.insert(name);
            }
            // Nobody is lost: who is in line is woken or still counted as waiting.
            prop_assert_eq!(core.waiting(), line.len() - woken.len());
            // Nothing is leaked: slots are those running plus those granted and not yet looked at.
            prop_assert_eq!(core.in_flight(), running.len() + woken.len());
            let loads: Vec<_> = core.loads().collect();
            prop_assert_eq!(loads.iter().map(|(_, load)| *load as usize).sum::<usize>(), core.in_flight());
            if limit > 0 {
                prop_assert!(loads.iter().all(|(_, load)| *load <= limit), "above the limit: {:?}", loads);
            }
            if core.waiting() > 0 {
                let free = core.candidates().any(|target| {
                    limit == 0 || loads.iter().any(|(address, load)| *address == target.address && *load < limit)
                });
                prop_assert!(!free, "somebody waits beside a free slot");
            }
        }
        let mut wake = Vec::new();
        for (_, ticket) in line {
            core.cancel(ticket, &mut wake);
        }
        for slot in running {
            core.leave(slot, &mut wake);
        }
        prop_assert_eq!(core.in_flight(), 0);
        core.set_pods(&[], &mut wake);
        prop_assert_eq!(core.loads().count(), 0, "records of pods that are gone");
    }
}
