//! The shell that all reconcilers share: what is known, what is to be worked on, and how changes are written.
//!
//! [`watch`] (one watch a kind) fills [`store`]s → every change names the [`world::Key`]s it matters to → [`queue`]
//! hands each key to one worker at a time ([`work`]) → a reconciler reads the [`world::World`], writes through
//! [`writer`], whose answers go straight back into the stores.
pub mod packing;
pub mod queue;
pub mod status;
pub mod store;
pub mod tracker;
pub mod watch;
pub mod work;
pub mod world;
pub mod writer;
