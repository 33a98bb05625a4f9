/*!
The one place that knows what `junit-report` 0.9 leaves out or writes wrongly.

- Text goes into CDATA sections that are not split at `]]>`: callers hand text over escaped
  ([`as_trace`]), and here the sections become ordinary text.
- There are no properties, no skipped counts, no attributes beyond its own: they are added to the
  written document, event by event.
- A suite's time is always written: it is replaced or taken away.
- Line ends and tabs in attributes would be read back as blanks: they become references.

Characters that XML cannot hold must be gone before ([`super::text::xml`]).
*/

use quick_xml::Reader;
use quick_xml::Writer;
use quick_xml::escape::{escape, partial_escape};
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

use super::format::ReportError;
use super::text::xml;

/// Names and values of properties.
pub type Properties = Vec<(String, String)>;

/// What is added to a document.
#[derive(Debug, Default)]
pub struct Additions {
    /// Attributes of `testsuites`.
    pub root: Vec<(&'static str, String)>,
    /// Per suite, in the document's order.
    pub suites: Vec<SuiteAdditions>,
}

/// What is added to a suite.
#[derive(Debug, Default)]
pub struct SuiteAdditions {
    /// When it ran; none takes the attribute away.
    pub timestamp: Option<String>,
    /// How long it took, in seconds.
    pub time: String,
    /// Cases that were skipped.
    pub skipped: usize,
    /// Its properties.
    pub properties: Properties,
    /// Per case, in the document's order.
    pub cases: Vec<CaseAdditions>,
}

/// What is added to a case.
#[derive(Debug, Default)]
pub struct CaseAdditions {
    /// Attributes.
    pub attributes: Vec<(&'static str, String)>,
    /// Its properties.
    pub properties: Properties,
}

/// Text for a trace or an output: escaped, so that no CDATA section can end in it.
pub fn as_trace(text: &str) -> String {
    partial_escape(xml(text)).into_owned()
}

/// Reads a document that `junit-report` wrote and writes it as it should be.
pub fn repair(document: &[u8], additions: &Additions) -> Result<Vec<u8>, ReportError> {
    let mut reader = Reader::from_reader(document);
    let mut pass = Pass {
        writer: Writer::new_with_indent(Vec::with_capacity(document.len() * 2), b' ', 1),
        suites: additions.suites.iter(),
        cases: [].iter(),
        root: &additions.root,
    };
    loop {
        match reader.read_event().map_err(ReportError::junit)? {
            Event::Eof => break,
            event => pass.event(event)?,
        }
    }
    let mut bytes = pass.writer.into_inner();
    bytes.push(b'\n');
    Ok(bytes)
}

/// The state of the pass: what is still to be added.
struct Pass<'a> {
    writer: Writer<Vec<u8>>,
    root: &'a [(&'static str, String)],
    suites: std::slice::Iter<'a, SuiteAdditions>,
    cases: std::slice::Iter<'a, CaseAdditions>,
}

impl Pass<'_> {
    fn event(&mut self, event: Event) -> Result<(), ReportError> {
        match event {
            Event::Start(element) => self.element(&element, false),
            Event::Empty(element) => self.element(&element, true),
            Event::CData(section) => {
                let text = section.decode().map_err(ReportError::junit)?;
                self.write(Event::Text(BytesText::from_escaped(text)))
            }
            other => self.write(other),
        }
    }

    fn element(&mut self, element: &BytesStart, empty: bool) -> Result<(), ReportError> {
        let name = String::from_utf8_lossy(element.name().as_ref()).into_owned();
        let mut start = BytesStart::new(name.as_str());
        let mut properties: &[(String, String)] = &[];
        match name.as_str() {
            "testsuites" => {
                let root = self.root.iter();
                start.extend_attributes(root.map(|(name, value)| (*name, value.as_str())));
            }
            "testsuite" => {
                let added = self.suites.next();
                properties = added.map_or(&[], |it| it.properties.as_slice());
                self.cases = added.map_or(&[][..], |it| it.cases.as_slice()).iter();
                copy(element, &mut start, |name, _| !matches!(name, "timestamp" | "time"))?;
                if let Some(added) = added {
                    start.push_attribute(("skipped", added.skipped.to_string().as_str()));
                    start.push_attribute(("time", added.time.as_str()));
                    if let Some(timestamp) = &added.timestamp {
                        start.push_attribute(("timestamp", timestamp.as_str()));
                    }
                }
            }
            "testcase" => {
                let added = self.cases.next();
                properties = added.map_or(&[], |it| it.properties.as_slice());
                copy(element, &mut start, |_, _| true)?;
                let attributes = added.map_or(&[][..], |it| it.attributes.as_slice()).iter();
                start.extend_attributes(attributes.map(|(name, value)| (*name, value.as_str())));
            }
            // A skipped test has neither type nor message where the dialect knows none.
            "skipped" => copy(element, &mut start, |_, value| !value.is_empty())?,
            _ => copy(element, &mut start, |_, _| true)?,
        }
        if properties.is_empty() && empty {
            return self.write(Event::Empty(start));
        }
        self.write(Event::Start(start))?;
        self.properties(properties)?;
        if empty { self.write(Event::End(BytesEnd::new(name))) } else { Ok(()) }
    }

    fn properties(&mut self, properties: &[(String, String)]) -> Result<(), ReportError> {
        if properties.is_empty() {
            return Ok(());
        }
        self.write(Event::Start(BytesStart::new("properties")))?;
        for (name, value) in properties {
            let mut property = BytesStart::new("property");
            push(&mut property, "name", escape(name.as_str()).as_bytes());
            push(&mut property, "value", escape(value.as_str()).as_bytes());
            self.write(Event::Empty(property))?;
        }
        self.write(Event::End(BytesEnd::new("properties")))
    }

    fn write(&mut self, event: Event) -> Result<(), ReportError> {
        self.writer.write_event(event).map_err(ReportError::junit)
    }
}

/// Copies the attributes that `keep` wants, escaped as they are.
fn copy(
    from: &BytesStart,
    to: &mut BytesStart,
    keep: impl Fn(&str, &[u8]) -> bool,
) -> Result<(), ReportError> {
    for attribute in from.attributes() {
        let attribute = attribute.map_err(ReportError::junit)?;
        let name = String::from_utf8_lossy(attribute.key.as_ref());
        if keep(&name, &attribute.value) {
            push(to, &name, &attribute.value);
        }
    }
    Ok(())
}

/// Adds an attribute whose value is escaped but for the white space that readers would normalize.
fn push(to: &mut BytesStart, name: &str, value: &[u8]) {
    let mut safe = Vec::with_capacity(value.len());
    for &byte in value {
        match byte {
            b'\n' => safe.extend_from_slice(b"&#10;"),
            b'\t' => safe.extend_from_slice(b"&#9;"),
            b'\r' => safe.extend_from_slice(b"&#13;"),
            byte => safe.push(byte),
        }
    }
    to.push_attribute((name.as_bytes(), safe.as_slice()));
}
