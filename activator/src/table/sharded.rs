//! The map of hosts: persistent, so that a new version shares with the old one all that did not change.
//!
//! Hosts are spread over a fixed number of shards by their hash. A clone shares every shard; a change copies the shards
//! it touches, once, and no others. One keyed hash (SipHash with random keys: hosts are chosen by whoever asks) picks
//! the shard and the place in it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::host::dots;

use super::{HostRoute, MAX_HOST, Pattern};
use crate::certificates::CertificateSlot;

/// With 100,000 hosts, about a hundred to copy for one that changes, and a list of 8 KiB to copy for each new version.
const SHARDS: usize = 1024;

/// A host with all there is to know of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which hosts.
    pub pattern: Pattern,
    /// Where requests for them go.
    pub route: Arc<HostRoute>,
    /// Their certificate, if the Ingress names one.
    pub certificate: Option<Arc<CertificateSlot>>,
}

/// All hosts. Reads only go down; writes are the control thread's.
#[derive(Debug, Clone)]
pub struct Table {
    shards: Box<[Arc<HashTable<Entry>>]>,
    hasher: RandomState,
    /// How many wildcards have a suffix of so many labels.
    wildcards: [u32; 128],
    /// Bit n: some wildcard has a suffix of n labels; so a host is looked up only at depths where one could be.
    depths: u128,
    len: usize,
    /// Which of the published tables.
    generation: u64,
}

impl Default for Table {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        Self {
            shards: std::iter::repeat_n(empty, SHARDS).collect(),
            hasher: RandomState::new(),
            wildcards: [0; 128],
            depths: 0,
            len: 0,
            generation: 0,
        }
    }
}

impl Table {
    /// The route of a host as [`super::normalize`] gives it; an exact name before a wildcard, the longest wildcard
    /// first, the catch-all last.
    pub fn host(&self, host: &str) -> Option<&Arc<HostRoute>> {
        self.entry(host).map(|entry| &entry.route)
    }

    /// [`Table::host`], with what else is known of the host.
    pub fn entry(&self, host: &str) -> Option<&Entry> {
        if host.len() > MAX_HOST {
            return None;
        }
        if let Some(found) = self.find(host, false) {
            return Some(found);
        }
        if self.depths == 0 {
            return None;
        }
        let (mut rest, mut labels) = (host, dots(host));
        while let Some((_, suffix)) = rest.split_once('.') {
            let possible = u32::try_from(labels).ok().and_then(|depth| self.depths.checked_shr(depth));
            if possible.is_some_and(|depths| depths & 1 == 1)
                && let Some(found) = self.find(suffix, true)
            {
                return Some(found);
            }
            (rest, labels) = (suffix, labels.saturating_sub(1));
        }
        if self.depths & 1 == 1 { self.find("", true) } else { None }
    }

    /// A number that no other published table has.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// It will be published, and differs from all that were.
    pub(super) fn next_generation(&mut self) {
        self.generation += 1;
    }

    /// Hosts known.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no host is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// What is known of exactly this pattern.
    pub(super) fn get(&self, pattern: &Pattern) -> Option<&Entry> {
        self.find(pattern.name(), pattern.is_wildcard())
    }

    /// Adds an entry in the place of one with the same pattern, which is returned.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        let (name, wildcard) = (entry.pattern.name(), entry.pattern.is_wildcard());
        let hash = hash(&self.hasher, name, wildcard);
        let shard = Arc::make_mut(self.shards.get_mut(shard_of(hash))?);
        if let Some(known) = shard.find_mut(hash, |known| known.pattern == entry.pattern) {
            return Some(std::mem::replace(known, entry));
        }
        if wildcard {
            let depth = entry.pattern.labels();
            if let Some(count) = self.wildcards.get_mut(depth) {
                *count += 1;
                self.depths |= 1 << depth;
            }
        }
        let hasher = &self.hasher;
        shard.insert_unique(hash, entry, |entry| hash_of(hasher, &entry.pattern));
        self.len += 1;
        None
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, pattern: &Pattern) -> Option<Entry> {
        let hash = hash_of(&self.hasher, pattern);
        let shard = self.shards.get_mut(shard_of(hash))?;
        shard.find(hash, |known| known.pattern == *pattern)?;
        let found = Arc::make_mut(shard).find_entry(hash, |known| known.pattern == *pattern).ok()?;
        let (removed, _) = found.remove();
        if pattern.is_wildcard()
            && let Some(count) = self.wildcards.get_mut(pattern.labels())
        {
            *count -= 1;
            if *count == 0 {
                self.depths &= !(1 << pattern.labels());
            }
        }
        self.len -= 1;
        Some(removed)
    }

    fn find(&self, name: &str, wildcard: bool) -> Option<&Entry> {
        let hash = hash(&self.hasher, name, wildcard);
        self.shards
            .get(shard_of(hash))?
            .find(hash, |entry| entry.pattern.name() == name && entry.pattern.is_wildcard() == wildcard)
    }
}

fn hash_of(hasher: &RandomState, pattern: &Pattern) -> u64 {
    hash(hasher, pattern.name(), pattern.is_wildcard())
}

fn hash(hasher: &RandomState, name: &str, wildcard: bool) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(name.as_bytes());
    state.write_u8(u8::from(wildcard));
    state.finish()
}

/// From the middle of the hash: a shard's own table uses both ends.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}
