//! The real binary between clients that are not ours and their apps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/process.rs"]
mod process;
mod support;

#[path = "clients/curl.rs"]
mod curl;
#[path = "clients/grpc.rs"]
mod grpc;
#[path = "clients/websocket.rs"]
mod websocket;
