/*!
Reads that fail, end early, or are cut short, at a moment that the input chooses: a damaged pair is never healthy,
and a sound one stays so where every byte arrives at last.

The C library's positioned read is replaced by one that lets each file of the target go wrong. Other files of the
process are read as ever.
*/

use std::ffi::{c_int, c_void};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use qualm::spec::{self, LoadOptions};
use qualm::suite::plan::{Choice, plan};
use qualm::suite::select::Selection;
use qualm::suite::{self, Listener, Options};

/// What goes wrong. The last two do no harm.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// One read fails.
    Fails,
    /// All reads from one on fail.
    FailsFromThen,
    /// The files end from one read on.
    Ends,
    /// The files are cut in half.
    Cut,
    /// The files are removed.
    Removed,
    /// Every read gives a part of what was asked for.
    Short,
    /// Every other read is interrupted.
    Interrupted,
}

const KINDS: [Kind; 7] = [
    Kind::Fails,
    Kind::FailsFromThen,
    Kind::Ends,
    Kind::Cut,
    Kind::Removed,
    Kind::Short,
    Kind::Interrupted,
];

/// The fault that is armed.
struct Fault {
    kind: Kind,
    at: u64,
    files: [PathBuf; 2],
}

static ARMED: AtomicBool = AtomicBool::new(false);
static READS: AtomicU64 = AtomicU64::new(0);
static INODES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static FAULT: Mutex<Option<Fault>> = Mutex::new(None);
/// One input at a time.
static TURN: Mutex<()> = Mutex::new(());

/// The C library's own, but for the files of an armed fault.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(fd: c_int, to: *mut c_void, len: usize, at: i64) -> isize {
    let wrong = |errno: c_int| {
        // SAFETY: every thread has an errno.
        unsafe { *libc::__errno_location() = errno };
        -1
    };
    let mut len = len;
    if ARMED.load(Ordering::Acquire) && is_meant(fd) {
        let read = READS.fetch_add(1, Ordering::Relaxed);
        let fault = FAULT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = &*fault {
            match fault.kind {
                Kind::Fails if read == fault.at => return wrong(libc::EIO),
                Kind::FailsFromThen if read >= fault.at => return wrong(libc::EIO),
                Kind::Ends if read >= fault.at => return 0,
                Kind::Cut if read == fault.at => fault.files.iter().for_each(|file| halve(file)),
                Kind::Removed if read == fault.at => {
                    fault.files.iter().for_each(|file| drop(fs::remove_file(file)));
                }
                Kind::Short => len = len.div_ceil(2),
                Kind::Interrupted if read.is_multiple_of(2) => return wrong(libc::EINTR),
                _ => {}
            }
        }
    }
    // SAFETY: what the caller promises the C library is what the kernel asks for.
    unsafe { libc::syscall(libc::SYS_pread64, fd, to, len, at) as isize }
}

fn is_meant(fd: c_int) -> bool {
    // SAFETY: a zeroed `stat` is valid, and the call fills it in or fails.
    let inode = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &raw mut stat) == 0 { stat.st_ino } else { 0 }
    };
    inode != 0 && INODES.iter().any(|known| known.load(Ordering::Relaxed) == inode)
}

fn halve(file: &Path) {
    if let Ok(file) = File::options().write(true).open(file) {
        let _ = file.metadata().and_then(|it| file.set_len(it.len() / 2));
    }
}

/// Three bytes choose the fault and its moment, the next ones the row that is damaged.
pub fn reads(data: &[u8]) {
    let Some((&[kind, low, high, row], _)) = data.split_first_chunk::<4>() else { return };
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    let at = u64::from(u16::from_le_bytes([low, high])) % 64;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let exit = judge(kind, at, Some(usize::from(row) % ROWS));
    assert!(FOUND.contains(&exit), "{kind:?} at read {at}: exit code {exit}");
    if matches!(kind, Kind::Short | Kind::Interrupted) {
        let exit = judge(kind, at, None);
        assert_eq!(exit, 0, "{kind:?}");
    }
}

/// The exit code of what cannot be read.
const INPUT_ERROR: u8 = 6;
/// The exit codes that are right of a damaged pair: that it is, or that it cannot be read.
const FOUND: [u8; 2] = [101, INPUT_ERROR];
const ROWS: usize = 96;
const COLUMNS: usize = 64;

/// The verdict on a conversion to BF16 of which one row is negated, with reads that go wrong.
fn judge(kind: Kind, at: u64, damaged: Option<usize>) -> u8 {
    let folder = tempfile::tempdir().expect("a directory");
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let values: Vec<f32> = (0..ROWS * COLUMNS)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Eight bits: exact in BF16.
            ((state >> 57) as f32 - 63.5) / 128.0
        })
        .collect();
    let converted = values.iter().enumerate().flat_map(|(at, value)| {
        let negated = damaged.is_some_and(|row| at / COLUMNS == row);
        let value = if negated { -value } else { *value };
        ((value.to_bits() >> 16) as u16).to_le_bytes()
    });
    let stored = values.iter().flat_map(|value| value.to_le_bytes());
    let files = [folder.path().join("r.safetensors"), folder.path().join("q.safetensors")];
    fs::write(&files[0], file("F32", stored.collect())).expect("written");
    fs::write(&files[1], file("BF16", converted.collect())).expect("written");
    for (inode, path) in INODES.iter().zip(&files) {
        inode.store(fs::metadata(path).expect("written").ino(), Ordering::Relaxed);
    }
    READS.store(0, Ordering::Relaxed);
    let fault = Fault { kind, at, files };
    *FAULT.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    ARMED.store(true, Ordering::Release);
    let exit = run(folder.path());
    ARMED.store(false, Ordering::Release);
    assert!(READS.load(Ordering::Relaxed) > 0, "the reads of this process go another way");
    exit
}

fn file(ty: &str, data: Vec<u8>) -> Vec<u8> {
    let header = format!(
        r#"{{"w":{{"dtype":"{ty}","shape":[{ROWS},{COLUMNS}],"data_offsets":[0,{}]}}}}"#,
        data.len()
    );
    [(header.len() as u64).to_le_bytes().to_vec(), header.into_bytes(), data].concat()
}

struct Silent;

impl Listener for Silent {}

fn run(folder: &Path) -> u8 {
    let text = b"schema = 1\n[[pair]]\nname = \"p\"\nreference = \"r.safetensors\"\nquantized = \"q.safetensors\"\n";
    let spec = folder.join("s.toml");
    let spec = spec::parse(text, &spec, folder, &LoadOptions::default()).expect("a sound spec");
    let choice = Choice {
        selection: Selection::default(),
        tags: Vec::new(),
        shard: None,
        no_baseline: true,
        granularity: Some(qualm::spec::Granularity::Tensor),
        benchmarks: false,
    };
    let specs = [spec];
    let Ok(plan) = plan(&specs, &choice) else { return INPUT_ERROR };
    let options = Options {
        threads: 2,
        baselines: None,
        max_fail: None,
        warnings_fail: false,
        nothing_passes: false,
        settle: true,
    };
    suite::run(&plan, &options, None, &mut Silent).exit_code
}
