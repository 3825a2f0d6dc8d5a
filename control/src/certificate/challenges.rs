//! What must be served for an issuer to believe that hosts are ours: the solvers that cert-manager starts for HTTP-01.

use api::networking::{Certificate, Http01Challenge};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::{desired::checksum, failed};
use crate::{context::ReconcileError, engine::world::controller_of};

/// Label of a solver's Service: its host, summed.
const HOST: &str = "acme.cert-manager.io/http-domain";
/// Where a solver is asked.
const PATH: &str = "/.well-known/acme-challenge";

/// The challenges under way of cert-manager's Certificate; none for issuers that ask otherwise, or while there is no
/// solver yet.
pub async fn find(
    client: &Client,
    certificate: &Certificate,
    theirs: &Value,
) -> Result<Vec<Http01Challenge>, ReconcileError> {
    let failed = |verb| failed(verb, certificate);
    let issuers = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "ClusterIssuer"));
    let issuers: Api<DynamicObject> = Api::all_with(client.clone(), &issuers);
    let issuer = theirs["spec"]["issuerRef"]["name"].as_str().unwrap_or_default();
    let issuer = issuers.get_opt(issuer).await.map_err(failed("get the issuer of"))?;
    if !issuer.is_some_and(|issuer| issuer.data["spec"]["acme"]["solvers"][0]["http01"].is_object()) {
        return Ok(Vec::new());
    }
    let namespace = certificate.namespace().unwrap_or_default();
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("acme.cert-manager.io", "v1", "Challenge"));
    let challenges: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &kind);
    let mut found = Vec::new();
    for host in theirs["spec"]["dnsNames"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let solvers = ListParams::default().labels(&format!("{HOST}={}", checksum(host)));
        for solver in services.list(&solvers).await.map_err(failed("list solvers of"))? {
            let Some(owner) = controller_of(&solver).or(solver.owner_references().first()) else { continue };
            let challenge = challenges.get_opt(&owner.name).await.map_err(failed("get a challenge of"))?;
            let Some(challenge) = challenge else { continue };
            let said = |field: &str| challenge.data["spec"][field].as_str().unwrap_or_default().to_owned();
            let port = solver.spec.as_ref().and_then(|spec| spec.ports.as_ref()?.first()?.target_port.clone());
            found.push(Http01Challenge {
                url: Some(format!("http://{}{PATH}/{}", said("dnsName"), said("token"))),
                service_name: Some(solver.name_any()),
                service_namespace: Some(namespace.clone()),
                service_port: port,
            });
        }
    }
    found.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(found)
}
