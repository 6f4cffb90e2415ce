//! Questions that do not depend on each other, on as many threads as there are: the answers come in the order of the
//! questions, so that what is made of them is the same on any number of cores.

use std::panic::resume_unwind;
use std::thread;

/// Asks about all items, at most `threads` at a time.
///
/// # Panics
/// When an answer does.
pub fn abreast<T: Sync, A: Send>(
    threads: usize,
    items: &[T],
    ask: impl Fn(&T) -> A + Sync,
) -> Vec<A> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().map(ask).collect();
    }
    let each = items.len().div_ceil(threads);
    let ask = &ask;
    thread::scope(|scope| {
        let running: Vec<_> = items
            .chunks(each)
            .map(|part| scope.spawn(move || part.iter().map(ask).collect::<Vec<A>>()))
            .collect();
        let answers = running.into_iter().map(|thread| thread.join());
        answers
            .flat_map(|part| part.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_questions() {
        let items: Vec<usize> = (0..17).collect();
        let expected: Vec<usize> = items.iter().map(|n| n * n).collect();
        for threads in [0, 1, 2, 3, 16, 17, 40] {
            assert_eq!(abreast(threads, &items, |n| n * n), expected, "{threads}");
        }
        assert_eq!(abreast(4, &[0_usize; 0], |n| *n), [0_usize; 0]);
    }

    #[test]
    fn a_panic_is_the_callers() {
        let asked = std::panic::catch_unwind(|| {
            abreast(2, &[1, 2, 3], |n| assert!(*n != 3, "three is too much"));
        });
        assert!(asked.is_err());
    }
}
