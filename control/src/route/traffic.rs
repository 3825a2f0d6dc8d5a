//! Which Revisions a Route's traffic means: follows Configurations to their latest ready Revision, checks that every
//! target can serve, joins equal ones (upstream `pkg/reconciler/route/traffic`).
//!
//! Reads the world through [`Targets`] only, so that every rule is tested without one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    conditions::{self, READY},
    labels::serving as labels,
    serving::{Configuration, Revision, Route, TrafficTarget},
};
use kube::ResourceExt;

use crate::{configuration::status::is_ready, engine::tracker::Referred, revision::user_containers::protocol};

/// Where Configurations and Revisions of the Route's namespace are looked up.
pub trait Targets {
    /// A Configuration by name.
    fn configuration(&self, name: &str) -> Option<Arc<Configuration>>;
    /// A Revision by name.
    fn revision(&self, name: &str) -> Option<Arc<Revision>>;
}

/// One Revision with its share.
#[derive(Debug, Clone, PartialEq)]
pub struct RevisionTarget {
    /// Tag; empty for none.
    pub tag: String,
    /// The Revision.
    pub revision: String,
    /// The Configuration it is of; empty when unknown.
    pub configuration: String,
    /// Whether it follows the latest.
    pub latest: bool,
    /// Share of 100.
    pub percent: i64,
    /// `http1` or `h2c`.
    pub protocol: &'static str,
}

/// A Route's traffic, resolved.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traffic {
    /// Splits by tag; the empty tag is the Route itself. Shares of each sum to 100.
    pub by_tag: BTreeMap<String, Vec<RevisionTarget>>,
    /// What the status shows: the spec's targets, equal ones joined.
    pub flat: Vec<RevisionTarget>,
}

/// Why traffic cannot be assigned; the worst of all targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadTarget {
    /// No such object.
    Missing {
        /// `Configuration` or `Revision`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The Configuration has no ready Revision.
    Configuration {
        /// Its name.
        name: String,
        /// It never will, as it is.
        failed: bool,
    },
    /// The Revision is not ready.
    Revision {
        /// Its name.
        name: String,
        /// It never will, as it is.
        failed: bool,
    },
    /// The Revision is another Service's.
    NotOwned {
        /// Its name.
        name: String,
        /// The Route's Service.
        expected: String,
        /// The Revision's Service; empty for none.
        actual: String,
    },
}

impl BadTarget {
    /// False: it may only take time.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::NotOwned { .. } => true,
            Self::Configuration { failed, .. } | Self::Revision { failed, .. } => *failed,
        }
    }
}

/// The outcome, with everything that was looked at (found or not) so that its changes wake the Route.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The traffic, or why not.
    pub traffic: Result<Traffic, BadTarget>,
    /// What was referred to.
    pub referred: BTreeSet<(Referred, String)>,
}

/// Resolves the Route's traffic.
pub fn resolve(route: &Route, targets: &impl Targets) -> Resolved {
    let mut referred = BTreeSet::new();
    let mut traffic = Traffic::default();
    let mut bad: Option<BadTarget> = None;
    for target in &route.spec.traffic {
        match resolve_target(route, target, targets, &mut referred) {
            Ok(Some(found)) => add(&mut traffic, found),
            Ok(None) => {}
            // A failure is told before what may only take time.
            Err(error) => {
                if bad.is_none() || error.is_failure() {
                    bad = Some(error);
                }
            }
        }
    }
    for targets in traffic.by_tag.values_mut() {
        consolidate(targets);
    }
    Resolved { traffic: bad.map_or(Ok(traffic), Err), referred }
}

