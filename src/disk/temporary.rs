/*!
Files that are being written, under names of their own, and what becomes of those whose writer is gone.

A file is locked for as long as its writer lives: one that can be locked by somebody else is left over
from a process that was killed, and the next run that writes into the directory removes it. A signal
that ends the process removes its files first.
*/

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::NamedTempFile;

/// Beginning of the names of files that are not for others.
pub(super) const PREFIX: &str = ".qualm-";
/// Ending of the names of files that are being written.
const ENDING: &str = ".tmp";

/// Where locks do not work, a file of this age is left over.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Files that are being written. Whoever holds the lock decides whether there are any.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn live() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file whose bytes are on disk; it is gone again unless it gets its name.
#[derive(Debug)]
pub struct Temporary(Option<NamedTempFile>);

impl Temporary {
    /// Writes a file into a directory; `write` says what.
    pub fn write(
        directory: &Path,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut file = {
            let mut live = live();
            let file = create(directory, ENDING)?;
            live.insert(file.path().to_owned());
            Self(Some(file))
        };
        if let Some(file) = &mut file.0 {
            let mut out = BufWriter::new(file.as_file());
            write(&mut out)?;
            out.flush()?;
            drop(out);
            file.as_file().sync_all()?;
        }
        Ok(file)
    }

    /// Gives it its name, in place of what has it.
    pub fn persist(mut self, path: &Path) -> io::Result<()> {
        let Some(file) = self.0.take() else { return Ok(()) };
        let mut live = live();
        let at = file.path().to_owned();
        let persisted = file.persist(path);
        live.remove(&at);
        persisted.map(drop).map_err(|error| error.error)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            let at = file.path().to_owned();
            drop(file);
            live().remove(&at);
        }
    }
}

/// A new file that is locked.
pub(super) fn create(directory: &Path, ending: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(ending);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Temporary files are private by default; a report is as readable as the umask allows.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    loop {
        let file = builder.tempfile_in(directory)?;
        // Somebody who swept the directory at this very moment may have taken it for left over.
        if file.as_file().lock().is_err() || file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes what killed processes left in a directory; a directory that is not there holds nothing.
pub fn sweep(directory: &Path) {
    for path in own(directory, ENDING) {
        if let Some(_locked) = left_over(&path) {
            // What cannot be removed now is in nobody's way.
            let _ = fs::remove_file(&path);
        }
    }
}

/// The regular files of a directory with the program's prefix and this ending.
pub(super) fn own(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let own = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(PREFIX)
            && name.ends_with(ending)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    });
    own.map(|entry| entry.path()).collect()
}

/// The file, if the process that made it is gone; it stays locked for as long as it is held.
pub(super) fn left_over(path: &Path) -> Option<File> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(_)) => {
            let age = file.metadata().ok()?.modified().ok()?.elapsed().ok()?;
            (age > OLD).then_some(file)
        }
    }
}

/// From now on SIGTERM, SIGINT and SIGHUP remove what is being written before they end the process, as
/// far as it does not ignore them.
pub fn clear_on_signals() {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let ignored = ignored_signals();
        // Where nobody can say what is ignored, `nohup` is to keep its meaning.
        let wanted = [SIGTERM, SIGINT, SIGHUP].into_iter().filter(|signal| match ignored {
            Some(mask) => mask >> (signal - 1) & 1 == 0,
            None => *signal != SIGHUP,
        });
        let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) else { return };
        let wait = move || {
            if let Some(signal) = signals.forever().next() {
                // Never given back: nothing is to be made any more.
                let live = live();
                for path in live.iter() {
                    let _ = fs::remove_file(path);
                }
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                std::process::exit(128 + signal);
            }
        };
        // Without the thread, signals do what they always do, and the next run tidies up.
        let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
    }
}

/// The signals that the process was started to ignore, a bit each; `None` where the system does not say.
#[cfg(unix)]
fn ignored_signals() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_what_is_left_over_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in [".qualm-dead.tmp", ".notes.tmp", "mine.tmp", ".qualm-x.unfinished", "a.snap"] {
            fs::write(at(name), "x").unwrap();
        }
        fs::create_dir(at(".qualm-folder.tmp")).unwrap();
        let alive = Temporary::write(directory.path(), |out| out.write_all(b"new")).unwrap();
        sweep(directory.path());
        assert!(!at(".qualm-dead.tmp").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 6, "the others stay");
        alive.persist(&at("a.snap")).unwrap();
        assert_eq!(fs::read(at("a.snap")).unwrap(), b"new");
        drop(Temporary::write(directory.path(), |out| out.write_all(b"new")).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 5, "dropped, it is gone");
        sweep(&at("none"));
    }
}
