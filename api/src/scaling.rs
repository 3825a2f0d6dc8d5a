//! Annotations by which a revision asks the autoscaler for what upstream's does not have: all off by default.
//!
//! Written on the template (`spec.template.metadata.annotations`), read from the PodAutoscaler. [`read`] gives the
//! [`Extras`] and the problems: admission refuses an object that has any; the autoscaler, which may meet an object that
//! passed no admission, leaves out what is wrong. What the words do is in the autoscaler's `algorithm`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::annotations::{Problem, Wrong, read_each};
use crate::cron::Cron;
use crate::duration;

/// What all keys begin with.
pub const PREFIX: &str = "autoscaler.dormouse.dev/";
/// Times at which pods are kept although nobody asks: `CRON for DURATION min PODS`, several separated by `;`. CRON has
/// five fields (minute, hour, day of month, month, day of week) and is in UTC: `0 7 * * 1-5 for 11h min 2`.
pub const KEEP_WARM: &str = "autoscaler.dormouse.dev/keep-warm";
/// `true`: the autoscaler learns how long the revision is usually idle and keeps one pod while the next request is due.
pub const LEARNED_KEEP_WARM: &str = "autoscaler.dormouse.dev/learned-keep-warm";
/// Where Prometheus answers: `http://HOST[:PORT][/PATH]`.
pub const PROMETHEUS_ADDRESS: &str = "autoscaler.dormouse.dev/prometheus-address";
/// What to ask it: PromQL that gives one number, the load of the whole revision in the unit of its metric.
/// `$namespace`, `$revision`, `$service` and `$configuration` are filled in.
pub const PROMETHEUS_QUERY: &str = "autoscaler.dormouse.dev/prometheus-query";

/// Most windows of [`KEEP_WARM`].
pub const MOST_WINDOWS: usize = 16;
/// Longest window of [`KEEP_WARM`].
pub const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Most pods of a window of [`KEEP_WARM`].
pub const MOST_PODS: i32 = 1000;
/// Longest [`PROMETHEUS_QUERY`], in bytes.
pub const LONGEST_QUERY: usize = 2048;
/// Longest [`PROMETHEUS_ADDRESS`], in bytes.
pub const LONGEST_ADDRESS: usize = 512;

/// What a revision asks for beyond upstream.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Extras {
    /// Windows with pods kept; empty = none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_warm: Vec<WarmWindow>,
    /// Whether idle times are learned.
    #[serde(default)]
    pub learned_keep_warm: bool,
    /// Load from Prometheus instead of activators and pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
}

/// One window.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct WarmWindow {
    /// When it opens, in UTC.
    pub opens: Cron,
    /// How long it stays open.
    pub lasts: Duration,
    /// Fewest pods meanwhile.
    pub min_scale: i32,
}

/// A source of load.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Prometheus {
    /// `http://HOST[:PORT][/PATH]`, without a slash at its end.
    pub address: String,
    /// PromQL with placeholders.
    pub query: String,
}

impl Prometheus {
    /// The query for one revision. Names of Kubernetes objects need no quoting in PromQL.
    pub fn query_for(&self, namespace: &str, service: &str, configuration: &str, revision: &str) -> String {
        self.query
            .replace("$namespace", namespace)
            .replace("$service", service)
            .replace("$configuration", configuration)
            .replace("$revision", revision)
    }
}

/// What annotations ask for. What is wrong is left out and told.
pub fn read(annotations: &BTreeMap<String, String>) -> (Extras, Vec<Problem>) {
    let mut extras = Extras::default();
    let (mut address, mut query) = (None, None);
    let mut problems = read_each(annotations, PREFIX, |key, value| {
        match key {
            KEEP_WARM => extras.keep_warm = windows(value)?,
            LEARNED_KEEP_WARM => extras.learned_keep_warm = boolean(value)?,
            PROMETHEUS_ADDRESS => address = Some(plain_http(value)?),
            PROMETHEUS_QUERY => query = Some(promql(value)?),
            _ => return Err(Wrong::UnknownKey),
        }
        Ok(())
    });
    for (key, other) in [(PROMETHEUS_ADDRESS, PROMETHEUS_QUERY), (PROMETHEUS_QUERY, PROMETHEUS_ADDRESS)] {
        if let (Some(value), None) = (annotations.get(key), annotations.get(other)) {
            problems.push(Problem { key: key.to_owned(), value: value.clone(), wrong: Wrong::Needs(other) });
        }
    }
    if let (Some(address), Some(query)) = (address, query) {
        extras.prometheus = Some(Prometheus { address, query });
    }
    (extras, problems)
}

const WANT_WINDOWS: &str =
    "CRON for DURATION min PODS (five fields in UTC, 1m to 24h, 1 to 1000), at most 16 separated by ;";

