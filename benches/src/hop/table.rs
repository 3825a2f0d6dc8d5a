//! From samples to the table and the plot: medians, differences and ratios, in the order in which they are read.

use super::entry::Entry;
use crate::{plot, report::Subject};

/// Metrics in the order of the table.
const METRICS: [&str; 42] = [
    "cpu_us_per_request",
    "awake_cpu_us_per_request",
    "cpu_user_us_per_request",
    "cpu_system_us_per_request",
    "requests_per_second",
    "lines_per_request",
    "p50_us",
    "p99_us",
    "p50_1conn_us",
    "rss_idle_kib",
    "rss_load_kib",
    "start_to_first_answer_us",
    "kib_per_idle_connection",
    "kib_per_request_in_flight",
    "kib_per_websocket",
    "binary_kib",
    "mib_per_second_down",
    "mib_per_second_up",
    "cpu_us_per_mib_down",
    "cpu_us_per_mib_up",
    "h2_cpu_us_per_request",
    "h2_requests_per_second",
    "h2_p50_us",
    "h2_p99_us",
    "quota25m_requests_per_second",
    "path_p50_us",
    "path_p99_us",
    "path_5k_p50_us",
    "path_5k_p99_us",
    "path_5k_cpu_us_per_request",
    "threads1_cpu_us_per_request",
    "threads2_cpu_us_per_request",
    "threads1_quota_requests_per_second",
    "threads2_quota_requests_per_second",
    "scaling_by_cpu",
    "scaling_by_quota",
    "revisions_1_cpu_us_per_request",
    "revisions_100_cpu_us_per_request",
    "revisions_many_cpu_us_per_request",
    "revisions_many",
    "revisions_many_rss_kib",
    "ratio_many_to_one_revision",
];

/// What of, to whom, and what the ratio is called.
const RATIOS: [(&str, &str, &str); 4] = [
    ("cpu_us_per_request", "relay", "cpu_ratio_to_relay"),
    ("cpu_us_per_request", "haproxy", "cpu_ratio_to_haproxy"),
    ("awake_cpu_us_per_request", "relay", "awake_cpu_ratio_to_relay"),
    ("awake_cpu_us_per_request", "haproxy", "awake_cpu_ratio_to_haproxy"),
];

/// Medians; a further pass of a subject stands in the row of its first.
pub(super) fn subjects(entries: &[Entry]) -> Vec<Subject> {
    let direct = entries.iter().find(|entry| entry.peer.is_none()).and_then(|entry| entry.median("p50_1conn_us"));
    let mut subjects: Vec<Subject> = Vec::new();
    for entry in entries {
        let mut metrics = Vec::new();
        for name in METRICS {
            let Some(value) = entry.median(name) else { continue };
            // Small ones keep a decimal.
            metrics.push((format!("{}{name}", entry.prefix), if value >= 100.0 { value.round() } else { value }));
            match name {
                "cpu_us_per_request" | "awake_cpu_us_per_request" => metrics.extend(ratios(entries, entry, name)),
                "p50_1conn_us" if entry.peer.is_some() => {
                    metrics
                        .extend(direct.map(|direct| (format!("{}added_p50_1conn_us", entry.prefix), value - direct)));
                }
                _ => {}
            }
        }
        if !entry.prefix.is_empty() {
            // The same program as in the first pass.
            metrics.retain(|(name, _)| !name.ends_with("binary_kib"));
        }
        match subjects.iter_mut().find(|subject| subject.name == entry.name) {
            Some(subject) => subject.metrics.extend(metrics),
            None => subjects.push(Subject { name: entry.name, metrics }),
        }
    }
    subjects
}

fn ratios(entries: &[Entry], entry: &Entry, of: &str) -> impl Iterator<Item = (String, f64)> {
    RATIOS.iter().filter(move |(metric, ..)| *metric == of).filter_map(|(metric, other, name)| {
        let other = entries.iter().find(|e| e.name == *other && !std::ptr::eq(*e, entry))?;
        Some((format!("{}{name}", entry.prefix), entry.median_ratio(other, metric)?))
    })
}

pub(super) fn plot(title: &str, entries: &[Entry]) -> String {
    let panel = |title: &'static str, metric: &str, scale: f64| {
        let bar = |entry: &Entry| Some((entry.name, entry.median(metric)? / scale));
        let bars = entries.iter().filter(|entry| entry.prefix.is_empty()).filter_map(bar).collect();
        plot::Panel { title, bars }
    };
    plot::panels(
        title,
        &[
            panel("CPU per request, µs", "cpu_us_per_request", 1.0),
            panel("p99 at 1,000 requests/s, µs", "p99_us", 1.0),
            panel("memory under load, MiB", "rss_load_kib", 1024.0),
            panel("memory per idle connection, KiB", "kib_per_idle_connection", 1.0),
            panel("start to first answer, ms", "start_to_first_answer_us", 1000.0),
            panel("p50 with one connection, µs", "p50_1conn_us", 1.0),
            panel("CPU per gRPC-shaped call, h2c both sides, µs", "h2_cpu_us_per_request", 1.0),
            panel("memory per WebSocket, KiB", "kib_per_websocket", 1.0),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{Kind, Peer};

    fn ours(prefix: &'static str) -> Entry {
        Entry::new("dormouse", prefix, Some(Peer::built(Kind::Sidecar, "/x".as_ref())))
    }

    fn row(subject: &Subject) -> Vec<(&str, f64)> {
        subject.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect()
    }

    #[test]
    fn a_further_pass_stands_in_the_row_of_the_first() {
        let mut entries = vec![ours(""), ours("full_"), Entry::new("direct", "", None)];
        for (entry, values) in entries.iter_mut().zip([[30.0, 50.0, 40.0], [60.0, 60.0, 61.0], [10.0, 12.0, 11.0]]) {
            for value in values {
                entry.add("p50_1conn_us", value);
            }
        }
        let subjects = subjects(&entries);
        assert_eq!(subjects.len(), 2);
        assert_eq!(
            row(&subjects[0]),
            [
                ("p50_1conn_us", 40.0),
                ("added_p50_1conn_us", 29.0),
                ("full_p50_1conn_us", 60.0),
                ("full_added_p50_1conn_us", 49.0)
            ]
        );
        assert_eq!(row(&subjects[1]), [("p50_1conn_us", 11.0)]);
    }

    #[test]
    fn nobody_is_compared_with_itself_or_with_whom_is_not_there() {
        let mut entries = vec![ours(""), Entry::new("relay", "", None)];
        entries[0].add("cpu_us_per_request", 30.0);
        entries[1].add("cpu_us_per_request", 20.0);
        let subjects = subjects(&entries);
        assert_eq!(row(&subjects[0]), [("cpu_us_per_request", 30.0), ("cpu_ratio_to_relay", 1.5)]);
        assert_eq!(row(&subjects[1]), [("cpu_us_per_request", 20.0)]);
    }
}
