//! The CustomResourceDefinitions of all our kinds, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionVersion, CustomResourceValidation,
    JSONSchemaProps, JSONSchemaPropsOrArray, ServiceReference, ValidationRule, WebhookClientConfig, WebhookConversion,
};
use kube::CustomResourceExt;

use crate::{
    autoscaling::{Metric, PodAutoscaler},
    caching::Image,
    labels::SYSTEM_NAMESPACE,
    networking::{Certificate, ClusterDomainClaim, Ingress, ServerlessService},
    serving::{Configuration, DomainMapping, Revision, Route, Service},
};

/// All of them, in the order in which a reader meets the kinds. Made one by one as they are asked for: a schema that
/// holds a whole pod takes megabytes while it is in memory.
pub fn all() -> impl Iterator<Item = CustomResourceDefinition> + Send {
    let makers: [fn() -> CustomResourceDefinition; 12] = [
        Service::crd,
        Configuration::crd,
        Revision::crd,
        Route::crd,
        DomainMapping::crd,
        PodAutoscaler::crd,
        Metric::crd,
        ServerlessService::crd,
        Ingress::crd,
        ClusterDomainClaim::crd,
        Certificate::crd,
        Image::crd,
    ];
    makers.into_iter().map(|make| {
        let mut crd = make();
        let schemas = crd.spec.versions.iter_mut().filter_map(|v| v.schema.as_mut()?.open_api_v3_schema.as_mut());
        schemas.for_each(relax);
        let kind = crd.spec.names.kind.clone();
        RULES.iter().filter(|rule| rule.kind == kind).for_each(|rule| rule.add(&mut crd));
        if crd.spec.group == "serving.knative.dev" && crd.spec.versions.iter().any(|version| version.name == "v1") {
            add_v1alpha1(&mut crd);
        }
        crd
    })
}

/// What must hold of the spec of a kind that no admission judges, as a rule for the API server.
struct Rule {
    kind: &'static str,
    /// CEL; `self` is the spec.
    cel: &'static str,
    message: &'static str,
}

const RULES: [Rule; 4] = [
    Rule {
        kind: "ClusterDomainClaim",
        cel: "self.namespace != ''",
        message: "want the namespace whose DomainMapping may have this name",
    },
    Rule {
        kind: "Certificate",
        cel: "self.dnsNames.size() > 0 && self.secretName != ''",
        message: "want at least one of dnsNames, and a secretName",
    },
    Rule { kind: "Image", cel: "self.image != ''", message: "want an image" },
    Rule {
        kind: "ServerlessService",
        cel: "!has(self.mode) || self.mode in ['', 'Proxy', 'Serve']",
        message: "want a mode of Proxy or Serve",
    },
];

impl Rule {
    fn add(&self, crd: &mut CustomResourceDefinition) {
        let schemas = crd.spec.versions.iter_mut().filter_map(|v| v.schema.as_mut()?.open_api_v3_schema.as_mut());
        for spec in schemas.filter_map(|schema| schema.properties.as_mut()?.get_mut("spec")) {
            spec.x_kubernetes_validations.get_or_insert_default().push(ValidationRule {
                rule: self.cel.to_owned(),
                message: Some(self.message.to_owned()),
                ..ValidationRule::default()
            });
        }
    }
}

/// Where the webhook that changes versions listens (upstream's path).
pub const CONVERSION_PATH: &str = "/resource-conversion";

