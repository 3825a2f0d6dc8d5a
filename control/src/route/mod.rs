//! Route → Ingress and a placeholder Service for each of its hosts; says where traffic goes and whether it can.

pub mod desired;
pub mod domains;
pub mod rollout;
pub mod status;
pub mod tls;
pub mod traffic;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use api::{
    conditions,
    labels::{networking, serving as labels},
    names,
    networking::Ingress,
    serving::{Addressable, Configuration, Revision, Route, RouteStatus, TrafficTarget},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::ResourceExt;

use self::{domains::InvalidDomain, rollout::Rollout, traffic::Traffic};
use crate::{
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::{Key, World, is_controlled_by},
    },
    serverless_service::same_ports,
    settings::Settings,
};

/// Brings one Route's objects and status up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let route = context.world.routes.get(&key.namespace, &key.name);
    let Some(route) = route.filter(|r| r.metadata.deletion_timestamp.is_none()) else {
        context.world.tracker.set(&key.namespace, &key.name, &BTreeSet::new());
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    let now = Context::now();
    let settings = context.settings.load_full();
    let mut status = route.status.clone().unwrap_or_default();
    begin(&mut status, status::CONDITIONS, route.metadata.generation, now);
    if status.observed_generation != route.metadata.generation {
        // The Ingress in place speaks of the generation before.
        status::ingress_not_configured(&mut status, now);
    }
    let result = reconcile_children(context, &settings, &route, &mut status, now).await;
    let before = route.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    finish(&mut status, before, route.metadata.generation);
    let written = context.write_status(key, route.as_ref(), status).await?;
    Ok(written.or_after(result?))
}

struct InNamespace<'a> {
    world: &'a World,
    namespace: String,
}

impl traffic::Targets for InNamespace<'_> {
    fn configuration(&self, name: &str) -> Option<Arc<Configuration>> {
        self.world.configurations.get(&self.namespace, name)
    }
    fn revision(&self, name: &str) -> Option<Arc<Revision>> {
        self.world.revisions.get(&self.namespace, name)
    }
}

/// Returns how long it is until the next step of a rollout, if there is one.
async fn reconcile_children(
    context: &Context,
    settings: &Settings,
    route: &Route,
    status: &mut RouteStatus,
    now: Timestamp,
) -> Result<Option<Duration>, ReconcileError> {
    let namespace = route.namespace().unwrap_or_default();
    let targets = InNamespace { world: &context.world, namespace: namespace.clone() };
    let resolved = traffic::resolve(route, &targets);
    context.world.tracker.set(&namespace, &route.name_any(), &resolved.referred);
    // Targets are looked at once more: one that came between the first look and the statement above woke nobody.
    let resolved = traffic::resolve(route, &targets);

    let placeholders: Vec<Placeholder> =
        context.world.core_services.indexed(&route.uid().unwrap_or_default()).into_iter().map(Placeholder).collect();
    let cluster_local = domains::visibility(route, &placeholders, settings);
    let was = context.world.ingresses.get(&namespace, &desired::ingress_name(route));
    let at = rollout::nanoseconds(Timestamp::now());
    let around = Around { cluster_local: &cluster_local, settings, was: was.as_deref(), at };
    let plan = match plan(route, &resolved, around, status, now) {
        Ok(Some(plan)) => plan,
        Ok(None) => return Ok(None),
        Err(error) => {
            status::invalid_domain(status, &error, now);
            return Ok(None);
        }
    };
    let certificates = tls::reconcile(context, settings, route, &cluster_local, status, now).await?;
    let mut ingress = plan.ingress;
    tls::add(&mut ingress, certificates);
    let ingress = ensure_ingress(context, route, ingress).await?;
    status::propagate_ingress(status, &ingress, now);
    if plan.rolls_out {
        status::rolls_out(status, now);
    }
    ensure_placeholders(context, settings, route, &plan.tags, &ingress, status, now).await?;
    delete_orphans(context, settings, route, &plan.tags).await?;
    Ok(plan.next_step)
}

struct Placeholder(Arc<Service>);

impl AsRef<Service> for Placeholder {
    fn as_ref(&self) -> &Service {
        &self.0
    }
}

struct Plan {
    ingress: Ingress,
    tags: Vec<String>,
    /// A gradual rollout is under way, and when it goes on.
    rolls_out: bool,
    next_step: Option<Duration>,
}

/// What a plan depends on besides the Route and its targets.
#[derive(Clone, Copy)]
struct Around<'a> {
    cluster_local: &'a BTreeMap<String, bool>,
    settings: &'a Settings,
    /// The Ingress as it is.
    was: Option<&'a Ingress>,
    /// Now, to the nanosecond: steps of a rollout are not bound to whole seconds.
    at: i64,
}

