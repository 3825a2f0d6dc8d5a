//! Certificates of a Route's hosts: which there should be, and what follows from how they are (upstream
//! `externalDomainTLS`, `clusterLocalDomainTLS`).

use std::{collections::BTreeMap, sync::Arc};

use api::{
    labels::{networking, serving as labels},
    networking::{
        Certificate, Http01Challenge, HttpIngressPath, Ingress, IngressBackendSplit, IngressTls, VISIBILITY_EXTERNAL,
    },
    serving::{Route, RouteStatus},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::{
    domains::{self, InvalidDomain},
    status,
};
use crate::{
    certificate::{
        self,
        desired::{Wish, covers, is_switched_off, route_certificate_name},
        status::{RENEWING, Standing, Verdict, standing, told},
    },
    context::{Context, ReconcileError},
    engine::world::wildcard_index,
    settings::Settings,
};

/// What an Ingress is told of certificates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tls {
    /// Those that are there.
    pub tls: Vec<IngressTls>,
    /// What is to be served for those that are not.
    pub challenges: Vec<Http01Challenge>,
}

/// A Certificate for one tag of a Route.
struct Wanted {
    certificate: Certificate,
    /// Hosts inside the cluster.
    inside: bool,
}

/// Sees to the Certificates of a Route's tags, and says in the status how they are.
pub(super) async fn reconcile(
    context: &Context,
    settings: &Settings,
    route: &Route,
    cluster_local: &BTreeMap<String, bool>,
    status: &mut RouteStatus,
    now: Timestamp,
) -> Result<Tls, ReconcileError> {
    let network = &settings.network;
    let external = network.external_domain_tls && !is_switched_off(route.annotations());
    if !external {
        status::tls_not_enabled(status, "external-domain-tls is not enabled", now);
    }
    // Hosts were checked when the Ingress was made of them.
    let wanted = wanted(route, external, cluster_local, settings).unwrap_or_default();
    if wanted.is_empty() {
        if external && !network.cluster_local_domain_tls {
            status::tls_not_enabled(status, "TLS is not enabled for cluster-local", now);
        }
        return Ok(Tls::default());
    }
    let (mut tls, mut worst) = (Tls::default(), None);
    let domain = settings.domain.lookup(route.labels());
    let namespace = route.namespace().unwrap_or_default();
    let wild = context.world.certificates.indexed(&wildcard_index(&namespace, &domain));
    for one in &wanted {
        let hosts = &one.certificate.spec.dns_names;
        let covering = wild.iter().find(|wild| !one.inside && covers(wild, hosts)).cloned();
        let certificate = match covering {
            Some(certificate) => certificate,
            None => own(context, route, one, status, now).await?,
        };
        let verdict = take_over(&mut tls, status, &certificate, one, settings);
        if worst.as_ref().is_none_or(|(worst, _)| verdict > *worst) {
            worst = Some((verdict, told(&certificate)));
        }
    }
    if let Some((verdict, (name, reason))) = worst {
        status::certificate(status, verdict, &name, &reason, now);
    }
    delete_orphans(context, route, &wanted).await?;
    tls.challenges.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(tls)
}

async fn own(
    context: &Context,
    route: &Route,
    wanted: &Wanted,
    status: &mut RouteStatus,
    now: Timestamp,
) -> Result<Arc<Certificate>, ReconcileError> {
    let name = wanted.certificate.name_any();
    match certificate::ensure(context, route, wanted.certificate.clone()).await {
        Ok(Some(certificate)) => Ok(certificate),
        Ok(None) => {
            status::certificate_not_owned(status, &name, now);
            Err(ReconcileError::NotOwned(format!("route {} does not own Certificate {name}", route.name_any())))
        }
        Err(error) => {
            status::certificate(status, Verdict::Failed, &name, "", now);
            Err(error)
        }
    }
}

