//! Watches the API and the processes' marks and puts what it sees on the [`Board`].

use std::sync::Arc;

use api::{
    autoscaling::PodAutoscaler,
    serving::Service,
    timeline::{Mark, Observer},
};
use futures::StreamExt;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::board::Board;

/// Marks on their way to the board. Past this they are dropped: showing must never slow a request down.
const MARKS: usize = 4096;

/// The observer to hand to the processes, and the task that carries its marks to the board.
pub fn marks(board: Arc<Board>) -> (Observer, impl Future<Output = ()>) {
    let (sender, mut receiver) = mpsc::channel::<Mark>(MARKS);
    let observer = Observer::new(move |mark| {
        let _ = sender.try_send(mark);
    });
    (observer, async move {
        while let Some(mark) = receiver.recv().await {
            board.mark(mark);
        }
    })
}

/// Watches Services and PodAutoscalers until `shutdown`.
pub async fn watch(client: Client, board: Arc<Board>, shutdown: CancellationToken) {
    let services = each::<Service>(client.clone(), |s| board.service(s), |s| board.service_gone(s));
    let scales = each::<PodAutoscaler>(client, |p| board.revision(p), |p| board.revision_gone(p));
    tokio::select! {
        () = shutdown.cancelled() => {}
        ((), ()) = async { tokio::join!(services, scales) } => {}
    }
}

async fn each<K>(client: Client, changed: impl Fn(&K), gone: impl Fn(&K))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let stream = watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff();
    futures::pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => changed(&object),
            Ok(watcher::Event::Delete(object)) => gone(&object),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::debug!(%error, kind = %K::kind(&()), "watch broke and starts again"),
        }
    }
}
