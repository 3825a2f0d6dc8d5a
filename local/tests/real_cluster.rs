//! Controller, autoscaler and activator on a real kube-apiserver: everything they write passes its checks, and a service
//! becomes ready, is changed, and has its traffic split.
//!
//! The server is found as in `real_server.rs`. It runs alone, so the test does what a controller manager and a kubelet
//! would: deployments get pods that are ready at once, on addresses that nobody answers. The webhook that fills in
//! defaults on a cluster is a call here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do without has failed it"
)]

#[path = "real_server/cluster.rs"]
mod cluster;

use std::{sync::Arc, time::Duration};

use activator::Activator;
use api::{
    labels::SYSTEM_NAMESPACE,
    networking::ClusterDomainClaim,
    stat::{CONTENT_TYPE, Stat},
};
use arc_swap::ArcSwap;
use autoscaler::{
    Autoscaler,
    apply::write::Writer,
    collect::{Candidate, scrape::Scraper},
    decider::{Write, Written},
    key::Key,
};
use cluster::Cluster;
use control::{
    Controller, admission,
    config::Gateway,
    settings::Settings,
    webhook::{self, Webhook},
};
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::Deployment,
        coordination::v1::Lease,
        core::v1::{ConfigMap, Endpoints, Pod, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Client,
    api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use local::{cli::Setting, system};
use prost::Message;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long anything may take before the test calls it hung; nothing is timed.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_becomes_ready_is_changed_and_split_on_a_real_api_server() {
    let real = Cluster::find().await;
    let client = real.client();
    // Each process has the rights that the manifests give it, and no more.
    real.apply_manifests("none").await;
    cluster::install_crds(&client).await;
    let set = |config_map: &str, key: &str, value: &str| Setting {
        config_map: config_map.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let sets =
        [set("config-network", "autocreate-cluster-domain-claims", "true"), set("config-domain", "example.com", "")];
    // No request goes there: the real server takes no address of loopback for an endpoint.
    system::prepare(&client, "10.9.9.9:8012".parse().unwrap(), &sets).await.unwrap();

    let stop = CancellationToken::new();
    let autoscaler = Autoscaler::bind(autoscaler::Config::local(real.client_of("autoscaler"))).await.unwrap();
    let activator = activator::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        autoscaler_url: format!("ws://{}", autoscaler.local_addr()),
        ..activator::Config::local(real.client_of("activator"))
    };
    let activator = Activator::bind(activator).await.unwrap();
    let settings = Arc::new(ArcSwap::from_pointee(Settings::new(system::CLUSTER_DOMAIN)));
    let gateway = Gateway::At(vec![activator.local_addr()]);
    let controller = async |name: &str| {
        let config = control::Config {
            gateway: gateway.clone(),
            settings: settings.clone(),
            queue_sidecar_image: system::QUEUE_IMAGE.to_owned(),
            cluster_domain: system::CLUSTER_DOMAIN.to_owned(),
            candidate: Some(name.to_owned()),
            ..control::Config::new(real.client_of("controller"))
        };
        Controller::bind(config).await.unwrap()
    };
    // Two of them: one works, the other waits for its lease.
    let (first, second) = (controller("first").await, controller("second").await);
    let stop_first = CancellationToken::new();
    let mut parts = JoinSet::new();
    let (one, two, three, four) = (stop.clone(), stop.clone(), stop.clone(), stop.clone());
    parts.spawn(async move { activator.run(one).await.map_err(|error| error.to_string()) });
    parts.spawn(async move { autoscaler.run(two).await.map_err(|error| error.to_string()) });
    let first = tokio::spawn(first.run(stop_first.clone()));
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let holder = async || leases.get_opt("dormouse-controller").await.unwrap()?.spec?.holder_identity;
    until("the first has the lease", async || holder().await.as_deref() == Some("first")).await;
    parts.spawn(async move { second.run(three).await.map_err(|error| error.to_string()) });
    let nodes = client.clone();
    parts.spawn(async move {
        Box::pin(four.run_until_cancelled(pods_for_deployments(nodes))).await;
        Ok(())
    });

    let services = Services { client: client.clone(), settings };
    services.create("hello", "one", json!({})).await;
    services.ready("hello", "hello-00001").await;
    services
        .change("hello", &json!({ "spec": { "template": { "spec": { "containers": [container("two")] } } } }))
        .await;
    services.ready("hello", "hello-00002").await;
    let split = json!({ "spec": { "traffic": [
        { "revisionName": "hello-00001", "percent": 10, "tag": "old" }, { "latestRevision": true, "percent": 90 },
    ] } });
    services.change("hello", &split).await;
    until("the split is in the Ingress", || async {
        let ingress =
            services.get("networking.internal.knative.dev", "v1alpha1", "Ingress", "ingresses", "hello").await;
        let splits = &ingress["spec"]["rules"][0]["http"]["paths"][0]["splits"];
        splits.as_array().is_some_and(|splits| splits.len() == 2) && ready(&ingress, "Ready")
    })
    .await;
    services.ready("hello", "hello-00002").await;
    for (group, version, kind, plural, name) in [
        ("serving.knative.dev", "v1", "Configuration", "configurations", "hello"),
        ("serving.knative.dev", "v1", "Route", "routes", "hello"),
        ("serving.knative.dev", "v1", "Revision", "revisions", "hello-00001"),
        ("autoscaling.internal.knative.dev", "v1alpha1", "PodAutoscaler", "podautoscalers", "hello-00002"),
        ("networking.internal.knative.dev", "v1alpha1", "ServerlessService", "serverlessservices", "hello-00002"),
    ] {
        let object = services.get(group, version, kind, plural, name).await;
        assert!(ready(&object, "Ready"), "{object:#}");
        assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"], "{kind} {name}");
    }
    // One that the cluster itself scales.
    let annotations = json!({
        "autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev", "autoscaling.knative.dev/metric": "memory",
        "autoscaling.knative.dev/target": "75", "autoscaling.knative.dev/min-scale": "2",
        "autoscaling.knative.dev/max-scale": "7", "autoscaling.knative.dev/window": "90s",
    });
    services.create("horizontal", "one", annotations).await;
    let horizontals = services.api("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
    until("it has a HorizontalPodAutoscaler", || async {
        horizontals.get_opt("horizontal-00001").await.unwrap().is_some()
    })
    .await;
    let made = horizontals.get("horizontal-00001").await.unwrap();
    let spec = &made.data["spec"];
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(7)));
    assert_eq!(spec["scaleTargetRef"]["name"], "horizontal-00001-deployment");
    assert_eq!(spec["metrics"][0]["resource"]["target"]["averageValue"], "75Mi");
    assert_eq!(spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 90);
    let owner = &made.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.controller), ("PodAutoscaler", Some(true)));
    // Its own controller is not here; this is what it would say.
    let said = json!({ "status": { "currentReplicas": 2, "desiredReplicas": 2, "conditions": [] } });
    horizontals.patch_status("horizontal-00001", &PatchParams::default(), &Patch::Merge(said)).await.unwrap();
    services.ready("horizontal", "horizontal-00001").await;

    digests_are_asked_for(&services).await;

    // A host of the user's own, with a claim that comes and goes with it.
    let mappings = services.api("serving.knative.dev", "v1beta1", "DomainMapping", "domainmappings");
    let mapping = json!({
        "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping", "metadata": { "name": "shop.example.org" },
        "spec": { "ref": { "apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello" } },
    });
    mappings.create(&PostParams::default(), &serde_json::from_value(mapping).unwrap()).await.unwrap();
    until("the host is served", || async {
        let mapping = serde_json::to_value(mappings.get("shop.example.org").await.unwrap()).unwrap();
        ready(&mapping, "Ready") && mapping["status"]["url"] == "http://shop.example.org"
    })
    .await;
    let claims: Api<ClusterDomainClaim> = Api::all(client.clone());
    assert_eq!(claims.get("shop.example.org").await.unwrap().spec.namespace, "default");
    mappings.delete("shop.example.org", &DeleteParams::default()).await.unwrap();
    until("it is gone, and its claim before it", || async {
        mappings.get_opt("shop.example.org").await.unwrap().is_none()
    })
    .await;
    assert!(claims.get_opt("shop.example.org").await.unwrap().is_none());

    assert_eq!(holder().await.as_deref(), Some("first"));
    // The first ends, and the second goes on.
    stop_first.cancel();
    first.await.unwrap().unwrap();
    services.create("late", "one", json!({})).await;
    services.ready("late", "late-00001").await;
    assert_eq!(holder().await.as_deref(), Some("second"));
    certificates_are_asked_for(&services).await;
    stop.cancel();
    while let Some(ended) = parts.join_next().await {
        ended.unwrap().unwrap();
    }
}

