use serde_json::json;

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::*;
use crate::certificates::Certificates;
use crate::feed::Change;
use crate::revision::{RevisionKey, Settings};
use crate::table::{Names, Routes};
use api::labels::networking::DORMOUSE_INGRESS_CLASS as CLASS;
use api::networking::Ingress;
use http::HeaderMap;

fn revisions(names: &[&str]) -> Revisions {
    let revisions = Revisions::default();
    for name in names {
        let object = json!({ "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": { "name": name, "namespace": "ns" }, "spec": { "containers": [{ "image": "i" }] } });
        let settings = Settings::of(&serde_json::from_value(object).unwrap());
        revisions.apply(&RevisionKey::new("ns", name), settings, &crate::throttle::Lines::each(10));
    }
    revisions
}

fn parts(host: &str) -> http::request::Parts {
    http::Request::get("/").header(HOST, host).body(()).unwrap().into_parts().0
}

fn told(fault: &Fault) -> (u16, &'static str, String) {
    (fault.status().as_u16(), fault.reason(), fault.body().into_owned())
}

#[test]
fn t62_identity_by_headers_or_service_host() {
    let known = revisions(&["rev"]);
    let find = |headers: &[(&'static str, &'static str)], host: &str| {
        let mut request = parts(host);
        request.headers.extend(headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))));
        by_identity(&request.uri, (&request.headers).into(), "cluster.local", &known)
            .map(|found| found.revision.key.to_string())
    };
    let both = [("knative-serving-namespace", "ns"), ("knative-serving-revision", "rev")];
    assert_eq!(find(&both, "whatever").unwrap(), "ns/rev");
    assert_eq!(find(&[], "rev.ns.svc.cluster.local").unwrap(), "ns/rev");
    assert_eq!(find(&[], "rev.ns.svc.cluster.local:80").unwrap(), "ns/rev");
    // One header alone does not count.
    assert_eq!(find(&both[..1], "rev.ns.svc.cluster.local").unwrap(), "ns/rev");
    for host in ["rev.ns", "rev.ns.svc", "rev.ns.svc.other.domain", "rev.ns.pod.cluster.local", ""] {
        assert_eq!(told(&find(&[], host).unwrap_err()).0, 404, "{host}");
    }
    let other = [("knative-serving-namespace", "ns"), ("knative-serving-revision", "other")];
    let text = "Error getting active endpoint: revision.serving.knative.dev \"other\" not found\n";
    assert_eq!(told(&find(&other, "x").unwrap_err()), (404, "unknown-revision", text.to_owned()));
}

/// A gateway with one Ingress of these rules; the revision `ns/rev` exists.
struct Gateway {
    table: Arc<Table>,
    _revisions: Revisions,
}

impl Gateway {
    fn new(http_option: &str, rules: &serde_json::Value) -> Self {
        let object = json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": { "name": "i", "namespace": "ns", "annotations": { "networking.knative.dev/ingress.class": CLASS } },
            "spec": { "rules": rules, "httpOption": http_option },
        });
        let ingress: Ingress = serde_json::from_value(object).unwrap();
        let (known, mut routes, table) = (revisions(&["rev"]), Routes::new(CLASS), ArcSwap::<Table>::default());
        assert_eq!(
            routes
                .change(Change::Applied(ingress), Names { revisions: &known, certificates: &Certificates::default() }),
            []
        );
        routes.publish(&table);
        Self { table: table.load_full(), _revisions: known }
    }

    fn find(&self, entrance: Entrance, parts: &http::request::Parts) -> Result<Destination, Nowhere> {
        by_table(&self.table, entrance, &Memory::default(), &parts.uri, (&parts.headers).into(), |_| 0)
    }

    fn fault(&self, entrance: Entrance, host: &str) -> (u16, &'static str, String) {
        match self.find(entrance, &parts(host)) {
            Err(Nowhere::Fault(fault)) => told(&fault),
            other => panic!("{host}: {other:?}"),
        }
    }
}

fn rule(host: &str, visibility: &str, more: &serde_json::Value) -> serde_json::Value {
    let mut path = json!({ "splits": [{ "serviceNamespace": "ns", "serviceName": "rev", "servicePort": 80 }] });
    path.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "hosts": [host], "visibility": visibility, "http": { "paths": [path] } })
}

const INNER: &str = "in.ns.svc.cluster.local";

