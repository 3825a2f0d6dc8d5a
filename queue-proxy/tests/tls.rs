//! The TLS port: both protocols, renewal, versions, and those who forget the `s`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proxy::Body;
use proxy::runtime::LocalExecutor;
use support::{Pod, app, config, on_runtime, say};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

const FIRST: (&str, &str) = (include_str!("certificates/first.crt"), include_str!("certificates/first.key"));
const SECOND: (&str, &str) = (include_str!("certificates/second.crt"), include_str!("certificates/second.key"));

fn mount(folder: &Path, (chain, key): (&str, &str)) {
    std::fs::write(folder.join("tls.crt"), chain).unwrap();
    std::fs::write(folder.join("tls.key"), key).unwrap();
}

fn certificates(config: &mut queue_proxy::Config, folder: &Path) {
    config.tls.chain = folder.join("tls.crt");
    config.tls.key = folder.join("tls.key");
}

async fn pod(folder: &Path, app: SocketAddr) -> (Pod, SocketAddr) {
    let mut config = config(app);
    certificates(&mut config, folder);
    config.tls.reload = Duration::from_millis(20);
    let pod = Pod::start(config).await;
    let at = pod.at.serving_tls.expect("no TLS port");
    (pod, at)
}

async fn connect(
    to: SocketAddr,
    trusted: &str,
    alpn: &[&str],
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(to).await?;
    TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("kn-user-ns").unwrap(), stream).await
}

async fn hello(request: Request<Body>) -> Response<Body> {
    Response::new(Body::full(format!("{:?}", request.version())))
}

#[test]
fn both_protocols_and_rests_between_requests() {
    on_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), FIRST);
        let (_pod, at) = pod(folder.path(), app(hello)).await;

        let mut h1 = connect(at, FIRST.0, &["http/1.1"], &version::TLS13).await.unwrap();
        for _ in 0..2 {
            h1.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut seen = String::new();
            while !seen.ends_with("HTTP/1.1") || seen.len() < 20 {
                let mut buffer = [0; 1024];
                let n = h1.read(&mut buffer).await.unwrap();
                assert!(n > 0, "closed: {seen}");
                seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
            tokio::time::sleep(Duration::from_millis(250)).await; // parked
        }

        let h2 = connect(at, FIRST.0, &["h2", "http/1.1"], &version::TLS13).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(h2)).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = Request::builder().version(Version::HTTP_2).uri("https://a/").body(Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0");
    });
}

#[test]
fn a_renewed_certificate_is_served_and_a_bad_one_is_not() {
    on_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), FIRST);
        let (_pod, at) = pod(folder.path(), app(hello)).await;
        connect(at, FIRST.0, &[], &version::TLS13).await.unwrap();
        mount(folder.path(), SECOND);
        while connect(at, SECOND.0, &[], &version::TLS13).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        mount(folder.path(), (FIRST.0, "not a key"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        connect(at, SECOND.0, &[], &version::TLS13).await.unwrap();
    });
}

#[test]
fn old_versions_only_if_allowed() {
    on_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), FIRST);
        let (_pod, at) = pod(folder.path(), app(hello)).await;
        assert!(connect(at, FIRST.0, &[], &version::TLS12).await.is_err());

        let mut config = config(app(hello));
        certificates(&mut config, folder.path());
        config.tls.options.min_version = "1.2".into();
        let pod = Pod::start(config).await;
        connect(pod.at.serving_tls.unwrap(), FIRST.0, &[], &version::TLS12).await.unwrap();
    });
}

#[test]
fn plain_text_to_the_tls_port_is_told_so() {
    on_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), FIRST);
        let (pod, at) = pod(folder.path(), app(hello)).await;
        let answer = say(at, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
        assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{answer}");
        assert!(pod.get("/").await.starts_with("HTTP/1.1 200"), "the plain port stays open");
    });
}

#[test]
fn without_files_there_is_no_port() {
    on_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(app(hello));
        certificates(&mut config, folder.path());
        assert_eq!(Pod::start(config).await.at.serving_tls, None);
    });
}