/// With `external-domain-tls` hosts get certificates through cert-manager's objects; here the test is cert-manager.
async fn certificates_are_asked_for(services: &Services) {
    let client = &services.client;
    cert_manager_kinds(client).await;
    let issuer = json!({ "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": { "name": "acme" },
        "spec": { "acme": { "solvers": [{ "http01": { "ingress": {} } }] } } });
    let issuers = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "ClusterIssuer"));
    let issuers: Api<DynamicObject> = Api::all_with(client.clone(), &issuers);
    issuers.create(&PostParams::default(), &serde_json::from_value(issuer).unwrap()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let issuer = json!({ "metadata": { "name": "config-certmanager" }, "data": { "issuerRef": "name: acme" } });
    maps.create(&PostParams::default(), &serde_json::from_value(issuer).unwrap()).await.unwrap();
    let on = Patch::Merge(json!({ "data": { "external-domain-tls": "Enabled" } }));
    maps.patch("config-network", &PatchParams::default(), &on).await.unwrap();

    let route = services.get("serving.knative.dev", "v1", "Route", "routes", "hello").await;
    let name = format!("route-{}", route["metadata"]["uid"].as_str().unwrap());
    let theirs = services.api("cert-manager.io", "v1", "Certificate", "certificates");
    until("cert-manager is asked", async || theirs.get_opt(&name).await.unwrap().is_some()).await;
    let asked = theirs.get(&name).await.unwrap();
    assert_eq!(asked.data["spec"]["dnsNames"], json!(["hello.default.example.com"]));
    assert_eq!(asked.data["spec"]["issuerRef"]["name"], "acme");

    // The proof that the host is ours is served by the solver that cert-manager starts.
    let challenge = json!({ "apiVersion": "acme.cert-manager.io/v1", "kind": "Challenge",
        "metadata": { "name": "proof" }, "spec": { "dnsName": "hello.default.example.com", "token": "word" } });
    let challenges = services.api("acme.cert-manager.io", "v1", "Challenge", "challenges");
    let challenge = serde_json::from_value(challenge).unwrap();
    let challenge = challenges.create(&PostParams::default(), &challenge).await.unwrap();
    let sum = adler2::adler32_slice(b"hello.default.example.com").to_string();
    let owner = json!([{ "apiVersion": "acme.cert-manager.io/v1", "kind": "Challenge", "name": "proof",
        "uid": challenge.metadata.uid, "controller": true }]);
    let solver = json!({ "metadata": { "name": "solver", "ownerReferences": owner,
            "labels": { "acme.cert-manager.io/http-domain": sum } },
        "spec": { "ports": [{ "port": 8089, "targetPort": 8089 }] } });
    let solvers = services.api("", "v1", "Service", "services");
    solvers.create(&PostParams::default(), &serde_json::from_value(solver).unwrap()).await.unwrap();
    let ingress =
        async || services.get("networking.internal.knative.dev", "v1alpha1", "Ingress", "ingresses", "hello").await;
    until("the proof is served", async || {
        let ingress = ingress().await;
        let mut rules = ingress["spec"]["rules"].as_array().unwrap().iter();
        rules.any(|rule| rule["http"]["paths"][0]["path"] == "/.well-known/acme-challenge/word")
    })
    .await;
    let service = async || services.get("serving.knative.dev", "v1", "Service", "services", "hello").await;
    assert_eq!(service().await["status"]["url"], "http://hello.default.example.com");

    let there = json!({ "status": { "notAfter": "2999-01-01T00:00:00Z", "renewalTime": "2998-01-01T00:00:00Z",
        "conditions": [{ "type": "Ready", "status": "True" }] } });
    theirs.patch_status(&name, &PatchParams::default(), &Patch::Merge(there)).await.unwrap();
    until("the host is served with its certificate", async || {
        let (service, ingress) = (service().await, ingress().await);
        let tls = json!([{ "hosts": ["hello.default.example.com"], "secretName": name, "secretNamespace": "default" }]);
        ready(&service, "Ready")
            && service["status"]["url"] == "https://hello.default.example.com"
            && ingress["spec"]["tls"].as_array().is_some_and(|all| all.contains(&tls[0]))
            && !ingress.to_string().contains("acme-challenge")
    })
    .await;
    let ours = services.get("networking.internal.knative.dev", "v1alpha1", "Certificate", "certificates", &name).await;
    assert_eq!(ours["status"]["notAfter"], "2999-01-01T00:00:00Z");

    // One for all hosts of a domain in a namespace goes before.
    let all = Patch::Merge(json!({ "data": { "namespace-wildcard-cert-selector": "{}" } }));
    maps.patch("config-network", &PatchParams::default(), &all).await.unwrap();
    until("cert-manager is asked for all of them", async || {
        let asked = theirs.get_opt("default.example.com").await.unwrap();
        asked.is_some_and(|asked| asked.data["spec"]["dnsNames"] == json!(["*.default.example.com"]))
    })
    .await;
    let there = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    theirs.patch_status("default.example.com", &PatchParams::default(), &Patch::Merge(there)).await.unwrap();
    until("the host is served with that one", async || {
        let ingress = ingress().await;
        ingress["spec"]["tls"][0]["secretName"] == "default.example.com"
    })
    .await;

    // With system-internal-tls no pod starts before its sidecar has a certificate.
    let internal = Patch::Merge(json!({ "data": { "system-internal-tls": "enabled" } }));
    maps.patch("config-network", &PatchParams::default(), &internal).await.unwrap();
    until("cert-manager is asked for the sidecars", async || theirs.get_opt("serving-certs").await.unwrap().is_some())
        .await;
    services.change("hello", &json!({ "spec": { "template": { "metadata": { "labels": { "new": "yes" } } } } })).await;
    until("the next revision waits for it", async || {
        let newest = services.get("serving.knative.dev", "v1", "Revision", "revisions", "hello-00003").await;
        newest["status"]["conditions"].to_string().contains("serving-certs is not ready yet")
    })
    .await;
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let secret = json!({ "metadata": { "name": "serving-certs" }, "stringData": { "tls.crt": "x", "tls.key": "y" } });
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let deployments = services.api("apps", "v1", "Deployment", "deployments");
    until("it starts", async || deployments.get_opt("hello-00003-deployment").await.unwrap().is_some()).await;
}

