//! The queue as tasks see it: added to from anywhere, waited on by the dispatcher.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    queue::{Outcome, Queue},
    world::Key,
};

/// A [`Queue`] of keys that can be waited on.
#[derive(Default)]
pub struct Work {
    queue: Mutex<Queue<Key>>,
    changed: Notify,
}

impl Work {
    /// Something about this key changed.
    pub fn add(&self, key: Key) {
        self.lock().add(key);
        self.changed.notify_one();
    }

    /// Work on a key ended.
    pub fn done(&self, key: Key, outcome: Outcome) {
        self.lock().done(key, outcome, Instant::now());
        self.changed.notify_one();
    }

    /// The next key; waits for one. Only one task may wait.
    pub async fn next(&self) -> Key {
        loop {
            let (key, wake) = {
                let mut queue = self.lock();
                (queue.take(Instant::now()), queue.next_wake())
            };
            if let Some(key) = key {
                return key;
            }
            match wake {
                Some(at) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// A key if one is ready now.
    pub fn try_next(&self) -> Option<Key> {
        self.lock().take(Instant::now())
    }

    /// Keys waiting to be worked on now.
    pub fn depth(&self) -> usize {
        self.lock().depth()
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Key>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
