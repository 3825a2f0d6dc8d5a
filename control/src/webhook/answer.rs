//! One review of the API server to one answer. Pure.

use api::crds::CONVERSION_PATH;
use kube::{
    api::DynamicObject,
    core::{
        Status,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation as Asked},
        conversion::{ConversionRequest, ConversionResponse, ConversionReview},
    },
};
use serde_json::Value;

use crate::{
    admission::{self, Operation, Request},
    settings::Settings,
    v1alpha1,
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
    /// None of the four.
    #[error("nothing at {0:?}: want {DEFAULTING}, {VALIDATION}, {CONFIGURATION} or {CONVERSION_PATH}")]
    Path(String),
    /// Not an AdmissionReview, or at the last path not a ConversionReview.
    #[error("not a review: {0}")]
    Json(#[from] serde_json::Error),
    /// One that asks nothing.
    #[error("a review without a request")]
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
        CONVERSION_PATH => return converted(question),
        other => return Err(Error::Path(other.to_owned())),
    };
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(question)?;
    let request: AdmissionRequest<DynamicObject> = review.try_into().map_err(|_| Error::Empty)?;
    let answer = judge(&request, fills_in, settings, namespace)?;
    Ok(serde_json::to_vec(&answer.into_review())?)
}

/// All of the objects in the version asked for, or why one of them has no counterpart there.
fn converted(question: &[u8]) -> Result<Vec<u8>, Error> {
    let review: ConversionReview = serde_json::from_slice(question)?;
    let mut request = ConversionRequest::from_review(review).map_err(|_| Error::Empty)?;
    let objects = std::mem::take(&mut request.objects);
    let to = request.desired_api_version.clone();
    let converted: Result<Vec<Value>, _> = objects.into_iter().map(|object| v1alpha1::convert(object, &to)).collect();
    let answer = ConversionResponse::for_request(request);
    let answer = match converted {
        Ok(objects) => answer.success(objects),
        Err(error) => answer.failure(Status::failure(&error.to_string(), "Invalid")),
    };
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
        // The one that judges will say so, by its name.
        Err(_) if fills_in => Ok(answer),
        Err(denied) => Ok(refused(answer, &denied.message)),
    }
}

/// As upstream refuses: 400, `BadRequest`.
fn refused(answer: AdmissionResponse, why: &str) -> AdmissionResponse {
    let mut answer = answer.deny(why);
    answer.result = Status { code: 400, ..Status::failure(why, "BadRequest") };
    answer
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
    fn what_is_wrong_is_refused_by_the_one_that_judges() {
        let said = ask(DEFAULTING, &service(""));
        assert_eq!((&said["allowed"], said.get("patch")), (&json!(true), None));
        let said = ask(VALIDATION, &service(""));
        assert_eq!(said["allowed"], false);
        let why = "validation failed: missing field(s): spec.template.spec.containers[0].image";
        assert_eq!(said["status"]["message"], why);
        assert_eq!((&said["status"]["code"], &said["status"]["reason"]), (&json!(400), &json!("BadRequest")));
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
    fn versions_are_changed_all_or_none() {
        let ask = |objects: Value| {
            let review = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "request": { "uid": "7", "desiredAPIVersion": "serving.knative.dev/v1", "objects": objects },
            });
            let settings = Settings::new("cluster.local");
            let said = answer(CONVERSION_PATH, review.to_string().as_bytes(), &settings, "knative-serving").unwrap();
            let said: Value = serde_json::from_slice(&said).unwrap();
            assert_eq!((&said["kind"], &said["response"]["uid"]), (&json!("ConversionReview"), &json!("7")));
            said["response"].clone()
        };
        let object = |spec: Value| {
            let api_version = "serving.knative.dev/v1alpha1";
            json!({ "apiVersion": api_version, "kind": "Revision", "metadata": { "name": "x" }, "spec": spec })
        };
        let good = object(json!({ "container": { "image": "x" } }));
        let said = ask(json!([good, good]));
        assert_eq!(said["result"]["status"], "Success");
        assert_eq!(said["convertedObjects"][1]["spec"]["containers"], json!([{ "image": "x" }]));
        let said = ask(json!([good, object(json!({}))]));
        assert_eq!((&said["result"]["status"], &said["convertedObjects"]), (&json!("Failure"), &json!([])));
        let why = "expected exactly one, got neither: spec.container, spec.containers";
        assert_eq!(said["result"]["message"], why);
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
