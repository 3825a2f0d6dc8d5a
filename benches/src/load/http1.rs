//! Kept-alive HTTP/1.1 connections, written and counted by hand.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{Caller, Target};
use crate::{backend::MIB, head::Head};

/// Connections that one address of ours makes to one port, well below the ports that there are.
const PER_SOURCE: usize = 8_000;

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
    pub(crate) fn bytes(self) -> Rc<[u8]> {
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
        bytes.into()
    }
}

/// One kept-alive connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Caller for Client {
    type Asked = Rc<[u8]>;

    async fn call(&mut self, asked: &Rc<[u8]>) -> anyhow::Result<()> {
        self.exchange(asked).await.map(drop)
    }
}

impl Client {
    pub(crate) async fn open(to: &Target) -> io::Result<Self> {
        Self::open_nth(to, 0).await
    }

    /// [`Client::open`] for one of very many.
    pub(crate) async fn open_nth(to: &Target, nth: usize) -> io::Result<Self> {
        Ok(Self { stream: connect(to, nth).await?, received: Vec::with_capacity(512) })
    }

    /// One request and the whole of its answer; the length of the answer's body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<usize> {
        self.send(request).await?;
        self.answer().await
    }

    /// The first half of an exchange.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    /// A page as it is, whatever its status: the head, in lower case, and the body.
    pub(crate) async fn page(&mut self, path: &str, host: &str) -> anyhow::Result<(String, String)> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let mut received = Vec::with_capacity(16 * 1024);
        loop {
            if self.stream.read_buf(&mut received).await? == 0 {
                bail!("the connection ended in the middle of a page");
            }
            let Some(head) = Head::parse(&received)? else { continue };
            if received.len() >= head.length + head.content_length {
                let (head, body) = received.split_at(head.length);
                return Ok((String::from_utf8_lossy(head).to_lowercase(), String::from_utf8_lossy(body).into_owned()));
            }
        }
    }

    /// The other half of an exchange.
    pub(crate) async fn answer(&mut self) -> anyhow::Result<usize> {
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

/// The connection to open as the `nth`: every so many, the next address of ours is used, since ports run short.
pub(crate) async fn connect(to: &Target, nth: usize) -> io::Result<TcpStream> {
    let socket = to.namespace.within(TcpSocket::new_v4)?;
    if nth >= PER_SOURCE {
        let source = Ipv4Addr::new(127, 0, 0, 1 + (nth / PER_SOURCE) as u8);
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    }
    let stream = socket.connect(to.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens this many connections; each has served a request when it is returned.
pub(crate) async fn connections(to: &Target, n: usize) -> anyhow::Result<Vec<Client>> {
    let bytes = Request::Tiny.bytes();
    let mut clients = Vec::with_capacity(n);
    for nth in 0..n {
        let mut client = Client::open_nth(to, nth).await?;
        client.exchange(&bytes).await?;
        clients.push(client);
    }
    Ok(clients)
}

/// This many connections, each with a request in flight that the backend holds.
pub(crate) async fn in_flight(to: &Target, n: usize) -> anyhow::Result<Vec<Client>> {
    let bytes = Request::Held.bytes();
    let mut clients = Vec::with_capacity(n);
    for _ in 0..n {
        let mut client = Client::open(to).await?;
        client.stream.write_all(&bytes).await?;
        clients.push(client);
    }
    Ok(clients)
}
