/*!
Files that are not what they claim: each is refused with the right words, at once, without
allocating what its header claims.
*/

mod forge;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forge::gguf::{Gguf, array, id, string};
use forge::{safetensors, safetensors_raw};
use qualm::model::{self, Scratch};

/// Counts what the current thread has allocated, now and at most.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(grown: usize, shrunk: usize) {
    // Not available while a thread ends; nothing is measured then.
    let _ = NOW.try_with(|now| {
        now.set(now.get().saturating_add(grown).saturating_sub(shrunk));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: every call goes to the system allocator with the caller's own arguments; counting
// touches two thread-local numbers that need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that a reader may allocate whatever the file's size: its window and small change.
const CONSTANT: usize = 192 << 10;
/// Bytes that it may allocate for each byte of the file.
const PER_BYTE: usize = 10;
/// The best of a few attempts must be faster than this, on a busy machine too.
const AT_ONCE: Duration = Duration::from_millis(50);

/// What opening a file came to: the error's text, or the number of tensors.
fn measure<T>(file_len: usize, what: &str, open: impl Fn() -> T) -> T {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let before = NOW.get();
        PEAK.set(before);
        let start = Instant::now();
        let result = open();
        best = best.min(start.elapsed());
        let peak = PEAK.get() - before;
        let bound = CONSTANT + PER_BYTE * file_len;
        assert!(peak <= bound, "{what}: {peak} bytes allocated for a file of {file_len}");
        if best < AT_ONCE {
            return result;
        }
    }
    panic!("{what}: took {best:?}");
}

fn refused(what: &str, bytes: &[u8], expected: &str) {
    let error = measure(bytes.len(), what, || {
        // The copy belongs to the test, and is as long as the file.
        model::from_bytes(Path::new("hostile"), bytes.to_vec()).map(|model| model.tensors.len())
    });
    match error {
        Ok(tensors) => panic!("{what}: was read, with {tensors} tensors"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(expected), "{what}: {text}");
            assert!(text.starts_with("hostile: "), "{what} names its file: {text}");
        }
    }
}

/// Bytes of so many `Q8_0` blocks.
fn q8_0(blocks: usize) -> Vec<u8> {
    vec![0; blocks * 34]
}

