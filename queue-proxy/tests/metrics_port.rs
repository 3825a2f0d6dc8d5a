//! The port of the user's metrics: where it is, over TLS, and for which clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy::certificates::{ClientSettings, RELOAD, Settings};
use proxy::tls::Options;
use support::{Pod, config, get, mirror, on_runtime, say, status};
use telemetry::observability::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const FIRST: &str = include_str!("certificates/first.crt");
const SECOND: (&str, &str) = (include_str!("certificates/second.crt"), include_str!("certificates/second.key"));

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

async fn pod(tls: Option<Settings>) -> Pod {
    let mut config = config(mirror().await);
    config.observability.prometheus = Some(Endpoint { host: "127.0.0.1".into(), port: 0 });
    config.metrics_server.tls = tls;
    Pod::start(config).await
}

fn tls(clients: Option<ClientSettings>) -> Settings {
    let (chain, key) = (file("first.crt"), file("first.key"));
    Settings { chain, key, reload: RELOAD, options: Options::default(), clients, variables: "METRICS_PROMETHEUS_TLS_" }
}

/// The page as a client sees it that shows this certificate; empty if it is turned away.
async fn page(to: SocketAddr, shown: Option<(&str, &str)>) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(FIRST.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots);
    let client = match shown {
        None => client.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
            client.with_client_auth_cert(vec![chain], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from("kn-user-ns").unwrap();
    let Ok(mut stream) = TlsConnector::from(Arc::new(client)).connect(name, stream).await else { return String::new() };
    let _ = stream.write_all(get("/metrics").as_bytes()).await;
    let mut page = Vec::new();
    let _ = stream.read_to_end(&mut page).await; // an alert, if it is turned away
    String::from_utf8(page).unwrap()
}

#[test]
fn clients_are_let_in_as_the_setting_says() {
    on_runtime(async {
        let first = (FIRST, include_str!("certificates/first.key"));
        // The certificates are their own authorities; the second is the one that is trusted.
        let asked = |required| tls(Some(ClientSettings { authorities: file("second.crt"), required }));
        for (settings, nobody, known, stranger) in
            [(tls(None), true, true, true), (asked(false), true, true, false), (asked(true), false, true, false)]
        {
            let pod = pod(Some(settings.clone())).await;
            let at = pod.at.user_metrics.unwrap();
            for (shown, served) in [(None, nobody), (Some(SECOND), known), (Some(first), stranger)] {
                let page = page(at, shown).await;
                assert_eq!(page.starts_with("HTTP/1.1 200 OK\r\n"), served, "{settings:?} {shown:?}: {page:?}");
            }
        }
    });
}

#[test]
fn only_get_metrics_is_served_in_the_text_format() {
    on_runtime(async {
        let pod = pod(None).await;
        let at = pod.at.user_metrics.unwrap();
        let page = say(at, &get("/metrics")).await;
        assert!(page.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{page}");
        assert_eq!(status(&say(at, &get("/other")).await), 404);
        let post = "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(status(&say(at, post).await), 404);
    });
}

#[test]
fn metrics_that_cannot_be_served_do_not_keep_the_pod_from_serving() {
    on_runtime(async {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut in_use = config(mirror().await);
        in_use.observability.prometheus = Some(Endpoint { host: String::new(), port: 9091 });
        in_use.metrics_server.port = Some(taken.local_addr().unwrap().port());
        let mut no_file = config(mirror().await);
        no_file.observability.prometheus = Some(Endpoint { host: String::new(), port: 0 });
        no_file.metrics_server.tls = Some(Settings { key: file("no.key"), ..tls(None) });
        let mut no_host = config(mirror().await);
        no_host.observability.prometheus = Some(Endpoint { host: String::new(), port: 0 });
        no_host.metrics_server.host = Some("not a host".into());
        for config in [in_use, no_file, no_host] {
            let pod = Pod::start(config).await;
            assert_eq!(pod.at.user_metrics, None);
            assert_eq!(status(&pod.get("/").await), 200);
        }
    });
}
