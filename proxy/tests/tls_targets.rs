//! The pool over TLS: whom it believes, how it reuses, and what it does when authorities change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use proxy::tls::client::{Authorities, Secure, Trust};
use proxy::tls::{Options, Tls, TlsError};
use proxy::{Body, Drain, Pool, PoolConfig, ServerConfig};

const POD: (&str, &str) = (include_str!("certificates/pod.crt"), include_str!("certificates/pod.key"));
const POD_2: (&str, &str) = (include_str!("certificates/pod-2.crt"), include_str!("certificates/pod-2.key"));
const NAMELESS: (&str, &str) = (include_str!("certificates/nameless.crt"), include_str!("certificates/nameless.key"));
const MISNAMED: (&str, &str) = (include_str!("certificates/misnamed.crt"), include_str!("certificates/misnamed.key"));
const AUTHORITY: &str = include_str!("certificates/authority.crt");
const AUTHORITY_2: &str = include_str!("certificates/authority-2.crt");

fn on_runtime<F: Future>(test: F) -> F::Output {
    proxy::runtime::block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("test hung") })
        .unwrap()
}

fn authorities(texts: &[&str]) -> Authorities {
    let mut authorities = Authorities::default();
    for text in texts {
        authorities.add(text.as_bytes()).unwrap();
    }
    authorities
}

fn secure(texts: &[&str]) -> (Trust, Secure) {
    let trust = Trust::new("data-plane.knative.dev", authorities(texts)).unwrap();
    let secure = trust.also_named("kn-user-ns");
    (trust, secure)
}

/// A target with a certificate that answers with the request's version; counts its connections.
fn target((chain, key): (&str, &str)) -> (SocketAddr, Rc<Cell<usize>>, Tls) {
    let tls = Tls::new(&Options::default(), chain.as_bytes(), key.as_bytes()).unwrap();
    let listener = proxy::accept::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let config = ServerConfig { tls: Some(tls.clone()), ..ServerConfig::default() };
    let opened = Rc::new(Cell::new(0));
    let count = Rc::clone(&opened);
    tokio::task::spawn_local(proxy::serve(listener, config, Drain::default(), move |_| {
        count.set(count.get() + 1);
        service_fn(|request: Request<Body>| async move {
            let version = format!("{:?}", request.version());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = format!("{version} {}", String::from_utf8_lossy(&body));
            Ok::<_, Infallible>(Response::new(Body::full(text)))
        })
    }));
    (address, opened, tls)
}

fn request(version: Version) -> Request<Body> {
    let uri = if version == Version::HTTP_2 { "http://a/" } else { "/" };
    let request = Request::builder().version(version).method(Method::POST).uri(uri);
    request.header("host", "a").body(Body::full("body")).unwrap()
}

async fn ask(pool: &Pool, to: SocketAddr, tls: &Secure, version: Version) -> Result<String, proxy::SendError> {
    let answer = pool.endpoint_over(to, Some(tls)).forward(&mut request(version), None).await?;
    Ok(String::from_utf8_lossy(&answer.into_response().into_body().collect().await.unwrap().to_bytes()).into_owned())
}

#[test]
fn both_protocols_without_alpn_and_connections_are_reused() {
    on_runtime(async {
        let (address, opened, _) = target(POD);
        let (_, tls) = secure(&[AUTHORITY]);
        let pool = Pool::new(PoolConfig::default());
        for _ in 0..5 {
            assert_eq!(ask(&pool, address, &tls, Version::HTTP_11).await.unwrap(), "HTTP/1.1 body");
        }
        assert_eq!((opened.get(), pool.idle()), (1, 1));
        for _ in 0..5 {
            assert_eq!(ask(&pool, address, &tls, Version::HTTP_2).await.unwrap(), "HTTP/2.0 body");
        }
        assert_eq!(opened.get(), 2);
        // Long enough that the socket itself is asked whether it is quiet.
        tokio::time::sleep(Duration::from_millis(120)).await;
        ask(&pool, address, &tls, Version::HTTP_11).await.unwrap();
        assert_eq!(opened.get(), 2);
    });
}

