//! One event as a line: JSON, or text with tabs. The order of the parts is zap's.

use std::fmt::{self, Debug, Write as _};
use std::time::SystemTime;

use tracing::Level;
use tracing::field::{Field, Visit};

use super::settings::{Encoding, Settings};

/// Longest text of a field, in bytes: some of it comes from clients and apps.
const MAX_TEXT: usize = 4096;

/// What an event carries.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// Its message.
    pub(super) message: String,
    /// The rest, as `"key":value,"key":value`.
    pub(super) rest: Vec<u8>,
}

impl Fields {
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        push_text(&mut self.rest, value);
    }

    pub(super) fn json(&mut self, key: &str, value: &serde_json::Value) {
        self.raw(key, value);
    }

    fn key(&mut self, key: &str) {
        if !self.rest.is_empty() {
            self.rest.push(b',');
        }
        push_text(&mut self.rest, key);
        self.rest.push(b':');
    }

    fn raw(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        self.rest.extend_from_slice(value.to_string().as_bytes());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = Bounded(String::new());
        if write!(text, "{value:?}").is_err() {
            text.0.push('…');
        }
        if field.name() == "message" {
            self.message = text.0;
        } else {
            self.text(field.name(), &text.0);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Text that stops growing.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_TEXT.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}

/// An event with everything that goes into its line.
pub(super) struct Line<'a> {
    pub(super) level: Level,
    pub(super) at: SystemTime,
    pub(super) logger: &'a str,
    pub(super) caller: &'a str,
    /// Rendered as [`Fields::rest`].
    pub(super) context: &'a [u8],
    pub(super) fields: &'a Fields,
}

impl Line<'_> {
    pub(super) fn render(&self, settings: &Settings) -> Vec<u8> {
        let keys = &settings.keys;
        let time = settings.time.print(self.at);
        // Only the ISO forms are text in JSON; epochs are numbers.
        let time = if settings.time.is_text() { format!("\"{time}\"") } else { time };
        let parts = [
            (&keys.level, Part::Text(settings.level_words.word(self.level))),
            (&keys.time, Part::Raw(&time)),
            (&keys.name, Part::Text(self.logger)),
            (&keys.caller, Part::Text(self.caller)),
            (&keys.message, Part::Text(&self.fields.message)),
        ];
        let mut line = Vec::with_capacity(256 + self.fields.rest.len());
        let parts = parts.into_iter().filter(|(key, _)| !key.is_empty());
        match settings.encoding {
            Encoding::Json => {
                line.push(b'{');
                for (key, part) in parts {
                    push_text(&mut line, key);
                    line.push(b':');
                    part.push_json(&mut line);
                    line.push(b',');
                }
                self.push_fields(&mut line);
            }
            Encoding::Console => {
                // Time comes first where people read.
                let mut parts: Vec<_> = parts.map(|(_, part)| part).collect();
                parts.sort_by_key(|part| matches!(part, Part::Text(_)));
                for part in parts {
                    line.extend_from_slice(part.plain().as_bytes());
                    line.push(b'\t');
                }
                line.push(b'{');
                self.push_fields(&mut line);
            }
        }
        line.extend_from_slice(b"}\n");
        line
    }

    fn push_fields(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(self.context);
        if !self.fields.rest.is_empty() {
            line.push(b',');
            line.extend_from_slice(&self.fields.rest);
        }
    }
}

enum Part<'a> {
    Text(&'a str),
    Raw(&'a str),
}

impl Part<'_> {
    fn push_json(&self, line: &mut Vec<u8>) {
        match self {
            Self::Text(text) => push_text(line, text),
            Self::Raw(raw) => line.extend_from_slice(raw.as_bytes()),
        }
    }

    /// For the console: one line whatever a client put into it.
    fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.replace(['\n', '\r'], " "),
            Self::Raw(raw) => raw.trim_matches('"').to_string(),
        }
    }
}

/// A JSON string.
fn push_text(line: &mut Vec<u8>, text: &str) {
    // Writing text into memory does not fail.
    let _ = serde_json::to_writer(line, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::settings::Keys;

    fn rendered(settings: &Settings, message: &str) -> String {
        let mut fields = Fields { message: message.into(), rest: Vec::new() };
        fields.raw("n", 1);
        let line = Line {
            level: Level::INFO,
            at: SystemTime::UNIX_EPOCH,
            logger: "queueproxy",
            caller: "queue_proxy/x.rs:1",
            context: b"\"k\":\"v\"",
            fields: &fields,
        };
        String::from_utf8(line.render(settings)).unwrap()
    }

    #[test]
    fn an_empty_key_leaves_its_part_out() {
        let keys = Keys { caller: String::new(), name: String::new(), message: "msg".into(), ..Keys::default() };
        let line = rendered(&Settings { keys, ..Settings::default() }, "hi");
        assert_eq!(
            line,
            "{\"severity\":\"INFO\",\"timestamp\":\"1970-01-01T00:00:00Z\",\"msg\":\"hi\",\"k\":\"v\",\"n\":1}\n"
        );
    }

    #[test]
    fn the_console_form_is_one_line_with_tabs() {
        let line = rendered(&Settings { encoding: Encoding::Console, ..Settings::default() }, "two\nlines");
        assert_eq!(
            line,
            "1970-01-01T00:00:00Z\tINFO\tqueueproxy\tqueue_proxy/x.rs:1\ttwo lines\t{\"k\":\"v\",\"n\":1}\n"
        );
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut text = Bounded(String::new());
        assert!(write!(text, "x{}", "é".repeat(MAX_TEXT)).is_err());
        assert_eq!(text.0.len(), MAX_TEXT - 1);
    }
}
