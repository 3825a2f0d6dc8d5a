//! The pods that are listened to, a task each ([`super::stream`]). The engine says which; this holds the tasks.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use api::stat::Stat;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinSet},
};

use super::{
    scrape::Scraper,
    stream::{End, follow},
};
use crate::{decider::Event, key::Key};

/// Most pods listened to at once. Those beyond are asked, as those that cannot tell.
const MOST: usize = 65_536;
/// Files that are left for everything else, kept connections to pods that are asked among it.
const OTHER_FILES: usize = 6 * 1024;

/// What came of listening to a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Its load is this, until it says otherwise.
    Told(Stat),
    /// It is not heard any more.
    Lost,
    /// It must be asked.
    Unable,
}

type Whose = (Key, IpAddr);

/// See the module.
pub struct Listeners {
    scraper: Scraper,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<Whose>,
    running: HashMap<Whose, AbortHandle>,
    most: usize,
}

impl Listeners {
    /// Nobody is listened to yet.
    pub fn new(scraper: Scraper, events: mpsc::Sender<Event>) -> Self {
        let files = usize::try_from(proxy::runtime::file_limit()).unwrap_or(usize::MAX);
        // With few files there are few listeners, and not none.
        let most = MOST.min(files.saturating_sub(OTHER_FILES).max(files / 2));
        Self { scraper, events, tasks: JoinSet::new(), running: HashMap::new(), most }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Listens to a pod of a revision with this private Service; anew, if it did already.
    pub fn listen(&mut self, key: Key, pod: IpAddr, service: &str) {
        let events = self.events.clone();
        let whose = (key.clone(), pod);
        self.hush(&whose);
        let unable = self.running.len() >= self.most;
        let (address, request) = self.scraper.listening(pod, &key, service);
        let task = self.tasks.spawn(async move {
            let tell = |heard| async {
                // The engine is gone only at the end.
                drop(events.send(Event::Heard(key.clone(), pod, heard)).await);
            };
            let end = if unable { Heard::Unable } else { until_the_end(address, request, &tell).await };
            tell(end).await;
            (key, pod)
        });
        self.running.insert(whose, task);
    }

    /// Listens no longer.
    pub fn hush(&mut self, whose: &Whose) {
        if let Some(task) = self.running.remove(whose) {
            task.abort();
        }
    }

    /// Clears away what ended by itself; pends while nothing does.
    pub async fn clear(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, whose))) => self.forget(id, &whose),
            // One that was told to end.
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    fn forget(&mut self, id: Id, whose: &Whose) {
        if self.running.get(whose).is_some_and(|task| task.id() == id) {
            self.running.remove(whose);
        }
    }
}

async fn until_the_end<F: Future<Output = ()>>(
    address: SocketAddr,
    request: String,
    tell: &impl Fn(Heard) -> F,
) -> Heard {
    match follow(address, request, super::scrape::TIMEOUT, |stat| tell(Heard::Told(stat))).await {
        End::Unable => Heard::Unable,
        End::Lost(error) => {
            tracing::debug!(%address, %error, "pod is not heard any more");
            Heard::Lost
        }
    }
}