fn windows(value: &str) -> Result<Vec<WarmWindow>, Wrong> {
    let windows: Option<Vec<WarmWindow>> = value.split(';').take(MOST_WINDOWS + 1).map(window).collect();
    windows.filter(|windows| windows.len() <= MOST_WINDOWS).ok_or(Wrong::Want(WANT_WINDOWS))
}

fn window(text: &str) -> Option<WarmWindow> {
    let (cron, rest) = text.split_once(" for ")?;
    let (lasts, pods) = rest.split_once(" min ")?;
    let lasts = duration::parse(lasts.trim()).ok()?;
    let min_scale = pods.trim().parse().ok()?;
    let valid = (Duration::from_secs(60)..=LONGEST_WINDOW).contains(&lasts) && (1..=MOST_PODS).contains(&min_scale);
    valid.then_some(WarmWindow { opens: cron.trim().parse().ok()?, lasts, min_scale })
}

fn boolean(value: &str) -> Result<bool, Wrong> {
    value.parse().map_err(|_| Wrong::Want("true or false"))
}

fn plain_http(value: &str) -> Result<String, Wrong> {
    let uri: Option<http::Uri> = Some(value).filter(|v| v.len() <= LONGEST_ADDRESS).and_then(|v| v.parse().ok());
    let usable = uri.as_ref().is_some_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.query().is_none()
            && uri.authority().is_some_and(|a| !a.as_str().contains('@') && !a.host().is_empty())
    });
    if usable {
        Ok(value.trim_end_matches('/').to_owned())
    } else {
        Err(Wrong::Want("http://HOST[:PORT][/PATH] without user and query, at most 512 bytes"))
    }
}

fn promql(value: &str) -> Result<String, Wrong> {
    if value.trim().is_empty() || value.len() > LONGEST_QUERY {
        return Err(Wrong::Want("PromQL of 1 to 2048 bytes"));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> (Extras, Vec<Problem>) {
        read(&pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect())
    }

    #[test]
    fn every_annotation_is_read() {
        let (extras, problems) = of(&[
            ("keep-warm", "0 7 * * 1-5 for 11h min 2; 30 6 1 * * for 30m min 1"),
            ("learned-keep-warm", "true"),
            ("prometheus-address", "http://prometheus.monitoring:9090/"),
            ("prometheus-query", "sum(in_flight{ns=\"$namespace\",r=\"$revision\"})"),
        ]);
        assert_eq!(problems, []);
        assert_eq!(extras.keep_warm.len(), 2);
        assert_eq!((extras.keep_warm[0].lasts, extras.keep_warm[0].min_scale), (Duration::from_secs(39_600), 2));
        assert!(extras.learned_keep_warm);
        let source = extras.prometheus.unwrap();
        assert_eq!(source.address, "http://prometheus.monitoring:9090");
        assert_eq!(source.query_for("n", "s", "c", "r"), "sum(in_flight{ns=\"n\",r=\"r\"})");
        assert_eq!(of(&[]), (Extras::default(), vec![]));
    }

    #[test]
    fn what_is_wrong_is_left_out_and_told() {
        let many = vec!["0 0 * * * for 1h min 1"; MOST_WINDOWS + 1].join(";");
        let long = "x".repeat(LONGEST_QUERY + 1);
        let cases = [
            ("keep-warm", "", WANT_WINDOWS),
            ("keep-warm", "0 7 * * for 11h min 2", WANT_WINDOWS),
            ("keep-warm", "0 7 * * * for 25h min 2", WANT_WINDOWS),
            ("keep-warm", "0 7 * * * for 1h min 0", WANT_WINDOWS),
            ("keep-warm", "0 7 * * * for 1h min 1001", WANT_WINDOWS),
            ("keep-warm", "61 7 * * * for 1h min 1", WANT_WINDOWS),
            ("keep-warm", &many, WANT_WINDOWS),
            ("learned-keep-warm", "yes", "true or false"),
            ("prometheus-address", "https://p", "http://HOST"),
            ("prometheus-address", "http://user:secret@p", "http://HOST"),
            ("prometheus-address", "http://p?x=1", "http://HOST"),
            ("prometheus-query", " ", "PromQL of"),
            ("prometheus-query", &long, "PromQL of"),
            ("keep-wram", "x", "no such annotation"),
        ];
        for (key, value, want) in cases {
            let (extras, problems) = of(&[(key, value)]);
            assert_eq!(extras, Extras::default(), "{key}={value}");
            assert!(problems[0].to_string().contains(want), "{problems:?}");
        }
        let (extras, problems) = of(&[("prometheus-query", "up")]);
        assert_eq!((extras.prometheus, problems.len()), (None, 1));
        assert!(problems[0].to_string().ends_with("means nothing without autoscaler.dormouse.dev/prometheus-address"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(key in "[a-z-]{0,20}", value in ".{0,60}") {
            let (_, problems) = of(&[(&key, &value), ("keep-warm", &value)]);
            proptest::prop_assert!(problems.len() <= 3);
        }
    }
}
