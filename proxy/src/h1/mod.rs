//! HTTP/1 on both sides of the hop: our own engine, since this is where the time and the memory of a proxied request go.
//!
//! hyper's HTTP/1 keeps a task, two channels and two 8 KiB buffers per connection to a target, drops a `Content-Length`
//! beside `chunked` before anybody can refuse it, and cannot pass 103 on; the measurements are in
//! `docs/decisions/004-http1-engine.md`. Here a request is one task from socket to socket:
//!
//! 1. [`wire`]: a socket with what was read too early and what is still to be written. Reads go through one buffer per
//!    thread, so that a connection that waits holds none.
//! 2. [`head`] turns bytes into a request or response head ([`target`] is the part about the request target),
//!    [`framing`] decides how long its body is, and refuses what two parsers could read differently. [`lines`] are heads
//!    of answers that are passed on unread, [`fields`] heads of requests of which a hop sees only what it asks for.
//! 3. [`server`]: head → service → answer, on and on, with an eye on the client ([`rest`]: for how long). [`origin`] is
//!    what a request sees of its connection.
//! 4. [`client`]: one exchange with a target: send, pump the body, read the answer. [`added`] are lines that go with many
//!    requests.
//! 5. [`decode`] reads bodies ([`chunked`] is its largest part), [`encode`] writes heads and chunks, [`outgoing`] whole
//!    bodies. [`spare`] keeps small buffers for the next request.
//!
//! [`wire`], [`server`] and [`client`] have the sockets; all the others are pure. h2 stays with hyper.

mod added;
pub(crate) mod chunked;
pub(crate) mod client;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod lines;
pub(crate) mod origin;
pub(crate) mod outgoing;
mod rest;
pub(crate) mod server;
mod spare;
pub(crate) mod target;
pub(crate) mod wire;

pub use added::{Added, Extra};
pub use lines::Lines;
pub use target::RawQuery;
