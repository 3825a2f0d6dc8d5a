//! The server itself: configuration, socket, and from a request to its handler.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::errors::ApiError;
use super::gc::{self, Notice};
use super::handlers::{self, Call, Reply, Shape, access, delete, log, read, refuse, scale, watch, write};
use super::persist::{Persist, PersistError};
use super::registry::{Convert, Registry, Resource};
use super::request::{Options, ResourcePath};
use super::store::{Change, Expect, ObjectKey, Store, Stored};
use super::{builtin, crd, discovery, openapi};

/// Largest request body.
pub(crate) const MAX_BODY: usize = 3 << 20;
/// Most connections at once.
const MAX_CONNECTIONS: usize = 2048;
/// How long a client may take to send a request's head; it also ends connections that are idle this long, so it is
/// long: clients keep connections open between events.
const HEAD_TIMEOUT: Duration = Duration::from_mins(10);
/// How long open requests may take to end on stopping.
const DRAIN: Duration = Duration::from_secs(2);
/// Who every client is: loopback is the only credential.
pub(crate) const USER: &str = "kubernetes-admin";
/// Namespaces that exist from the start.
const NAMESPACES: [&str; 3] = ["default", "kube-system", "knative-serving"];

/// What the server needs.
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listening beyond loopback hands the whole API to the network, so it must be asked for.
    pub allow_non_loopback: bool,
    /// Where objects are kept.
    pub data_dir: PathBuf,
    /// Kinds to serve from the start; they replace older versions of themselves in `data_dir`.
    pub crds: Box<dyn Iterator<Item = CustomResourceDefinition> + Send>,
    /// Defaults and checks.
    pub admission: Arc<dyn Admission>,
    /// The directory below which [`crate::logs`] keeps the logs of pods.
    pub pod_logs: PathBuf,
}

impl Config {
    /// A free port of loopback, our kinds, and all that is kept in one folder.
    pub fn new(data_dir: PathBuf, admission: Arc<dyn Admission>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            allow_non_loopback: false,
            pod_logs: data_dir.clone(),
            data_dir,
            crds: Box::new(api::crds::all()),
            admission,
        }
    }
}

/// Why the server cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not loopback.
    #[error("refusing to listen on {0}: the API server has no authentication; use a loopback address")]
    NotLoopback(SocketAddr),
    /// The socket cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] PersistError),
    /// A CRD given at the start cannot be stored.
    #[error("cannot store CustomResourceDefinition {name:?}: {why}")]
    Definition {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
}

/// The server's state, shared by all connections.
pub(crate) struct Server {
    pub(super) store: Store,
    pub(super) registry: Registry,
    pub(super) admission: Arc<dyn Admission>,
    convert: Convert,
    pub(super) pod_logs: PathBuf,
    pub(super) stopping: CancellationToken,
    notices: mpsc::UnboundedSender<Notice>,
    address: SocketAddr,
}

/// A server that has its socket and its data.
pub struct ApiServer {
    server: Arc<Server>,
    listener: TcpListener,
    notices: mpsc::UnboundedReceiver<Notice>,
}

impl ApiServer {
    /// Opens the data, takes the socket, defines the kinds given.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        if !config.listen.ip().is_loopback() && !config.allow_non_loopback {
            return Err(Error::NotLoopback(config.listen));
        }
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| Error::Listen { address: config.listen, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?;
        let (persist, loaded) = Persist::open(&config.data_dir)?;
        let registry = Registry::new(builtin::resources());
        let convert = config.admission.convert();
        for record in loaded.records.iter().filter(|r| r.collection == "apiextensions.k8s.io/customresourcedefinitions")
        {
            if let Ok(definition) = serde_json::from_slice::<Value>(&record.json) {
                define(&registry, &definition, convert);
            }
        }
        // Kept as text until they are stored, one in memory as a tree at a time: the trees are many times larger.
        let mut given = Vec::new();
        for definition in config.crds {
            let name = definition.metadata.name.clone().unwrap_or_default();
            let wrong = |error: serde_json::Error| Error::Definition { name: name.clone(), why: error.to_string() };
            let mut value = serde_json::to_value(&definition).map_err(wrong)?;
            drop(definition);
            value["apiVersion"] = json!("apiextensions.k8s.io/v1");
            value["kind"] = json!("CustomResourceDefinition");
            define(&registry, &value, convert);
            let text = serde_json::to_vec(&value).map_err(wrong)?;
            given.push((name, text));
        }
        let (sender, notices) = mpsc::unbounded_channel();
        let table = registry.table();
        let store =
            Store::new(persist, loaded.records, loaded.resource_version, |name| table.by_collection(name).cloned());
        let server = Arc::new(Server {
            store,
            registry,
            admission: config.admission,
            convert,
            pod_logs: config.pod_logs,
            stopping: CancellationToken::new(),
            notices: sender,
            address,
        });
        for namespace in NAMESPACES {
            server.ensure_namespace(namespace);
        }
        for (name, text) in given {
            let definition = serde_json::from_slice(&text)
                .map_err(|error| Error::Definition { name: name.clone(), why: error.to_string() })?;
            server.ensure_definition(&name, definition).map_err(|why| Error::Definition { name: name.clone(), why })?;
        }
        gc::resume(&server);
        Ok(Self { server, listener, notices })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.address
    }

    /// Serves until cancelled; then ends watches, lets requests finish, and writes everything to disk.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { server, listener, notices } = self;
        let collector = tokio::spawn(gc::run(server.clone(), notices));
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1024);
        loop {
            let (stream, _) = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors or the like: give others the time to close some.
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                },
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(limit = MAX_CONNECTIONS, "too many connections; one was closed");
                continue;
            };
            let _ = stream.set_nodelay(true);
            let server = server.clone();
            let service = service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                // A client that goes away in the middle is its own affair.
                let _ = connection.await;
                drop(place);
            });
        }
        server.stopping.cancel();
        drop(listener);
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
        let _ = collector.await;
        let closing = server.clone();
        let _ = tokio::task::spawn_blocking(move || closing.store.close()).await;
        Ok(())
    }
}

