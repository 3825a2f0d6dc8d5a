//! All pods' stats ports in one: a listener on every address of the machine that answers each request with one report.

use std::{cell::RefCell, io, rc::Rc};

use api::stat::Stat;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

#[derive(Default)]
struct Shared {
    answer: RefCell<Vec<u8>>,
    asked: std::cell::Cell<u64>,
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
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Rc::clone(&ours);
                // A client that goes away in the middle is no news.
                tokio::task::spawn_local(async move { serve(stream, &shared).await.ok() });
            }
        });
        let pods = Self { port, shared, serving: serving.abort_handle() };
        pods.set_load(0.0);
        Ok(pods)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What each pod has in flight from others than activators.
    pub(super) fn set_load(&self, load: f64) {
        let stat = Stat {
            pod_name: "pod".to_owned(),
            average_concurrent_requests: 20.0 + load,
            average_proxied_concurrent_requests: 20.0,
            request_count: 100.0 + load,
            proxied_request_count: 100.0,
            process_uptime: 3600.0,
            ..Stat::default()
        };
        let body = stat.encode_to_vec();
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/protobuf\r\nContent-Length: {}\r\n\r\n", body.len())
                .into_bytes();
        answer.extend(body);
        *self.shared.answer.borrow_mut() = answer;
    }

    /// Requests so far.
    pub(super) fn asked(&self) -> u64 {
        self.shared.asked.get()
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
            filled = 0;
            shared.asked.set(shared.asked.get() + 1);
            let answer = shared.answer.borrow().clone();
            stream.write_all(&answer).await?;
        }
    }
}
