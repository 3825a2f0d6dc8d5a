//! The control plane's defaults and checks inside the embedded API server: on a cluster a webhook, here a call.

use std::sync::Arc;

use arc_swap::ArcSwap;
use control::{admission, settings::Settings, v1alpha1};
use serde_json::Value;

use crate::apiserver::{Admission, AdmissionDenied, AdmissionRequest, Convert, Operation};

/// Admission by the settings that the controller reads.
pub struct ControlPlane {
    /// The controller's snapshot: both obey the same ConfigMaps.
    pub settings: Arc<ArcSwap<Settings>>,
}

impl Admission for ControlPlane {
    fn handles(&self, group: &str, kind: &str) -> bool {
        admission::handles(group, kind)
    }

    fn admit(&self, request: AdmissionRequest) -> Result<Value, AdmissionDenied> {
        let operation = match request.operation {
            Operation::Create => admission::Operation::Create,
            Operation::Update => admission::Operation::Update,
            Operation::Delete => admission::Operation::Delete,
        };
        let question = admission::Request {
            group: &request.group,
            kind: &request.kind,
            operation,
            subresource: &request.subresource,
            old: request.old.as_ref(),
            new: request.new.unwrap_or_default(),
            user: &request.user,
        };
        admission::default_and_validate(question, &self.settings.load()).map_err(|denied| AdmissionDenied {
            webhook: denied.webhook.to_owned(),
            message: denied.message,
            // What Knative's webhooks answer.
            code: 400,
        })
    }

    fn convert(&self) -> Convert {
        |object, to| v1alpha1::convert(object, to).map_err(|error| error.to_string())
    }
}
