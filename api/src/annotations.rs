//! Annotations of ours: how those of one prefix are found, and what is said of one that cannot be used.
//!
//! For [`crate::activation`] and [`crate::scaling`], which read them, and for admission, which refuses what they tell.

use std::collections::BTreeMap;
use std::fmt;

/// An annotation that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}={value:?}: {wrong}")]
pub struct Problem {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is not of the kind wanted, which is this.
    Want(&'static str),
    /// It is outside these bounds.
    Bounds(&'static str, &'static str),
    /// It says nothing without this annotation.
    Needs(&'static str),
    /// There is no such annotation.
    UnknownKey,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Want(what) => write!(f, "want {what}"),
            Self::Bounds(low, high) => write!(f, "want {low} to {high}"),
            Self::Needs(key) => write!(f, "means nothing without {key}"),
            Self::UnknownKey => write!(f, "there is no such annotation"),
        }
    }
}

/// Reads the annotations of a prefix one by one; tells which of them cannot be used.
pub(crate) fn read_each(
    annotations: &BTreeMap<String, String>,
    prefix: &str,
    mut read: impl FnMut(&str, &str) -> Result<(), Wrong>,
) -> Vec<Problem> {
    // Keys are sorted, so those of a prefix stand together.
    let ours = annotations.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
    let problem = |key: &String, value: &String, wrong| Problem { key: key.clone(), value: value.clone(), wrong };
    ours.filter_map(|(key, value)| read(key, value).err().map(|wrong| problem(key, value, wrong))).collect()
}
