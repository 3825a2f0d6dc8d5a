//! Rules of a Revision's containers (upstream `k8s_validation.go`).

use std::collections::{BTreeMap, BTreeSet};

use api::settings::{Feature, Features};
use serde_json::Value;

use super::{
    field_error::{Errors, SELF},
    json::{get, has, list, number, some_number, text},
    mask,
    probes::{self, UserPort},
    syntax::{dns1123_subdomain, is_image_reference},
    volumes,
};
use crate::revision::queue_container;

const RESERVED_ENV: [&str; 4] = ["PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"];
const RESERVED_PORTS: [i64; 6] = [8012, 8013, 8022, 9090, 9091, 8008];
const PORT_NAMES: [&str; 3] = ["", "h2c", "http1"];

/// What a container is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role<'a> {
    /// Takes the requests.
    Serving(UserPort<'a>),
    /// Beside it.
    Sidecar,
    /// Before it.
    Init,
}

impl PartialEq for UserPort<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for UserPort<'_> {}

/// Checks the pod part of a Revision's spec.
pub fn validate(spec: &Value, features: &Features) -> Errors {
    let mut errors = mask::disallowed(spec, &mask::pod_spec(features));
    if get(spec, &["automountServiceAccountToken"]).as_bool() == Some(true) {
        errors.add(Errors::disallowed(&["automountServiceAccountToken"]));
    }
    errors.add(pod_security(get(spec, &["securityContext"]), features).via("securityContext"));
    let (volumes, wrong) = volumes::validate(spec, features);
    errors.add(wrong);
    let containers = list(spec, "containers");
    errors.add(init_containers(list(spec, "initContainers"), containers, &volumes, features));
    errors.add(port_count(containers).via("containers[*]"));
    let serving = UserPort { name: serving_port_name(containers) };
    match containers {
        [] => errors.add(Errors::missing(&["containers"])),
        [only] => {
            let wrong = container(only, Role::Serving(serving), &volumes, features);
            errors.add(wrong.via_index(0).via("containers"));
        }
        several => errors.add(several_containers(several, serving, &volumes, features)),
    }
    let account = text(spec, "serviceAccountName");
    if !account.is_empty() {
        for why in dns1123_subdomain(account) {
            errors.add(Errors::invalid_because(account, "serviceAccountName", why));
        }
    }
    errors
}

fn serving_port_name(containers: &[Value]) -> &str {
    containers.iter().rev().find_map(|c| list(c, "ports").first()).map_or("http", probes::port_name)
}

fn port_count(containers: &[Value]) -> Errors {
    match containers.iter().map(|c| list(c, "ports").len()).sum() {
        0_usize if containers.len() > 1 => Errors::missing(&["ports"]),
        0 | 1 => Errors::none(),
        _ => Errors::with_details(
            "more than one container port is set",
            &["ports"],
            "Only a single port is allowed across all containers",
        ),
    }
}

fn several_containers(
    containers: &[Value],
    serving: UserPort<'_>,
    volumes: &BTreeMap<&str, &Value>,
    features: &Features,
) -> Errors {
    if features.multi_container != Feature::Enabled {
        return Errors::new(format!("multi-container is off, but found {} containers", containers.len()), &[]);
    }
    let mut names = BTreeSet::new();
    let mut errors = Errors::none();
    for (i, one) in containers.iter().enumerate() {
        let name = text(one, "name");
        if !names.insert(name) {
            let wrong = Errors::new(format!("duplicate container name {name:?}"), &["name"]);
            errors.add(wrong.via_index(i).via("containers"));
        }
        let role = if list(one, "ports").is_empty() { Role::Sidecar } else { Role::Serving(serving) };
        errors.add(container(one, role, volumes, features).via_index(i).via("containers"));
    }
    errors
}

fn init_containers(
    containers: &[Value],
    others: &[Value],
    volumes: &BTreeMap<&str, &Value>,
    features: &Features,
) -> Errors {
    if containers.is_empty() {
        return Errors::none();
    }
    if features.init_containers != Feature::Enabled {
        let message =
            format!("pod spec support for init-containers is off, but found {} init containers", containers.len());
        return Errors::new(message, &[]);
    }
    let names: BTreeSet<&str> = others.iter().map(|c| text(c, "name")).collect();
    let mut errors = Errors::none();
    for (i, one) in containers.iter().enumerate() {
        let mut wrong = Errors::none();
        if names.contains(text(one, "name")) {
            wrong.add(Errors::new(format!("duplicate container name {:?}", text(one, "name")), &["name"]));
        }
        for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if has(one, field) {
                wrong.add(Errors::new("field not allowed in an init container", &[field]));
            }
        }
        wrong.add(container(one, Role::Init, volumes, features));
        // Upstream's path: it says `containers` for init containers, too.
        errors.add(wrong.via_index(i).via("containers"));
    }
    errors
}

