//! The two pieces of kube-controller-manager that a system without a cluster needs, and a scheduler of one line.
//!
//! - [`deployments`]: Deployment → Pods, directly, bound to the node at once;
//! - [`endpoints`]: Service with a selector + Pods → Endpoints;
//! - [`pods`]: the one watch of pods for both; pods that somebody made by hand get the node's name.
//!
//! All work from watches ([`cache`]) and write as soon as they know: they are on the path of a cold start. What to write
//! is decided in pure files.

mod cache;
mod deployments;
mod endpoints;
mod pods;

use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs all of them until cancelled.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let (to_deployments, deployments_pods) = mpsc::unbounded_channel();
    let (to_endpoints, endpoints_pods) = mpsc::unbounded_channel();
    let all = async {
        tokio::join!(
            deployments::run(client.clone(), deployments_pods),
            endpoints::run(client.clone(), endpoints_pods),
            pods::run(client.clone(), [to_deployments, to_endpoints]),
        );
    };
    let _ = shutdown.run_until_cancelled(Box::pin(all)).await;
}
