//! `queue-proxy`: what the sidecar costs, beside other proxies that could stand in its place.

use crate::{
    hop::{Ours, Pass, Plan, Step},
    peers::Kind,
};

/// See [`crate::hop`].
pub(crate) const PLAN: Plan = Plan {
    name: "queue-proxy",
    ours: Ours {
        program: "queue-proxy",
        passes: &[
            Pass { word: "dormouse", prefix: "", kind: Kind::Sidecar, about: "" },
            Pass {
                word: "full",
                prefix: "full_",
                kind: Kind::FullSidecar,
                about: "ours with a concurrency limit above the load and Prometheus metrics on",
            },
            Pass {
                word: "log",
                prefix: "log_",
                kind: Kind::LoggingSidecar,
                about: "as full, with the request log on and read from a pipe",
            },
        ],
        peers: &["upstream"],
    },
    steps: &[Step::Load, Step::Bodies, Step::H2, Step::Quota, Step::InFlight, Step::Idle, Step::WebSocket, Step::Stay],
    passes: &[("full_", "limit, metrics"), ("log_", "limit, metrics, log")],
    title: "queue-proxy and its peers: one core each, 64 connections, 12-byte answers (shorter is better)",
};
