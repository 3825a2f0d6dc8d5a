//! TLS towards a collector: whom we trust, and which protocol we ask for.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::endpoint::Protocol;
use super::retry::Failure;
use super::settings::Target;

/// TLS for a target: the roots of its file, else the system's. They are read on another thread, since reading a
/// hundred of them takes milliseconds in which no request would move; and only now, since most targets are plain.
pub(super) async fn config(target: &Target) -> Result<Arc<ClientConfig>, Failure> {
    let (roots, protocol) = (target.roots.clone(), target.protocol);
    let read = tokio::task::spawn_blocking(move || {
        let certificates: Vec<CertificateDer<'static>> = match &roots {
            Some(file) => CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect)
                .map_err(|error| Failure::transport(format!("{}: {error}", file.display())))?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates);
        if store.is_empty() {
            return Err(Failure::transport(
                "no root certificates: OTEL_EXPORTER_OTLP_CERTIFICATE names a file of them",
            ));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Failure::transport)?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![match protocol {
            Protocol::Grpc => b"h2".to_vec(),
            Protocol::Http => b"http/1.1".to_vec(),
        }];
        Ok(Arc::new(config))
    });
    read.await.map_err(Failure::transport)?
}
