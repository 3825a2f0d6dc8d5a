//! The certificate files of the TLS port, and their renewal.
//!
//! Whether there is TLS is decided once at start: only if both files are there. From then on they are read every
//! minute; a changed pair that can be used is served from the next handshake on, one that cannot is said and ignored.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxy::tls::{Options, Tls, TlsError};

/// Where the files are mounted, and how TLS is spoken.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder with `tls.crt` and `tls.key`.
    pub folder: PathBuf,
    /// How often they are read again.
    pub reload: Duration,
    /// The port, as the environment has it; looked at only if there is a certificate.
    pub port: String,
    /// Versions, suites and groups.
    pub options: Options,
}

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
    /// The port is none.
    #[error("environment variable QUEUE_SERVING_TLS_PORT={0:?}: not a port number")]
    Port(String),
    /// The files or the `QUEUE_PROXY_TLS_*` variables cannot be used.
    #[error("TLS (files in {folder}, variables QUEUE_PROXY_TLS_*): {source}")]
    Tls {
        /// Where the files are.
        folder: String,
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
    fn read(folder: &Path) -> Result<Option<Self>, CertificateError> {
        let read = |name: &str| {
            let path = folder.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(CertificateError::File { path: path.display().to_string(), source }),
            }
        };
        let (chain, key) = (read("tls.crt")?, read("tls.key")?);
        Ok(chain.zip(key).map(|(chain, key)| Self { chain, key }))
    }
}

/// The certificate that is served.
#[derive(Debug)]
pub struct Certificate {
    settings: Settings,
    seen: Files,
    tls: Tls,
}

impl Certificate {
    /// Looks for the files; `None` if there is no TLS in this pod.
    pub fn find(settings: &Settings) -> Result<Option<Self>, CertificateError> {
        let Some(seen) = Files::read(&settings.folder)? else { return Ok(None) };
        let tls = Tls::new(&settings.options, &seen.chain, &seen.key)
            .map_err(|source| CertificateError::Tls { folder: settings.folder.display().to_string(), source })?;
        Ok(Some(Self { settings: settings.clone(), seen, tls }))
    }

    /// The port to open.
    pub fn port(&self) -> Result<u16, CertificateError> {
        self.settings.port.parse().map_err(|_| CertificateError::Port(self.settings.port.clone()))
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
        match Files::read(&self.settings.folder) {
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
            folder: folder.into(),
            reload: Duration::from_secs(60),
            port: "0".into(),
            options: Options::default(),
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
    }
}
