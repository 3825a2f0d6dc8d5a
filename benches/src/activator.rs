//! `activator`: what the door costs while everything is warm, beside other proxies that could stand in its place.

use crate::{
    hop::{Ours, Pass, Plan, Step},
    peers::{Door, Kind},
};

/// See [`crate::hop`].
pub(crate) const PLAN: Plan = Plan {
    name: "activator",
    ours: Ours {
        program: "activator",
        passes: &[
            Pass { word: "dormouse", prefix: "", kind: Kind::Door(Door::PLAIN), about: "" },
            Pass {
                word: "limit",
                prefix: "limit_",
                kind: Kind::Door(Door { limit: 100, ..Door::PLAIN }),
                about: "ours with a containerConcurrency of 100, above the load",
            },
            Pass {
                word: "full",
                prefix: "full_",
                kind: Kind::Door(Door { limit: 100, server_timing: true, metrics: true, ..Door::PLAIN }),
                about: "as limit, with Server-Timing on each answer and Prometheus metrics on",
            },
        ],
        peers: &[],
    },
    steps: &[
        Step::Load,
        Step::Bodies,
        Step::H2,
        Step::Path,
        Step::Scaling,
        Step::Rotation,
        Step::InFlight,
        Step::Idle,
        Step::WebSocket,
        Step::Stay,
    ],
    passes: &[("limit_", "limit"), ("full_", "limit, Server-Timing, metrics")],
    title: "activator and its peers: one core each, 64 connections, 12-byte answers (shorter is better)",
};
