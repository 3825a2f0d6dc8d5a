//! The environment of a container: its `env` and `envFrom`, downward fields, `$(VAR)`, and what the node changes so that
//! processes that share one host can stand in for containers that do not. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, ObjectFieldSelector, Pod};
use serde_json::Value;

/// ConfigMaps and Secrets by (kind, name): their keys as text.
pub(super) type References = BTreeMap<(Source, String), BTreeMap<String, String>>;

/// Where a referenced value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    ConfigMap,
    Secret,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// What a pod knows about itself once the node has taken it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The pod's own address.
    pub(super) pod_ip: Ipv4Addr,
    /// The node's address.
    pub(super) host_ip: Ipv4Addr,
    /// Declared container port → the port the process really gets. Empty where both are the same.
    pub(super) ports: BTreeMap<u16, u16>,
}

/// Everything a container refers to: what must be read from the API before it can start.
pub(super) fn references(container: &Container) -> Vec<(Source, String)> {
    let mut names = Vec::new();
    for from in container.env_from.iter().flatten() {
        names.extend(from.config_map_ref.as_ref().map(|r| (Source::ConfigMap, r.name.clone())));
        names.extend(from.secret_ref.as_ref().map(|r| (Source::Secret, r.name.clone())));
    }
    for value in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        names.extend(value.config_map_key_ref.as_ref().map(|r| (Source::ConfigMap, r.name.clone())));
        names.extend(value.secret_key_ref.as_ref().map(|r| (Source::Secret, r.name.clone())));
    }
    names.sort();
    names.dedup();
    names
}

/// The variables a container declares, in order, later ones last. The error is the kubelet's
/// `CreateContainerConfigError` message.
pub(super) fn declared(
    pod: &Pod,
    container: &Container,
    place: &Place,
    values: &References,
) -> Result<Vec<(String, String)>, String> {
    let mut env: Vec<(String, String)> = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let config_map =
            from.config_map_ref.as_ref().map(|r| (Source::ConfigMap, r.name.clone(), r.optional.unwrap_or(false)));
        let secret = from.secret_ref.as_ref().map(|r| (Source::Secret, r.name.clone(), r.optional.unwrap_or(false)));
        for (source, name, optional) in config_map.into_iter().chain(secret) {
            match values.get(&(source, name.clone())) {
                Some(keys) => env.extend(keys.iter().map(|(key, value)| (format!("{prefix}{key}"), value.clone()))),
                None if optional => {}
                None => return Err(format!("{} \"{name}\" not found", source.name())),
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value_from, &var.value) {
            (Some(from), _) => match value_from(pod, container, place, values, from)? {
                Some(value) => value,
                None => continue,
            },
            (None, value) => expand(value.as_deref().unwrap_or_default(), &env),
        };
        env.retain(|(name, _)| *name != var.name);
        env.push((var.name.clone(), value));
    }
    Ok(env)
}

fn value_from(
    pod: &Pod,
    container: &Container,
    place: &Place,
    values: &References,
    from: &EnvVarSource,
) -> Result<Option<String>, String> {
    if let Some(field) = &from.field_ref {
        return downward(pod, place, field).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return Ok(Some(self::resource(container, &resource.resource)));
    }
    let config_map =
        from.config_map_key_ref.as_ref().map(|r| (Source::ConfigMap, &r.name, &r.key, r.optional.unwrap_or(false)));
    let secret = from.secret_key_ref.as_ref().map(|r| (Source::Secret, &r.name, &r.key, r.optional.unwrap_or(false)));
    let Some((source, name, key, optional)) = config_map.or(secret) else { return Ok(None) };
    match values.get(&(source, name.clone())) {
        Some(keys) => match keys.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {key} in {} {name}", source.name())),
        },
        None if optional => Ok(None),
        None => Err(format!("{} \"{name}\" not found", source.name())),
    }
}

