//! Each kind from top to bottom: defaults first, then what must hold.

use api::labels::serving as labels;
use serde_json::Value;

use super::{
    Operation, annotations,
    defaults::{self, Changed, Parent},
    field_error::Errors,
    json::{difference, edit, edit_field, get, has, list, number, same, some_number, text, texts},
    pod_spec,
    syntax::{dns1035_label, dns1035_prefix, go_list, not_fully_qualified},
    traffic,
};
use crate::{settings::Settings, v1alpha1::is_manual_object};

/// What all rules of one request know.
pub(super) struct Context<'a> {
    pub(super) operation: Operation,
    pub(super) old: Option<&'a Value>,
    pub(super) user: &'a str,
    pub(super) in_status: bool,
    pub(super) settings: &'a Settings,
}

impl Context<'_> {
    fn creating(&self) -> bool {
        self.operation == Operation::Create
    }

    fn changed(&self, object: &Value) -> Changed {
        match self.old {
            None => Changed::Created,
            Some(old) if same(get(old, &["spec"]), get(object, &["spec"])) => Changed::Nothing,
            Some(_) => Changed::Spec,
        }
    }
}

pub(super) fn service(object: &mut Value, context: &Context<'_>) -> Errors {
    let manual = is_manual_object(object);
    if !manual {
        default_template(object, context);
        edit(object, |object| edit_field(object, "spec", |spec| defaults::traffic(spec, true)));
    }
    let changed = context.changed(object);
    edit(object, |object| defaults::user_info(object, context.user, changed));

    let spec = get(object, &["spec"]);
    let notes = texts(object, &["metadata", "annotations"]);
    let mut metadata = object_metadata(object);
    metadata.add(annotations::no_revision_settings(&notes).via("annotations"));
    metadata.add(annotations::rollout_duration(&notes).via("annotations"));
    let mut errors = metadata.via("metadata");
    if manual {
        errors.add(user_annotations(object, context));
        return errors;
    }
    errors.add(template(object, context.settings).via("template").via("spec"));
    errors.add(traffic::validate(spec, true).via("spec"));
    errors.add(against_old(object, context, true));
    errors
}

pub(super) fn configuration(object: &mut Value, context: &Context<'_>) -> Errors {
    default_template(object, context);
    let owned = is_owned(object);
    if !owned {
        let changed = context.changed(object);
        edit(object, |object| defaults::user_info(object, context.user, changed));
    }
    let notes = texts(object, &["metadata", "annotations"]);
    let mut metadata = object_metadata(object);
    metadata.add(annotations::no_revision_settings(&notes).via("annotations"));
    metadata.add(label_has_owner(object, labels::SERVICE, "Service").via("labels"));
    let mut errors = metadata.via("metadata");
    errors.add(template(object, context.settings).via("template").via("spec"));
    errors.add(against_old(object, context, !owned));
    errors
}

pub(super) fn revision(object: &mut Value, context: &Context<'_>) -> Errors {
    if context.creating() {
        let (name, namespace) = names(object);
        let parent = Parent { name: &name, namespace: &namespace };
        edit(object, |object| {
            edit_field(object, "spec", |spec| defaults::revision_spec(spec, parent, true, context.settings));
        });
    }
    let notes = texts(object, &["metadata", "annotations"]);
    let mut metadata = object_metadata(object);
    metadata.add(annotations::scaling(&notes, &context.settings.autoscaler).via("annotations"));
    metadata.add(annotations::activation(&notes).via("annotations"));
    metadata.add(annotations::scaling_extras(&notes).via("annotations"));
    metadata.add(label_has_owner(object, labels::CONFIGURATION, "Configuration").via("labels"));
    let mut errors = metadata.via("metadata");
    let spec = get(object, &["spec"]);
    match context.old {
        None => errors.add(revision_spec(spec, context.settings).via("spec")),
        Some(old) => {
            let before = get(old, &["spec"]);
            if !same(before, spec) {
                let details = difference(before, spec);
                errors.add(Errors::with_details("Immutable fields changed (-old +new)", &["spec"], details));
            }
        }
    }
    errors
}

pub(super) fn route(object: &mut Value, context: &Context<'_>) -> Errors {
    edit(object, |object| edit_field(object, "spec", |spec| defaults::traffic(spec, false)));
    let owned = is_owned(object);
    if !owned {
        let changed = context.changed(object);
        edit(object, |object| defaults::user_info(object, context.user, changed));
    }
    let notes = texts(object, &["metadata", "annotations"]);
    let mut metadata = object_metadata(object);
    metadata.add(annotations::no_revision_settings(&notes).via("annotations"));
    metadata.add(label_has_owner(object, labels::SERVICE, "Service").via("labels"));
    metadata.add(annotations::rollout_duration(&notes).via("annotations"));
    let mut errors = metadata.via("metadata");
    errors.add(traffic::validate(get(object, &["spec"]), false).via("spec"));
    if !owned {
        errors.add(user_annotations(object, context));
    }
    errors
}

