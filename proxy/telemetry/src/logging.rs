//! A process's own log: one line per thing that changed, in the keys that log pipelines made for Knative know.
//!
//! It is not the request log. [`Settings`] say what a line looks like (a zap configuration laid over the defaults),
//! [`line`] makes one, [`rate`] bounds how many a second may bring. Called by `tracing`; spans are not followed. The level can be changed while the
//! process runs ([`Level`]).

mod line;
mod rate;
mod settings;
pub mod stamp;

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use line::{Fields, Line};
use rate::Sampler;
pub use settings::{Encoding, Keys, LevelWords, Output, Rate, Settings, parse_level};
pub use stamp::TimeFormat;

/// Who writes.
#[derive(Debug, Clone)]
pub struct Process {
    /// The logger's name in every line.
    pub name: &'static str,
    /// Crates whose events are shown down to the level asked for; of others warnings and errors.
    pub crates: &'static [&'static str],
    /// What every line carries besides the configuration's initial fields.
    pub context: Vec<(&'static str, String)>,
}

/// The finest level written, which may change.
#[derive(Debug, Clone)]
pub struct Level(Arc<AtomicUsize>);

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

impl Level {
    fn new(level: LevelFilter) -> Self {
        Self(Arc::new(AtomicUsize::new(Self::number(level))))
    }

    fn number(level: LevelFilter) -> usize {
        LEVELS.iter().position(|known| *known == level).unwrap_or(3)
    }

    /// The finest level that is written now.
    pub fn get(&self) -> LevelFilter {
        LEVELS.get(self.0.load(Ordering::Relaxed)).copied().unwrap_or(LevelFilter::INFO)
    }

    /// Another from now on. Whether that is a change.
    pub fn set(&self, level: LevelFilter) -> bool {
        let changed = self.0.swap(Self::number(level), Ordering::Relaxed) != Self::number(level);
        if changed {
            // Every place that logs remembers whether it is heard.
            tracing::callsite::rebuild_interest_cache();
        }
        changed
    }
}

/// Writes the process's events from now on, and gives the means to change the level. A second call writes nothing.
pub fn start(settings: &Settings, process: &Process) -> Level {
    let logger = Logger::new(settings.clone(), process);
    let level = logger.level.clone();
    let _ = tracing::subscriber::set_global_default(logger);
    level
}

struct Logger {
    settings: Settings,
    level: Level,
    name: &'static str,
    crates: &'static [&'static str],
    /// What every line carries, rendered once.
    context: Vec<u8>,
    /// Not on the request path: taken for events that pass the level only.
    sampler: Mutex<Sampler>,
}

impl Logger {
    fn new(settings: Settings, process: &Process) -> Self {
        let mut context = Fields::default();
        for (key, value) in &settings.initial_fields {
            context.json(key, value);
        }
        for (key, value) in &process.context {
            context.text(key, value);
        }
        Self {
            level: Level::new(settings.level),
            name: process.name,
            crates: process.crates,
            context: context.rest,
            sampler: Mutex::new(Sampler::new(settings.rate)),
            settings,
        }
    }

    fn line(&self, event: &Event<'_>, now: SystemTime) -> Option<Vec<u8>> {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
        if !sampler.admits(*metadata.level(), &fields.message, stamp::since_epoch(now)) {
            return None;
        }
        drop(sampler);
        let caller = caller(metadata.module_path(), metadata.file(), metadata.line());
        let (level, context) = (*metadata.level(), self.context.as_slice());
        let line = Line { level, at: now, logger: self.name, caller: &caller, context, fields: &fields };
        Some(line.render(&self.settings))
    }
}

