//! Requests that name many revisions in turn, each with a pod and a connection of its own: what a memory that is
//! colder costs.

use std::rc::Rc;

use super::{Bench, entry::Entry};
use crate::{
    backend::Backend,
    cluster::Revision,
    load::{
        self, Caller,
        http1::{Client, connections},
    },
    peers::{Door, Kind, Peer, Protocol},
};

const CONNECTIONS: usize = 64;

/// Asks for one host after the other, each caller from a place of its own.
struct Rotating {
    client: Client,
    next: usize,
}

impl Caller for Rotating {
    /// A request a host.
    type Asked = Rc<[Rc<[u8]>]>;

    async fn call(&mut self, asked: &Self::Asked) -> anyhow::Result<()> {
        self.next = (self.next + 1) % asked.len();
        self.client.exchange(&asked[self.next]).await.map(drop)
    }
}

impl Bench {
    /// A process of its own for each number of revisions.
    pub(super) async fn rotation(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let many = self.extent.most_revisions;
        let mut first = None;
        for (revisions, metric) in [
            (1, "revisions_1_cpu_us_per_request"),
            (100, "revisions_100_cpu_us_per_request"),
            (many, "revisions_many_cpu_us_per_request"),
        ] {
            entry.running = None;
            let Some(Peer { kind: Kind::Door(door), .. }) = &entry.peer else { return Ok(()) };
            let door = entry
                .peer
                .as_ref()
                .map(|peer| peer.of_kind(Kind::Door(Door { revisions, routed: revisions, awake: revisions, ..*door })));
            let Some(door) = door else { return Ok(()) };
            let backend = Backend::everywhere()?;
            let app = backend.target(Protocol::Http1);
            let running = door.start(app, Protocol::Http1, 0, self.cores).await?;
            let asked: Rc<[Rc<[u8]>]> = (0..revisions).map(request).collect();
            let callers = connections(&running.target, CONNECTIONS).await?;
            let mut callers: Vec<Rotating> = callers
                .into_iter()
                .enumerate()
                .map(|(nth, client)| Rotating { client, next: nth * revisions / CONNECTIONS })
                .collect();
            // Each revision has had a request, and its pod a connection, before anything counts.
            for one in &mut callers {
                for _ in 0..revisions.div_ceil(CONNECTIONS) {
                    one.call(&asked).await?;
                }
            }
            let before = running.cpu();
            let (done, _callers) = load::closed_loop(callers, asked, self.extent.rotation).await?;
            let cpu = running.cpu().since(before).us() / done.requests as f64;
            entry.add(metric, cpu);
            if revisions == many {
                entry.add("revisions_many", many as f64);
                entry.add("revisions_many_rss_kib", running.rss_kib());
                entry.add("ratio_many_to_one_revision", cpu / first.unwrap_or(cpu));
            }
            first = first.or(Some(cpu));
        }
        Ok(())
    }
}

fn request(nth: usize) -> Rc<[u8]> {
    let host = Revision { nth, limit: 0, protocol: Protocol::Http1 }.host();
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n").into_bytes().into()
}
