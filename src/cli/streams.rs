/*!
Standard output and standard error: the one door through which commands print.

What is printed is safe to show ([`Shown`]). Standard error that is closed or full changes nothing:
there is nobody to tell. Standard output that cannot be written is said on standard error, and a
success becomes an internal error, because what was asked for did not arrive; a verdict stays.
*/

use std::fmt::Arguments;
use std::io::{self, BufWriter, StdoutLock, Write};

use super::color;
use super::run_args::Color;
use crate::shown::{Notation, Shown};
use crate::suite::exit::Exit;

/// Standard output.
pub type Out = Shown<BufWriter<StdoutLock<'static>>>;

fn out(notation: Notation) -> Out {
    Shown::new(BufWriter::new(io::stdout().lock()), notation)
}

/// Standard output for text without colour.
pub fn text() -> Out {
    out(Notation::Text { color: false })
}

/// Standard output for text that may be coloured.
pub fn colored(color: bool) -> Out {
    out(Notation::Text { color })
}

/// Standard output for JSON.
pub fn json() -> Out {
    out(Notation::Json)
}

/// Standard output for what people read, or for JSON.
pub fn text_or_json(is_json: bool) -> Out {
    if is_json { json() } else { text() }
}

/// Says something on standard error: a line, or several.
pub fn tell(words: Arguments) {
    tell_text(&format!("{words}\n"), false);
}

/// Says what the program has rendered, with its colours if standard error is to have them.
pub fn tell_rendered(render: impl FnOnce(bool) -> String) {
    let color = color::on_stderr(Color::Auto);
    tell_text(&render(color), color);
}

fn tell_text(text: &str, color: bool) {
    let mut err = Shown::new(io::stderr().lock(), Notation::Text { color });
    // Nobody is left to hear that standard error cannot be written.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Standard error as it is, for lines that are the program's own: progress, commands for a CI system.
pub fn raw_err() -> io::StderrLock<'static> {
    io::stderr().lock()
}

/// Standard output as it is, for what holds no foreign text: schemas, scripts, pages of the manual.
pub fn raw_out() -> StdoutLock<'static> {
    io::stdout().lock()
}

/// The exit code of a command whose output was printed, or was not.
pub fn printed(result: io::Result<()>, exit: Exit) -> Exit {
    match result {
        Ok(()) => exit,
        Err(error) => {
            tell(format_args!("error: cannot write the output: {error}"));
            if exit == Exit::Ok { Exit::Internal } else { exit }
        }
    }
}
