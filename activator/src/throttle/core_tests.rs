use super::*;
use crate::throttle::target::in_order;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8012))
}

fn targets(numbers: impl IntoIterator<Item = u8>) -> Vec<Arc<Target>> {
    numbers.into_iter().map(|n| Arc::new(Target::new(address(n)))).collect()
}

fn terms(limit: u32, length: usize) -> Terms {
    Terms { limit, queue: Bounds { length, bytes: usize::MAX }, ordered: false }
}

fn new<W>(terms: Terms) -> Core<W> {
    Core::new(terms, Share::default(), Budget::unlimited(), 7)
}

/// Sets all the pods there are.
fn set_pods<W>(core: &mut Core<W>, pods: impl IntoIterator<Item = u8>, wake: &mut Vec<W>) {
    let told = core.set_pods(&in_order(&targets(pods)), 0, Instant::now(), wake);
    assert_eq!(told, None, "nothing is pending");
}

fn core(limit: u32, pods: impl IntoIterator<Item = u8>) -> Core<()> {
    let mut core = new(terms(limit, 100));
    set_pods(&mut core, pods, &mut Vec::new());
    core
}

const PLAIN: Ask = Ask::DEFAULT;

/// Enters until nobody is let in; the addresses in order.
fn fill(core: &mut Core<()>, most: usize) -> Vec<SocketAddr> {
    let mut taken = Vec::new();
    while taken.len() < most {
        match core.enter(&PLAIN) {
            Enter::Admitted(slot) => taken.push(slot.target.address),
            Enter::Waiting(ticket) => {
                core.cancel(ticket, &mut Vec::new());
                break;
            }
            Enter::Full(_) => break,
        }
    }
    taken
}

#[test]
fn t01_t04_t06_t07_capacity_is_limit_times_pods() {
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
        core.set_share(Share { index: Some(index), activators }, &mut Vec::new());
        assert_eq!(fill(&mut core, 1000).len(), expected, "{limit} {activators} {index} {pods}");
    }
    let mut core = core(42, 0..6);
    core.set_share(Share { index: Some(0), activators: 4 }, &mut Vec::new());
    let mine: Vec<_> = core.candidates().map(|target| target.address).collect();
    assert_eq!(mine, [address(0), address(4)]);
    set_pods(&mut core, [], &mut Vec::new());
    assert!(core.is_asleep());
    assert_eq!(fill(&mut core, 10).len(), 0);
}

#[test]
fn t11_t14_without_a_limit_every_pod_is_everybodys() {
    let mut core = core(0, 1..=3);
    core.set_share(Share { index: Some(1), activators: 2 }, &mut Vec::new());
    assert_eq!(core.candidates().count(), 3);
    set_pods(&mut core, [], &mut Vec::new());
    assert!(core.is_asleep());
}

#[test]
fn t18_t19_a_share_that_grows_lets_waiters_in() {
    // Two activators and three pods: one is ours, the other request waits.
    let mut core = core(1, 1..=3);
    core.set_share(Share { index: Some(1), activators: 2 }, &mut Vec::new());
    let Enter::Admitted(slot) = core.enter(&PLAIN) else { panic!("one pod is ours") };
    assert_eq!(slot.target.address, address(2));
    let Enter::Waiting(ticket) = core.enter(&PLAIN) else { panic!("only one pod is ours") };
    // The other activator is gone: all three are.
    core.set_share(Share { index: Some(0), activators: 1 }, &mut Vec::new());
    assert!(matches!(core.poll(ticket, || ()), Turn::Admitted(_)));
    assert_eq!(core.candidates().count(), 3);
}

#[test]
fn t31_more_pods_are_more_slots_while_one_is_held() {
    let mut core = core(1, [1]);
    let Enter::Admitted(held) = core.enter(&PLAIN) else { panic!("a free slot") };
    set_pods(&mut core, 1..=3, &mut Vec::new());
    assert_eq!(fill(&mut core, 10).len(), 2);
    core.leave(held, &mut Vec::new());
    assert_eq!(core.in_flight(), 2);
}

