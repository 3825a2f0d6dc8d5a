//! The pool against targets that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt;
use proxy::{Body, Pool, PoolConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn on_runtime<F: Future>(test: F) -> F::Output {
    proxy::runtime::block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("test hung") })
        .unwrap()
}

/// A target made of a function, called once per connection with its number.
async fn target<F, Fut>(serve: F) -> (SocketAddr, Rc<Cell<usize>>)
where
    F: Fn(usize, TcpStream) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, opened) = (listener.local_addr().unwrap(), Rc::new(Cell::new(0)));
    let count = Rc::clone(&opened);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(count.get(), stream));
            count.set(count.get() + 1);
        }
    });
    (address, opened)
}

async fn read_head(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => seen.extend_from_slice(&buffer[..n]),
            _ => return false,
        }
    }
    true
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn request(method: Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/").header("host", "a").body(body).unwrap()
}

#[test]
fn a_refused_target_gives_the_request_back() {
    on_runtime(async {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pool = Pool::new(PoolConfig::default());
        let mut request = request(Method::POST, Body::full("kept"));
        let error = pool.send(nobody, &mut request).await.unwrap_err();
        assert!(error.is_refused() && error.is_unsent());
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "kept");
    });
}

#[test]
fn what_may_have_arrived_is_not_given_back() {
    on_runtime(async {
        let (address, opened) = target(|_, mut stream| async move {
            read_head(&mut stream).await; // and closes without an answer
        })
        .await;
        let pool = Pool::new(PoolConfig::default());
        let error = pool.send(address, &mut request(Method::GET, Body::empty())).await.unwrap_err();
        assert!(!error.is_unsent() && !error.is_dial(), "{error}");
        assert_eq!(opened.get(), 1, "a fresh connection's failure is final");
    });
}

/// The first connection answers once, then dies on the second request; later ones work.
async fn dies_on_reuse() -> (SocketAddr, Rc<Cell<usize>>) {
    target(|n, mut stream| async move {
        while read_head(&mut stream).await {
            stream.write_all(OK).await.unwrap();
            if n == 0 {
                read_head(&mut stream).await;
                return;
            }
        }
    })
    .await
}

async fn drained(pool: &Pool, address: SocketAddr, mut request: Request<Body>) -> Result<(), proxy::SendError> {
    let response = pool.send(address, &mut request).await?;
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    Ok(())
}

#[test]
fn a_safe_request_is_repeated_when_a_reused_connection_dies() {
    on_runtime(async {
        let (address, opened) = dies_on_reuse().await;
        let pool = Pool::new(PoolConfig::default());
        for _ in 0..2 {
            drained(&pool, address, request(Method::GET, Body::empty())).await.unwrap();
        }
        assert_eq!(opened.get(), 2);
    });
}

#[test]
fn an_unsafe_request_is_never_repeated_once_written() {
    on_runtime(async {
        for (method, body) in
            [(Method::POST, Body::empty()), (Method::GET, Body::full("x")), (Method::DELETE, Body::empty())]
        {
            let (address, _) = dies_on_reuse().await;
            let pool = Pool::new(PoolConfig::default());
            drained(&pool, address, request(Method::GET, Body::empty())).await.unwrap();
            assert!(drained(&pool, address, request(method.clone(), body)).await.is_err(), "{method}");
        }
    });
}

#[test]
fn a_connection_closed_while_idle_is_noticed_before_anything_is_written() {
    on_runtime(async {
        let (address, opened) = target(|_, mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        })
        .await;
        let pool = Pool::new(PoolConfig::default());
        for _ in 0..20 {
            // A POST would be an error if it had been written to the dead connection.
            drained(&pool, address, request(Method::POST, Body::full("hi"))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(opened.get(), 20);
    });
}

#[test]
fn a_body_that_is_dropped_closes_its_connection() {
    on_runtime(async {
        let closed = Rc::new(Cell::new(false));
        let flag = Rc::clone(&closed);
        let (address, _) = target(move |_, mut stream| {
            let flag = Rc::clone(&flag);
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await.unwrap();
                assert!(!read_head(&mut stream).await);
                flag.set(true);
            }
        })
        .await;
        let pool = Pool::new(PoolConfig::default());
        drop(pool.send(address, &mut request(Method::GET, Body::empty())).await.unwrap());
        while !closed.get() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(pool.endpoint(address).idle(), 0);
    });
}

#[test]
fn a_forgotten_target_keeps_no_connection() {
    on_runtime(async {
        let (address, _) = dies_on_reuse().await;
        let pool = Pool::new(PoolConfig::default());
        drained(&pool, address, request(Method::GET, Body::empty())).await.unwrap();
        let endpoint = pool.endpoint(address);
        assert_eq!((endpoint.idle(), pool.len()), (1, 1));
        pool.forget(address);
        assert_eq!((endpoint.idle(), pool.len()), (0, 0));
    });
}

#[test]
fn the_idle_cap_and_lifetime_hold() {
    on_runtime(async {
        let (address, _) = target(|_, mut stream| async move {
            while read_head(&mut stream).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.write_all(OK).await.unwrap();
            }
        })
        .await;
        let pool = Pool::new(PoolConfig {
            max_idle_per_target: 2,
            idle_lifetime: Duration::from_millis(100),
            ..PoolConfig::default()
        });
        let sends = (0..5).map(|_| drained(&pool, address, request(Method::GET, Body::empty())));
        for sent in futures::future::join_all(sends).await {
            sent.unwrap();
        }
        assert_eq!(pool.endpoint(address).idle(), 2);
        while pool.endpoint(address).idle() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