fn wanted(
    route: &Route,
    external: bool,
    cluster_local: &BTreeMap<String, bool>,
    settings: &Settings,
) -> Result<Vec<Wanted>, InvalidDomain> {
    let (uid, class) = (route.uid().unwrap_or_default(), settings.network.certificate_class.as_str());
    let mut all = Vec::new();
    let domain = settings.domain.lookup(route.labels());
    let of = |name: &str, hosts: &[String], domain: &str, kind: &'static str| {
        certificate::desired::certificate(route, Wish { name, hosts, domain, kind, owner_label: labels::ROUTE, class })
    };
    for (tag, local) in cluster_local {
        if external && !local {
            let host = domains::domain_name(route, tag, false, settings)?;
            let name = route_certificate_name(&uid, tag);
            let certificate = of(&name, &[host], &domain, networking::EXTERNAL_DOMAIN);
            all.push(Wanted { certificate, inside: false });
        }
    }
    // One certificate a host, in the order of the hosts.
    all.sort_by(|a, b| a.certificate.spec.dns_names.cmp(&b.certificate.spec.dns_names));
    if settings.network.cluster_local_domain_tls {
        for tag in cluster_local.keys() {
            let host = domains::domain_name(route, tag, true, settings)?;
            let hosts: Vec<String> = domains::expanded(&host, &settings.cluster_domain).into_iter().collect();
            let name = format!("{}-local", route_certificate_name(&uid, tag));
            let domain = format!("svc.{}", settings.cluster_domain);
            let certificate = of(&name, &hosts, &domain, networking::CLUSTER_LOCAL_DOMAIN);
            all.push(Wanted { certificate, inside: true });
        }
    }
    Ok(all)
}

/// What one Certificate means for the Ingress and for the addresses in the status.
fn take_over(
    tls: &mut Tls,
    status: &mut RouteStatus,
    certificate: &Certificate,
    wanted: &Wanted,
    settings: &Settings,
) -> Verdict {
    let hosts = &wanted.certificate.spec.dns_names;
    let standing = standing(certificate);
    let said = certificate.status.clone().unwrap_or_default();
    if standing == Standing::Ready {
        if api::conditions::is_true(&said.conditions, RENEWING) {
            tls.challenges.extend(said.http01_challenges);
        }
        if wanted.inside
            && let Some(url) = status.address.as_mut().and_then(|address| address.url.as_mut())
        {
            *url = with_scheme(url, "https");
        }
        set_scheme(status, hosts, "https");
        tls.tls.push(IngressTls {
            hosts: hosts.clone(),
            secret_name: certificate.spec.secret_name.clone(),
            secret_namespace: certificate.namespace().unwrap_or_default(),
        });
        return Verdict::Ready;
    }
    if !wanted.inside {
        tls.challenges.extend(said.http01_challenges);
        if !settings.network.http_redirected {
            set_scheme(status, hosts, "http");
            return Verdict::Downgraded;
        }
        set_scheme(status, hosts, "https");
    }
    if standing == Standing::Failed { Verdict::Failed } else { Verdict::Awaited }
}

/// The scheme of the addresses of these hosts.
fn set_scheme(status: &mut RouteStatus, hosts: &[String], scheme: &str) {
    let urls = status.traffic.iter_mut().filter_map(|target| target.url.as_mut());
    for url in status.url.as_mut().into_iter().chain(urls) {
        if url.split_once("://").is_some_and(|(_, host)| hosts.iter().any(|one| one == host)) {
            *url = with_scheme(url, scheme);
        }
    }
}

fn with_scheme(url: &str, scheme: &str) -> String {
    format!("{scheme}://{}", url.split_once("://").map_or(url, |(_, rest)| rest))
}

