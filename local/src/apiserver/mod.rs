//! The API server: stores the objects and serves them to `kubectl`, to the controllers and to the node, as a
//! kube-apiserver would.
//!
//! It is not a cluster: no authentication (it listens on loopback only), no webhooks (admission is a function), one
//! process. A request's way, in the order of the modules:
//!
//! - [`server`] accepts the connection, bounds the body and finds the handler; [`request`] takes the path and query
//!   apart; [`protobuf`] reads the bodies that are not JSON; [`discovery`] and [`openapi`] answer what is served.
//! - [`registry`] knows the kinds: [`builtin`] ones and those of a [`crd`].
//! - [`handlers`]: one file a verb. [`patch`] has the four kinds of patch, [`validate`] checks against the [`schema`],
//!   [`names`] checks metadata, [`strategy`] fills in defaults, [`admission`] asks the control plane, [`convert`]
//!   changes versions, [`selector`] chooses, [`table`] prints.
//! - [`store`] holds the objects and tells watchers, with a bounded [`history`]; [`persist`] writes behind.
//! - [`gc`] deletes what nobody owns and empties namespaces.
//! - [`errors`]: how it all fails, in the real server's words.
pub mod admission;
mod body;
mod builtin;
mod convert;
mod crd;
mod discovery;
mod errors;
mod gc;
mod handlers;
mod history;
mod names;
mod openapi;
mod patch;
mod persist;
mod protobuf;
mod registry;
mod request;
mod schema;
mod selector;
mod server;
mod store;
mod strategy;
mod table;
mod validate;

pub use admission::{Admission, AdmissionDenied, AdmissionRequest, AdmitAll, Operation};
pub use persist::PersistError;
pub use registry::Convert;
pub use server::{ApiServer, Config, Error};
