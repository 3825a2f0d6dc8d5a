//! Unary calls in the shape of gRPC: h2c by prior knowledge, many streams on few connections, small messages, and a
//! status in the trailers that is looked at.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, client::conn::http2, header};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Caller, Target, http1::connect};

/// A message of twelve bytes with the five that gRPC puts before it.
pub(crate) const MESSAGE: &[u8] = b"\0\0\0\0\x0cHello world\n";

/// One stream at a time on a connection that others share.
pub(crate) struct Stream(http2::SendRequest<Full<Bytes>>);

impl Caller for Stream {
    /// The URI.
    type Asked = hyper::Uri;

    async fn call(&mut self, uri: &hyper::Uri) -> anyhow::Result<()> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri.clone())
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::new(Bytes::from_static(MESSAGE)))?;
        self.0.ready().await?;
        let mut answer = self.0.send_request(request).await?;
        if answer.status() != 200 {
            bail!("answer: {}", answer.status());
        }
        let (mut length, mut status) = (0, None);
        while let Some(frame) = answer.frame().await {
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                length += data.len();
            } else if let Some(trailers) = frame.trailers_ref() {
                status = trailers.get("grpc-status").cloned();
            }
        }
        if length != MESSAGE.len() {
            bail!("an answer of {length} bytes");
        }
        let status = status.context("an answer without a status in its trailers")?;
        if status == "0" { Ok(()) } else { bail!("grpc-status: {status:?}") }
    }
}

/// What to call, by the same host as over HTTP/1.1.
pub(crate) fn uri() -> hyper::Uri {
    hyper::Uri::from_static("http://bench.example.com/bench.Greeter/Greet")
}

/// Opens this many connections and gives so many streams of each; every connection has answered a call.
pub(crate) async fn streams(to: &Target, connections: usize, on_each: usize) -> anyhow::Result<Vec<Stream>> {
    let asked = uri();
    let mut streams = Vec::with_capacity(connections * on_each);
    for nth in 0..connections {
        let io = TokioIo::new(connect(to, nth).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        // It ends when the last of its streams is dropped; a break shows in the calls.
        tokio::spawn(connection);
        let mut stream = Stream(sender);
        stream.call(&asked).await?;
        streams.extend((1..on_each).map(|_| Stream(stream.0.clone())));
        streams.push(stream);
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::Backend, namespace::Namespace, peers::Protocol};

    #[tokio::test]
    async fn streams_share_a_connection_and_see_their_status() {
        let backend = Backend::start(Namespace::default()).unwrap();
        let to = backend.target(Protocol::H2c);
        let mut streams = streams(&to, 2, 3).await.unwrap();
        assert_eq!(streams.len(), 6);
        for stream in &mut streams {
            stream.call(&uri()).await.unwrap();
        }
    }
}
