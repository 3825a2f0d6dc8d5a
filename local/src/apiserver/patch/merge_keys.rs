//! Which lists of the built-in kinds merge item by item, and by which fields: the `patchMergeKey` and `listType`
//! markers of Kubernetes' types, which the generated schemas leave out. Used by strategic merge and by apply.
use crate::apiserver::schema::{ListType, Schema, Shape};

/// A list that merges: its field, a field its items must have (several types use the same list name), its keys for
/// apply (the first is the strategic merge key), whether strategic merge applies at all.
struct Row {
    field: &'static str,
    item_has: &'static str,
    keys: &'static [&'static str],
    strategic: bool,
}

const fn row(field: &'static str, item_has: &'static str, keys: &'static [&'static str], strategic: bool) -> Row {
    Row { field, item_has, keys, strategic }
}

const ROWS: &[Row] = &[
    row("containers", "image", &["name"], true),
    row("initContainers", "image", &["name"], true),
    row("ephemeralContainers", "image", &["name"], true),
    row("volumes", "emptyDir", &["name"], true),
    row("env", "valueFrom", &["name"], true),
    row("volumeMounts", "mountPath", &["mountPath"], true),
    row("volumeDevices", "devicePath", &["devicePath"], true),
    row("ports", "containerPort", &["containerPort", "protocol"], true),
    row("ports", "targetPort", &["port", "protocol"], true),
    row("imagePullSecrets", "name", &["name"], true),
    row("hostAliases", "ip", &["ip"], true),
    row("topologySpreadConstraints", "topologyKey", &["topologyKey", "whenUnsatisfiable"], true),
    row("conditions", "type", &["type"], true),
    row("ownerReferences", "uid", &["uid"], true),
    row("addresses", "address", &["type"], true),
    row("podIPs", "ip", &["ip"], true),
    row("hostIPs", "ip", &["ip"], true),
    row("secrets", "name", &["name"], true),
    row("resourceClaims", "resourceClaimName", &["name"], true),
    row("claims", "name", &["name"], false),
    row("readinessGates", "conditionType", &["conditionType"], false),
];

/// Lists of plain values that merge as sets.
const SETS: &[&str] = &["finalizers"];
/// Maps that apply replaces as a whole.
const ATOMIC: &[&str] = &["selector", "labelSelector", "nodeSelector", "secretKeyRef", "configMapKeyRef", "fieldRef"];

/// Writes the markers into the schema of a built-in field.
pub(crate) fn annotate(field: &str, schema: &mut Schema) {
    if ATOMIC.contains(&field) {
        schema.atomic = true;
    }
    if let Shape::Array(_) = &schema.shape
        && (SETS.contains(&field) || ROWS.iter().any(|row| row.field == field))
    {
        schema.list = ListType::Builtin;
    }
}

/// How a list merges on apply.
pub(crate) fn merging(field: &str, list: &Schema) -> ListType {
    match (&list.list, list.items()) {
        (ListType::Builtin, _) if is_set(field) => ListType::Set,
        (ListType::Builtin, Some(items)) => keys_of(field, items, false)
            .map_or(ListType::Atomic, |keys| ListType::Map(keys.iter().map(|&key| key.to_owned()).collect())),
        (ListType::Builtin, None) => ListType::Atomic,
        (declared, _) => declared.clone(),
    }
}

/// The merge keys of a built-in list of objects, by its field name and its item type; `None`: the list is atomic.
pub(crate) fn keys_of(field: &str, items: &Schema, strategic: bool) -> Option<&'static [&'static str]> {
    ROWS.iter()
        .find(|row| row.field == field && (row.strategic || !strategic) && items.field(row.item_has).is_some())
        .map(|row| row.keys)
}

/// Whether a list of plain values merges as a set.
pub(crate) fn is_set(field: &str) -> bool {
    SETS.contains(&field)
}
