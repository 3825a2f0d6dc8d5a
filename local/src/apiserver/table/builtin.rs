//! The columns of the built-in kinds, as the real server's printers have them.
use jiff::Timestamp;
use serde_json::Value;

use super::{Cell, Column, age, age_column, pods};

/// The columns of a built-in kind, without the name.
pub(crate) fn builtin_columns(group: &str, plural: &str) -> Vec<Column> {
    let text = |name: &str, cell: Cell| Column::builtin(name, "string", 0, cell);
    let wide = |name: &str, cell: Cell| Column::builtin(name, "string", 1, cell);
    let number = |name: &str, cell: Cell| Column::builtin(name, "integer", 0, cell);
    match (group, plural) {
        ("", "pods") => vec![
            text("Ready", pods::ready),
            text("Status", pods::status),
            text("Restarts", pods::restarts),
            age_column(),
            wide("IP", |pod, _| or_none(&pod["status"]["podIP"])),
            wide("Node", |pod, _| or_none(&pod["spec"]["nodeName"])),
            wide("Nominated Node", |pod, _| or_none(&pod["status"]["nominatedNodeName"])),
            wide("Readiness Gates", |_, _| "<none>".into()),
        ],
        ("apps", "deployments") => vec![
            text("Ready", |d, _| {
                format!("{}/{}", int(&d["status"]["readyReplicas"]), int(&d["spec"]["replicas"])).into()
            }),
            text("Up-to-date", |d, _| int(&d["status"]["updatedReplicas"]).into()),
            text("Available", |d, _| int(&d["status"]["availableReplicas"]).into()),
            age_column(),
            wide("Containers", |d, _| containers(d, "name")),
            wide("Images", |d, _| containers(d, "image")),
            wide("Selector", |d, _| labels(&d["spec"]["selector"]["matchLabels"])),
        ],
        ("apps", "replicasets") => vec![
            number("Desired", |r, _| int(&r["spec"]["replicas"]).into()),
            number("Current", |r, _| int(&r["status"]["replicas"]).into()),
            number("Ready", |r, _| int(&r["status"]["readyReplicas"]).into()),
            age_column(),
            wide("Containers", |d, _| containers(d, "name")),
            wide("Images", |d, _| containers(d, "image")),
            wide("Selector", |d, _| labels(&d["spec"]["selector"]["matchLabels"])),
        ],
        ("", "services") => vec![
            text("Type", |s, _| s["spec"]["type"].clone()),
            text("Cluster-IP", |s, _| or_none(&s["spec"]["clusterIP"])),
            text("External-IP", external),
            text("Port(s)", |s, _| joined(s["spec"]["ports"].as_array(), service_port).into()),
            age_column(),
            wide("Selector", |s, _| labels(&s["spec"]["selector"])),
        ],
        ("", "endpoints") => vec![text("Endpoints", endpoints), age_column()],
        ("", "namespaces") => vec![text("Status", |n, _| n["status"]["phase"].clone()), age_column()],
        ("", "configmaps") => {
            vec![text("Data", |c, _| (entries(&c["data"]) + entries(&c["binaryData"])).into()), age_column()]
        }
        ("", "secrets") => {
            vec![text("Type", |s, _| s["type"].clone()), text("Data", |s, _| entries(&s["data"]).into()), age_column()]
        }
        ("", "serviceaccounts") => vec![number("Secrets", |s, _| list_len(&s["secrets"]).into()), age_column()],
        ("", "nodes") => vec![
            text("Status", node_status),
            text("Roles", roles),
            age_column(),
            text("Version", |n, _| n["status"]["nodeInfo"]["kubeletVersion"].clone()),
            wide("Internal-IP", |n, _| node_address(n, "InternalIP")),
            wide("External-IP", |n, _| node_address(n, "ExternalIP")),
            wide("OS-Image", |n, _| or_unknown(&n["status"]["nodeInfo"]["osImage"])),
            wide("Kernel-Version", |n, _| or_unknown(&n["status"]["nodeInfo"]["kernelVersion"])),
            wide("Container-Runtime", |n, _| or_unknown(&n["status"]["nodeInfo"]["containerRuntimeVersion"])),
        ],
        ("" | "events.k8s.io", "events") => vec![
            text("Last Seen", last_seen),
            text("Type", |e, _| e["type"].clone()),
            text("Reason", |e, _| e["reason"].clone()),
            text("Object", event_object),
            wide("Subobject", |e, _| either(e, "involvedObject", "regarding")["fieldPath"].clone()),
            wide("Source", |e, _| either(e, "source", "deprecatedSource")["component"].clone()),
            text("Message", |e, _| either(e, "message", "note").as_str().unwrap_or_default().trim().into()),
            wide("First Seen", |e, now| seen(either(e, "firstTimestamp", "deprecatedFirstTimestamp"), e, now)),
            Column::builtin("Count", "integer", 1, |e, _| int(either(e, "count", "deprecatedCount")).max(1).into()),
            wide("Name", |e, _| e["metadata"]["name"].clone()),
        ],
        ("coordination.k8s.io", "leases") => {
            vec![text("Holder", |l, _| l["spec"]["holderIdentity"].clone()), age_column()]
        }
        ("discovery.k8s.io", "endpointslices") => vec![
            text("AddressType", |s, _| s["addressType"].clone()),
            text("Ports", |s, _| none_if_empty(joined(s["ports"].as_array(), |p| int(&p["port"]).to_string()))),
            text("Endpoints", |s, _| {
                none_if_empty(joined(s["endpoints"].as_array(), |e| {
                    e["addresses"][0].as_str().unwrap_or_default().to_owned()
                }))
            }),
            age_column(),
        ],
        ("autoscaling", "horizontalpodautoscalers") => vec![
            text("Reference", |h, _| {
                let target = &h["spec"]["scaleTargetRef"];
                format!("{}/{}", string(&target["kind"]), string(&target["name"])).into()
            }),
            text("MinPods", |h, _| int(&h["spec"]["minReplicas"]).to_string().into()),
            number("MaxPods", |h, _| int(&h["spec"]["maxReplicas"]).into()),
            number("Replicas", |h, _| int(&h["status"]["currentReplicas"]).into()),
            age_column(),
        ],
        ("apiextensions.k8s.io", _) => {
            vec![text("Created At", |c, _| c["metadata"]["creationTimestamp"].clone())]
        }
        _ => vec![age_column()],
    }
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn list_len(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn or_none(value: &Value) -> Value {
    none_if_empty(string(value).to_owned())
}

fn or_unknown(value: &Value) -> Value {
    if string(value).is_empty() { "<unknown>".into() } else { value.clone() }
}

fn none_if_empty(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn joined(list: Option<&Vec<Value>>, show: impl Fn(&Value) -> String) -> String {
    list.into_iter().flatten().map(show).collect::<Vec<_>>().join(",")
}

fn labels(map: &Value) -> Value {
    let pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", string(value))).collect();
    none_if_empty(pairs.join(","))
}

fn containers(object: &Value, field: &str) -> Value {
    joined(object["spec"]["template"]["spec"]["containers"].as_array(), |c| string(&c[field]).to_owned()).into()
}

fn service_port(port: &Value) -> String {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    match int(&port["nodePort"]) {
        0 => format!("{}/{protocol}", int(&port["port"])),
        node => format!("{}:{node}/{protocol}", int(&port["port"])),
    }
}

fn external(service: &Value, _: Timestamp) -> Value {
    if service["spec"]["type"] == "ExternalName" {
        return service["spec"]["externalName"].clone();
    }
    let of = |list: &Value, show: fn(&Value) -> String| joined(list.as_array(), show);
    let addresses = of(&service["status"]["loadBalancer"]["ingress"], |entry| {
        entry["ip"].as_str().or(entry["hostname"].as_str()).unwrap_or_default().to_owned()
    });
    if service["spec"]["type"] == "LoadBalancer" && addresses.is_empty() {
        return "<pending>".into();
    }
    none_if_empty([addresses, of(&service["spec"]["externalIPs"], |ip| string(ip).to_owned())].concat())
}

/// At most three addresses, then how many more.
fn endpoints(object: &Value, _: Timestamp) -> Value {
    let mut all = Vec::new();
    for subset in object["subsets"].as_array().into_iter().flatten() {
        for address in subset["addresses"].as_array().into_iter().flatten() {
            let ip = string(&address["ip"]);
            let ports = subset["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{ip}:{}", int(&port["port"]))));
        }
    }
    let shown = all.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    if all.len() > 3 { format!("{shown} + {} more...", all.len() - 3).into() } else { none_if_empty(shown) }
}

fn node_status(node: &Value, _: Timestamp) -> Value {
    let ready = node["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let mut text = match ready.map(|condition| string(&condition["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text.into()
}

fn roles(node: &Value, _: Timestamp) -> Value {
    let roles: Vec<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    none_if_empty(roles.join(","))
}

fn node_address(node: &Value, kind: &str) -> Value {
    let mut addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    addresses.find(|address| address["type"] == kind).map_or("<none>".into(), |address| address["address"].clone())
}

fn either<'v>(event: &'v Value, core: &str, newer: &str) -> &'v Value {
    event.get(core).or_else(|| event.get(newer)).unwrap_or(&Value::Null)
}

fn seen(time: &Value, event: &Value, now: Timestamp) -> Value {
    match time.as_str().or(event["eventTime"].as_str()) {
        Some(time) => age::of(time, now).into(),
        None => "<unknown>".into(),
    }
}

fn last_seen(event: &Value, now: Timestamp) -> Value {
    let series = &event["series"]["lastObservedTime"];
    seen(
        if series.is_string() { series } else { either(event, "lastTimestamp", "deprecatedLastTimestamp") },
        event,
        now,
    )
}

fn event_object(event: &Value, _: Timestamp) -> Value {
    let object = either(event, "involvedObject", "regarding");
    format!("{}/{}", string(&object["kind"]).to_lowercase(), string(&object["name"])).into()
}
