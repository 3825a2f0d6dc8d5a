//! TLS for a listener: one certificate, which may be replaced while connections are served, or one for each name.
//! [`client`] is the other side, for targets.
//!
//! Client certificates are asked for only with [`Clients`]. ALPN offers h2 and HTTP/1.1. The words of [`Options`] are
//! Go's, since upstream's configuration is written in them.

pub mod client;
mod names;

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    Acceptor, ClientHello, NoClientAuth, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    NamedGroup, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version,
};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

/// What to negotiate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Oldest version: `1.2` or `1.3`; empty is 1.3.
    pub min_version: String,
    /// Newest version; empty is no limit.
    pub max_version: String,
    /// Suites of TLS 1.2 by their IANA names, separated by commas; empty is all. Those that are too weak to be known
    /// here are passed over.
    pub cipher_suites: String,
    /// Key exchange groups, likewise (`X25519`, `CurveP256` or `P-256`, ...).
    pub curves: String,
}

/// Which clients are served: those with a certificate of these authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clients<'a> {
    /// The authorities' certificates, PEM.
    pub authorities: &'a [u8],
    /// Whether a client without a certificate is refused; one with a wrong certificate always is.
    pub required: bool,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not a version.
    #[error("unknown TLS version {0:?}: 1.2 or 1.3")]
    Version(String),
    /// Not a key exchange group.
    #[error("unknown key exchange group {0:?}")]
    Group(String),
    /// Nothing left to negotiate.
    #[error("none of {0:?} is supported")]
    Nothing(String),
    /// The certificate or the key cannot be read.
    #[error("certificate: {0}")]
    Pem(#[from] tokio_rustls::rustls::pki_types::pem::Error),
    /// The certificate, the key, or the two together cannot be used.
    #[error("certificate: {0}")]
    Unusable(#[from] tokio_rustls::rustls::Error),
    /// Nobody to believe.
    #[error("no authority in PEM, so that no certificate could be believed")]
    NoAuthority,
    /// Not a DNS name.
    #[error("{0:?} is no DNS name")]
    Name(String),
    /// The authorities of client certificates cannot be used.
    #[error("client certificates: {0}")]
    Clients(#[from] VerifierBuilderError),
    /// There is no one certificate to replace.
    #[error("certificates are found by name here; replace them where they are kept")]
    ByName,
}

/// A certificate chain with its key, ready to be used. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// From a chain and its key, both PEM; an error if the two do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        certified(chain, key, &ring::default_provider()).map(Self)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

/// Where certificates are found by name. Asked twice in each handshake, on the thread that serves the connection.
pub trait Certificates: fmt::Debug + Send + Sync {
    /// The certificate for the name a client asks for, if it says one. `None`: the handshake is refused with
    /// `unrecognized_name`.
    fn find(&self, name: Option<&str>) -> Option<Certificate>;
}

/// [`Certificates`] as rustls asks for them.
#[derive(Debug)]
struct ByName(Arc<dyn Certificates>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.find(hello.server_name()).map(|certificate| certificate.0)
    }
}

/// A fatal alert of a server that has said nothing yet: record 21 of TLS 1.2 (RFC 8446 keeps the number), two bytes,
/// `fatal`, `unrecognized_name` (RFC 6066).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A listener's TLS; clones share the certificate.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    certificates: Source,
}

#[derive(Debug, Clone)]
enum Source {
    One(Arc<Current>),
    ByName(Arc<dyn Certificates>),
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// TLS with a certificate chain and its key, both PEM. Any client is served.
    pub fn new(options: &Options, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::for_clients(options, chain, key, None)
    }

    /// [`Tls::new`] that asks clients for certificates, if `clients` says so.
    pub fn for_clients(
        options: &Options,
        chain: &[u8],
        key: &[u8],
        clients: Option<Clients<'_>>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(provider(options)?);
        let clients = match clients {
            Some(clients) => verifier(clients, Arc::clone(&provider))?,
            None => Arc::new(NoClientAuth),
        };
        let current = Arc::new(Current(RwLock::new(certified(chain, key, &provider)?)));
        let config = server_config(options, provider, clients, current.clone())?;
        Ok(Self { config, certificates: Source::One(current) })
    }

    /// TLS with a certificate for each name. Any client is served.
    pub fn by_name(options: &Options, certificates: Arc<dyn Certificates>) -> Result<Self, TlsError> {
        let resolver = Arc::new(ByName(Arc::clone(&certificates)));
        let config = server_config(options, Arc::new(provider(options)?), Arc::new(NoClientAuth), resolver)?;
        Ok(Self { config, certificates: Source::ByName(certificates) })
    }

