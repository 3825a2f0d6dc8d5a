//! The part of Go's `text/template` that request logs use: fields, constants, pipelines, parentheses, `if`/`else`,
//! trim marks, comments, and the functions of [`Function`]. Variables, `range`, `with` and nested templates are not:
//! a template with them is refused when it is parsed, as a whole.
//!
//! A line is made in two steps, so that nothing of the request has to be kept for its end: what depends on the request
//! alone is filled in at its arrival ([`Template::begin`]), the rest at its end ([`Template::finish`]). Only what
//! depends on both makes the log keep the request ([`Template::keeps_request`]).

mod evaluate;
mod function;
mod parse;

use super::value::Value;
use evaluate::render;
use function::Function;

/// A parsed template.
#[derive(Debug)]
pub(super) struct Template<F> {
    parts: Vec<(Step, Vec<Node<F>>)>,
    keeps_request: bool,
}

/// Why a text is no template, or why it cannot be filled in.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct TemplateError(String);

impl TemplateError {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }
}

fn error<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

/// The fields that there are. They are looked up once, when the template is parsed.
pub(super) trait Field: Copy {
    /// The field, or method, at a path.
    fn at(path: &[&str]) -> Option<Self>;
    /// From when on its value is known.
    fn known(self) -> Known;
}

/// What a template is filled with.
pub(super) trait Data {
    type Field: Field;
    /// The value of a field; `None` if the arguments are not what it takes.
    fn value<'a>(&'a self, field: Self::Field, arguments: &[Value<'_>]) -> Option<Value<'a>>;
}

/// When a value is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Always,
    /// And not later: the request goes on to the app.
    AtArrival,
    AtTheEnd,
}

/// When a part of a line is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Arrival,
    End,
}

/// What was filled in at arrival.
#[derive(Debug, Default)]
pub(super) struct Begun {
    text: Vec<u8>,
    /// Where each part ends.
    ends: Vec<usize>,
}

impl Begun {
    /// Keeps something more than the parts.
    pub(super) fn note(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    /// What was noted.
    pub(super) fn noted(&self) -> &[u8] {
        self.text.get(self.ends.last().copied().unwrap_or_default()..).unwrap_or_default()
    }
}

#[derive(Debug)]
enum Node<F> {
    Text(String),
    /// A field that is there, without arguments, as most actions are; alone or behind `js`.
    Field(F, bool),
    Print(Pipe<F>),
    If(Pipe<F>, Vec<Node<F>>, Vec<Node<F>>),
}

impl<F: Field> Node<F> {
    fn print(pipe: Pipe<F>) -> Self {
        match pipe.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
            [[Operand::Field(Some(field), _)]] => Self::Field(*field, false),
            [[Operand::Call(Function::Js), Operand::Field(Some(field), _)]]
            | [[Operand::Field(Some(field), _)], [Operand::Call(Function::Js)]] => Self::Field(*field, true),
            _ => Self::Print(pipe),
        }
    }
}

type Pipe<F> = Vec<Vec<Operand<F>>>;

#[derive(Debug)]
enum Operand<F> {
    /// `None` if there is no such field, and its path.
    Field(Option<F>, String),
    Constant(Value<'static>),
    Call(Function),
    Group(Pipe<F>),
}

impl<F: Field> Template<F> {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = parse::split(text)?.into_iter();
        let (nodes, end) = parse::block(&mut pieces, 0)?;
        if let Some(word) = end {
            return error(format!("unexpected {{{{{word}}}}}"));
        }
        let (mut parts, mut keeps_request) = (Vec::<(Step, Vec<Node<F>>)>::new(), false);
        for node in nodes {
            let before = parts.last().map_or(Step::Arrival, |(step, _)| *step);
            let step = match (uses(&node, Known::AtArrival), uses(&node, Known::AtTheEnd)) {
                (false, false) => before,
                (true, false) => Step::Arrival,
                (both, true) => {
                    keeps_request |= both;
                    Step::End
                }
            };
            match parts.last_mut() {
                Some((_, part)) if step == before => part.push(node),
                _ => parts.push((step, vec![node])),
            }
        }
        Ok(Self { parts, keeps_request })
    }

