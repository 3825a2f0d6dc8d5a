//! Where and how a Prometheus page is served when it is not as the configuration says: `METRICS_PROMETHEUS_*`.
//!
//! Nobody sets these variables but a mutating webhook, a changed controller or a hand. They are read only if the page is
//! on. What the page says is the process's own.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;

use proxy::certificates::{self, ClientSettings};
use proxy::tls::Options;

use crate::observability::Endpoint;

/// What the variables say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of the endpoint's host.
    pub host: Option<String>,
    /// Instead of the endpoint's port.
    pub port: Option<u16>,
    /// TLS instead of plain text.
    pub tls: Option<certificates::Settings>,
}

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name}={value:?}: {problem}")]
pub struct OverrideError {
    /// The variable.
    pub name: &'static str,
    /// What it holds (cut short).
    pub value: String,
    /// What it should be.
    pub problem: String,
}

fn wrong(name: &'static str, value: &str, problem: &str) -> OverrideError {
    OverrideError { name, value: value.chars().take(200).collect(), problem: problem.to_string() }
}

/// Why the port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MetricsServerError {
    /// The host is no address and has none.
    #[error("metrics host {host:?}: {source}")]
    Host {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
}

const PORT: &str = "METRICS_PROMETHEUS_PORT";
const KEY: &str = "METRICS_PROMETHEUS_TLS_KEY";
const CLIENT_AUTH: &str = "METRICS_PROMETHEUS_TLS_CLIENT_AUTH";

impl Overrides {
    /// Reads the variables; unset and empty are the same.
    pub fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, OverrideError> {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let tls = |name: &str| get(&format!("METRICS_PROMETHEUS_TLS_{name}"));
        let port = match get(PORT) {
            None => None,
            Some(text) => match text.parse() {
                Ok(port @ 1024..) => Some(port),
                _ => return Err(wrong(PORT, &text, "not a port number from 1024 to 65535")),
            },
        };
        let clients = match (get(CLIENT_AUTH).unwrap_or_default().as_str(), tls("CLIENT_CA_FILE")) {
            ("" | "none", _) => None,
            (mode @ ("optional" | "require"), Some(authorities)) => {
                Some(ClientSettings { authorities: authorities.into(), required: mode == "require" })
            }
            (mode @ ("optional" | "require"), None) => {
                return Err(wrong(CLIENT_AUTH, mode, "METRICS_PROMETHEUS_TLS_CLIENT_CA_FILE is missing"));
            }
            (other, _) => return Err(wrong(CLIENT_AUTH, other, "not none, optional or require")),
        };
        let tls = match (tls("CERT"), tls("KEY")) {
            (None, None) if clients.is_some() => {
                return Err(wrong(CLIENT_AUTH, "", "clients have certificates on TLS only, and there is no TLS_CERT"));
            }
            (None, None) => None,
            (Some(chain), Some(key)) => Some(certificates::Settings {
                chain: PathBuf::from(chain),
                key: PathBuf::from(key),
                reload: certificates::RELOAD,
                options: Options {
                    min_version: tls("MIN_VERSION").unwrap_or_default(),
                    max_version: tls("MAX_VERSION").unwrap_or_default(),
                    cipher_suites: tls("CIPHER_SUITES").unwrap_or_default(),
                    curves: tls("CURVE_PREFERENCES").unwrap_or_default(),
                },
                clients,
                variables: "METRICS_PROMETHEUS_TLS_",
            }),
            (_, key) => {
                let key = key.unwrap_or_default();
                return Err(wrong(KEY, &key, "METRICS_PROMETHEUS_TLS_CERT and _KEY go together, and one is missing"));
            }
        };
        Ok(Self { host: get("METRICS_PROMETHEUS_HOST"), port, tls })
    }

    /// The address to bind; none means that of all other ports.
    pub fn address(&self, endpoint: &Endpoint) -> Result<(Option<IpAddr>, u16), MetricsServerError> {
        let host = self.host.as_ref().unwrap_or(&endpoint.host);
        let port = self.port.unwrap_or(endpoint.port);
        if host.is_empty() {
            return Ok((None, port));
        }
        let unknown = |source| MetricsServerError::Host { host: host.clone(), source };
        let mut found = (host.trim_matches(['[', ']']), port).to_socket_addrs().map_err(unknown)?;
        let address = found.next().ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?;
        Ok((Some(address.ip()), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Overrides, OverrideError> {
        let find = |name: &str| variables.iter().find(|(key, _)| name == format!("METRICS_PROMETHEUS_{key}"));
        Overrides::parse(|name| find(name).map(|(_, value)| (*value).to_string()))
    }

    #[test]
    fn host_and_port_replace_the_endpoints() {
        let endpoint = Endpoint { host: String::new(), port: 9091 };
        let ip = |text: &str| Some(text.parse().unwrap());
        for (variables, expected) in [
            (&[][..], (None, 9091)),
            (&[("HOST", ""), ("PORT", "")], (None, 9091)),
            (&[("PORT", "1024")], (None, 1024)),
            (&[("HOST", "127.0.0.2"), ("PORT", "65535")], (ip("127.0.0.2"), 65535)),
            (&[("HOST", "[::1]")], (ip("::1"), 9091)),
        ] {
            assert_eq!(parse(variables).unwrap().address(&endpoint).unwrap(), expected, "{variables:?}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        for (variables, name) in [
            (&[("PORT", "1023")][..], "PORT"),
            (&[("PORT", "65536")], "PORT"),
            (&[("PORT", "http")], "PORT"),
            (&[("TLS_CERT", "/c")], "TLS_KEY"),
            (&[("TLS_KEY", "/k")], "TLS_CERT"),
            (&[("TLS_CERT", "/c"), ("TLS_KEY", "/k"), ("TLS_CLIENT_AUTH", "maybe")], "TLS_CLIENT_AUTH"),
            (&[("TLS_CERT", "/c"), ("TLS_KEY", "/k"), ("TLS_CLIENT_AUTH", "require")], "TLS_CLIENT_CA_FILE"),
            (&[("TLS_CLIENT_AUTH", "require"), ("TLS_CLIENT_CA_FILE", "/a")], "TLS_CERT"),
        ] {
            let error = parse(variables).unwrap_err().to_string();
            assert!(error.contains("METRICS_PROMETHEUS_") && error.contains(name), "{variables:?}: {error}");
        }
    }

    #[test]
    fn tls_and_clients() {
        let files = [("TLS_CERT", "/c"), ("TLS_KEY", "/k"), ("TLS_MIN_VERSION", "1.2"), ("TLS_CLIENT_CA_FILE", "/a")];
        for (mode, required) in [("", None), ("none", None), ("optional", Some(false)), ("require", Some(true))] {
            let variables = [&files[..], &[("TLS_CLIENT_AUTH", mode)]].concat();
            let tls = parse(&variables).unwrap().tls.unwrap();
            assert_eq!((tls.chain, tls.key), ("/c".into(), "/k".into()));
            assert_eq!(tls.options.min_version, "1.2");
            assert_eq!(tls.clients.map(|clients| clients.required), required, "{mode}");
        }
    }
}
