//! The part of Go's text/template that host and container name templates use: fields of one flat value
//! (`{{.Name}}`) and look-ups in its maps (`{{index .Labels "app"}}`). Anything else is refused when the ConfigMap
//! is read, never when a host is needed.

use std::collections::BTreeMap;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
    Index { map: String, key: String },
}

/// The value a template is filled with.
#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) maps: &'a [(&'a str, &'a BTreeMap<String, String>)],
}

impl Template {
    /// Parses `text`; `fields` and `maps` are the names it may use.
    pub(super) fn parse(text: &str, fields: &[&str], maps: &[&str]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let body = &rest[start + 2..];
            let end = body.find("}}").ok_or_else(|| "a {{ has no }}".to_owned())?;
            parts.push(Self::action(body[..end].trim_matches(['-', ' ']).trim(), fields, maps)?);
            rest = &body[end + 2..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    fn action(body: &str, fields: &[&str], maps: &[&str]) -> Result<Part, String> {
        if let Some(field) = body.strip_prefix('.').filter(|f| fields.contains(f)) {
            return Ok(Part::Field(field.to_owned()));
        }
        let index = body.strip_prefix("index ").and_then(|rest| {
            let (map, key) = rest.trim().strip_prefix('.')?.split_once(' ')?;
            let key = key.trim().strip_prefix('"')?.strip_suffix('"')?;
            maps.contains(&map).then(|| Part::Index { map: map.to_owned(), key: key.to_owned() })
        });
        index.ok_or_else(|| format!("cannot use {{{{{body}}}}}: want one of .{}", [fields, maps].concat().join(", .")))
    }

    /// The template that is always empty.
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Fills the template in; a missing map entry is empty.
    pub(super) fn render(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(name) => {
                    out.push_str(values.fields.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v));
                }
                Part::Index { map, key } => {
                    let map = values.maps.iter().find(|(n, _)| n == map);
                    out.push_str(map.and_then(|(_, m)| m.get(key)).map_or("", String::as_str));
                }
            }
        }
        out
    }
}
