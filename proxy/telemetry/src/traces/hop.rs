//! What differs between the processes that trace: their names, their own spans, and which foreign headers they read.
//! Constants only; [`super::record`] turns them and a request into spans.

use super::record::Facts;

/// The most spans of its own that a process makes of one request.
pub const MAX_STAGES: usize = 2;

/// A process as traces know it.
#[derive(Debug, Clone, Copy)]
pub struct Hop {
    /// Name under which HTTP itself is measured.
    pub http_scope: &'static str,
    /// The name that upstream's own spans carry.
    pub own_scope: &'static str,
    /// Whether B3 is read where there is no W3C trace, and written along.
    pub b3: bool,
    /// Whether the server span says which route tag the request came by.
    pub route_tag: bool,
    /// Its own spans, at most [`MAX_STAGES`]. The client span, and with it all that comes after this process, is a child
    /// of the last.
    pub stages: &'static [Stage],
    /// What the client span is called.
    pub client_name: fn(&Facts) -> String,
}

/// A span of the process's own.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// What it is called.
    pub name: &'static str,
    /// The stage that it is part of, by its place among the stages; `None`: of the whole request.
    pub within: Option<usize>,
    /// From when to when.
    pub lasts: Lasts,
}

/// How long a stage lasts. The next hop is "asked" when the request may go out to it for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// From arrival to the last byte.
    WholeRequest,
    /// From arrival until the next hop is asked; to the end of the request if it never is.
    UntilAsked,
    /// From when the next hop is asked to the last byte; no such span if it never is.
    FromAsked,
}