fn sound() -> Gguf {
    Gguf::new()
        .text("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .f32("a", &[2, 3], &[0.0; 6])
        .tensor("b", &[2, 32], id::TENSOR_Q8_0, q8_0(2))
}

const HUGE: u64 = 1 << 62;

#[test]
fn gguf_structure() {
    let sound = sound();
    let with = |change: fn(&mut Gguf)| {
        let mut file = sound.clone();
        change(&mut file);
        file.bytes()
    };
    let key = |key: &[u8], ty, value: &[u8]| Gguf::new().entry(key, ty, value).bytes();
    #[rustfmt::skip]
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("magic alone", b"GGUF".to_vec(), "the version needs 4 bytes, 0 are left"),
        ("version 1", with(|f| f.version = 1), "is GGUF version 1"),
        ("version 0", with(|f| f.version = 0), "is GGUF version 0"),
        ("version 4", with(|f| f.version = 4), "is GGUF version 4"),
        ("big-endian", with(|f| f.version = 3u32.swap_bytes()), "is a big-endian GGUF file"),
        ("tensor count 2^63-1", with(|f| f.tensor_count = Some(u64::MAX >> 1)), "the number of tensors is 9223372036854775807"),
        ("tensor count -1", with(|f| f.tensor_count = Some(u64::MAX)), "the number of tensors is negative (-1)"),
        ("key count 2^63-1", with(|f| f.entry_count = Some(u64::MAX >> 1)), "the number of metadata keys is 9223372036854775807"),
        ("key count -1", with(|f| f.entry_count = Some(u64::MAX)), "the number of metadata keys is negative"),
        ("one tensor too many claimed", with(|f| f.tensor_count = Some(3)), "the name of tensor 2"),
        ("one key too many claimed", with(|f| f.entry_count = Some(3)), "it is truncated or its header is wrong"),
        ("empty key", key(b"", id::U8, &[0; 64]), "metadata key 0 is empty"),
        ("key that is not UTF-8", key(b"a\xFF", id::U8, &[0; 64]), "is not UTF-8: \"a\u{FFFD}\" (at byte 33)"),
        ("key of 64 KiB", key(&vec![b'k'; 1 << 16], id::U8, &[0; 64]), "over the limit of 65535"),
        ("duplicate key", Gguf::new().u32("k", 1).u32("k", 1).bytes(), "metadata key \"k\" is there twice (at byte 41)"),
        ("value type 13", key(b"k", 13, &[0; 64]), "the value type of \"k\" is 13, which is no GGUF type (at byte 33)"),
        ("bool of 2", key(b"k", id::BOOL, &[2]), "is a bool of 2"),
        ("value cut off", key(b"key", id::U64, &[0; 7]), "the value of \"key\" needs 8 bytes, 7 are left"),
        ("string length 2^64-1", key(b"k", id::STRING, &[0xFF; 64]), "the value of \"k\" claims 18446744073709551615 bytes"),
        ("array length 2^64-1", key(b"k", id::ARRAY, &array(id::U8, u64::MAX, &[0; 64])), "the length of the array \"k\" is negative"),
        ("array length 2^63-1", key(b"k", id::ARRAY, &array(id::U64, u64::MAX >> 1, &[0; 64])), "the length of the array \"k\" is 9223372036854775807"),
        ("array of strings cut off", key(b"k", id::ARRAY, &array(id::STRING, 3, &string("abc"))), "the length of the array \"k\" is 3, but the 11 bytes"),
        ("long array of strings with a bad length", key(b"k", id::ARRAY, &array(id::STRING, 20, &[0xFF; 200])), "the array \"k\" claims 18446744073709551615"),
        ("arrays in arrays without end", key(b"k", id::ARRAY, &vec![array(id::ARRAY, 1, &[]); 20].concat()), "arrays in arrays more than 8 deep"),
        ("a nested array that is cut off", key(b"k", id::ARRAY, &array(id::ARRAY, 2, &array(id::U8, 1, &[0]))), "the length of the array \"k\" is 2"),
        ("array of type 13", key(b"k", id::ARRAY, &array(13, 1, &[0; 64])), "the element type of the array \"k\" is 13"),
        ("bool of 2 in an array", key(b"k", id::ARRAY, &array(id::BOOL, 2, &[1, 2])), "is a bool of 2"),
        ("alignment 0", sound.clone().u32("general.alignment", 0).bytes(), "\"general.alignment\" is 0 (type u32)"),
        ("alignment 3", sound.clone().u32("general.alignment", 3).bytes(), "it must be a u32, a power of two"),
        ("alignment 4", sound.clone().u32("general.alignment", 4).bytes(), "from 8 to 1048576"),
        ("alignment 2^31", sound.clone().u32("general.alignment", 1 << 31).bytes(), "\"general.alignment\" is 2147483648"),
        ("alignment of another type", sound.clone().u16("general.alignment", 32).bytes(), "\"general.alignment\" is 32 (type u16)"),
    ];
    for (what, bytes, expected) in cases {
        refused(what, bytes, expected);
    }
}