/// Everything that follows from the resolved traffic, status included; none when traffic cannot be assigned.
fn plan(
    route: &Route,
    resolved: &traffic::Resolved,
    around: Around<'_>,
    status: &mut RouteStatus,
    now: Timestamp,
) -> Result<Option<Plan>, InvalidDomain> {
    let Around { cluster_local, settings, was, at } = around;
    status.url = Some(url(route, "", cluster_local, settings)?);
    let traffic = match &resolved.traffic {
        Ok(traffic) => traffic,
        Err(bad) => {
            status::bad_target(status, bad, now);
            return Ok(None);
        }
    };
    let (rollout, next) = roll_out(route, traffic, was, settings, at);
    let ingress = desired::ingress(route, traffic, &rollout, cluster_local, settings)?;
    status::traffic_assigned(status, shown(route, traffic, &rollout, cluster_local, settings)?, now);
    let host = names::service_host(&route.name_any(), &route.namespace().unwrap_or_default(), &settings.cluster_domain);
    status.address = Some(Addressable { url: Some(format!("http://{host}")) });
    Ok(Some(Plan {
        ingress,
        tags: traffic.by_tag.keys().cloned().collect(),
        rolls_out: !rollout.is_done(),
        next_step: next.map(|next| Duration::from_nanos(u64::try_from(next.saturating_sub(at)).unwrap_or(0))),
    }))
}

/// Where gradual rollouts are at this moment, and when the next step is due.
fn roll_out(
    route: &Route,
    traffic: &Traffic,
    was: Option<&Ingress>,
    settings: &Settings,
    now: i64,
) -> (Rollout, Option<i64>) {
    let wanted = rollout::steady(traffic);
    let keys = [labels::ROLLOUT_DURATION, labels::ROLLOUT_DURATION_OLD];
    let annotated = keys.iter().find_map(|key| route.annotations().get(*key));
    let annotated = annotated.and_then(|text| api::duration::parse(text).ok());
    let annotated = annotated.map(|duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX));
    let duration = annotated.filter(|seconds| *seconds > 0).unwrap_or(settings.network.rollout_duration_seconds);
    if duration == 0 {
        return (wanted, None);
    }
    let mut before = rollout::read(was.and_then(|was| was.annotations().get(rollout::ANNOTATION)));
    let was_ready = route.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, status::INGRESS_READY));
    if let Some(before) = &mut before
        && was.is_some_and(crate::ingress::status::is_ready)
        && !was_ready
    {
        before.ingress_is_ready(now, duration);
    }
    wanted.step(before.as_ref(), now)
}

/// Traffic as the status shows it.
fn shown(
    route: &Route,
    traffic: &Traffic,
    rollout: &Rollout,
    cluster_local: &BTreeMap<String, bool>,
    settings: &Settings,
) -> Result<Vec<TrafficTarget>, InvalidDomain> {
    let mut all = Vec::with_capacity(traffic.flat.len());
    for target in &traffic.flat {
        let tag = (!target.tag.is_empty()).then(|| target.tag.clone());
        let url = tag.as_ref().map(|tag| url(route, tag, cluster_local, settings)).transpose()?;
        all.extend(desired::shares(target, &target.tag, rollout).into_iter().map(|(revision, percent)| {
            TrafficTarget {
                url: url.clone(),
                tag: tag.clone(),
                revision_name: Some(revision.to_owned()),
                configuration_name: None,
                latest_revision: Some(target.latest),
                percent: Some(percent),
            }
        }));
    }
    Ok(all)
}

fn url(
    route: &Route,
    tag: &str,
    cluster_local: &BTreeMap<String, bool>,
    settings: &Settings,
) -> Result<String, InvalidDomain> {
    let local = cluster_local.get(tag).copied().unwrap_or_default();
    let scheme = if local { "http" } else { settings.network.default_external_scheme.as_str() };
    Ok(format!("{scheme}://{}", domains::domain_name(route, tag, local, settings)?))
}

async fn ensure_ingress(context: &Context, route: &Route, want: Ingress) -> Result<Arc<Ingress>, ReconcileError> {
    let Some(existing) = context.world.ingresses.get(&route.namespace().unwrap_or_default(), &want.name_any()) else {
        return Ok(Arc::new(context.writer.create(&want).await?));
    };
    Ok(context.writer.take_over(existing, want).await?)
}

