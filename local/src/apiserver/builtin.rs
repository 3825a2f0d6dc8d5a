//! The built-in kinds: which there are and what they look like.
//!
//! One row a kind; shapes come from the schemas `k8s-openapi` generates. How they behave beyond storing (defaults,
//! what a deletion does) is in [`super::strategy`].
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::{apps, authorization, autoscaling, coordination, core, discovery, events};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::Value;

use super::registry::{Conversion, Resource, ScalePaths, api_version};
use super::schema::Schema;
use super::table::builtin_columns;

struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    /// Name of the schema.
    schema: &'static str,
    /// `n`amespaced, `s`tatus, scale (`c`), `g`eneration, category `a`ll, `v`irtual.
    traits: &'static str,
    selectable: &'static [&'static str],
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

#[allow(clippy::too_many_arguments)] // one column each of the table below
const fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    schema: &'static str,
    traits: &'static str,
    selectable: &'static [&'static str],
) -> Row {
    Row { group, version, kind, plural, short, schema, traits, selectable }
}

const ROWS: &[Row] = &[
    row("", "v1", "ConfigMap", "configmaps", &["cm"], "io.k8s.api.core.v1.ConfigMap", "n", &[]),
    row("", "v1", "Endpoints", "endpoints", &["ep"], "io.k8s.api.core.v1.Endpoints", "n", &[]),
    row("", "v1", "Event", "events", &["ev"], "io.k8s.api.core.v1.Event", "n", EVENT_FIELDS),
    row("", "v1", "Namespace", "namespaces", &["ns"], "io.k8s.api.core.v1.Namespace", "s", &["status.phase"]),
    row("", "v1", "Node", "nodes", &["no"], "io.k8s.api.core.v1.Node", "s", &["spec.unschedulable"]),
    row(
        "",
        "v1",
        "Pod",
        "pods",
        &["po"],
        "io.k8s.api.core.v1.Pod",
        "nsga",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    row("", "v1", "Secret", "secrets", &[], "io.k8s.api.core.v1.Secret", "n", &["type"]),
    row(
        "",
        "v1",
        "Service",
        "services",
        &["svc"],
        "io.k8s.api.core.v1.Service",
        "nsa",
        &["spec.clusterIP", "spec.type"],
    ),
    row("", "v1", "ServiceAccount", "serviceaccounts", &["sa"], "io.k8s.api.core.v1.ServiceAccount", "n", &[]),
    row(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        "sg",
        &[],
    ),
    row("apps", "v1", "Deployment", "deployments", &["deploy"], "io.k8s.api.apps.v1.Deployment", "nscga", &[]),
    row(
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        &["rs"],
        "io.k8s.api.apps.v1.ReplicaSet",
        "nscga",
        &["status.replicas"],
    ),
    row(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        &[],
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        "v",
        &[],
    ),
    row(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        &[],
        "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        "v",
        &[],
    ),
    row(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        &["hpa"],
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        "nsa",
        &[],
    ),
    row("coordination.k8s.io", "v1", "Lease", "leases", &[], "io.k8s.api.coordination.v1.Lease", "n", &[]),
    row(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        &[],
        "io.k8s.api.discovery.v1.EndpointSlice",
        "ng",
        &[],
    ),
    row("events.k8s.io", "v1", "Event", "events", &["ev"], "io.k8s.api.events.v1.Event", "n", EVENT_FIELDS),
];

/// The schemas of a group-version's kinds and all they refer to, with descriptions: what OpenAPI shows.
pub(crate) fn definitions(group: &str, version: &str) -> serde_json::Map<String, Value> {
    let mut generator = generator();
    define(&mut generator, group, version);
    generator.take_definitions(true)
}

fn define(generator: &mut SchemaGenerator, group: &str, version: &str) {
    match (group, version) {
        ("", "v1") => {
            generator.subschema_for::<core::v1::ConfigMap>();
            generator.subschema_for::<core::v1::Endpoints>();
            generator.subschema_for::<core::v1::Event>();
            generator.subschema_for::<core::v1::Namespace>();
            generator.subschema_for::<core::v1::Node>();
            generator.subschema_for::<core::v1::Pod>();
            generator.subschema_for::<core::v1::Secret>();
            generator.subschema_for::<core::v1::Service>();
            generator.subschema_for::<core::v1::ServiceAccount>();
        }
        ("apiextensions.k8s.io", "v1") => {
            generator.subschema_for::<apiextensions::v1::CustomResourceDefinition>();
        }
        ("apps", "v1") => {
            generator.subschema_for::<apps::v1::Deployment>();
            generator.subschema_for::<apps::v1::ReplicaSet>();
        }
        ("authorization.k8s.io", "v1") => {
            generator.subschema_for::<authorization::v1::SelfSubjectAccessReview>();
            generator.subschema_for::<authorization::v1::SelfSubjectRulesReview>();
        }
        ("autoscaling", "v2") => {
            generator.subschema_for::<autoscaling::v2::HorizontalPodAutoscaler>();
        }
        ("coordination.k8s.io", "v1") => {
            generator.subschema_for::<coordination::v1::Lease>();
        }
        ("discovery.k8s.io", "v1") => {
            generator.subschema_for::<discovery::v1::EndpointSlice>();
        }
        ("events.k8s.io", "v1") => {
            generator.subschema_for::<events::v1::Event>();
        }
        _ => {
            generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>();
        }
    }
}

fn generator() -> SchemaGenerator {
    SchemaSettings::openapi3().into_generator()
}

/// All built-in types by name, compact. Made once, all together, so that each type is there once.
pub(crate) fn schemas() -> &'static HashMap<String, Schema> {
    static SCHEMAS: OnceLock<HashMap<String, Schema>> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let mut generator = generator();
        for row in ROWS {
            define(&mut generator, row.group, row.version);
        }
        Schema::of_definitions(&generator.take_definitions(true))
    })
}

