use super::*;
use proptest::prelude::*;

fn ask(class: u8, key: u32) -> Ask {
    Ask { class, key, ..Ask::default() }
}

/// Serves everybody; the entries in order.
fn serve(lanes: &mut Lanes, most: usize) -> Vec<u32> {
    let mut served = Vec::new();
    while let Some(next) = lanes.next().filter(|_| served.len() < most) {
        lanes.served(next);
        lanes.remove(next);
        served.push(next);
    }
    served
}

#[test]
fn clients_take_turns_and_keep_their_own_order() {
    let mut lanes = Lanes::default();
    // Client 1 sent four, then client 2 two, then client 3 one.
    for (entry, key) in [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)] {
        lanes.push(entry, &ask(5, key));
    }
    assert_eq!(serve(&mut lanes, 100), [0, 4, 6, 1, 5, 2, 3]);
}

#[test]
fn a_client_that_left_gives_its_turn_to_the_next() {
    let mut lanes = Lanes::default();
    for (entry, key) in [(0, 1), (1, 2), (2, 3), (3, 1)] {
        lanes.push(entry, &ask(5, key));
    }
    lanes.remove(0);
    lanes.remove(1);
    assert_eq!(serve(&mut lanes, 100), [3, 2]);
    assert_eq!(lanes.busy, 0);
}

#[test]
fn higher_classes_first_and_one_in_sixteen_for_the_others() {
    let mut lanes = Lanes::default();
    for entry in 0..40 {
        lanes.push(entry, &ask(9, 0));
    }
    lanes.push(100, &ask(5, 0));
    lanes.push(101, &ask(5, 0));
    lanes.push(102, &ask(1, 0));
    let served = serve(&mut lanes, 100);
    let place = |entry| served.iter().position(|other| *other == entry).unwrap() + 1;
    assert_eq!((place(100), place(102), place(101)), (16, 32, 43), "5 and 1 take the lower turns in rotation");
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, u32),
    Serve,
    Remove(usize),
}

fn step(classes: u8) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..classes, 0..6_u32).prop_map(|(class, key)| Step::Push(class, key)),
        3 => Just(Step::Serve),
        1 => (0..64_usize).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Nobody is lost; a client's requests of one class stay in order; no class and no client waits longer than said.
    #[test]
    fn turns_are_bounded(classes in 1..=10_u8, steps in proptest::collection::vec(step(10), 0..600)) {
        let mut lanes = Lanes::default();
        // (entry, class, key) in order of arrival.
        let mut line: Vec<(u32, u8, u32)> = Vec::new();
        let mut free: Vec<u32> = Vec::new();
        let mut since = [0_u32; 10];
        let mut since_key = [[0_u32; 6]; 10];
        for step in steps {
            match step {
                Step::Push(class, key) => {
                    let class = class % classes;
                    let entry = free.pop().unwrap_or(line.len() as u32);
                    lanes.push(entry, &ask(class, key));
                    line.push((entry, class, key));
                }
                Step::Serve => {
                    let next = lanes.next();
                    prop_assert_eq!(next.is_none(), line.is_empty());
                    let Some(next) = next else { continue };
                    let (_, class, key) = *line.iter().find(|(entry, ..)| *entry == next).unwrap();
                    let first = line.iter().find(|(_, c, k)| (*c, *k) == (class, key)).unwrap().0;
                    prop_assert_eq!(first, next, "a client's own order");
                    for other in 0..10_u8 {
                        let waits = other != class && line.iter().any(|(_, c, _)| *c == other);
                        since[usize::from(other)] = if waits { since[usize::from(other)] + 1 } else { 0 };
                        prop_assert!(since[usize::from(other)] < LOWER_TURN * 9, "class {} starves", other);
                    }
                    for other in 0..6_u32 {
                        let count = &mut since_key[usize::from(class)][other as usize];
                        let waits = other != key && line.iter().any(|(_, c, k)| (*c, *k) == (class, other));
                        *count = if waits { *count + 1 } else { 0 };
                        prop_assert!(*count < 6, "client {} of class {} starves", other, class);
                    }
                    lanes.served(next);
                    lanes.remove(next);
                    line.retain(|(entry, ..)| *entry != next);
                    free.push(next);
                }
                Step::Remove(n) if !line.is_empty() => {
                    let (entry, class, key) = line.remove(n % line.len());
                    lanes.remove(entry);
                    free.push(entry);
                    // Its lane may be empty now and then join anew, at the end of the round.
                    if !line.iter().any(|(_, c, k)| (*c, *k) == (class, key)) {
                        since_key[usize::from(class)][key as usize] = 0;
                    }
                    if !line.iter().any(|(_, c, _)| *c == class) {
                        since[usize::from(class)] = 0;
                    }
                }
                Step::Remove(_) => {}
            }
        }
        let left = serve(&mut lanes, usize::MAX);
        prop_assert_eq!(left.len(), line.len());
        prop_assert_eq!(lanes.busy, 0);
    }
}