impl Subscriber for Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let origin = metadata.target().split("::").next().unwrap_or_default();
        let most = self.level.get();
        let most = if self.crates.contains(&origin) { most } else { most.min(LevelFilter::WARN) };
        metadata.is_event() && *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.get())
    }

    fn event(&self, event: &Event<'_>) {
        let Some(line) = self.line(event, SystemTime::now()) else { return };
        // One write, so that lines of several threads do not mix. Nobody to tell if nobody reads.
        let _ = match self.settings.output {
            Output::Stderr => io::stderr().lock().write_all(&line),
            Output::Stdout => io::stdout().lock().write_all(&line),
        };
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// `crate/file.rs:line`: short, and the same wherever it was built.
fn caller(module: Option<&str>, file: Option<&str>, line: Option<u32>) -> String {
    let origin = module.and_then(|module| module.split("::").next()).unwrap_or_default();
    let file = file.unwrap_or_default();
    let file = file.rsplit_once("src/").map_or(file, |(_, file)| file);
    format!("{origin}/{file}:{}", line.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Runs the lines of a closure through a logger; each is given back as it would be written.
    fn logged(settings: Settings, events: impl FnOnce()) -> Vec<String> {
        struct Kept(Logger, Mutex<Vec<String>>);
        impl Subscriber for Kept {
            fn enabled(&self, metadata: &Metadata<'_>) -> bool {
                self.0.enabled(metadata)
            }
            fn new_span(&self, attributes: &Attributes<'_>) -> Id {
                self.0.new_span(attributes)
            }
            fn record(&self, _: &Id, _: &Record<'_>) {}
            fn record_follows_from(&self, _: &Id, _: &Id) {}
            fn enter(&self, _: &Id) {}
            fn exit(&self, _: &Id) {}
            fn event(&self, event: &Event<'_>) {
                let line = self.0.line(event, SystemTime::UNIX_EPOCH);
                self.1.lock().unwrap().extend(line.map(|line| String::from_utf8(line).unwrap()));
            }
        }
        let context = vec![("knative.dev/key", "ns/rev".to_string()), ("knative.dev/pod", "pod1".to_string())];
        let process = Process { name: "queueproxy", crates: &["telemetry"], context };
        let kept = Arc::new(Kept(Logger::new(settings, &process), Mutex::default()));
        tracing::subscriber::with_default(Arc::clone(&kept), events);
        kept.1.lock().unwrap().clone()
    }

    #[test]
    fn a_line_has_the_keys_that_pipelines_know() {
        let lines = logged(Settings::default(), || tracing::warn!(port = 8012, error = %"no \"x\"", "odd {}", 1));
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let start = r#"{"severity":"WARNING","timestamp":"1970-01-01T00:00:00Z","logger":"queueproxy","caller":"telemetry/logging.rs:"#;
        let end =
            r#","message":"odd 1","knative.dev/key":"ns/rev","knative.dev/pod":"pod1","port":8012,"error":"no \"x\""}"#;
        assert!(line.starts_with(start) && line.ends_with(&format!("{end}\n")), "{line}");
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok());
    }

    #[test]
    fn levels_bound_ours_and_others_differ() {
        let debug = Settings { level: LevelFilter::DEBUG, ..Settings::default() };
        let lines = logged(debug, || {
            tracing::debug!("ours");
            tracing::trace!("too fine");
            tracing::debug!(target: "h2::proto", "theirs");
            tracing::error!(target: "h2::proto", "their error");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("\"ours\"") && lines[1].contains("\"their error\""), "{lines:?}");
    }

    #[test]
    fn the_level_follows_its_setting() {
        let level = Level::new(LevelFilter::INFO);
        assert!(!level.set(LevelFilter::INFO), "no change");
        for filter in LEVELS {
            level.set(filter);
            assert_eq!(level.get(), filter);
        }
    }

    #[test]
    fn a_message_is_repeated_a_hundred_times_a_second_and_then_seldom() {
        let lines = logged(Settings::default(), || {
            for n in 0..1000 {
                tracing::warn!(n, "again");
            }
            tracing::warn!("another");
        });
        assert_eq!(lines.len(), 100 + 9 + 1);
    }

    #[test]
    fn callers_are_short() {
        for (module, file, expected) in [
            ("queue_proxy::run", "queue-proxy/src/run.rs", "queue_proxy/run.rs:7"),
            ("h2::proto::x", "/a/registry/src/index/h2-0.4/src/proto/x.rs", "h2/proto/x.rs:7"),
            ("proxy", "lib.rs", "proxy/lib.rs:7"),
        ] {
            assert_eq!(caller(Some(module), Some(file), Some(7)), expected);
        }
    }
}
