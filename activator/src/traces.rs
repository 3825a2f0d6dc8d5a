//! The spans that the door makes of a traced request, by upstream's names: server → `throttler_try` (in line, up to the
//! first pod that is asked) and beside it `activator_proxy` → client. The rest is [`telemetry::traces`].
//!
//! W3C only: B3 passes as it is, for queue-proxy to read. A wake-up that the request saw is told as events of its server
//! span: `dormouse.queued`, `dormouse.ready`, `dormouse.first_byte`; so is each pod that was asked in vain
//! (`dormouse.retry`).

use telemetry::traces::hop::{Hop, Lasts, Stage};

/// Name under which the activator measures.
pub const SCOPE: &str = "dormouse/activator";
/// The name that upstream's own spans and metrics carry.
pub const UPSTREAM_SCOPE: &str = "knative.dev/serving/pkg/activator";

/// The door.
pub static HOP: Hop = Hop {
    http_scope: SCOPE,
    own_scope: UPSTREAM_SCOPE,
    b3: false,
    route_tag: false,
    stages: &[
        Stage { name: "throttler_try", within: None, lasts: Lasts::UntilAsked },
        Stage { name: "activator_proxy", within: None, lasts: Lasts::FromAsked },
    ],
    client_name: |facts| format!("{} {}", facts.method.unwrap_or("HTTP"), facts.path),
};
