//! The load generator, on one thread.
//!
//! Closed loop (each caller sends its next request when it has the answer) tells what a proxy can do and what a
//! request costs it. Fixed rate tells how long a request takes when the proxy has time: sending never waits for
//! answers, and a request that finds all callers busy is timed from when it should have gone. A caller is a kept-alive
//! HTTP/1.1 connection ([`http1`]) or one of the streams of an h2c connection ([`grpc`]).

pub(crate) mod grpc;
pub(crate) mod http1;
pub(crate) mod websocket;

use std::{cell::RefCell, collections::VecDeque, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use crate::namespace::Namespace;

/// Whom to ask, and in which network it is.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) namespace: Namespace,
}

/// Something that asks one thing at a time.
pub(crate) trait Caller: 'static {
    /// What it asks, made once.
    type Asked: Clone + 'static;

    /// One request and the whole of its answer; anything but success is an error.
    async fn call(&mut self, asked: &Self::Asked) -> anyhow::Result<()>;
}

/// What a closed loop did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

/// Every caller asks again as soon as it has its answer, for this long; the last answers are awaited and counted.
/// The callers come back.
pub(crate) async fn closed_loop<C: Caller>(
    callers: Vec<C>,
    asked: C::Asked,
    time: Duration,
) -> anyhow::Result<(Done, Vec<C>)> {
    let started = Instant::now();
    let end = started + time;
    let mut loops = JoinSet::new();
    for mut caller in callers {
        let asked = asked.clone();
        loops.spawn_local(async move {
            let mut requests = 0;
            while Instant::now() < end {
                caller.call(&asked).await?;
                requests += 1;
            }
            anyhow::Ok((requests, caller))
        });
    }
    let mut requests = 0;
    let mut callers = Vec::new();
    while let Some(one) = loops.join_next().await {
        let (by_one, caller) = one??;
        requests += by_one;
        callers.push(caller);
    }
    Ok((Done { requests, seconds: started.elapsed().as_secs_f64() }, callers))
}

/// Runs a load without ever letting its core sleep. Else a subject pays for waking the load's core whenever it sends
/// something there: the slower subject the more often, for a fast one keeps the load busy.
pub(crate) async fn awake<T>(load: impl Future<Output = T>) -> T {
    let spin = async {
        loop {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = load => done,
        () = spin => unreachable!("it has no end"),
    }
}

/// Microseconds of each request of one caller, one after the other.
pub(crate) async fn one_by_one<C: Caller>(
    caller: &mut C,
    asked: &C::Asked,
    time: Duration,
) -> anyhow::Result<Vec<f64>> {
    let end = Instant::now() + time;
    let mut took = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        caller.call(asked).await?;
        took.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// Microseconds of each request, sent at this rate by these callers.
pub(crate) async fn fixed_rate<C: Caller>(
    callers: Vec<C>,
    asked: C::Asked,
    a_second: u32,
    time: Duration,
) -> anyhow::Result<Vec<f64>> {
    let free = Rc::new(RefCell::new(VecDeque::from(callers)));
    let waiting: Rc<RefCell<VecDeque<Instant>>> = Rc::default();
    let took = Rc::new(RefCell::new(Vec::new()));
    let mut running = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / a_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..(time.as_secs_f64() * f64::from(a_second)) as u64 {
        tick.tick().await;
        let due = Instant::now();
        let Some(mut caller) = free.borrow_mut().pop_front() else {
            waiting.borrow_mut().push_back(due);
            continue;
        };
        let (asked, free, waiting, took) = (asked.clone(), Rc::clone(&free), Rc::clone(&waiting), Rc::clone(&took));
        running.spawn_local(async move {
            let mut due = due;
            loop {
                caller.call(&asked).await?;
                took.borrow_mut().push(due.elapsed().as_secs_f64() * 1e6);
                let Some(next) = waiting.borrow_mut().pop_front() else { break };
                due = next;
            }
            free.borrow_mut().push_back(caller);
            anyhow::Ok(())
        });
        while let Some(ended) = running.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(took.take())
}

#[cfg(test)]
mod tests {
    use super::{http1::Request, *};
    use crate::{backend::Backend, peers::Protocol};
    use tokio::task::LocalSet;

    async fn callers(n: usize) -> Vec<http1::Client> {
        let backend = Backend::start(Namespace::default()).unwrap();
        http1::connections(&backend.target(Protocol::Http1), n).await.unwrap()
    }

    #[tokio::test]
    async fn a_closed_loop_counts_every_answer() {
        let run = closed_loop(callers(3).await, Request::Tiny.bytes(), Duration::from_millis(30));
        let (done, clients) = LocalSet::new().run_until(run).await.unwrap();
        assert_eq!(clients.len(), 3);
        assert!(done.requests >= 3 && done.seconds >= 0.03, "{done:?}");
    }

    #[tokio::test]
    async fn a_fixed_rate_sends_as_many_as_asked_even_with_one_connection() {
        let run = fixed_rate(callers(1).await, Request::Tiny.bytes(), 1000, Duration::from_millis(50));
        assert_eq!(LocalSet::new().run_until(run).await.unwrap().len(), 50);
    }
}
