use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn targets(n: u8) -> Vec<Arc<Target>> {
    (1..=n).map(|n| Arc::new(Target::new(([10, 0, 0, n], 8012).into()))).collect()
}

async fn enter(throttle: &Arc<Throttle>) -> Permit {
    match throttle.enter() {
        Admission::Admitted(permit) => permit,
        Admission::Waiting(wait, _) => wait.await,
        Admission::Full => panic!("full"),
    }
}

#[tokio::test]
async fn t26_closed_blocks_and_opening_wakes() {
    let throttle = Throttle::new(0, 10);
    let Admission::Waiting(wait, true) = throttle.enter() else { panic!("no pod yet") };
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

/// Threads fight for few slots, some give up while waiting, pods come and go: the limit holds, everybody who stays is
/// served, nothing is left behind.
#[test]
fn threads_never_exceed_the_limit_and_lose_nobody() {
    const LIMIT: u32 = 2;
    let throttle = Throttle::new(LIMIT, 100_000);
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
