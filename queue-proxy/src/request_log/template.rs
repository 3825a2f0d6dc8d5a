//! The part of Go's `text/template` that request logs use: fields, constants, pipelines, parentheses, `if`/`else`,
//! trim marks, comments, and the functions of [`Function`]. Variables, `range`, `with` and nested templates are not:
//! a template with them is refused when it is parsed, as a whole.

use super::value::{Value, js, printf};

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 32;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template(Vec<Node>);

/// Why a text is no template, or why it cannot be filled in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
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

/// What a template is filled with: a field by its path, with arguments if it is a method.
pub(super) trait Data {
    /// The value, or `None` if there is no such field.
    fn field(&self, path: &[String], arguments: &[Value]) -> Option<Value>;
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
}

type Pipe = Vec<Vec<Operand>>;

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Field(Vec<String>),
    Constant(Value),
    Call(Function),
    Group(Pipe),
}

/// The functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
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
    fn named(name: &str) -> Option<Self> {
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

    fn call(self, arguments: &[Value]) -> Option<Value> {
        let [first, rest @ ..] = arguments else { return None };
        Some(match self {
            Self::Js => Value::Text(js(&arguments.iter().map(Value::print).collect::<String>())),
            Self::Print => Value::Text(arguments.iter().map(Value::print).collect::<String>()),
            Self::Printf => match first {
                Value::Text(format) => Value::Text(printf(format, rest)),
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
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = split(text)?.into_iter();
        let (nodes, end) = block(&mut pieces, 0)?;
        match end {
            None => Ok(Self(nodes)),
            Some(word) => error(format!("unexpected {{{{{word}}}}}")),
        }
    }

    /// Fills it in.
    pub(super) fn render(&self, data: &impl Data) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(512);
        render(&self.0, data, &mut out)?;
        Ok(out)
    }
}

fn render(nodes: &[Node], data: &impl Data, out: &mut String) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&evaluate(pipe, data)?.print()),
            Node::If(condition, yes, no) => {
                let branch = if evaluate(condition, data)?.truth() { yes } else { no };
                render(branch, data, out)?;
            }
        }
    }
    Ok(())
}

fn evaluate(pipe: &Pipe, data: &impl Data) -> Result<Value, TemplateError> {
    let mut carried: Option<Value> = None;
    for command in pipe {
        let [first, rest @ ..] = command.as_slice() else { return error("empty command") };
        let mut arguments = rest.iter().map(|operand| operand_value(operand, data)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(carried.take());
        carried = Some(match first {
            Operand::Call(function) => {
                function.call(&arguments).ok_or_else(|| TemplateError(format!("{function:?}: wrong arguments")))?
            }
            Operand::Field(path) => field(path, &arguments, data)?,
            _ if !arguments.is_empty() => return error("arguments for what takes none"),
            operand => operand_value(operand, data)?,
        });
    }
    carried.ok_or_else(|| TemplateError("nothing to print".into()))
}

fn operand_value(operand: &Operand, data: &impl Data) -> Result<Value, TemplateError> {
    match operand {
        Operand::Field(path) => field(path, &[], data),
        Operand::Constant(value) => Ok(value.clone()),
        Operand::Group(pipe) => evaluate(pipe, data),
        Operand::Call(function) => error(format!("{function:?} without arguments")),
    }
}

fn field(path: &[String], arguments: &[Value], data: &impl Data) -> Result<Value, TemplateError> {
    data.field(path, arguments).ok_or_else(|| TemplateError(format!("no field .{}", path.join("."))))
}

enum Piece {
    Text(String),
    Action(String),
}

/// Text and actions, trim marks obeyed, comments gone.
fn split(template: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut rest, mut trim) = (template, false);
    while let Some((text, after)) = rest.split_once("{{") {
        let end = action_end(after).ok_or_else(|| TemplateError("unclosed action".into()))?;
        let mut action = &after[..end];
        let mut text = if trim { text.trim_start() } else { text };
        if let Some(inner) = action.strip_prefix('-').filter(|inner| inner.starts_with(char::is_whitespace)) {
            (action, text) = (inner, text.trim_end());
        }
        let inner = action.strip_suffix('-').filter(|inner| inner.ends_with(char::is_whitespace));
        trim = inner.is_some();
        pieces.push(Piece::Text(text.to_string()));
        let action = inner.unwrap_or(action).trim();
        if !action.starts_with("/*") {
            pieces.push(Piece::Action(action.to_string()));
        }
        rest = &after[end + 2..];
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_string()));
    Ok(pieces)
}

/// Where `}}` closes an action; not inside quotes.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            None if text[at..].starts_with("}}") => return Some(at),
            None if matches!(c, '"' | '`') => quote = Some(c),
            Some('"') if !escaped && c == '\\' => {
                escaped = true;
                continue;
            }
            Some(open) if c == open && !escaped => quote = None,
            _ => {}
        }
        escaped = false;
    }
    None
}

