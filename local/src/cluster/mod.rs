//! The two pieces of kube-controller-manager that a system without a cluster needs, and a scheduler of one line.
//!
//! - [`deployments`]: Deployment → Pods, directly, bound to the node at once;
//! - [`endpoints`]: Service with a selector + Pods → Endpoints;
//! - [`bind`]: pods that somebody made by hand get the node's name.
//!
//! All three work from watches ([`cache`]) and write as soon as they know: they are on the path of a cold start. What to
//! write is decided in pure files.

mod bind;
mod cache;
mod deployments;
mod endpoints;

use kube::Client;
use tokio_util::sync::CancellationToken;

/// Runs all of them until cancelled.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let all = async {
        tokio::join!(deployments::run(client.clone()), endpoints::run(client.clone()), bind::run(client.clone()));
    };
    let _ = shutdown.run_until_cancelled(Box::pin(all)).await;
}