/// Puts certificates and challenges into an Ingress; a challenge goes before all else that its host has.
pub fn add(ingress: &mut Ingress, tls: Tls) {
    ingress.spec.tls.extend(tls.tls);
    for challenge in tls.challenges.iter().rev() {
        let url = challenge.url.as_deref().unwrap_or_default();
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let Some((host, path)) = rest.split_once('/') else { continue };
        for rule in &mut ingress.spec.rules {
            let outside = rule.visibility.as_deref() == Some(VISIBILITY_EXTERNAL);
            if outside
                && rule.hosts.len() == 1
                && rule.hosts[0] == host
                && let Some(http) = &mut rule.http
            {
                http.paths.insert(0, challenge_path(challenge, format!("/{path}")));
            }
        }
    }
}

fn challenge_path(challenge: &Http01Challenge, path: String) -> HttpIngressPath {
    let split = IngressBackendSplit {
        service_namespace: challenge.service_namespace.clone().unwrap_or_default(),
        service_name: challenge.service_name.clone().unwrap_or_default(),
        service_port: challenge.service_port.clone().unwrap_or(IntOrString::Int(0)),
        percent: Some(100),
        append_headers: BTreeMap::new(),
    };
    HttpIngressPath { path: Some(path), splits: vec![split], ..HttpIngressPath::default() }
}

