//! The control plane: turns what users write into what runs, and says how it is. Nothing here is on the path of a
//! request.
//!
//! What comes in: objects of `serving.knative.dev` (written by users, checked by [`admission`]), what the autoscaler
//! and the node make of ours, ConfigMaps. What goes out: child objects and statuses. In the order in which one
//! Service becomes ready:
//!
//! 1. [`admission`]: defaults and validation; pure, called by the API server before anything is stored: in process, or
//!    through [`webhook`] on a cluster. So is [`v1alpha1`], for objects of that version.
//! 2. [`engine`]: one watch a kind fills what is known; each change wakes the reconcilers it matters to.
//! 3. [`service`] makes a Configuration and a Route; [`configuration`] makes a Revision.
//! 4. [`revision`] makes the Deployment (with queue-proxy beside the user's container) and the PodAutoscaler; before
//!    that [`digest`] asks which images the tags mean.
//! 5. The autoscaler makes a ServerlessService; [`serverless_service`] makes its Services and Endpoints.
//! 6. [`route`] resolves traffic and makes an Ingress; [`ingress`] waits until our gateway serves it.
//!    [`domain_mapping`] does the same for a host of the user's own; [`certificate`] gets certificates for both.
//! 7. [`labeler`] notes which Revisions are in use; [`gc`] deletes those that have long been unused.
//!
//! Each reconciler is a folder: `mod.rs` (thin: read, decide, write), `desired.rs` (what should be there, pure),
//! `status.rs` (how it is, pure). [`controller`] runs them; [`config`], [`settings`] and [`metrics`] are what their
//! names say.
pub mod admission;
pub mod certificate;
pub mod config;
pub mod config_maps;
pub mod configuration;
pub mod context;
pub mod controller;
pub mod digest;
pub mod domain_mapping;
pub mod engine;
pub mod gc;
pub mod ingress;
pub mod labeler;
pub mod metrics;
pub mod owner;
pub mod revision;
pub mod route;
pub mod serverless_service;
pub mod service;
pub mod settings;
mod standalone;
pub mod v1alpha1;
pub mod webhook;

pub use config::{Config, ConfigError};
pub use controller::{Controller, Error};
pub use standalone::{main_from_env, webhook_from_env};
