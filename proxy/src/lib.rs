//! The HTTP engine that activator and queue-proxy are built on.
//!
//! What comes in is a TCP connection, what goes out is the same request on a pooled connection to a target. In the
//! order a request meets them:
//!
//! 1. [`accept`]: listeners, the accept loop, HTTP/1 or h2c by preface, one task per connection. `h1` is the engine of
//!    HTTP/1, on both sides of the hop; it refuses shapes that two parsers could read differently. h2 is hyper's.
//! 2. [`forward`]: rewrites a request for the next hop, and its answer for the client.
//! 3. [`deadline`]: the three request timeouts, as a pure clock and the two futures that obey it.
//! 4. [`pool`]: connections per target, last in first out, checked before reuse; [`dial`] opens new ones.
//! 5. [`upgrade`]: once both sides said 101, bytes both ways.
//! 6. [`body`]: one streaming body type; accounting ends with its last frame or its drop.
//! 7. [`drain`]: stop accepting, let everything in flight end, know when it has.
//!
//! [`tls`] is for a listener with a certificate, [`certificates`] for one whose files are renewed. [`headers`] holds the pure
//! header rules, and how headers are seen that are no map; [`errors`] every answer a hop makes itself; [`clock`] is the time as
//! a request sees it, [`shutdown`] the signals.
//!
//! It is built for one `current_thread` runtime per core ([`runtime`]): pools and services are not `Send`, there is no
//! lock on the request path. It knows nothing of revisions, probes or concurrency limits.

pub mod accept;
pub mod body;
pub mod certificates;
pub mod clock;
pub mod deadline;
pub mod dial;
pub mod drain;
pub mod errors;
pub mod forward;
mod h1;
pub mod headers;
pub mod pool;
pub mod runtime;
pub mod shutdown;
mod stream;
pub mod tls;
pub mod upgrade;

pub use accept::{Peer, ServerConfig, serve};
pub use body::Body;
pub use drain::Drain;
pub use errors::Fault;
pub use h1::{Added, Extra, Lines, RawQuery};
pub use pool::{Answer, Endpoint, Pool, PoolConfig, SendError};

/// Any error of a body or a service, boxed only once something went wrong.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
