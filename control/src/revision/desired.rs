//! The Deployment and the PodAutoscaler of a Revision, as pure functions of Revision and settings.

use std::{collections::BTreeMap, hash::Hasher};

use api::{
    autoscaling::{PodAutoscaler, PodAutoscalerSpec, REACHABLE, ScaleTargetRef, UNREACHABLE},
    caching::{Image, ImageSpec},
    conditions,
    labels::{autoscaling, serving as labels},
    names,
    serving::{ROUTING_ACTIVE, ROUTING_RESERVE, Revision},
    settings::Feature,
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, ObjectFieldSelector, PodSpec, PodTemplateSpec,
            ProjectedVolumeSource, SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
            VolumeProjection,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt;

use super::{
    metadata, queue_container,
    status::{CONTAINER_HEALTHY, RESOURCES_AVAILABLE},
    user_containers::{self, protocol, serving_container},
};
use crate::{owner, settings::Settings};

/// Label with the hash of what we want of the Deployment: cheaper and surer to compare than what the API server made
/// of it by its own defaults.
pub const DEPLOYMENT_HASH: &str = "serving.knative.dev/deployment-hash";
/// Secret with the pod's certificate, one a namespace.
const SERVING_CERTIFICATE: &str = crate::certificate::desired::SIDECARS;
const PODINFO_FEATURE: &str = "features.knative.dev/queueproxy-podinfo";

/// Where queue-proxy comes from and who runs the system.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The ConfigMaps.
    pub settings: &'a Settings,
    /// Image of queue-proxy where `config-deployment` names none.
    pub queue_sidecar_image: &'a str,
    /// Namespace of the system.
    pub system_namespace: &'a str,
}

