//! A template's nodes, filled in.

use super::function::Function;
use super::{Data, Field, Node, Operand, Pipe, TemplateError, error};
use crate::request_log::value::Value;

/// Fills nodes in.
pub(super) fn render<F: Field>(
    nodes: &[Node<F>],
    data: &impl Data<Field = F>,
    out: &mut Vec<u8>,
) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.extend_from_slice(text.as_bytes()),
            Node::Field(field, js) => match (data.value(*field, &[]), js) {
                (Some(value), false) => value.print(out),
                (Some(value), true) => value.print_js(out),
                (None, _) => return error("a method without its argument"),
            },
            Node::Print(pipe) => print(pipe, data, out)?,
            Node::If(condition, yes, no) => {
                let branch = if evaluate(condition, data)?.truth() { yes } else { no };
                render(branch, data, out)?;
            }
        }
    }
    Ok(())
}

/// Prints a pipe's value. `js` and `print` at its end write into the line, without a text in between.
fn print<F: Field>(pipe: &Pipe<F>, data: &impl Data<Field = F>, out: &mut Vec<u8>) -> Result<(), TemplateError> {
    if let [before @ .., last] = pipe.as_slice()
        && let [Operand::Call(function @ (Function::Js | Function::Print)), arguments @ ..] = last.as_slice()
    {
        let carried = run(before, data)?;
        if arguments.is_empty() && carried.is_none() {
            return Err(function.wrong_arguments());
        }
        for operand in arguments {
            function.print(&operand_value(operand, data)?, out);
        }
        if let Some(value) = carried {
            function.print(&value, out);
        }
        return Ok(());
    }
    evaluate(pipe, data)?.print(out);
    Ok(())
}

fn evaluate<'a, F: Field>(pipe: &'a Pipe<F>, data: &'a impl Data<Field = F>) -> Result<Value<'a>, TemplateError> {
    run(pipe, data)?.ok_or_else(|| TemplateError("nothing to print".into()))
}

/// Runs commands, each with the value of the one before as its last argument.
fn run<'a, F: Field>(
    commands: &'a [Vec<Operand<F>>],
    data: &'a impl Data<Field = F>,
) -> Result<Option<Value<'a>>, TemplateError> {
    let mut carried: Option<Value<'a>> = None;
    for command in commands {
        let [first, rest @ ..] = command.as_slice() else { return error("empty command") };
        let mut arguments = rest.iter().map(|operand| operand_value(operand, data)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(carried.take());
        carried = Some(match first {
            Operand::Call(function) => function.call(&arguments)?,
            Operand::Field(found, path) => field(*found, path, &arguments, data)?,
            _ if !arguments.is_empty() => return error("arguments for what takes none"),
            operand => operand_value(operand, data)?,
        });
    }
    Ok(carried)
}

fn operand_value<'a, F: Field>(
    operand: &'a Operand<F>,
    data: &'a impl Data<Field = F>,
) -> Result<Value<'a>, TemplateError> {
    match operand {
        Operand::Field(found, path) => field(*found, path, &[], data),
        Operand::Constant(value) => Ok(value.borrow()),
        Operand::Group(pipe) => evaluate(pipe, data),
        Operand::Call(function) => error(format!("{function:?} without arguments")),
    }
}

fn field<'a, F: Field>(
    found: Option<F>,
    path: &str,
    arguments: &[Value<'_>],
    data: &'a impl Data<Field = F>,
) -> Result<Value<'a>, TemplateError> {
    found.and_then(|found| data.value(found, arguments)).ok_or_else(|| TemplateError(format!("no field .{path}")))
}
