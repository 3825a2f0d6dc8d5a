//! The sidecar's own log: one line per thing that changed, in the keys that log pipelines made for Knative know.
//!
//! It is not the request log. [`Settings`] say what a line looks like (a zap configuration laid over the defaults),
//! [`line`] makes one, [`rate`] bounds how many a second may bring. Called by `tracing`; spans are not followed.

mod line;
mod rate;
mod settings;
pub(crate) mod stamp;

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use crate::config::Identity;
use line::{Fields, Line};
use rate::Sampler;
pub use settings::{Encoding, Keys, LevelWords, Output, Rate, Settings};
pub use stamp::TimeFormat;

/// Crates whose events are shown down to the level asked for; of others warnings and errors.
const OURS: [&str; 3] = ["queue_proxy", "proxy", "api"];

/// Writes the process's events from now on. A second call changes nothing.
pub fn start(settings: &Settings, identity: &Identity) {
    let _ = tracing::subscriber::set_global_default(Logger::new(settings.clone(), identity));
}

struct Logger {
    settings: Settings,
    /// What every line carries, rendered once.
    context: Vec<u8>,
    /// Not on the request path: taken for events that pass the level only.
    sampler: Mutex<Sampler>,
}

impl Logger {
    fn new(settings: Settings, identity: &Identity) -> Self {
        let mut context = Fields::default();
        for (key, value) in &settings.initial_fields {
            context.json(key, value);
        }
        context.text("knative.dev/key", &format!("{}/{}", identity.namespace, identity.revision));
        context.text("knative.dev/pod", &identity.pod);
        Self { context: context.rest, sampler: Mutex::new(Sampler::new(settings.rate)), settings }
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
        let line = Line { level: *metadata.level(), at: now, caller: &caller, context: &self.context, fields: &fields };
        Some(line.render(&self.settings))
    }
}

impl Subscriber for Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let origin = metadata.target().split("::").next().unwrap_or_default();
        let most = self.settings.level;
        let most = if OURS.contains(&origin) { most } else { most.min(LevelFilter::WARN) };
        metadata.is_event() && *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.settings.level)
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
        let identity =
            Identity { namespace: "ns".into(), revision: "rev".into(), pod: "pod1".into(), ..<_>::default() };
        let kept = Arc::new(Kept(Logger::new(settings, &identity), Mutex::default()));
        tracing::subscriber::with_default(Arc::clone(&kept), events);
        kept.1.lock().unwrap().clone()
    }

    #[test]
    fn a_line_has_the_keys_that_pipelines_know() {
        let lines = logged(Settings::default(), || tracing::warn!(port = 8012, error = %"no \"x\"", "odd {}", 1));
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let start = r#"{"severity":"WARNING","timestamp":"1970-01-01T00:00:00Z","logger":"queueproxy","caller":"queue_proxy/logging.rs:"#;
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