#[test]
fn t21_t22_t23_small_limits_pack_and_larger_ones_go_round() {
    assert_eq!(fill(&mut core(1, [1, 2]), 2), [address(1), address(2)]);
    assert_eq!(fill(&mut core(3, 1..=5), 3), [address(1); 3]);
    assert_eq!(fill(&mut core(5, 1..=3), 3), [address(1), address(2), address(3)]);
}

#[test]
fn t27_t28_t29_the_line_is_bounded_and_moves_one_by_one() {
    let mut core: Core<()> = new(terms(1, 2));
    let Enter::Waiting(first) = core.enter(&PLAIN) else { panic!("no pod yet") };
    let Enter::Waiting(second) = core.enter(&PLAIN) else { panic!("no pod yet") };
    assert!(matches!(core.enter(&PLAIN), Enter::Full(Full::Length)));
    set_pods(&mut core, [1], &mut Vec::new());
    let Turn::Admitted(slot) = core.poll(first, || ()) else { panic!("first in line") };
    assert!(matches!(core.poll(second, || ()), Turn::Waiting));
    let mut woken = Vec::new();
    core.leave(slot, &mut woken);
    assert_eq!(woken.len(), 1);
    assert!(matches!(core.poll(second, || ()), Turn::Admitted(_)));
}

#[test]
fn t30_a_waiter_that_leaves_makes_room() {
    let mut core: Core<()> = new(terms(1, 1));
    let Enter::Waiting(ticket) = core.enter(&PLAIN) else { panic!() };
    assert!(matches!(core.enter(&PLAIN), Enter::Full(Full::Length)));
    core.cancel(ticket, &mut Vec::new());
    assert!(matches!(core.enter(&PLAIN), Enter::Waiting(_)));
}

#[test]
fn a_granted_slot_of_a_waiter_that_left_goes_to_the_next() {
    let mut core: Core<()> = new(terms(1, 10));
    let Enter::Waiting(first) = core.enter(&PLAIN) else { panic!() };
    let Enter::Waiting(second) = core.enter(&PLAIN) else { panic!() };
    set_pods(&mut core, [1], &mut Vec::new());
    core.cancel(first, &mut Vec::new());
    assert!(matches!(core.poll(second, || ()), Turn::Admitted(_)));
}

#[test]
fn a_pod_that_flickers_keeps_its_slots() {
    let mut core = core(1, [1]);
    let Enter::Admitted(slot) = core.enter(&PLAIN) else { panic!() };
    set_pods(&mut core, [], &mut Vec::new());
    set_pods(&mut core, [1], &mut Vec::new());
    let Enter::Waiting(ticket) = core.enter(&PLAIN) else { panic!("the pod still works on the first request") };
    core.leave(slot, &mut Vec::new());
    assert!(matches!(core.poll(ticket, || ()), Turn::Admitted(_)));
}

#[test]
fn a_request_that_comes_back_is_first() {
    let mut core = core(1, [1]);
    let Enter::Admitted(slot) = core.enter(&PLAIN) else { panic!() };
    let Enter::Waiting(newcomer) = core.enter(&PLAIN) else { panic!() };
    assert!(core.set_aside(address(1), &mut Vec::new()));
    assert!(!core.set_aside(address(1), &mut Vec::new()), "reported once");
    core.leave(slot, &mut Vec::new());
    let Enter::Waiting(again) = core.enter_again(&PLAIN) else { panic!() };
    set_pods(&mut core, [2], &mut Vec::new());
    assert!(matches!(core.poll(newcomer, || ()), Turn::Waiting));
    assert!(matches!(core.poll(again, || ()), Turn::Admitted(slot) if slot.target.address == address(2)));
}

