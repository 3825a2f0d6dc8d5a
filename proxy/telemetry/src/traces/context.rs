//! Which trace a request belongs to: read from its headers, written for the next hop.
//!
//! W3C `traceparent` comes first; without one that can be read, B3 is asked ([`super::b3`]), by hops that know it, and
//! then written along in the form it came in. Junk is no trace, never an error. `tracestate` and `baggage` are not touched, but a
//! `tracestate` without its trace goes.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::b3;
use super::ids::{SpanId, TraceId, parse_byte, push_hex};

/// The W3C header of a trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// W3C flag: somebody records this trace.
const SAMPLED: u8 = 1;
/// W3C flag: the trace id is random. Handed on as it came.
const RANDOM: u8 = 2;

/// What the caller said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The trace and the caller's span in it.
    pub ids: Option<(TraceId, SpanId)>,
    /// The caller's decision; `None` leaves it to us.
    pub sampled: Option<bool>,
    /// Headers it came in.
    pub form: Form,
    random: bool,
}

/// The headers a trace came in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// None at all, or none that could be read.
    #[default]
    Nothing,
    /// `traceparent`.
    W3c,
    /// B3.
    B3(b3::Form),
}

/// What the app is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// The trace.
    pub trace: TraceId,
    /// The span that the app's own are children of.
    pub span: SpanId,
    /// That span's parent, which B3 names too.
    pub parent: Option<SpanId>,
    /// Whether it is recorded.
    pub sampled: bool,
}

/// Reads what the caller said; in B3 only if it is asked for.
pub fn read(headers: &HeaderMap, b3: bool) -> Incoming {
    if let Some((trace, span, flags)) = only(headers, &TRACEPARENT).and_then(parse) {
        return Incoming {
            ids: Some((trace, span)),
            sampled: Some(flags & SAMPLED != 0),
            form: Form::W3c,
            random: flags & RANDOM != 0,
        };
    }
    match b3.then(|| b3::read(headers)).flatten() {
        Some(b3) => Incoming { ids: b3.ids, sampled: b3.sampled, form: Form::B3(b3.form), random: false },
        None => Incoming::default(),
    }
}

/// Tells the app, in W3C and, if the trace came so, in B3.
pub fn write(headers: &mut HeaderMap, incoming: &Incoming, outgoing: &Outgoing) {
    let flags = if outgoing.sampled { SAMPLED } else { 0 } | if incoming.random { RANDOM } else { 0 };
    let mut text = Vec::with_capacity(55);
    text.extend_from_slice(b"00-");
    push_hex(&mut text, &outgoing.trace.0);
    text.push(b'-');
    push_hex(&mut text, &outgoing.span.0);
    text.push(b'-');
    push_hex(&mut text, &[flags]);
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        headers.insert(TRACEPARENT, value);
    }
    match incoming.form {
        Form::W3c => {}
        Form::Nothing => drop(headers.remove(TRACESTATE)),
        Form::B3(form) => {
            headers.remove(TRACESTATE);
            b3::write(headers, form, outgoing);
        }
    }
}

/// A header that is there once. Twice is junk: nobody can say which one holds.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

