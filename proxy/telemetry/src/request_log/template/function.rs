//! The functions that a template may call.

use super::TemplateError;
use crate::request_log::value::{Value, into_text, printf};

/// The functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Js,
    Printf,
    Print,
    Index,
    Len,
    Not,
    And,
    Or,
    Eq,
    Ne,
}

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "js" => Self::Js,
            "printf" => Self::Printf,
            "print" => Self::Print,
            "index" => Self::Index,
            "len" => Self::Len,
            "not" => Self::Not,
            "and" => Self::And,
            "or" => Self::Or,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            _ => return None,
        })
    }

    pub(super) fn call<'a>(self, arguments: &[Value<'a>]) -> Result<Value<'a>, TemplateError> {
        self.value(arguments).ok_or_else(|| self.wrong_arguments())
    }

    fn value<'a>(self, arguments: &[Value<'a>]) -> Option<Value<'a>> {
        let [first, rest @ ..] = arguments else { return None };
        Some(match self {
            Self::Js | Self::Print => {
                let mut text = Vec::new();
                for value in arguments {
                    self.print(value, &mut text);
                }
                Value::Text(into_text(text).into())
            }
            Self::Printf => match first {
                Value::Text(format) => Value::Text(printf(format, rest).into()),
                _ => return None,
            },
            Self::Index => rest.iter().try_fold(first.clone(), |value, key| value.index(key))?,
            Self::Len => Value::Int(i64::try_from(first.len()?).ok()?),
            Self::Not => Value::Bool(!first.truth()),
            Self::And => arguments.iter().find(|value| !value.truth()).or(arguments.last())?.clone(),
            Self::Or => arguments.iter().find(|value| value.truth()).or(arguments.last())?.clone(),
            Self::Eq => Value::Bool(rest.contains(first)),
            Self::Ne => Value::Bool(rest.first()? != first),
        })
    }

    /// One argument of `js` or `print`, which treat each for itself.
    pub(super) fn print(self, value: &Value<'_>, out: &mut Vec<u8>) {
        if self == Self::Js { value.print_js(out) } else { value.print(out) }
    }

    pub(super) fn wrong_arguments(self) -> TemplateError {
        TemplateError(format!("{self:?}: wrong arguments"))
    }
}
