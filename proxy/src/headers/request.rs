//! The headers of a request wherever they are: in its map, or still in the lines that came with it.
//!
//! A server that is told to ([`crate::ServerConfig::keep_lines`]) leaves most headers of HTTP/1 requests as lines, since a
//! hop looks at few of them. Then the map has only what was added, and these functions are how a service sees and changes
//! the whole. [`as_map`] ends it, for whoever must see everything.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request};

use super::Present;
use crate::body::Body;
use crate::errors::Fault;
use crate::h1::fields::Fields;

/// The headers of a request, to look at.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    lines: Option<&'a Fields>,
    map: &'a HeaderMap,
}

impl<'a> Headers<'a> {
    /// Of a request.
    pub fn of(request: &'a Request<Body>) -> Self {
        Self { lines: request.body().fields(), map: request.headers() }
    }

    /// The first value of a header.
    pub fn get(self, name: &HeaderName) -> Option<&'a [u8]> {
        let of_lines = self.lines.and_then(|lines| lines.first(name));
        of_lines.or_else(|| self.map.get(name).map(HeaderValue::as_bytes))
    }

    /// All values of a header, in order.
    pub fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.lines.into_iter().flat_map(move |lines| lines.all(name));
        // Mostly it is empty if there are lines.
        let map = (!self.map.is_empty()).then(|| self.map.get_all(name));
        lines.chain(map.into_iter().flatten().map(HeaderValue::as_bytes))
    }

    /// The first value of a header as text, if it is visible ASCII.
    pub fn text(self, name: &HeaderName) -> Option<&'a str> {
        let value = self.get(name)?;
        let visible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if visible { std::str::from_utf8(value).ok() } else { None }
    }

    /// Which of the headers that a hop looks for are there.
    pub fn present(self) -> Present {
        let map = if self.map.is_empty() { Present::default() } else { Present::of(self.map) };
        self.lines.map_or(map, |lines| lines.present().and(map))
    }

    /// Bytes that they take, about.
    pub fn bytes(self) -> usize {
        let map: usize = self.map.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        map + self.lines.map_or(0, Fields::len)
    }
}

impl<'a> From<&'a HeaderMap> for Headers<'a> {
    fn from(map: &'a HeaderMap) -> Self {
        Self { lines: None, map }
    }
}

/// Takes a header away.
pub fn remove(request: &mut Request<Body>, name: &HeaderName) {
    if let Some(lines) = request.body_mut().fields_mut() {
        lines.remove(name);
    }
    if !request.headers().is_empty() {
        request.headers_mut().remove(name);
    }
}

/// Sets a header, in place of any of this name.
pub fn insert(request: &mut Request<Body>, name: HeaderName, value: HeaderValue) {
    if let Some(lines) = request.body_mut().fields_mut() {
        lines.remove(&name);
    }
    request.headers_mut().insert(name, value);
}

/// Puts all headers into the map.
pub fn as_map(request: &mut Request<Body>) -> Result<(), Fault> {
    let Some(lines) = request.body_mut().take_fields() else { return Ok(()) };
    let mut map = lines.to_map().map_err(|_| Fault::BadRequest("malformed header"))?;
    if !request.headers().is_empty() {
        // What stands in place of a line has taken that away.
        for (name, value) in &std::mem::take(request.headers_mut()) {
            map.append(name, value.clone());
        }
    }
    *request.headers_mut() = map;
    Ok(())
}
