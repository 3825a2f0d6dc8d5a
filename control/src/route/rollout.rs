//! How the share of each followed Configuration lies on its Revisions. This is the annotation by which a gradual
//! rollout remembers where it is; for now each Configuration's share is on its latest Revision at once.

use api::labels::networking;
use serde::{Deserialize, Serialize};

use super::traffic::Traffic;

/// Annotation on the Ingress that carries it.
pub const ANNOTATION: &str = networking::ROLLOUT;

/// State of all rollouts of a Route, by tag and Configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// One for each followed Configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configurations: Vec<ConfigurationRollout>,
}

/// State of one rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationRollout {
    /// The Configuration.
    pub configuration_name: String,
    /// Tag; empty for the Route itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// Share of the Route's traffic.
    pub percent: i64,
    /// Oldest first; the last one gets all in the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<RevisionRollout>,
    /// Rhythm; empty when none is under way.
    pub step_params: StepParams,
}

/// Share of one Revision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRollout {
    /// The Revision.
    pub revision_name: String,
    /// Share of the Route's traffic.
    pub percent: i64,
}

/// Rhythm of a rollout, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepParams {}

/// The state without any rollout under way.
pub fn steady(traffic: &Traffic) -> Rollout {
    let mut configurations: Vec<ConfigurationRollout> = traffic
        .by_tag
        .iter()
        .flat_map(|(tag, targets)| targets.iter().map(move |t| (tag, t)))
        .filter(|(_, t)| t.latest && t.percent != 0)
        .map(|(tag, t)| ConfigurationRollout {
            configuration_name: t.configuration.clone(),
            tag: tag.clone(),
            percent: t.percent,
            revisions: vec![RevisionRollout { revision_name: t.revision.clone(), percent: t.percent }],
            step_params: StepParams {},
        })
        .collect();
    configurations.sort_by(|a, b| (&a.tag, &a.configuration_name).cmp(&(&b.tag, &b.configuration_name)));
    Rollout { configurations }
}
