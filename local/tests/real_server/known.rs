//! What the embedded server answers otherwise than the real one, and why that is right or does not matter.
use std::fmt;

use super::compare::Difference;

/// A difference that is meant.
pub(crate) struct Known {
    /// The call; `*` at the end stands for any rest.
    call: &'static str,
    /// The place in its answer; the same. `~` at the start: anywhere in it.
    place: &'static str,
    why: &'static str,
    pub(crate) seen: bool,
}

impl Known {
    pub(crate) fn covers(&self, difference: &Difference) -> bool {
        matches(self.call, &difference.call) && matches(self.place, &difference.place)
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.call, self.place, self.why)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('~'), pattern.strip_suffix('*')) {
        (Some(part), _) => text.contains(part),
        (_, Some(start)) => text.starts_with(start),
        _ => text == pattern,
    }
}

/// All of them.
pub(crate) fn differences() -> Vec<Known> {
    TABLE.iter().map(|&(call, place, why)| Known { call, place, why, seen: false }).collect()
}

const RECORDS: &str = "objects that nobody applies carry no records of who wrote what; one who applies to them owns what \
    is his, and all else belongs to before-first-apply, as in the real server for objects of before such records";
const TYPES: &str = "items of built-in lists say what they are, as those of custom ones do: bytes as they are stored";
const HELP: &str = "the real server's help is its documentation; ours is shorter, or none";
const WORDS: &str = "says what is wrong in other words, or in more of them";
const GO: &str = "the real server's words are those of Go's JSON, with an object in the order of its struct's fields";
const PLUGINS: &str = "written by admission plugins for a scheduler and nodes of which there are none";
const NETWORK: &str = "nothing routes the addresses of Services without a cluster, so they have none";
const ALONE: &str =
    "the real server runs without a controller manager here: what waits for its garbage collector stays";
const TWICE: &str = "of a field that is named twice the last one counts, also for those who want to be strict";
const SELECTED: &str = "an object that leaves a selection is shown as it left it, not as it was before";

const TABLE: &[(&str, &str, &str)] = &[
    ("namespace: *", ".metadata.managedFields", RECORDS),
    ("create*", ".metadata.managedFields", RECORDS),
    ("get*", ".metadata.managedFields", RECORDS),
    ("update*", ".metadata.managedFields", RECORDS),
    ("patch: *", ".metadata.managedFields", RECORDS),
    ("custom: create", ".metadata.managedFields", RECORDS),
    ("custom: get*", ".metadata.managedFields", RECORDS),
    ("custom: update*", ".metadata.managedFields", RECORDS),
    ("custom: patch*", ".metadata.managedFields", RECORDS),
    ("custom: merge*", ".metadata.managedFields", RECORDS),
    ("custom: an unknown field, ignored", ".metadata.managedFields", RECORDS),
    ("finalizer: *", ".metadata.managedFields", RECORDS),
    ("owner: *", ".metadata.managedFields", RECORDS),
    ("list: *", "~managedFields", RECORDS),
    ("table: *", "~managedFields", RECORDS),
    ("metadata: *", "~managedFields", RECORDS),
    ("watch: *", "~managedFields", RECORDS),
    ("deployment: *", "~managedFields", RECORDS),
    ("service: *", ".metadata.managedFields", RECORDS),
    ("pod: *", "~managedFields", RECORDS),
    ("lease: *", ".metadata.managedFields", RECORDS),
    ("secret: *", ".metadata.managedFields", RECORDS),
    ("slice: *", ".metadata.managedFields", RECORDS),
    ("update with another uid", ".message", "the real server names the key in its etcd"),
    ("patch: JSON, a test that fails", ".message", "says which operation failed"),
    ("patch: JSON, a path that is not there", ".message", "says which operation failed"),
    ("patch: JSON, no list", ".message", GO),
    ("patch: merge, no object", ".message", GO),
    ("patch: of another kind", ".message", "says which kinds there are"),
    ("patch: of another kind", ".details", "the real server's answer is another one's for want of a route"),
    ("patch: a wrong type", ".message", GO),
    ("patch: a wrong type", ".details.causes[0].message", GO),
    ("custom: scale of what has none", "~", "a path that nothing serves, not an object that is not there"),
    ("custom: the group's version", "~storageVersionHash", "a hint for the real server's own migrator"),
    ("finalizer: another one while it goes", ".details.causes", "the real server lists the cause twice"),
    ("owner: two controllers", ".message", GO),
    ("owner: two controllers", ".details.causes[0].message", GO),
    ("delete: with an old version", ".message", "the versions of the servers are in it"),
    ("list: app!%3Dx", ".items", ALONE),
    ("list: app%20notin%20(x)", ".items", ALONE),
    ("list: *", "~.apiVersion", TYPES),
    ("list: *", "~.kind", TYPES),
    ("pod: by phase", "~.apiVersion", TYPES),
    ("pod: by phase", "~.kind", TYPES),
    ("list: a page that is none", ".message", WORDS),
    ("list: of custom objects", ".metadata.continue", "empty and absent mean the same"),
    ("table: *", "~.description", HELP),
    ("deployment: table", "~.description", HELP),
    ("pod: table", "~.description", HELP),
    ("a form that is none", ".details", WORDS),
    ("a form that is none", ".message", WORDS),
    ("watch: all of it", "[2].object.metadata.labels", SELECTED),
    ("watch: resumed after the first", "[1].object.metadata.labels", SELECTED),
    ("watch: from what is no version", "status", "the real server answers 500 to a client's mistake"),
    ("watch: from what is no version", ".code", "the real server answers 500 to a client's mistake"),
    ("watch: from what is no version", ".reason", "the real server answers 500 to a client's mistake"),
    ("service: *", "~.spec.clusterIP", NETWORK),
    ("service: *", "~.spec.ipFamil", NETWORK),
    ("pod: *", "~.preemptionPolicy", PLUGINS),
    ("pod: *", "~.priority", PLUGINS),
    ("pod: *", "~.tolerations", PLUGINS),
    ("pod: *", "~.podIPs", "a pod has one address, and the node that writes it says so"),
    ("error: no such path", "", "an answer for programs where the real server has one for people"),
    ("error: no such group", "", "an answer for programs where the real server has one for people"),
    ("error: no JSON", ".message", GO),
    ("error: another kind", ".message", WORDS),
    ("error: a wrong type", ".message", "says which key of the map it is"),
    ("error: twice the same field", "~", TWICE),
];