/// The kinds of 2018 are still spoken in their first version. What it holds is told only roughly, as it was then; the
/// conversion knows it.
fn add_v1alpha1(crd: &mut CustomResourceDefinition) {
    let Some(stored) = crd.spec.versions.first() else { return };
    let open = JSONSchemaProps {
        type_: Some("object".to_owned()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    let schema = JSONSchemaProps {
        type_: Some("object".to_owned()),
        properties: Some(["spec", "status"].map(|part| (part.to_owned(), open.clone())).into()),
        ..JSONSchemaProps::default()
    };
    let old = CustomResourceDefinitionVersion {
        name: "v1alpha1".to_owned(),
        served: true,
        storage: false,
        schema: Some(CustomResourceValidation { open_api_v3_schema: Some(schema) }),
        subresources: stored.subresources.clone(),
        additional_printer_columns: stored.additional_printer_columns.clone(),
        ..CustomResourceDefinitionVersion::default()
    };
    crd.spec.versions.push(old);
    let service = ServiceReference {
        name: "webhook".to_owned(),
        namespace: SYSTEM_NAMESPACE.to_owned(),
        path: Some(CONVERSION_PATH.to_owned()),
        ..ServiceReference::default()
    };
    // Whom to trust is added by the webhook, which makes its certificate.
    let client = WebhookClientConfig { service: Some(service), ..WebhookClientConfig::default() };
    crd.spec.conversion = Some(CustomResourceConversion {
        strategy: "Webhook".to_owned(),
        webhook: Some(WebhookConversion {
            client_config: Some(client),
            conversion_review_versions: vec!["v1".to_owned()],
        }),
    });
}

/// What a pod must say and a revision need not, because admission fills it in: the name of a container, the port of
/// a probe.
const FILLED_IN: [(&str, &str); 5] =
    [("containers", "name"), ("initContainers", "name"), ("httpGet", "port"), ("tcpSocket", "port"), ("grpc", "port")];

fn relax(schema: &mut JSONSchemaProps) {
    for (name, property) in schema.properties.iter_mut().flatten() {
        for (_, field) in FILLED_IN.iter().filter(|(owner, _)| owner == name) {
            let object = match property.items.as_mut() {
                Some(JSONSchemaPropsOrArray::Schema(item)) => item.as_mut(),
                _ => &mut *property,
            };
            if let Some(required) = &mut object.required {
                required.retain(|r| r != field);
            }
        }
        relax(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = schema.items.as_mut() {
        relax(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_short_names_and_columns_are_upstreams() {
        let crds: Vec<_> = all().collect();
        let find = |name: &str| crds.iter().find(|c| c.metadata.name.as_deref() == Some(name)).unwrap();
        let service = find("services.serving.knative.dev");
        assert_eq!(service.spec.names.short_names.as_deref(), Some(&["kservice".to_owned(), "ksvc".to_owned()][..]));
        let columns = service.spec.versions[0].additional_printer_columns.as_ref().unwrap();
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["URL", "LatestCreated", "LatestReady", "Ready", "Reason"]);
        for crd in &crds {
            let old = crd.spec.versions.get(1).map(|version| (version.name.as_str(), version.storage));
            let of_2018 = ["Service", "Configuration", "Revision", "Route"].contains(&crd.spec.names.kind.as_str());
            assert_eq!(old, of_2018.then_some(("v1alpha1", false)));
            assert_eq!(crd.spec.conversion.is_some(), of_2018);
            let version = &crd.spec.versions[0];
            let has_status = version.subresources.as_ref().is_some_and(|sub| sub.status.is_some());
            // Of a claim there is nothing to say, and it is the whole cluster's.
            let is_claim = crd.spec.names.kind == "ClusterDomainClaim";
            assert_eq!(has_status, !is_claim, "{:?}", crd.metadata.name);
            assert_eq!(crd.spec.scope, if is_claim { "Cluster" } else { "Namespaced" });
        }
        let mapping = find("domainmappings.serving.knative.dev");
        assert_eq!(mapping.spec.names.short_names.as_deref(), Some(&["dm".to_owned()][..]));
        assert_eq!(mapping.spec.versions[0].name, "v1beta1");
    }

    #[test]
    fn what_admission_fills_in_is_not_required() {
        let json = serde_json::to_value(all().collect::<Vec<_>>()).unwrap();
        let spec = &json[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let pod = &spec["template"]["properties"]["spec"];
        assert_eq!(pod["required"], serde_json::json!(["containers"]));
        let container = &pod["properties"]["containers"]["items"];
        assert!(!container["required"].to_string().contains("name"), "{}", container["required"]);
        let probe = &container["properties"]["readinessProbe"]["properties"];
        assert!(!probe["httpGet"]["required"].to_string().contains("port"));
        assert!(container["properties"]["ports"]["items"]["required"].to_string().contains("containerPort"));
    }

    #[test]
    fn a_service_reads_as_users_write_it() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "hello"},
            "spec": {"template": {"spec": {
                "containerConcurrency": 3,
                "containers": [{"image": "dev.local/hello", "env": [{"name": "TARGET", "value": "world"}]}]
            }}}
        }))
        .unwrap();
        let spec = &service.spec.template.spec;
        assert_eq!(spec.container_concurrency, Some(3));
        assert_eq!(spec.pod.containers[0].image.as_deref(), Some("dev.local/hello"));
        let back = serde_json::to_value(&service).unwrap();
        assert_eq!(back["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"], "world");
    }
}
