//! Route tags as small numbers, up to a bound. Methods and versions are [`telemetry::labels`].

use std::collections::HashMap;

/// Route tags told apart.
pub(super) const MAX_TAGS: u8 = 100;
/// Tags that are there from the beginning: without a tag, by the default route, both at once, one too many.
const WORDS: [&str; 4] = ["kn:disabled", "kn:default", "kn:undefined", "kn:other"];
const OTHER: Tag = Tag(3);

/// One of [`Tags`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(u8);

/// The route tags seen so far, at most [`MAX_TAGS`] besides [`WORDS`].
#[derive(Debug, Default)]
pub(super) struct Tags {
    known: HashMap<String, Tag>,
    names: Vec<String>,
}

impl Tags {
    pub(super) fn tag(&mut self, name: &str) -> Tag {
        if let Some(word) = (0..).zip(WORDS).find_map(|(n, word)| (word == name).then_some(Tag(n))) {
            return word;
        }
        if let Some(tag) = self.known.get(name) {
            return *tag;
        }
        let seen = u8::try_from(self.names.len()).unwrap_or(MAX_TAGS);
        if seen >= MAX_TAGS || name.len() > 63 {
            return OTHER;
        }
        let tag = Tag(WORDS.len() as u8 + seen);
        self.names.push(name.into());
        self.known.insert(name.into(), tag);
        tag
    }

    pub(super) fn name(&self, Tag(n): Tag) -> &str {
        let of_a_client = || self.names.get(usize::from(n).checked_sub(WORDS.len())?).map(String::as_str);
        WORDS.get(usize::from(n)).copied().or_else(of_a_client).unwrap_or(WORDS[usize::from(OTHER.0)])
    }
}
