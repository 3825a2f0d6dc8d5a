//! A fake API server behind `kube::Client`: lists what it was given, keeps watches open, records writes.

#![allow(dead_code)] // each test crate uses its part

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use api::{
    autoscaling::{PodAutoscaler, PodAutoscalerSpec, PodAutoscalerStatus, ScaleTargetRef},
    conditions,
    networking::{ServerlessService, ServerlessServiceStatus},
};
use autoscaler::{algorithm::RevisionScaling, apply::desired};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use kube::{api::ObjectMeta, client::Body};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// One write that reached the API server.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

#[derive(Clone)]
pub(crate) struct Api {
    /// Objects by plural.
    objects: Arc<Mutex<Vec<(&'static str, Value)>>>,
    writes: mpsc::UnboundedSender<Written>,
}

impl Api {
    pub(crate) fn new(objects: Vec<(&'static str, Value)>) -> (Self, mpsc::UnboundedReceiver<Written>) {
        let (writes, written) = mpsc::unbounded_channel();
        (Self { objects: Arc::new(Mutex::new(objects)), writes }, written)
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<BoxBody<Bytes, Infallible>> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let method = request.method().clone();
        if method == Method::GET && query.contains("watch=true") {
            // Nothing more happens: a body that never ends.
            let never = http_body_util::StreamBody::new(futures::stream::pending::<Result<_, Infallible>>());
            return Response::new(BodyExt::boxed(never));
        }
        let plural = path.rsplit('/').next().unwrap_or_default();
        let answer = if method == Method::GET {
            if let Some(object) = self.find(plural).filter(|_| path.contains("/endpoints/")) {
                return Response::new(Full::from(object.to_string()).boxed());
            }
            let items: Vec<Value> =
                self.objects.lock().unwrap().iter().filter(|(p, _)| *p == plural).map(|(_, o)| o.clone()).collect();
            json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "10" }, "items": items })
        } else {
            let content_type = request.headers().get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned();
            let body = request.into_body().collect_bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let answer = self.written(&path, &body);
            self.writes.send(Written { method, path, content_type, body }).unwrap();
            answer
        };
        Response::new(Full::from(answer.to_string()).boxed())
    }

    fn find(&self, name: &str) -> Option<Value> {
        self.objects.lock().unwrap().iter().find(|(n, _)| *n == name).map(|(_, object)| object.clone())
    }

    fn written(&self, path: &str, body: &Value) -> Value {
        if path.ends_with("/scale") {
            let spec = json!({ "replicas": body[0]["value"] });
            return json!({ "metadata": { "name": "rev-deployment", "resourceVersion": "20" }, "spec": spec });
        }
        let plural = path.split('/').nth(6).unwrap_or_default().to_owned();
        let mut objects = self.objects.lock().unwrap();
        match objects.iter_mut().find(|(p, _)| *p == plural) {
            Some((_, object)) => {
                for (field, value) in body.as_object().unwrap() {
                    object[field] = value.clone();
                }
                object["metadata"]["resourceVersion"] = json!("20");
                object.clone()
            }
            None => body.clone(),
        }
    }
}

/// A revision that sleeps: its PodAutoscaler, ServerlessService, Metric and Deployment.
pub(crate) fn sleeping_revision() -> Vec<(&'static str, Value)> {
    let now = jiff::Timestamp::now();
    let mut status = PodAutoscalerStatus {
        desired_scale: Some(0),
        actual_scale: Some(0),
        observed_generation: Some(1),
        service_name: Some("rev".into()),
        metrics_service_name: Some("rev-private".into()),
        ..PodAutoscalerStatus::default()
    };
    conditions::ConditionSet { dependents: &["Active", "ScaleTargetInitialized", "SKSReady"] }
        .manage(&mut status.conditions, now)
        .initialize()
        .mark_true("SKSReady")
        .mark_true("ScaleTargetInitialized")
        .mark_false("Active", "NoTraffic", "The target is not receiving traffic.");
    let pa = PodAutoscaler {
        metadata: ObjectMeta {
            name: Some("rev".into()),
            namespace: Some("ns".into()),
            uid: Some("pa-uid".into()),
            generation: Some(1),
            resource_version: Some("1".into()),
            annotations: Some([("autoscaling.knative.dev/class".into(), "kpa.autoscaling.knative.dev".into())].into()),
            ..ObjectMeta::default()
        },
        spec: PodAutoscalerSpec {
            scale_target_ref: ScaleTargetRef {
                api_version: Some("apps/v1".into()),
                kind: Some("Deployment".into()),
                name: Some("rev-deployment".into()),
            },
            protocol_type: "http1".into(),
            ..PodAutoscalerSpec::default()
        },
        status: Some(status),
    };
    let mut sks: ServerlessService = desired::sks(&pa, desired::sks_spec(&pa, "Proxy", 3));
    let mut status = ServerlessServiceStatus {
        service_name: Some("rev".into()),
        private_service_name: Some("rev-private".into()),
        ..ServerlessServiceStatus::default()
    };
    conditions::ConditionSet { dependents: &["EndpointsPopulated"] }
        .manage(&mut status.conditions, now)
        .initialize()
        .mark_true("EndpointsPopulated")
        .mark_true("ActivatorEndpointsPopulated");
    sks.status = Some(status);
    let metric = desired::metric(&pa, desired::metric_spec(&RevisionScaling::default(), "rev-private"));
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "rev-deployment", "namespace": "ns", "resourceVersion": "5" },
        "spec": { "replicas": 0, "selector": {}, "template": {} },
    });
    vec![
        ("podautoscalers", serde_json::to_value(pa).unwrap()),
        ("serverlessservices", serde_json::to_value(sks).unwrap()),
        ("metrics", serde_json::to_value(metric).unwrap()),
        ("deployments", deployment),
    ]
}