fn resolve_target(
    route: &Route,
    target: &TrafficTarget,
    targets: &impl Targets,
    referred: &mut BTreeSet<(Referred, String)>,
) -> Result<Option<RevisionTarget>, BadTarget> {
    let given = |name: &Option<String>| name.clone().filter(|n| !n.is_empty());
    if let Some(name) = given(&target.revision_name) {
        referred.insert((Referred::Revision, name.clone()));
        let revision = targets.revision(&name).ok_or(BadTarget::Missing { kind: "Revision", name })?;
        check_owner(route, &revision)?;
        check_ready(&revision)?;
        let configuration = revision.labels().get(labels::CONFIGURATION).cloned().unwrap_or_default();
        if !configuration.is_empty() {
            referred.insert((Referred::Configuration, configuration.clone()));
            targets
                .configuration(&configuration)
                .ok_or_else(|| BadTarget::Missing { kind: "Configuration", name: configuration.clone() })?;
        }
        return Ok(Some(flattened(target, &revision, configuration)));
    }
    if let Some(name) = given(&target.configuration_name) {
        referred.insert((Referred::Configuration, name.clone()));
        let configuration = targets
            .configuration(&name)
            .ok_or_else(|| BadTarget::Missing { kind: "Configuration", name: name.clone() })?;
        let latest = configuration.status.as_ref().and_then(|s| given(&s.latest_ready_revision_name));
        let Some(latest) = latest else {
            let failed = configuration.status.as_ref().is_some_and(|s| has_failed(&s.conditions));
            return Err(BadTarget::Configuration { name, failed });
        };
        referred.insert((Referred::Revision, latest.clone()));
        let revision =
            targets.revision(&latest).ok_or_else(|| BadTarget::Missing { kind: "Revision", name: latest.clone() })?;
        check_ready(&revision)?;
        return Ok(Some(flattened(target, &revision, name)));
    }
    Ok(None)
}

/// A Service's Route may use that Service's Revisions alone; a Route by itself may use any.
fn check_owner(route: &Route, revision: &Revision) -> Result<(), BadTarget> {
    let service = |labels: &BTreeMap<String, String>| labels.get(labels::SERVICE).cloned().unwrap_or_default();
    let (expected, actual) = (service(route.labels()), service(revision.labels()));
    if expected.is_empty() || expected == actual {
        return Ok(());
    }
    Err(BadTarget::NotOwned { name: revision.name_any(), expected, actual })
}

fn check_ready(revision: &Revision) -> Result<(), BadTarget> {
    if is_ready(revision) {
        return Ok(());
    }
    let failed = revision.status.as_ref().is_some_and(|s| has_failed(&s.conditions));
    Err(BadTarget::Revision { name: revision.name_any(), failed })
}

fn has_failed(conditions: &[conditions::Condition]) -> bool {
    conditions::get(conditions, READY).is_some_and(conditions::Condition::is_false)
}

fn flattened(target: &TrafficTarget, revision: &Revision, configuration: String) -> RevisionTarget {
    RevisionTarget {
        tag: target.tag.clone().unwrap_or_default(),
        revision: revision.name_any(),
        configuration,
        latest: target.latest_revision.unwrap_or_else(|| target.revision_name.as_deref().unwrap_or("").is_empty()),
        percent: target.percent.unwrap_or_default(),
        protocol: protocol(revision),
    }
}

fn add(traffic: &mut Traffic, target: RevisionTarget) {
    let equal =
        |t: &&mut RevisionTarget| t.tag == target.tag && t.revision == target.revision && t.latest == target.latest;
    if let Some(same) = traffic.flat.iter_mut().find(equal) {
        same.percent += target.percent;
    } else {
        traffic.flat.push(target.clone());
    }
    if !target.tag.is_empty() {
        traffic.by_tag.entry(target.tag.clone()).or_default().push(target.clone());
    }
    traffic.by_tag.entry(String::new()).or_default().push(target);
}

/// Joins targets of the same Revision; a lone one gets everything (a tag with 0 % still serves by its own host).
fn consolidate(targets: &mut Vec<RevisionTarget>) {
    let mut joined: Vec<RevisionTarget> = Vec::with_capacity(targets.len());
    for target in targets.drain(..) {
        match joined.iter_mut().find(|t| t.revision == target.revision) {
            Some(same) => same.percent += target.percent,
            None => joined.push(target),
        }
    }
    if let [only] = joined.as_mut_slice() {
        only.percent = 100;
    }
    *targets = joined;
}
