//! The kinds being served: built in ([`super::builtin`]) and by CustomResourceDefinition ([`super::crd`]).
//!
//! The registry is an immutable table behind an `ArcSwap`; creating or deleting a CRD builds a new one.
use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use super::errors::GroupResource;
use super::schema::Schema;
use super::table::Column;

/// Gives an object in another version (group and version), or says why it has no counterpart there.
pub type Convert = fn(Value, &str) -> Result<Value, String>;

/// How objects change shape between the version asked for and the version stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Conversion {
    /// Only `apiVersion` differs.
    Rename,
    /// `events.k8s.io/v1` Event ↔ core `v1` Event.
    Events,
    /// What a cluster asks a webhook for.
    Hook(Convert),
}

/// Where a kind keeps what its `scale` subresource shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    /// `.spec.replicas`.
    pub(crate) spec_replicas: String,
    /// `.status.replicas`.
    pub(crate) status_replicas: String,
    /// Path of a serialised selector (CRDs); none for `deployments` and `replicasets`, which have a selector object.
    pub(crate) selector: Option<String>,
}

/// One kind in one version.
#[derive(Debug)]
pub(crate) struct Resource {
    /// API group; empty for core.
    pub(crate) group: String,
    /// Version served.
    pub(crate) version: String,
    /// Kind.
    pub(crate) kind: String,
    /// Kind of a list.
    pub(crate) list_kind: String,
    /// Plural name, as in paths.
    pub(crate) plural: String,
    /// Singular name.
    pub(crate) singular: String,
    /// Short names for kubectl.
    pub(crate) short_names: Vec<String>,
    /// Categories, `all`.
    pub(crate) categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Whether there is a `status` subresource.
    pub(crate) status: bool,
    /// Whether there is a `scale` subresource.
    pub(crate) scale: Option<ScalePaths>,
    /// Whether `metadata.generation` counts changes of the specification.
    pub(crate) generation: bool,
    /// Where objects are kept: `group/plural` of the storage side.
    pub(crate) collection: Arc<str>,
    /// `apiVersion` of stored objects.
    pub(crate) storage_api_version: String,
    /// How to get there.
    pub(crate) conversion: Conversion,
    /// Field paths usable in field selectors, besides name and namespace.
    pub(crate) selectable: Vec<String>,
    /// What a valid object looks like.
    pub(crate) schema: Arc<Schema>,
    /// Columns of `kubectl get`.
    pub(crate) columns: Vec<Column>,
    /// From a CRD, not built in.
    pub(crate) custom: bool,
    /// Accepted and answered, never stored (access reviews).
    pub(crate) virtual_only: bool,
}

impl Resource {
    /// Stands in for kinds that are on disk but no longer defined.
    pub(crate) fn unknown() -> Self {
        Self {
            group: String::new(),
            version: String::new(),
            kind: String::new(),
            list_kind: String::new(),
            plural: String::new(),
            singular: String::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            status: false,
            scale: None,
            generation: false,
            collection: "".into(),
            storage_api_version: String::new(),
            conversion: Conversion::Rename,
            selectable: Vec::new(),
            schema: Arc::new(Schema::anything()),
            columns: Vec::new(),
            custom: true,
            virtual_only: false,
        }
    }

    /// `group/version`, or `v1`.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// As error messages name it.
    pub(crate) fn group_resource(&self) -> GroupResource<'_> {
        GroupResource { group: &self.group, plural: &self.plural }
    }

    /// Whether this is a built-in kind by group and plural.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        !self.custom && self.group == group && self.plural == plural
    }
}

/// `group/version`, or the version alone for core.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// All kinds at one moment.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By group, version, plural.
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
}

impl Table {
    /// Finds a kind.
    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// All kinds, ordered by group, version, plural.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The groups but core, each with its versions, the preferred one first.
    pub(crate) fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for resource in self.iter().filter(|resource| !resource.group.is_empty()) {
            let versions = groups.entry(&resource.group).or_default();
            if !versions.contains(&resource.version.as_str()) {
                versions.push(&resource.version);
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        }
        groups
    }

    /// A kind that stores into a collection (any version: they share what the store needs).
    pub(crate) fn by_collection(&self, collection: &str) -> Option<&Arc<Resource>> {
        self.iter()
            .filter(|resource| &*resource.collection == collection)
            .find(|resource| resource.api_version() == resource.storage_api_version)
    }
}

/// Orders `v1` over `v1beta2` over `v1beta1` over `v1alpha1`.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    for (word, rank) in [("alpha", 1), ("beta", 2)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (rank, number(major), number(minor));
        }
    }
    (3, number(rest), 0)
}

/// The table that can change.
#[derive(Debug)]
pub(crate) struct Registry {
    table: ArcSwap<Table>,
}

impl Registry {
    /// A registry of the given kinds.
    pub(crate) fn new(resources: Vec<Resource>) -> Self {
        let registry = Self { table: ArcSwap::default() };
        registry.replace("", resources);
        registry
    }

    /// The kinds now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Replaces all kinds stored in a collection (empty: none) by others.
    pub(crate) fn replace(&self, collection: &str, resources: Vec<Resource>) {
        let resources: Vec<Arc<Resource>> = resources.into_iter().map(Arc::new).collect();
        self.table.rcu(|table| {
            let mut next = table.resources.clone();
            next.retain(|_, resource| !resource.custom || &*resource.collection != collection);
            for resource in &resources {
                let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
                next.insert(key, resource.clone());
            }
            Table { resources: next }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked() {
        let mut versions = ["v1alpha1", "v2", "v1", "v1beta1", "v1beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }
}
