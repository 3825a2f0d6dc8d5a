use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn targets(n: u8) -> Vec<Arc<Target>> {
    (1..=n).map(|n| Arc::new(Target::new(([10, 0, 0, n], 8012).into()))).collect()
}

fn throttle(limit: u32, length: usize) -> Arc<Throttle> {
    let lines = Lines::each(length);
    Throttle::new(lines.terms(limit, None), lines.budget)
}

async fn enter(throttle: &Arc<Throttle>) -> Permit {
    match throttle.enter(&Ask::default()) {
        Admission::Admitted(permit) => permit,
        Admission::Waiting(wait, _) => wait.await,
        Admission::Full(_) => panic!("full"),
    }
}

#[tokio::test]
async fn t26_closed_blocks_and_opening_wakes() {
    let throttle = throttle(0, 10);
    let Admission::Waiting(wait, true) = throttle.enter(&Ask::default()) else { panic!("no pod yet") };
    drop(wait);
    assert_eq!(throttle.waiting(), 0);
    let waiter = tokio::spawn({
        let throttle = Arc::clone(&throttle);
        async move { enter(&throttle).await }
    });
    while throttle.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    throttle.set_pods(&targets(1));
    let permit = waiter.await.unwrap();
    assert_eq!(throttle.in_flight(), 1);
    drop(permit);
    assert_eq!(throttle.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_may_have_an_end() {
    let throttle = throttle(1, 10);
    let wait = |throttle: &Arc<Throttle>| match throttle.enter(&Ask::default()) {
        Admission::Waiting(wait, _) => wait,
        other => panic!("{other:?}"),
    };
    let long = Duration::from_secs(5);
    assert!(wait(&throttle).within(Some(long)).await.is_none());
    assert_eq!(throttle.waiting(), 0, "the place is given up");
    let (early, late) = (wait(&throttle), wait(&throttle));
    throttle.set_pods(&targets(1));
    let permit = early.within(Some(long)).await.unwrap();
    assert!(late.within(Some(long)).await.is_none());
    drop(permit);
    assert_eq!(throttle.in_flight(), 0);
}

#[tokio::test]
async fn a_herd_is_let_in_when_time_is_up() {
    let throttle = throttle(0, 1000);
    let now = Instant::now();
    let mut waits: Vec<_> = (0..150)
        .map(|_| match throttle.enter(&Ask::default()) {
            Admission::Waiting(wait, _) => wait,
            other => panic!("{other:?}"),
        })
        .collect();
    let told = throttle.set_pods_of(&targets(1), 1, now).unwrap();
    assert_eq!((throttle.in_flight(), throttle.waiting()), (100, 50));
    throttle.time(told);
    assert_eq!((throttle.in_flight(), throttle.waiting()), (150, 0));
    waits.truncate(20);
    assert_eq!(throttle.in_flight(), 20);
}

#[test]
fn a_revision_that_sleeps_costs_little() {
    let throttle = throttle(1, 10);
    let arc_counts = 2 * size_of::<usize>();
    println!(
        "Throttle {} B, Core {} B, Lanes {} B, entry of the line {} B, Ask {} B",
        size_of::<Throttle>() + arc_counts,
        size_of::<Core<Waker>>(),
        size_of::<lanes::Lanes>(),
        queue::entry_size::<Waker, fleet::PodIndex>(),
        size_of::<Ask>()
    );
    assert!(size_of::<Throttle>() + arc_counts <= 128);
    assert!(queue::entry_size::<Waker, fleet::PodIndex>() <= 48);
    let has_core = || throttle.lock().core.is_some();
    throttle.set_pods(&[]);
    throttle.set_share(Share { index: Some(1), activators: 2 });
    assert!(!has_core());
    let admission = throttle.enter(&Ask::default());
    assert!(has_core());
    drop(admission);
    assert!(!has_core(), "the last waiter has left");
    throttle.set_pods(&targets(4));
    assert_eq!(throttle.pods(), 2, "the share was kept");
    let Admission::Admitted(permit) = throttle.enter(&Ask::default()) else { panic!("there are pods") };
    throttle.set_pods(&[]);
    assert!(has_core(), "a request is running");
    drop(permit);
    assert!(!has_core());
}

#[test]
fn one_budget_bounds_all_lines() {
    let lines = Lines { length: 10, budget: Budget::new(3, 100) };
    let [a, b] = [0, 1].map(|limit| Throttle::new(lines.terms(limit, None), Arc::clone(&lines.budget)));
    let held: Vec<_> = [&a, &b, &a].map(|throttle| throttle.enter(&Ask::plain(30))).into();
    assert!(matches!(b.enter(&Ask::plain(30)), Admission::Full(Full::TotalLength)));
    assert_eq!((lines.budget.waiters(), lines.budget.bytes()), (3, 90));
    drop(held);
    assert!(matches!(b.enter(&Ask::plain(101)), Admission::Full(Full::TotalBytes)));
    assert_eq!((lines.budget.waiters(), lines.budget.bytes()), (0, 0));
}

/// Threads fight for few slots, some give up while waiting, pods come and go: the limit holds, everybody who stays is
/// served, nothing is left behind.
#[test]
fn threads_never_exceed_the_limit_and_lose_nobody() {
    const LIMIT: u32 = 2;
    let throttle = throttle(LIMIT, 100_000);
    throttle.set_pods(&targets(2));
    let running: Arc<[AtomicU32; 4]> = Arc::default();
    let served = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for thread in 0..4_u64 {
        let (throttle, running, served) = (Arc::clone(&throttle), Arc::clone(&running), Arc::clone(&served));
        threads.push(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut random = fastrand::Rng::with_seed(thread);
                let tasks: Vec<_> = (0..500)
                    .map(|_| {
                        let (throttle, running, served) =
                            (Arc::clone(&throttle), Arc::clone(&running), Arc::clone(&served));
                        let gives_up = random.u32(0..4) == 0;
                        tokio::spawn(async move {
                            if gives_up {
                                tokio::select! {
                                    biased;
                                    _ = enter(&throttle) => {}
                                    () = tokio::task::yield_now() => {}
                                }
                                return;
                            }
                            let permit = enter(&throttle).await;
                            let SocketAddrLast(pod) = SocketAddrLast::of(permit.target());
                            let now = running[pod].fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= LIMIT, "{now} requests on one pod");
                            tokio::task::yield_now().await;
                            running[pod].fetch_sub(1, Ordering::SeqCst);
                            served.fetch_add(1, Ordering::SeqCst);
                        })
                    })
                    .collect();
                let expected = tasks.len();
                let mut ended = 0;
                for task in tasks {
                    task.await.unwrap();
                    ended += 1;
                }
                assert_eq!(ended, expected);
            });
        }));
    }
    for n in 0..200 {
        throttle.set_pods(&targets(n % 4));
        std::thread::yield_now();
    }
    throttle.set_pods(&targets(3));
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(served.load(Ordering::SeqCst) > 1000);
    assert_eq!((throttle.in_flight(), throttle.waiting()), (0, 0));
}

/// The last number of a pod's address.
struct SocketAddrLast(usize);

impl SocketAddrLast {
    fn of(target: &Target) -> Self {
        match target.address.ip() {
            std::net::IpAddr::V4(ip) => Self(usize::from(ip.octets()[3])),
            std::net::IpAddr::V6(_) => panic!("these tests use IPv4"),
        }
    }
}
