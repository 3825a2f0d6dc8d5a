//! Reconciles the CRDs; admission checks; nothing on the request path.
fn main() {}