/// The kinds of cert-manager that are looked at, without a description.
async fn cert_manager_kinds(client: &Client) {
    let definitions = ApiResource::erase::<CustomResourceDefinition>(&());
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
    for (group, kind, plural, scope) in [
        ("cert-manager.io", "Certificate", "certificates", "Namespaced"),
        ("cert-manager.io", "ClusterIssuer", "clusterissuers", "Cluster"),
        ("acme.cert-manager.io", "Challenge", "challenges", "Namespaced"),
    ] {
        let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let definition = json!({
            "metadata": { "name": format!("{plural}.{group}"),
                "annotations": { "api-approved.kubernetes.io": "unapproved, a test" } },
            "spec": { "group": group, "scope": scope, "names": { "kind": kind, "plural": plural },
                "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                    "schema": { "openAPIV3Schema": open } }] },
        });
        definitions.create(&PostParams::default(), &serde_json::from_value(definition).unwrap()).await.unwrap();
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        until("the kind is served", async || api.list(&ListParams::default()).await.is_ok()).await;
    }
}

/// What tags mean is asked of their registry, by the pull secret that the Service names, and runs.
async fn digests_are_asked_for(services: &Services) {
    let registry = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = registry.local_addr().unwrap();
    tokio::spawn(knows_v1(registry));
    let auths = json!({ "auths": { at.to_string(): { "username": "ann", "password": "secret" } } });
    let secret = json!({ "metadata": { "name": "pull" }, "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": auths.to_string() } });
    let secrets: Api<Secret> = Api::default_namespaced(services.client.clone());
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let create = async |name: &str, tag: &str| {
        let object = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "template": { "spec": {
                "imagePullSecrets": [{ "name": "pull" }], "containers": [{ "image": format!("{at}/app:{tag}") }] } } },
        });
        services.all().create(&PostParams::default(), &services.admitted(None, object)).await.unwrap();
    };
    create("tagged", "v1").await;
    services.ready("tagged", "tagged-00001").await;
    let image = json!(format!("{at}/app@{DIGEST}"));
    let revision = services.get("serving.knative.dev", "v1", "Revision", "revisions", "tagged-00001").await;
    assert_eq!(revision["status"]["containerStatuses"], json!([{ "name": "user-container", "imageDigest": image }]));
    let deployment = services.get("apps", "v1", "Deployment", "deployments", "tagged-00001-deployment").await;
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], image);

    let cached = "tagged-00001-cache-user-container";
    let cached = services.get("caching.internal.knative.dev", "v1alpha1", "Image", "images", cached).await;
    assert_eq!(cached["spec"], json!({ "image": image, "imagePullSecrets": [{ "name": "pull" }] }));

    create("untagged", "v2").await;
    let mut reason = Value::Null;
    until("it is told that there is no such image", || async {
        let object = services.get("serving.knative.dev", "v1", "Service", "services", "untagged").await;
        object["status"]["conditions"].as_array().is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "False" && c["message"].to_string().contains("v2"))
        })
    })
    .await;
    let revision = services.get("serving.knative.dev", "v1", "Revision", "revisions", "untagged-00001").await;
    for condition in revision["status"]["conditions"].as_array().unwrap() {
        if condition["type"] == "ContainerHealthy" {
            reason = condition["reason"].clone();
            let message = condition["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("Unable to fetch image \"{at}/app:v2\": ")), "{message}");
        }
    }
    assert_eq!(reason, "ContainerMissing");
    let deployments = services.api("apps", "v1", "Deployment", "deployments");
    assert!(deployments.get_opt("untagged-00001-deployment").await.unwrap().is_none());
}

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A registry without TLS that knows `app:v1`, and tells `ann` alone.
async fn knows_v1(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) if byte != 0x16 || !head.is_empty() => head.push(byte),
                    // The end, or somebody who speaks TLS.
                    _ => return,
                }
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            // `ann:secret`
            let answer = if !head.contains("authorization: basic yw5uonnly3jlda==") {
                "401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"".to_owned()
            } else if head.starts_with("head /v2/app/manifests/v1 ") {
                format!("200 OK\r\ndocker-content-digest: {DIGEST}")
            } else {
                "404 Not Found".to_owned()
            };
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

