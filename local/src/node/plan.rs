//! What the node needs to know of a pod's spec, read once, with the API's defaults filled in. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Pod, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::images::ImageMap;

const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A pod's containers in the order in which they are listed: init containers first.
#[derive(Debug, Clone)]
pub(super) struct PodPlan {
    pub(super) containers: Vec<ContainerPlan>,
    pub(super) restart: RestartPolicy,
    pub(super) grace: Duration,
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// One container.
#[derive(Debug, Clone)]
pub(super) struct ContainerPlan {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) startup: Option<ProbePlan>,
    pub(super) liveness: Option<ProbePlan>,
    pub(super) readiness: Option<ProbePlan>,
    pub(super) pre_stop: Option<Check>,
    /// Whether the end of the log explains a failure (`terminationMessagePolicy`).
    pub(super) log_explains: bool,
    pub(super) spec: Container,
}

/// Why a container is in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next starts.
    Init,
    /// Starts before the main containers and stays.
    InitSidecar,
    /// Our queue-proxy: starts first, stops before the user's containers are told to.
    QueueProxy,
    /// Everything else.
    Main,
}

/// One kind of health check with the API's defaults.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProbePlan {
    pub(super) check: Check,
    pub(super) initial_delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) success_threshold: u32,
    pub(super) failure_threshold: u32,
    /// The other side answers the moment it is ready (`Dormouse-Hold`).
    pub(super) hold: bool,
    /// Grace for a container that this probe stops.
    pub(super) grace: Option<Duration>,
}

/// Something to ask of a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Check {
    Http {
        to: SocketAddr,
        https: bool,
        path: String,
        headers: Vec<(String, String)>,
    },
    Tcp {
        to: SocketAddr,
    },
    Grpc {
        to: SocketAddr,
        service: String,
    },
    Exec {
        command: Vec<String>,
    },
    Sleep {
        seconds: u64,
    },
    /// A port name that does not exist, a host that is no address.
    Broken {
        reason: String,
    },
}

/// Reads the plan of a pod whose address and ports are known.
pub(super) fn plan(pod: &Pod, images: &ImageMap, pod_ip: Ipv4Addr, ports: &BTreeMap<u16, u16>) -> PodPlan {
    let spec = pod.spec.clone().unwrap_or_default();
    let at = |container: &Container| Site { pod_ip, ports, own: own_ports(container) };
    let init = spec.init_containers.into_iter().flatten().map(|container| {
        let stays = container.restart_policy.as_deref() == Some("Always");
        let role = if stays { Role::InitSidecar } else { Role::Init };
        self::container(&at(&container), container, role)
    });
    let main = spec.containers.into_iter().map(|container| {
        let queue_proxy = images.is_queue_proxy(container.image.as_deref().unwrap_or_default());
        self::container(&at(&container), container, if queue_proxy { Role::QueueProxy } else { Role::Main })
    });
    PodPlan {
        containers: init.chain(main).collect(),
        restart: match spec.restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        },
        grace: spec.termination_grace_period_seconds.map_or(DEFAULT_GRACE, |s| seconds(Some(s), 30)),
    }
}

/// The ports a container declares.
pub(super) fn own_ports(container: &Container) -> BTreeMap<String, u16> {
    let ports = container.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            Some((port.name.clone().unwrap_or_else(|| number.to_string()), number))
        })
        .collect()
}

/// Where a container's ports are.
struct Site<'a> {
    pod_ip: Ipv4Addr,
    ports: &'a BTreeMap<u16, u16>,
    own: BTreeMap<String, u16>,
}