fn container(one: &Value, role: Role<'_>, volumes: &BTreeMap<&str, &Value>, features: &Features) -> Errors {
    if one.as_object().is_none_or(serde_json::Map::is_empty) {
        return Errors::missing(&[SELF]);
    }
    let mut errors = match role {
        Role::Serving(port) => probe_rules(one, Some(port)),
        Role::Sidecar if features.multi_container_probing == Feature::Enabled => probe_rules(one, None),
        Role::Sidecar => probes::none_allowed(one),
        Role::Init => Errors::none(),
    };
    errors.add(mask::disallowed(one, &mask::CONTAINER));
    let name = text(one, "name");
    if name == queue_container::NAME {
        errors.add(Errors::new(format!("{name:?} is a reserved container name"), &["name"]));
    }
    errors.add(environment(one, role, features));
    let image = text(one, "image");
    if image.is_empty() {
        errors.add(Errors::missing(&["image"]));
    } else if !is_image_reference(image) {
        let details = format!("image: {image:?}, error: could not parse reference: {image}");
        errors.add(Errors::with_details("Failed to parse image reference", &["image"], details));
    }
    errors.add(ports(one, role).via("ports"));
    errors.add(mask::disallowed(get(one, &["resources"]), &["limits", "requests"]).via("resources"));
    errors.add(security(get(one, &["securityContext"]), features).via("securityContext"));
    let policy = text(one, "terminationMessagePolicy");
    if !["", "File", "FallbackToLogsOnError"].contains(&policy) {
        errors.add(Errors::invalid(policy, "terminationMessagePolicy"));
    }
    errors.add(volumes::validate_mounts(one, volumes, features));
    errors
}

fn probe_rules(one: &Value, port: Option<UserPort<'_>>) -> Errors {
    let mut errors = probes::validate(get(one, &["livenessProbe"]), port).via("livenessProbe");
    errors.add(probes::validate_readiness(get(one, &["readinessProbe"]), port).via("readinessProbe"));
    errors.add(probes::validate(get(one, &["startupProbe"]), port).via("startupProbe"));
    errors
}

fn environment(one: &Value, role: Role<'_>, features: &Features) -> Errors {
    // Only the container that serves is told its port.
    let reserved = if matches!(role, Role::Serving(_)) { &RESERVED_ENV[..] } else { &RESERVED_ENV[1..] };
    let mut errors = Errors::none();
    for (i, variable) in list(one, "env").iter().enumerate() {
        let mut wrong = mask::disallowed(variable, &["name", "value", "valueFrom"]);
        let name = text(variable, "name");
        if name.is_empty() {
            wrong.add(Errors::missing(&["name"]));
        } else if reserved.contains(&name) {
            wrong.add(Errors::new(format!("{name:?} is a reserved environment variable"), &["name"]));
        }
        let source = get(variable, &["valueFrom"]);
        wrong.add(mask::disallowed(source, &mask::env_source(features)).via("valueFrom"));
        errors.add(wrong.via_index(i).via("env"));
    }
    for (i, source) in list(one, "envFrom").iter().enumerate() {
        let allowed = ["prefix", "configMapRef", "secretRef"];
        errors.add(mask::disallowed(source, &allowed).via_index(i).via("envFrom"));
        errors.add(match (has(source, "configMapRef"), has(source, "secretRef")) {
            (true, true) => Errors::multiple_one_of(&["configMapRef", "secretRef"]).via("envFrom"),
            (false, false) => Errors::missing_one_of(&["configMapRef", "secretRef"]).via("envFrom"),
            _ => Errors::none(),
        });
    }
    errors
}

fn ports(one: &Value, role: Role<'_>) -> Errors {
    let all = list(one, "ports");
    if role == Role::Init {
        return all.iter().map(port_number).collect();
    }
    let Some(port) = all.first() else { return Errors::none() };
    let mut errors = port_number(port);
    let protocol = text(port, "protocol");
    if !["", "TCP"].contains(&protocol) {
        errors.add(Errors::invalid(protocol, "protocol"));
    }
    let name = text(port, "name");
    if !PORT_NAMES.contains(&name) {
        errors.add(Errors::with_details(
            format!("Port name {name} is not allowed"),
            &[SELF],
            "Name must be empty, or one of: 'h2c', 'http1'",
        ));
    }
    errors
}

fn port_number(port: &Value) -> Errors {
    let mut errors = mask::disallowed(port, &["containerPort", "name", "protocol"]);
    let value = number(port, "containerPort");
    if RESERVED_PORTS.contains(&value) {
        let why = format!("{value} is a reserved port, please use a different value");
        errors.add(Errors::invalid_because(format!("{value} is a reserved port"), "containerPort", &why));
    }
    if !(0..=65535).contains(&value) {
        errors.add(Errors::out_of_bounds(value, 0, 65535, "containerPort"));
    }
    errors
}

fn id(context: &Value, key: &str) -> Errors {
    match some_number(context, key).filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        Some(id) => Errors::out_of_bounds(id, 0, i32::MAX, key),
        None => Errors::none(),
    }
}

fn security(context: &Value, features: &Features) -> Errors {
    let mut errors = mask::disallowed(context, &mask::SECURITY_CONTEXT);
    let capabilities = get(context, &["capabilities"]);
    errors.add(mask::disallowed(capabilities, &mask::capabilities(capabilities, features)).via("capabilities"));
    errors.add(id(context, "runAsUser"));
    errors.add(id(context, "runAsGroup"));
    errors
}

fn pod_security(context: &Value, features: &Features) -> Errors {
    let mut errors = mask::disallowed(context, &mask::pod_security_context(features));
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        errors.add(id(context, key));
    }
    for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
        if group.as_i64().is_none_or(|g| !(0..=i64::from(i32::MAX)).contains(&g)) {
            errors.add(Errors::out_of_bounds(group, 0, i32::MAX, SELF).via_index(i).via("supplementalGroups"));
        }
    }
    errors
}
