//! Lists and watches over HTTP/1.1, from memory.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt::Write,
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Instant,
};

use anyhow::bail;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

use crate::head::Head;

/// Objects of one page of a list, if the client asks for no fewer.
const PAGE: usize = 500;

/// One kind, by the path of its list.
#[derive(Default)]
struct Kind {
    /// JSON by name.
    objects: BTreeMap<String, Rc<str>>,
    /// What has happened: resource version, the word for it, and the object.
    log: Vec<(u64, &'static str, Rc<str>)>,
}

#[derive(Default)]
struct Store {
    kinds: HashMap<String, Kind>,
    version: u64,
}

#[derive(Default)]
struct Shared {
    store: RefCell<Store>,
    changed: Notify,
    /// Paths of writes, with the time of each, until somebody takes them.
    writes: RefCell<Vec<(Instant, String)>>,
    wrote: Notify,
}

/// Serves on this thread until dropped.
pub(super) struct ApiServer {
    pub(super) address: SocketAddr,
    shared: Rc<Shared>,
    serving: AbortHandle,
}

impl ApiServer {
    pub(super) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let shared = Rc::<Shared>::default();
        let ours = Rc::clone(&shared);
        let serving = tokio::task::spawn_local(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Rc::clone(&ours);
                // A client that goes away in the middle is no news.
                connections.spawn_local(async move { serve(stream, &shared).await.ok() });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, shared, serving: serving.abort_handle() })
    }

    /// Writes since they were taken last.
    pub(super) fn take_writes(&self) -> Vec<(Instant, String)> {
        std::mem::take(&mut self.shared.writes.borrow_mut())
    }

    /// Waits for the next write.
    pub(super) async fn written(&self) {
        let wrote = self.shared.wrote.notified();
        if self.shared.writes.borrow().is_empty() {
            wrote.await;
        }
    }

    /// Creates or replaces an object; watches hear of it.
    pub(super) fn apply(&self, list: &str, name: &str, mut object: Value) {
        let mut store = self.shared.store.borrow_mut();
        store.version += 1;
        let version = store.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let text: Rc<str> = object.to_string().into();
        let kind = store.kinds.entry(list.to_owned()).or_default();
        let known = kind.objects.insert(name.to_owned(), Rc::clone(&text)).is_some();
        let event = if known { "MODIFIED" } else { "ADDED" };
        kind.log.push((version, event, text));
        drop(store);
        self.shared.changed.notify_waiters();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    path: &'a str,
    query: HashMap<&'a str, &'a str>,
}

impl<'a> Asked<'a> {
    fn parse(target: &'a str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { path, query: query.split('&').filter_map(|pair| pair.split_once('=')).collect() }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.query.get(name)?.parse().ok()
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let Some(head) = Head::parse(&bytes)? else {
            if bytes.len() > 64 * 1024 {
                bail!("a request head without an end");
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let target = String::from_utf8_lossy(head.path()).into_owned();
        let length = head.length + head.content_length;
        let writes: [&[u8]; 3] = [b"PATCH ", b"POST ", b"PUT "];
        if writes.iter().any(|method| head.first_line.starts_with(method)) {
            if bytes.len() < length {
                if stream.read_buf(&mut bytes).await? == 0 {
                    return Ok(());
                }
                continue;
            }
            let body: Value = serde_json::from_slice(&bytes[head.length..length])?;
            bytes.drain(..length);
            let body = write(shared, &target, &body);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            continue;
        }
        bytes.drain(..length.min(bytes.len()));
        let asked = Asked::parse(&target);
        if asked.query.get("watch").is_some_and(|value| matches!(*value, "true" | "1")) {
            return watch(stream, shared, &asked).await;
        }
        let body = answer(&shared.store.borrow(), &asked);
        // Leases are not kept: whoever looks for one makes it anew.
        let status = if asked.path.contains("/leases/") { "404 Not Found" } else { "200 OK" };
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
    }
}

/// A merge patch of one level of an object or of its status, a scale, or a new object: as much as an autoscaler writes.
fn write(shared: &Shared, target: &str, body: &Value) -> String {
    let path = target.split('?').next().unwrap_or_default();
    if !path.contains("/leases") {
        shared.writes.borrow_mut().push((Instant::now(), path.to_owned()));
        shared.wrote.notify_waiters();
    }
    let mut store = shared.store.borrow_mut();
    store.version += 1;
    let version = store.version;
    // Lists here are of all namespaces.
    let path = match path.split_once("/namespaces/").and_then(|(api, rest)| Some((api, rest.split_once('/')?.1))) {
        Some((api, rest)) => format!("{api}/{rest}"),
        None => path.to_owned(),
    };
    if let Some(path) = path.strip_suffix("/scale") {
        return json!({ "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": { "name": path.rsplit('/').next(), "namespace": "default", "resourceVersion": version.to_string() },
            "spec": { "replicas": body[0]["value"] } })
        .to_string();
    }
    let path = path.trim_end_matches("/status");
    let found = path.rsplit_once('/').and_then(|(list, name)| {
        let text = store.kinds.get(list)?.objects.get(name)?;
        Some((list.to_owned(), name.to_owned(), serde_json::from_str::<Value>(text).ok()?))
    });
    let Some((list, name, mut object)) = found else {
        return body.to_string();
    };
    for (field, value) in body.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    let text: Rc<str> = object.to_string().into();
    if let Some(kind) = store.kinds.get_mut(&list) {
        kind.objects.insert(name, Rc::clone(&text));
        kind.log.push((version, "MODIFIED", Rc::clone(&text)));
    }
    drop(store);
    shared.changed.notify_waiters();
    text.to_string()
}

/// A page of a list, or one object; a ConfigMap that it knows nothing of is empty; the server's version.
fn answer(store: &Store, asked: &Asked<'_>) -> String {
    if asked.path == "/version" {
        return json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "" })
        .to_string();
    }
    if asked.path.contains("/leases/") {
        return json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "none",
            "code": 404 })
        .to_string();
    }
    let one = asked.path.rsplit_once('/').and_then(|(list, name)| store.kinds.get(list)?.objects.get(name));
    if let Some(object) = one {
        return object.to_string();
    }
    if let Some((_, name)) = asked.path.split_once("/configmaps/") {
        return json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": {} })
            .to_string();
    }
    let limit = asked.number("limit").map_or(PAGE, |limit| limit as usize).clamp(1, PAGE);
    let from = asked.query.get("continue").copied().unwrap_or_default();
    let mut items = String::new();
    let mut next = "";
    if let Some(kind) = store.kinds.get(asked.path) {
        for (nth, (name, object)) in kind.objects.range(from.to_owned()..).enumerate() {
            if nth == limit {
                next = name;
                break;
            }
            let _ = write!(items, "{}{object}", if nth == 0 { "" } else { "," });
        }
    }
    format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"metadata\":{{\"resourceVersion\":\"{}\",\"continue\":\"{next}\"}},\
         \"items\":[{items}]}}",
        store.version
    )
}

