//! What pull secrets say for a registry. Pure. The rules are those of the kubelet: keys name hosts, some with a path,
//! some as a URL of Docker's; the longest that fits wins.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use super::image::Reference;

/// Why a secret cannot be used. What it holds is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of a kind for pulling.
    #[error("its type is {0:?}: want kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg")]
    Type(String),
    /// Without the key that its type has.
    #[error("it has no key {0:?}")]
    Key(&'static str),
    /// Its text is not what its type says.
    #[error("its {0:?} is not the JSON of a Docker configuration")]
    Json(&'static str),
}

#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    registrytoken: String,
}

/// Who to say one is, by host and path.
#[derive(Default)]
pub struct Credentials {
    /// Host and path of a key, and what it holds; the first of equal ones is used.
    entries: Vec<(String, String, RegistryAuth)>,
}

impl Credentials {
    /// Takes over what a secret holds.
    pub fn add(&mut self, secret: &Secret) -> Result<(), Error> {
        let type_ = secret.type_.as_deref().unwrap_or_default();
        let key = match type_ {
            "kubernetes.io/dockerconfigjson" => ".dockerconfigjson",
            "kubernetes.io/dockercfg" => ".dockercfg",
            other => return Err(Error::Type(other.to_owned())),
        };
        let text = secret.data.as_ref().and_then(|data| data.get(key)).ok_or(Error::Key(key))?;
        let auths = if key == ".dockercfg" {
            serde_json::from_slice(&text.0)
        } else {
            serde_json::from_slice(&text.0).map(|whole: Whole| whole.auths)
        };
        for (at, entry) in auths.map_err(|_| Error::Json(key))? {
            if let Some(auth) = entry.auth() {
                let (host, path) = place(&at);
                self.entries.push((host, path, auth));
            }
        }
        Ok(())
    }

    /// For an image; anonymous where nothing is said.
    pub fn of(&self, image: &Reference) -> RegistryAuth {
        let registry = image.registry();
        let fits = |host: &str, path: &str| {
            let inside = path.is_empty()
                || image.repository().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            inside && matches(host, registry)
        };
        let mut found: Option<&(String, String, RegistryAuth)> = None;
        for entry in self.entries.iter().filter(|(host, path, _)| fits(host, path)) {
            if found.is_none_or(|(_, path, _)| entry.1.len() > path.len()) {
                found = Some(entry);
            }
        }
        found.map_or(RegistryAuth::Anonymous, |(_, _, auth)| auth.clone())
    }
}

impl Entry {
    fn auth(self) -> Option<RegistryAuth> {
        if !self.registrytoken.is_empty() {
            return Some(RegistryAuth::Bearer(self.registrytoken));
        }
        if !self.username.is_empty() {
            return Some(RegistryAuth::Basic(self.username, self.password));
        }
        let both = String::from_utf8(STANDARD.decode(self.auth.trim()).ok()?).ok()?;
        let (name, password) = both.split_once(':')?;
        Some(RegistryAuth::Basic(name.to_owned(), password.trim_end_matches('\0').to_owned()))
    }
}

/// Host and path that a key names: `https://index.docker.io/v1/` is all of Docker's.
fn place(key: &str) -> (String, String) {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let path = path.strip_prefix("v1").or(path.strip_prefix("v2")).map_or(path, |rest| rest.trim_start_matches('/'));
    let host = match host {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        other => other,
    };
    (host.to_owned(), path.to_owned())
}

/// `*` stands for a whole label.
fn matches(pattern: &str, registry: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('.'), registry.split('.'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == "*" || wanted == given => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;
    use crate::digest::image::{Wanted, wanted};

    fn secret(type_: &str, key: &str, value: &Value) -> Secret {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Secret {
            type_: Some(type_.to_owned()),
            data: Some([(key.to_owned(), ByteString(text.into_bytes()))].into()),
            ..Secret::default()
        }
    }

    fn image(name: &str) -> Reference {
        match wanted(name, &BTreeSet::new()).unwrap() {
            Wanted::Ask(reference) => reference,
            Wanted::Known(_) => panic!("{name}"),
        }
    }

    fn basic(name: &str) -> RegistryAuth {
        RegistryAuth::Basic(name.to_owned(), "secret".to_owned())
    }

    #[test]
    fn the_longest_key_that_fits_wins() {
        let user = |name: &str| json!({ "username": name, "password": "secret" });
        let auths = json!({
            "https://index.docker.io/v1/": { "auth": STANDARD.encode("docker:secret") },
            "registry.example.com": user("all"),
            "registry.example.com/team": user("team"),
            "https://registry.example.com/v2/team/app": user("app"),
            "*.pkg.dev": user("wild"),
            "token.example.com": { "registrytoken": "t" },
            "empty.example.com": {},
            "broken.example.com": { "auth": "%%%" },
        });
        let mut credentials = Credentials::default();
        let type_ = "kubernetes.io/dockerconfigjson";
        credentials.add(&secret(type_, ".dockerconfigjson", &json!({ "auths": auths }))).unwrap();
        let old = json!({ "old.example.com:5000": user("old") });
        credentials.add(&secret("kubernetes.io/dockercfg", ".dockercfg", &old)).unwrap();
        for (name, want) in [
            ("nginx", basic("docker")),
            ("docker.io/dormouse/hello", basic("docker")),
            ("registry.example.com/other/app", basic("all")),
            ("registry.example.com/team/thing", basic("team")),
            ("registry.example.com/teams/thing", basic("all")),
            ("registry.example.com/team/app:v1", basic("app")),
            ("europe.pkg.dev/a/b", basic("wild")),
            ("a.europe.pkg.dev/a/b", RegistryAuth::Anonymous),
            ("token.example.com/a", RegistryAuth::Bearer("t".to_owned())),
            ("empty.example.com/a", RegistryAuth::Anonymous),
            ("broken.example.com/a", RegistryAuth::Anonymous),
            ("old.example.com:5000/a", basic("old")),
            ("old.example.com/a", RegistryAuth::Anonymous),
        ] {
            assert_eq!(credentials.of(&image(name)), want, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why_and_not_what_it_holds() {
        let (good, key) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
        for (secret, want) in [
            (secret("Opaque", "x", &json!("hush")), Error::Type("Opaque".to_owned())),
            (secret(good, "x", &json!("hush")), Error::Key(key)),
            (secret(good, key, &json!("hush")), Error::Json(key)),
        ] {
            let error = Credentials::default().add(&secret).unwrap_err();
            assert_eq!(error, want);
            assert!(!error.to_string().contains("hush"));
        }
    }
}
