//! B3, Zipkin's headers: one `b3`, or the `X-B3-*` family. Read when there is no `traceparent`, written back in the form
//! they came in, so that an app that knows only B3 keeps its trace.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::context::{Outgoing, only};
use super::ids::{SpanId, TraceId, push_hex};

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const DECISION: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// How a caller spells B3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// One header instead of one per field.
    single: bool,
    /// Trace ids of 64 bits.
    short: bool,
    /// The decision is "sampled, whatever it costs".
    debug: bool,
}

/// What a caller said in B3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct B3 {
    pub(super) ids: Option<(TraceId, SpanId)>,
    pub(super) sampled: Option<bool>,
    pub(super) form: Form,
}

/// The headers with ids in them that a form has.
#[cfg(test)]
pub(super) fn written(form: Form) -> Vec<HeaderName> {
    if form.single { vec![SINGLE] } else { vec![TRACE, SPAN, PARENT] }
}

/// Reads B3; the single header wins. `None`: none, or junk.
pub(super) fn read(headers: &HeaderMap) -> Option<B3> {
    only(headers, &SINGLE).and_then(read_single).or_else(|| read_family(headers))
}

fn read_single(text: &[u8]) -> Option<B3> {
    if text.len() == 1 {
        let (sampled, debug) = decision(text)?;
        return Some(B3 { ids: None, sampled: Some(sampled), form: Form { single: true, short: false, debug } });
    }
    let mut parts = text.split(|byte| *byte == b'-');
    let (trace, short) = trace(parts.next()?)?;
    let span = SpanId::parse(parts.next()?)?;
    let decided = parts.next().map(decision);
    // The parent's parent is no use to us, but junk in its place makes the whole junk.
    if parts.next().is_some_and(|parent| SpanId::parse(parent).is_none()) || parts.next().is_some() {
        return None;
    }
    let (sampled, debug) = match decided {
        None => (None, false),
        Some(decided) => decided.map(|(sampled, debug)| (Some(sampled), debug))?,
    };
    Some(B3 { ids: Some((trace, span)), sampled, form: Form { single: true, short, debug } })
}

