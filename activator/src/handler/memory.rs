//! What a connection remembers of its last request. Clients mostly ask for the same host again: to compare it costs less
//! than to look it up, and what the door writes on the request is the same as well.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use proxy::{Added, headers::Present};

use super::identify::Split;
use crate::table::{HostRoute, Table};

/// See the module. One per connection.
#[derive(Debug, Default)]
pub struct Memory(RefCell<Option<Remembered>>);

#[derive(Debug)]
struct Remembered {
    /// Of the table it was found in.
    generation: u64,
    /// As the client wrote it.
    host: HeaderValue,
    route: Arc<HostRoute>,
    lines: Option<Lines>,
}

/// Lines for the requests of one split. Those of another are not remembered beside them: a connection whose requests go
/// by turns here and there would put them together each time.
#[derive(Debug)]
struct Lines {
    /// Path and split within the route.
    way: (usize, usize),
    /// What of [`WHICH`] the request had.
    had: Present,
    /// `None`: they cannot be lines.
    added: Option<Rc<Added>>,
}

/// Headers of a request that the lines depend on.
const WHICH: Present = Present::X_FORWARDED_FOR.and(Present::X_FORWARDED_PROTO);

impl Memory {
    /// The route of a host, if it is that of the last request.
    pub fn route(&self, table: &Table, host: &[u8]) -> Option<Arc<HostRoute>> {
        let memory = self.0.borrow();
        let known = memory.as_ref().filter(|known| known.generation == table.generation());
        known.filter(|known| known.host.as_bytes() == host).map(|known| Arc::clone(&known.route))
    }

    /// Remembers where a host was found, and forgets the one before in any case: they may share a route. `is_header`: it
    /// is that of Host, and not a part of the target as in h2; of such a request nothing is remembered.
    pub fn keep(&self, table: &Table, is_header: bool, host: &[u8], route: &Arc<HostRoute>) {
        let value = HeaderValue::from_bytes(host).ok().filter(|_| is_header);
        *self.0.borrow_mut() = value.map(|host| Remembered {
            generation: table.generation(),
            host,
            route: Arc::clone(route),
            lines: None,
        });
    }

    /// The lines for a request of this host that goes by this split; `make` puts them together, from the host and what
    /// the request arrived with. `None` if the connection has no lines for it.
    pub fn lines(
        &self,
        split: &Split,
        present: Present,
        make: impl FnOnce(&HeaderValue) -> Option<Added>,
    ) -> Option<Rc<Added>> {
        let mut memory = self.0.borrow_mut();
        let known = memory.as_mut().filter(|known| Arc::ptr_eq(&known.route, &split.route))?;
        let had = present.among(WHICH);
        let host = &known.host;
        let lines = known.lines.get_or_insert_with(|| Lines { way: split.way, had, added: make(host).map(Rc::new) });
        if (lines.way, lines.had) == (split.way, had) { lines.added.clone() } else { None }
    }
}
