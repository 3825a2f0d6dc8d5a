//! All pods' stats ports in one: a listener on every address of the machine. It answers each request with one report, as
//! upstream's pods do, or tells by itself to who listens, as ours do.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::Duration,
};

use api::stat::{CONTENT_TYPE, HEARTBEAT, STREAM, STREAM_CONTENT_TYPE, Stat};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// How pods say what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Manner {
    /// When they are asked.
    #[default]
    Asked,
    /// By themselves; there is never anything new.
    Steady,
    /// By themselves; every second there is.
    Restless,
}

#[derive(Default)]
struct Shared {
    stat: RefCell<Stat>,
    manner: Cell<Manner>,
    asked: Cell<u64>,
    told: Cell<u64>,
}

/// Serves on this thread until dropped.
pub(super) struct Pods {
    port: u16,
    shared: Rc<Shared>,
    serving: AbortHandle,
}

impl Pods {
    pub(super) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("0.0.0.0:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let listener = TcpListener::from_std(listener)?;
        let shared = Rc::<Shared>::default();
        let ours = Rc::clone(&shared);
        let serving = tokio::task::spawn_local(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of files: some connection ends, or the autoscaler asks again.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let shared = Rc::clone(&ours);
                // A client that goes away in the middle is no news.
                tokio::task::spawn_local(async move { serve(stream, &shared).await.ok() });
            }
        });
        let pods = Self { port, shared, serving: serving.abort_handle() };
        pods.set(Manner::Asked, 0.0);
        Ok(pods)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What pods that are met from now on have in flight from others than activators, and how they say it.
    pub(super) fn set(&self, manner: Manner, load: f64) {
        self.shared.manner.set(manner);
        *self.shared.stat.borrow_mut() = Stat {
            pod_name: "pod".to_owned(),
            average_concurrent_requests: 20.0 + load,
            average_proxied_concurrent_requests: 20.0,
            request_count: 100.0 + load,
            proxied_request_count: 100.0,
            process_uptime: 3600.0,
            ..Stat::default()
        };
    }

    /// Requests answered so far.
    pub(super) fn asked(&self) -> u64 {
        self.shared.asked.get()
    }

    /// Reports so far that nobody asked for.
    pub(super) fn told(&self) -> u64 {
        self.shared.told.get()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 1024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut bytes[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if bytes[..filled].ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..filled]).into_owned();
            filled = 0;
            let stat = shared.stat.borrow().clone();
            if shared.manner.get() != Manner::Asked && head.contains(&format!("{STREAM}: ")) {
                return tell(stream, stat, shared).await;
            }
            shared.asked.set(shared.asked.get() + 1);
            let body = stat.encode_to_vec();
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(&[head.as_bytes(), &body].concat()).await?;
        }
    }
}

/// Tells until nobody listens.
async fn tell(mut stream: TcpStream, stat: Stat, shared: &Shared) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {STREAM_CONTENT_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    for turn in 0_u32.. {
        let mut stat = stat.clone();
        let pause = if shared.manner.get() == Manner::Restless {
            // More than two percent up, and down again.
            stat.average_concurrent_requests += f64::from(turn % 2);
            Duration::from_secs(1)
        } else {
            HEARTBEAT
        };
        let message = stat.encode_length_delimited_to_vec();
        let chunk = [format!("{:x}\r\n", message.len()).as_bytes(), &message, b"\r\n"].concat();
        stream.write_all(&chunk).await?;
        shared.told.set(shared.told.get() + 1);
        tokio::time::sleep(pause).await;
    }
    Ok(())
}
