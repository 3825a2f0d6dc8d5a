//! Keeps the webhook's certificate and its registration as they should be, beside other replicas that do the same.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Secret, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use proxy::tls::Tls;

use super::{
    Config,
    certificates::{self, Decision, Material, SECRET},
    registration,
};

/// Whose fields those of the registration are.
const MANAGER: &str = "dormouse-webhook";
/// Attempts to write a Secret that others write as well.
const ATTEMPTS: u32 = 10;
/// Rounds after which the registration is written though nothing has changed here: somebody may have changed it there.
const REFRESH: u32 = 10;

/// Why certificate or registration are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Secret.
    #[error("Secret {SECRET}: {0}")]
    Secret(#[source] kube::Error),
    /// Others write it all the time.
    #[error("Secret {SECRET}: others write it all the time")]
    Contended,
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] certificates::Error),
    /// What the API server is told of the webhook.
    #[error("{0} {1}: {2}")]
    Registration(&'static str, &'static str, #[source] kube::Error),
    /// A certificate that cannot be served.
    #[error("certificate: {0}")]
    Tls(#[from] proxy::tls::TlsError),
}

/// See the module.
pub struct Keeper {
    config: Config,
    names: Vec<String>,
    served: Option<Material>,
    /// What the API server was told to trust, and when.
    registered: Option<(String, Instant)>,
    rounds: u32,
}

impl Keeper {
    /// Has done nothing yet.
    pub fn new(config: Config) -> Self {
        Self { names: registration::names(&config), config, served: None, registered: None, rounds: 0 }
    }

    /// The certificate to begin with. Nobody is told of the webhook before it serves.
    pub async fn first(&mut self) -> Result<Material, Error> {
        let material = self.material().await?;
        self.served = Some(material.clone());
        Ok(material)
    }

    /// Looks after both for ever.
    pub async fn keep(mut self, tls: &Tls) {
        loop {
            let pause = match self.round(tls).await {
                Ok(()) => self.config.every,
                Err(error) => {
                    tracing::warn!(%error, "certificate or registration not as they should be; tried again soon");
                    self.config.every.min(Duration::from_secs(5))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn round(&mut self, tls: &Tls) -> Result<(), Error> {
        let material = self.material().await?;
        self.rounds += 1;
        let known = self.registered.as_ref().is_some_and(|(trust, _)| *trust == material.trust);
        if !known || self.rounds.is_multiple_of(REFRESH) {
            self.register(&material.trust).await?;
        }
        if !known {
            self.registered = Some((material.trust.clone(), Instant::now()));
        }
        // The API server trusts a new CA before anybody shows what it has signed; until then it trusts the old one.
        let trusted = self.registered.as_ref().is_some_and(|(_, since)| since.elapsed() >= self.config.settle);
        if trusted && self.served.as_ref() != Some(&material) {
            tls.replace(material.chain.as_bytes(), material.key.as_bytes())?;
            tracing::info!("another certificate is served");
            self.served = Some(material);
        }
        Ok(())
    }

    /// What the Secret has, once it is as it should be.
    async fn material(&self) -> Result<Material, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.config.client.clone(), &self.config.system_namespace);
        let trusted = self.served.as_ref().map_or("", |served| served.trust.as_str());
        for _ in 0..ATTEMPTS {
            let secret = secrets.get_opt(SECRET).await.map_err(Error::Secret)?;
            let (wanted, material) =
                match certificates::decide(secret.as_ref(), trusted, &self.names, Timestamp::now())? {
                    Decision::Keep(material) => return Ok(material),
                    Decision::Write(wanted, material) => (wanted, material),
                };
            let post = PostParams::default();
            let written = match &secret {
                Some(_) => secrets.replace(SECRET, &post, &wanted).await,
                None => secrets.create(&post, &wanted).await,
            };
            match written {
                Ok(_) => {
                    tracing::info!("certificate made");
                    return Ok(material);
                }
                // Another replica was first: its certificate is as good.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(Error::Secret(error)),
            }
        }
        Err(Error::Contended)
    }

    async fn register(&self, trust: &str) -> Result<(), Error> {
        for (kind, name, object) in registration::objects(&self.config, trust) {
            let resource = ApiResource::from_gvk(&registration::kind(kind));
            let api: Api<DynamicObject> = Api::all_with(self.config.client.clone(), &resource);
            let params = PatchParams::apply(MANAGER).force();
            let applied = api.patch(name, &params, &Patch::Apply(object)).await;
            applied.map_err(|error| Error::Registration(kind, name, error))?;
        }
        let definitions = ApiResource::erase::<CustomResourceDefinition>(&());
        let definitions: Api<DynamicObject> = Api::all_with(self.config.client.clone(), &definitions);
        let conversion = Patch::Merge(registration::conversion(&self.config, trust));
        for name in registration::CONVERTED {
            let patched = definitions.patch(name, &PatchParams::default(), &conversion).await;
            patched.map_err(|error| Error::Registration("CustomResourceDefinition", name, error))?;
        }
        tracing::info!("registered with the API server");
        Ok(())
    }
}