/// Certificates of hosts that are no more.
async fn delete_orphans(context: &Context, route: &Route, wanted: &[Wanted]) -> Result<(), ReconcileError> {
    for certificate in context.world.certificates.indexed(&route.uid().unwrap_or_default()) {
        let kind = certificate.labels().get(networking::CERTIFICATE_TYPE);
        let used = wanted.iter().filter(|one| one.certificate.labels().get(networking::CERTIFICATE_TYPE) == kind);
        let mut hosts = used.flat_map(|one| &one.certificate.spec.dns_names);
        if !hosts.any(|host| certificate.spec.dns_names.contains(host)) {
            context.writer.delete(certificate.as_ref()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn route() -> Route {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Route",
            "metadata": { "name": "hello", "namespace": "ns", "uid": "1-2",
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "x" } },
            "spec": { "traffic": [] },
        }))
        .unwrap()
    }

    fn settings(external: bool, local: bool) -> Settings {
        let mut settings = Settings::new("cluster.local");
        settings.apply("config-domain", &[("example.com".to_owned(), String::new())].into()).unwrap();
        settings.network.external_domain_tls = external;
        settings.network.cluster_local_domain_tls = local;
        settings
    }

    fn names(external: bool, local: bool, tags: &[(&str, bool)]) -> Vec<(String, Vec<String>)> {
        let tags = tags.iter().map(|(tag, local)| ((*tag).to_owned(), *local)).collect();
        let all = wanted(&route(), external, &tags, &settings(external, local)).unwrap();
        all.into_iter().map(|one| (one.certificate.name_any(), one.certificate.spec.dns_names)).collect()
    }

    #[test]
    fn a_certificate_for_each_host() {
        let tagged = route_certificate_name("1-2", "v1");
        assert_eq!(
            names(true, false, &[("", false), ("v1", false), ("inside", true)]),
            [
                ("route-1-2".to_owned(), vec!["hello.ns.example.com".to_owned()]),
                (tagged, vec!["v1-hello.ns.example.com".to_owned()]),
            ]
        );
        assert_eq!(
            names(false, true, &[("", false)]),
            [(
                "route-1-2-local".to_owned(),
                ["hello.ns", "hello.ns.svc", "hello.ns.svc.cluster.local"].map(str::to_owned).to_vec()
            )]
        );
        assert!(names(true, false, &[("", true)]).is_empty());
        let one = wanted(&route(), true, &[(String::new(), false)].into(), &settings(true, false)).unwrap().remove(0);
        let annotations = json!(one.certificate.annotations());
        assert_eq!(annotations, json!({ "note": "x", networking::CERTIFICATE_CLASS: networking::CERT_MANAGER_CLASS }));
        let labels = json!({ "serving.knative.dev/route": "hello", networking::CERTIFICATE_TYPE: "external-domain" });
        assert_eq!(json!(one.certificate.labels()), labels);
    }

    /// What becomes of a Route whose certificate is in some state.
    fn judged(ready: Option<&str>, redirected: bool, inside: bool) -> (Verdict, Tls, RouteStatus) {
        let mut settings = settings(!inside, inside);
        settings.network.http_redirected = redirected;
        let tags = [(String::new(), false)].into();
        let one = wanted(&route(), !inside, &tags, &settings).unwrap().remove(0);
        let mut certificate = one.certificate.clone();
        let conditions = ready.map(|ready| json!([{ "type": "Ready", "status": ready, "reason": "R" }]));
        let challenge = json!({ "url": "http://hello.ns.example.com/.well-known/acme-challenge/t",
            "serviceName": "solver", "serviceNamespace": "ns", "servicePort": 8089 });
        certificate.status = serde_json::from_value(
            json!({ "conditions": conditions.unwrap_or(json!([])), "http01Challenges": [challenge] }),
        )
        .unwrap();
        let mut status: RouteStatus = serde_json::from_value(json!({
            "url": "http://hello.ns.example.com", "address": { "url": "http://hello.ns.svc.cluster.local" },
            "traffic": [{ "url": "http://other.example.com" }],
        }))
        .unwrap();
        let mut tls = Tls::default();
        let verdict = take_over(&mut tls, &mut status, &certificate, &one, &settings);
        (verdict, tls, status)
    }

    #[test]
    fn addresses_are_https_once_they_are() {
        let outside = [
            (Some("True"), false, Verdict::Ready, "https", 1, 0),
            (Some("Unknown"), false, Verdict::Downgraded, "http", 0, 1),
            (Some("False"), false, Verdict::Downgraded, "http", 0, 1),
            (None, true, Verdict::Awaited, "https", 0, 1),
            (Some("False"), true, Verdict::Failed, "https", 0, 1),
        ];
        for (ready, redirected, want, scheme, served, challenges) in outside {
            let (verdict, tls, status) = judged(ready, redirected, false);
            assert_eq!((verdict, tls.tls.len(), tls.challenges.len()), (want, served, challenges), "{ready:?}");
            assert_eq!(status.url.unwrap(), format!("{scheme}://hello.ns.example.com"));
            assert_eq!(status.address.unwrap().url.unwrap(), "http://hello.ns.svc.cluster.local");
            assert_eq!(status.traffic[0].url.as_deref(), Some("http://other.example.com"));
        }
        for (ready, want, scheme) in [("True", Verdict::Ready, "https"), ("False", Verdict::Failed, "http")] {
            let (verdict, tls, status) = judged(Some(ready), false, true);
            assert_eq!((verdict, tls.challenges.len()), (want, 0));
            assert_eq!(status.url.unwrap(), "http://hello.ns.example.com");
            assert_eq!(status.address.unwrap().url.unwrap(), format!("{scheme}://hello.ns.svc.cluster.local"));
        }
    }

    #[test]
    fn challenges_go_before_all_else_of_their_host() {
        let rule = |host: &str, visibility: &str| {
            json!({ "hosts": [host], "visibility": visibility,
            "http": { "paths": [{ "splits": [] }] } })
        };
        let mut ingress: Ingress = serde_json::from_value(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress", "metadata": {},
            "spec": { "rules": [rule("hello.ns.example.com", "ExternalIP"), rule("hello.ns.example.com", "ClusterLocal"),
                rule("v1-hello.ns.example.com", "ExternalIP")] },
        }))
        .unwrap();
        let (_, tls, _) = judged(Some("Unknown"), false, false);
        add(&mut ingress, tls);
        let got: Value = json!(ingress.spec.rules);
        assert_eq!(
            got[0]["http"]["paths"][0],
            json!({ "path": "/.well-known/acme-challenge/t", "splits": [{ "serviceNamespace": "ns",
                "serviceName": "solver", "servicePort": 8089, "percent": 100 }] })
        );
        let counts: Vec<usize> = (0..3).map(|i| got[i]["http"]["paths"].as_array().unwrap().len()).collect();
        assert_eq!(counts, [2, 1, 1]);
    }
}