    /// Uses another certificate from the next handshake on. After an error the old one stays.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let Source::One(current) = &self.certificates else { return Err(TlsError::ByName) };
        let certified = certified(chain, key, self.config.crypto_provider())?;
        *current.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }

    /// The handshake.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.config);
        let Source::ByName(certificates) = &self.certificates else {
            return TlsAcceptor::from(config).accept(stream).await;
        };
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        if certificates.find(hello.client_hello().server_name()).is_none() {
            // rustls would say `access_denied`, from which nobody could tell that the name is the trouble.
            let mut stream = hello.io;
            stream.write_all(&UNRECOGNIZED_NAME).await?;
            stream.shutdown().await?;
            return Err(io::Error::new(io::ErrorKind::NotFound, "no certificate for this name"));
        }
        hello.into_stream(config).await
    }
}

fn server_config(
    options: &Options,
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(options)?)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certified(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

fn verifier(clients: Clients<'_>, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(clients.authorities) {
        roots.add(authority?)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    Ok(builder.build()?)
}

fn versions(options: &Options) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let number = |text: &str, default| match text {
        "" => Ok(default),
        "1.2" => Ok(2),
        "1.3" => Ok(3),
        other => Err(TlsError::Version(other.into())),
    };
    let (min, max) = (number(&options.min_version, 3)?, number(&options.max_version, 3)?);
    let versions: Vec<_> = [(3, &version::TLS13), (2, &version::TLS12)]
        .into_iter()
        .filter(|(number, _)| (min..=max).contains(number))
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() {
        return Err(TlsError::Nothing(format!("{} to {}", options.min_version, options.max_version)));
    }
    Ok(versions)
}

fn provider(options: &Options) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    let wanted = names(&options.cipher_suites);
    if !wanted.is_empty() {
        provider.cipher_suites.retain(|suite| match suite {
            SupportedCipherSuite::Tls13(_) => true,
            SupportedCipherSuite::Tls12(_) => {
                let name = suite.suite().as_str().unwrap_or_default();
                // Go has an older name for the ChaCha suites, without the hash.
                wanted.iter().any(|wanted| name == *wanted || name.strip_suffix("_SHA256") == Some(wanted))
            }
        });
    }
    let wanted = names(&options.curves);
    if !wanted.is_empty() {
        let mut groups = Vec::new();
        for name in wanted {
            groups.extend(group(&provider.kx_groups, name)?);
        }
        provider.kx_groups = groups;
        if provider.kx_groups.is_empty() {
            return Err(TlsError::Nothing(options.curves.clone()));
        }
    }
    Ok(provider)
}

fn names(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// The group of a name; `None` if it is one that cannot be had here.
fn group(
    groups: &[&'static dyn SupportedKxGroup],
    name: &str,
) -> Result<Option<&'static dyn SupportedKxGroup>, TlsError> {
    let wanted = match name {
        "X25519" => NamedGroup::X25519,
        "CurveP256" | "P-256" => NamedGroup::secp256r1,
        "CurveP384" | "P-384" => NamedGroup::secp384r1,
        "CurveP521" | "P-521" | "X25519MLKEM768" | "SecP256r1MLKEM768" | "SecP384r1MLKEM1024" => return Ok(None),
        other => return Err(TlsError::Group(other.to_owned())),
    };
    Ok(groups.iter().copied().find(|group| group.name() == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_the_table() {
        for (min, max, expected) in [
            ("", "", Some(1)),
            ("1.3", "", Some(1)),
            ("1.2", "", Some(2)),
            ("1.2", "1.2", Some(1)),
            ("", "1.2", None),
            ("1.3", "1.2", None),
            ("1.1", "", None),
            ("1.2", "tls", None),
        ] {
            let options = Options { min_version: min.into(), max_version: max.into(), ..Options::default() };
            assert_eq!(versions(&options).ok().map(|versions| versions.len()), expected, "{min} {max}");
        }
    }

    #[test]
    fn suites_and_groups_are_chosen_by_name() {
        let chosen = |cipher_suites: &str, curves: &str| {
            let options = Options { cipher_suites: cipher_suites.into(), curves: curves.into(), ..Options::default() };
            let provider = provider(&options).ok()?;
            let old = provider.cipher_suites.iter().filter(|suite| matches!(suite, SupportedCipherSuite::Tls12(_)));
            Some((old.count(), provider.kx_groups.len()))
        };
        assert_eq!(chosen("", ""), Some((6, 3)));
        let two =
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,TLS_RSA_WITH_RC4_128_SHA";
        assert_eq!(chosen(two, "X25519MLKEM768,P-256"), Some((2, 1)));
        assert_eq!(chosen("", "P-521"), None);
        assert_eq!(chosen("", "X25519,P-257"), None, "upstream ends at a name it does not know");
    }
}
