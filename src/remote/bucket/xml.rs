/*! Listings and errors in XML. */

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

use super::store::Page;

/// Most elements within one another; listings have four.
const DEEPEST: usize = 16;

/// What elements a listing has: the one within the other.
#[derive(Clone, Copy)]
pub struct Elements {
    pub file: (&'static str, &'static str),
    pub folder: (&'static str, &'static str),
    pub next: &'static str,
}

/// Reads a page of a listing.
pub fn page(body: &[u8], elements: Elements) -> Result<Page, String> {
    let mut page = Page::default();
    let mut is_listing = false;
    texts(body, |path, text| {
        is_listing = true;
        match path {
            [.., outer, inner] if (*outer, *inner) == elements.file => page.files.push(text),
            [.., outer, inner] if (*outer, *inner) == elements.folder => page.folders.push(text),
            [_, next] if *next == elements.next && !text.is_empty() => page.next = Some(text),
            _ => {}
        }
    })?;
    if is_listing { Ok(page) } else { Err("it is empty".to_owned()) }
}

/// The text of the first element of this name.
pub fn text_of(body: &[u8], name: &str) -> Option<String> {
    let mut found = None;
    let read = texts(body, |path, text| {
        if path.last() == Some(&name) && found.is_none() {
            found = Some(text);
        }
    });
    read.ok().and(found)
}

/// Hands out the text of each element, with the names of the elements that it is in.
fn texts(body: &[u8], mut each: impl FnMut(&[&str], String)) -> Result<(), String> {
    let mut reader = Reader::from_reader(body);
    let (mut path, mut text) = (Vec::<String>::new(), String::new());
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(_) if path.len() >= DEEPEST => return Err("it is too deep".to_owned()),
            Event::Start(start) => {
                path.push(String::from_utf8_lossy(start.local_name().as_ref()).into_owned());
                text.clear();
            }
            Event::End(_) => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                each(&names, std::mem::take(&mut text));
                path.pop();
            }
            Event::Empty(start) => {
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                let names: Vec<&str> = path.iter().map(String::as_str).chain([&*name]).collect();
                each(&names, String::new());
            }
            Event::Text(piece) => {
                text += &piece.decode().map_err(|error| error.to_string())?;
            }
            Event::CData(piece) => {
                text += &piece.decode().map_err(|error| error.to_string())?;
            }
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| error.to_string())?;
                if let Some(character) = character {
                    text.push(character);
                } else {
                    let name = reference.decode().map_err(|error| error.to_string())?;
                    text += resolve_xml_entity(&name).ok_or("an unknown entity")?;
                }
            }
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Eof => return Err("it ends too early".to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read() {
        let elements = Elements {
            file: ("Contents", "Key"),
            folder: ("CommonPrefixes", "Prefix"),
            next: "NextContinuationToken",
        };
        // As S3 documents it.
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
            <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>m/</Prefix>
            <NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>
            <IsTruncated>true</IsTruncated>
            <Contents><Key>m/a &amp; b&#46;gguf</Key><Owner><ID>x</ID></Owner></Contents>
            <Contents><Key>m/c</Key></Contents>
            <CommonPrefixes><Prefix>m/d/</Prefix></CommonPrefixes></ListBucketResult>"#;
        let expected = Page {
            files: vec!["m/a & b.gguf".to_owned(), "m/c".to_owned()],
            folders: vec!["m/d/".to_owned()],
            next: Some("1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=".to_owned()),
        };
        assert_eq!(page(body, elements), Ok(expected));
        let deep = "<A>".repeat(17) + &"</A>".repeat(17);
        for bad in [&b""[..], b"<A><B></A>", b"<A>", b"<A>&x;</A>", deep.as_bytes()] {
            assert!(page(bad, elements).is_err(), "{bad:?}");
        }
        let error = b"<Error><Code>NoSuchKey</Code><Message/></Error>";
        assert_eq!(text_of(error, "Code").as_deref(), Some("NoSuchKey"));
        assert_eq!(text_of(b"no", "Code"), None);
    }
}
