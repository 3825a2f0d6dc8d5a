//! `cargo run --release -p benches -- NAME [--quick] [--json]`: one bench, ours and its peers in one run.
//!
//! Each bench is one file and returns [`report::Report`]; this file only picks one and prints what came out. A peer
//! that is not installed is named and left out, never replaced by an old figure. `benches/README.md` keeps the tables.

mod activator;
mod autoscaler;
mod backend;
mod cluster;
mod cold_start;
mod control;
mod cores;
mod head;
mod held;
mod hop;
mod http;
mod load;
mod namespace;
mod peers;
mod plot;
mod pods;
mod process;
mod queue_proxy;
mod quota;
mod report;
mod system;
mod table;
mod wake;

use clap::{Parser, ValueEnum};

/// Runs one bench and prints its figures.
#[derive(Debug, Parser)]
#[command(name = "benches", max_term_width = 100)]
struct Cli {
    /// Which bench.
    name: Bench,
    /// Fewer samples: ends within a minute.
    #[arg(long)]
    quick: bool,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// The table as `benches/README.md` has it.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// queue-proxy, activator: these subjects only, such as `dormouse,relay,haproxy`; further passes of ours have words
    /// of their own.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// queue-proxy, activator: these steps only.
    #[arg(long, value_delimiter = ',')]
    steps: Vec<hop::Step>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// The door beside a relay, HAProxy, nginx, Envoy: CPU, latency, memory, two threads, many revisions.
    Activator,
    /// Revisions by the ten thousand: CPU and memory of the active, bytes of the idle, time from a report to its write.
    Autoscaler,
    /// From a request to a sleeping service until its first byte, by phase; warm latency; memory of each process.
    ColdStart,
    /// A Service from its create until it is ready: API writes, time; 5,000 Services: memory, changes.
    Control,
    /// The sidecar beside a relay, HAProxy, nginx, Envoy and others: CPU, latency, memory, start.
    QueueProxy,
    /// Requests that wait for one sleeping revision: memory, bound, leaving, order.
    Held,
    /// From a pod that is ready to the first byte at it; 10,000 wake-ups at once; memory of sleeping revisions.
    Wake,
    /// The gateway's routing table with 100,000 hosts: build, change, look-up, memory.
    Table,
}

fn main() -> anyhow::Result<()> {
    if let Some((listen, backend)) = peers::relay::asked(std::env::args()) {
        return peers::relay::run(&listen, &backend);
    }
    let cli = Cli::parse();
    let report = match cli.name {
        Bench::Autoscaler => autoscaler::run(cli.quick)?,
        Bench::ColdStart => cold_start::run(cli.quick)?,
        Bench::Activator => hop::run(&activator::PLAN, cli.quick, &cli.only, &cli.steps)?,
        Bench::Control => control::run(cli.quick)?,
        Bench::Held => held::run(cli.quick)?,
        Bench::Wake => wake::run(cli.quick)?,
        Bench::QueueProxy => hop::run(&queue_proxy::PLAN, cli.quick, &cli.only, &cli.steps)?,
        Bench::Table => table::run(cli.quick)?,
    };
    if cli.json {
        print!("{}", report.to_json_lines());
    } else {
        print!("{}", if cli.markdown { report.to_markdown() } else { report.to_table() });
        if !cli.quick && cli.only.is_empty() && cli.steps.is_empty() {
            for path in report.write_plots()? {
                println!("plot: {}", path.display());
            }
        }
    }
    Ok(())
}