#[test]
fn each_entrance_serves_its_hosts_and_says_what_it_does_not() {
    let gone = json!({ "splits": [{ "serviceNamespace": "ns", "serviceName": "gone", "servicePort": 80 }] });
    let gateway = Gateway::new(
        "",
        &json!([
            rule("out.example.com", "ExternalIP", &json!({})),
            rule(INNER, "ClusterLocal", &json!({})),
            rule("gone.example.com", "ExternalIP", &gone),
        ]),
    );
    for entrance in [Entrance::External, Entrance::Local, Entrance::Https] {
        let found = gateway.find(entrance, &parts("out.example.com:80")).unwrap();
        assert_eq!(found.revision.key.to_string(), "ns/rev");
        assert_eq!(gateway.fault(entrance, "gone.example.com").1, "unknown-revision");
        let (status, reason, body) = gateway.fault(entrance, "nobody.example.com");
        assert_eq!((status, reason), (404, "unknown-host"));
        assert!(body.contains("nobody.example.com") && body.contains("kubectl get ksvc"), "{body}");
    }
    assert!(gateway.find(Entrance::Local, &parts(INNER)).is_ok());
    for entrance in [Entrance::External, Entrance::Https] {
        assert_eq!(gateway.fault(entrance, INNER).1, "unknown-host");
    }
}

/// The Host that the app sees instead of the client's.
fn shown(destination: &Destination) -> Option<&HeaderValue> {
    match &destination.way {
        Way::Rewritten { host, .. } => Some(host),
        Way::Named | Way::Split(_) => None,
    }
}

#[test]
fn a_mapped_domain_leads_to_the_host_it_names() {
    let mapped = json!({ "rewriteHost": INNER, "appendHeaders": { "X-Path": "outer", "X-Both": "outer" }, "splits": [
        { "serviceNamespace": "ns", "serviceName": "in", "servicePort": 80,
          "appendHeaders": { "K-Original-Host": "mapped.example.com", "X-Path": "split" } }] });
    let to = |host: &str| json!({ "rewriteHost": host });
    let gateway = Gateway::new(
        "",
        &json!([
            rule(INNER, "ClusterLocal", &json!({ "appendHeaders": { "X-Both": "inner" } })),
            rule("mapped.example.com", "ExternalIP", &mapped),
            rule("self.example.com", "ExternalIP", &to("self.example.com")),
            rule("elsewhere.example.com", "ExternalIP", &to("not.ours")),
            rule("ping.example.com", "ExternalIP", &to("pong.example.com")),
            rule("pong.example.com", "ExternalIP", &to("ping.example.com")),
        ]),
    );
    let found = gateway.find(Entrance::External, &parts("mapped.example.com")).unwrap();
    assert_eq!(found.revision.key.to_string(), "ns/rev");
    assert_eq!(shown(&found).unwrap(), INNER);
    let mut written = HeaderMap::new();
    for (name, value) in found.way.set_headers() {
        written.insert(name, value.clone());
    }
    // Outside before inside, and a split before its path: the later one wins.
    assert_eq!(written["k-original-host"], "mapped.example.com");
    assert_eq!((&written["x-path"], &written["x-both"]), (&"outer".parse().unwrap(), &"inner".parse().unwrap()));
    // A host that is not ours: the app sees it, the backend is the path's own.
    for host in ["self.example.com", "elsewhere.example.com"] {
        let found = gateway.find(Entrance::External, &parts(host)).unwrap();
        assert!(shown(&found).is_some() && &*found.revision.key.name == "rev", "{host}");
    }
    assert_eq!(gateway.fault(Entrance::External, "ping.example.com").1, "rewrite-loop");
}

