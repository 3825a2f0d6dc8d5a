//! The API server from outside: with `kube` as the controllers use it, and with the real `kubectl`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // clippy takes fixtures of tests for production code

mod api_server {
    mod harness;

    mod kube_client;
    mod kubectl;
    mod lifecycle;
}
