//! Writing behind: what the store holds reaches the disk in batches, one commit for all that is queued.
//!
//! A write is acknowledged once it is in memory and queued here. **The window:** a crash of the machine or `kill -9`
//! loses what was queued since the running commit began: in practice the last few milliseconds. A clean stop
//! ([`Persist::close`]) loses nothing. The queue is keyed by object, so it never holds more than one entry an object.
//!
//! ResourceVersions never go back: the file holds a mark some way ahead of what was handed out, and a start without
//! a clean stop before it goes on from the mark.
//!
//! Nothing here deletes or repairs a file by force: a file that cannot be read is named in the error and left alone.
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::store::ObjectKey;

const OBJECTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("counters");
const RESOURCE_VERSION: &str = "resource_version";
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;
/// How far the mark on disk runs ahead of the versions handed out.
const AHEAD: u64 = 100_000;
/// Page cache of the database; reads happen only at start, so little is enough.
const CACHE_BYTES: usize = 2 << 20;

/// Why the data directory cannot be used. Messages name the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The directory cannot be made or read.
    #[error("cannot use data directory {path}: {source}; choose another with --data-dir or fix its permissions")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{path} is in use by another process; stop that one or choose another --data-dir")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not ours or is damaged.
    #[error(
        "cannot read {path}: {why}; nothing was changed: move the file away to start empty, or restore a copy of it"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the database said.
        why: String,
    },
}

/// One object as read from disk.
#[derive(Debug)]
pub(crate) struct Record {
    /// `group/plural`.
    pub(crate) collection: String,
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// The object.
    pub(crate) json: Bytes,
}

/// What was on disk.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// All objects.
    pub(crate) records: Vec<Record>,
    /// Where resourceVersions go on.
    pub(crate) resource_version: u64,
}

#[derive(Default)]
struct Queue {
    changes: HashMap<String, Option<Bytes>>,
    resource_version: u64,
    closing: bool,
    failed: Option<String>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The queue's end in the store.
pub(crate) struct Persist {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Persist {
    /// Opens (or makes) the database below a directory, reads everything, starts the writer.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Loaded), PersistError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| PersistError::Directory { path: directory.to_owned(), source })?;
        let path = directory.join("objects.redb");
        let database = open_database(&path)?;
        let loaded =
            load(&database).map_err(|error| PersistError::Broken { path: path.clone(), why: error.to_string() })?;
        let queue = Queue { resource_version: loaded.resource_version, ..Queue::default() };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), wake: Condvar::new() });
        let theirs = shared.clone();
        let writer = std::thread::Builder::new()
            .name("objects-writer".to_owned())
            .spawn(move || write_behind(&theirs, &database, &path))
            .map_err(|source| PersistError::Directory { path: directory.to_owned(), source })?;
        Ok((Self { shared, writer: Mutex::new(Some(writer)) }, loaded))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an object's new state.
    pub(crate) fn put(&self, collection: &str, key: &ObjectKey, json: Bytes, resource_version: u64) {
        self.enqueue(record_key(collection, key), Some(json), resource_version);
    }

    /// Queues an object's removal.
    pub(crate) fn remove(&self, collection: &str, key: &ObjectKey, resource_version: u64) {
        self.enqueue(record_key(collection, key), None, resource_version);
    }

    fn enqueue(&self, key: String, json: Option<Bytes>, resource_version: u64) {
        let mut queue = self.queue();
        queue.changes.insert(key, json);
        queue.resource_version = resource_version;
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// The error of the last commit, if it failed.
    pub(crate) fn health(&self) -> Result<(), String> {
        let queue = self.queue();
        match &queue.failed {
            Some(why) => Err(why.clone()),
            None if queue.closing => Err("the server is stopping".to_owned()),
            None => Ok(()),
        }
    }

    /// Writes what is queued and the exact resourceVersion, then stops the writer.
    pub(crate) fn close(&self, resource_version: u64) {
        {
            let mut queue = self.queue();
            queue.closing = true;
            queue.resource_version = resource_version;
        }
        self.shared.wake.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

fn open_database(path: &Path) -> Result<Database, PersistError> {
    use redb::{DatabaseError, StorageError};
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder.create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => PersistError::InUse { path: path.to_owned() },
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != std::io::ErrorKind::InvalidData => {
            PersistError::Directory { path: path.to_owned(), source }
        }
        other => PersistError::Broken { path: path.to_owned(), why: other.to_string() },
    })
}

fn load(database: &Database) -> Result<Loaded, redb::Error> {
    let setup = database.begin_write()?;
    let format = {
        setup.open_table(OBJECTS)?;
        let mut counters = setup.open_table(COUNTERS)?;
        let format = counters.get(FORMAT)?.map(|value| value.value());
        if format.is_none() {
            counters.insert(FORMAT, FORMAT_NOW)?;
        }
        format.unwrap_or(FORMAT_NOW)
    };
    if format != FORMAT_NOW {
        return Err(redb::Error::Corrupted(format!("format {format} was written by a newer version")));
    }
    setup.commit()?;
    let read = database.begin_read()?;
    let resource_version = read.open_table(COUNTERS)?.get(RESOURCE_VERSION)?.map_or(0, |value| value.value());
    let mut records = Vec::new();
    for entry in read.open_table(OBJECTS)?.iter()? {
        let (key, json) = entry?;
        let mut parts = key.value().splitn(3, '\0');
        if let (Some(collection), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) {
            records.push(Record {
                collection: collection.to_owned(),
                key: ObjectKey::new(namespace, name),
                json: Bytes::copy_from_slice(json.value()),
            });
        }
    }
    Ok(Loaded { records, resource_version })
}

/// The writer thread: takes everything queued, commits it, until closed and empty.
fn write_behind(shared: &Shared, database: &Database, path: &Path) {
    let mut mark = 0;
    loop {
        let (changes, version, closing) = {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.changes.is_empty() && !queue.closing {
                queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            (std::mem::take(&mut queue.changes), queue.resource_version, queue.closing)
        };
        if closing {
            mark = version;
        } else if version >= mark {
            mark = version + AHEAD;
        }
        if let Err(error) = commit(database, &changes, mark) {
            tracing::error!(file = %path.display(), %error, "objects could not be written; further writes are refused");
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.failed = Some(format!("writing {}: {error}", path.display()));
            return;
        }
        if closing {
            return;
        }
    }
}

fn commit(database: &Database, changes: &HashMap<String, Option<Bytes>>, mark: u64) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut objects = write.open_table(OBJECTS)?;
        for (key, json) in changes {
            match json {
                Some(json) => objects.insert(key.as_str(), json.as_ref()).map(drop)?,
                None => objects.remove(key.as_str()).map(drop)?,
            }
        }
        write.open_table(COUNTERS)?.insert(RESOURCE_VERSION, mark)?;
    }
    write.commit()?;
    Ok(())
}

fn record_key(collection: &str, key: &ObjectKey) -> String {
    format!("{collection}\0{}\0{}", key.namespace, key.name)
}