/// The name of the schema of a built-in kind.
pub(crate) fn schema_name(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    ROWS.iter().find(|row| (row.group, row.version, row.kind) == (group, version, kind)).map(|row| row.schema)
}

/// The built-in kinds.
pub(crate) fn resources() -> Vec<Resource> {
    ROWS.iter()
        .map(|row| {
            let has = |letter: char| row.traits.contains(letter);
            let events = row.kind == "Event";
            Resource {
                group: row.group.to_owned(),
                version: row.version.to_owned(),
                kind: row.kind.to_owned(),
                list_kind: format!("{}List", row.kind),
                plural: row.plural.to_owned(),
                singular: row.kind.to_lowercase(),
                short_names: row.short.iter().map(|&name| name.to_owned()).collect(),
                categories: if has('a') { vec!["all".to_owned()] } else { Vec::new() },
                namespaced: has('n'),
                status: has('s'),
                scale: has('c').then(|| ScalePaths {
                    spec_replicas: ".spec.replicas".to_owned(),
                    status_replicas: ".status.replicas".to_owned(),
                    selector: None,
                }),
                generation: has('g'),
                // Both groups' Events are the same objects, as in the real server.
                collection: if events { "/events".into() } else { format!("{}/{}", row.group, row.plural).into() },
                storage_api_version: if events { "v1".to_owned() } else { api_version(row.group, row.version) },
                conversion: if events { Conversion::Events } else { Conversion::Rename },
                selectable: row.selectable.iter().map(|&path| path.to_owned()).collect(),
                schema: Arc::new(schemas().get(row.schema).cloned().unwrap_or_else(Schema::anything)),
                columns: builtin_columns(row.group, row.plural),
                custom: false,
                virtual_only: has('v'),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_schema() {
        for row in ROWS {
            assert!(schemas().contains_key(row.schema), "{}", row.schema);
        }
    }
}
