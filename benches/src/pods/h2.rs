//! A pod that is spoken to in h2c.

use std::{convert::Infallible, rc::Rc, time::Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Pod, Shared, id_of};

/// Runs hyper's tasks on this thread.
#[derive(Clone, Copy)]
pub(crate) struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

pub(super) async fn serve(stream: TcpStream, shared: Rc<Shared>, pod: Rc<Pod>) -> anyhow::Result<()> {
    let mut server = http2::Builder::new(Local);
    server.max_concurrent_streams(100_000);
    let answer = move |request: Request<Incoming>| {
        pod.request_came(Instant::now());
        shared.arrivals.borrow_mut().extend(id_of(request.uri().path().as_bytes()));
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"Hello world\n")))))
    };
    Ok(server.serve_connection(TokioIo::new(stream), service_fn(answer)).await?)
}
