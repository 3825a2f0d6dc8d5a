//! A zap configuration and a level → [`Settings`]: `SERVING_LOGGING_CONFIG` and `SERVING_LOGGING_LEVEL` of queue-proxy,
//! `zap-logger-config` and `loglevel.activator` of the ConfigMap `config-logging`.
//!
//! The configuration is JSON, laid over the defaults as far as it has a meaning here. What it holds that is not
//! understood is ignored: a log must never keep a process from starting.

use serde_json::{Map, Value};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::stamp::TimeFormat;

/// What lines look like and which are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The finest level written.
    pub level: LevelFilter,
    /// JSON or text.
    pub encoding: Encoding,
    /// Where to.
    pub output: Output,
    /// The names of the parts.
    pub keys: Keys,
    /// How a level is spelled.
    pub level_words: LevelWords,
    /// How a time is spelled.
    pub time: TimeFormat,
    /// How often one message may come.
    pub rate: Rate,
    /// Fields that every line carries.
    pub initial_fields: Map<String, Value>,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object.
    Json,
    /// Parts separated by tabs.
    Console,
}

/// The stream that lines go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output, beside the request log.
    Stdout,
}

/// Names of the parts in a line; an empty name leaves the part out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The level.
    pub level: String,
    /// The time.
    pub time: String,
    /// The logger's name.
    pub name: String,
    /// Where in the source it was said.
    pub caller: String,
    /// The message.
    pub message: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            level: "severity".into(),
            time: "timestamp".into(),
            name: "logger".into(),
            caller: "caller".into(),
            message: "message".into(),
        }
    }
}

/// How a level is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelWords {
    /// `WARNING`, as Google's log wants it.
    Severity,
    /// `warn`.
    Lower,
    /// `WARN`.
    Capital,
}

impl LevelWords {
    /// The word.
    pub fn word(self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Severity, Level::WARN) => "WARNING",
            (Self::Lower, Level::ERROR) => "error",
            (Self::Lower, Level::WARN) => "warn",
            (Self::Lower, Level::INFO) => "info",
            (Self::Lower, _) => "debug",
            (_, Level::ERROR) => "ERROR",
            (_, Level::WARN) => "WARN",
            (_, Level::INFO) => "INFO",
            (_, _) => "DEBUG",
        }
    }
}

/// How often one message may come within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many are written; 0 is no bound.
    pub first: u32,
    /// Then each so-many-th; 0 is none.
    pub then_every: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            level: LevelFilter::INFO,
            encoding: Encoding::Json,
            output: Output::Stderr,
            keys: Keys::default(),
            level_words: LevelWords::Severity,
            time: TimeFormat::default(),
            rate: Rate { first: 100, then_every: 100 },
            initial_fields: Map::new(),
        }
    }
}

impl Settings {
    /// Lays a zap configuration over the defaults; a level that can be read overrides its.
    pub fn parse(zap: &str, level: &str) -> Self {
        let mut settings = Self::default();
        if let Ok(Value::Object(zap)) = serde_json::from_str(zap) {
            settings.lay_over(&zap);
        }
        if !level.is_empty()
            && let Some(level) = parse_level(level)
        {
            settings.level = level;
        }
        settings
    }

    fn lay_over(&mut self, zap: &Map<String, Value>) {
        let text = |key: &str| zap.get(key).and_then(Value::as_str);
        if let Some(level) = text("level").and_then(parse_level) {
            self.level = level;
        }
        if text("encoding") == Some("console") {
            self.encoding = Encoding::Console;
        }
        // Files are not written to: the root file system is read-only, and logs are the kubelet's.
        if let Some(paths) = zap.get("outputPaths").and_then(Value::as_array)
            && paths.iter().any(|path| path == "stdout")
        {
            self.output = Output::Stdout;
        }
        let number =
            |value: Option<&Value>| value.and_then(Value::as_u64).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        if let Some(Value::Object(sampling)) = zap.get("sampling") {
            self.rate.first = number(sampling.get("initial")).unwrap_or(self.rate.first);
            self.rate.then_every = number(sampling.get("thereafter")).unwrap_or(self.rate.then_every);
        }
        if let Some(Value::Object(fields)) = zap.get("initialFields") {
            self.initial_fields.clone_from(fields);
        }
        if let Some(Value::Object(encoder)) = zap.get("encoderConfig") {
            self.lay_encoder_over(encoder);
        }
        if zap.get("disableCaller") == Some(&Value::Bool(true)) {
            self.keys.caller.clear();
        }
    }

