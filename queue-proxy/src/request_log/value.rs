//! Values of a log template and how Go prints them.

use std::fmt::Write;

/// What an expression of a template gives.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Several texts, as the lines of one header.
    List(Vec<String>),
    /// All headers.
    Headers(Vec<(String, Vec<String>)>),
}

impl Value {
    /// As `%v` prints it.
    pub(super) fn print(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Int(n) => n.to_string(),
            Self::Float(n) => float(*n),
            Self::Bool(yes) => yes.to_string(),
            Self::List(list) => format!("[{}]", list.join(" ")),
            Self::Headers(headers) => {
                let lines: Vec<String> =
                    headers.iter().map(|(name, values)| format!("{name}:[{}]", values.join(" "))).collect();
                format!("map[{}]", lines.join(" "))
            }
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
            Self::Headers(headers) => !headers.is_empty(),
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
    pub(super) fn index(&self, key: &Self) -> Option<Self> {
        match (self, key) {
            (Self::List(list), Self::Int(n)) => list.get(usize::try_from(*n).ok()?).cloned().map(Self::Text),
            // A header that is not there is an empty list, as a missing key of a Go map is.
            (Self::Headers(headers), Self::Text(key)) => {
                let found = headers.iter().find(|(name, _)| name == key);
                Some(Self::List(found.map(|(_, values)| values.clone()).unwrap_or_default()))
            }
            _ => None,
        }
    }
}

/// Shortest digits that read back the same; exponent form below 1e-4 and from 1e21.
fn float(n: f64) -> String {
    let scientific = format!("{n:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return n.to_string() };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if n == 0.0 || (-4..21).contains(&exponent) {
        return n.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Text for inside a JavaScript string.
pub(super) fn js(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => escaped.extend(['\\', c]),
            '<' | '>' | '&' | '=' | '\0'..='\x1f' => _ = write!(escaped, "\\u{:04X}", c as u32),
            c if c.is_ascii() || printable(c) => escaped.push(c),
            c => _ = write!(escaped, "\\u{:04X}", c as u32),
        }
    }
    escaped
}

/// Go's `unicode.IsPrint` beyond ASCII, near enough for a log.
fn printable(c: char) -> bool {
    let format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    !(c.is_control() || c.is_whitespace() || format || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{feff}'))
}

/// `printf`: flags `-` and `0`, width, precision, and the verbs s, v, d, f, q, t, x.
pub(super) fn printf(format: &str, values: &[Value]) -> String {
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

fn one(verb: char, options: &str, value: &Value) -> String {
    let precision = options.split_once('.').map(|(_, digits)| digits.parse().unwrap_or(0).min(64_usize));
    match (verb, value) {
        ('v', _) | ('s', Value::Text(_) | Value::List(_)) | ('d', Value::Int(_)) | ('t', Value::Bool(_)) => {
            let text = value.print();
            match precision {
                Some(most) if verb == 's' => text.chars().take(most).collect(),
                _ => text,
            }
        }
        ('f', Value::Float(n)) => format!("{n:.0$}", precision.unwrap_or(6)),
        ('q', Value::Text(text)) => format!("{text:?}"),
        ('x', Value::Int(n)) => format!("{n:x}"),
        _ => format!("%!{verb}({})", value.print()),
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
    fn floats_print_as_go_prints_them() {
        for (n, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.0123, "0.0123"),
            (0.0001, "0.0001"),
            (0.000_099, "9.9e-05"),
            (1.5e-7, "1.5e-07"),
            (123_456_789.0, "123456789"),
            (1e21, "1e+21"),
        ] {
            assert_eq!(float(n), text);
        }
    }

    #[test]
    fn js_escapes() {
        for (text, escaped) in [
            ("/a?b=c&d", "/a?b\\u003Dc\\u0026d"),
            ("it's \"x\" \\", "it\\'s \\\"x\\\" \\\\"),
            ("<b>\n", "\\u003Cb\\u003E\\u000A"),
            ("é\u{2028}", "é\\u2028"),
        ] {
            assert_eq!(js(text), escaped);
        }
    }

    #[test]
    fn printf_table() {
        let (text, n, f) = (Value::Text("ab".into()), Value::Int(7), Value::Float(0.5));
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
