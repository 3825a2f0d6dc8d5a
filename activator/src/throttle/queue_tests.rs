use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const BOUNDS: Bounds = Bounds { length: 20, bytes: 1000 };

fn grant_next<W, G>(queue: &mut Queue<W, G>, grant: G) -> Option<W> {
    let (entry, _) = queue.next()?;
    queue.grant(entry, grant)
}

fn queue(bounds: Bounds, ordered: bool) -> Queue<u32, u32> {
    Queue::new(bounds, ordered, Budget::new(30, 2000))
}

/// Joins and leaves its name as a waker.
fn join(queue: &mut Queue<u32, u32>, name: u32, ask: &Ask) -> Ticket {
    let ticket = queue.push_back(ask).unwrap();
    queue.set_waker(ticket, name);
    ticket
}

fn serve_all(queue: &mut Queue<u32, u32>) -> Vec<u32> {
    std::iter::from_fn(|| grant_next(queue, 0)).collect()
}

#[test]
fn says_which_bound_was_hit() {
    let mut line = queue(Bounds { length: 2, bytes: 100 }, false);
    assert!(line.push_back(&Ask::plain(60)).is_ok());
    assert_eq!(line.push_back(&Ask::plain(41)), Err(Full::Bytes));
    assert!(line.push_back(&Ask::plain(0)).is_ok());
    assert_eq!(line.push_back(&Ask::plain(0)), Err(Full::Length));

    let budget = Budget::new(1, 100);
    let wide = Bounds { length: 10, bytes: 1000 };
    let (mut a, mut b): (Queue<(), ()>, Queue<(), ()>) =
        (Queue::new(wide, false, Arc::clone(&budget)), Queue::new(wide, false, Arc::clone(&budget)));
    assert_eq!(a.push_back(&Ask::plain(101)), Err(Full::TotalBytes));
    let ticket = a.push_back(&Ask::plain(100)).unwrap();
    assert_eq!(b.push_back(&Ask::plain(0)), Err(Full::TotalLength));
    grant_next(&mut a, ());
    assert_eq!((budget.waiters(), budget.bytes()), (0, 0), "who is granted does not wait any more");
    a.take_granted(ticket);
    assert!(b.push_back(&Ask::plain(0)).is_ok());
}

#[test]
fn who_comes_back_is_first_in_the_order_of_coming_back() {
    let mut line = queue(Bounds { length: 1, bytes: 10 }, false);
    join(&mut line, 1, &Ask::plain(10));
    for name in [2, 3] {
        let ticket = line.push_front(&Ask::plain(10));
        line.set_waker(ticket, name);
    }
    assert_eq!(line.bytes(), 30, "room or not");
    assert_eq!(serve_all(&mut line), [2, 3, 1]);
}

#[test]
fn a_policy_that_comes_or_goes_keeps_everybody_in_line() {
    let class = |class| Ask { class, ..Ask::default() };
    let mut line = queue(BOUNDS, false);
    join(&mut line, 1, &class(1));
    join(&mut line, 2, &class(9));
    line.set_rules(BOUNDS, true);
    join(&mut line, 3, &class(1));
    join(&mut line, 4, &class(9));
    let back = line.push_front(&class(0));
    line.set_waker(back, 5);
    assert_eq!(serve_all(&mut line), [1, 2, 5, 4, 3]);

    join(&mut line, 6, &class(1));
    join(&mut line, 7, &class(9));
    line.set_rules(BOUNDS, false);
    join(&mut line, 8, &class(9));
    assert_eq!(serve_all(&mut line), [6, 7, 8]);
}

#[test]
fn a_large_slab_is_given_back() {
    for ordered in [false, true] {
        let mut line = queue(Bounds { length: 1000, bytes: 1000 }, ordered);
        line.budget = Budget::unlimited();
        let tickets: Vec<_> = (0..1000).map(|name| join(&mut line, name, &Ask::default())).collect();
        for ticket in tickets {
            assert_eq!(line.cancel(ticket), None);
        }
        assert_eq!(line.entries.capacity(), 0);
        join(&mut line, 7, &Ask::default());
        assert_eq!(serve_all(&mut line), [7]);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Back(u32),
    Front(u32),
    Grant,
    /// Cancels or takes the n-th live ticket.
    Leave(usize),
    /// The policy changes.
    Rules(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..100_u32).prop_map(Step::Back),
        2 => (0..100_u32).prop_map(Step::Front),
        4 => Just(Step::Grant),
        4 => (0..50_usize).prop_map(Step::Leave),
        1 => proptest::bool::ANY.prop_map(Step::Rules),
    ]
}

proptest! {
    /// Against the obvious model: a deque of tickets. Asks without class or key are served in order under any policy.
    #[test]
    fn behaves_like_a_deque(ordered in proptest::bool::ANY, steps in proptest::collection::vec(step(), 0..300)) {
        let budget = Budget::new(30, 2000);
        let mut queue: Queue<(), u32> = Queue::new(BOUNDS, ordered, Arc::clone(&budget));
        // With the number of those at the front that came back.
        let mut line: VecDeque<(Ticket, u32)> = VecDeque::new();
        let mut settled = 0_usize;
        let mut is_ordered = ordered;
        let mut granted: Vec<(Ticket, u32)> = Vec::new();
        let mut stamp = 0;
        for step in steps {
            let held: u32 = line.iter().map(|(_, bytes)| bytes).sum();
            match step {
                Step::Back(bytes) => match queue.push_back(&Ask::plain(bytes as usize)) {
                    Ok(ticket) => line.push_back((ticket, bytes)),
                    Err(Full::Length) => prop_assert!(line.len() >= 20),
                    Err(Full::Bytes) => prop_assert!(held + bytes > 1000),
                    Err(Full::TotalLength) => prop_assert!(line.len() >= 30),
                    Err(Full::TotalBytes) => prop_assert!(held + bytes > 2000),
                },
                Step::Front(bytes) => {
                    line.insert(settled, (queue.push_front(&Ask::plain(bytes as usize)), bytes));
                    settled += 1;
                }
                Step::Grant => {
                    if let Some((first, _)) = line.pop_front() {
                        stamp += 1;
                        grant_next(&mut queue, stamp);
                        granted.push((first, stamp));
                        settled = settled.saturating_sub(1);
                    }
                }
                Step::Leave(n) if n < line.len() => {
                    let (ticket, _) = line.remove(n).unwrap();
                    settled -= usize::from(n < settled);
                    prop_assert_eq!(queue.take_granted(ticket), None);
                    prop_assert_eq!(queue.cancel(ticket), None);
                    prop_assert_eq!(queue.cancel(ticket), None, "a ticket works once");
                }
                Step::Leave(n) if !granted.is_empty() => {
                    let (ticket, grant) = granted.swap_remove(n % granted.len());
                    let got = if n % 2 == 0 { queue.cancel(ticket) } else { queue.take_granted(ticket) };
                    prop_assert_eq!(got, Some(grant));
                }
                Step::Leave(_) => {}
                Step::Rules(ordered) => {
                    queue.set_rules(BOUNDS, ordered);
                    if ordered && !is_ordered {
                        settled = line.len();
                    }
                    is_ordered = ordered;
                }
            }
            let held: usize = line.iter().map(|(_, bytes)| *bytes as usize).sum();
            prop_assert_eq!((queue.waiting(), queue.bytes()), (line.len(), held));
            prop_assert_eq!((budget.waiters(), budget.bytes()), (line.len(), held));
            prop_assert_eq!(queue.is_unused(), line.is_empty() && granted.is_empty());
        }
    }
}