pub(super) fn domain_mapping(object: &mut Value, context: &Context<'_>) -> Errors {
    let (name, namespace) = names(object);
    edit(object, |object| {
        edit_field(object, "spec", |spec| {
            edit_field(spec, "ref", |target| defaults::reference(target, &namespace));
        });
    });
    let changed = context.changed(object);
    edit(object, |object| defaults::user_info(object, context.user, changed));

    let mut metadata = Errors::none();
    if !text(get(object, &["metadata"]), "generateName").is_empty() {
        metadata.add(Errors::disallowed(&["generateName"]));
    }
    if let Some(wrong) = not_fully_qualified(&name) {
        metadata.add(Errors::new(format!("invalid name {name:?}: {wrong}"), &["name"]));
    }
    let domain = &context.settings.cluster_domain;
    if name.ends_with(&format!(".{domain}")) {
        let why = format!("invalid name {name:?}: must not be a subdomain of cluster local domain {domain:?}");
        metadata.add(Errors::new(why, &["name"]));
    }
    let mut errors = metadata.via("metadata");
    errors.add(user_annotations(object, context));
    errors.add(reference(get(object, &["spec", "ref"]), &namespace).via("ref").via("spec"));
    errors
}

/// A reference to an object of the same namespace, without a group of its own.
fn reference(target: &Value, namespace: &str) -> Errors {
    let mut errors: Errors = ["name", "apiVersion", "kind"]
        .into_iter()
        .filter(|field| text(target, field).is_empty())
        .map(|field| Errors::missing(&[field]))
        .collect();
    if !text(target, "group").is_empty() {
        errors.add(Errors::disallowed(&["group"]));
    }
    let other = text(target, "namespace");
    if !other.is_empty() && !namespace.is_empty() && other != namespace {
        let details = format!("parent namespace: {namespace:?} does not match ref: {other:?}");
        errors.add(Errors::with_details("mismatched namespaces", &["namespace"], details));
    }
    errors
}

pub(super) fn pod_autoscaler(object: &mut Value, context: &Context<'_>) -> Errors {
    edit(object, |object| defaults::pod_autoscaler(object, context.settings));
    let notes = texts(object, &["metadata", "annotations"]);
    let mut metadata = object_metadata(object);
    metadata.add(annotations::scaling(&notes, &context.settings.autoscaler).via("annotations"));
    let mut errors = metadata.via("metadata");
    let target = get(object, &["spec", "scaleTargetRef"]);
    let missing: Vec<&str> =
        ["apiVersion", "kind", "name"].into_iter().filter(|k| text(target, k).is_empty()).collect();
    if !missing.is_empty() {
        errors.add(Errors::missing(&missing).via("scaleTargetRef").via("spec"));
    }
    errors.add(container_concurrency(get(object, &["spec"]), context.settings).via("spec"));
    errors
}

/// Defaults of a template; left alone where the user names the Revision and the name stays, for then nothing of it
/// may change.
fn default_template(object: &mut Value, context: &Context<'_>) {
    let name_of = |v: &Value| text(get(v, &["spec", "template", "metadata"]), "name").to_owned();
    let named = name_of(object);
    if !named.is_empty() && context.old.is_some_and(|old| name_of(old) == named) {
        return;
    }
    let (name, namespace) = names(object);
    let parent = Parent { name: &name, namespace: &namespace };
    edit(object, |object| {
        edit_field(object, "spec", |spec| {
            edit_field(spec, "template", |template| {
                edit_field(template, "spec", |spec| {
                    defaults::revision_spec(spec, parent, context.creating(), context.settings);
                });
            });
        });
    });
}

fn names(object: &Value) -> (String, String) {
    let metadata = get(object, &["metadata"]);
    (text(metadata, "name").to_owned(), text(metadata, "namespace").to_owned())
}

fn is_owned(object: &Value) -> bool {
    !list(get(object, &["metadata"]), "ownerReferences").is_empty()
}

fn object_metadata(object: &Value) -> Errors {
    let metadata = get(object, &["metadata"]);
    let (name, prefix) = (text(metadata, "name"), text(metadata, "generateName"));
    if !prefix.is_empty() {
        let wrong = dns1035_prefix(prefix);
        if !wrong.is_empty() {
            return Errors::new(format!("not a DNS 1035 label prefix: {}", go_list(&wrong)), &["generateName"]);
        }
    }
    if !name.is_empty() {
        let wrong = dns1035_label(name);
        if !wrong.is_empty() {
            return Errors::new(format!("not a DNS 1035 label: {}", go_list(&wrong)), &["name"]);
        }
    }
    if name.is_empty() && prefix.is_empty() {
        return Errors::new("name or generateName is required", &["name"]);
    }
    Errors::none()
}

