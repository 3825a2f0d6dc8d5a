//! One question to a registry over the network: OCI distribution v2, by the `oci-client` crate.

use std::{sync::OnceLock, time::Duration};

use oci_client::{
    Client,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    secrets::RegistryAuth,
};

use super::image::Reference;

/// As which we ask.
const AGENT: &str = concat!("dormouse/", env!("CARGO_PKG_VERSION"), " (serving)");
/// A registry that does not take a connection within this time is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// Asks registries. Whom nobody vouches for is asked through clients that are shared; a client remembers who one is at
/// a registry, so with credentials there is one for each question: they must not serve another namespace.
pub struct Registry {
    authority: Option<Vec<u8>>,
    tls: OnceLock<Client>,
    plain: OnceLock<Client>,
}

impl Registry {
    /// `authority` is PEM, trusted beside the system's.
    pub fn new(authority: Option<Vec<u8>>) -> Self {
        Self { authority, tls: OnceLock::new(), plain: OnceLock::new() }
    }

    /// The digest of what the tag is now.
    pub async fn digest(&self, image: &Reference, auth: &RegistryAuth) -> Result<String, String> {
        match self.ask(image, auth, ClientProtocol::Https).await {
            // Nobody spoke TLS there.
            Err(OciDistributionError::RequestError(error)) if image.may_be_plain() && error.is_connect() => {
                self.ask(image, auth, ClientProtocol::Http).await
            }
            other => other,
        }
        .map_err(|error| told(&error))
    }

    async fn ask(
        &self,
        image: &Reference,
        auth: &RegistryAuth,
        protocol: ClientProtocol,
    ) -> Result<String, OciDistributionError> {
        if *auth != RegistryAuth::Anonymous {
            return self.client(protocol)?.fetch_manifest_digest(image.parsed(), auth).await;
        }
        let shared = if matches!(protocol, ClientProtocol::Http) { &self.plain } else { &self.tls };
        let client = if let Some(client) = shared.get() {
            client
        } else {
            let made = self.client(protocol)?;
            shared.get_or_init(|| made)
        };
        client.fetch_manifest_digest(image.parsed(), auth).await
    }

    fn client(&self, protocol: ClientProtocol) -> Result<Client, OciDistributionError> {
        // The HTTP client below takes the process's provider; ring is the one that all of us use.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let authority = self.authority.clone().map(|data| Certificate { encoding: CertificateEncoding::Pem, data });
        Client::try_from(ClientConfig {
            protocol,
            extra_root_certificates: authority.into_iter().collect(),
            connect_timeout: Some(CONNECT),
            user_agent: AGENT,
            ..ClientConfig::default()
        })
    }
}

/// The error with all that caused it: the first line alone often says only that something was sent.
fn told(error: &OciDistributionError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::digest::image::{Wanted, wanted};

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A registry that has `app:v1`, open to `ann` or to everybody; where it is.
    async fn registry(open: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut head, mut byte) = (Vec::new(), [0; 1]);
                    // A TLS client says something else first, and ends.
                    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
                        head.push(byte[0]);
                        if head[0] == 0x16 {
                            return;
                        }
                    }
                    let head = String::from_utf8_lossy(&head).to_lowercase();
                    let ann = format!("authorization: basic {}", STANDARD.encode("ann:secret")).to_lowercase();
                    let answer = if !open && !head.contains(&ann) {
                        "401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"".to_owned()
                    } else if head.starts_with("get /v2/ ") {
                        "200 OK".to_owned()
                    } else if head.starts_with("head /v2/app/manifests/v1 ") {
                        format!("200 OK\r\ndocker-content-digest: {DIGEST}")
                    } else {
                        "404 Not Found".to_owned()
                    };
                    let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        address
    }

    fn image(name: &str) -> Reference {
        match wanted(name, &BTreeSet::new()).unwrap() {
            Wanted::Ask(reference) => reference,
            Wanted::Known(_) => panic!("{name}"),
        }
    }

    #[tokio::test]
    async fn an_open_registry_answers_anybody() {
        let (here, registry) = (registry(true).await, Registry::new(None));
        for _ in 0..2 {
            let digest = registry.digest(&image(&format!("{here}/app:v1")), &RegistryAuth::Anonymous).await;
            assert_eq!(digest, Ok(DIGEST.to_owned()));
        }
        let error = registry.digest(&image(&format!("{here}/app:v2")), &RegistryAuth::Anonymous).await.unwrap_err();
        assert!(error.contains("404"), "{error}");
    }

    #[tokio::test]
    async fn who_one_is_serves_one_question_only() {
        let (here, registry) = (registry(false).await, Registry::new(None));
        let app = image(&format!("{here}/app:v1"));
        let ann = RegistryAuth::Basic("ann".to_owned(), "secret".to_owned());
        for _ in 0..2 {
            assert_eq!(registry.digest(&app, &ann).await, Ok(DIGEST.to_owned()));
            let error = registry.digest(&app, &RegistryAuth::Anonymous).await.unwrap_err();
            assert!(error.to_lowercase().contains("auth"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_registry_that_is_not_there_says_so() {
        let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = Registry::new(None).digest(&image(&format!("{nowhere}/app")), &RegistryAuth::Anonymous).await;
        let error = error.unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }
}
