//! The words of the system: what the processes say to each other and to the user.
//!
//! Nothing here does I/O, reads a clock or spawns a task. Every other crate depends on this one and it depends on
//! none of them. In the order in which a reader meets them:
//!
//! - [`serving`], [`autoscaling`], [`networking`], [`caching`]: the resource types, exactly as `kubectl` sees them.
//! - [`conditions`]: how a resource says how it is.
//! - [`labels`], [`names`]: the keys on objects, and how the name of one object follows from another's.
//! - [`settings`]: the ConfigMaps, parsed once into types that cannot be wrong.
//! - [`headers`], [`probe`], [`stat`], [`ports`]: the wire between activator, queue-proxy and autoscaler.
//! - [`activation`]: how the activator holds and orders a revision's requests.
//! - [`scaling`], [`cron`]: what a revision asks the autoscaler for beyond upstream. [`annotations`]: what is said of such
//!   words that cannot be used.
//! - [`timeline`]: the phases of a wake-up that each process marks.
//! - [`hash`]: which replica owns a key; the same answer in every replica and in upstream's.
// The `kube` derive takes one `printcolumn(…)` per column; clippy reads the repeated names as a mistake.
#![allow(clippy::duplicated_attributes)]

pub mod activation;
pub mod annotations;
pub mod autoscaling;
pub mod caching;
pub mod conditions;
pub mod crds;
pub mod cron;
pub mod duration;
pub mod hash;
pub mod headers;
pub mod labels;
pub mod names;
pub mod networking;
pub mod ports;
pub mod probe;
pub mod scaling;
pub mod serving;
pub mod settings;
pub mod stat;
pub mod timeline;