/// The downward API.
fn downward(pod: &Pod, place: &Place, field: &ObjectFieldSelector) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let path = field.field_path.as_str();
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    let keyed = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
    if let Some(key) = keyed("metadata.labels['") {
        return Ok(entry(&meta.labels, key));
    }
    if let Some(key) = keyed("metadata.annotations['") {
        return Ok(entry(&meta.annotations, key));
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => place.pod_ip.to_string(),
        "status.hostIP" | "status.hostIPs" => place.host_ip.to_string(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// Limits and requests as written; a process has no others. Whole numbers, as the downward API gives them.
fn resource(container: &Container, name: &str) -> String {
    let Some((kind, key)) = name.split_once('.') else { return "0".to_owned() };
    let resources = container.resources.as_ref();
    let quantities = resources.and_then(|r| if kind == "limits" { r.limits.as_ref() } else { r.requests.as_ref() });
    let Some(quantity) = quantities.and_then(|q| q.get(key)) else { return "0".to_owned() };
    let text = quantity.0.as_str();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: f64 = digits.parse().unwrap_or(0.0);
    let factor = match &text[digits.len()..] {
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    };
    format!("{}", (number * factor).ceil() as u64)
}

/// Replaces `$(NAME)` by the value of an earlier variable; `$$` is a `$`; an unknown name stays as it is.
pub(super) fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            if let Some((_, value)) = env.iter().rfind(|(key, _)| key == name) {
                out.push_str(value);
            } else {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Sets a variable, in the place of an older one of that name.
pub(super) fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    env.retain(|(key, _)| key != name);
    env.push((name.to_owned(), value));
}

/// Tells a user container where to listen: `PORT` is the port of its first declared one.
pub(super) fn point_user(env: &mut Vec<(String, String)>, container: &Container, place: &Place) {
    let first = container.ports.iter().flatten().find_map(|port| u16::try_from(port.container_port).ok());
    if let Some(port) = first {
        let real = place.ports.get(&port).copied();
        if real.is_some() || !env.iter().any(|(name, _)| name == "PORT") {
            set(env, "PORT", real.unwrap_or(port).to_string());
        }
    }
}

/// Tells queue-proxy where it listens and where the user process really is.
pub(super) fn point_sidecar(env: &mut Vec<(String, String)>, place: &Place, drain_quiet_ms: u64) {
    for (name, value) in env.iter_mut() {
        match name.as_str() {
            "USER_PORT" => {
                let real = value.trim().parse().ok().and_then(|port: u16| place.ports.get(&port));
                if let Some(real) = real {
                    *value = real.to_string();
                }
            }
            "SERVING_READINESS_PROBE" => {
                if let Some(rewritten) = rewrite_probe(value, &place.ports) {
                    *value = rewritten;
                }
            }
            _ => {}
        }
    }
    set(env, "DORMOUSE_BIND_ADDRESS", place.pod_ip.to_string());
    set(env, "DORMOUSE_DRAIN_QUIET_MS", drain_quiet_ms.to_string());
}

/// Replaces ports in one probe or a list of them; `None` leaves the text for queue-proxy to judge.
fn rewrite_probe(text: &str, ports: &BTreeMap<u16, u16>) -> Option<String> {
    let mut probe: Value = serde_json::from_str(text).ok()?;
    let one = |probe: &mut Value| {
        for kind in ["httpGet", "tcpSocket", "grpc"] {
            if let Some(port) = probe.get_mut(kind).and_then(|handler| handler.get_mut("port")) {
                let number = port.as_u64().or_else(|| port.as_str().and_then(|text| text.parse().ok()));
                let real = number.and_then(|number| u16::try_from(number).ok()).and_then(|number| ports.get(&number));
                if let Some(real) = real {
                    *port = Value::from(*real);
                }
            }
        }
    };
    match &mut probe {
        Value::Array(list) => list.iter_mut().for_each(one),
        single => one(single),
    }
    serde_json::to_string(&probe).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn place() -> Place {
        Place {
            pod_ip: Ipv4Addr::new(127, 9, 0, 2),
            host_ip: Ipv4Addr::LOCALHOST,
            ports: BTreeMap::from([(8080, 20_001), (9000, 20_002)]),
        }
    }

    fn vars(text: &[(&str, &str)]) -> Vec<(String, String)> {
        text.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn references_to_variables_expand_as_kubernetes_does() {
        let env = vars(&[("A", "1"), ("B", "two words")]);
        for (text, wanted) in [
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(B)z", "x1ytwo wordsz"),
            ("$$(A)", "$(A)"),
            ("$(NO)", "$(NO)"),
            ("$A ${A}", "$A ${A}"),
            ("$(A", "$(A"),
            ("cost: 5$", "cost: 5$"),
            ("$$$(A)", "$1"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &env), wanted, "{text}");
        }
    }

    #[test]
    fn variables_come_from_everywhere() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a/b": "l"}},
            "spec": {"nodeName": "dormouse", "containers": []}}))
        .unwrap();
        let container: Container = serde_json::from_value(json!({"name": "c",
            "resources": {"limits": {"cpu": "1500m", "memory": "2Mi"}},
            "envFrom": [{"configMapRef": {"name": "all"}, "prefix": "P_"}, {"secretRef": {"name": "no", "optional": true}}],
            "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x", "optional": true}}},
                {"name": "URL", "value": "http://$(IP)/$(P_x)"},
                {"name": "NAME", "value": "again"}]}))
        .unwrap();
        assert_eq!(references(&container).len(), 3);
        let values = References::from([
            ((Source::ConfigMap, "all".into()), BTreeMap::from([("x".into(), "1".into())])),
            ((Source::Secret, "s".into()), BTreeMap::from([("k".into(), "hidden".into())])),
        ]);
        let env = declared(&pod, &container, &place(), &values).unwrap();
        let wanted = [
            ("P_x", "1"),
            ("IP", "127.9.0.2"),
            ("LABEL", "l"),
            ("CPU", "2"),
            ("MEM", "2097152"),
            ("KEY", "hidden"),
            ("URL", "http://127.9.0.2/1"),
            ("NAME", "again"),
        ];
        assert_eq!(env, vars(&wanted));
    }

    #[test]
    fn what_is_missing_is_named() {
        let container: Container = serde_json::from_value(json!({"name": "c", "env": [
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}))
        .unwrap();
        let error = |values: &References| declared(&Pod::default(), &container, &place(), values).unwrap_err();
        assert_eq!(error(&References::new()), "configmap \"cm\" not found");
        let empty = References::from([((Source::ConfigMap, "cm".into()), BTreeMap::new())]);
        assert_eq!(error(&empty), "couldn't find key k in configmap cm");
    }

    #[test]
    fn the_sidecar_is_pointed_at_the_real_port() {
        let probe = r#"{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}"#;
        let mut env = vars(&[("USER_PORT", "8080"), ("SERVING_READINESS_PROBE", probe), ("OTHER", "8080")]);
        point_sidecar(&mut env, &place(), 5);
        let get = |name: &str| env.iter().find(|(key, _)| key == name).unwrap().1.clone();
        assert_eq!(get("USER_PORT"), "20001");
        assert_eq!(get("OTHER"), "8080");
        assert_eq!(get("DORMOUSE_BIND_ADDRESS"), "127.9.0.2");
        assert_eq!(get("DORMOUSE_DRAIN_QUIET_MS"), "5");
        let probe: Value = serde_json::from_str(&get("SERVING_READINESS_PROBE")).unwrap();
        assert_eq!(probe, json!({"tcpSocket": {"port": 20_001, "host": "127.0.0.1"}, "successThreshold": 1}));
    }

    #[test]
    fn probe_lists_and_junk_survive() {
        let ports = place().ports;
        for (text, wanted) in [
            (
                r#"[{"httpGet":{"port":"8080"}},null,{"grpc":{"port":9000}}]"#,
                Some(r#"[{"httpGet":{"port":20001}},null,{"grpc":{"port":20002}}]"#),
            ),
            (r#"{"httpGet":{"port":1234}}"#, Some(r#"{"httpGet":{"port":1234}}"#)),
            ("null", Some("null")),
            ("", None),
            ("junk", None),
        ] {
            assert_eq!(rewrite_probe(text, &ports).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn the_user_process_gets_its_port() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"containerPort": 8080}]})).unwrap();
        let mut env = vars(&[("PORT", "8080")]);
        point_user(&mut env, &container, &place());
        assert_eq!(env, vars(&[("PORT", "20001")]));
        // A pod that is not ours keeps its ports, and its own word about them.
        let plain = Place { ports: BTreeMap::new(), ..place() };
        let mut env = vars(&[("PORT", "1")]);
        point_user(&mut env, &container, &plain);
        assert_eq!(env, vars(&[("PORT", "1")]));
    }
}
