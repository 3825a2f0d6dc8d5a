//! Values of a log template and how Go prints them.

use std::borrow::Cow;
use std::fmt::Write;

use super::headers::{Headers, print_list};
use super::number::{push_float, push_int};

/// What an expression of a template gives. Texts of the request are borrowed from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Several texts, as the lines of one header.
    List(Vec<Cow<'a, str>>),
    /// All headers.
    Headers(Headers<'a>),
}

impl<'a> Value<'a> {
    /// A text that somebody else keeps.
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// The same value, without a copy of its text.
    pub(super) fn borrow(&'a self) -> Self {
        match self {
            Self::Text(text) => Self::text(text),
            other => other.clone(),
        }
    }

    /// As `%v` prints it.
    pub(super) fn print(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Int(n) => push_int(out, *n),
            Self::Float(n) => push_float(out, *n),
            Self::Bool(yes) => out.extend_from_slice(if *yes { b"true" } else { b"false" }),
            Self::List(list) => print_list(list, out),
            Self::Headers(headers) => headers.print(out),
        }
    }

    /// The same as a text of its own.
    pub(super) fn printed(&self) -> String {
        let mut out = Vec::new();
        self.print(&mut out);
        into_text(out)
    }

    /// For inside a JavaScript string.
    pub(super) fn print_js(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => push_js(out, text),
            other => push_js(out, &other.printed()),
        }
    }

    /// Whether `if` takes it for true: not empty, not zero.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Int(n) => *n != 0,
            Self::Float(n) => *n != 0.0,
            Self::Bool(yes) => *yes,
            Self::List(list) => !list.is_empty(),
            Self::Headers(headers) => headers.len() > 0,
        }
    }

    /// How many elements or bytes it has.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.len()),
            Self::List(list) => Some(list.len()),
            Self::Headers(headers) => Some(headers.len()),
            Self::Int(_) | Self::Float(_) | Self::Bool(_) => None,
        }
    }

    /// One element.
    pub(super) fn index(&self, key: &Value<'_>) -> Option<Self> {
        match (self, key) {
            (Self::List(list), Value::Int(n)) => list.get(usize::try_from(*n).ok()?).cloned().map(Self::Text),
            // A header that is not there is an empty list, as a missing key of a Go map is.
            (Self::Headers(headers), Value::Text(key)) => Some(Self::List(headers.index(key))),
            _ => None,
        }
    }
}

/// What was printed, as a text. It is made of texts, so nothing of it is ever replaced.
pub(super) fn into_text(printed: Vec<u8>) -> String {
    String::from_utf8(printed).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// What has to be escaped inside a JavaScript string, or looked at as a character.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        special[byte] =
            byte < 0x20 || byte >= 0x80 || matches!(byte as u8, b'\\' | b'\'' | b'"' | b'<' | b'>' | b'&' | b'=');
        byte += 1;
    }
    special
};

/// Text for inside a JavaScript string; runs with nothing to escape are copied as they are.
fn push_js(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    loop {
        let clean = rest.bytes().position(|byte| SPECIAL[usize::from(byte)]).unwrap_or(rest.len());
        let (run, special) = rest.split_at_checked(clean).unwrap_or((rest, ""));
        out.extend_from_slice(run.as_bytes());
        let mut chars = special.chars();
        match chars.next() {
            None => return,
            Some(c @ ('\\' | '\'' | '"')) => out.extend_from_slice(&[b'\\', c as u8]),
            Some(c) if !matches!(c, '<' | '>' | '&' | '=' | '\0'..='\x1f') && (c.is_ascii() || printable(c)) => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some(c) => out.extend_from_slice(format!("\\u{:04X}", c as u32).as_bytes()),
        }
        rest = chars.as_str();
    }
}

/// Go's `unicode.IsPrint` beyond ASCII, near enough for a log.
fn printable(c: char) -> bool {
    let format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    !(c.is_control() || c.is_whitespace() || format || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{feff}'))
}

/// `printf`: flags `-` and `0`, width, precision, and the verbs s, v, d, f, q, t, x.
pub(super) fn printf(format: &str, values: &[Value<'_>]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some((text, after)) = rest.split_once('%') {
        out.push_str(text);
        let end = after.find(|c: char| c.is_ascii_alphabetic() || c == '%').unwrap_or(after.len());
        let (options, verb) = (&after[..end], after[end..].chars().next());
        rest = after.get(end + 1..).unwrap_or_default();
        match verb {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match values.next() {
                None => _ = write!(out, "%!{verb}(MISSING)"),
                Some(value) => pad(&mut out, &one(verb, options, value), options),
            },
        }
    }
    out.push_str(rest);
    out
}

fn one(verb: char, options: &str, value: &Value<'_>) -> String {
    let precision = options.split_once('.').map(|(_, digits)| digits.parse().unwrap_or(0).min(64_usize));
    match (verb, value) {
        ('v', _) | ('s', Value::Text(_) | Value::List(_)) | ('d', Value::Int(_)) | ('t', Value::Bool(_)) => {
            let text = value.printed();
            match precision {
                Some(most) if verb == 's' => text.chars().take(most).collect(),
                _ => text,
            }
        }
        ('f', Value::Float(n)) => format!("{n:.0$}", precision.unwrap_or(6)),
        ('q', Value::Text(text)) => format!("{text:?}"),
        ('x', Value::Int(n)) => format!("{n:x}"),
        _ => format!("%!{verb}({})", value.printed()),
    }
}

fn pad(out: &mut String, text: &str, options: &str) {
    let (left, zero) = (options.contains('-'), options.starts_with('0'));
    let width = options.trim_start_matches(['-', '0', '+', ' ', '#']).split('.').next().unwrap_or_default();
    let missing = width.parse().unwrap_or(0).min(256_usize).saturating_sub(text.chars().count());
    let fill = if zero && !left { "0" } else { " " }.repeat(missing);
    let (before, after) = if left { ("", fill.as_str()) } else { (fill.as_str(), "") };
    out.push_str(before);
    out.push_str(text);
    out.push_str(after);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn js_escapes() {
        for (text, escaped) in [
            ("/a?b=c&d", "/a?b\\u003Dc\\u0026d"),
            ("it's \"x\" \\", "it\\'s \\\"x\\\" \\\\"),
            ("<b>\n", "\\u003Cb\\u003E\\u000A"),
            ("é\u{2028}", "é\\u2028"),
        ] {
            let mut out = Vec::new();
            Value::text(text).print_js(&mut out);
            assert_eq!(into_text(out), escaped);
        }
    }

    #[test]
    fn printf_table() {
        let (text, n, f) = (Value::text("ab"), Value::Int(7), Value::Float(0.5));
        for (format, value, printed) in [
            ("%s", &text, "ab"),
            ("<%5s>", &text, "<   ab>"),
            ("<%-4s>", &text, "<ab  >"),
            ("%.1s", &text, "a"),
            ("%q", &text, "\"ab\""),
            ("%d%%", &n, "7%"),
            ("%03d", &n, "007"),
            ("%.3f", &f, "0.500"),
            ("%v", &f, "0.5"),
            ("%d", &text, "%!d(ab)"),
            ("%v %v", &n, "7 %!v(MISSING)"),
            ("50%", &n, "50%!(NOVERB)"),
        ] {
            assert_eq!(printf(format, std::slice::from_ref(value)), printed, "{format}");
        }
    }
}
