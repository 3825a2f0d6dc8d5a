//! The certificate files of a TLS port, and their renewal.
//!
//! Whether there is TLS is decided once at start. From then on the files are read every minute; a changed pair that
//! can be used is served from the next handshake on, one that cannot is said and ignored.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tls::{Clients, Options, Tls, TlsError};

/// Where the files are, and how TLS is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The certificate chain, PEM.
    pub chain: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// How often they are read again.
    pub reload: Duration,
    /// Versions, suites and groups.
    pub options: Options,
    /// The authorities of client certificates, if any are asked for.
    pub clients: Option<ClientSettings>,
    /// The variables that all this is from, for error texts.
    pub variables: &'static str,
}

/// Which clients are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// The authorities' certificates, PEM; read once.
    pub authorities: PathBuf,
    /// Whether those without a certificate are refused.
    pub required: bool,
}

/// How often certificate files are read again, as upstream.
pub const RELOAD: Duration = Duration::from_secs(60);

/// Why the TLS port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file is there and cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The files or the variables cannot be used.
    #[error("TLS ({chain}, variables {variables}*): {source}")]
    Tls {
        /// Where the certificate is.
        chain: String,
        /// Where the settings are from.
        variables: &'static str,
        /// What is wrong.
        source: TlsError,
    },
}

/// The two files as last read.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// `None` if one is missing.
    fn find(settings: &Settings) -> Result<Option<Self>, CertificateError> {
        let find = |path: &Path| match read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(CertificateError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let (chain, key) = (find(&settings.chain)?, find(&settings.key)?);
        Ok(chain.zip(key).map(|(chain, key)| Self { chain, key }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::File { path: path.display().to_string(), source })
}

/// The certificate that is served.
#[derive(Debug)]
pub struct Certificate {
    settings: Settings,
    seen: Files,
    tls: Tls,
}

impl Certificate {
    /// Looks for the files; `None` if one is missing.
    pub fn find(settings: &Settings) -> Result<Option<Self>, CertificateError> {
        Files::find(settings)?.map(|files| Self::new(settings, files)).transpose()
    }

    /// Reads the files, which must be there.
    pub fn load(settings: &Settings) -> Result<Self, CertificateError> {
        Self::new(settings, Files { chain: read(&settings.chain)?, key: read(&settings.key)? })
    }

    fn new(settings: &Settings, seen: Files) -> Result<Self, CertificateError> {
        let clients = settings.clients.as_ref();
        let authorities = clients.map(|clients| read(&clients.authorities)).transpose()?;
        let clients = clients.zip(authorities.as_deref());
        let clients = clients.map(|(settings, authorities)| Clients { authorities, required: settings.required });
        let tls = Tls::for_clients(&settings.options, &seen.chain, &seen.key, clients).map_err(|source| {
            let chain = settings.chain.display().to_string();
            CertificateError::Tls { chain, variables: settings.variables, source }
        })?;
        Ok(Self { settings: settings.clone(), seen, tls })
    }

    /// For the listener; follows the renewals.
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Looks at the files again and again.
    pub async fn renew(mut self) {
        loop {
            tokio::time::sleep(self.settings.reload).await;
            self.look();
        }
    }

    fn look(&mut self) {
        match Files::find(&self.settings) {
            Ok(Some(files)) if files != self.seen => {
                match self.tls.replace(&files.chain, &files.key) {
                    Ok(()) => tracing::info!("certificate renewed"),
                    Err(error) => tracing::error!(%error, "the new certificate is not used, the old one stays"),
                }
                // A bad pair is said once.
                self.seen = files;
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "certificate not read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> Settings {
        Settings {
            chain: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            reload: RELOAD,
            options: Options::default(),
            clients: None,
            variables: "QUEUE_PROXY_TLS_",
        }
    }

    #[test]
    fn without_both_files_there_is_no_tls() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Certificate::find(&settings(folder.path())).unwrap().is_none());
        std::fs::write(folder.path().join("tls.crt"), "x").unwrap();
        assert!(Certificate::find(&settings(folder.path())).unwrap().is_none());
        std::fs::write(folder.path().join("tls.key"), "x").unwrap();
        let error = Certificate::find(&settings(folder.path())).unwrap_err().to_string();
        assert!(error.contains("QUEUE_PROXY_TLS_"), "{error}");
        std::fs::remove_file(folder.path().join("tls.key")).unwrap();
        let error = Certificate::load(&settings(folder.path())).unwrap_err().to_string();
        assert!(error.contains("tls.key"), "{error}");
    }
}
