//! `cargo run --release -p benches -- NAME [--quick] [--json]`: one bench, ours and its peers in one run.
//!
//! Each bench is one file and returns [`report::Report`]; this file only picks one and prints what came out. A peer
//! that is not installed is named and left out, never replaced by an old figure. `benches/README.md` keeps the tables.

mod backend;
mod cold_start;
mod cores;
mod head;
mod http;
mod load;
mod namespace;
mod peers;
mod plot;
mod process;
mod queue_proxy;
mod quota;
mod report;
mod system;
mod table;

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
    /// queue-proxy: these subjects only, such as `dormouse,relay,haproxy`; `full` and `log` are further passes of ours.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// queue-proxy: these steps only.
    #[arg(long, value_delimiter = ',')]
    steps: Vec<queue_proxy::Step>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bench {
    /// From a request to a sleeping service until its first byte, by phase; warm latency; memory of each process.
    ColdStart,
    /// The sidecar beside a relay, HAProxy, nginx, Envoy and others: CPU, latency, memory, start.
    QueueProxy,
    /// The gateway's routing table with 100,000 hosts: build, change, look-up, memory.
    Table,
}

fn main() -> anyhow::Result<()> {
    if let Some((listen, backend)) = peers::relay::asked(std::env::args()) {
        return peers::relay::run(&listen, &backend);
    }
    let cli = Cli::parse();
    let report = match cli.name {
        Bench::ColdStart => cold_start::run(cli.quick)?,
        Bench::QueueProxy => queue_proxy::run(cli.quick, &cli.only, &cli.steps)?,
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