#[test]
fn a_refusal_says_which_bound_was_hit() {
    let bounds = Terms { queue: Bounds { length: 2, bytes: 100 }, ..terms(1, 2) };
    let mut core: Core<()> = Core::new(bounds, Share::default(), Budget::new(10, 90), 7);
    assert!(matches!(core.enter(&Ask::plain(101)), Enter::Full(Full::Bytes)));
    assert!(matches!(core.enter(&Ask::plain(95)), Enter::Full(Full::TotalBytes)));
    for _ in 0..2 {
        assert!(matches!(core.enter(&PLAIN), Enter::Waiting(_)));
    }
    assert!(matches!(core.enter(&PLAIN), Enter::Full(Full::Length)));
}

#[test]
fn who_holds_nothing_is_not_refused_for_the_bytes_of_others() {
    let mut core: Core<()> = Core::new(terms(1, 9), Share::default(), Budget::new(10, 90), 7);
    assert!(matches!(core.enter_again(&Ask::plain(91)), Enter::Waiting(_)));
    assert!(matches!(core.enter(&Ask::plain(1)), Enter::Full(Full::TotalBytes)));
    assert!(matches!(core.enter(&PLAIN), Enter::Waiting(_)));
}

#[test]
fn a_session_stays_at_its_pod_while_that_has_room() {
    let session = |n| Ask { affinity: NonZeroU64::new(api::hash::fnv1a(&[n])), ..PLAIN };
    let pod_of = |core: &mut Core<()>, ask: &Ask| match core.enter(ask) {
        Enter::Admitted(slot) => (slot.target.address, slot),
        _ => panic!("there is room"),
    };
    for limit in [0, 1, 10] {
        let mut core = core(limit, 1..=20);
        let homes: Vec<SocketAddr> = (0..50)
            .map(|n| {
                let (home, slot) = pod_of(&mut core, &session(n));
                core.leave(slot, &mut Vec::new());
                home
            })
            .collect();
        assert!(homes.iter().collect::<HashSet<_>>().len() > 10, "sessions spread");
        // The same set in another order, and one more pod: nearly all stay.
        set_pods(&mut core, (1..=21).rev(), &mut Vec::new());
        let mut moved = 0;
        for (n, home) in homes.iter().enumerate() {
            let (now, slot) = pod_of(&mut core, &session(n as u8));
            moved += usize::from(now != *home);
            assert!(now == *home || now == address(21), "moved although its pod stayed");
            core.leave(slot, &mut Vec::new());
        }
        assert!(moved < 10, "{moved}");
    }
    // Availability over stickiness.
    let mut core = core(1, 1..=3);
    let homes: HashSet<_> = (0..3).map(|_| pod_of(&mut core, &session(1)).0).collect();
    assert_eq!(homes.len(), 3);
}

#[test]
fn waiters_are_granted_by_class_and_client_and_go_to_their_pod() {
    let ordered = Terms { ordered: true, ..terms(1, 100) };
    let mut core: Core<u32> = new(ordered);
    let mut tickets = Vec::new();
    for (name, class, key) in [(1, 5, 1), (2, 5, 1), (3, 5, 2), (4, 9, 1)] {
        let session = NonZeroU64::new(u64::from(name));
        let Enter::Waiting(ticket) = core.enter(&Ask { class, key, affinity: session, ..PLAIN }) else { panic!() };
        assert!(matches!(core.poll(ticket, || name), Turn::Waiting));
        tickets.push((name, ticket));
    }
    let mut woken = Vec::new();
    set_pods(&mut core, [1], &mut woken);
    assert_eq!(woken, [4]);
    set_pods(&mut core, [1, 2, 3, 4], &mut woken);
    assert_eq!(woken, [4, 1, 3, 2]);
}

