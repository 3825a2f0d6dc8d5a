//! Simulated pods: every address of loopback on one port is a queue-proxy with an app behind it that starts when the
//! bench says so, and that remembers when its first request came and in which order all did.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Instant,
};

use anyhow::bail;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

use crate::{head::Head, load::Target, namespace::Namespace};

mod h2;

const QUEUE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nqueue";
const NOT_READY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\nnot ready";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n";

/// How a pod's queue-proxy answers the question whether the app is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// At once, and the app is ready from the beginning.
    Ready,
    /// When it is, as ours does.
    Holds,
    /// `503` until it is, as upstream's does.
    Refuses,
    /// Takes connections and says nothing.
    Silent,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct Pod {
    manner: Cell<Manner>,
    ready: Cell<bool>,
    asked: Cell<bool>,
    changed: Notify,
    first_byte: Cell<Option<Instant>>,
}

impl Pod {
    fn new(manner: Manner) -> Self {
        Self {
            manner: Cell::new(manner),
            ready: Cell::new(manner == Manner::Ready),
            asked: Cell::default(),
            changed: Notify::new(),
            first_byte: Cell::default(),
        }
    }

    /// The app is ready from now on; the time of it.
    pub(crate) fn make_ready(&self) -> Instant {
        self.ready.set(true);
        let now = Instant::now();
        self.changed.notify_waiters();
        now
    }

    /// Waits for the first question whether it is ready.
    pub(crate) async fn asked(&self) {
        self.until(|| self.asked.get()).await;
    }

    /// When the first byte of its first request came.
    pub(crate) fn first_byte(&self) -> Option<Instant> {
        self.first_byte.get()
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            if holds() {
                return;
            }
            changed.await;
        }
    }

    /// What to answer to a question; waits where its manner is to wait.
    async fn readiness(&self) -> &'static [u8] {
        self.asked.set(true);
        self.changed.notify_waiters();
        match self.manner.get() {
            Manner::Ready => QUEUE,
            Manner::Silent => std::future::pending().await,
            Manner::Refuses => {
                if self.ready.get() {
                    QUEUE
                } else {
                    NOT_READY
                }
            }
            Manner::Holds => {
                self.until(|| self.ready.get()).await;
                QUEUE
            }
        }
    }

    fn request_came(&self, at: Instant) {
        if self.first_byte.get().is_none() {
            self.first_byte.set(Some(at));
        }
    }
}

#[derive(Default)]
struct Shared {
    pods: RefCell<HashMap<Ipv4Addr, Rc<Pod>>>,
    arrivals: RefCell<Vec<u32>>,
    /// While it is set, no request is answered.
    busy: Cell<bool>,
    no_longer_busy: Notify,
}

impl Shared {
    async fn has_time(&self) {
        while self.busy.get() {
            self.no_longer_busy.notified().await;
        }
    }

    /// A pod nobody has spoken of is ready.
    fn pod(&self, ip: Ipv4Addr) -> Rc<Pod> {
        Rc::clone(self.pods.borrow_mut().entry(ip).or_insert_with(|| Rc::new(Pod::new(Manner::Ready))))
    }
}

/// All of them; gone when dropped. Within a local runtime only.
pub(crate) struct Pods {
    pub(crate) port: u16,
    shared: Rc<Shared>,
    serving: AbortHandle,
}

