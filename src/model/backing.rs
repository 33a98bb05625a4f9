/*!
Where the bytes of a file are, and reading them at a position.
*/

use std::io;
use std::sync::Arc;

use super::handles::Handle;
use super::{Change, Edit};
use crate::remote::Object;

/// Where the bytes are.
#[derive(Debug)]
pub(super) enum Backing {
    File(Handle),
    Memory(Vec<u8>),
    /// Behind an address.
    Remote(Arc<Object>),
    /// Another file's bytes, changed as they are read.
    Edited(Edited),
}

/// A file with an edit.
#[derive(Debug)]
pub(super) struct Edited {
    pub under: Arc<Backing>,
    pub edit: Edit,
}

impl Edited {
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let Edit { offset: first, len, change } = &self.edit;
        let end = offset + buffer.len() as u64;
        if matches!(change, Change::Cut) && offset < first + len && end > *first {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.under.read_exact_at(buffer, offset)?;
        let (from, to) = (offset.max(*first), end.min(first + len));
        if from >= to {
            return Ok(());
        }
        let place = |at: u64| (at - offset) as usize;
        match change {
            Change::From(elsewhere) => {
                let changed = &mut buffer[place(from)..place(to)];
                self.under.read_exact_at(changed, elsewhere + (from - first))?;
            }
            Change::Units(unit, edit) => {
                let mut index = (from - first) / unit;
                let mut whole = Vec::new();
                while first + index * unit < to {
                    let start = first + index * unit;
                    let stop = (start + unit).min(first + len);
                    if start >= from && stop <= to {
                        edit(index, &mut buffer[place(start)..place(stop)]);
                    } else {
                        // A unit that the buffer holds a part of is changed as a whole.
                        whole.resize((stop - start) as usize, 0);
                        self.under.read_exact_at(&mut whole, start)?;
                        edit(index, &mut whole);
                        let (a, b) = (start.max(from), stop.min(to));
                        let part = (a - start) as usize..(b - start) as usize;
                        buffer[place(a)..place(b)].copy_from_slice(&whole[part]);
                    }
                    index += 1;
                }
            }
            Change::Cut => {}
        }
        Ok(())
    }
}

impl Backing {
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset),
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let wanted = bytes
                    .get(start..)
                    .and_then(|rest| rest.get(..buffer.len()))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(wanted);
                Ok(())
            }
            Self::Remote(object) => object.read_exact_at(buffer, offset),
            Self::Edited(edited) => edited.read_exact_at(buffer, offset),
        }
    }

    /// The file behind an address, if it is one.
    pub(super) fn remote(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Remote(object) => Some(object),
            Self::Edited(edited) => edited.under.remote(),
            Self::File(_) | Self::Memory(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::SourceFile;

    #[test]
    fn every_read_sees_the_same_changed_bytes() {
        let bytes: Vec<u8> = (0..50).collect();
        let file = SourceFile::from_bytes(Path::new("memory"), bytes.clone());
        let numbered = Change::units(4, |index, unit| {
            unit.reverse();
            unit[0] ^= index as u8;
        });
        for (offset, len, change, why) in [
            (10, 17, numbered, "units, the last one cut short"),
            (10, 17, Change::From(30), "bytes from elsewhere"),
        ] {
            let mut expected = bytes.clone();
            let stretch = &mut expected[offset..offset + len];
            match &change {
                Change::From(at) => stretch.copy_from_slice(&bytes[*at as usize..][..len]),
                Change::Units(unit, edit) => {
                    for (index, unit) in stretch.chunks_mut(*unit as usize).enumerate() {
                        edit(index as u64, unit);
                    }
                }
                Change::Cut => {}
            }
            assert_ne!(expected, bytes);
            let edited = file.edited(Edit { offset: offset as u64, len: len as u64, change });
            for start in 0..50 {
                for end in start..=50 {
                    let mut read = vec![0; end - start];
                    edited.read_at(start as u64, &mut read).unwrap();
                    assert_eq!(read, expected[start..end], "{why}: {start}..{end}");
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_cut_out_cannot_be_read() {
        let file = SourceFile::from_bytes(Path::new("memory"), vec![7; 20]);
        let cut = file.edited(Edit { offset: 8, len: 4, change: Change::Cut });
        for (offset, readable) in [(4, true), (5, false), (8, false), (11, false), (12, true)] {
            assert_eq!(cut.read_at(offset, &mut [0; 4]).is_ok(), readable, "{offset}");
        }
    }
}