fn read_family(headers: &HeaderMap) -> Option<B3> {
    let debug = only(headers, &FLAGS) == Some(b"1");
    let sampled = match only(headers, &DECISION) {
        _ if debug => Some(true),
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    let ids = only(headers, &TRACE).and_then(trace).zip(only(headers, &SPAN).and_then(SpanId::parse));
    let short = matches!(ids, Some(((_, true), _)));
    let ids = ids.map(|((trace, _), span)| (trace, span));
    (ids.is_some() || sampled.is_some()).then_some(B3 { ids, sampled, form: Form { single: false, short, debug } })
}

/// A trace id, and whether it has 64 bits.
fn trace(text: &[u8]) -> Option<(TraceId, bool)> {
    let short = text.len() == 16;
    let id = if short { TraceId::parse_short(text) } else { TraceId::parse(text) };
    id.map(|id| (id, short))
}

/// Sampled or not, and whether for debugging.
fn decision(text: &[u8]) -> Option<(bool, bool)> {
    match text {
        b"0" => Some((false, false)),
        b"1" => Some((true, false)),
        b"d" => Some((true, true)),
        _ => None,
    }
}

/// Writes the app's trace in a form.
pub(super) fn write(headers: &mut HeaderMap, form: Form, outgoing: &Outgoing) {
    let debug = form.debug && outgoing.sampled;
    let decision = if debug {
        "d"
    } else if outgoing.sampled {
        "1"
    } else {
        "0"
    };
    // Only an id that came with 64 bits fits into 64 bits.
    let trace = if form.short { &outgoing.trace.0[8..] } else { &outgoing.trace.0[..] };
    if form.single {
        let mut text = Vec::with_capacity(68);
        push_hex(&mut text, trace);
        text.push(b'-');
        push_hex(&mut text, &outgoing.span.0);
        text.push(b'-');
        text.extend_from_slice(decision.as_bytes());
        if let Some(parent) = outgoing.parent {
            text.push(b'-');
            push_hex(&mut text, &parent.0);
        }
        insert(headers, SINGLE, text);
        return;
    }
    let hex = |bytes: &[u8]| {
        let mut text = Vec::with_capacity(2 * bytes.len());
        push_hex(&mut text, bytes);
        text
    };
    insert(headers, TRACE, hex(trace));
    insert(headers, SPAN, hex(&outgoing.span.0));
    match outgoing.parent {
        Some(parent) => insert(headers, PARENT, hex(&parent.0)),
        None => drop(headers.remove(PARENT)),
    }
    if debug {
        headers.remove(DECISION); // the flag says it; both are not sent
    } else {
        headers.remove(FLAGS);
        headers.insert(DECISION, HeaderValue::from_static(decision));
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: Vec<u8>) {
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SHORT: &str = "64fe8b2a57d3eff7";
    const CALLER: &str = "e457b5a2e4d86bd1";
    const BEFORE: &str = "05e3ac9a4f6e3b90";

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn every_spelling_is_read() {
        let single = |tail: &str| vec![("b3", tail.to_string())];
        let ids = |trace: &str| vec![("x-b3-traceid", trace.to_string()), ("x-b3-spanid", CALLER.to_string())];
        let with = |mut lines: Vec<(&'static str, String)>, more: &[(&'static str, &str)]| {
            lines.extend(more.iter().map(|(name, value)| (*name, (*value).to_string())));
            lines
        };
        // What is said; whether there are ids; the decision; single, short, debug.
        let table = [
            (single(&format!("{LONG}-{CALLER}-1-{BEFORE}")), true, Some(true), (true, false, false)),
            (single(&format!("{LONG}-{CALLER}-0")), true, Some(false), (true, false, false)),
            (single(&format!("{SHORT}-{CALLER}-d")), true, Some(true), (true, true, true)),
            (single(&format!("{SHORT}-{CALLER}")), true, None, (true, true, false)),
            (single("0"), false, Some(false), (true, false, false)),
            (single("1"), false, Some(true), (true, false, false)),
            (single("d"), false, Some(true), (true, false, true)),
            (with(ids(LONG), &[("x-b3-sampled", "1")]), true, Some(true), (false, false, false)),
            (with(ids(SHORT), &[("x-b3-sampled", "false")]), true, Some(false), (false, true, false)),
            (with(ids(SHORT), &[("x-b3-flags", "1")]), true, Some(true), (false, true, true)),
            (ids(LONG), true, None, (false, false, false)),
            (with(vec![], &[("x-b3-sampled", "0")]), false, Some(false), (false, false, false)),
            (with(ids(LONG), &[("b3", "junk"), ("x-b3-sampled", "1")]), true, Some(true), (false, false, false)),
        ];
        for (lines, has_ids, sampled, (single, short, debug)) in table {
            let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let b3 = read(&headers(&lines)).unwrap_or_else(|| panic!("{lines:?}"));
            assert_eq!((b3.ids.is_some(), b3.sampled), (has_ids, sampled), "{lines:?}");
            assert_eq!(b3.form, Form { single, short, debug }, "{lines:?}");
        }
        for junk in [
            "",
            "2",
            &format!("{LONG}-{CALLER}-x"),
            &format!("{LONG}-{CALLER}-1-x"),
            LONG,
            &format!("{LONG}-{CALLER}-1-{BEFORE}-"),
        ] {
            assert_eq!(read(&headers(&[("b3", junk)])), None, "{junk}");
        }
        assert_eq!(read(&headers(&[("x-b3-traceid", LONG)])), None);
        assert_eq!(read(&headers(&[("x-b3-traceid", "junk"), ("x-b3-spanid", CALLER)])), None);
    }

    #[test]
    fn it_is_written_as_it_came() {
        let parse = |text: &str| SpanId::parse(text.as_bytes());
        let outgoing = |sampled| Outgoing {
            trace: TraceId::parse_short(SHORT.as_bytes()).unwrap(),
            span: parse(BEFORE).unwrap(),
            parent: parse(CALLER),
            sampled,
        };
        for (came, sampled, goes) in [
            (format!("{SHORT}-{CALLER}-1"), true, format!("{SHORT}-{BEFORE}-1-{CALLER}")),
            (format!("{SHORT}-{CALLER}-d"), true, format!("{SHORT}-{BEFORE}-d-{CALLER}")),
            (format!("{SHORT}-{CALLER}"), false, format!("{SHORT}-{BEFORE}-0-{CALLER}")),
            ("1".into(), true, format!("0000000000000000{SHORT}-{BEFORE}-1-{CALLER}")),
        ] {
            let mut headers = headers(&[("b3", &came)]);
            let form = read(&headers).unwrap().form;
            write(&mut headers, form, &outgoing(sampled));
            assert_eq!(headers["b3"], goes, "{came}");
            assert_eq!(headers.len(), 1);
        }
        let mut family = headers(&[("x-b3-traceid", SHORT), ("x-b3-spanid", CALLER), ("x-b3-flags", "1")]);
        let form = read(&family).unwrap().form;
        write(&mut family, form, &outgoing(true));
        let expected =
            [("x-b3-traceid", SHORT), ("x-b3-spanid", BEFORE), ("x-b3-flags", "1"), ("x-b3-parentspanid", CALLER)];
        assert_eq!(family, headers(&expected));
    }
}