#[test]
fn gguf_tensors() {
    let one = |name: &str, shape: &[u64], ty, data| Gguf::new().tensor(name, shape, ty, data);
    let f32_at = |file: Gguf, name: &str, offset| file.f32(name, &[8], &[0.0; 8]).offset(offset);
    let f32 = id::TENSOR_F32;
    #[rustfmt::skip]
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("rank 5", one("t", &[1; 5], f32, vec![0; 4]).bytes(), "tensor \"t\": has 5 dimensions"),
        ("rank 2^32-1", one("t", &[1], f32, vec![0; 4]).rank(u32::MAX).bytes(), "has 4294967295 dimensions"),
        ("negative extent", one("t", &[u64::MAX], f32, vec![0; 64]).bytes(), "the product of its shape"),
        ("product overflow", one("t", &[1 << 32, 1 << 32], f32, vec![0; 64]).bytes(), "the product of its shape [4294967296, 4294967296] overflows"),
        ("product of 2^63", one("t", &[1 << 31, 1 << 32], f32, vec![0; 64]).bytes(), "overflows"),
        ("overflow beside a zero", one("t", &[0, HUGE, HUGE], f32, vec![]).bytes(), "overflows"),
        ("overflow before a zero", one("t", &[HUGE, HUGE, 0], f32, vec![]).bytes(), "overflows"),
        ("byte size overflow", one("t", &[HUGE], id::TENSOR_F32, vec![0; 64]).bytes(), "tensor \"t\": its size in bytes overflows"),
        ("larger than the file", one("t", &[1 << 40], f32, vec![0; 64]).bytes(), "tensor \"t\": its 4398046511104 bytes at byte 64 run past the file's end"),
        ("K-quant rows of 384", one("t", &[2, 384], id::TENSOR_Q4_K, vec![0; 512]).bytes(), "its rows of 384 are not whole Q4_K blocks of 256"),
        ("blocks across rows", one("t", &[2, 16], id::TENSOR_Q8_0, q8_0(1)).bytes(), "its rows of 16 are not whole Q8_0 blocks of 32"),
        ("blocks in a scalar", one("t", &[], id::TENSOR_Q8_0, q8_0(1)).bytes(), "its rows of 1 are not whole"),
        ("empty name", one("", &[1], f32, vec![0; 4]).bytes(), "the name of tensor 0 is empty"),
        ("name that is not UTF-8", Gguf::new().tensor(b"\xC3(", &[1], f32, vec![0; 4]).bytes(), "is not UTF-8"),
        ("duplicate name", Gguf::new().f32("t", &[1], &[0.0]).f32("t", &[1], &[0.0]).bytes(), "tensor \"t\": the header lists it twice (at byte 57)"),
        ("odd offset", f32_at(Gguf::new(), "t", 4).bytes(), "its offset 4 is not a multiple of the alignment (32)"),
        ("offset 2^64-32", f32_at(Gguf::new(), "t", u64::MAX - 31).bytes(), "run past the file's end"),
        ("offset past the end", f32_at(Gguf::new(), "t", 32).bytes(), "tensor \"t\": its 32 bytes at byte 96 run past"),
        ("same offset twice", f32_at(f32_at(Gguf::new(), "t", 0), "u", 0).bytes(), "tensor \"t\": its data, bytes 0 to 32 of the data section, run into those of \"u\", which begin at 0"),
        ("overlap, listed in reverse", f32_at(Gguf::new().f32("t", &[16], &[0.0; 16]).offset(32), "u", 0).f32("v", &[16], &[0.0; 16]).offset(0).bytes(), "run into those of"),
        ("inside another", f32_at(Gguf::new().f32("t", &[64], &[0.0; 64]), "u", 128).bytes(), "tensor \"t\": its data, bytes 0 to 256 of the data section, run into those of \"u\""),
        ("over a tensor of unknown type", f32_at(Gguf::new().tensor("t", &[8], 43, vec![0; 32]), "u", 0).bytes(), "run into"),
        ("unknown type past the end", Gguf::new().tensor("t", &[8], 43, vec![0; 32]).offset(1 << 20).bytes(), "tensor \"t\": its data begin at byte 1048640, past the file's end"),
        ("unknown type with a shape that overflows", one("t", &[HUGE, HUGE], 43, vec![0; 64]).bytes(), "overflows"),
    ];
    for (what, bytes, expected) in cases {
        refused(what, bytes, expected);
    }
}

