/*!
The pass over two models allocates nothing once its buffers are there: how often it allocates depends
on the number of tensors, not on their size.
*/

mod forge;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use forge::gguf::{Gguf, id};
use qualm::measure::{Measured, Policy, Progress, measure, pair_up};
use qualm::model::{self, Model};

/// The system's allocator, with a count of what is asked of it.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Two tensors of `rows` rows of 512 zeros in one type.
fn model(ty: u32, bytes_per_row: usize, rows: u64) -> Model {
    let data = || vec![0; bytes_per_row * rows as usize];
    let file = Gguf::new()
        .text("general.architecture", "llama")
        .tensor("a.weight", &[rows, 512], ty, data())
        .tensor("b.weight", &[rows, 512], ty, data());
    model::from_bytes(Path::new("m.gguf"), file.bytes()).expect("sound")
}

/// Allocations while two models are measured by one thread.
fn allocations(quantized: (u32, usize), rows: u64) -> usize {
    let reference = model(id::TENSOR_F16, 1024, rows);
    let quantized = model(quantized.0, quantized.1, rows);
    let pairing = pair_up(&reference, &quantized, &Policy::STRICT);
    let before = CALLS.load(Ordering::Relaxed);
    let measured = measure(&reference, &quantized, &pairing.matched, 1, &Progress::default());
    let calls = CALLS.load(Ordering::Relaxed) - before;
    assert!(measured.iter().all(|measured| matches!(measured, Measured::Values { .. })));
    calls
}

/// One test in this binary: others would allocate beside it.
#[test]
fn a_longer_pass_does_not_allocate_more() {
    for (name, quantized) in [
        ("F32", (id::TENSOR_F32, 2048)),
        ("F16", (id::TENSOR_F16, 1024)),
        ("Q8_0", (id::TENSOR_Q8_0, 544)),
        ("Q4_K", (id::TENSOR_Q4_K, 288)),
    ] {
        // Eight units of work at least: all buffers have been grown by then.
        let (short, long) = (allocations(quantized, 2048), allocations(quantized, 8192));
        assert_eq!(long, short, "{name}: allocations of a pass four times as long");
    }
}
