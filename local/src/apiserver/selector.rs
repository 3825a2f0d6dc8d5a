//! Label and field selectors: parsed from the query, matched against an object's labels and selectable fields.
//!
//! Pure. Lists and watches hold a [`Filter`]; the store calls [`Filter::matches`] on each candidate.
use super::errors::ApiError;
use super::names::is_label_value;
use super::store::Meta;

/// Which objects of a collection a list or watch wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Only this namespace.
    pub(crate) namespace: Option<String>,
    /// Requirements on labels.
    pub(crate) labels: Vec<Requirement>,
    /// Requirements on fields.
    pub(crate) fields: Vec<FieldRequirement>,
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// One requirement of a field selector: `path=value` or `path!=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldRequirement {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// Position in the resource's list of selectable fields.
    At(usize),
}

impl Filter {
    /// Parses both selectors; `selectable` are the field paths the resource can be selected by.
    pub(crate) fn parse(
        namespace: Option<String>,
        labels: &str,
        fields: &str,
        selectable: &[String],
    ) -> Result<Self, ApiError> {
        Ok(Self { namespace, labels: parse_labels(labels)?, fields: parse_fields(fields, selectable)? })
    }

    /// Whether an object is wanted.
    pub(crate) fn matches(&self, meta: &Meta) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == &*meta.key.namespace)
            && self.labels.iter().all(|requirement| requirement.matches(meta.label(&requirement.key)))
            && self.fields.iter().all(|requirement| {
                let actual = match requirement.field {
                    Field::Name => &*meta.key.name,
                    Field::Namespace => &*meta.key.namespace,
                    Field::At(index) => meta.fields.get(index).map_or("", |value| value),
                };
                (actual == requirement.value) == requirement.equal
            })
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(wanted) => value.is_some_and(|value| wanted.iter().any(|w| w == value)),
            Test::NotIn(unwanted) => value.is_none_or(|value| !unwanted.iter().any(|w| w == value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Greater(bound) => number().is_some_and(|value| value > *bound),
            Test::Less(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

/// Parses a label selector, equality-based and set-based.
pub(crate) fn parse_labels(text: &str) -> Result<Vec<Requirement>, ApiError> {
    split_outside_parentheses(text).into_iter().filter(|part| !part.is_empty()).map(parse_requirement).collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn parse_requirement(text: &str) -> Result<Requirement, ApiError> {
    let bad = |why: &str| ApiError::bad_request(format!("unable to parse requirement: {why}: {text:?}"));
    let requirement = |key: &str, test| {
        let key = key.trim();
        let valid = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if valid { Ok(Requirement { key: key.to_owned(), test }) } else { Err(bad("invalid label key")) }
    };
    let value = |text: &str| text.trim().to_owned();
    if let Some(open) = text.find('(') {
        let list = text[open + 1..].strip_suffix(')').ok_or_else(|| bad("found no closing ')'"))?;
        let values = list.split(',').map(value).collect();
        let words: Vec<&str> = text[..open].split_whitespace().collect();
        return match words.as_slice() {
            [key, "in"] => requirement(key, Test::In(values)),
            [key, "notin"] => requirement(key, Test::NotIn(values)),
            _ => Err(bad("expected: in, notin")),
        };
    }
    if let Some(key) = text.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, wanted)) = text.split_once(operator) {
            let wanted = value(wanted);
            if let Some(sign) = wanted.chars().next().filter(|sign| "=!<>".contains(*sign)) {
                return Err(ApiError::bad_request(format!(
                    "unable to parse requirement: found '{sign}', expected: identifier"
                )));
            }
            if !is_label_value(&wanted) {
                return Err(bad("invalid label value"));
            }
            let values = vec![wanted];
            return requirement(key, if negated { Test::NotIn(values) } else { Test::In(values) });
        }
    }
    for (operator, build) in [(">", Test::Greater as fn(i64) -> Test), ("<", Test::Less)] {
        if let Some((key, bound)) = text.split_once(operator) {
            let bound =
                bound.trim().parse().map_err(|_| bad("for 'Gt', 'Lt' operators, the value must be an integer"))?;
            return requirement(key, build(bound));
        }
    }
    requirement(text, Test::Exists)
}

fn parse_fields(text: &str, selectable: &[String]) -> Result<Vec<FieldRequirement>, ApiError> {
    let mut requirements = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (path, value, true)
        } else {
            return Err(ApiError::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'")));
        };
        let field = match path {
            "metadata.name" => Field::Name,
            "metadata.namespace" => Field::Namespace,
            _ => Field::At(
                selectable.iter().position(|known| known == path).ok_or_else(|| unknown_field(path, selectable))?,
            ),
        };
        requirements.push(FieldRequirement { field, value: value.to_owned(), equal });
    }
    Ok(requirements)
}

fn unknown_field(path: &str, selectable: &[String]) -> ApiError {
    let known = ["metadata.name", "metadata.namespace"].into_iter().chain(selectable.iter().map(String::as_str));
    let known: Vec<String> = known.map(|field| format!("{field:?}")).collect();
    ApiError::bad_request(format!("{path:?} is not a known field selector: only {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::store::ObjectKey;

    fn meta(labels: &[(&str, &str)], fields: &[&str]) -> Meta {
        Meta {
            key: ObjectKey::new("ns", "name"),
            uid: "".into(),
            labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            fields: fields.iter().map(|f| (*f).into()).collect(),
            owners: Box::default(),
        }
    }

    #[test]
    fn label_selectors() {
        let object = meta(&[("app", "web"), ("tier", "3"), ("serving.knative.dev/service", "hello")], &[]);
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=x", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("missing notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("tier>2", true),
            ("tier<3", false),
            ("app=web,tier in (1,2)", false),
            ("serving.knative.dev/service=hello,app", true),
        ];
        for (text, want) in cases {
            let filter = Filter::parse(None, text, "", &[]).unwrap();
            assert_eq!(filter.matches(&object), want, "{text}");
        }
        for bad in ["app in web)", "a b c", "a===b", "a=b c", "app in (x", "tier>x", "=x"] {
            assert!(Filter::parse(None, bad, "", &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors() {
        let selectable = ["spec.nodeName".to_owned(), "status.phase".to_owned()];
        let object = meta(&[], &["node-1", "Running"]);
        let cases = [
            ("metadata.name=name", true),
            ("metadata.namespace!=ns", false),
            ("spec.nodeName=node-1,status.phase=Running", true),
            ("status.phase!=Running", false),
        ];
        for (text, want) in cases {
            assert_eq!(Filter::parse(None, "", text, &selectable).unwrap().matches(&object), want, "{text}");
        }
        let error = Filter::parse(None, "", "spec.x=1", &selectable).unwrap_err();
        assert!(
            error.message.starts_with("\"spec.x\" is not a known field selector: only \"metadata.name\""),
            "{error}"
        );
        assert!(!Filter::parse(Some("other".to_owned()), "", "", &[]).unwrap().matches(&object));
    }
}
