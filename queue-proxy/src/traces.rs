//! The spans that the sidecar makes of a traced request: server → `kn.queueproxy.proxy` → `kn.queueproxy.wait` (where
//! there is a limit to wait for) → client. Names are upstream's; the rest is [`telemetry::traces`].

use telemetry::traces::hop::{Hop, Lasts, Stage};

/// Name under which the sidecar measures.
pub const SCOPE: &str = "dormouse/queue-proxy";
/// The name that upstream's own spans and metrics carry.
pub const UPSTREAM_SCOPE: &str = "knative.dev/serving/pkg/queue";

const PROXY: Stage = Stage { name: "kn.queueproxy.proxy", within: None, lasts: Lasts::WholeRequest };
const WAIT: Stage = Stage { name: "kn.queueproxy.wait", within: Some(0), lasts: Lasts::UntilAsked };

/// A sidecar without a limit.
const FREE: Hop = Hop {
    http_scope: SCOPE,
    own_scope: UPSTREAM_SCOPE,
    b3: true,
    route_tag: true,
    stages: &[PROXY],
    client_name: |facts| format!("HTTP {}", facts.method.unwrap_or("_OTHER")),
};
/// One with a limit.
const LIMITED: Hop = Hop { stages: &[PROXY, WAIT], ..FREE };

/// The spans of a sidecar. `limited`: whether requests wait for a slot.
pub fn hop(limited: bool) -> &'static Hop {
    if limited { &LIMITED } else { &FREE }
}
