/*!
Jobs that do not depend on each other, dealt out to threads.
*/

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Threads that this machine runs at a time.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What `job` gives for each of `count` indices, in their order, whoever did them. Each thread works with `buffers` of
/// its own.
pub fn in_parallel<B, T: Send>(
    count: usize,
    threads: usize,
    buffers: impl Fn() -> B + Sync,
    job: impl Fn(usize, &mut B) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(count));
    let work = || {
        let mut buffers = buffers();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let result = job(index, &mut buffers);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_their_indices() {
        for (count, threads) in [(0, 4), (1, 4), (100, 1), (100, 3), (3, 100)] {
            let squares = in_parallel(count, threads, usize::default, |index, seen| {
                *seen += 1;
                index * index
            });
            assert_eq!(
                squares,
                (0..count).map(|it| it * it).collect::<Vec<_>>(),
                "{count}, {threads}"
            );
        }
    }
}
