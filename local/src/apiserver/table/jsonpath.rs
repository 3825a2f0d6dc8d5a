//! The JSONPath subset that printer columns use: `.a.b`, `['a']`, `[0]`, `[-1]`, `[*]`, `.*`, and filters
//! `[?(@.type=="Ready")]` (also `!=`).
//!
//! Pure. Parsed once per column; finding allocates only the list of matches.
use serde_json::Value;

/// How many steps a path may have (paths come from users' CRDs).
const MAX_STEPS: usize = 32;

/// A parsed path.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Every,
    Where { path: Vec<String>, equal: bool, value: Value },
}

impl JsonPath {
    /// Parses a path; `None` when it is not of the subset.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if steps.len() == MAX_STEPS {
                return None;
            }
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                let (name, after) = field(rest.strip_prefix('.').unwrap_or(rest));
                match name.as_str() {
                    "" => return None,
                    "*" => steps.push(Step::Every),
                    _ => steps.push(Step::Field(name)),
                }
                rest = after;
            }
        }
        Some(Self { steps })
    }

    /// All values the path leads to.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.from(value)).collect();
        }
        found
    }
}

impl Step {
    fn from<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let all = || -> Vec<&'v Value> {
            match value {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            }
        };
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let at = if *index < 0 { i64::try_from(list.len()).unwrap_or(i64::MAX) + index } else { *index };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            Self::Every => all(),
            Self::Where { path, equal, value: wanted } => all()
                .into_iter()
                .filter(|item| {
                    let actual = path.iter().try_fold(*item, |at, name| at.get(name));
                    actual.is_some_and(|actual| (actual == wanted) == *equal)
                })
                .collect(),
        }
    }
}

/// A field name up to the next `.` or `[`; `\.` is a dot in the name.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' => return (name, &text[at..]),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket closes, quotes and inner brackets skipped.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) => quote = (c != open).then_some(open),
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => return Some(at),
            },
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::Every);
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (left, equal, right) = if let Some((left, right)) = condition.split_once("==") {
            (left, true, right)
        } else {
            let (left, right) = condition.split_once("!=")?;
            (left, false, right)
        };
        let path =
            left.trim().strip_prefix('@')?.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let right = right.trim();
        let value = unquote(right).map_or_else(|| serde_json::from_str(right).ok(), |text| Some(text.into()))?;
        return Some(Step::Where { path, equal, value });
    }
    if let Some(name) = unquote(text) {
        return Some(Step::Field(name.replace("\\.", ".")));
    }
    text.parse().ok().map(Step::Index)
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let object = json!({
            "metadata": { "labels": { "app.kubernetes.io/name": "x" } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Other", "status": "False" }], "n": [1, 2, 3] },
        });
        let cases = [
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
            (".status.conditions[?(@.type!='Ready')].status", json!(["False"])),
            (".status.conditions[?(@.type=='Missing')].status", json!([])),
            (".status.conditions[*].type", json!(["Ready", "Other"])),
            ("{.status.n[0]}", json!([1])),
            (".status.n[-1]", json!([3])),
            (".metadata.labels['app\\.kubernetes\\.io/name']", json!(["x"])),
            (".metadata.labels.app\\.kubernetes\\.io/name", json!(["x"])),
            (".missing.deep", json!([])),
        ];
        for (path, want) in cases {
            let found: Vec<Value> = JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(Value::from(found), want, "{path}");
        }
        for bad in [".a[", ".a[?(b==1)]", "..", ".a[x]"] {
            assert!(JsonPath::parse(bad).is_none(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,64}") {
            let _ = JsonPath::parse(&text).map(|path| path.find(&json!({ "a": [1] })).len());
        }
    }
}
