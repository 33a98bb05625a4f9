/*!
Findings about a spec, each with its place, shown with the source line, a caret and a suggestion.
*/

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Location, Source};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Valid but suspicious.
    Warning,
    /// The spec is invalid.
    Error,
}

/// One finding about a spec file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong; a lower-case fragment.
    pub message: String,
    /// The place.
    pub location: Location,
    /// Text under the caret.
    pub label: Option<String>,
    /// A second place that plays a part, with its label.
    pub related: Option<(Location, String)>,
    /// What to do next.
    pub help: Option<String>,
    /// The text that the places lie in.
    pub source: Arc<Source>,
}

impl Diagnostic {
    /// A finding that makes the spec invalid.
    pub fn error(source: &Arc<Source>, location: Location, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            location,
            label: None,
            related: None,
            help: None,
            source: Arc::clone(source),
        }
    }

    /// A finding that leaves the spec valid.
    pub fn warning(source: &Arc<Source>, location: Location, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(source, location, message) }
    }

    /// Says something under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Shows a second place.
    #[must_use]
    pub fn related(mut self, location: Location, label: impl Into<String>) -> Self {
        self.related = Some((location, label.into()));
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The finding as people read it: message, source line with caret, help; without a final
    /// newline.
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        };
        let mut report =
            Group::with_title(level.primary_title(self.message.as_str())).elements(self.snippets());
        if let Some(help) = &self.help {
            report = report.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[report])
    }

    /// The lines around the places: only these are handed to the renderer, so that a finding costs
    /// the same in a small file and in a large one.
    fn snippets(&self) -> Vec<Snippet<'_, Annotation<'_>>> {
        let primary = AnnotationKind::Primary;
        let mut snippets = vec![self.snippet(primary, &self.location, self.label.as_deref())];
        if let Some((location, label)) = &self.related {
            snippets.push(self.snippet(AnnotationKind::Context, location, Some(label)));
        }
        snippets
    }

    fn snippet<'a>(
        &'a self,
        kind: AnnotationKind,
        location: &'a Location,
        label: Option<&'a str>,
    ) -> Snippet<'a, Annotation<'a>> {
        let (line, span) = one_line(&self.source.text, location.span());
        Snippet::source(line)
            .line_start(location.line as usize)
            .path(location.file.to_string_lossy())
            .annotation(kind.span(span).label(label))
    }
}

/// The line that a span begins in, and the part of the span that lies in it.
fn one_line(text: &str, span: Range<usize>) -> (&str, Range<usize>) {
    let start = floor_boundary(text, span.start);
    let first = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let rest = &text[first..];
    let line = rest.find('\n').map_or(rest, |newline| &rest[..newline]);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let end = floor_boundary(text, span.end.max(start));
    (line, (start - first).min(line.len())..(end - first).min(line.len()))
}

/// The last boundary of characters that is not after `offset`.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Everything that is wrong with a spec file.
#[derive(Debug)]
pub struct SpecErrors {
    /// Errors and warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there are.
    pub more: usize,
}

impl SpecErrors {
    pub(super) fn new(mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|it| it.location.start);
        Self { diagnostics, more: 0 }
    }

    /// All findings as people read them, an empty line after each.
    pub fn render(&self, colour: bool) -> String {
        let shown = self.diagnostics.iter().map(|it| it.render(colour));
        let more = (self.more > 0).then(|| format!("… and {} more", self.more));
        shown.chain(more).flat_map(|text| [text, "\n\n".to_owned()]).collect()
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for SpecErrors {}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn shows_line_caret_and_help() {
        let source = Arc::new(Source::new(Path::new("specs/a.toml"), "schema = 1\r\nµ\t= [\n2]\n"));
        let diagnostic = Diagnostic::error(&source, source.locate(12..14), "unknown key `µ`")
            .label("not a key of a spec")
            .related(source.locate(0..6), "as is this")
            .help("remove it");
        let expected = "\
error: unknown key `µ`
 --> specs/a.toml:2:1
  |
2 | µ    = [
  | ^ not a key of a spec
  |
 ::: specs/a.toml:1:1
  |
1 | schema = 1
  | ------ as is this
  |
  = help: remove it";
        assert_eq!(diagnostic.to_string(), expected);
        assert!(diagnostic.render(true).contains("\u{1b}["));
    }

    #[test]
    fn a_place_of_several_lines_shows_its_first() {
        let text = "a = [\n1,\n2]\n";
        for (span, line, shown) in [
            (4..11, "a = [", 4..5),
            (5..5, "a = [", 5..5),
            (6..12, "1,", 0..2),
            (12..12, "", 0..0),
            (50..60, "", 0..0),
        ] {
            assert_eq!(one_line(text, span), (line, shown));
        }
        assert_eq!(one_line("é", 1..1), ("é", 0..0), "inside of a character");
    }
}