#[test]
fn a_redirected_host_is_sent_to_https_with_path_and_query() {
    let rules = json!([rule("*.example.com", "ExternalIP", &json!({})), rule(INNER, "ClusterLocal", &json!({}))]);
    let gateway = Gateway::new("Redirected", &rules);
    let ask = |uri: &str, host: &str, port: u16| {
        let parts = http::Request::get(uri).header(HOST, host).body(()).unwrap().into_parts().0;
        assert!(matches!(gateway.find(Entrance::External, &parts), Err(Nowhere::Https)), "{uri}");
        https_location(&parts.uri, (&parts.headers).into(), None, port)
    };
    for (uri, host, port, location) in [
        ("/", "a.example.com", 8443, "https://a.example.com:8443/"),
        ("/x/y?z=1&a=%20", "A.example.com:8080", 443, "https://a.example.com/x/y?z=1&a=%20"),
        ("http://b.example.com/x", "other", 443, "https://b.example.com/x"),
    ] {
        assert_eq!(ask(uri, host, port).unwrap(), location);
    }
    let raw = RawQuery(bytes::Bytes::from_static(b"<raw>"));
    let headers = parts("a.example.com").headers;
    let to = https_location(&"/x?".parse().unwrap(), (&headers).into(), Some(&raw), 443).unwrap();
    assert_eq!(to, "https://a.example.com/x?<raw>");
    // Nobody is sent where a host only begins like one of ours.
    assert!(matches!(ask("/", "evil.com#.example.com", 443), Err(Fault::BadRequest(_))));
    assert!(gateway.find(Entrance::Https, &parts("a.example.com")).is_ok());
    assert!(gateway.find(Entrance::Local, &parts(INNER)).is_ok());
    assert!(matches!(gateway.find(Entrance::Local, &parts("a.example.com")), Err(Nowhere::Https)));
}

#[test]
fn an_authority_in_the_target_wins_over_host() {
    let parts = http::Request::get("http://a.example.com/x").header(HOST, "b").body(()).unwrap().into_parts().0;
    assert_eq!(host(&parts.uri, (&parts.headers).into()), b"a.example.com");
}

#[test]
fn a_connection_remembers_its_host_until_the_table_changes() {
    let revisions = revisions(&["rev"]);
    let mut routes = Routes::new(CLASS);
    let shared = ArcSwap::<Table>::default();
    let mut publish = |host: &str| {
        let ingress: Ingress = serde_json::from_value(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": { "name": "i", "namespace": "ns",
                "annotations": { "networking.knative.dev/ingress.class": CLASS } },
            "spec": { "rules": [{ "hosts": [host], "visibility": "ExternalIP", "http": { "paths": [{ "splits": [
                { "serviceNamespace": "ns", "serviceName": "rev", "servicePort": 80, "percent": 100 }] }] } }] },
        }))
        .unwrap();
        let certificates = Certificates::default();
        routes.change(Change::Applied(ingress), Names { revisions: &revisions, certificates: &certificates });
        routes.publish(&shared);
    };
    let memory = Memory::default();
    let ask = |host: &str| {
        let parts = parts(host);
        by_table(&shared.load(), Entrance::External, &memory, &parts.uri, (&parts.headers).into(), |_| 0).is_ok()
    };
    publish("a.example.com");
    assert!(ask("a.example.com") && ask("a.example.com") && ask("A.example.com:80"));
    assert!(!ask("b.example.com"), "another host is looked up");
    assert!(ask("a.example.com"));
    publish("b.example.com");
    assert!(!ask("a.example.com") && ask("b.example.com"), "another table too");
}

/// Two hosts may share a route, and a request may name none at all: lines are of the host that was asked for last.
#[test]
fn a_connection_remembers_nothing_of_a_request_without_a_host() {
    let gateway = Gateway::new("", &json!([rule("*", "ExternalIP", &json!({}))]));
    let memory = Memory::default();
    let lines_for = |headers: &HeaderMap, uri: &Uri| {
        let found = by_table(&gateway.table, Entrance::External, &memory, uri, headers.into(), |_| 0).unwrap();
        let Way::Split(split) = &found.way else { panic!("{found:?}") };
        let mut host = None;
        let make = |remembered: &HeaderValue| {
            host = Some(remembered.clone());
            proxy::Added::of(&HeaderMap::new(), true)
        };
        let had_lines = memory.lines(split, proxy::headers::Present::default(), make).is_some();
        (had_lines, host)
    };
    for name in ["a.example.com", "b.example.com"] {
        let asked = parts(name);
        assert_eq!(lines_for(&asked.headers, &asked.uri), (true, Some(name.parse().unwrap())));
        assert_eq!(lines_for(&asked.headers, &asked.uri), (true, None), "put together once");
    }
    // HTTP/1.0 knows no Host.
    let (none, root) = (HeaderMap::new(), Uri::from_static("/"));
    assert_eq!(lines_for(&none, &root), (false, None), "not those of the request before");
}
