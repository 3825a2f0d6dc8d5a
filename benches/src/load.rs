//! The load generator: kept-alive HTTP/1.1 connections on one thread.
//!
//! Closed loop (each connection sends its next request when it has the answer) tells what a proxy can do and what a
//! request costs it. Fixed rate tells how long a request takes when the proxy has time: sending never waits for
//! answers, and a request that finds all connections busy is timed from when it should have gone.

use std::{cell::RefCell, collections::VecDeque, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use crate::{backend::MIB, head::Head};

/// What to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// GET, twelve bytes back.
    Tiny,
    /// GET, 1 MiB back.
    Download,
    /// POST of 1 MiB, twelve bytes back.
    Upload,
    /// GET whose answer the backend holds for [`crate::backend::WAIT`].
    Held,
}

impl Request {
    fn bytes(self) -> Vec<u8> {
        let line = match self {
            Self::Tiny => "GET / HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
            Self::Download => "GET /mib HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\n\r\n",
            Self::Held => "GET /wait HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\n\r\n",
            Self::Upload => {
                "POST /up HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\nContent-Length: 1048576\r\n\r\n"
            }
        };
        let mut bytes = line.as_bytes().to_vec();
        if self == Self::Upload {
            bytes.resize(bytes.len() + MIB, b'x');
        }
        bytes
    }
}

/// One kept-alive connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) async fn open(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(512) })
    }

    /// One request and the whole of its answer; the length of the answer's body.
    pub(crate) async fn exchange(&mut self, request: Request) -> anyhow::Result<usize> {
        self.send(&request.bytes()).await
    }

    async fn send(&mut self, request: &[u8]) -> anyhow::Result<usize> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("the connection ended before the answer's head did");
            }
            let Some(head) = Head::parse(&self.received)? else { continue };
            if head.status() != 200 {
                bail!("answer: {}", String::from_utf8_lossy(head.first_line));
            }
            let body = head.content_length;
            let left =
                (head.length + body).checked_sub(self.received.len()).context("more bytes than the answer has")?;
            self.skip(left).await?;
            return Ok(body);
        }
    }

    async fn skip(&mut self, mut left: usize) -> anyhow::Result<()> {
        if left > self.received.capacity() {
            self.received.reserve(256 * 1024);
        }
        while left > 0 {
            self.received.clear();
            match self.stream.read_buf(&mut self.received).await? {
                0 => bail!("the connection ended in the middle of a body"),
                n => left = left.checked_sub(n).context("more bytes than the answer has")?,
            }
        }
        Ok(())
    }
}

/// Opens this many connections; each has served a request when it is returned.
pub(crate) async fn connections(to: SocketAddr, n: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(n);
    for _ in 0..n {
        let mut client = Client::open(to).await?;
        client.exchange(Request::Tiny).await?;
        clients.push(client);
    }
    Ok(clients)
}

/// What a closed loop did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

/// Every connection asks again as soon as it has its answer, for this long; the last answers are awaited and counted.
/// The connections come back open.
pub(crate) async fn closed_loop(
    clients: Vec<Client>,
    request: Request,
    time: Duration,
) -> anyhow::Result<(Done, Vec<Client>)> {
    let bytes: Rc<[u8]> = request.bytes().into();
    let started = Instant::now();
    let end = started + time;
    let mut loops = JoinSet::new();
    for mut client in clients {
        let bytes = Rc::clone(&bytes);
        loops.spawn_local(async move {
            let mut requests = 0;
            while Instant::now() < end {
                client.send(&bytes).await?;
                requests += 1;
            }
            anyhow::Ok((requests, client))
        });
    }
    let mut requests = 0;
    let mut clients = Vec::new();
    while let Some(one) = loops.join_next().await {
        let (by_one, client) = one??;
        requests += by_one;
        clients.push(client);
    }
    Ok((Done { requests, seconds: started.elapsed().as_secs_f64() }, clients))
}

/// Microseconds of each request on one connection, one after the other.
pub(crate) async fn one_by_one(client: &mut Client, time: Duration) -> anyhow::Result<Vec<f64>> {
    let bytes = Request::Tiny.bytes();
    let end = Instant::now() + time;
    let mut took = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        client.send(&bytes).await?;
        took.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// Microseconds of each request, sent at this rate over these connections.
pub(crate) async fn fixed_rate(clients: Vec<Client>, a_second: u32, time: Duration) -> anyhow::Result<Vec<f64>> {
    let bytes: Rc<[u8]> = Request::Tiny.bytes().into();
    let free = Rc::new(RefCell::new(VecDeque::from(clients)));
    let waiting: Rc<RefCell<VecDeque<Instant>>> = Rc::default();
    let took = Rc::new(RefCell::new(Vec::new()));
    let mut running = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / a_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..(time.as_secs_f64() * f64::from(a_second)) as u64 {
        tick.tick().await;
        let due = Instant::now();
        let Some(mut client) = free.borrow_mut().pop_front() else {
            waiting.borrow_mut().push_back(due);
            continue;
        };
        let (bytes, free, waiting, took) = (Rc::clone(&bytes), Rc::clone(&free), Rc::clone(&waiting), Rc::clone(&took));
        running.spawn_local(async move {
            let mut due = due;
            loop {
                client.send(&bytes).await?;
                took.borrow_mut().push(due.elapsed().as_secs_f64() * 1e6);
                let Some(next) = waiting.borrow_mut().pop_front() else { break };
                due = next;
            }
            free.borrow_mut().push_back(client);
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

/// This many connections, each with a request in flight that the backend holds.
pub(crate) async fn in_flight(to: SocketAddr, n: usize) -> anyhow::Result<Vec<Client>> {
    let bytes = Request::Held.bytes();
    let mut clients = Vec::with_capacity(n);
    for _ in 0..n {
        let mut client = Client::open(to).await?;
        client.stream.write_all(&bytes).await?;
        clients.push(client);
    }
    Ok(clients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend;
    use tokio::task::LocalSet;

    #[tokio::test]
    async fn a_closed_loop_counts_every_answer() {
        let backend = backend::start().await.unwrap();
        let clients = connections(backend, 3).await.unwrap();
        let run = closed_loop(clients, Request::Tiny, Duration::from_millis(30));
        let (done, clients) = LocalSet::new().run_until(run).await.unwrap();
        assert_eq!(clients.len(), 3);
        assert!(done.requests >= 3 && done.seconds >= 0.03, "{done:?}");
    }

    #[tokio::test]
    async fn a_fixed_rate_sends_as_many_as_asked_even_with_one_connection() {
        let backend = backend::start().await.unwrap();
        let clients = connections(backend, 1).await.unwrap();
        let run = fixed_rate(clients, 1000, Duration::from_millis(50));
        assert_eq!(LocalSet::new().run_until(run).await.unwrap().len(), 50);
    }
}
