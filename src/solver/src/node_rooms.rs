//! What room nodes have: read block by block when it is asked for, kept for all questions about the cluster that ask for
//! the same resources, and changed in each by what is gone and what is put on nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::dense::Dense;
use crate::rooms::{BLOCK, Bits, Block, from_on, nowhere};

/// What nodes have before anything is put on them.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// By block: what none of its nodes has more of.
    most: Vec<Block>,
    blocks: Vec<OnceLock<Block>>,
}

impl Known {
    /// Of as many blocks as there are bounds.
    pub(crate) fn new(most: impl Iterator<Item = Dense>) -> Self {
        let most: Vec<Block> = most.map(|most| Block::new(vec![most])).collect();
        Self {
            blocks: most.iter().map(|_| OnceLock::new()).collect(),
            most,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct NodeRooms {
    known: Arc<Known>,
    /// Blocks that differ from what is known.
    own: BTreeMap<usize, Block>,
}

impl NodeRooms {
    /// Without those that are gone. `read` tells the rooms of a block.
    pub(crate) fn new(known: Arc<Known>, gone: &Bits, read: &dyn Fn(usize) -> Vec<Dense>) -> Self {
        let mut out = Self {
            known,
            own: BTreeMap::new(),
        };
        for place in gone.iter() {
            out.set(place, nowhere(1), read);
        }
        out
    }

    fn block(&self, at: usize, read: &dyn Fn(usize) -> Vec<Dense>) -> Option<&Block> {
        let known = || {
            let slot = self.known.blocks.get(at)?;
            Some(slot.get_or_init(|| Block::new(read(at))))
        };
        self.own.get(&at).or_else(known)
    }

    /// What is left at a place.
    pub(crate) fn get(&self, place: usize, read: &dyn Fn(usize) -> Vec<Dense>) -> Option<&Dense> {
        self.block(place / BLOCK, read)?.get(place % BLOCK)
    }

    /// Sets what is left at a place.
    pub(crate) fn set(&mut self, place: usize, room: Dense, read: &dyn Fn(usize) -> Vec<Dense>) {
        let at = place / BLOCK;
        let mut own = match self.own.remove(&at) {
            Some(own) => own,
            None => self.block(at, read).cloned().unwrap_or_default(),
        };
        own.set(place % BLOCK, room);
        self.own.insert(at, own);
    }

    /// Whether a block may have room for `need`, as far as that can be told without reading it.
    fn may_take(&self, at: usize, need: &[i64]) -> bool {
        let known = self.known.blocks.get(at).and_then(OnceLock::get);
        let told = self.own.get(&at).or(known);
        let told = told.or_else(|| self.known.most.get(at));
        told.is_some_and(|block| block.may_take(need))
    }

    /// The first place from `from` on that has room for `need` and is among those that `allowed` says of its block.
    pub(crate) fn find(
        &self,
        from: usize,
        need: &[i64],
        allowed: &dyn Fn(usize) -> u64,
        read: &dyn Fn(usize) -> Vec<Dense>,
    ) -> Option<usize> {
        let blocks = from / BLOCK..self.known.blocks.len();
        for at in blocks.filter(|at| self.may_take(*at, need)) {
            let Some(block) = self.block(at, read).filter(|b| b.may_take(need)) else {
                continue;
            };
            let mask = allowed(at) & from_on(at, from);
            if let Some(bit) = block.first(mask, need) {
                return Some(at * BLOCK + bit);
            }
        }
        None
    }
}