    /// Whether [`finish`](Self::finish) asks for fields of the request too.
    pub(super) fn keeps_request(&self) -> bool {
        self.keeps_request
    }

    /// Fills in what depends on the request.
    pub(super) fn begin(&self, data: &impl Data<Field = F>) -> Result<Begun, TemplateError> {
        let mut begun = Begun { text: Vec::with_capacity(512), ends: Vec::with_capacity(self.parts.len()) };
        for (_, part) in self.parts.iter().filter(|(step, _)| *step == Step::Arrival) {
            render(part, data, &mut begun.text)?;
            begun.ends.push(begun.text.len());
        }
        Ok(begun)
    }

    /// Fills in the rest.
    pub(super) fn finish(
        &self,
        begun: &Begun,
        data: &impl Data<Field = F>,
        out: &mut Vec<u8>,
    ) -> Result<(), TemplateError> {
        let (mut from, mut ends) = (0, begun.ends.iter());
        for (step, part) in &self.parts {
            if *step == Step::End {
                render(part, data, out)?;
            } else if let Some(&end) = ends.next() {
                out.extend_from_slice(begun.text.get(from..end).unwrap_or_default());
                from = end;
            }
        }
        Ok(())
    }
}

/// Whether a node asks for what is known then.
fn uses<F: Field>(node: &Node<F>, known: Known) -> bool {
    match node {
        Node::Text(_) => false,
        Node::Field(field, _) => field.known() == known,
        Node::Print(pipe) => pipe_uses(pipe, known),
        Node::If(condition, yes, no) => {
            pipe_uses(condition, known) || yes.iter().chain(no).any(|node| uses(node, known))
        }
    }
}

