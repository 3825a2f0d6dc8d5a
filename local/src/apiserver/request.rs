//! What a request asks for: its path and query, parsed once.
//!
//! Pure. The router calls [`ResourcePath::parse`] and hands [`Options`] to the handlers; nobody else looks at URLs.
use super::errors::ApiError;

/// A path below `/api/v1` or `/apis/GROUP/VERSION`, split into what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    /// API group; empty for core.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Plural resource name.
    pub(crate) plural: String,
    /// Namespace, when the path has one.
    pub(crate) namespace: Option<String>,
    /// Object name, when the path has one.
    pub(crate) name: Option<String>,
    /// `status`, `scale`, `log`, …
    pub(crate) subresource: Option<String>,
}

impl ResourcePath {
    /// Splits a path; `None` when it is not below a group-version.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/').map(percent_decode);
        let (group, version) = match parts.next()?.as_str() {
            "api" => (String::new(), parts.next()?),
            "apis" => (parts.next()?, parts.next()?),
            _ => return None,
        };
        let rest: Vec<String> = parts.collect();
        if rest.is_empty() || rest.len() > 5 || rest.iter().any(String::is_empty) {
            return None;
        }
        // `/namespaces/NAME/status` is about the namespace; `/namespaces/NAME/pods` about what is in it.
        let inside = rest.len() >= 3
            && rest[0] == "namespaces"
            && !(group.is_empty() && rest.len() == 3 && matches!(rest[2].as_str(), "status" | "finalize"));
        let (namespace, rest) = if inside { (Some(rest[1].clone()), &rest[2..]) } else { (None, &rest[..]) };
        if rest.len() > 3 {
            return None;
        }
        Some(Self {
            group,
            version,
            namespace,
            plural: rest[0].clone(),
            name: rest.get(1).cloned(),
            subresource: rest.get(2).cloned(),
        })
    }
}

/// How unknown and repeated fields in a body are treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped, named in a `Warning` header.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// The query parameters of all verbs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// `labelSelector`.
    pub(crate) label_selector: String,
    /// `fieldSelector`.
    pub(crate) field_selector: String,
    /// `limit`; 0 is none.
    pub(crate) limit: usize,
    /// `continue`.
    pub(crate) continue_token: String,
    /// `resourceVersion`.
    pub(crate) resource_version: String,
    /// `resourceVersionMatch`.
    pub(crate) resource_version_match: String,
    /// `watch`.
    pub(crate) watch: bool,
    /// `allowWatchBookmarks`.
    pub(crate) bookmarks: bool,
    /// `sendInitialEvents`.
    pub(crate) initial_events: Option<bool>,
    /// `timeoutSeconds`.
    pub(crate) timeout_seconds: Option<u64>,
    /// `dryRun=All`.
    pub(crate) dry_run: bool,
    /// `fieldManager`.
    pub(crate) field_manager: String,
    /// `fieldValidation`.
    pub(crate) field_validation: FieldValidation,
    /// `force` (apply).
    pub(crate) force: bool,
    /// `gracePeriodSeconds`.
    pub(crate) grace_period: Option<i64>,
    /// `propagationPolicy`.
    pub(crate) propagation: Option<String>,
    /// `orphanDependents` (long deprecated; old clients send it).
    pub(crate) orphan: Option<bool>,
    /// All pairs, for subresources with parameters of their own (`log`).
    pub(crate) pairs: Vec<(String, String)>,
}

impl Options {
    /// Parses a query string.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (percent_decode(key), percent_decode(&value.replace('+', "%20")));
            match key.as_str() {
                "labelSelector" => options.label_selector.clone_from(&value),
                "fieldSelector" => options.field_selector.clone_from(&value),
                "limit" => options.limit = number(&key, &value)?,
                "continue" => options.continue_token.clone_from(&value),
                "resourceVersion" => options.resource_version.clone_from(&value),
                "resourceVersionMatch" => options.resource_version_match.clone_from(&value),
                "watch" => options.watch = truthy(&value),
                "allowWatchBookmarks" => options.bookmarks = truthy(&value),
                "sendInitialEvents" => options.initial_events = Some(truthy(&value)),
                "timeoutSeconds" => options.timeout_seconds = Some(number(&key, &value)?),
                "dryRun" => {
                    if value != "All" {
                        return Err(ApiError::bad_request(format!(
                            "dryRun: Unsupported value: {value:?}: supported values: \"All\""
                        )));
                    }
                    options.dry_run = true;
                }
                "fieldManager" => options.field_manager.clone_from(&value),
                "fieldValidation" => {
                    options.field_validation = match value.as_str() {
                        "Ignore" => FieldValidation::Ignore,
                        "Warn" | "" => FieldValidation::Warn,
                        "Strict" => FieldValidation::Strict,
                        other => {
                            return Err(ApiError::bad_request(format!(
                                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \
                                 \"Strict\", \"Warn\""
                            )));
                        }
                    }
                }
                "force" => options.force = truthy(&value),
                "gracePeriodSeconds" => options.grace_period = Some(number(&key, &value)?),
                "propagationPolicy" => options.propagation = Some(value.clone()),
                "orphanDependents" => options.orphan = Some(truthy(&value)),
                _ => {}
            }
            options.pairs.push((key, value));
        }
        Ok(options)
    }

    /// The value of a parameter by name.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The parsed value of a numeric parameter.
    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        self.get(key).map(|value| number(key, value)).transpose()
    }

    /// Whether a boolean parameter is given and true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(truthy)
    }
}

fn truthy(value: &str) -> bool {
    !matches!(value, "false" | "0" | "F" | "False")
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, ApiError> {
    value.parse().map_err(|_| ApiError::bad_request(format!("{key}: Invalid value: {value:?}: must be a number")))
}

/// Decodes `%XX`; what is not valid is kept as it is.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = escaped {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases: [(&str, Option<&str>); 9] = [
            ("/api/v1/pods", Some("|v1|-|pods|-|-")),
            ("/api/v1/namespaces", Some("|v1|-|namespaces|-|-")),
            ("/api/v1/namespaces/a", Some("|v1|-|namespaces|a|-")),
            ("/api/v1/namespaces/a/status", Some("|v1|-|namespaces|a|status")),
            ("/api/v1/namespaces/a/pods/p/log", Some("|v1|a|pods|p|log")),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", Some("apps|v1|a|deployments|d|scale")),
            ("/apis/g/v1/things/t/status", Some("g|v1|-|things|t|status")),
            ("/apis/g/v1", None),
            ("/metrics", None),
        ];
        for (path, want) in cases {
            let got = ResourcePath::parse(path).map(|p| {
                let dash = |part: Option<String>| part.unwrap_or_else(|| "-".to_owned());
                format!(
                    "{}|{}|{}|{}|{}|{}",
                    p.group,
                    p.version,
                    dash(p.namespace),
                    p.plural,
                    dash(p.name),
                    dash(p.subresource)
                )
            });
            assert_eq!(got.as_deref(), want, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let options = Options::parse(Some("labelSelector=a%3Db%2Cc+in+%28d%29&limit=5&watch=1&dryRun=All")).unwrap();
        assert_eq!(options.label_selector, "a=b,c in (d)");
        assert_eq!((options.limit, options.watch, options.dry_run), (5, true, true));
        assert!(Options::parse(Some("limit=x")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn decoding_never_panics(text in ".*") {
            let _ = percent_decode(&text);
            let _ = ResourcePath::parse(&text);
            let _ = Options::parse(Some(&text));
        }
    }
}
