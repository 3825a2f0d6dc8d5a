//! What is wrong with which fields, in the words and the order of upstream's webhook (`knative.dev/pkg/apis`).
//!
//! Errors are made where the field is, with a path from there; each level up adds its own part with [`Errors::via`].
//! Said in one message: equal problems share a line with all their paths, lines and paths are sorted.

use std::{collections::BTreeMap, fmt};

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// What is wrong.
    pub message: String,
    /// With which fields.
    pub paths: Vec<String>,
    /// More about it; may be empty.
    pub details: String,
}

/// The path that means "the value itself".
pub const SELF: &str = "";

/// Problems, none or more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    /// No problem.
    pub fn none() -> Self {
        Self::default()
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A problem in own words.
    pub fn new(message: impl Into<String>, paths: &[&str]) -> Self {
        Self::with_details(message, paths, "")
    }

    /// A problem with more about it.
    pub fn with_details(message: impl Into<String>, paths: &[&str], details: impl Into<String>) -> Self {
        let paths = paths.iter().map(|p| (*p).to_owned()).collect();
        Self(vec![FieldError { message: message.into(), paths, details: details.into() }])
    }

    /// These must be there.
    pub fn missing(paths: &[&str]) -> Self {
        Self::new("missing field(s)", paths)
    }

    /// These must not be there.
    pub fn disallowed(paths: &[&str]) -> Self {
        Self::new("must not set the field(s)", paths)
    }

    /// This value cannot be.
    pub fn invalid(value: impl fmt::Display, path: &str) -> Self {
        Self::new(format!("invalid value: {value}"), &[path])
    }

    /// This value cannot be, and why.
    pub fn invalid_because(value: impl fmt::Display, path: &str, why: &str) -> Self {
        Self::with_details(format!("invalid value: {value}"), &[path], why)
    }

    /// Not within bounds.
    pub fn out_of_bounds(
        value: impl fmt::Display,
        low: impl fmt::Display,
        high: impl fmt::Display,
        path: &str,
    ) -> Self {
        Self::new(format!("expected {low} <= {value} <= {high}"), &[path])
    }

    /// One of these must be there.
    pub fn missing_one_of(paths: &[&str]) -> Self {
        Self::new("expected exactly one, got neither", paths)
    }

    /// Only one of these may be there.
    pub fn multiple_one_of(paths: &[&str]) -> Self {
        Self::new("expected exactly one, got both", paths)
    }

    /// A key that cannot be one.
    pub fn invalid_key(key: &str, path: &str, why: &str) -> Self {
        Self::with_details(format!("invalid key name {key:?}"), &[path], why)
    }

    /// These problems and those.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Seen from one level up.
    #[must_use]
    pub fn via(mut self, field: &str) -> Self {
        for error in &mut self.0 {
            for path in &mut error.paths {
                *path = join(field, path);
            }
        }
        self
    }

    /// Seen from the list that the value is in.
    #[must_use]
    pub fn via_index(self, index: usize) -> Self {
        self.via(&format!("[{index}]"))
    }

    /// Seen from the map that the value is in.
    #[must_use]
    pub fn via_key(self, key: &str) -> Self {
        self.via(&format!("[{key}]"))
    }

    /// The problems, equal ones joined, in order.
    pub fn merged(&self) -> Vec<FieldError> {
        let mut merged: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for error in &self.0 {
            let paths = merged.entry((error.message.clone(), error.details.clone())).or_default();
            for path in &error.paths {
                if !paths.contains(path) {
                    paths.push(path.clone());
                }
            }
        }
        merged
            .into_iter()
            .map(|((message, details), mut paths)| {
                paths.sort();
                FieldError { message, paths, details }
            })
            .collect()
    }
}

/// `field` before `path`; an index sticks to what is before it.
fn join(field: &str, path: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else if field.is_empty() || path.starts_with('[') {
        format!("{field}{path}")
    } else {
        format!("{field}.{path}")
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.merged().iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: {}", error.message, error.paths.join(", "))?;
            if !error.details.is_empty() {
                write!(f, "\n{}", error.details)?;
            }
        }
        Ok(())
    }
}

impl FromIterator<Errors> for Errors {
    fn from_iter<I: IntoIterator<Item = Errors>>(all: I) -> Self {
        Self(all.into_iter().flat_map(|e| e.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_grow_from_the_inside() {
        let e = Errors::missing(&["name"]).via_index(2).via("env").via_index(0).via("containers");
        assert_eq!(e.to_string(), "missing field(s): containers[0].env[2].name");
        assert_eq!(Errors::missing(&[SELF]).via("spec").to_string(), "missing field(s): spec");
        assert_eq!(
            Errors::invalid("x", SELF).via_key("a/b").via("annotations").to_string(),
            "invalid value: x: annotations[a/b]"
        );
    }

    #[test]
    fn equal_problems_share_a_line_and_lines_are_sorted() {
        let all: Errors =
            [Errors::missing(&["z"]), Errors::with_details("b", &["y"], "because"), Errors::missing(&["a", "z"])]
                .into_iter()
                .collect();
        assert_eq!(all.to_string(), "b: y\nbecause\nmissing field(s): a, z");
    }
}
