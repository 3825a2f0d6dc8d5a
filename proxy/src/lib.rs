//! The HTTP engine that activator and queue-proxy are built on.
