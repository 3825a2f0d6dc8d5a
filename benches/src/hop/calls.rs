//! gRPC-shaped calls: h2c from the client and h2c to the app, many streams on few connections.

use super::{Bench, entry::Entry, requests::RATE};
use crate::{
    load::{self, grpc},
    peers::Protocol,
    report::quantile,
};

const CONNECTIONS: usize = 4;
const STREAMS_ON_EACH: usize = 16;

impl Bench {
    /// CPU and rate in a closed loop, latency at a fixed rate.
    pub(super) async fn calls(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let target = self.target(entry, Protocol::H2c)?;
        let asked = grpc::uri();
        let streams = grpc::streams(&target, CONNECTIONS, STREAMS_ON_EACH).await?;
        let before = entry.cpu();
        let (done, streams) = load::closed_loop(streams, asked.clone(), self.extent.h2_closed).await?;
        if let (Some(before), Some(after)) = (before, entry.cpu()) {
            entry.add("h2_cpu_us_per_request", after.since(before).us() / done.requests as f64);
        }
        entry.add("h2_requests_per_second", done.requests as f64 / done.seconds);
        let took = load::fixed_rate(streams, asked, RATE, self.extent.h2_fixed).await?;
        entry.add("h2_p50_us", quantile(&took, 0.5));
        entry.add("h2_p99_us", quantile(&took, 0.99));
        Ok(())
    }
}