#[test]
fn t70_a_target_must_prove_both_names_to_an_authority() {
    on_runtime(async {
        let (_, tls) = secure(&[AUTHORITY]);
        for (certificate, part) in [
            (POD_2, "UnknownIssuer"),
            (NAMELESS, "the certificate is not for kn-user-ns"),
            (MISNAMED, "data-plane.knative.dev"),
        ] {
            let (address, ..) = target(certificate);
            let pool = Pool::new(PoolConfig::default());
            for version in [Version::HTTP_11, Version::HTTP_2] {
                let mut request = request(version);
                let error = pool.endpoint_over(address, Some(&tls)).forward(&mut request, None).await.unwrap_err();
                assert!(error.to_string().contains(part), "{error}");
                assert!(error.is_unsent());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, "body", "whole, for another target");
            }
        }
    });
}

#[test]
fn new_authorities_count_for_new_connections() {
    on_runtime(async {
        let (address, opened, server) = target(POD);
        let (trust, tls) = secure(&[AUTHORITY]);
        let pool = Pool::new(PoolConfig::default());
        ask(&pool, address, &tls, Version::HTTP_11).await.unwrap();
        server.replace(POD_2.0.as_bytes(), POD_2.1.as_bytes()).unwrap();
        trust.replace(authorities(&[AUTHORITY_2])).unwrap();
        ask(&pool, address, &tls, Version::HTTP_11).await.unwrap();
        assert_eq!(opened.get(), 1, "the open connection stays");
        pool.forget(address);
        ask(&pool, address, &tls, Version::HTTP_11).await.unwrap();
        assert_eq!(opened.get(), 2);
        // With both, during a rotation, either is believed.
        trust.replace(authorities(&[AUTHORITY, AUTHORITY_2])).unwrap();
        server.replace(POD.0.as_bytes(), POD.1.as_bytes()).unwrap();
        pool.forget(address);
        ask(&pool, address, &tls, Version::HTTP_11).await.unwrap();
    });
}

#[test]
fn nobody_to_believe_is_an_error_and_changes_nothing() {
    let (trust, _) = secure(&[AUTHORITY]);
    assert!(matches!(trust.replace(Authorities::default()), Err(TlsError::NoAuthority)));
    assert!(Authorities::default().add(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    assert!(Authorities::default().add(b"junk").is_err());
    // Junk beside a good one is passed over.
    let mixed = format!("junk\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{AUTHORITY}");
    Authorities::default().add(mixed.as_bytes()).unwrap();
}

#[test]
fn an_address_that_changes_its_kind_of_connection_gets_a_new_stack() {
    on_runtime(async {
        let (address, ..) = target(POD);
        let (trust, tls) = secure(&[AUTHORITY]);
        let pool = Pool::new(PoolConfig::default());
        ask(&pool, address, &tls, Version::HTTP_11).await.unwrap();
        assert_eq!(pool.idle(), 1);
        let plain = pool.send(address, &mut request(Version::HTTP_11)).await.unwrap();
        assert_eq!(plain.status(), 400, "an HTTP request to an HTTPS server");
        drop(plain);
        assert_eq!((pool.len(), pool.idle()), (1, 0));
        let other = trust.also_named("kn-user-other");
        assert!(
            ask(&pool, address, &other, Version::HTTP_11).await.is_err(),
            "what was proven to another is not enough"
        );
    });
}

#[test]
fn idle_connections_are_bounded_over_all_targets_and_the_oldest_go() {
    on_runtime(async {
        let pool = Pool::new(PoolConfig { max_idle: 4, ..PoolConfig::default() });
        let mut targets = Vec::new();
        let used = Rc::new(RefCell::new(Vec::new()));
        for n in 0..10 {
            let (address, opened, _) = target(POD);
            let (_, tls) = secure(&[AUTHORITY]);
            ask(&pool, address, &tls, Version::HTTP_11).await.unwrap();
            used.borrow_mut().push(n);
            assert!((1..=4).contains(&pool.idle()), "{} idle after {:?}", pool.idle(), used.borrow());
            targets.push((address, opened, tls));
        }
        // The newest is there, the oldest is not.
        let again = |n: usize| {
            let (address, opened, tls) = targets[n].clone();
            let pool = pool.clone();
            async move {
                ask(&pool, address, &tls, Version::HTTP_11).await.unwrap();
                opened.get()
            }
        };
        assert_eq!(again(9).await, 1);
        assert_eq!(again(0).await, 2);
        let none = Pool::new(PoolConfig { max_idle: 0, ..PoolConfig::default() });
        let (address, _, tls) = &targets[0];
        ask(&none, *address, tls, Version::HTTP_11).await.unwrap();
        assert_eq!(none.idle(), 0);
    });
}