async fn ensure_placeholders(
    context: &Context,
    settings: &Settings,
    route: &Route,
    tags: &[String],
    ingress: &Ingress,
    status: &mut RouteStatus,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let namespace = route.namespace().unwrap_or_default();
    let around = desired::Gateway { settings, system_namespace: &context.world.system_namespace };
    for tag in tags {
        let name = domains::host_name(route, tag, settings);
        let existing = context.world.core_services.get(&namespace, &name);
        if existing.as_deref().is_some_and(|s| !is_controlled_by(s, route)) {
            status::service_not_owned(status, &name, now);
            return Err(ReconcileError::NotOwned(format!("route {} does not own Service {name}", route.name_any())));
        }
        let labels = existing.as_deref().map(|s| s.labels().clone()).unwrap_or_default();
        let is_private = labels.get(networking::VISIBILITY).is_some_and(|v| v == networking::CLUSTER_LOCAL);
        // Hosts were checked when the Ingress was made of them.
        let Ok((service, endpoints)) = desired::placeholder(route, tag, Some(ingress), is_private, around) else {
            continue;
        };
        ensure_placeholder(context, existing, service).await?;
        if let Some(endpoints) = endpoints {
            match context.world.endpoints.get(&namespace, &name) {
                None => {
                    context.writer.create(&endpoints).await?;
                }
                Some(have) if !is_controlled_by::<Endpoints, _>(have.as_ref(), route) => {
                    status::endpoints_not_owned(status, &name, now);
                    return Err(ReconcileError::NotOwned(format!(
                        "route {} does not own Endpoints {name}",
                        route.name_any()
                    )));
                }
                Some(have) if have.subsets != endpoints.subsets => {
                    let changed = Endpoints { metadata: have.metadata.clone(), subsets: endpoints.subsets };
                    context.writer.replace(&changed).await?;
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

async fn ensure_placeholder(
    context: &Context,
    existing: Option<Arc<Service>>,
    want: Service,
) -> Result<(), ReconcileError> {
    let Some(existing) = existing else {
        context.writer.create(&want).await?;
        return Ok(());
    };
    let have_spec = existing.spec.clone().unwrap_or_default();
    let want_spec = want.spec.clone().unwrap_or_default();
    let includes = |have: &BTreeMap<String, String>, want: &BTreeMap<String, String>| {
        want.iter().all(|(k, v)| have.get(k) == Some(v))
    };
    let headless = want_spec.cluster_ip.as_deref() == Some("None");
    if have_spec.type_ == want_spec.type_
        && have_spec.external_name == want_spec.external_name
        && (!headless || have_spec.cluster_ip == want_spec.cluster_ip)
        && same_ports(have_spec.ports.as_deref(), want_spec.ports.as_deref())
        && includes(existing.labels(), want.labels())
        && includes(existing.annotations(), want.annotations())
    {
        return Ok(());
    }
    let was_external = have_spec.type_.as_deref() == Some("ExternalName");
    let same_address = have_spec.cluster_ip == want_spec.cluster_ip || want_spec.cluster_ip.is_none();
    if was_external || have_spec.type_ == want_spec.type_ && same_address {
        let mut changed = existing.as_ref().clone();
        changed.labels_mut().extend(want.labels().clone());
        changed.annotations_mut().extend(want.annotations().clone());
        let mut spec = want_spec;
        if spec.type_.as_deref() == Some("ClusterIP") && spec.cluster_ip.is_none() && !was_external {
            spec.cluster_ip = have_spec.cluster_ip;
        }
        changed.spec = Some(spec);
        context.writer.replace(&changed).await?;
    } else {
        // A ClusterIP cannot become something else in place.
        context.writer.delete(existing.as_ref()).await?;
        context.writer.create(&want).await?;
    }
    Ok(())
}

/// Placeholders of tags that are no more.
async fn delete_orphans(
    context: &Context,
    settings: &Settings,
    route: &Route,
    tags: &[String],
) -> Result<(), ReconcileError> {
    let namespace = route.namespace().unwrap_or_default();
    let wanted: BTreeSet<String> = tags.iter().map(|tag| domains::host_name(route, tag, settings)).collect();
    for service in context.world.core_services.indexed(&route.uid().unwrap_or_default()) {
        let name = service.name_any();
        if wanted.contains(&name) {
            continue;
        }
        context.writer.delete(service.as_ref()).await?;
        if let Some(endpoints) = context.world.endpoints.get(&namespace, &name)
            && is_controlled_by::<Endpoints, _>(endpoints.as_ref(), route)
        {
            context.writer.delete(endpoints.as_ref()).await?;
        }
    }
    Ok(())
}
