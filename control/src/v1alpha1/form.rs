//! How an object was written in v1alpha1, noted on the object as it is kept.

use serde_json::{Map, Value};

use crate::admission::json::{get, text};

/// The annotation: words of [`Form`], comma separated.
pub const FORM: &str = "serving.dormouse.dev/v1alpha1";

/// Which of its four members a Service had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All traffic to the newest Revision.
    RunLatest,
    /// All traffic to one Revision.
    Pinned,
    /// One or two Revisions, and a name for the newest.
    Release,
    /// Configuration and Route are the user's.
    Manual,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::RunLatest, Self::Pinned, Self::Release, Self::Manual];

    /// The member's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::RunLatest => "runLatest",
            Self::Pinned => "pinned",
            Self::Release => "release",
            Self::Manual => "manual",
        }
    }
}

/// Which of two spellings an object used, and which member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form {
    /// A Service's member; none where it was written as in v1.
    pub mode: Option<Mode>,
    /// `revisionTemplate`, not `template`.
    pub revision_template: bool,
    /// `container`, not `containers`.
    pub container: bool,
    /// `concurrencyModel`, not `containerConcurrency`.
    pub concurrency_model: bool,
    /// `name` of a target, not `tag`.
    pub name: bool,
}

impl Form {
    /// What is noted on an object.
    pub fn of(object: &Value) -> Self {
        Self::read(text(get(object, &["metadata", "annotations"]), FORM))
    }

    /// What an annotation says; words that mean nothing are passed over.
    pub fn read(note: &str) -> Self {
        let mut form = Self::default();
        for word in note.split(',') {
            match word {
                "revisionTemplate" => form.revision_template = true,
                "container" => form.container = true,
                "concurrencyModel" => form.concurrency_model = true,
                "name" => form.name = true,
                other => form.mode = Mode::ALL.into_iter().find(|mode| mode.word() == other).or(form.mode),
            }
        }
        form
    }

    /// Whether a Service with these containers is the user's to look after.
    pub(super) fn is_manual<C>(self, containers: &[C]) -> bool {
        containers.is_empty() && self.mode == Some(Mode::Manual)
    }

    fn words(self) -> Vec<&'static str> {
        let spellings = [
            (self.revision_template, "revisionTemplate"),
            (self.container, "container"),
            (self.concurrency_model, "concurrencyModel"),
            (self.name, "name"),
        ];
        let spellings = spellings.into_iter().filter_map(|(used, word)| used.then_some(word));
        self.mode.map(Mode::word).into_iter().chain(spellings).collect()
    }

    /// Notes it on an object; nothing where there is nothing to note.
    pub(super) fn note(self, object: &mut Value) {
        let words = self.words();
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if words.is_empty() {
            if let Some(Value::Object(notes)) = metadata.get_mut("annotations") {
                notes.remove(FORM);
                if notes.is_empty() {
                    metadata.remove("annotations");
                }
            }
            return;
        }
        let notes = metadata.entry("annotations").or_insert(Value::Null);
        if !notes.is_object() {
            *notes = Value::Object(Map::new());
        }
        if let Some(notes) = notes.as_object_mut() {
            notes.insert(FORM.to_owned(), words.join(",").into());
        }
    }
}