#[test]
fn thousands_of_pods_and_waiters_change_in_linear_time() {
    // A quadratic step would take minutes here.
    let pods: Vec<Arc<Target>> =
        (0..20_000_u32).map(|n| Arc::new(Target::new(SocketAddr::from((n.to_be_bytes(), 8012))))).collect();
    let pods = in_order(&pods);
    let mut core: Core<()> = new(terms(1, 10_000));
    for _ in 0..10_000 {
        assert!(matches!(core.enter(&PLAIN), Enter::Waiting(_)));
    }
    for share in [1, 2, 3] {
        core.set_share(Share { index: Some(0), activators: share }, &mut Vec::new());
        assert_eq!(core.set_pods(&pods, 0, Instant::now(), &mut Vec::new()), None);
    }
    assert_eq!((core.in_flight(), core.waiting()), (10_000, 0));
    set_pods(&mut core, [], &mut Vec::new());
    assert_eq!(core.loads().count(), 10_000);
}

/// Figures for the report of a change; nothing is asserted of a clock.
#[test]
fn a_change_of_a_thousand_pods_under_ten_thousand_waiters() {
    let pods: Vec<Arc<Target>> =
        (0..1000_u32).map(|n| Arc::new(Target::new(SocketAddr::from((n.to_be_bytes(), 8012))))).collect();
    let pods = in_order(&pods);
    let mut core: Core<u32> = new(terms(10, 10_000));
    let tickets: Vec<Ticket> = (0..10_000)
        .map(|name| match core.enter(&PLAIN) {
            Enter::Waiting(ticket) => {
                assert!(matches!(core.poll(ticket, || name), Turn::Waiting));
                ticket
            }
            _ => panic!("no pod yet"),
        })
        .collect();
    let mut wake = Vec::new();
    let start = Instant::now();
    assert_eq!(core.set_pods(&pods, 0, start, &mut wake), None);
    let granting = start.elapsed();
    // The shortest of a few: a busy machine adds to each.
    let changes = (0..20).map(|n| {
        let start = Instant::now();
        assert_eq!(core.set_pods(&pods[n % 2..], 0, start, &mut wake), None);
        start.elapsed()
    });
    println!("set_pods: {granting:?} with 10,000 grants, {:?} without", changes.min().unwrap_or_default());
    assert_eq!(wake.len(), tickets.len());
}

