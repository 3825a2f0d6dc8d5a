//! `up --demo`: deploys the built-in hello service and shows how to call it.

use std::net::SocketAddr;

use api::{conditions, serving::Service};
use kube::{Api, Client, runtime::wait::await_condition};
use serde_json::{Value, json};

use crate::{board::Board, manifests::Manifest, node::images::HELLO_IMAGE};

/// How long the demo service stays awake without requests: short, so that its sleep can be watched.
const WINDOW: &str = "6s";

/// The service as a user would write it.
pub fn manifest() -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {"template": {
            "metadata": {"annotations": {"autoscaling.knative.dev/window": WINDOW}},
            "spec": {"containers": [{
                "image": HELLO_IMAGE,
                "env": [{"name": "TARGET", "value": "Dormouse"}],
            }]},
        }},
    })
}

/// Deploys it, waits until it is ready, and says what to try.
pub async fn run(client: &Client, board: &Board, http: SocketAddr) -> anyhow::Result<()> {
    let object = serde_json::from_value(manifest())?;
    crate::manifests::apply(client, &Manifest { origin: "--demo".to_owned(), object }).await?;
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let ready = |s: Option<&Service>| {
        s.and_then(|s| s.status.as_ref()).is_some_and(|s| conditions::is_true(&s.conditions, conditions::READY))
    };
    // If somebody deletes it before it is ready there is nothing to show, and this waits for another of that name.
    await_condition(services, "hello", ready).await?;
    board.screen().line(&format!(
        "\n  Try it:  curl -H 'Host: hello.default.example.com' http://{http}/\n  \
         It sleeps {WINDOW} after the last request; the next request wakes it.\n"
    ));
    Ok(())
}
