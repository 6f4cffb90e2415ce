//! Shortens a story that fails: the fewest steps that still break the same rule.

/// Most stories that are told on the way.
const MAX_TRIES: usize = 80;

/// Indices out of `0..count`, fewer and fewer, for which `fails` still says so. Parts are left out by halves, then by
/// quarters, until no single one can be left out, or the tries are used up.
pub fn shrink(count: usize, mut fails: impl FnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..count).collect();
    let mut tries = 0;
    let mut part = kept.len().div_ceil(2);
    while part > 0 && tries < MAX_TRIES {
        let mut shorter = false;
        let mut start = 0;
        while start < kept.len() && tries < MAX_TRIES {
            let end = start + part;
            let without = |(i, step): (usize, &usize)| (i < start || i >= end).then_some(*step);
            let fewer: Vec<usize> = kept.iter().enumerate().filter_map(without).collect();
            tries += 1;
            if fails(&fewer) {
                kept = fewer;
                shorter = true;
            } else {
                start = end;
            }
        }
        if part == 1 && !shorter {
            break;
        }
        part = if shorter {
            part.min(kept.len())
        } else {
            part / 2
        };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_kept_and_nothing_else() {
        let mut tries = 0;
        let kept = shrink(20, |steps| {
            tries += 1;
            steps.contains(&3) && steps.contains(&17)
        });
        assert_eq!(kept, [3, 17]);
        assert!(tries <= MAX_TRIES);
    }

    #[test]
    fn a_story_that_fails_by_itself_needs_no_step() {
        assert!(shrink(9, |_| true).is_empty());
        assert!(shrink(0, |_| true).is_empty());
    }

    #[test]
    fn it_gives_up_after_so_many_tries() {
        let mut tries = 0;
        shrink(5_000, |_| {
            tries += 1;
            false
        });
        assert!(tries <= MAX_TRIES);
    }
}
