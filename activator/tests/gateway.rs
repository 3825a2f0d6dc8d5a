//! The gateway from outside: its three listeners, and everything an Ingress can say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use activator::{Config, SecretName};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use support::{Answer, Door, PATIENCE, Pod, send, tally, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error as TlsError, RootCertStore};

macro_rules! certificate {
    ($name:literal) => {
        (include_str!(concat!("certificates/", $name, ".crt")), include_str!(concat!("certificates/", $name, ".key")))
    };
}

type Pem = (&'static str, &'static str);
/// For `hello.test`, and for the same once it is renewed.
const FIRST: Pem = certificate!("first");
const SECOND: Pem = certificate!("second");
/// For `*.wide.test`.
const WIDE: Pem = certificate!("wide");
/// For `default.test`, shown to whoever asks for something else.
const DEFAULT: Pem = certificate!("default");

const INNER: &str = "hello.ns.svc.cluster.local";

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn config() -> Config {
    let (local_listen, tls_listen) = (Some(loopback()), Some(loopback()));
    Config { threads: 2, local_listen, tls_listen, https_port: 8443, ..Config::detached() }
}

/// A gateway with a pod for each of these revisions.
async fn gateway<const N: usize>(config: Config, revisions: [&'static str; N]) -> (Door, [Pod; N]) {
    let door = Door::open(config).await;
    let mut pods = Vec::new();
    for name in revisions {
        door.revision(name, json!({})).await;
        let pod = Pod::start(name).await;
        door.pods(name, &[pod.address], &[]);
        pods.push(pod);
    }
    let Ok(pods) = pods.try_into() else { panic!("as many as asked for") };
    (door, pods)
}

fn split(revision: &str) -> Value {
    json!({ "serviceNamespace": "ns", "serviceName": revision, "servicePort": 80, "percent": 100,
        "appendHeaders": { "Knative-Serving-Namespace": "ns", "Knative-Serving-Revision": revision } })
}

fn rule(hosts: &[&str], visibility: &str, paths: &Value) -> Value {
    json!({ "hosts": hosts, "visibility": visibility, "http": { "paths": paths } })
}

fn to(revision: &str) -> Value {
    json!([{ "splits": [split(revision)] }])
}

async fn get(address: SocketAddr, uri: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(address, request.body(Full::default()).unwrap()).await
}

/// The first word of an answer: which pod it is from.
async fn asked(address: SocketAddr, host: &str, uri: &str, headers: &[(&str, &str)]) -> String {
    let mut all = vec![("host", host)];
    all.extend(headers);
    let answer = get(address, uri, &all).await;
    if answer.status == StatusCode::OK {
        answer.body.trim().to_owned()
    } else {
        answer.header("dormouse-error").to_owned()
    }
}

fn last_seen(pod: &Pod) -> HeaderMap {
    pod.does.seen.lock().unwrap().last().cloned().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_inside_the_cluster_are_served_there_only() {
    let (door, _pods) = gateway(config(), ["hello"]).await;
    let rules =
        [rule(&["hello.test"], "ExternalIP", &to("hello")), rule(&[INNER, "hello.ns"], "ClusterLocal", &to("hello"))];
    door.ingress("hello", json!({ "rules": rules })).await;
    let (outside, inside) = (door.address, door.inside.unwrap());
    for (address, host, expected) in [
        (outside, "hello.test", "hello"),
        (inside, "hello.test", "hello"),
        (inside, INNER, "hello"),
        (inside, "hello.ns:80", "hello"),
        (outside, INNER, "activator; reason=unknown-host"),
        (outside, "hello.ns", "activator; reason=unknown-host"),
        (inside, "nobody.test", "activator; reason=unknown-host"),
    ] {
        assert_eq!(asked(address, host, "/", &[]).await, expected, "{host} at {address}");
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_paths_headers_and_tags_choose_the_backend() {
    let (door, _pods) = gateway(config(), ["exact", "wide", "foo", "tagged", "rest"]).await;
    let tag = json!({ "Knative-Serving-Tag": { "exact": "blue" } });
    let paths = json!([
        { "headers": tag, "splits": [split("tagged")] },
        { "path": "/foo", "splits": [split("foo")] },
        { "splits": [split("exact")] },
    ]);
    let everything = json!({ "visibility": "ExternalIP", "http": { "paths": to("rest") } });
    let rules =
        [rule(&["a.wide.test"], "ExternalIP", &paths), rule(&["*.wide.test"], "ExternalIP", &to("wide")), everything];
    door.ingress("i", json!({ "rules": rules })).await;
    for (host, uri, headers, expected) in [
        ("a.wide.test", "/", &[][..], "exact"),
        ("A.Wide.Test:8080", "/asdf", &[][..], "exact"),
        ("a.wide.test", "/foo/x?y", &[][..], "foo"),
        ("a.wide.test", "/", &[("knative-serving-tag", "blue")][..], "tagged"),
        ("a.wide.test", "/", &[("knative-serving-tag", "")][..], "exact"),
        ("a.wide.test", "/", &[("knative-serving-tag", "not-blue")][..], "exact"),
        ("b.wide.test", "/", &[][..], "wide"),
        ("c.b.wide.test", "/", &[][..], "wide"),
        ("wide.test", "/", &[][..], "rest"),
        ("nobody", "/", &[][..], "rest"),
    ] {
        assert_eq!(asked(door.address, host, uri, headers).await, expected, "{host}{uri} {headers:?}");
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_set_and_not_appended() {
    let (door, [one, two]) = gateway(config(), ["one", "two"]).await;
    let with = |revision: &str| {
        let mut split = split(revision);
        split["percent"] = json!(50);
        split["appendHeaders"]["Which-Backend"] = json!(revision);
        split["appendHeaders"]["Both"] = json!("split");
        split
    };
    let paths =
        json!([{ "appendHeaders": { "Foo-Bar": "set", "Both": "path" }, "splits": [with("one"), with("two")] }]);
    door.ingress("i", json!({ "rules": [rule(&["hello.test"], "ExternalIP", &paths)] })).await;
    let bogus = [("host", "hello.test"), ("foo-bar", "bogus"), ("foo-bar", "twice"), ("which-backend", "bogus")];
    let mut answers = Vec::new();
    for _ in 0..64 {
        answers.push(get(door.address, "/", &bogus).await);
    }
    // 64 fair coins all alike: 1e-19.
    assert_eq!(tally(&answers).len(), 2, "{answers:?}");
    for (pod, name) in [(one, "one"), (two, "two")] {
        let seen = last_seen(&pod);
        let all = |header: &str| {
            seen.get_all(header).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((all("foo-bar"), all("which-backend")), (vec!["set".to_owned()], vec![name.to_owned()]));
        assert_eq!(all("both"), ["path"], "the path's win over the split's");
        assert!(!seen.contains_key("knative-serving-revision"));
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_domain_reaches_the_service_under_its_own_name() {
    let (door, [hello]) = gateway(config(), ["hello-00001"]).await;
    let inner = [rule(&[INNER], "ClusterLocal", &to("hello-00001"))];
    door.ingress("hello", json!({ "rules": inner })).await;
    // As a DomainMapping's controller writes it: the backend is a Service that leads back to a gateway.
    let mapped = json!([{ "rewriteHost": INNER, "splits": [{ "serviceNamespace": "ns", "serviceName": "hello", "servicePort": 80,
        "percent": 100, "appendHeaders": { "K-Original-Host": "mapped.test" } }] }]);
    let plain = json!([{ "rewriteHost": INNER, "splits": [split("hello")] }]);
    let rules = [rule(&["mapped.test"], "ExternalIP", &mapped), rule(&["plain.test"], "ExternalIP", &plain)];
    door.ingress("mapped", json!({ "rules": rules })).await;
    assert_eq!(asked(door.address, "mapped.test", "/", &[]).await, "hello-00001");
    assert_eq!(last_seen(&hello)["k-original-host"], "mapped.test");
    assert_eq!(asked(door.address, "plain.test", "/", &[]).await, "hello-00001");
    assert_eq!(last_seen(&hello)["k-original-host"], INNER);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_service_is_served_by_https_only() {
    let (door, _pods) = gateway(config(), ["hello"]).await;
    let rules = [rule(&["hello.test"], "ExternalIP", &to("hello")), rule(&[INNER], "ClusterLocal", &to("hello"))];
    let tls = [json!({ "hosts": ["hello.test"], "secretName": "first" })];
    door.ingress("hello", json!({ "rules": rules, "tls": tls, "httpOption": "Redirected" })).await;
    secret(&door, "first", FIRST);
    for address in [door.address, door.inside.unwrap()] {
        let answer = get(address, "/x?y=1", &[("host", "hello.test:8080")]).await;
        assert_eq!(answer.status, StatusCode::MOVED_PERMANENTLY);
        assert_eq!(answer.header("location"), "https://hello.test:8443/x?y=1");
        assert_eq!((answer.header("dormouse-error"), answer.body.as_str()), ("", ""));
    }
    let answer = get(door.address, "/", &[("host", "hello.test#@other.test")]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(asked(door.inside.unwrap(), INNER, "/", &[]).await, "hello");
    let mut client = connect_once_known(&door, "hello.test", FIRST).await;
    assert_eq!(client.get("hello.test", "/").await.body.trim(), "hello");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_in_our_name() {
    let (door, []) = gateway(config(), []).await;
    for address in [door.address, door.inside.unwrap()] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let answer = answer.to_lowercase();
        assert!(answer.starts_with("http/1.1 400") && answer.contains("dormouse-error: activator;"), "{answer}");
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_is_told_how_the_client_came() {
    let (door, [hello]) = gateway(config(), ["hello"]).await;
    let tls = [json!({ "hosts": ["hello.test"], "secretName": "first" })];
    door.ingress("hello", json!({ "rules": [rule(&["hello.test"], "ExternalIP", &to("hello"))], "tls": tls })).await;
    secret(&door, "first", FIRST);
    for address in [door.address, door.inside.unwrap()] {
        asked(address, "hello.test", "/", &[]).await;
        assert_eq!(last_seen(&hello)["x-forwarded-proto"], "http");
        // A balancer that ends TLS in front of us.
        asked(address, "hello.test", "/", &[("x-forwarded-proto", "https")]).await;
        assert_eq!(last_seen(&hello)["x-forwarded-proto"], "https");
    }
    let mut client = connect_once_known(&door, "hello.test", FIRST).await;
    let request = client.request("hello.test", "/").header("x-forwarded-proto", "http");
    assert_eq!(client.send(request).await.status, StatusCode::OK);
    let seen = last_seen(&hello);
    assert_eq!(seen.get_all("x-forwarded-proto").iter().collect::<Vec<_>>(), ["https"]);
    assert_eq!(seen["k-original-host"], "hello.test");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_chosen_by_name_and_renewed_on_a_live_listener() {
    let (door, _pods) = gateway(config(), ["hello"]).await;
    let rules = [
        rule(&["hello.test", "bare.test"], "ExternalIP", &to("hello")),
        rule(&["*.wide.test"], "ExternalIP", &to("hello")),
        rule(&[INNER], "ClusterLocal", &to("hello")),
    ];
    let tls = [
        json!({ "hosts": ["hello.test", INNER], "secretName": "first" }),
        json!({ "hosts": ["*.wide.test"], "secretName": "wide" }),
    ];
    door.ingress("hello", json!({ "rules": rules, "tls": tls })).await;
    secret(&door, "first", FIRST);
    secret(&door, "wide", WIDE);
    let mut old = connect_once_known(&door, "hello.test", FIRST).await;
    assert_eq!(old.version, Version::HTTP_2);
    assert_eq!(old.get("hello.test", "/").await.body.trim(), "hello");
    let mut wide = connect_once_known(&door, "a.wide.test", WIDE).await;
    assert_eq!(wide.get("a.wide.test", "/").await.body.trim(), "hello");
    let at = door.tls.unwrap();
    let mut h1 = connect(at, "b.wide.test", WIDE, &["http/1.1"]).await.unwrap();
    assert_eq!((h1.version, h1.get("b.wide.test", "/").await.status), (Version::HTTP_11, StatusCode::OK));
    // Nothing is said to those who ask for what is not there, but that it is not there.
    for name in ["nobody.test", "bare.test", INNER, "wide.test"] {
        assert_eq!(refused(at, name).await, AlertDescription::UnrecognisedName, "{name}");
    }
    // A cluster-local host is not served through a connection that is open, either.
    assert_eq!(wide.get(INNER, "/").await.header("dormouse-error"), "activator; reason=unknown-host");
    // Renewed: new connections see it, the old one goes on. A broken Secret changes nothing.
    secret(&door, "first", (SECOND.0, FIRST.1));
    secret(&door, "first", SECOND);
    let mut new = connect_once_known(&door, "hello.test", SECOND).await;
    assert_eq!(new.get("hello.test", "/").await.body.trim(), "hello");
    assert_eq!(old.get("hello.test", "/").await.body.trim(), "hello");
    secret(&door, "first", (SECOND.0, FIRST.1));
    secret(&door, "wide", WIDE);
    connect_once_known(&door, "hello.test", SECOND).await;
    // Deleted.
    door.feed.secret(SecretName::new("ns", "first"), None);
    let shared = &door.shared;
    until("gone", || shared.table.load().entry("hello.test").unwrap().certificate.as_ref().unwrap().get().is_none())
        .await;
    assert_eq!(refused(at, "hello.test").await, AlertDescription::UnrecognisedName);
    assert_eq!(old.get("hello.test", "/").await.body.trim(), "hello");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_certificate_gets_the_default_one() {
    let default_certificate = Some(SecretName::new("system", "default"));
    let (door, _pods) = gateway(Config { default_certificate, ..config() }, ["hello"]).await;
    let tls = [json!({ "hosts": ["hello.test"], "secretName": "first" })];
    let rules = [rule(&["hello.test", "default.test"], "ExternalIP", &to("hello"))];
    door.ingress("hello", json!({ "rules": rules, "tls": tls })).await;
    assert_eq!(refused(door.tls.unwrap(), "default.test").await, AlertDescription::UnrecognisedName, "not there yet");
    door.feed.secret(SecretName::new("system", "default"), Some(as_secret(DEFAULT)));
    let mut client = connect_once_known(&door, "default.test", DEFAULT).await;
    assert_eq!(client.get("default.test", "/").await.body.trim(), "hello");
    secret(&door, "first", FIRST);
    connect_once_known(&door, "hello.test", FIRST).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_secrets_that_ingresses_name_are_asked_for() {
    let api = SecretServer::start().await;
    api.put("first", FIRST);
    api.put("secret-of-others", WIDE);
    let (door, _pods) = gateway(config(), ["hello"]).await;
    // The door is fed by hand, and only its Secrets come from the API server.
    let (client, feed, wanted) = (api.client(), door.feed.clone(), door.shared.certificates.wanted());
    let watching = tokio::task::LocalSet::new();
    let scenario = async {
        let tls = |name: &str| json!([{ "hosts": ["hello.test"], "secretName": name }]);
        let rules = json!([rule(&["hello.test"], "ExternalIP", &to("hello"))]);
        door.ingress("hello", json!({ "rules": rules, "tls": tls("first") })).await;
        connect_once_known(&door, "hello.test", FIRST).await;
        api.put("first", SECOND);
        connect_once_known(&door, "hello.test", SECOND).await;
        // Another Secret, which comes later than its Ingress.
        door.ingress("hello", json!({ "rules": rules, "tls": tls("late") })).await;
        until("asked for", || api.asked().contains("late")).await;
        tokio::time::timeout(PATIENCE, door.shared.certificates.settled()).await.expect("known not to be there");
        assert_eq!(refused(door.tls.unwrap(), "hello.test").await, AlertDescription::UnrecognisedName);
        api.put("late", FIRST);
        connect_once_known(&door, "hello.test", FIRST).await;
        assert_eq!(api.asked(), ["first".to_owned(), "late".to_owned()].into());
        until("first is not watched any more", || api.watched("first") == 0).await;
    };
    watching.spawn_local(activator::watch::secrets(client, wanted, feed));
    watching.run_until(scenario).await;
    door.close().await;
}

/// As much of an API server as a watch of one Secret needs.
#[derive(Clone)]
struct SecretServer {
    address: SocketAddr,
    state: Arc<Mutex<ServerState>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct ServerState {
    secrets: BTreeMap<String, Secret>,
    asked: BTreeSet<String>,
    watched: BTreeMap<String, Arc<()>>,
}

impl SecretServer {
    async fn start() -> Self {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self { address, state: Arc::default(), changed: watch::Sender::new(1) };
        let served = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                let service =
                    service_fn(move |request| std::future::ready(Ok::<_, Infallible>(served.answer(&request))));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        this
    }

    fn client(&self) -> kube::Client {
        kube::Client::try_from(kube::Config::new(format!("http://{}", self.address).parse().unwrap())).unwrap()
    }

    fn put(&self, name: &str, pem: Pem) {
        self.changed.send_modify(|version| {
            *version += 1;
            let mut secret = as_secret(pem);
            secret.metadata.name = Some(name.to_owned());
            secret.metadata.resource_version = Some(version.to_string());
            self.state.lock().unwrap().secrets.insert(name.to_owned(), secret);
        });
    }

    fn asked(&self) -> BTreeSet<String> {
        self.state.lock().unwrap().asked.clone()
    }

    fn watched(&self, name: &str) -> usize {
        self.state.lock().unwrap().watched.get(name).map_or(0, |watches| Arc::strong_count(watches) - 1)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let query = request.uri().query().unwrap_or_default();
        let name = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
        let only_one = request.uri().path() == "/api/v1/namespaces/ns/secrets";
        let Some(name) = name.filter(|_| only_one).map(str::to_owned) else {
            panic!("asked for more than one Secret: {}", request.uri());
        };
        let mut state = self.state.lock().unwrap();
        state.asked.insert(name.clone());
        if !query.contains("watch=true") {
            let items: Vec<&Secret> = state.secrets.get(&name).into_iter().collect();
            let version = self.changed.borrow().to_string();
            let list = json!({ "kind": "SecretList", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items });
            return Response::new(Full::from(list.to_string()).boxed_unsync());
        }
        let alive = Arc::clone(state.watched.entry(name.clone()).or_default());
        let since =
            query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")).unwrap().parse::<u64>().unwrap();
        let (this, changes) = (self.clone(), self.changed.subscribe());
        let events = futures::stream::unfold((since, changes, alive), move |(since, mut changes, alive)| {
            let (this, name) = (this.clone(), name.clone());
            async move {
                loop {
                    let secret = this.state.lock().unwrap().secrets.get(&name).cloned();
                    let version =
                        secret.as_ref().and_then(|secret| secret.metadata.resource_version.as_ref()?.parse().ok());
                    if let (Some(secret), Some(version)) = (secret, version.filter(|version| *version > since)) {
                        let event = format!("{}\n", json!({ "type": "MODIFIED", "object": secret }));
                        return Some((Ok(Frame::data(Bytes::from(event))), (version, changes, alive)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Response::new(StreamBody::new(events).boxed_unsync())
    }
}

fn as_secret((chain, key): Pem) -> Secret {
    let entry = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    Secret { data: Some([entry("tls.crt", chain), entry("tls.key", key)].into()), ..Secret::default() }
}

/// The Secret holds this from now on.
fn secret(door: &Door, name: &str, pem: Pem) {
    door.feed.secret(SecretName::new("ns", name), Some(as_secret(pem)));
}

/// A client on a TLS connection that stays open.
struct Client {
    version: Version,
    sender: Sender,
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

async fn handshake(to: SocketAddr, name: &str, trusted: Pem, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.0.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(to).await?;
    TlsConnector::from(Arc::new(client)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

async fn connect(to: SocketAddr, name: &str, trusted: Pem, alpn: &[&str]) -> std::io::Result<Client> {
    let stream = handshake(to, name, trusted, alpn).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let io = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        return Ok(Client { version: Version::HTTP_2, sender: Sender::Http2(sender) });
    }
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Ok(Client { version: Version::HTTP_11, sender: Sender::Http1(sender) })
}

/// Connects as soon as the listener shows this certificate.
async fn connect_once_known(door: &Door, name: &str, trusted: Pem) -> Client {
    let at = door.tls.unwrap();
    let connecting = async {
        loop {
            match connect(at, name, trusted, &["h2", "http/1.1"]).await {
                Ok(client) => return client,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, connecting).await.expect("the certificate is shown")
}

/// The alert that ends a handshake for this name.
async fn refused(at: SocketAddr, name: &str) -> AlertDescription {
    let error = handshake(at, name, FIRST, &["h2"]).await.expect_err("refused");
    match error.into_inner().and_then(|inner| inner.downcast::<TlsError>().ok()).as_deref() {
        Some(TlsError::AlertReceived(alert)) => *alert,
        other => panic!("no alert: {other:?}"),
    }
}

impl Client {
    fn request(&self, host: &str, uri: &str) -> http::request::Builder {
        match self.version {
            Version::HTTP_2 => Request::get(format!("https://{host}{uri}")).version(Version::HTTP_2),
            _ => Request::get(uri).header("host", host),
        }
    }

    async fn get(&mut self, host: &str, uri: &str) -> Answer {
        let request = self.request(host, uri);
        self.send(request).await
    }

    async fn send(&mut self, request: http::request::Builder) -> Answer {
        let request = request.body(Full::default()).unwrap();
        let exchange = async {
            let response = match &mut self.sender {
                Sender::Http1(sender) => sender.send_request(request).await.unwrap(),
                Sender::Http2(sender) => sender.send_request(request).await.unwrap(),
            };
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }
}