impl Pods {
    pub(crate) fn start() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))?;
        let listener = socket.listen(4096)?;
        let port = listener.local_addr()?.port();
        let shared = Rc::<Shared>::default();
        let serving = tokio::task::spawn_local(accept(listener, Rc::clone(&shared)));
        Ok(Self { port, shared, serving: serving.abort_handle() })
    }

    /// One of the pods, which is ready.
    pub(crate) fn target(&self) -> Target {
        Target { address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port), namespace: Namespace::default() }
    }

    /// A pod with this manner at this address, in place of whatever was there.
    pub(crate) fn place(&self, ip: Ipv4Addr, manner: Manner) -> Rc<Pod> {
        let pod = Rc::new(Pod::new(manner));
        self.shared.pods.borrow_mut().insert(ip, Rc::clone(&pod));
        pod
    }

    /// Until this is dropped, requests over HTTP/1.1 are not answered.
    pub(crate) fn make_busy(&self) -> Busy {
        self.shared.busy.set(true);
        Busy(Rc::clone(&self.shared))
    }

    /// The ids of the requests that have come since this was last asked, in their order.
    pub(crate) fn take_arrivals(&self) -> Vec<u32> {
        self.shared.arrivals.take()
    }
}

/// See [`Pods::make_busy`].
pub(crate) struct Busy(Rc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.no_longer_busy.notify_waiters();
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, shared: Rc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let shared = Rc::clone(&shared);
                    // An activator that goes away in the middle is no news.
                    connections.spawn_local(async move { either(stream, shared).await.ok() });
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            },
        }
    }
}

async fn either(stream: TcpStream, shared: Rc<Shared>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let IpAddr::V4(ip) = stream.local_addr()?.ip() else { bail!("pods have addresses of version 4") };
    let pod = shared.pod(ip);
    let mut first = [0];
    stream.peek(&mut first).await?;
    // Of what comes here only the preface of h2 begins with a P.
    if first == *b"P" { h2::serve(stream, shared, pod).await } else { serve(stream, &shared, &pod).await }
}

async fn serve(mut stream: TcpStream, shared: &Shared, pod: &Pod) -> anyhow::Result<()> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let began = bytes.is_empty();
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let now = Instant::now();
        if began && !bytes.starts_with(b"GET /healthz") {
            pod.request_came(now);
        }
        let Some(head) = Head::parse(&bytes)? else { continue };
        let answer = if head.path() == b"/healthz" {
            let mut gone = [0];
            tokio::select! {
                answer = pod.readiness() => answer,
                _ = stream.read(&mut gone) => return Ok(()),
            }
        } else {
            shared.arrivals.borrow_mut().extend(id_of(head.path()));
            shared.has_time().await;
            ANSWER
        };
        bytes.clear();
        stream.write_all(answer).await?;
    }
}

/// The id in a path such as `/17`.
fn id_of(path: &[u8]) -> Option<u32> {
    std::str::from_utf8(path.strip_prefix(b"/")?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    async fn ask(ip: Ipv4Addr, port: u16, path: &str) -> String {
        let mut stream = TcpStream::connect((ip, port)).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = vec![0; 256];
        let n = stream.read(&mut text).await.unwrap();
        String::from_utf8_lossy(&text[..n]).into_owned()
    }

    #[tokio::test]
    async fn each_address_has_its_manner() {
        let run = async {
            let pods = Pods::start().unwrap();
            let [refuses, holds] = [Ipv4Addr::new(127, 64, 9, 1), Ipv4Addr::new(127, 64, 9, 2)];
            let (refusing, holding) = (pods.place(refuses, Manner::Refuses), pods.place(holds, Manner::Holds));
            assert!(ask(refuses, pods.port, "/healthz").await.contains("503"));
            refusing.make_ready();
            assert!(ask(refuses, pods.port, "/healthz").await.ends_with("queue"));
            let question = tokio::task::spawn_local(ask(holds, pods.port, "/healthz"));
            holding.asked().await;
            assert!(!question.is_finished());
            holding.make_ready();
            assert!(question.await.unwrap().ends_with("queue"));
            assert!(holding.first_byte().is_none());
            for id in [7, 3] {
                ask(holds, pods.port, &format!("/{id}")).await;
            }
            assert!(holding.first_byte().is_some());
            assert_eq!((pods.take_arrivals(), pods.take_arrivals()), (vec![7, 3], vec![]));
        };
        LocalSet::new().run_until(run).await;
    }
}
