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
    /// The positions of what is not zero.
    pub(crate) fn of(counts: &[usize]) -> Self {
        let mut out = Self::default();
        for (at, _) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            out.set(at, true);
        }
        out
    }

    /// Adds others.
    pub(crate) fn add(&mut self, others: &Self) {
        if self.words.len() < others.words.len() {
            self.words.resize(others.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&others.words) {
            *word |= more;
        }
    }

    /// The 64 places of a block.
    pub(crate) fn word(&self, block: usize) -> u64 {
        self.words.get(block).copied().unwrap_or(0)
    }
    pub(crate) fn has(&self, at: usize) -> bool {
        self.word(at / BLOCK) >> (at % BLOCK) & 1 == 1
    }
    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.words.iter().enumerate();
        words.flat_map(|(block, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(block * BLOCK + bit)
            })
        })
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
    /// By block: the most of each resource; where a block was not read yet, what none of its places has more of.
    most: Vec<Dense>,
    /// By block: whether its rooms are still to be read. Blocks past the end are not.
    unread: Vec<bool>,
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

    /// Of so many places whose rooms are read when they are asked for, `most` saying of each block what none of its places
    /// has more of.
    pub(crate) fn unread(places: usize, most: Vec<Dense>) -> Self {
        Self {
            rooms: vec![Dense::new(); places],
            unread: vec![true; most.len()],
            most,
        }
    }

    /// The places of a block whose rooms are to be read before it can be looked at.
    pub(crate) fn to_read(&self, block: usize) -> Option<std::ops::Range<usize>> {
        let unread = self.unread.get(block).copied().unwrap_or_default();
        let from = block * BLOCK;
        unread.then(|| from..(from + BLOCK).min(self.rooms.len()))
    }

    /// Takes note of the rooms of a block.
    pub(crate) fn read(&mut self, block: usize, rooms: impl Iterator<Item = Dense>) {
        let slots = self.rooms.iter_mut().skip(block * BLOCK).take(BLOCK);
        for (slot, room) in slots.zip(rooms) {
            *slot = room;
        }
        if let Some(unread) = self.unread.get_mut(block) {
            *unread = false;
        }
        self.remember(block);
    }

    /// The next block from that of `from` on, before `end`, that may have room for `need`.
    pub(crate) fn next_block(&self, from: usize, end: usize, need: &[i64]) -> Option<usize> {
        let end = end.min(self.rooms.len()).div_ceil(BLOCK);
        (from / BLOCK..end).find(|block| self.most.get(*block).is_some_and(|m| fits(need, m)))
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
    /// its block. All blocks have been read.
    pub(crate) fn find(
        &self,
        from: usize,
        end: usize,
        need: &[i64],
        allowed: &dyn Fn(usize) -> u64,
    ) -> Option<usize> {
        let mut at = from;
        while let Some(block) = self.next_block(at, end, need) {
            let found = self.in_block(block, at, end, need, allowed);
            if found.is_some() {
                return found;
            }
            at = (block + 1) * BLOCK;
        }
        None
    }

    /// The same in one block.
    pub(crate) fn in_block(
        &self,
        block: usize,
        from: usize,
        end: usize,
        need: &[i64],
        allowed: &dyn Fn(usize) -> u64,
    ) -> Option<usize> {
        let first = block * BLOCK;
        let mut mask = allowed(block);
        if from > first {
            mask &= u64::MAX << (from - first);
        }
        while mask != 0 {
            let place = first + mask.trailing_zeros() as usize;
            if place >= end {
                return None;
            }
            if self.rooms.get(place).is_some_and(|r| fits(need, r)) {
                return Some(place);
            }
            mask &= mask - 1;
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
