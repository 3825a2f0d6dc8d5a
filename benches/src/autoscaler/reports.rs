//! An activator's reports.

use std::{net::SocketAddr, time::Duration};

use api::stat::{Stat, WireStatMessage, WireStatMessages};
use futures::SinkExt;
use prost::Message as _;
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::objects;

/// Frames a second: revisions are spread over them.
const FRAMES: usize = 20;

pub(super) struct Reporter(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Reporter {
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/")).await?;
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_nodelay(true)?;
        }
        Ok(Self(socket))
    }

    /// One frame: revisions and what is in flight for each.
    pub(super) async fn report(&mut self, loads: impl Iterator<Item = (usize, f64)>) -> anyhow::Result<()> {
        let messages = loads
            .map(|(nth, load)| WireStatMessage {
                namespace: objects::NAMESPACE.to_owned(),
                name: objects::name(nth),
                stat: Some(Stat {
                    pod_name: "activator".to_owned(),
                    average_concurrent_requests: load,
                    request_count: load * 5.0,
                    ..Stat::default()
                }),
            })
            .collect();
        Ok(self.0.send(Message::Binary(WireStatMessages { messages }.encode_to_vec().into())).await?)
    }

    /// Reports all revisions once a second, with a load that three pods can take and some noise.
    pub(super) async fn keep_reporting(mut self, revisions: usize) -> anyhow::Result<()> {
        let mut ticks = interval(Duration::from_secs(1) / FRAMES as u32);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for turn in 0_usize.. {
            ticks.tick().await;
            // 150 in flight at 70 a pod are three pods, and stay so with the noise.
            let noise = |nth: usize| (nth.wrapping_mul(31).wrapping_add(turn.wrapping_mul(17)) % 21) as f64;
            let load = |nth: usize| 145.0 + noise(nth);
            self.report((0..revisions).skip(turn % FRAMES).step_by(FRAMES).map(|nth| (nth, load(nth)))).await?;
        }
        Ok(())
    }
}