    fn lay_encoder_over(&mut self, encoder: &Map<String, Value>) {
        let text = |key: &str| encoder.get(key).and_then(Value::as_str);
        for (key, name) in [
            ("levelKey", &mut self.keys.level),
            ("timeKey", &mut self.keys.time),
            ("nameKey", &mut self.keys.name),
            ("callerKey", &mut self.keys.caller),
            ("messageKey", &mut self.keys.message),
        ] {
            if let Some(text) = text(key) {
                *name = text.to_string();
            }
        }
        if let Some(word) = text("levelEncoder") {
            self.level_words = match word {
                "capital" | "capitalColor" => LevelWords::Capital,
                _ => LevelWords::Lower,
            };
        }
        if let Some(word) = text("timeEncoder") {
            self.time = TimeFormat::named(word);
        }
    }
}

/// A level by zap's words; `None` for any other word. Those above error mean error here: there is nothing above it.
pub fn parse_level(word: &str) -> Option<LevelFilter> {
    Some(match word.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::DEBUG,
        "info" | "" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "dpanic" | "panic" | "fatal" => LevelFilter::ERROR,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_variable_wins_over_the_configuration_and_junk_is_ignored() {
        for (zap, level, expected) in [
            ("", "", LevelFilter::INFO),
            (r#"{"level":"error"}"#, "", LevelFilter::ERROR),
            (r#"{"level":"error"}"#, "debug", LevelFilter::DEBUG),
            (r#"{"level":"error"}"#, "loud", LevelFilter::ERROR),
            (r#"{"level":"loud"}"#, "WARN", LevelFilter::WARN),
            (r#"{"level":7}"#, "fatal", LevelFilter::ERROR),
            ("{", "dpanic", LevelFilter::ERROR),
            ("[]", "", LevelFilter::INFO),
        ] {
            assert_eq!(Settings::parse(zap, level).level, expected, "{zap} {level}");
        }
    }

    /// What upstream's `config-logging` holds when nobody changed it.
    #[test]
    fn the_stock_configuration() {
        let zap = r#"{"level": "info", "development": false, "outputPaths": ["stdout"], "errorOutputPaths": ["stderr"],
            "encoding": "json", "encoderConfig": {"timeKey": "timestamp", "levelKey": "severity", "nameKey": "logger",
            "callerKey": "caller", "messageKey": "message", "stacktraceKey": "stacktrace", "lineEnding": "",
            "levelEncoder": "", "timeEncoder": "iso8601", "durationEncoder": "", "callerEncoder": ""}}"#;
        let expected = Settings {
            output: Output::Stdout,
            level_words: LevelWords::Lower,
            time: TimeFormat::Iso8601,
            ..Settings::default()
        };
        assert_eq!(Settings::parse(zap, ""), expected);
    }

    #[test]
    fn keys_encoders_rate_and_fields_are_laid_over() {
        let zap = r#"{"encoding":"console","sampling":{"initial":5,"thereafter":7},"initialFields":{"a":1},"disableCaller":true,
            "encoderConfig":{"timeKey":"ts","levelKey":"","messageKey":"msg","levelEncoder":"capital","timeEncoder":"millis"}}"#;
        let settings = Settings::parse(zap, "");
        let keys = Keys {
            level: String::new(),
            time: "ts".into(),
            message: "msg".into(),
            caller: String::new(),
            ..Keys::default()
        };
        assert_eq!((settings.encoding, settings.keys), (Encoding::Console, keys));
        assert_eq!(settings.rate, Rate { first: 5, then_every: 7 });
        assert_eq!((settings.level_words, settings.time), (LevelWords::Capital, TimeFormat::Millis));
        assert_eq!(settings.initial_fields.get("a"), Some(&Value::from(1)));
    }

    #[test]
    fn wrong_shapes_change_nothing() {
        for zap in [
            r#"{"encoding":1,"encoderConfig":[],"sampling":true,"outputPaths":"stdout","initialFields":null}"#,
            r#"{"encoderConfig":{"timeKey":1,"levelEncoder":null},"outputPaths":["/var/log/x"],"sampling":{"initial":-1}}"#,
        ] {
            assert_eq!(Settings::parse(zap, ""), Settings::default(), "{zap}");
        }
    }
}