#[test]
fn a_gguf_file_cut_anywhere_is_refused() {
    let whole = sound().bytes();
    model::from_bytes(Path::new("whole"), whole.clone()).expect("the whole file is sound");
    for len in 1..whole.len() {
        let cut = whole[..len].to_vec();
        let result = model::from_bytes(Path::new("cut"), cut).map(|model| model.tensors);
        let error = result.expect_err(&format!("cut to {len} bytes")).to_string();
        let first_of_data = whole.len() - 2 * 34 - 32;
        if len > first_of_data + 32 {
            assert!(error.contains("tensor \"b\""), "{len}: names the tensor affected: {error}");
        }
    }
}

#[test]
fn a_changed_byte_never_costs_more_than_the_file() {
    let files = [
        ("gguf", sound().bytes()),
        (
            "safetensors",
            safetensors(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        ),
    ];
    for (what, whole) in files {
        for at in 0..whole.len() {
            for value in [0x00, 0x01, 0x7F, 0x80, 0xFF] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let what = format!("{what}: byte {at} set to {value}");
                // Refused or read, but at once and in bounds.
                let _ = measure(bytes.len(), &what, || {
                    model::from_bytes(Path::new("changed"), bytes.clone()).is_ok()
                });
            }
        }
    }
}

/// A header with one tensor of the given entry.
fn entry(entry: &str) -> String {
    format!(r#"{{"t":{entry}}}"#)
}

/// A header of U8 vectors that lie at the given offsets.
fn vectors(offsets: &[(u64, u64)]) -> String {
    let entries: Vec<String> = offsets
        .iter()
        .enumerate()
        .map(|(i, (begin, end))| {
            let len = end - begin;
            format!(r#""t{i}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{begin},{end}]}}"#)
        })
        .collect();
    format!("{{{}}}", entries.join(","))
}

#[test]
fn safetensors_structure() {
    let with_shape =
        |shape: &str| entry(&format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}"#));
    let raw = safetensors_raw;
    let deep = |inside: &str| entry(&format!("{}{inside}", "[".repeat(100_000)));
    let many_extents = with_shape(&format!("[{}1]", "1,".repeat(50_000)));
    #[rustfmt::skip]
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("zero bytes", vec![], "is empty (zero bytes)"),
        ("seven bytes", vec![1; 7], "is too short for a safetensors file (7 bytes)"),
        ("header length beyond the file", raw(1000, b"{}", &[]), "the safetensors header of 1000 bytes runs past the file's end (10)"),
        ("header of 100 MB claimed", raw(100_000_000, b"{", &[]), "runs past the file's end"),
        ("header of more than 100 MB claimed", raw(100_000_001, b"{", &[]), "over safetensors' limit"),
        ("header length 2^64-1", raw(u64::MAX, b"{}", &[]), "claims a header of 18446744073709551615 bytes"),
        ("empty header", raw(0, b"", &[0; 8]), "does not begin with `{`"),
        ("no JSON", safetensors("hello", 0), "does not begin with `{`"),
        ("not UTF-8", raw(6, b"{\"\xFF\":", &[0; 8]), "is not UTF-8 (at byte 10)"),
        ("an array", raw(2, b"[]", &[]), "does not begin with `{`"),
        ("JSON cut off", safetensors(r#"{"t":"#, 0), r#"is malformed: tensor "t": EOF"#),
        ("two documents", safetensors("{}{}", 0), "trailing characters"),
        ("deep JSON", safetensors(&deep(""), 0), "is malformed"),
        ("deep JSON in __metadata__", safetensors(&format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000)), 0), "is malformed"),
        ("deep JSON in a shape", safetensors(&with_shape(&"[".repeat(100_000)), 4), "is malformed"),
        ("unknown field", safetensors(&entry(r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}"#), 0), "unknown field `x`"),
        ("missing field", safetensors(&entry(r#"{"dtype":"U8","shape":[0]}"#), 0), "missing field `data_offsets`"),
        ("field twice", safetensors(&entry(r#"{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}"#), 0), "duplicate field `dtype`"),
        ("three offsets", safetensors(&entry(r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}"#), 0), "tensor \\\"t\\\""),
        ("float in a shape", safetensors(&with_shape("[1.0]"), 4), "floating point `1.0`"),
        ("negative extent", safetensors(&with_shape("[-1]"), 4), "integer `-1`"),
        ("extent of 2^64", safetensors(&with_shape("[18446744073709551616]"), 4), "floating point `1.8446"),
        ("shape of 50001 extents", safetensors(&many_extents, 4), "more than 64 dimensions"),
        ("product overflow", safetensors(&with_shape("[4294967296,4294967296]"), 4), "tensor \"t\": the product of its shape [4294967296, 4294967296] overflows"),
        ("overflow beside a zero", safetensors(&entry(&format!(r#"{{"dtype":"F32","shape":[0,{HUGE},{HUGE}],"data_offsets":[0,0]}}"#)), 0), "overflows"),
        ("overflow before a zero", safetensors(&entry(&format!(r#"{{"dtype":"F32","shape":[{HUGE},{HUGE},0],"data_offsets":[0,0]}}"#)), 0), "overflows"),
        ("bit size overflow", safetensors(&with_shape(&format!("[{HUGE}]")), 4), "does not fill its 4 bytes"),
        ("shape larger than its bytes", safetensors(&with_shape("[2]"), 4), "its shape [2] of F32 does not fill its 4 bytes"),
        ("half a byte", safetensors(&entry(r#"{"dtype":"F4","shape":[1],"data_offsets":[0,1]}"#), 1), "does not fill its 1 bytes"),
        ("offsets in reverse", safetensors(&entry(r#"{"dtype":"U8","shape":[0],"data_offsets":[4,0]}"#), 4), "its data_offsets end (0) before they begin (4)"),
        ("past the end", safetensors(&vectors(&[(0, 8)]), 7), "its data end at byte 8 of the data section, which has 7 bytes"),
        ("offset 2^64-1", safetensors(&entry(&format!(r#"{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}}"#, u64::MAX - 1, u64::MAX)), 4), "its data end at byte 18446744073709551615"),
        ("overlap", safetensors(&vectors(&[(0, 8), (4, 12)]), 12), "tensor \"t1\": its data begin at 4 of the data section where 8 was due: they overlap"),
        ("gap", safetensors(&vectors(&[(0, 4), (8, 12)]), 12), "where 4 was due: they leave a gap"),
        ("gap at the start", safetensors(&vectors(&[(4, 8)]), 8), "where 0 was due: they leave a gap"),
        ("trailing bytes", safetensors(&vectors(&[(0, 4)]), 5), "has 1 bytes after the last tensor's data"),
        ("data without tensors", safetensors("{}", 1), "has 1 bytes after the last tensor's data"),
        ("duplicate name", safetensors(r#"{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, 0), "tensor \"t\": the header lists it twice"),
        ("duplicate name by escape", safetensors(r#"{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0074":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, 0), "tensor \"t\": the header lists it twice"),
        ("__metadata__ twice", safetensors(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), "\"__metadata__\": the header lists it twice"),
        ("__metadata__ key twice", safetensors(r#"{"__metadata__":{"k":"1","k":"2"}}"#, 0), "key \\\"k\\\" is there twice"),
        ("__metadata__ of numbers", safetensors(r#"{"__metadata__":{"k":1}}"#, 0), "expected a string"),
        ("LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(), "is a Git LFS pointer"),
        ("pickle in a zip", b"PK\x03\x04................".to_vec(), "is a pickle"),
        ("pickle", b"\x80\x02}q\x00(X\x06\0\0\0weightq\x01".to_vec(), "is a pickle"),
        ("GGML of 2023", b"tjgg\x03\0\0\0........".to_vec(), "is a GGML file of before GGUF"),
        ("web page", b"<!DOCTYPE html><html><head><title>404</title>".to_vec(), "is it a safetensors file?"),
    ];
    for (what, bytes, expected) in cases {
        let expected = expected.replace("\\\"", "\"");
        refused(what, bytes, &expected);
    }
}

#[test]
fn a_weight_that_is_there_twice_is_unreadable() {
    let header = r#"{
        "other":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "x.weight":{"dtype":"F8_E4M3","shape":[4,8],"data_offsets":[4,36]},
        "x.weight_packed":{"dtype":"I32","shape":[4,1],"data_offsets":[36,52]},
        "x.weight_scale":{"dtype":"F32","shape":[4,1],"data_offsets":[52,68]}}"#;
    let model = model::from_bytes(Path::new("m"), safetensors(header, 68)).expect("sound");
    let names: Vec<&str> = model.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["other", "x.weight"]);
    let mut values = [0.0; 32];
    let read = model.tensors[1].decode(&model.files, 0..32, &mut Scratch::default(), &mut values);
    let error = read.expect_err("ambiguous").to_string();
    assert!(error.contains("the checkpoint holds it twice"), "{error}");
}

#[test]
fn a_header_length_that_looks_like_a_pickle_is_read() {
    // 0x0280 and 0x0480 begin with the bytes of pickle protocols 2 and 4.
    for len in [0x0280, 0x0480, 0x10280] {
        let header = format!("{{{}}}", " ".repeat(len - 2));
        let model = model::from_bytes(Path::new("m"), safetensors(&header, 0));
        assert!(model.is_ok(), "{len:#x}: {model:?}");
    }
}

#[test]
fn many_small_things_cost_little() {
    // Files whose every byte claims something: read or refused, in bounds.
    let keys = (0..20_000).fold(Gguf::new(), |file, i| file.entry(format!("{i:x}"), id::U8, &[0]));
    let arrays = (0..10_000).fold(Gguf::new(), |file, i| {
        file.entry(format!("{i:x}"), id::ARRAY, &array(id::U8, 100, &[0; 100]))
    });
    let tensors =
        (0..20_000).fold(Gguf::new(), |file, i| file.tensor(format!("{i:x}"), &[0], 0, vec![]));
    let unknown =
        (0..20_000).fold(Gguf::new(), |file, i| file.tensor(format!("{i:x}"), &[0], 99, vec![]));
    let entries: Vec<String> = (0..20_000)
        .map(|i| format!(r#""{i:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    for (what, bytes) in [
        ("keys", keys.bytes()),
        ("arrays", arrays.bytes()),
        ("tensors", tensors.bytes()),
        ("tensors of unknown type", unknown.bytes()),
        ("entries", safetensors(&format!("{{{}}}", entries.join(",")), 0)),
    ] {
        let read = measure_slow(bytes.len(), what, || {
            model::from_bytes(Path::new(what), bytes.clone()).map_err(|e| e.to_string()).map(drop)
        });
        read.unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

/// Bytes for each byte of a file that is nothing but tiny entries: a key and its value take 14
/// bytes in the file and some hundred in memory, twice that while their list grows.
const PER_TINY_BYTE: usize = 20;

/// As [`measure`], for files of megabytes, whose reading takes as long as it takes.
fn measure_slow<T>(file_len: usize, what: &str, open: impl Fn() -> T) -> T {
    let before = NOW.get();
    PEAK.set(before);
    let result = open();
    let peak = PEAK.get() - before;
    let bound = CONSTANT + PER_TINY_BYTE * file_len;
    assert!(peak <= bound, "{what}: {peak} bytes allocated for a file of {file_len}");
    result
}

#[test]
fn an_array_beyond_a_sparse_file_is_refused_without_reading_it() {
    // 4 GB of claimed elements; the file that holds them is sparse, and its array is skipped in
    // pieces, so this checks memory and not time.
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("sparse.gguf");
    let head = Gguf::new().entry("k", id::ARRAY, &array(id::U8, 1 << 26, &[])).bytes();
    std::fs::write(&path, &head).expect("written");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opened");
    file.set_len(head.len() as u64 + (1 << 26)).expect("grown");
    let read = measure_slow(0, "sparse array", || model::open(&path).map(|model| model.metadata));
    assert_eq!(read.expect("read")[0].1["len"], 1 << 26);
}

/// Files of a directory by name, and the path in it that is opened.
type Directory<'a> = (&'a str, &'a [(&'a str, Vec<u8>)], &'a str, &'a str);

#[test]
fn directories_and_indices() {
    let a = safetensors(&vectors(&[(0, 4)]), 4);
    let b = safetensors(r#"{"u":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4);
    let index =
        |map: &str| format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{map}}}"#).into_bytes();
    let st = |name: &'static str| (name, a.clone());
    #[rustfmt::skip]
    let cases: &[Directory] = &[
        ("a directory without a model", &[("README.md", vec![])], "", "holds no model"),
        ("pickles only", &[("pytorch_model.bin", vec![0])], "", "holds pickles"),
        ("several models", &[st("a.safetensors"), ("b.safetensors", b.clone())], "", "holds several models; name one of its files: a.safetensors, b.safetensors"),
        ("a directory named like a model", &[], "x.safetensors", "x.safetensors"),
        ("zero bytes", &[("m.safetensors", vec![])], "m.safetensors", "is empty"),
        ("raw piece", &[("m.gguf.part-ab", vec![7; 9])], "m.gguf.part-ab", "is a raw piece of a GGUF file"),
        ("raw piece, first", &[("m.gguf-split-a", Gguf::new().bytes())], "m.gguf-split-a", "is a raw piece of a GGUF file"),
        ("index with ..", &[("i.index.json", index(r#"{"t0":"../a.safetensors"}"#)), st("a.safetensors")], "i.index.json", "names the shard \"../a.safetensors\", which is not a plain file name"),
        ("index with an absolute path", &[("i.index.json", index(r#"{"t0":"/etc/passwd"}"#))], "i.index.json", "which is not a plain file name"),
        ("index with a drive", &[("i.index.json", index(r#"{"t0":"C:a"}"#))], "i.index.json", "which is not a plain file name"),
        ("index of nothing", &[("i.index.json", index("{}"))], "i.index.json", "its weight_map is empty"),
        ("index without a map", &[("i.index.json", b"{}".to_vec())], "i.index.json", "missing field `weight_map`"),
        ("index that is no JSON", &[("i.index.json", b"\xFF".to_vec())], "i.index.json", "is not an index of shards"),
        ("index that is deep", &[("i.index.json", format!(r#"{{"metadata":{}"#, "[".repeat(10_000)).into_bytes())], "i.index.json", "is not an index of shards: EOF"),
        ("index with a name twice", &[("i.index.json", index(r#"{"t0":"a.safetensors","t0":"b.safetensors"}"#))], "i.index.json", "tensor \"t0\" is there twice"),
        ("index with a missing shard", &[("i.index.json", index(r#"{"t0":"c.safetensors"}"#))], "i.index.json", "c.safetensors"),
        ("index of a wrong shard", &[("i.index.json", index(r#"{"t0":"b.safetensors","u":"a.safetensors"}"#)), st("a.safetensors"), ("b.safetensors", b.clone())], "i.index.json", "tensor \"t0\": the index says that b.safetensors holds it"),
        ("a tensor in two shards", &[("i.index.json", index(r#"{"t0":"a.safetensors","t1":"b.safetensors"}"#)), st("a.safetensors"), st("b.safetensors")], "i.index.json", "tensor \"t1\": the index says that b.safetensors holds it, but it does not"),
        ("shards of two formats", &[("i.index.json", index(r#"{"t0":"a.safetensors","t":"b.gguf"}"#)), st("a.safetensors"), ("b.gguf", Gguf::new().f32("t", &[1], &[0.0]).bytes())], "i.index.json", "b.gguf: is a gguf file among safetensors files"),
    ];
    for (what, files, opened, expected) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, bytes) in *files {
            std::fs::write(directory.path().join(name), bytes).expect("written");
        }
        let path: PathBuf = directory.path().join(opened);
        let error = model::open(&path).map(|model| model.tensors.len());
        let text = error.expect_err(what).to_string();
        assert!(text.contains(expected), "{what}: {text}");
    }
}

#[test]
fn split_models() {
    let shard = |no: u16, count: u16, total: u32| {
        Gguf::new()
            .u16("split.no", no)
            .u16("split.count", count)
            .u32("split.tensors.count", total)
            .f32(&format!("t{no}"), &[1], &[0.0])
            .bytes()
    };
    let (first, second) = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf");
    let whole = Gguf::new().f32("t0", &[1], &[0.0]).bytes();
    #[rustfmt::skip]
    let cases: &[Directory] = &[
        ("a shard is missing", &[(first, shard(0, 2, 2))], first, "m-00002-of-00002.gguf: is missing: shard 2 of the 2 of m"),
        ("the first shard is missing", &[(second, shard(1, 2, 2))], second, "m-00001-of-00002.gguf: is missing"),
        ("a shard is missing, directory", &[(second, shard(1, 2, 2))], "", "m-00001-of-00002.gguf: is missing"),
        ("shards in each other's place", &[(first, shard(1, 2, 2)), (second, shard(0, 2, 2))], first, "its split.no is 1 (from 0), but its name says shard 1"),
        ("counts that differ", &[(first, shard(0, 2, 2)), (second, shard(1, 3, 2))], second, "its split.count is 3, but its name says 2 shards"),
        ("a total that is wrong", &[(first, shard(0, 2, 5)), (second, shard(1, 2, 5))], first, "its split.tensors.count is 5, but the 2 shards hold 2 tensors"),
        ("a name in two shards", &[(first, shard(0, 2, 2)), (second, Gguf::new().u16("split.no", 1).u16("split.count", 2).f32("t0", &[1], &[0.0]).bytes())], first, "tensor \"t0\": two of the model's files hold it"),
        ("a whole file named like a shard", &[(first, whole.clone()), (second, whole.clone())], first, "its metadata have no split.count"),
        ("a shard named otherwise", &[("m.gguf", shard(0, 2, 2))], "m.gguf", "is shard 1 of a model split into 2, but its name does not say so"),
        ("shard 0 of 2", &[("m-00000-of-00002.gguf", shard(0, 2, 2))], "m-00000-of-00002.gguf", "says shard 0 of 2, which cannot be"),
        ("99999999 shards", &[("m-00001-of-99999999.gguf", shard(0, 2, 2))], "m-00001-of-99999999.gguf", "which cannot be"),
        ("split.count that is no count", &[("m.gguf", Gguf::new().text("split.count", "2").bytes())], "m.gguf", "metadata key \"split.count\" is \"2\", not a count"),
        ("a pointer among the shards", &[(first, shard(0, 2, 2)), (second, b"version https://git-lfs.github.com/spec/v1\n".to_vec())], first, "m-00002-of-00002.gguf: is a Git LFS pointer"),
    ];
    for (what, files, opened, expected) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, bytes) in *files {
            std::fs::write(directory.path().join(name), bytes).expect("written");
        }
        let path = directory.path().join(opened);
        let error = model::open(&path).map(|model| model.tensors.len());
        let text = error.expect_err(what).to_string();
        assert!(text.contains(expected), "{what}: {text}");
    }
}
