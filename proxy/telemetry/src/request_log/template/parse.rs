//! The text of a template, taken apart.

use super::function::Function;
use super::{Field, Node, Operand, Pipe, TemplateError, error};
use crate::request_log::value::Value;

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 32;

/// Nodes, and the `else` or `end` behind them.
type Block<F> = (Vec<Node<F>>, Option<String>);

pub(super) enum Piece {
    Text(String),
    Action(String),
}

/// Text and actions, trim marks obeyed, comments gone.
pub(super) fn split(template: &str) -> Result<Vec<Piece>, TemplateError> {
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
pub(super) fn block<F: Field>(pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Block<F>, TemplateError> {
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
                _ => nodes.push(Node::print(pipe(&action)?)),
            },
        }
    }
    Ok((nodes, None))
}

fn condition<F: Field>(
    test: &str,
    pieces: &mut std::vec::IntoIter<Piece>,
    depth: usize,
) -> Result<Node<F>, TemplateError> {
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

fn pipe<F: Field>(action: &str) -> Result<Pipe<F>, TemplateError> {
    let mut rest = action;
    let parsed = commands(&mut rest, 0)?;
    if rest.is_empty() { Ok(parsed) } else { error(format!("unexpected {rest:?}")) }
}

/// Commands separated by `|`, up to the end or a closing parenthesis.
fn commands<F: Field>(rest: &mut &str, depth: usize) -> Result<Pipe<F>, TemplateError> {
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
            Some(quote @ ('"' | '`')) => command.push(Operand::Constant(Value::Text(quoted(rest, quote)?.into()))),
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

fn operand<F: Field>(word: &str) -> Result<Operand<F>, TemplateError> {
    let path = word.strip_prefix('$').unwrap_or(word);
    if let Some(path) = path.strip_prefix('.') {
        let names: Vec<&str> = path.split('.').collect();
        let valid = names.iter().all(|name| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_'));
        // One that is not there is an error of every line, not of the template: so it is in Go.
        let field = || Operand::Field(F::at(&names), path.to_string());
        return if valid { Ok(field()) } else { error(format!("bad field {word:?}")) };
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