/// Nodes up to the `else` or `end` that closes them, which is returned.
fn block(pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<(Vec<Node>, Option<String>), TemplateError> {
    if depth > MAX_DEPTH {
        return error("nested too deep");
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Text(text) if text.is_empty() => {}
            Piece::Text(text) => nodes.push(Node::Text(text)),
            Piece::Action(action) => match action.split_whitespace().next().unwrap_or_default() {
                "end" | "else" => return Ok((nodes, Some(action))),
                "if" => nodes.push(condition(&action[2..], pieces, depth)?),
                word @ ("range" | "with" | "define" | "template" | "block" | "break" | "continue") => {
                    return error(format!("{word} is not supported"));
                }
                _ => nodes.push(Node::Print(pipe(&action)?)),
            },
        }
    }
    Ok((nodes, None))
}

fn condition(test: &str, pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Node, TemplateError> {
    let test = pipe(test)?;
    let (yes, end) = block(pieces, depth + 1)?;
    let no = match end.as_deref().map(|end| end.split_whitespace().collect::<Vec<_>>()).as_deref() {
        Some(["end"]) => Vec::new(),
        Some(["else"]) => match block(pieces, depth + 1)? {
            (no, Some(end)) if end == "end" => no,
            _ => return error("else without end"),
        },
        Some(["else", "if", ..]) => {
            let action = end.as_deref().unwrap_or_default();
            let test = action.find("if").map_or("", |at| &action[at + 2..]);
            vec![condition(test, pieces, depth + 1)?]
        }
        _ => return error("if without end"),
    };
    Ok(Node::If(test, yes, no))
}

fn pipe(action: &str) -> Result<Pipe, TemplateError> {
    let mut rest = action;
    let parsed = commands(&mut rest, 0)?;
    if rest.is_empty() { Ok(parsed) } else { error(format!("unexpected {rest:?}")) }
}

/// Commands separated by `|`, up to the end or a closing parenthesis.
fn commands(rest: &mut &str, depth: usize) -> Result<Pipe, TemplateError> {
    if depth > MAX_DEPTH {
        return error("nested too deep");
    }
    let (mut pipe, mut command) = (Vec::new(), Vec::new());
    loop {
        *rest = rest.trim_start();
        let next = rest.chars().next();
        match next {
            None | Some('|' | ')') if command.is_empty() => return error("missing value for command"),
            None | Some(')') => {
                pipe.push(command);
                return Ok(pipe);
            }
            Some('|') => {
                *rest = &rest[1..];
                pipe.push(std::mem::take(&mut command));
            }
            Some('(') => {
                *rest = &rest[1..];
                command.push(Operand::Group(commands(rest, depth + 1)?));
                *rest = rest.strip_prefix(')').ok_or_else(|| TemplateError("unclosed parenthesis".into()))?;
            }
            Some(quote @ ('"' | '`')) => command.push(Operand::Constant(Value::Text(quoted(rest, quote)?))),
            Some(_) => {
                let end = rest.find(|c: char| c.is_whitespace() || "|()\"`".contains(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                *rest = after;
                command.push(operand(word)?);
            }
        }
    }
}

fn quoted(rest: &mut &str, quote: char) -> Result<String, TemplateError> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                *rest = &rest[at + 1..];
                return Ok(text);
            }
            '\\' if quote == '"' => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(c @ ('"' | '\\')) => text.push(c),
                _ => return error("unknown escape in a string"),
            },
            c => text.push(c),
        }
    }
    error("unclosed string")
}

fn operand(word: &str) -> Result<Operand, TemplateError> {
    let path = word.strip_prefix('$').unwrap_or(word);
    if let Some(path) = path.strip_prefix('.') {
        let path: Vec<String> = path.split('.').map(ToString::to_string).collect();
        let valid = path.iter().all(|name| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_'));
        return if valid { Ok(Operand::Field(path)) } else { error(format!("bad field {word:?}")) };
    }
    if let Some(function) = Function::named(word) {
        return Ok(Operand::Call(function));
    }
    match word {
        "true" => Ok(Operand::Constant(Value::Bool(true))),
        "false" => Ok(Operand::Constant(Value::Bool(false))),
        _ => match (word.parse(), word.parse()) {
            (Ok(n), _) => Ok(Operand::Constant(Value::Int(n))),
            (_, Ok(n)) if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                Ok(Operand::Constant(Value::Float(n)))
            }
            _ => error(format!("function {word:?} not defined")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Table;

    impl Data for Table {
        fn field(&self, path: &[String], arguments: &[Value]) -> Option<Value> {
            Some(match (path.join(".").as_str(), arguments) {
                ("Text", []) => Value::Text("it's".into()),
                ("Empty", []) => Value::Text(String::new()),
                ("N", []) => Value::Int(404),
                ("Map", []) => Value::Headers(vec![("X".into(), vec!["a".into(), "b".into()])]),
                ("Get", [Value::Text(key)]) => Value::Text(format!("<{key}>")),
                _ => return None,
            })
        }
    }

    #[test]
    fn table() {
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
            let rendered = Template::parse(template).unwrap().render(&Table).map_err(|error| error.to_string());
            assert_eq!(rendered, expected.map(str::to_string).map_err(str::to_string), "{template}");
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
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        assert!(Template::parse(&format!("{{{{{}", "(".repeat(100_000))).is_err());
        assert!(Template::parse(&format!("{{{{{}}}}}", "(".repeat(100_000))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z .|()\"`%-]|\\{\\{|\\}\\}|if |end|else|\\.N|js |printf |é){0,24}") {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.render(&Table);
            }
        }
    }
}