/// The API server asks the webhook, through another certificate as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_webhook_fills_in_and_refuses_and_renews_its_certificate() {
    let real = Cluster::find().await;
    let client = real.client();
    real.apply_manifests("none").await;
    cluster::install_crds(&client).await;
    system::prepare(&client, "10.9.9.9:8012".parse().unwrap(), &[]).await.unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let webhook = Webhook::bind(webhook::Config {
        listen: ([127, 0, 0, 1], port).into(),
        url: Some(format!("https://127.0.0.1:{port}")),
        every: Duration::from_millis(100),
        settle: Duration::from_secs(2),
        ..webhook::Config::new(real.client_of("webhook"))
    })
    .unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(webhook.run(stop.clone()));

    let settings = Arc::new(ArcSwap::from_pointee(Settings::new(system::CLUSTER_DOMAIN)));
    let services = Services { client: client.clone(), settings };
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let service = |image: &str| -> DynamicObject {
        let containers = json!([{ "image": image }]);
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": { "name": "hello" },
            "spec": { "template": { "spec": { "containers": containers } } },
        }))
        .unwrap()
    };
    let why = "denied the request: validation failed: missing field(s): spec.template.spec.containers[0].image";
    let refused = async || match services.all().create(&dry, &service("")).await {
        Err(kube::Error::Api(status)) if status.message.contains(why) => true,
        other => panic!("{other:?}"),
    };
    // The schema lets it pass until the API server has heard of the webhook.
    until("what is wrong is refused", async || services.all().create(&dry, &service("")).await.is_err()).await;
    assert!(refused().await);
    let made = services.all().create(&PostParams::default(), &service("dev.local/hello")).await.unwrap();
    assert_eq!(made.data["spec"]["traffic"], json!([{ "latestRevision": true, "percent": 100 }]));
    assert_eq!(made.metadata.annotations.unwrap()["serving.knative.dev/creator"], "admin");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let bad = Patch::Merge(json!({ "data": { "stable-window": "3x" } }));
    let error = maps.patch("config-autoscaler", &PatchParams::default(), &bad).await.unwrap_err().to_string();
    assert!(error.contains("stable-window"), "{error}");

    // Without its Secret it makes another CA, which the API server trusts before it is used.
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let before = secrets.get("webhook-certs").await.unwrap();
    secrets.delete("webhook-certs", &DeleteParams::default()).await.unwrap();
    until("there is another Secret", async || {
        let now = secrets.get_opt("webhook-certs").await.unwrap();
        // All the while somebody is asked and answers.
        assert!(refused().await);
        now.is_some_and(|now| now.data != before.data)
    })
    .await;
    let hooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let now = secrets.get("webhook-certs").await.unwrap().data.unwrap()["ca-cert.pem"].clone();
    until("the API server trusts the new one", async || {
        let hook = hooks.get("webhook.serving.knative.dev").await.unwrap().webhooks.unwrap().remove(0);
        assert!(refused().await);
        hook.client_config.ca_bundle == Some(now.clone())
    })
    .await;
    // And it is asked through a change of the certificate that it shows.
    let (folder, end) = (tempfile::tempdir().unwrap(), "-----END CERTIFICATE-----\n");
    let newest = String::from_utf8(now.0.clone()).unwrap();
    let newest = &newest[..newest.find(end).unwrap() + end.len()];
    let trust = folder.path().join("ca.pem");
    std::fs::write(&trust, newest).unwrap();
    let shown = async || {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-s", "--cacert"]).arg(&trust).arg(format!("https://127.0.0.1:{port}/"));
        curl.status().await.unwrap().success()
    };
    until("the new certificate is shown", async || {
        assert!(refused().await);
        shown().await
    })
    .await;
    assert!(refused().await);
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// The least busy of three pods is marked, and the scale written.
#[tokio::test]
async fn pods_are_marked_and_deployments_scaled_on_a_real_api_server() {
    let real = Cluster::find().await;
    let client = real.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let template = json!({ "metadata": { "labels": { "app": "rev" } },
        "spec": { "containers": [{ "name": "app", "image": "dev.local/hello" }] } });
    let deployment = json!({ "metadata": { "name": "rev-deployment" },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "rev" } }, "template": template } });
    let deployment = serde_json::from_value(deployment).unwrap();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();

    let mut candidates = Vec::new();
    let mut port = 0;
    for (nth, busy) in [5.0, 1.0, 9.0].into_iter().enumerate() {
        let name = format!("rev-{nth}");
        let mut pod = template.clone();
        pod["metadata"]["name"] = json!(name);
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let listener = TcpListener::bind((format!("127.0.9.{}", nth + 1), port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        port = address.port();
        tokio::spawn(says(listener, busy));
        candidates.push(Candidate { name, address: address.ip(), deletion_cost: 0 });
    }
    let writer = Writer::new(client.clone(), Scraper::new(port));
    let scale = Write::Scale { target: "rev-deployment".to_owned(), replicas: 2, candidates };
    let written = writer.write(&Key::new("default", "rev"), scale).await;
    assert!(matches!(written, Written::Scale(Ok((2, _)))), "{written:?}");
    assert_eq!(deployments.get("rev-deployment").await.unwrap().spec.unwrap().replicas, Some(2));
    for (name, cost) in [("rev-0", None), ("rev-1", Some("-100")), ("rev-2", None)] {
        let annotations = pods.get(name).await.unwrap().metadata.annotations.unwrap_or_default();
        let found = annotations.get("controller.kubernetes.io/pod-deletion-cost").map(String::as_str);
        assert_eq!(found, cost, "{name}");
    }
}

/// A pod's stats port.
async fn says(listener: TcpListener, busy: f64) {
    let stat = Stat { average_concurrent_requests: busy, ..Stat::default() }.encode_to_vec();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\r\n", stat.len());
    let answer = [head.as_bytes(), &stat].concat();
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 1024];
        while matches!(stream.read(&mut request).await, Ok(1..)) && stream.write_all(&answer).await.is_ok() {}
    }
}

