//! TLS towards targets: TLS 1.3, authorities that may be replaced while connections are open, and two names that a
//! target must prove.
//!
//! One name is asked of all (it is also the SNI); the other says which kind of target it is. No ALPN is offered: who
//! speaks h2 begins with its preface, as upstream's components do. Sessions are not resumed, since a resumed one would
//! not be verified again. New connections obey the newest authorities; open ones stay.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use super::TlsError;
use super::names::has_dns_name;

/// As upstream's.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub struct Authorities(RootCertStore);

impl Default for Authorities {
    /// Nobody's.
    fn default() -> Self {
        Self(RootCertStore::empty())
    }
}

impl Authorities {
    /// Adds those of a PEM text. What in it cannot be used is passed over; it is an error if nothing can.
    pub fn add(&mut self, pem: &[u8]) -> Result<(), TlsError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
        let (added, _) = self.0.add_parsable_certificates(certificates);
        if added == 0 { Err(TlsError::NoAuthority) } else { Ok(()) }
    }
}

/// What is believed of targets; clones share it.
#[derive(Debug, Clone)]
pub struct Trust {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: ServerName<'static>,
    /// Read once per connection that is opened.
    config: RwLock<Arc<ClientConfig>>,
}

impl Trust {
    /// Targets have a certificate of these authorities for this DNS name.
    pub fn new(name: &str, authorities: Authorities) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let config = RwLock::new(client_config(authorities)?);
        Ok(Self { inner: Arc::new(Inner { name, config }) })
    }

    /// Believes these authorities from the next connection on. After an error the old ones stay.
    pub fn replace(&self, authorities: Authorities) -> Result<(), TlsError> {
        let config = client_config(authorities)?;
        *self.inner.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Targets whose certificate has this DNS name too, compared byte by byte.
    pub fn also_named(&self, name: &str) -> Secure {
        Secure { trust: self.clone(), name: name.into() }
    }
}

fn client_config(authorities: Authorities) -> Result<Arc<ClientConfig>, TlsError> {
    if authorities.0.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(authorities.0)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// How connections to a target are secured.
#[derive(Debug, Clone)]
pub struct Secure {
    trust: Trust,
    name: Arc<str>,
}

impl PartialEq for Secure {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.trust.inner, &other.trust.inner) && self.name == other.name
    }
}

impl Eq for Secure {}

impl Secure {
    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let inner = &self.trust.inner;
        let config = Arc::clone(&inner.config.read().unwrap_or_else(PoisonError::into_inner));
        let connecting = TlsConnector::from(config).connect(inner.name.clone(), stream);
        let stream = tokio::time::timeout(HANDSHAKE, connecting)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))??;
        // Not a byte of ours has been sent yet.
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        if certificate.is_some_and(|certificate| has_dns_name(certificate, &self.name)) {
            return Ok(stream);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("the certificate is not for {}", self.name)))
    }
}
