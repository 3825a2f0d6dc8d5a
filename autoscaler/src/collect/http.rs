//! A small HTTP/1 client for one request and a short answer: probes and queries. Pods have [`super::pod`].

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection that can carry the next request.
pub type Connection = SendRequest<Empty<Bytes>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// The exchange broke.
    #[error("exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// More than was to be read.
    #[error("answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Opens a connection.
pub async fn connect(address: SocketAddr) -> Result<Connection, Error> {
    let stream = TcpStream::connect(address).await.map_err(|error| Error::Connect(address, error))?;
    // A small request must not wait for an earlier answer's acknowledgement; where this fails it is only slower.
    drop(stream.set_nodelay(true));
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the sender is dropped or the peer closes.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Sends a request and reads the whole answer, at most `limit` bytes of it.
pub async fn exchange(
    connection: &mut Connection,
    request: Request<Empty<Bytes>>,
    limit: usize,
    timeout: Duration,
) -> Result<Response<Bytes>, Error> {
    let work = async {
        connection.ready().await?;
        let (head, mut body) = connection.send_request(request).await?.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                if bytes.len() + data.len() > limit {
                    return Err(Error::TooLong(limit));
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok(Response::from_parts(head, bytes.freeze()))
    };
    tokio::time::timeout(timeout, work).await.map_err(|_| Error::Timeout)?
}