/// The Deployment as it is created. Its replicas are the autoscaler's from then on.
pub fn deployment(revision: &Revision, around: &Surroundings<'_>) -> Deployment {
    let labels = metadata::labels(revision);
    let user_container = serving_container(revision).map(|c| c.name.clone()).unwrap_or_default();
    let mut wanted = Deployment {
        metadata: owner::child_metadata(
            revision,
            names::deployment(&revision.name_any()),
            labels.clone(),
            metadata::deployment_annotations(revision),
        ),
        spec: Some(DeploymentSpec {
            replicas: Some(initial_scale(revision, around.settings)),
            selector: LabelSelector { match_labels: Some(metadata::selector(revision)), match_expressions: None },
            progress_deadline_seconds: Some(progress_deadline(revision, around.settings)),
            revision_history_limit: Some(0),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    // Slowly and surely: never fewer pods than now.
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: None,
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(metadata::pod_annotations(revision, &user_container)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(revision, around)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    let hash = hash(&wanted);
    wanted.labels_mut().insert(DEPLOYMENT_HASH.to_owned(), hash);
    wanted
}

/// What the Revision runs, for caches of images.
pub fn images(revision: &Revision) -> Vec<Image> {
    let pod = &revision.spec.pod;
    let noted = revision.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses));
    let digests: BTreeMap<&str, &str> =
        noted.filter_map(|status| Some((status.name.as_deref()?, status.image_digest.as_deref()?))).collect();
    let image = |container: &Container| {
        let written = container.image.as_deref().unwrap_or_default();
        let name = names::child_name(&format!("{}-cache", revision.name_any()), &format!("-{}", container.name));
        Image {
            metadata: owner::child_metadata(revision, name, metadata::labels(revision), owner::Map::new()),
            spec: ImageSpec {
                image: digests.get(container.name.as_str()).map_or(written, |digest| digest).to_owned(),
                service_account_name: pod.service_account_name.clone().filter(|name| !name.is_empty()),
                image_pull_secrets: pod.image_pull_secrets.clone().unwrap_or_default(),
            },
            status: None,
        }
    };
    pod.containers.iter().chain(pod.init_containers.iter().flatten()).map(image).collect()
}

/// The PodAutoscaler; `infra_failed` = pods are wanted, none is ready, and the Revision says why.
pub fn pod_autoscaler(revision: &Revision, deployment: Option<&Deployment>) -> PodAutoscaler {
    PodAutoscaler {
        metadata: owner::child_metadata(
            revision,
            revision.name_any(),
            metadata::labels(revision),
            metadata::autoscaler_annotations(revision),
        ),
        spec: PodAutoscalerSpec {
            container_concurrency: Some(revision.spec.container_concurrency.unwrap_or_default()),
            scale_target_ref: ScaleTargetRef {
                api_version: Some("apps/v1".to_owned()),
                kind: Some("Deployment".to_owned()),
                name: Some(names::deployment(&revision.name_any())),
            },
            protocol_type: protocol(revision).to_owned(),
            reachability: reachability(revision, deployment).map(str::to_owned),
        },
        status: None,
    }
}

/// Whether traffic can come: by the Revision's routing state, unless it cannot run at all.
fn reachability(revision: &Revision, deployment: Option<&Deployment>) -> Option<&'static str> {
    let failed = revision.status.as_ref().is_some_and(|s| {
        [RESOURCES_AVAILABLE, CONTAINER_HEALTHY]
            .iter()
            .any(|t| conditions::get(&s.conditions, t).is_some_and(conditions::Condition::is_false))
    });
    let wanted_but_none_ready = deployment.is_some_and(|d| {
        d.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default() > 0
            && d.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default() == 0
    });
    if failed && wanted_but_none_ready {
        return Some(UNREACHABLE);
    }
    match revision.labels().get(labels::ROUTING_STATE).map(String::as_str) {
        Some(ROUTING_ACTIVE) => Some(REACHABLE),
        Some(ROUTING_RESERVE) => Some(UNREACHABLE),
        _ => None,
    }
}

/// Pods to start with: the annotation (admission checked it), else the cluster's.
fn initial_scale(revision: &Revision, settings: &Settings) -> i32 {
    autoscaling::INITIAL_SCALE
        .value(revision.annotations())
        .and_then(|v| v.parse().ok())
        .unwrap_or(settings.autoscaler.initial_scale)
}

fn progress_deadline(revision: &Revision, settings: &Settings) -> i32 {
    let annotated = revision.annotations().get(labels::PROGRESS_DEADLINE).and_then(|v| api::duration::parse(v).ok());
    let seconds = annotated.unwrap_or(settings.deployment.progress_deadline).as_secs();
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

fn pod_spec(revision: &Revision, around: &Surroundings<'_>) -> PodSpec {
    let settings = around.settings;
    let mut queue = queue_container::build(revision, settings, around.queue_sidecar_image, around.system_namespace);
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    let mut mount = |volume: Volume, path: &str, read_only: Option<bool>| {
        mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: path.to_owned(),
            read_only,
            ..VolumeMount::default()
        });
        volumes.push(volume);
    };
    if wants_podinfo(revision, settings) {
        mount(podinfo_volume(), "/etc/podinfo", Some(true));
    }
    if !settings.deployment.queue_token_audiences.is_empty() {
        mount(token_volume(settings), "/var/run/secrets/tokens", None);
    }
    if settings.network.system_internal_tls {
        mount(certificate_volume(), "/var/lib/knative/certs", Some(true));
    }
    if !mounts.is_empty() {
        queue.volume_mounts = Some(mounts);
    }
    let mut spec = revision.spec.pod.clone();
    spec.containers = user_containers::build(revision, settings.features.multi_container_probing == Feature::Enabled);
    spec.containers.push(queue);
    spec.termination_grace_period_seconds = revision.spec.timeout_seconds;
    if spec.enable_service_links.is_none() {
        spec.enable_service_links = settings.defaults.enable_service_links;
    }
    if !volumes.is_empty() {
        spec.volumes.get_or_insert_default().extend(volumes);
    }
    spec
}

fn wants_podinfo(revision: &Revision, settings: &Settings) -> bool {
    let asked = revision.annotations().get(PODINFO_FEATURE).is_some_and(|v| v.eq_ignore_ascii_case("enabled"));
    match settings.features.queue_proxy_mount_podinfo {
        Feature::Enabled => true,
        Feature::Allowed => asked,
        Feature::Disabled | Feature::AllowRootBounded => false,
    }
}

fn podinfo_volume() -> Volume {
    Volume {
        name: "pod-info".to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "annotations".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    field_path: "metadata.annotations".to_owned(),
                    api_version: None,
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
            default_mode: None,
        }),
        ..Volume::default()
    }
}

fn token_volume(settings: &Settings) -> Volume {
    let sources = settings.deployment.queue_token_audiences.iter().map(|audience| VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(audience.clone()),
            expiration_seconds: Some(3600),
            path: audience.clone(),
        }),
        ..VolumeProjection::default()
    });
    Volume {
        name: "knative-token-volume".to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources.collect()), default_mode: None }),
        ..Volume::default()
    }
}

fn certificate_volume() -> Volume {
    Volume {
        name: "server-certs".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(SERVING_CERTIFICATE.to_owned()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Hash of everything we want. Stable over processes and versions of the compiler.
fn hash(deployment: &Deployment) -> String {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for b in bytes {
                self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    // Replicas are where it starts, not what it is.
    let mut deployment = deployment.clone();
    if let Some(spec) = &mut deployment.spec {
        spec.replicas = None;
    }
    hasher.write(&serde_json::to_vec(&deployment).unwrap_or_default());
    format!("{:x}", hasher.finish())
}