fn endpoints(name: &str, ip: &str) -> Value {
    json!({ "metadata": { "name": name }, "subsets": [{
        "addresses": [{ "ip": ip }], "ports": [{ "name": "http", "port": 8012 }, { "name": "http2", "port": 8013 }],
    }] })
}

/// Gives each Deployment the pods that it wants, ready, and their addresses to its private Service.
async fn pods_for_deployments(client: Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let lists: Api<Endpoints> = Api::default_namespaced(client.clone());
    let mut made = 0_u8;
    loop {
        for deployment in deployments.list(&ListParams::default()).await.unwrap() {
            let (name, spec) = (deployment.metadata.name.unwrap(), deployment.spec.unwrap());
            let pod_name = format!("{name}-pod");
            if spec.replicas == Some(0) || pods.get_opt(&pod_name).await.unwrap().is_some() {
                continue;
            }
            made += 1;
            let mut pod = serde_json::to_value(&spec.template).unwrap();
            pod["metadata"]["name"] = pod_name.clone().into();
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let labels = pod.metadata.labels.clone().unwrap();
            pods.create(&PostParams::default(), &pod).await.unwrap();
            let now = "2026-01-01T00:00:00Z";
            let status = json!({ "status": { "phase": "Running", "podIP": format!("10.9.0.{made}"), "startTime": now,
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }] } });
            pods.patch_status(&pod_name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
            let replicas = spec.replicas.unwrap_or(1);
            let status = json!({ "status": {
                "replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas, "updatedReplicas": replicas,
                "observedGeneration": deployment.metadata.generation,
                "conditions": [{ "type": "Available", "status": "True" }, { "type": "Progressing", "status": "True" }] } });
            deployments.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
            let revision = &labels["serving.knative.dev/revision"];
            let mut list = endpoints(&format!("{revision}-private"), &format!("10.9.0.{made}"));
            list["metadata"]["labels"] = json!({
                "networking.internal.knative.dev/serviceType": "Private", "serving.knative.dev/revision": revision });
            lists.create(&PostParams::default(), &serde_json::from_value(list).unwrap()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Services as users write them.
struct Services {
    client: Client,
    settings: Arc<ArcSwap<Settings>>,
}

fn container(version: &str) -> Value {
    json!({ "image": "dev.local/hello", "env": [{ "name": "VERSION", "value": version }] })
}

fn ready(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == condition && one["status"] == "True")
}

impl Services {
    fn api(&self, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Api::default_namespaced_with(self.client.clone(), &kind)
    }

    fn all(&self) -> Api<DynamicObject> {
        self.api("serving.knative.dev", "v1", "Service", "services")
    }

    async fn get(&self, group: &str, version: &str, kind: &str, plural: &str, name: &str) -> Value {
        let object = self.api(group, version, kind, plural).get_opt(name).await.unwrap();
        serde_json::to_value(object).unwrap()
    }

    /// As the webhook would hand it on.
    fn admitted(&self, old: Option<&Value>, new: Value) -> DynamicObject {
        let request = admission::Request {
            group: "serving.knative.dev",
            kind: "Service",
            operation: if old.is_some() { admission::Operation::Update } else { admission::Operation::Create },
            subresource: "",
            old,
            new,
            user: "admin",
        };
        let object = admission::default_and_validate(request, &self.settings.load());
        serde_json::from_value(object.map_err(|denied| denied.message).unwrap()).unwrap()
    }

    async fn create(&self, name: &str, version: &str, annotations: Value) {
        let object = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "template": {
                "metadata": { "annotations": annotations }, "spec": { "containers": [container(version)] } } },
        });
        self.all().create(&PostParams::default(), &self.admitted(None, object)).await.unwrap();
    }

    async fn change(&self, name: &str, patch: &Value) {
        for _ in 0..20 {
            let old = serde_json::to_value(self.all().get(name).await.unwrap()).unwrap();
            let mut new = old.clone();
            json_patch::merge(&mut new, patch);
            match self.all().replace(name, &PostParams::default(), &self.admitted(Some(&old), new)).await {
                // The controller has written its status in between.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                done => return drop(done.unwrap()),
            }
        }
        panic!("{name} is changed all the time");
    }

    /// Waits until a service is ready, and this revision with it.
    async fn ready(&self, name: &str, revision: &str) {
        until(&format!("{name} is ready with {revision}"), || async {
            let object = serde_json::to_value(self.all().get(name).await.unwrap()).unwrap();
            object["status"]["latestReadyRevisionName"] == revision
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && ready(&object, "Ready")
        })
        .await;
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