impl Site<'_> {
    /// A port of the container itself is where the process was told to listen; any other one is the pod's.
    fn address(&self, host: Option<&str>, port: &IntOrString) -> Result<SocketAddr, String> {
        let number = match port {
            IntOrString::Int(number) => u16::try_from(*number).map_err(|_| format!("port {number} is none"))?,
            IntOrString::String(name) => match (self.own.get(name), name.parse()) {
                (Some(number), _) => *number,
                (None, Ok(number)) => number,
                (None, Err(_)) => return Err(format!("couldn't find port: {name}")),
            },
        };
        if let Some(host) = host.filter(|host| !host.is_empty()) {
            let ip: IpAddr = match host {
                "localhost" => Ipv4Addr::LOCALHOST.into(),
                host => host.parse().map_err(|_| format!("host {host:?} is not an address"))?,
            };
            let number = if ip.is_loopback() { self.ports.get(&number).copied().unwrap_or(number) } else { number };
            return Ok((ip, number).into());
        }
        Ok(match self.ports.get(&number) {
            Some(real) if self.own.values().any(|own| *own == number) => (Ipv4Addr::LOCALHOST, *real).into(),
            _ => (self.pod_ip, number).into(),
        })
    }

    fn http(&self, get: &HTTPGetAction) -> Check {
        match self.address(get.host.as_deref(), &get.port) {
            Ok(to) => Check::Http {
                to,
                https: get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
                path: match get.path.as_deref().unwrap_or("/") {
                    path if path.starts_with('/') => path.to_owned(),
                    path => format!("/{path}"),
                },
                headers: get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
            },
            Err(reason) => Check::Broken { reason },
        }
    }

    fn hook(&self, hook: &LifecycleHandler) -> Option<Check> {
        if let Some(get) = &hook.http_get {
            return Some(self.http(get));
        }
        if let Some(sleep) = &hook.sleep {
            return Some(Check::Sleep { seconds: sleep.seconds.max(0).cast_unsigned() });
        }
        hook.exec.as_ref().map(exec)
    }

    fn probe(&self, probe: &Probe) -> Option<ProbePlan> {
        let check = if let Some(get) = &probe.http_get {
            self.http(get)
        } else if let Some(tcp) = &probe.tcp_socket {
            self.address(tcp.host.as_deref(), &tcp.port)
                .map_or_else(|reason| Check::Broken { reason }, |to| Check::Tcp { to })
        } else if let Some(grpc) = &probe.grpc {
            let service = grpc.service.clone().unwrap_or_default();
            self.address(None, &IntOrString::Int(grpc.port))
                .map_or_else(|reason| Check::Broken { reason }, |to| Check::Grpc { to, service })
        } else {
            exec(probe.exec.as_ref()?)
        };
        let count = |value: Option<i32>, default| match value {
            Some(n) if n > 0 => n.cast_unsigned(),
            _ => default,
        };
        Some(ProbePlan {
            check,
            initial_delay: seconds(probe.initial_delay_seconds.map(i64::from), 0),
            period: seconds(probe.period_seconds.map(i64::from).filter(|s| *s > 0), 10),
            timeout: seconds(probe.timeout_seconds.map(i64::from).filter(|s| *s > 0), 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            hold: false,
            grace: probe.termination_grace_period_seconds.map(|s| seconds(Some(s), 0)),
        })
    }
}

fn exec(action: &ExecAction) -> Check {
    Check::Exec { command: action.command.clone().unwrap_or_default() }
}

fn seconds(value: Option<i64>, default: u64) -> Duration {
    Duration::from_secs(value.map_or(default, |s| s.max(0).cast_unsigned()))
}

