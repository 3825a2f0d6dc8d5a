//! A process's own log: one line per thing that changed, in the keys that log pipelines made for Knative know.
//!
//! It is not the request log. [`Settings`] say what a line looks like (a zap configuration laid over the defaults),
//! [`line`] makes one, [`rate`] bounds how many a second may bring. Called by `tracing`; spans are not followed. The level can be changed while the
//! process runs ([`Log::shape`]).

mod line;
mod rate;
mod settings;
pub mod stamp;

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
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

/// A process's log; clones are the same log.
#[derive(Debug, Clone)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    process: Process,
    /// Beside the form, for it is asked at many places that log nothing.
    level: AtomicUsize,
    /// Off the request path: looked at for events that pass the level only.
    form: RwLock<Arc<Form>>,
}

/// How lines look.
#[derive(Debug)]
struct Form {
    settings: Settings,
    /// What every line carries, rendered once.
    context: Vec<u8>,
    sampler: Mutex<Sampler>,
}

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

fn number(level: LevelFilter) -> usize {
    LEVELS.iter().position(|known| *known == level).unwrap_or(3)
}

/// Writes the process's events from now on, and gives the means to change how. A second call writes nothing.
pub fn start(settings: &Settings, process: Process) -> Log {
    let log = Log::new(settings.clone(), process);
    let _ = tracing::subscriber::set_global_default(Logger(log.clone()));
    log
}

impl Log {
    fn new(settings: Settings, process: Process) -> Self {
        let level = AtomicUsize::new(number(settings.level));
        let form = RwLock::new(Arc::new(Form::new(settings, &process)));
        Self(Arc::new(Inner { process, level, form }))
    }

    /// The finest level that is written now.
    pub fn level(&self) -> LevelFilter {
        LEVELS.get(self.0.level.load(Ordering::Relaxed)).copied().unwrap_or(LevelFilter::INFO)
    }

    /// From now on lines are so.
    pub fn shape(&self, settings: Settings) {
        let level = settings.level;
        let form = Arc::new(Form::new(settings, &self.0.process));
        *self.0.form.write().unwrap_or_else(PoisonError::into_inner) = form;
        if self.0.level.swap(number(level), Ordering::Relaxed) != number(level) {
            // Every place that logs remembers whether it is heard.
            tracing::callsite::rebuild_interest_cache();
            tracing::info!(%level, "log level changed");
        }
    }

    /// The line of an event, and where it goes.
    fn line(&self, event: &Event<'_>, now: SystemTime) -> Option<(Vec<u8>, Output)> {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let form = Arc::clone(&self.0.form.read().unwrap_or_else(PoisonError::into_inner));
        let mut sampler = form.sampler.lock().unwrap_or_else(PoisonError::into_inner);
        if !sampler.admits(*metadata.level(), &fields.message, stamp::since_epoch(now)) {
            return None;
        }
        drop(sampler);
        let caller = caller(metadata.module_path(), metadata.file(), metadata.line());
        let (level, logger, context) = (*metadata.level(), self.0.process.name, form.context.as_slice());
        let line = Line { level, at: now, logger, caller: &caller, context, fields: &fields };
        Some((line.render(&form.settings), form.settings.output))
    }
}

impl Form {
    fn new(settings: Settings, process: &Process) -> Self {
        let mut context = Fields::default();
        for (key, value) in &settings.initial_fields {
            context.json(key, value);
        }
        for (key, value) in &process.context {
            context.text(key, value);
        }
        Self { context: context.rest, sampler: Mutex::new(Sampler::new(settings.rate)), settings }
    }
}

struct Logger(Log);

impl Subscriber for Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let origin = metadata.target().split("::").next().unwrap_or_default();
        let most = self.0.level();
        let most = if self.0.0.process.crates.contains(&origin) { most } else { most.min(LevelFilter::WARN) };
        metadata.is_event() && *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level())
    }

    fn event(&self, event: &Event<'_>) {
        let Some((line, output)) = self.0.line(event, SystemTime::now()) else { return };
        // One write, so that lines of several threads do not mix. Nobody to tell if nobody reads.
        let _ = match output {
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
                let line = self.0.0.line(event, SystemTime::UNIX_EPOCH);
                self.1.lock().unwrap().extend(line.map(|(line, _)| String::from_utf8(line).unwrap()));
            }
        }
        let context = vec![("knative.dev/key", "ns/rev".to_string()), ("knative.dev/pod", "pod1".to_string())];
        let process = Process { name: "queueproxy", crates: &["telemetry"], context };
        let kept = Arc::new(Kept(Logger(Log::new(settings, process)), Mutex::default()));
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
    fn the_form_can_change_while_it_is_used() {
        let process = Process { name: "n", crates: &["telemetry"], context: vec![("pod", "p".to_string())] };
        let log = Log::new(Settings::default(), process);
        assert_eq!(log.level(), LevelFilter::INFO);
        let mut settings = Settings { encoding: Encoding::Console, ..Settings::default() };
        for level in LEVELS {
            settings.level = level;
            log.shape(settings.clone());
            assert_eq!(log.level(), level);
        }
        let form = log.0.form.read().unwrap();
        assert_eq!((form.settings.encoding, form.context.as_slice()), (Encoding::Console, &b"\"pod\":\"p\""[..]));
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
