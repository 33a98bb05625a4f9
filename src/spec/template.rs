/*!
Texts with placeholders: `${VARIABLE}` from the environment, `{axis}` from the matrix.
*/

use std::ops::Range;

use super::table::nearest;

/// One axis of the matrix.
pub(super) struct Axis {
    pub name: String,
    pub values: Vec<String>,
    pub span: Range<usize>,
}

/// A value for each axis that a pair uses, as indices into the matrix and into the axis.
pub(super) type Assignment = Vec<(usize, usize)>;

/// A text, parsed.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    /// `${NAME}`
    Variable(&'t str),
    /// `{name}`, by index into the matrix
    Axis(usize),
}

/// What is wrong with a text.
#[derive(Debug, PartialEq)]
pub(super) struct TemplateError {
    pub message: String,
    pub help: String,
}

/// Parses a text; `{{` and `}}` stand for braces, `$${` for `${`.
pub(super) fn parse<'t>(text: &'t str, axes: &[Axis]) -> Result<Vec<Part<'t>>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(place);
        let double = from.starts_with("{{") || from.starts_with("}}");
        if double {
            parts.push(Part::Text(before));
            parts.push(Part::Text(&from[..1]));
            rest = &from[2..];
            continue;
        }
        let Some((name, after)) = from.strip_prefix('{').and_then(|it| it.split_once('}')) else {
            let brace = &from[..1];
            return Err(TemplateError {
                message: format!("unpaired `{brace}`"),
                help: format!("write `{brace}{brace}` for a literal brace"),
            });
        };
        if let Some(before) = before.strip_suffix("$$") {
            parts.push(Part::Text(before));
            parts.push(Part::Text("$"));
            parts.push(Part::Text(&from[..name.len() + 2]));
        } else if let Some(before) = before.strip_suffix('$') {
            if name.is_empty() {
                return Err(TemplateError {
                    message: "`${}` names no variable".to_owned(),
                    help: "write ${NAME}".to_owned(),
                });
            }
            parts.push(Part::Text(before));
            parts.push(Part::Variable(name));
        } else {
            parts.push(Part::Text(before));
            parts.push(Part::Axis(find(name, axes)?));
        }
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts.retain(|part| *part != Part::Text(""));
    Ok(parts)
}

fn find(name: &str, axes: &[Axis]) -> Result<usize, TemplateError> {
    axes.iter().position(|axis| axis.name == name).ok_or_else(|| TemplateError {
        message: format!("no axis of the matrix is called {name:?}"),
        help: match nearest(name, axes.iter().map(|axis| axis.name.as_str())) {
            Some(near) => format!("did you mean {{{near}}}?"),
            None if axes.is_empty() => {
                "define it in [matrix], or write `{{` for a literal brace".to_owned()
            }
            None => {
                let names: Vec<_> = axes.iter().map(|axis| axis.name.as_str()).collect();
                format!("the axes are {}", names.join(", "))
            }
        },
    })
}

/// The axes that some texts use, in the order of the matrix.
pub(super) fn used_axes<'p>(parts: impl Iterator<Item = &'p Part<'p>>) -> Vec<usize> {
    let mut used: Vec<usize> = parts
        .filter_map(|part| match part {
            Part::Axis(axis) => Some(*axis),
            _ => None,
        })
        .collect();
    used.sort_unstable();
    used.dedup();
    used
}

/// Fills a text in. `variable` gives what a `${NAME}` becomes; the first name for which it gives
/// nothing is the error.
pub(super) fn fill<'t>(
    parts: &[Part<'t>],
    axes: &[Axis],
    assignment: &Assignment,
    mut variable: impl FnMut(&str) -> Option<String>,
) -> Result<String, &'t str> {
    let mut filled = String::new();
    for part in parts {
        match part {
            Part::Text(text) => filled += text,
            Part::Variable(name) => filled += &variable(name).ok_or(*name)?,
            Part::Axis(axis) => filled += value(axes, assignment, *axis),
        }
    }
    Ok(filled)
}

/// Fills environment variables into a text for people, in which other braces are just braces; `$${` stands for
/// `${`. The first name for which `variable` gives nothing is the error.
pub(super) fn fill_variables(
    text: &str,
    mut variable: impl FnMut(&str) -> Option<String>,
) -> Result<String, &str> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            filled += before;
            filled += "${";
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}').filter(|(name, _)| !name.is_empty()) else {
            break;
        };
        filled += before;
        filled += &variable(name).ok_or(name)?;
        rest = after;
    }
    Ok(filled + rest)
}

/// Fills the axes that a pair uses into a text for people, in which other braces are just braces.
pub(super) fn fill_loosely(text: &str, axes: &[Axis], assignment: &Assignment) -> String {
    let mut filled = text.to_owned();
    for (axis, _) in assignment {
        if let Some(Axis { name, .. }) = axes.get(*axis) {
            filled = filled.replace(&format!("{{{name}}}"), value(axes, assignment, *axis));
        }
    }
    filled
}