fn pipe_uses<F: Field>(pipe: &Pipe<F>, known: Known) -> bool {
    pipe.iter().flatten().any(|operand| match operand {
        Operand::Field(field, _) => field.is_some_and(|field| field.known() == known),
        Operand::Group(pipe) => pipe_uses(pipe, known),
        Operand::Constant(_) | Operand::Call(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_log::headers::Headers;
    use crate::request_log::value::into_text;
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    struct Table(HeaderMap);

    #[derive(Debug, Clone, Copy)]
    enum Name {
        Text,
        Empty,
        N,
        Map,
        Get,
    }

    impl Field for Name {
        fn at(path: &[&str]) -> Option<Self> {
            Some(match path {
                ["Text"] => Self::Text,
                ["Empty"] => Self::Empty,
                ["N"] => Self::N,
                ["Map"] => Self::Map,
                ["Get"] => Self::Get,
                _ => return None,
            })
        }

        fn known(self) -> Known {
            match self {
                Self::Text | Self::Map => Known::AtArrival,
                Self::N | Self::Get => Known::AtTheEnd,
                Self::Empty => Known::Always,
            }
        }
    }

    impl Data for Table {
        type Field = Name;

        fn value<'a>(&'a self, field: Name, arguments: &[Value<'_>]) -> Option<Value<'a>> {
            Some(match (field, arguments) {
                (Name::Text, []) => Value::text("it's"),
                (Name::Empty, []) => Value::text(""),
                (Name::N, []) => Value::Int(404),
                (Name::Map, []) => Value::Headers(Headers(&self.0)),
                (Name::Get, [Value::Text(key)]) => Value::Text(format!("<{key}>").into()),
                _ => return None,
            })
        }
    }

    fn table() -> Table {
        let mut map = HeaderMap::new();
        map.append("x", HeaderValue::from_static("a"));
        map.append("x", HeaderValue::from_static("b"));
        Table(map)
    }

    fn rendered(template: &Template<Name>) -> Result<String, TemplateError> {
        let table = table();
        let mut line = Vec::new();
        template.finish(&template.begin(&table)?, &table, &mut line)?;
        Ok(into_text(line))
    }

    #[test]
    fn what_templates_give() {
        for (template, expected) in [
            ("plain", Ok("plain")),
            ("a {{.N}} b", Ok("a 404 b")),
            ("{{ $.N }}", Ok("404")),
            ("{{js .Text}} {{.Text | js}}", Ok("it\\'s it\\'s")),
            ("{{printf \"%s-%03d\" .Text 7}}", Ok("it's-007")),
            ("{{.Get \"a}}b\"}}", Ok("<a}}b>")),
            ("{{index .Map \"X\"}} {{index .Map \"X\" 1}} {{index .Map \"Y\"}}", Ok("[a b] b []")),
            ("{{js (index (index .Map \"X\") 0)}}", Ok("a")),
            ("{{if .Empty}}a{{else}}b{{end}}", Ok("b")),
            ("{{if eq .N 404}}missing{{end}}{{if ne .N 404}}x{{end}}", Ok("missing")),
            ("{{if .Empty}}a{{else if .N}}b{{else}}c{{end}}", Ok("b")),
            ("{{if and .N (not .Empty)}}yes{{end}}", Ok("yes")),
            ("{{or .Empty \"-\"}}", Ok("-")),
            ("a {{- .N -}} b{{/* gone */}}", Ok("a404b")),
            ("{{len .Text}}{{`raw\\`}}{{1.5}}{{true}}", Ok("4raw\\1.5true")),
            ("{{.Nope}}", Err("no field .Nope")),
            ("{{index .Map 7}}", Err("Index: wrong arguments")),
        ] {
            let line = rendered(&Template::parse(template).unwrap()).map_err(|error| error.to_string());
            assert_eq!(line, expected.map(str::to_string).map_err(str::to_string), "{template}");
        }
    }

    #[test]
    fn what_is_known_at_arrival_is_filled_in_then() {
        for (template, early, ends, keeps) in [
            ("a{{.Text}}b{{.N}}c{{js .Text}}d", "ait'sbit\\'sd", &[6, 12][..], false),
            ("{{.Empty}}{{if .Map}}{{.Text}}{{else}}{{.Empty}}{{end}}{{.N}}", "it's", &[4], false),
            ("{{if .Text}}{{.N}}{{end}}{{.Text}}", "it's", &[4], true),
            ("{{or .Empty .N .Text}}", "", &[], true),
            ("{{.Get (index (index .Map \"X\") 0)}}", "", &[], true),
        ] {
            let template = Template::<Name>::parse(template).unwrap();
            let begun = template.begin(&table()).unwrap();
            assert_eq!((into_text(begun.text), begun.ends.as_slice()), (early.into(), ends));
            assert_eq!(template.keeps_request(), keeps);
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let deep = "{{if .N}}".repeat(100);
        for bad in [
            "{{}}",
            "{{",
            "{{.N",
            "{{nope .N}}",
            "{{if .N}}",
            "{{else}}",
            "{{end}}",
            "{{.N |}}",
            "{{(.N}}",
            "{{.N)}}",
            "{{\"a}}",
            "{{range .Map}}{{end}}",
            "{{$x := .N}}",
            "{{if .N}}{{else}}{{else}}{{end}}",
            "{{..N}}",
            &deep,
        ] {
            assert!(Template::<Name>::parse(bad).is_err(), "{bad}");
        }
        assert!(Template::<Name>::parse(&format!("{{{{{}", "(".repeat(100_000))).is_err());
        assert!(Template::<Name>::parse(&format!("{{{{{}}}}}", "(".repeat(100_000))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z .|()\"`%-]|\\{\\{|\\}\\}|if |end|else|\\.N|js |printf |é){0,24}") {
            if let Ok(template) = Template::parse(&text) {
                let _ = rendered(&template);
            }
        }
    }
}