/// Says what happens, one chunk an object, until the client goes.
async fn watch(mut stream: TcpStream, shared: &Shared, asked: &Asked<'_>) -> anyhow::Result<()> {
    let mut seen = asked.number("resourceVersion").unwrap_or(0);
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    let mut gone = [0];
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let mut chunk = String::new();
        if let Some(kind) = shared.store.borrow().kinds.get(asked.path) {
            let new = &kind.log[kind.log.partition_point(|(version, ..)| *version <= seen)..];
            for (version, event, object) in new {
                let line = format!("{{\"type\":\"{event}\",\"object\":{object}}}\n");
                let _ = write!(chunk, "{:x}\r\n{line}\r\n", line.len());
                seen = *version;
            }
        }
        if !chunk.is_empty() {
            stream.write_all(chunk.as_bytes()).await?;
            continue;
        }
        tokio::select! {
            () = changed => {}
            read = stream.read(&mut gone) => if read? == 0 { return Ok(()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(names: &[&str]) -> Store {
        let objects = names.iter().map(|name| ((*name).to_owned(), format!("{{\"n\":\"{name}\"}}").into())).collect();
        let kind = Kind { objects, log: Vec::new() };
        Store { kinds: HashMap::from([("/k".to_owned(), kind)]), version: 7 }
    }

    #[test]
    fn a_long_list_comes_in_pages() {
        let store = store(&["a", "b", "c"]);
        let page = |target: &str| serde_json::from_str::<Value>(&answer(&store, &Asked::parse(target))).unwrap();
        let first = page("/k?limit=2");
        assert_eq!(first["items"], json!([{ "n": "a" }, { "n": "b" }]));
        assert_eq!(first["metadata"], json!({ "resourceVersion": "7", "continue": "c" }));
        let second = page("/k?limit=2&continue=c");
        assert_eq!((&second["items"], &second["metadata"]["continue"]), (&json!([{ "n": "c" }]), &json!("")));
        assert_eq!(page("/k/b"), json!({ "n": "b" }));
    }

    #[test]
    fn what_it_was_not_told_about_is_empty() {
        let list: Value = serde_json::from_str(&answer(&Store::default(), &Asked::parse("/api/v1/secrets"))).unwrap();
        assert_eq!(list["items"], json!([]));
    }

    #[tokio::test(flavor = "local")]
    async fn a_watch_hears_what_came_after_its_list() {
        let server = ApiServer::start().unwrap();
        server.apply("/k", "a", json!({ "metadata": { "name": "a" } }));
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /k?watch=true&resourceVersion=1 HTTP/1.1\r\n\r\n").await.unwrap();
        server.apply("/k", "a", json!({ "metadata": { "name": "a" } }));
        let mut heard = Vec::new();
        while !heard.ends_with(b"}\n\r\n") {
            assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
        }
        let heard = String::from_utf8(heard).unwrap();
        assert_eq!(heard.matches("MODIFIED").count(), 1, "{heard}");
        assert!(!heard.contains("ADDED"), "{heard}");
    }
}
