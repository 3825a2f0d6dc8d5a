//! The API server from outside: with `kube` as the controllers use it, and with the real `kubectl`.
mod api_server {
    mod harness;

    mod kube_client;
    mod kubectl;
    mod lifecycle;
}
