//! Names of Revisions that the user brings along: is the name free, ours already, or taken?

use api::{
    labels::serving,
    serving::{Configuration, Revision},
};
use kube::ResourceExt;

use crate::engine::world::is_controlled_by;

/// What stands in the way of a template's own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameCheck {
    /// The template names nothing.
    NotNamed,
    /// No Revision of that name exists.
    Free,
    /// The Revision of that name is this Configuration's, of this generation or of the same spec.
    Ours,
    /// The name belongs to another Configuration, or to an earlier spec of this one.
    Taken,
}

/// Name that the template asks for.
pub fn template_name(configuration: &Configuration) -> Option<&str> {
    configuration.spec.template.metadata.as_ref()?.name.as_deref().filter(|name| !name.is_empty())
}

/// Judges the name in the template; `named` is the Revision that has it.
pub fn check_name(configuration: &Configuration, named: Option<&Revision>) -> NameCheck {
    if template_name(configuration).is_none() {
        return NameCheck::NotNamed;
    }
    let Some(revision) = named else { return NameCheck::Free };
    if !is_controlled_by(revision, configuration) {
        return NameCheck::Taken;
    }
    let generation = configuration.metadata.generation.unwrap_or_default().to_string();
    let same_generation = revision.labels().get(serving::CONFIGURATION_GENERATION) == Some(&generation);
    // Only the spec counts: users may have put labels and annotations on the Revision since.
    if same_generation || configuration.spec.template.spec == revision.spec {
        NameCheck::Ours
    } else {
        NameCheck::Taken
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn configuration(name: Option<&str>, generation: i64, image: &str) -> Configuration {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration",
            "metadata": {"name": "hello", "namespace": "ns", "uid": "c1", "generation": generation},
            "spec": {"template": {"metadata": {"name": name}, "spec": {"containers": [{"image": image}]}}},
        }))
        .unwrap()
    }

    fn revision(owner: &str, generation: i64, image: &str) -> Revision {
        let owners: Value = json!([{
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "x", "uid": owner, "controller": true
        }]);
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": {
                "name": "hello-byo", "namespace": "ns", "ownerReferences": owners,
                "labels": {"serving.knative.dev/configurationGeneration": generation.to_string()},
            },
            "spec": {"containers": [{"image": image}]},
        }))
        .unwrap()
    }

    #[test]
    fn names_are_judged_as_upstream_does() {
        let named = Some("hello-byo");
        let cases = [
            ("no name", (None, 1, "a"), None, NameCheck::NotNamed),
            ("no such revision", (named, 1, "a"), None, NameCheck::Free),
            ("same generation", (named, 2, "a"), Some(("c1", 2, "b")), NameCheck::Ours),
            ("same spec (roll-back)", (named, 3, "a"), Some(("c1", 1, "a")), NameCheck::Ours),
            ("other spec", (named, 3, "a"), Some(("c1", 1, "b")), NameCheck::Taken),
            ("other owner", (named, 1, "a"), Some(("c2", 1, "a")), NameCheck::Taken),
        ];
        for (case, (name, generation, image), has, want) in cases {
            let has = has.map(|(owner, generation, image)| revision(owner, generation, image));
            assert_eq!(check_name(&configuration(name, generation, image), has.as_ref()), want, "{case}");
        }
    }
}
