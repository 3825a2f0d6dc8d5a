//! One review of the API server to one answer. Pure.

use kube::{
    api::DynamicObject,
    core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation as Asked},
};
use serde_json::Value;

use crate::{
    admission::{self, Operation, Request},
    settings::Settings,
};

/// Fills in defaults.
pub const DEFAULTING: &str = "/defaulting";
/// Judges objects.
pub const VALIDATION: &str = "/resource-validation";
/// Judges ConfigMaps.
pub const CONFIGURATION: &str = "/config-validation";

/// What is no question.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither of the three.
    #[error("nothing at {0:?}: want {DEFAULTING}, {VALIDATION} or {CONFIGURATION}")]
    Path(String),
    /// Not an AdmissionReview.
    #[error("not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// One that asks nothing.
    #[error("an AdmissionReview without a request")]
    Empty,
    /// A patch that cannot be written.
    #[error(transparent)]
    Patch(#[from] kube::core::admission::SerializePatchError),
}

/// The answer to a question at a path, both as JSON. `namespace` is the system's.
pub fn answer(path: &str, question: &[u8], settings: &Settings, namespace: &str) -> Result<Vec<u8>, Error> {
    let fills_in = match path {
        DEFAULTING => true,
        VALIDATION | CONFIGURATION => false,
        other => return Err(Error::Path(other.to_owned())),
    };
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(question)?;
    let request: AdmissionRequest<DynamicObject> = review.try_into().map_err(|_| Error::Empty)?;
    let answer = judge(&request, fills_in, settings, namespace)?;
    Ok(serde_json::to_vec(&answer.into_review())?)
}

fn judge(
    request: &AdmissionRequest<DynamicObject>,
    fills_in: bool,
    settings: &Settings,
    namespace: &str,
) -> Result<AdmissionResponse, Error> {
    let answer = AdmissionResponse::from(request);
    let operation = match request.operation {
        Asked::Create => Operation::Create,
        Asked::Update => Operation::Update,
        Asked::Delete | Asked::Connect => return Ok(answer),
    };
    let (group, kind) = (request.kind.group.as_str(), request.kind.kind.as_str());
    let not_ours =
        !admission::handles(group, kind) || group.is_empty() && request.namespace.as_deref() != Some(namespace);
    let Some(object) = request.object.as_ref().filter(|_| !not_ours) else { return Ok(answer) };
    let new = serde_json::to_value(object)?;
    let old = request.old_object.as_ref().map(serde_json::to_value).transpose()?;
    let question = Request {
        group,
        kind,
        operation,
        subresource: request.sub_resource.as_deref().unwrap_or_default(),
        old: old.as_ref(),
        new: new.clone(),
        user: request.user_info.username.as_deref().unwrap_or_default(),
    };
    match admission::default_and_validate(question, settings) {
        Ok(defaulted) if fills_in => Ok(filled_in(answer, &new, &defaulted)?),
        Ok(_) => Ok(answer),
        Err(denied) => Ok(answer.deny(denied.message)),
    }
}

fn filled_in(answer: AdmissionResponse, before: &Value, after: &Value) -> Result<AdmissionResponse, Error> {
    let patch = json_patch::diff(before, after);
    Ok(if patch.0.is_empty() { answer } else { answer.with_patch(patch)? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(path: &str, request: &Value) -> Value {
        let mut whole = json!({
            "uid": "7", "resource": { "group": "", "version": "v1", "resource": "x" }, "name": "n", "dryRun": false,
            "namespace": "knative-serving", "operation": "CREATE", "userInfo": { "username": "ann" }, "options": null,
        });
        json_patch::merge(&mut whole, request);
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": whole });
        let settings = Settings::new("cluster.local");
        let said = answer(path, review.to_string().as_bytes(), &settings, "knative-serving").unwrap();
        let said: Value = serde_json::from_slice(&said).unwrap();
        assert_eq!((&said["kind"], &said["response"]["uid"]), (&json!("AdmissionReview"), &json!("7")));
        said["response"].clone()
    }

    fn service(image: &str) -> Value {
        json!({
            "kind": { "group": "serving.knative.dev", "version": "v1", "kind": "Service" },
            "object": {
                "apiVersion": "serving.knative.dev/v1", "kind": "Service",
                "metadata": { "name": "hello", "namespace": "default" },
                "spec": { "template": { "spec": { "containers": [{ "image": image }] } } },
            },
        })
    }

    fn map(namespace: &str, value: &str) -> Value {
        json!({
            "namespace": namespace, "kind": { "group": "", "version": "v1", "kind": "ConfigMap" },
            "object": {
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "config-autoscaler", "namespace": namespace }, "data": { "stable-window": value },
            },
        })
    }

    /// Upstream's words for what is refused, in process and here.
    #[test]
    fn what_is_wrong_is_refused_everywhere() {
        for path in [DEFAULTING, VALIDATION] {
            let said = ask(path, &service(""));
            assert_eq!(said["allowed"], false);
            let why = "validation failed: missing field(s): spec.template.spec.containers[0].image";
            assert_eq!(said["status"]["message"], why, "{path}");
        }
        let said = ask(CONFIGURATION, &map("knative-serving", "3x"));
        assert!(said["status"]["message"].as_str().unwrap().contains("stable-window"), "{said}");
        assert_eq!(ask(CONFIGURATION, &map("default", "3x"))["allowed"], true, "of somebody else");
        assert_eq!(ask(CONFIGURATION, &map("knative-serving", "30s"))["allowed"], true);
    }

    #[test]
    fn defaults_are_a_patch_of_what_was_asked_for() {
        let question = service("hello");
        let said = ask(DEFAULTING, &question);
        assert_eq!((&said["allowed"], &said["patchType"]), (&json!(true), &json!("JSONPatch")));
        let patch = kube_patch(&said["patch"]);
        let mut object = question["object"].clone();
        json_patch::patch(&mut object, &patch).unwrap();
        assert_eq!(object["spec"]["traffic"], json!([{ "latestRevision": true, "percent": 100 }]));
        assert_eq!(object["metadata"]["annotations"]["serving.knative.dev/creator"], "ann");
        // Judged again, nothing is left to fill in.
        let mut again = question;
        again["object"] = object.clone();
        again["oldObject"] = object;
        again["operation"] = json!("UPDATE");
        let said = ask(DEFAULTING, &again);
        assert_eq!((&said["allowed"], said.get("patch")), (&json!(true), None));
        assert_eq!(ask(VALIDATION, &again).get("patch"), None);
    }

    fn kube_patch(patch: &Value) -> json_patch::Patch {
        // Numbers, which Go reads into bytes as it does base64.
        let bytes: Vec<u8> = serde_json::from_value(patch.clone()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn what_is_not_judged_passes() {
        let mut gone = service("");
        gone["operation"] = json!("DELETE");
        gone["oldObject"] = gone["object"].take();
        assert_eq!(ask(VALIDATION, &gone)["allowed"], true);
        let mut other = service("");
        other["kind"]["group"] = json!("apps");
        assert_eq!(ask(VALIDATION, &other)["allowed"], true);
        let mut status = service("");
        status["subResource"] = json!("status");
        assert_eq!(ask(VALIDATION, &status)["allowed"], true);
    }

    #[test]
    fn what_is_no_question_is_an_error() {
        let settings = Settings::new("cluster.local");
        for (path, question) in [
            ("/", "{}"),
            (DEFAULTING, ""),
            (DEFAULTING, "[]"),
            (DEFAULTING, r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#),
        ] {
            assert!(answer(path, question.as_bytes(), &settings, "knative-serving").is_err(), "{path} {question}");
        }
    }
}
