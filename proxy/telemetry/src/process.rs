//! What the process uses: CPU, memory, files, threads; read from `/proc/self` when somebody looks. The names on a page
//! are those of all Prometheus clients, those of a push OpenTelemetry's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

use crate::otlp::snapshot::Name;

/// The names of all of it, for a [`crate::otlp::snapshot::Catalog`].
pub const NAMES: [Name; 5] = [
    Name::new("process_cpu_seconds_total", "process.cpu.time", "s"),
    Name::up_down("process_resident_memory_bytes", "process.memory.usage", "By"),
    Name::up_down("process_open_fds", "process.open_file_descriptor.count", "{file_descriptor}"),
    Name::up_down("process_threads", "process.thread.count", "{thread}"),
    Name::new("process_start_time_seconds", "process.start_time", "s"),
];

/// A moment of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usage {
    /// User and system time.
    cpu: Duration,
    resident_bytes: u64,
    threads: u64,
}

impl Usage {
    /// Reads `/proc/self/stat`; `ticks`: clock ticks per second, `page`: bytes per page. The second field is the
    /// program's name in parentheses, in which anything may stand: what counts comes after the last of them.
    fn parse(stat: &str, ticks: u64, page: u64) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<u64> = rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
        // Counted from the fourth field of proc(5): utime is the 14th, stime 15th, num_threads 20th, rss 24th.
        let field = |n: usize| fields.get(n - 4).copied();
        Some(Self {
            cpu: Duration::from_secs_f64((field(14)? + field(15)?) as f64 / ticks.max(1) as f64),
            resident_bytes: field(24)?.saturating_mul(page),
            threads: field(20)?,
        })
    }
}

/// A collector for a registry.
#[derive(Debug)]
pub struct Process {
    cpu: Counter,
    memory: Gauge,
    files: Gauge,
    threads: Gauge,
    started: Gauge,
}

impl Process {
    /// The process, from now on; its start is when this is called.
    pub fn new() -> Result<Self, prometheus::Error> {
        let this = Self {
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time.")?,
            memory: Gauge::new("process_resident_memory_bytes", "Memory that is resident.")?,
            files: Gauge::new("process_open_fds", "Open file descriptors.")?,
            threads: Gauge::new("process_threads", "Threads.")?,
            started: Gauge::new("process_start_time_seconds", "Start of the process, seconds since 1970.")?,
        };
        this.started.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        Ok(this)
    }

    fn look(&self) {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64);
        if let Some(usage) = Usage::parse(&stat, ticks, page) {
            self.cpu.inc_by((usage.cpu.as_secs_f64() - self.cpu.get()).max(0.0));
            self.memory.set(usage.resident_bytes as f64);
            self.threads.set(usage.threads as f64);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            // Less the one that reads the directory.
            self.files.set(files.count().saturating_sub(1) as f64);
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = [&self.memory, &self.files, &self.threads, &self.started];
        self.cpu.desc().into_iter().chain(gauges.into_iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        let gauges = [&self.memory, &self.files, &self.threads, &self.started];
        self.cpu.collect().into_iter().chain(gauges.into_iter().flat_map(Collector::collect)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) (b 1) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 3 0 100 4096000 25 184 1 1 0";
        let usage = Usage { cpu: Duration::from_secs(2), resident_bytes: 25 * 4096, threads: 3 };
        assert_eq!(Usage::parse(stat, 100, 4096), Some(usage));
        assert_eq!(Usage::parse("7 (a) S 1", 100, 4096), None);
        assert_eq!(Usage::parse("", 100, 4096), None);
    }

    #[test]
    fn this_process_is_seen() {
        let registry = prometheus::Registry::new();
        registry.register(Box::new(Process::new().unwrap())).unwrap();
        let families = registry.gather();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        for name in NAMES.iter().map(|name| name.prometheus).filter(|name| *name != "process_cpu_seconds_total") {
            assert!(value(name) > 0.0, "{name}");
        }
        assert_eq!(families.len(), NAMES.len(), "each has a name for the push");
    }
}