/// A label that names an owner must tell the truth.
fn label_has_owner(object: &Value, label: &str, kind: &str) -> Errors {
    let labels = texts(object, &["metadata", "labels"]);
    let Some(name) = labels.get(label) else { return Errors::none() };
    let owners = list(get(object, &["metadata"]), "ownerReferences");
    if owners.iter().any(|o| text(o, "kind") == kind && text(o, "name") == name) {
        Errors::none()
    } else {
        Errors::missing(&[label])
    }
}

fn template(object: &Value, settings: &Settings) -> Errors {
    let template = get(object, &["spec", "template"]);
    let notes = texts(template, &["metadata", "annotations"]);
    let mut about = annotations::scaling(&notes, &settings.autoscaler);
    about.add(annotations::activation(&notes));
    about.add(annotations::scaling_extras(&notes));
    about.add(annotations::queue_sidecar(&notes));
    about.add(annotations::progress_deadline(&notes));
    let mut errors = revision_spec(get(template, &["spec"]), settings).via("spec");
    errors.add(about.via("metadata.annotations"));
    errors.add(template_name(object, template));
    errors
}

/// A Revision's name of the user's own begins with the parent's.
fn template_name(object: &Value, template: &Value) -> Errors {
    let metadata = get(template, &["metadata"]);
    let prefix = text(metadata, "generateName");
    if !prefix.is_empty() {
        let wrong = dns1035_prefix(prefix);
        if !wrong.is_empty() {
            let value = format!("not a DNS 1035 label prefix: {}", go_list(&wrong));
            return Errors::invalid(value, "metadata.generateName");
        }
    }
    let name = text(metadata, "name");
    if name.is_empty() {
        return Errors::none();
    }
    let wrong = dns1035_label(name);
    if !wrong.is_empty() {
        return Errors::invalid(format!("not a DNS 1035 label: {}", go_list(&wrong)), "metadata.name");
    }
    let parent = get(object, &["metadata"]);
    if text(parent, "name").is_empty() && !text(parent, "generateName").is_empty() {
        return Errors::disallowed(&["metadata.name"]);
    }
    let prefix = format!("{}-", text(parent, "name"));
    if name.starts_with(&prefix) {
        Errors::none()
    } else {
        Errors::invalid(format!("{name:?} must have prefix {prefix:?}"), "metadata.name")
    }
}

fn revision_spec(spec: &Value, settings: &Settings) -> Errors {
    let mut errors = pod_spec::validate(spec, &settings.features);
    let (timeout, max) = (number(spec, "timeoutSeconds"), settings.defaults.max_revision_timeout_seconds);
    if timeout < 0 || timeout > max {
        errors.add(Errors::out_of_bounds(timeout, 0, max, "timeoutSeconds"));
    }
    errors.add(container_concurrency(spec, settings));
    errors
}

fn container_concurrency(spec: &Value, settings: &Settings) -> Errors {
    let low = i64::from(!settings.defaults.allow_container_concurrency_zero);
    let high = settings.defaults.container_concurrency_max_limit;
    match some_number(spec, "containerConcurrency").filter(|n| !(low..=high).contains(n)) {
        Some(n) => Errors::out_of_bounds(n, low, high, "containerConcurrency"),
        None => Errors::none(),
    }
}

/// What an update must not do.
fn against_old(object: &Value, context: &Context<'_>, check_users: bool) -> Errors {
    let Some(old) = context.old else { return Errors::none() };
    let mut errors = if check_users { user_annotations(object, context) } else { Errors::none() };
    let (before, after) = (get(old, &["spec", "template"]), get(object, &["spec", "template"]));
    let name = text(get(after, &["metadata"]), "name");
    if has(get(after, &["metadata"]), "name")
        && !name.is_empty()
        && name == text(get(before, &["metadata"]), "name")
        && !same(before, after)
    {
        let message = "Saw the following changes without a name change (-old +new)";
        let details = difference(before, after);
        errors.add(Errors::with_details(message, &["spec.template.metadata.name"], details));
    }
    errors
}

fn user_annotations(object: &Value, context: &Context<'_>) -> Errors {
    let Some(old) = context.old else { return Errors::none() };
    let notes = |v: &Value| texts(v, &["metadata", "annotations"]);
    let same_spec = context.changed(object) == Changed::Nothing;
    annotations::creator_and_modifier(&notes(old), &notes(object), same_spec).via("metadata.annotations")
}