#[derive(Debug, Clone)]
enum Step {
    Enter(Ask),
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

fn ask() -> impl Strategy<Value = Ask> {
    (0..10_u8, 0..4_u32, 0..5_u64, 0..300_u32).prop_map(|(class, key, session, bytes)| Ask {
        class,
        key,
        affinity: NonZeroU64::new(session),
        bytes,
        ..PLAIN
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => ask().prop_map(Step::Enter),
        3 => (0..64_usize).prop_map(Step::Leave),
        1 => (0..64_usize).prop_map(Step::ComeBack),
        2 => (0..64_usize).prop_map(Step::Cancel),
        3 => Just(Step::Look),
        2 => proptest::collection::vec(0..6_u8, 0..6).prop_map(Step::Pods),
        1 => (1..4_usize).prop_flat_map(|n| (0..n, Just(n))).prop_map(|(i, n)| Step::Share(i, n)),
    ]
}

/// One in line who has not looked at a grant yet.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    name: u64,
    ticket: Ticket,
    ask: Ask,
    came_back: bool,
    woken: bool,
}

/// Grants go to whom the order says: to the first in line, or to the first of a class and client.
fn note_woken(line: &mut [Waiter], wake: &mut Vec<u64>, ordered: bool) -> Result<(), TestCaseError> {
    for name in wake.drain(..) {
        let place = line.iter().position(|w| w.name == name).unwrap();
        let granted = line[place];
        prop_assert!(!granted.woken, "woken twice");
        let same = |w: &Waiter| (w.ask.class, w.ask.key) == (granted.ask.class, granted.ask.key);
        let before = |w: &&Waiter| !w.woken && (!ordered || w.came_back || granted.came_back || same(w));
        prop_assert_eq!(line.iter().find(before).map(|w| w.name), Some(name), "not first come, first served");
        line[place].woken = true;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Invariants 1 to 5 of the module's documentation, against a model that keeps the line as a list of names.
    #[test]
    fn slots_are_exact_and_fair(
        limit in 0..5_u32,
        length in 0..12_usize,
        ordered in proptest::bool::ANY,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let bounds = Bounds { length, bytes: 1000 };
        let budget = Budget::new(10, 900);
        let mut core: Core<u64> =
            Core::new(Terms { limit, queue: bounds, ordered }, Share::default(), Arc::clone(&budget), 7);
        let mut running: Vec<Slot> = Vec::new();
        // In order of arrival; those that came back before those that wait.
        let mut line: Vec<Waiter> = Vec::new();
        let mut names = 0;
        for step in steps {
            let mut wake = Vec::new();
            let held: usize = line.iter().filter(|w| !w.woken).map(|w| w.ask.bytes as usize).sum();
            match step {
                Step::Enter(ask) => {
                    names += 1;
                    let bytes = held + ask.bytes as usize;
                    match core.enter(&ask) {
                        Enter::Admitted(slot) => {
                            prop_assert_eq!(core.waiting(), 0, "a newcomer overtook");
                            running.push(slot);
                        }
                        Enter::Waiting(ticket) => {
                            prop_assert!(core.waiting() <= length.min(10), "beyond a bound");
                            // One that came back may hold more than the bound; who adds nothing is not refused for it.
                            prop_assert!(ask.bytes == 0 || bytes <= 900, "beyond a bound");
                            // As a future does: it looks once and leaves its waker.
                            prop_assert!(matches!(core.poll(ticket, || names), Turn::Waiting));
                            line.push(Waiter { name: names, ticket, ask, came_back: false, woken: false });
                        }
                        Enter::Full(Full::Length) => prop_assert!(core.waiting() >= length),
                        Enter::Full(Full::TotalLength) => prop_assert!(core.waiting() >= 10),
                        Enter::Full(Full::Bytes) => prop_assert!(bytes > 1000),
                        Enter::Full(Full::TotalBytes) => prop_assert!(bytes > 900),
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
                    note_woken(&mut line, &mut wake, ordered)?;
                    names += 1;
                    let ask = Ask { bytes: 50, ..PLAIN };
                    match core.enter_again(&ask) {
                        Enter::Admitted(slot) => running.push(slot),
                        Enter::Waiting(ticket) => {
                            prop_assert!(matches!(core.poll(ticket, || names), Turn::Waiting));
                            // Behind those that came back before, ahead of all others that have no grant.
                            let ahead = |w: &Waiter| w.came_back || w.woken;
                            let place = line.iter().position(|w| !ahead(w)).unwrap_or(line.len());
                            line.insert(place, Waiter { name: names, ticket, ask, came_back: true, woken: false });
                        }
                        Enter::Full(_) => prop_assert!(false, "let in once, refused now"),
                    }
                }
                Step::Cancel(n) if !line.is_empty() => {
                    let waiter = line.remove(n % line.len());
                    core.cancel(waiter.ticket, &mut wake);
                }
                Step::Look => {
                    for waiter in line.extract_if(.., |w| w.woken) {
                        match core.poll(waiter.ticket, || waiter.name) {
                            Turn::Admitted(slot) => running.push(slot),
                            Turn::Waiting => prop_assert!(false, "woken for nothing"),
                        }
                    }
                }
                Step::Pods(pods) => set_pods(&mut core, pods, &mut wake),
                Step::Share(index, activators) => {
                    core.set_share(Share { index: Some(index), activators }, &mut wake);
                }
                Step::Leave(_) | Step::ComeBack(_) | Step::Cancel(_) => {}
            }
            note_woken(&mut line, &mut wake, ordered)?;
            let waits = || line.iter().filter(|w| !w.woken);
            let granted = line.len() - waits().count();
            // Nobody is lost: who is in line is woken or still counted as waiting.
            prop_assert_eq!(core.waiting(), waits().count());
            prop_assert_eq!(budget.waiters(), waits().count());
            prop_assert_eq!(budget.bytes(), waits().map(|w| w.ask.bytes as usize).sum::<usize>());
            // Nothing is leaked: slots are those running plus those granted and not yet looked at.
            prop_assert_eq!(core.in_flight(), running.len() + granted);
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
        for waiter in line {
            core.cancel(waiter.ticket, &mut wake);
        }
        for slot in running {
            core.leave(slot, &mut wake);
        }
        prop_assert_eq!(core.in_flight(), 0);
        set_pods(&mut core, [], &mut wake);
        prop_assert_eq!(core.loads().count(), 0, "records of pods that are gone");
        prop_assert!(core.is_idle());
        prop_assert_eq!((budget.waiters(), budget.bytes()), (0, 0));
    }
}

#[derive(Debug, Clone)]
enum Herd {
    Enter(usize),
    Leave(usize),
    /// These pods can serve, so many more are announced.
    Pods(Vec<u8>, usize),
    /// So many milliseconds pass.
    Time(u64),
}

fn herd() -> impl Strategy<Value = Herd> {
    prop_oneof![
        3 => (0..300_usize).prop_map(Herd::Enter),
        2 => (0..300_usize).prop_map(Herd::Leave),
        3 => (proptest::collection::vec(0..5_u8, 0..5), 0..3_usize).prop_map(|(pods, n)| Herd::Pods(pods, n)),
        2 => (0..700_u64).prop_map(Herd::Time),
    ]
}

proptest! {
    /// Invariant 6: no herd onto the first pods, and nobody stuck behind the gate.
    #[test]
    fn a_herd_is_let_in_bit_by_bit_and_nobody_is_stuck(steps in proptest::collection::vec(herd(), 0..40)) {
        let mut core: Core<()> = new(terms(0, usize::MAX));
        let mut now = Instant::now();
        let mut told: Option<Instant> = None;
        let mut running: Vec<Slot> = Vec::new();
        let mut tickets: Vec<Ticket> = Vec::new();
        let mut before: HashMap<SocketAddr, u32> = HashMap::new();
        for step in steps {
            match step {
                Herd::Enter(n) => {
                    for _ in 0..n {
                        match core.enter(&PLAIN) {
                            Enter::Admitted(slot) => running.push(slot),
                            Enter::Waiting(ticket) => tickets.push(ticket),
                            Enter::Full(full) => prop_assert!(false, "{}", full),
                        }
                    }
                }
                Herd::Leave(n) => {
                    for slot in running.drain(..n.min(running.len())) {
                        core.leave(slot, &mut Vec::new());
                    }
                }
                Herd::Pods(pods, pending) => {
                    let when = core.set_pods(&in_order(&targets(pods)), pending, now, &mut Vec::new());
                    // One clock is enough: a gate closes only when it was open.
                    told = when.or(told);
                }
                Herd::Time(ms) => {
                    now += std::time::Duration::from_millis(ms);
                    if let Some(when) = told.take_if(|when| *when <= now) {
                        core.time(when, &mut Vec::new());
                    }
                }
            }
            tickets.retain(|ticket| match core.poll(*ticket, || ()) {
                Turn::Admitted(slot) => {
                    running.push(slot);
                    false
                }
                Turn::Waiting => true,
            });
            prop_assert_eq!(core.waiting(), tickets.len());
            let loads: HashMap<_, _> = core.loads().collect();
            if core.is_gated() {
                prop_assert!(told.is_some_and(|when| when > now), "nobody will open the gate");
                for target in core.candidates() {
                    let (load, earlier) = (loads[&target.address], before.get(&target.address).copied().unwrap_or(0));
                    prop_assert!(load <= gate::FIRST_BATCH.max(earlier), "a herd of {} on one pod", load);
                    prop_assert!(load >= gate::FIRST_BATCH || core.waiting() == 0, "somebody waits beside room");
                }
            } else {
                prop_assert!(core.is_asleep() || core.waiting() == 0, "somebody waits beside a pod");
            }
            before = loads;
        }
    }
}
