//! Wake-ups one after the other.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Context;
use tokio::time::sleep;

use super::{Bench, cluster, patiently};
use crate::{
    cluster::{Pods, Revision},
    load::http1::Client,
    peers::{Door, Protocol, Running, door::pod},
    pods::Manner,
    report::quantile,
};

/// Pods of one kind of wake-up.
struct Scene {
    /// What stands before its metrics.
    prefix: &'static str,
    manner: Manner,
    /// Whether a pod that says nothing stands beside it, before it in any order.
    silent_sibling: bool,
    /// An app is ready so long after it was first asked, at most; upstream's rhythm is 200 ms.
    most: Duration,
}

const SCENES: [Scene; 3] = [
    Scene { prefix: "", manner: Manner::Holds, silent_sibling: false, most: Duration::from_millis(20) },
    Scene { prefix: "silent_sibling_", manner: Manner::Holds, silent_sibling: true, most: Duration::from_millis(20) },
    Scene { prefix: "upstream_pod_", manner: Manner::Refuses, silent_sibling: false, most: Duration::from_millis(400) },
];

/// The silent one's address.
const SILENT: Ipv4Addr = Ipv4Addr::new(127, 63, 0, 1);

impl Bench {
    /// So many wake-ups of each kind, each of another revision.
    pub(super) async fn one_by_one(&mut self, wakes: usize) -> anyhow::Result<()> {
        let revisions = 1 + wakes * SCENES.len();
        let running = self.start(Door { revisions, routed: revisions, ..Door::PLAIN }).await?;
        self.pods.place(SILENT, Manner::Silent);
        let mut nth = 1;
        for scene in &SCENES {
            let (mut reported, mut forwarded, mut answered) = (Vec::new(), Vec::new(), Vec::new());
            for wake in 0..wakes {
                let after = scene.most.mul_f64((wake as f64 + 0.5) / wakes as f64);
                let took = patiently("a wake-up", self.wake(&running, scene, nth, after)).await??;
                reported.push(took.reported.as_secs_f64() * 1e6);
                forwarded.push(took.forwarded.as_secs_f64() * 1e6);
                answered.push(took.answered.as_secs_f64() * 1e6);
                nth += 1;
            }
            let prefix = scene.prefix;
            self.add(format!("{prefix}ready_to_first_byte_p50_us"), quantile(&forwarded, 0.5));
            self.add(format!("{prefix}ready_to_first_byte_p99_us"), quantile(&forwarded, 0.99));
            self.add(format!("{prefix}ready_to_answer_p50_us"), quantile(&answered, 0.5));
            if prefix.is_empty() {
                self.add("request_to_report_p50_us", quantile(&reported, 0.5));
                self.add("request_to_report_p99_us", quantile(&reported, 0.99));
            }
        }
        Ok(())
    }

    async fn wake(&self, running: &Running, scene: &Scene, nth: usize, after: Duration) -> anyhow::Result<Took> {
        let cluster = cluster(running)?;
        let revision = Revision { nth, limit: 0, protocol: Protocol::Http1 };
        let pod_ip = pod(nth);
        let pod = self.pods.place(pod_ip, scene.manner);
        let mut client = Client::open(&running.target).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench\r\n\r\n", revision.host());
        let asked = std::time::Instant::now();
        let answer = tokio::task::spawn_local(async move {
            client.exchange(request.as_bytes()).await?;
            anyhow::Ok(std::time::Instant::now())
        });
        cluster.hears_of(revision).await;
        let reported = asked.elapsed();
        let starting: &[Ipv4Addr] = if scene.silent_sibling { &[SILENT, pod_ip] } else { &[pod_ip] };
        cluster.pods(revision, Pods { ready: &[], not_ready: starting, port: self.pods.port });
        pod.asked().await;
        sleep(after).await;
        let ready = pod.make_ready();
        let answered = answer.await??.duration_since(ready);
        let forwarded = pod.first_byte().context("an answer without a request")?.duration_since(ready);
        // It sleeps again, and nobody asks its pods any more.
        cluster.pods(revision, Pods { ready: &[], not_ready: &[], port: self.pods.port });
        Ok(Took { reported, forwarded, answered })
    }
}

/// The parts of a wake-up: from the request to the autoscaler's news of it; from ready to the request's first byte at
/// the pod, and to the client's last.
struct Took {
    reported: Duration,
    forwarded: Duration,
    answered: Duration,
}