fn value<'a>(axes: &'a [Axis], assignment: &Assignment, axis: usize) -> &'a str {
    let chosen = assignment.iter().find(|(of, _)| *of == axis).map(|(_, value)| *value);
    let values = axes.get(axis).map(|axis| &axis.values);
    values.zip(chosen).and_then(|(values, chosen)| values.get(chosen)).map_or("", String::as_str)
}

/// Largest number of pairs that one pair may stand for.
pub(super) const MAX_ASSIGNMENTS: usize = 10_000;

/// Every combination of values of these axes, the last axis moving fastest; `None` if there are
/// too many. No axes have one, empty, combination.
pub(super) fn assignments(axes: &[Axis], used: &[usize]) -> Option<Vec<Assignment>> {
    let mut all = vec![Assignment::new()];
    for &axis in used {
        let count = axes.get(axis).map_or(0, |axis| axis.values.len());
        if all.len().saturating_mul(count) > MAX_ASSIGNMENTS {
            return None;
        }
        all = all
            .iter()
            .flat_map(|begun| {
                (0..count).map(move |value| {
                    let mut assignment = begun.clone();
                    assignment.push((axis, value));
                    assignment
                })
            })
            .collect();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes() -> Vec<Axis> {
        [("bits", vec!["4", "8"]), ("method", vec!["rtn", "gptq"])]
            .into_iter()
            .map(|(name, values)| Axis {
                name: name.to_owned(),
                values: values.into_iter().map(str::to_owned).collect(),
                span: 0..0,
            })
            .collect()
    }

    #[test]
    fn placeholders_are_filled() {
        let axes = axes();
        let home = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        for (text, expected, why) in [
            ("plain", Ok("plain"), "nothing to fill"),
            ("${HOME}/m-{bits}.gguf", Ok("/h/m-8.gguf"), "a variable and an axis"),
            ("{bits}{bits}", Ok("88"), "twice"),
            ("$5 {{x}}", Ok("$5 {x}"), "literal dollar and braces"),
            ("$${HOME}", Ok("${HOME}"), "an escaped variable"),
            ("${NONE}/x", Err("NONE"), "unset"),
        ] {
            let parts = parse(text, &axes).unwrap();
            let filled = fill(&parts, &axes, &vec![(0, 1)], home);
            assert_eq!(filled.as_deref().map_err(|name| *name), expected, "{why}");
        }
        assert_eq!(fill_loosely("{bits} bits, {a,b}", &axes, &vec![(0, 0)]), "4 bits, {a,b}");
    }

    #[test]
    fn variables_are_filled_into_texts_in_which_braces_are_braces() {
        let home = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        for (text, expected) in [
            ("release", Ok("release")),
            ("${HOME}-{bits}${HOME}", Ok("/h-{bits}/h")),
            ("$${HOME} $5 ${", Ok("${HOME} $5 ${")),
            ("a ${} b", Ok("a ${} b")),
            ("${HOME} ${NONE}", Err("NONE")),
        ] {
            let filled = fill_variables(text, home);
            assert_eq!(filled.as_deref().map_err(|name| *name), expected, "{text}");
        }
    }

    #[test]
    fn broken_placeholders_say_what_to_do() {
        for (text, message, help) in [
            ("{bit}", r#"no axis of the matrix is called "bit""#, "did you mean {bits}?"),
            ("{x}", r#"no axis of the matrix is called "x""#, "the axes are bits, method"),
            ("a{b", "unpaired `{`", "write `{{` for a literal brace"),
            ("a}b", "unpaired `}`", "write `}}` for a literal brace"),
            ("${}", "`${}` names no variable", "write ${NAME}"),
        ] {
            let error = parse(text, &axes()).unwrap_err();
            assert_eq!((error.message.as_str(), error.help.as_str()), (message, help), "{text}");
        }
    }

    #[test]
    fn assignments_are_the_product() {
        let axes = axes();
        assert_eq!(assignments(&axes, &[]).unwrap(), [vec![]]);
        assert_eq!(assignments(&axes, &[1]).unwrap(), [vec![(1, 0)], vec![(1, 1)]]);
        let both = assignments(&axes, &[0, 1]).unwrap();
        assert_eq!(both.len(), 4);
        assert_eq!(both[1], [(0, 0), (1, 1)], "the last axis moves fastest");
        let wide: Vec<_> = (0..5)
            .map(|n| Axis { name: n.to_string(), values: vec![String::new(); 10], span: 0..0 })
            .collect();
        assert!(assignments(&wide, &[0, 1, 2, 3, 4]).is_none(), "100,000 are too many");
    }
}
