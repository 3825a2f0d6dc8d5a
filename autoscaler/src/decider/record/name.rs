//! Names and uids of objects, in few bytes.

use uuid::Uuid;

use crate::key::Key;

/// A name, mostly the revision's with something after it, or the beginning of it; or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// By [`NONE`], by the place of an ending in [`ENDINGS`], or by [`PREFIX`] plus the length of a beginning.
    Told(u32),
    Other(Box<str>),
}

/// The ending of a Deployment's name after its revision's.
pub(in crate::decider) const USUAL_TARGET: &str = "-deployment";
/// [`Name::Told`] of a name with [`USUAL_TARGET`].
pub(super) const TOLD_USUAL_TARGET: Name = Name::Told(2);

const ENDINGS: [&str; 3] = ["", "-private", USUAL_TARGET];
const NONE: Name = Name::Told(255);
const PREFIX: u32 = 256;

impl Name {
    pub(super) fn of(name: Option<&str>, key: &Key) -> Self {
        let Some(name) = name else { return NONE };
        let ending = name.strip_prefix(key.name());
        if let Some(nth) = ending.and_then(|ending| ENDINGS.iter().position(|known| *known == ending)) {
            return Self::Told(nth as u32);
        }
        if !name.is_empty() && key.name().starts_with(name) {
            return Self::Told(PREFIX + name.len() as u32);
        }
        Self::Other(name.into())
    }

    pub(super) fn text(&self, key: &Key) -> Option<String> {
        match self {
            Self::Told(code) if *code >= PREFIX => key.name().get(..(*code - PREFIX) as usize).map(str::to_owned),
            Self::Told(nth) => ENDINGS.get(*nth as usize).map(|ending| [key.name(), ending].concat()),
            Self::Other(name) => Some(name.to_string()),
        }
    }
}

/// A uid: sixteen bytes where it is a UUID as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Uid {
    Uuid(Uuid),
    Other(Box<str>),
}

impl Uid {
    pub(super) fn of(text: &str) -> Self {
        match Uuid::parse_str(text) {
            Ok(uuid) if uuid.hyphenated().to_string() == text => Self::Uuid(uuid),
            _ => Self::Other(text.into()),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Uuid(uuid) => uuid.hyphenated().to_string(),
            Self::Other(text) => text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_follow_from_the_revisions_own_take_no_room() {
        let key = Key::new("ns", "hello-00001");
        for (name, told) in [
            (Some("hello-00001"), true),
            (Some("hello-00001-private"), true),
            (Some("hello-00001-deployment"), true),
            (Some("hello"), true),
            (Some(""), false),
            (Some("hello-00001-x"), false),
            (Some("other"), false),
            (None, true),
        ] {
            let kept = Name::of(name, &key);
            assert_eq!(matches!(kept, Name::Told(_)), told, "{name:?}");
            assert_eq!(kept.text(&key).as_deref(), name);
        }
        assert_eq!(std::mem::size_of::<Name>(), 16);
    }
}