fn container(site: &Site<'_>, spec: Container, role: Role) -> ContainerPlan {
    let probe = |probe: &Option<Probe>| probe.as_ref().and_then(|probe| site.probe(probe));
    let mut readiness = probe(&spec.readiness_probe);
    if let Some(ProbePlan { check: Check::Http { headers, .. }, hold, .. }) = &mut readiness {
        let ours = |(name, value): &(String, String)| {
            name.eq_ignore_ascii_case(api::headers::NETWORK_PROBE.as_str()) && value == api::probe::QUEUE
        };
        *hold = role == Role::QueueProxy && headers.iter().any(ours);
    }
    ContainerPlan {
        name: spec.name.clone(),
        role,
        startup: probe(&spec.startup_probe),
        liveness: probe(&spec.liveness_probe),
        readiness,
        pre_stop: spec.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()).and_then(|hook| site.hook(hook)),
        log_explains: spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        spec,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(pod: serde_json::Value) -> PodPlan {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let images = ImageMap::new(Vec::new(), "/x".into(), "dormouse.dev/queue-proxy".into(), "/".into());
        plan(&pod, &images, Ipv4Addr::new(127, 9, 0, 2), &BTreeMap::from([(8080, 20_001)]))
    }

    fn knative_pod() -> serde_json::Value {
        json!({"spec": {"terminationGracePeriodSeconds": 300, "containers": [
            {"name": "user-container", "image": "app", "ports": [{"name": "user-port", "containerPort": 8080}],
             "livenessProbe": {"httpGet": {"path": "live", "port": 8080}, "periodSeconds": 0},
             "lifecycle": {"preStop": {"httpGet": {"port": 8022, "path": "/wait-for-drain"}}},
             "terminationMessagePolicy": "FallbackToLogsOnError"},
            {"name": "queue-proxy", "image": "dormouse.dev/queue-proxy:dev",
             "readinessProbe": {"httpGet": {"port": 8012, "httpHeaders": [{"name": "K-Network-Probe", "value": "queue"}]}}}]}})
    }

    #[test]
    fn a_revision_s_pod_is_understood() {
        let plan = read(knative_pod());
        assert_eq!(plan.grace, Duration::from_mins(5));
        assert_eq!(plan.restart, RestartPolicy::Always);
        let [user, queue] = &plan.containers[..] else { panic!("two containers") };
        assert_eq!((user.role, queue.role), (Role::Main, Role::QueueProxy));
        assert!(user.log_explains && !queue.log_explains);
        let live = user.liveness.as_ref().unwrap();
        let to = "127.0.0.1:20001".parse().unwrap();
        assert_eq!(live.check, Check::Http { to, https: false, path: "/live".into(), headers: vec![] });
        assert_eq!(
            (live.period, live.timeout, live.failure_threshold),
            (Duration::from_secs(10), Duration::from_secs(1), 3)
        );
        let Some(Check::Http { to, .. }) = &user.pre_stop else { panic!("a hook") };
        assert_eq!(to.to_string(), "127.9.0.2:8022");
        let ready = queue.readiness.as_ref().unwrap();
        assert!(ready.hold);
        let Check::Http { to, .. } = &ready.check else { panic!("http") };
        assert_eq!(to.to_string(), "127.9.0.2:8012");
    }

    #[test]
    fn only_our_own_sidecar_is_asked_to_hold() {
        let mut pod = knative_pod();
        pod["spec"]["containers"][1]["image"] = json!("someone/queue");
        let plan = read(pod);
        assert!(!plan.containers[1].readiness.as_ref().unwrap().hold);
    }

    #[test]
    fn every_kind_of_check_is_read() {
        let check = |probe: serde_json::Value| {
            let container =
                json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}], "readinessProbe": probe});
            read(json!({"spec": {"containers": [container]}})).containers[0].readiness.clone().unwrap().check
        };
        let web: SocketAddr = "127.0.0.1:20001".parse().unwrap();
        assert_eq!(check(json!({"tcpSocket": {"port": "web"}})), Check::Tcp { to: web });
        assert_eq!(check(json!({"tcpSocket": {"port": 8080, "host": "localhost"}})), Check::Tcp { to: web });
        assert_eq!(check(json!({"tcpSocket": {"port": 9999}})), Check::Tcp { to: "127.9.0.2:9999".parse().unwrap() });
        assert_eq!(
            check(json!({"grpc": {"port": 8080, "service": "s"}})),
            Check::Grpc { to: web, service: "s".into() }
        );
        assert_eq!(check(json!({"exec": {"command": ["true"]}})), Check::Exec { command: vec!["true".into()] });
        assert!(matches!(check(json!({"tcpSocket": {"port": "no"}})), Check::Broken { .. }));
    }
}
