//! Where there is room: places by position in blocks of 64, each block with the most that any of its places has of each
//! resource, so that looking for the first place that takes a pod skips what is full. Sets of places are bits in the same
//! blocks.

use crate::dense::{Dense, fits};

/// Places in a block.
pub(crate) const BLOCK: usize = 64;

/// A set of places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// The 64 places of a block.
    pub(crate) fn word(&self, block: usize) -> u64 {
        self.words.get(block).copied().unwrap_or(0)
    }
    pub(crate) fn has(&self, at: usize) -> bool {
        self.word(at / BLOCK) >> (at % BLOCK) & 1 == 1
    }
    pub(crate) fn set(&mut self, at: usize, is: bool) {
        let block = at / BLOCK;
        if self.words.len() <= block {
            if !is {
                return;
            }
            self.words.resize(block + 1, 0);
        }
        if let Some(word) = self.words.get_mut(block) {
            let bit = 1_u64 << (at % BLOCK);
            *word = if is { *word | bit } else { *word & !bit };
        }
    }
}

/// Rooms by place.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: Vec<Dense>,
    /// By block: the most of each resource.
    most: Vec<Dense>,
}

impl Rooms {
    pub(crate) fn get(&self, at: usize) -> Option<&Dense> {
        self.rooms.get(at)
    }

    /// Sets the room of a place. Places that were never set have none.
    pub(crate) fn set(&mut self, at: usize, room: Dense) {
        while self.rooms.len() <= at {
            self.rooms.push(Dense::from_elem(-1, room.len().max(1)));
        }
        if let Some(slot) = self.rooms.get_mut(at) {
            *slot = room;
        }
        self.remember(at / BLOCK);
    }

    /// Sets the rooms of all places at once.
    pub(crate) fn fill(&mut self, rooms: impl Iterator<Item = Dense>) {
        self.rooms = rooms.collect();
        for block in 0..self.rooms.len().div_ceil(BLOCK) {
            self.remember(block);
        }
    }

    fn remember(&mut self, block: usize) {
        let mut most = Dense::new();
        for room in self.rooms.iter().skip(block * BLOCK).take(BLOCK) {
            // What is overdrawn takes nothing, whatever else it has.
            if room.iter().any(|r| *r < 0) {
                continue;
            }
            if most.len() < room.len() {
                most.resize(room.len(), 0);
            }
            for (m, r) in most.iter_mut().zip(room) {
                *m = (*m).max(*r);
            }
        }
        if most.is_empty() {
            most = Dense::from_elem(-1, 1);
        }
        if self.most.len() <= block {
            self.most.resize(block + 1, Dense::from_elem(-1, 1));
        }
        if let Some(slot) = self.most.get_mut(block) {
            *slot = most;
        }
    }

    /// The first place from `from` on and before `end` that has room for `need` and is among those that `allowed` says of
    /// its block.
    pub(crate) fn find(
        &self,
        from: usize,
        end: usize,
        need: &[i64],
        allowed: &dyn Fn(usize) -> u64,
    ) -> Option<usize> {
        let end = end.min(self.rooms.len());
        let mut at = from;
        while at < end {
            let block = at / BLOCK;
            let next = (block + 1) * BLOCK;
            if self.most.get(block).is_some_and(|m| fits(need, m)) {
                let mut mask = allowed(block) & (u64::MAX << (at % BLOCK));
                while mask != 0 {
                    let place = block * BLOCK + mask.trailing_zeros() as usize;
                    if place >= end {
                        return None;
                    }
                    if self.rooms.get(place).is_some_and(|r| fits(need, r)) {
                        return Some(place);
                    }
                    mask &= mask - 1;
                }
            }
            at = next;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn the_first_place_with_room_that_is_allowed_is_found() {
        let mut rooms = Rooms::default();
        for at in 0..200 {
            rooms.set(at, smallvec![i64::from(at == 70 || at == 130) * 5, 9]);
        }
        let all = |_: usize| u64::MAX;
        let need = [5, 1];
        assert_eq!(rooms.find(0, 200, &need, &all), Some(70));
        assert_eq!(rooms.find(71, 200, &need, &all), Some(130));
        assert_eq!(rooms.find(71, 130, &need, &all), None);
        let mut odd = Bits::default();
        odd.set(130, true);
        assert_eq!(rooms.find(0, 200, &need, &|b| odd.word(b)), Some(130));
        odd.set(130, false);
        assert_eq!(rooms.find(0, 200, &need, &|b| odd.word(b)), None);
        rooms.set(70, smallvec![4, 9]);
        assert_eq!(rooms.find(0, 200, &need, &all), Some(130));
    }

    #[test]
    fn what_is_overdrawn_has_no_room_and_hides_none() {
        let mut rooms = Rooms::default();
        rooms.set(0, smallvec![100, -1]);
        rooms.set(1, smallvec![1, 1]);
        assert_eq!(rooms.find(0, 9, &[0, 0], &|_| u64::MAX), Some(1));
        assert_eq!(rooms.find(0, 9, &[2, 0], &|_| u64::MAX), None);
    }
}