/// Serves the kinds of a definition.
fn define(registry: &Registry, definition: &Value, convert: Convert) {
    let spec = &definition["spec"];
    let collection = format!(
        "{}/{}",
        spec["group"].as_str().unwrap_or_default(),
        spec["names"]["plural"].as_str().unwrap_or_default()
    );
    registry.replace(&collection, crd::resources(definition, convert));
}

impl Server {
    /// The kind in the version in which its objects are stored.
    pub(super) fn stored(&self, resource: &Arc<Resource>) -> Arc<Resource> {
        if resource.api_version() == resource.storage_api_version {
            return resource.clone();
        }
        self.registry.table().by_collection(&resource.collection).unwrap_or(resource).clone()
    }

    /// Tells the garbage collector.
    pub(super) fn tell(&self, notice: Notice) {
        let _ = self.notices.send(notice);
    }

    /// After an object was written: a CRD's kinds are served, an object without a living owner is looked at.
    pub(super) fn after_write(&self, resource: &Resource, stored: &Stored) {
        if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
            define(&self.registry, &stored.value(), self.convert);
        }
        if stored.meta.owners.iter().any(|owner| self.store.find_uid(owner).is_none()) {
            self.tell(Notice::Created(resource.collection.clone(), stored.meta.key.clone()));
        }
    }

    /// After an object went: dependents and namespaces are looked at; a CRD's objects go with it.
    pub(super) fn after_removal(self: &Arc<Self>, resource: &Resource, stored: &Stored) {
        self.tell(Notice::Gone(stored.meta.uid.clone(), stored.meta.key.namespace.clone()));
        if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
            let definition = stored.value();
            let spec = &definition["spec"];
            let collection = format!(
                "{}/{}",
                spec["group"].as_str().unwrap_or_default(),
                spec["names"]["plural"].as_str().unwrap_or_default()
            );
            if let Some(resource) = self.registry.table().by_collection(&collection).cloned() {
                let page = self.store.list(&collection, &super::selector::Filter::default(), None, 0);
                for stored in page.items {
                    let _ = delete::remove(self, &resource, &stored.meta.key, &delete::DeleteOptions::default());
                }
            }
            self.registry.replace(&collection, Vec::new());
            self.store.close_watchers(&collection);
        }
    }

    fn ensure_namespace(&self, name: &str) {
        let Some(resource) = self.registry.table().get("", "v1", "namespaces").cloned() else { return };
        let mut namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": now() },
        });
        super::strategy::prepare(&resource, &mut namespace, true);
        // There already: nothing to do.
        let _ = self.store.commit(&resource, &ObjectKey::new("", name), Expect::Absent, Change::Put(namespace));
    }

    fn ensure_definition(&self, name: &str, mut definition: Value) -> Result<(), String> {
        let table = self.registry.table();
        let resource = table
            .get("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .ok_or_else(|| "not served".to_owned())?;
        let key = ObjectKey::new("", name);
        let existing = self.store.get(&resource.collection, &key);
        let stamp = now();
        let expect = if let Some(stored) = &existing {
            let old = stored.value();
            if old["spec"] == definition["spec"] {
                return Ok(());
            }
            definition["metadata"]["uid"] = old["metadata"]["uid"].clone();
            definition["metadata"]["creationTimestamp"] = old["metadata"]["creationTimestamp"].clone();
            definition["metadata"]["generation"] = (old["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
            Expect::Version(stored.resource_version)
        } else {
            definition["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
            definition["metadata"]["creationTimestamp"] = stamp.clone().into();
            definition["metadata"]["generation"] = 1.into();
            Expect::Absent
        };
        definition["status"] = crd::established(&definition, &stamp);
        self.store.commit(resource, &key, expect, Change::Put(definition)).map(drop).map_err(|error| error.to_string())
    }

    /// Answers one request.
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Reply {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return refuse(&ApiError::too_large(MAX_BODY));
            }
            // The client broke off: nobody reads this.
            Err(_) => return refuse(&ApiError::bad_request("the body broke off")),
        };
        match self.route(&parts.method, &parts.uri, &parts.headers, body).await {
            Ok(reply) => reply,
            Err(error) => refuse(&error),
        }
    }

    async fn route(
        self: &Arc<Self>,
        method: &Method,
        uri: &http::Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Reply, ApiError> {
        let accept = text(headers, header::ACCEPT.as_str());
        let Some(path) = ResourcePath::parse(uri.path()) else {
            return self.fixed(method, uri.path(), accept);
        };
        let resource = self
            .registry
            .table()
            .get(&path.group, &path.version, &path.plural)
            .cloned()
            .ok_or_else(ApiError::no_such_path)?;
        let options = Options::parse(uri.query())?;
        let agent = text(headers, header::USER_AGENT.as_str());
        let agent = agent.split('/').next().unwrap_or_default();
        let call = Call {
            resource,
            path,
            options,
            shape: shape(accept)?,
            content_type: text(headers, header::CONTENT_TYPE.as_str()).to_owned(),
            agent: if agent.is_empty() { "unknown".to_owned() } else { agent.to_owned() },
            body,
        };
        handlers::check_scope(self, &call)?;
        self.dispatch(method, &call).await
    }

    async fn dispatch(self: &Arc<Self>, method: &Method, call: &Call) -> Result<Reply, ApiError> {
        let resource = &call.resource;
        if resource.virtual_only {
            return if method == Method::POST { access::review(call) } else { Err(ApiError::method_not_allowed()) };
        }
        match (call.path.subresource.as_deref(), call.path.name.is_some()) {
            (None, false) => match *method {
                Method::GET if call.options.watch => watch::watch(self, call),
                Method::GET => read::list(self, call),
                Method::POST if !resource.namespaced || call.path.namespace.is_some() => write::create(self, call),
                Method::DELETE => delete::delete_collection(self, call),
                _ => Err(ApiError::method_not_allowed()),
            },
            (None, true) => match *method {
                Method::GET if call.options.watch => watch::watch(self, call),
                Method::GET => read::get(self, call),
                Method::PUT => write::update(self, call),
                Method::PATCH => write::patch(self, call),
                Method::DELETE => delete::delete(self, call),
                _ => Err(ApiError::method_not_allowed()),
            },
            (Some("status"), _) if resource.status => match *method {
                Method::GET => read::get(self, call),
                Method::PUT => write::update(self, call),
                Method::PATCH => write::patch(self, call),
                _ => Err(ApiError::method_not_allowed()),
            },
            (Some("scale"), _) => match *method {
                Method::GET => scale::get(self, call),
                Method::PUT => scale::write(self, call, false),
                Method::PATCH => scale::write(self, call, true),
                _ => Err(ApiError::method_not_allowed()),
            },
            (Some("log"), _) if resource.is("", "pods") && method == Method::GET => log::read(self, call).await,
            _ => Err(ApiError::no_such_path()),
        }
    }

    /// Paths that are not about objects.
    fn fixed(&self, method: &Method, path: &str, accept: &str) -> Result<Reply, ApiError> {
        if method != Method::GET {
            return Err(ApiError::method_not_allowed());
        }
        match path.trim_end_matches('/') {
            "/healthz" | "/livez" | "/readyz" => match self.store.health() {
                Ok(()) => Ok(plain(200, "ok")),
                Err(why) => Ok(plain(500, &format!("[-]storage failed: {why}\n"))),
            },
            "/version" => Ok(handlers::reply(200, &discovery::version())),
            "" => Ok(handlers::reply(200, &discovery::paths(&self.registry.table()))),
            path if path.starts_with("/openapi") => openapi::answer(&self.registry.table(), &self.store, path, accept),
            path => discovery::answer(&self.registry.table(), path, accept, self.address),
        }
    }
}

fn plain(code: u16, text: &str) -> Reply {
    let mut reply = handlers::reply_bytes(code, text.to_owned().into_bytes());
    reply.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The first shape in `Accept` that can be given.
fn shape(accept: &str) -> Result<Shape, ApiError> {
    for offer in accept.split(',').map(str::trim) {
        let mut parts = offer.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let wanted = parts.find_map(|part| part.strip_prefix("as="));
        if matches!(media, "" | "*/*" | "application/*" | "application/json") {
            match wanted {
                None => return Ok(Shape::Object),
                Some("Table") => return Ok(Shape::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Shape::Metadata),
                Some(_) => {}
            }
        }
    }
    Err(ApiError::new(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io",
    ))
}

/// Now, as timestamps of metadata are written.
pub(crate) fn now() -> String {
    seconds_from_now(0)
}

/// A moment some seconds ahead.
pub(crate) fn seconds_from_now(seconds: i64) -> String {
    let now = jiff::Timestamp::now();
    let then = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(now);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_accept() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(shape(table).unwrap(), Shape::Table);
        assert_eq!(shape("application/vnd.kubernetes.protobuf,application/json").unwrap(), Shape::Object);
        assert_eq!(shape("").unwrap(), Shape::Object);
        assert_eq!(shape("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
    }
}
