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

/// Rooms of up to 64 places, and the most that any of them has of each resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    rooms: Vec<Dense>,
    most: Dense,
}

impl Block {
    pub(crate) fn new(rooms: Vec<Dense>) -> Self {
        let mut out = Self {
            rooms,
            most: Dense::new(),
        };
        out.remember();
        out
    }

    pub(crate) fn get(&self, bit: usize) -> Option<&Dense> {
        self.rooms.get(bit)
    }

    /// Sets the room of a place. Places that were never set have none.
    pub(crate) fn set(&mut self, bit: usize, room: Dense) {
        while self.rooms.len() <= bit {
            self.rooms.push(nowhere(room.len()));
        }
        if let Some(slot) = self.rooms.get_mut(bit) {
            *slot = room;
        }
        self.remember();
    }

    /// Whether any of its places may have room for `need`.
    pub(crate) fn may_take(&self, need: &[i64]) -> bool {
        fits(need, &self.most)
    }

    /// The first of the places of `mask` that has room for `need`.
    pub(crate) fn first(&self, mask: u64, need: &[i64]) -> Option<usize> {
        let mut mask = mask;
        while mask != 0 {
            let bit = mask.trailing_zeros() as usize;
            if fits(need, self.rooms.get(bit)?) {
                return Some(bit);
            }
            mask &= mask - 1;
        }
        None
    }

    fn remember(&mut self) {
        self.most = most(self.rooms.iter());
    }
}

/// The most that any of some rooms has of each resource.
pub(crate) fn most<'a>(rooms: impl Iterator<Item = &'a Dense>) -> Dense {
    let mut most = Dense::new();
    // What is overdrawn takes nothing, whatever else it has.
    for room in rooms.filter(|room| room.iter().all(|r| *r >= 0)) {
        if most.len() < room.len() {
            most.resize(room.len(), 0);
        }
        for (m, r) in most.iter_mut().zip(room) {
            *m = (*m).max(*r);
        }
    }
    if most.is_empty() { nowhere(1) } else { most }
}

/// Room for nothing.
pub(crate) fn nowhere(resources: usize) -> Dense {
    Dense::from_elem(-1, resources.max(1))
}

/// The places of a block from `from` on.
pub(crate) fn from_on(block: usize, from: usize) -> u64 {
    match from.saturating_sub(block * BLOCK) {
        before @ 0..BLOCK => u64::MAX << before,
        _ => 0,
    }
}

/// Rooms by place.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    blocks: Vec<Block>,
}

impl Rooms {
    pub(crate) fn get(&self, at: usize) -> Option<&Dense> {
        self.blocks.get(at / BLOCK)?.get(at % BLOCK)
    }

    /// Sets the room of a place. Places that were never set have none.
    pub(crate) fn set(&mut self, at: usize, room: Dense) {
        let block = at / BLOCK;
        if self.blocks.len() <= block {
            let none = Block::new(vec![nowhere(1); BLOCK]);
            self.blocks.resize(block, none);
            self.blocks.push(Block::default());
        }
        if let Some(own) = self.blocks.get_mut(block) {
            own.set(at % BLOCK, room);
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
        let blocks = self.blocks.iter().enumerate().skip(from / BLOCK);
        let in_question = blocks.take_while(|(at, _)| at * BLOCK < end);
        for (at, block) in in_question.filter(|(_, b)| b.may_take(need)) {
            let mask = allowed(at) & from_on(at, from);
            if let Some(bit) = block.first(mask, need) {
                return Some(at * BLOCK + bit).filter(|place| *place < end);
            }
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