/// Version, trace, span, flags. Versions to come may add fields at the end.
fn parse(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let (head, rest) = text.split_at_checked(55)?;
    let version = parse_byte(&head[..2])?;
    let well_formed = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest.starts_with(b"-"),
    };
    if !well_formed || [head[2], head[35], head[52]] != *b"---" {
        return None;
    }
    Some((TraceId::parse(&head[3..35])?, SpanId::parse(&head[36..52])?, parse_byte(&head[53..])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn text(headers: &HeaderMap, name: &str) -> String {
        headers.get(name).map(|value| value.to_str().unwrap().to_string()).unwrap_or_default()
    }

    #[test]
    fn traceparent_follows_the_table() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        for (value, sampled, random) in [
            (good.clone(), true, false),
            (format!("00-{TRACE}-{SPAN}-00"), false, false),
            (format!("00-{TRACE}-{SPAN}-03"), true, true),
            (format!("00-{TRACE}-{SPAN}-ff"), true, true),
            (format!("cc-{TRACE}-{SPAN}-01"), true, false),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes"), true, false),
        ] {
            let incoming = read(&headers(&[("traceparent", &value)]), true);
            let ids = Some((TraceId::parse(TRACE.as_bytes()).unwrap(), SpanId::parse(SPAN.as_bytes()).unwrap()));
            assert_eq!(incoming, Incoming { ids, sampled: Some(sampled), form: Form::W3c, random }, "{value}");
        }
        for value in [
            "",
            "00",
            "invalid",
            &good[..54],
            &format!("{good}-more"),
            &format!("{good} "),
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("0g-{TRACE}-{SPAN}-01"),
            &format!("cc-{TRACE}-{SPAN}-01.x"),
            &format!("00-{TRACE}-{SPAN}-0A"),
            &format!("00_{TRACE}-{SPAN}-01"),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{}-{SPAN}-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(read(&headers(&[("traceparent", value)]), true), Incoming::default(), "{value}");
        }
        assert_eq!(read(&headers(&[("traceparent", &good), ("traceparent", &good)]), true), Incoming::default());
    }

    #[test]
    fn b3_is_no_trace_for_hops_that_do_not_know_it() {
        let lines = headers(&[("b3", &format!("{TRACE}-{SPAN}-1"))]);
        assert_eq!(read(&lines, false), Incoming::default());
        assert!(read(&lines, true).ids.is_some());
    }

    fn outgoing() -> Outgoing {
        Outgoing { trace: TraceId([0xab; 16]), span: SpanId([0xcd; 8]), parent: Some(SpanId([0xef; 8])), sampled: true }
    }

    #[test]
    fn the_state_stays_with_its_trace_and_goes_without_it() {
        for (parent, expected, state) in [
            (format!("00-{TRACE}-{SPAN}-02"), "03", "a=1"),
            (format!("00-{TRACE}-{SPAN}-01"), "01", "a=1"),
            ("junk".to_string(), "01", ""),
        ] {
            let mut headers = headers(&[("traceparent", &parent), ("tracestate", "a=1"), ("baggage", "b=2")]);
            let incoming = read(&headers, true);
            write(&mut headers, &incoming, &outgoing());
            let written = format!("00-{}-{}-{expected}", "ab".repeat(16), "cd".repeat(8));
            assert_eq!(text(&headers, "traceparent"), written, "{parent}");
            assert_eq!((text(&headers, "tracestate"), text(&headers, "baggage")), (state.into(), "b=2".into()));
        }
    }

    proptest! {
        /// Whatever comes in, no byte of junk goes out, and what was understood is understood again.
        #[test]
        fn junk_neither_panics_nor_leaks(
            values in proptest::collection::vec(("traceparent|tracestate|b3|x-b3-(traceid|spanid|sampled|flags)", "[ -~]{0,70}|(00|ff|cc)-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3](-x)?|[0-9a-f]{16,33}(-[0-9a-f]{16}(-[01d])?)?|[01d]"), 0..6),
        ) {
            let lines: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut headers = headers(&lines);
            let incoming = read(&headers, true);
            let outgoing = outgoing();
            write(&mut headers, &incoming, &outgoing);
            prop_assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
            let again = read(&headers, true);
            prop_assert_eq!(again.ids, Some((outgoing.trace, outgoing.span)));
            prop_assert_eq!(again.sampled, Some(true));
            let clean = |name: &HeaderName| headers[name].as_bytes().iter().all(|byte| b"0123456789abcdef-".contains(byte));
            prop_assert!(clean(&TRACEPARENT) && headers[TRACEPARENT].len() == 55);
            if let Form::B3(form) = incoming.form {
                for name in b3::written(form) {
                    prop_assert!(clean(&name), "{}: {:?}", name, headers[&name]);
                }
            }
            if incoming.form == Form::Nothing {
                prop_assert!(!headers.contains_key(TRACESTATE));
            }
        }
    }
}
