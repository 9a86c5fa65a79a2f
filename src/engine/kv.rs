//! Which block of keys and values belongs to whom: a pool of blocks, and a prefix tree of those kept for reuse.
//!
//! A block holds [`BLOCK_SIZE`] positions of every layer. A sequence's [`Table`] lists its blocks in order; when it ends,
//! its full blocks go into the tree of its scope, keyed by their exact token ids, and the next turn of the same
//! conversation finds them. Kept blocks are given up least recently used first, leaves before what they hang on. It knows
//! numbers of blocks, never their content: that is the backend's.
//!
//! **Architecture Invariant:** a sequence that was admitted never runs out of blocks, because all it may ever need was
//! reserved when it was admitted.

use std::collections::HashMap;

use super::request::CacheScope;

/// Positions a block holds.
pub const BLOCK_SIZE: usize = 16;

/// Names a block of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// The blocks of one sequence, and how many more it may still take.
#[derive(Debug)]
pub struct Table {
    scope: CacheScope,
    /// Blocks of the tree that this sequence reads, from position 0 on.
    shared: Vec<NodeIndex>,
    blocks: Vec<BlockId>,
    reserved: usize,
}

impl Table {
    /// All blocks in order of positions, shared ones first.
    #[must_use]
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// How many positions were found in the tree.
    #[must_use]
    pub fn n_reused(&self) -> usize {
        self.shared.len() * BLOCK_SIZE
    }
}

/// The pool and its prefix tree.
#[derive(Debug)]
pub struct Pool {
    n_blocks: usize,
    free: Vec<BlockId>,
    /// Promised to admitted sequences, not taken yet.
    reserved: usize,
    nodes: HashMap<NodeIndex, Node>,
    next_node: u64,
    roots: HashMap<u128, Children>,
    clock: u64,
    freed: Vec<BlockId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct NodeIndex(u64);

type Children = HashMap<Box<[u32]>, NodeIndex>;

#[derive(Debug)]
struct Node {
    scope: u128,
    parent: Option<NodeIndex>,
    tokens: Box<[u32]>,
    block: BlockId,
    children: Children,
    /// Live sequences that read it; whoever reads a node reads its parents.
    readers: usize,
    last_used: u64,
}

impl Pool {
    /// A pool of free blocks.
    #[must_use]
    pub fn new(n_blocks: usize) -> Self {
        Self {
            n_blocks,
            free: (0..n_blocks as u32).rev().map(BlockId).collect(),
            reserved: 0,
            nodes: HashMap::new(),
            next_node: 0,
            roots: HashMap::new(),
            clock: 0,
            freed: Vec::new(),
        }
    }

    /// How many positions the whole pool holds.
    #[must_use]
    pub fn n_positions(&self) -> usize {
        self.n_blocks * BLOCK_SIZE
    }

    /// Blocks kept for reuse that no live sequence reads.
    #[must_use]
    pub fn n_cached(&self) -> usize {
        self.nodes.values().filter(|node| node.readers == 0).count()
    }

    /// Blocks that live sequences hold or may still take.
    #[must_use]
    pub fn n_used(&self) -> usize {
        self.n_blocks - self.free.len() - self.n_cached() + self.reserved
    }

    /// Admits a sequence that begins with `ids` and will have at most `n_positions`; `None` where that does not fit now.
    /// At least the last of `ids` is left to be computed, so that there are logits to draw from; with `reuse` off all are.
    pub fn admit(&mut self, scope: CacheScope, ids: &[u32], n_positions: usize, reuse: bool) -> Option<Table> {
        let shared = match (scope, reuse) {
            (CacheScope::Shared(scope), true) => self.longest_prefix(scope, ids),
            (CacheScope::Alone, _) | (CacheScope::Shared(_), false) => Vec::new(),
        };
        let needed = n_positions.div_ceil(BLOCK_SIZE).saturating_sub(shared.len());
        let newly_read = shared.iter().filter(|index| self.node(**index).readers == 0).count();
        let available = self.free.len() + self.n_cached() - newly_read;
        if available < self.reserved + needed {
            return None;
        }
        self.reserved += needed;
        self.clock += 1;
        let mut blocks = Vec::with_capacity(shared.len() + needed);
        for index in &shared {
            let now = self.clock;
            let node = self.node_mut(*index);
            node.readers += 1;
            node.last_used = now;
            blocks.push(node.block);
        }
        Some(Table { scope, shared, blocks, reserved: needed })
    }

    /// Takes blocks until `table` holds `n_positions`, which must be within what it was admitted for.
    pub fn grow(&mut self, table: &mut Table, n_positions: usize) {
        while table.blocks.len() * BLOCK_SIZE < n_positions {
            let block = self.take();
            table.reserved = table.reserved.checked_sub(1).expect("invariant: a table grows within its reservation");
            self.reserved -= 1;
            table.blocks.push(block);
        }
    }

    /// Takes a sequence's blocks back. The full ones among the first `ids.len()` positions, which must all have been
    /// computed, are kept for its scope.
    pub fn release(&mut self, table: Table, ids: &[u32]) {
        let Table { scope, shared, blocks, reserved } = table;
        self.reserved -= reserved;
        for index in &shared {
            self.node_mut(*index).readers -= 1;
        }
        let own = blocks.get(shared.len()..).unwrap_or_default();
        match scope {
            CacheScope::Alone => own.iter().for_each(|block| self.give_back(*block)),
            CacheScope::Shared(scope) => self.keep(scope, &shared, own, ids),
        }
    }

    /// Forgets everything kept and everything promised; live tables must be thrown away.
    pub fn reset(&mut self) {
        *self = Self::new(self.n_blocks);
    }

    /// Blocks whose content means nothing any more since the last call.
    pub fn take_freed(&mut self) -> Vec<BlockId> {
        std::mem::take(&mut self.freed)
    }

    fn longest_prefix(&self, scope: u128, ids: &[u32]) -> Vec<NodeIndex> {
        let mut found = Vec::new();
        let mut children = self.roots.get(&scope);
        let reusable = &ids[..ids.len().saturating_sub(1)];
        for tokens in reusable.chunks_exact(BLOCK_SIZE) {
            let Some(index) = children.and_then(|children| children.get(tokens)) else {
                break;
            };
            found.push(*index);
            children = Some(&self.node(*index).children);
        }
        found
    }

    fn keep(&mut self, scope: u128, shared: &[NodeIndex], own: &[BlockId], ids: &[u32]) {
        let mut parent = shared.last().copied();
        let mut full = ids.chunks_exact(BLOCK_SIZE).skip(shared.len());
        self.clock += 1;
        for block in own {
            let Some(tokens) = full.next() else {
                self.give_back(*block);
                continue;
            };
            let siblings = match parent {
                Some(index) => Some(&self.node(index).children),
                None => self.roots.get(&scope),
            };
            // Another sequence of the conversation may have kept the same tokens meanwhile; one copy is enough.
            let known = siblings.and_then(|children| children.get(tokens)).copied();
            let index = if let Some(index) = known {
                self.give_back(*block);
                index
            } else {
                self.add_node(scope, parent, tokens, *block)
            };
            let now = self.clock;
            self.node_mut(index).last_used = now;
            parent = Some(index);
        }
    }

    fn add_node(&mut self, scope: u128, parent: Option<NodeIndex>, tokens: &[u32], block: BlockId) -> NodeIndex {
        let index = NodeIndex(self.next_node);
        self.next_node += 1;
        let tokens: Box<[u32]> = tokens.into();
        match parent {
            Some(parent) => self.node_mut(parent).children.insert(tokens.clone(), index),
            None => self.roots.entry(scope).or_default().insert(tokens.clone(), index),
        };
        let node = Node { scope, parent, tokens, block, children: Children::new(), readers: 0, last_used: self.clock };
        self.nodes.insert(index, node);
        index
    }

    fn take(&mut self) -> BlockId {
        if self.free.is_empty() {
            self.evict();
        }
        self.free.pop().expect("invariant: what was reserved is free or can be evicted")
    }

    fn evict(&mut self) {
        let oldest = self
            .nodes
            .iter()
            .filter(|(_, node)| node.readers == 0 && node.children.is_empty())
            .min_by_key(|(index, node)| (node.last_used, **index))
            .map(|(index, _)| *index);
        let Some(node) = oldest.and_then(|index| self.nodes.remove(&index)) else {
            return;
        };
        match node.parent {
            Some(parent) => {
                self.node_mut(parent).children.remove(&node.tokens);
            }
            None => {
                if let Some(root) = self.roots.get_mut(&node.scope) {
                    root.remove(&node.tokens);
                    if root.is_empty() {
                        self.roots.remove(&node.scope);
                    }
                }
            }
        }
        self.give_back(node.block);
    }

    fn give_back(&mut self, block: BlockId) {
        self.freed.push(block);
        self.free.push(block);
    }

    fn node(&self, index: NodeIndex) -> &Node {
        self.nodes.get(&index).expect("invariant: a node that is read or has children is never evicted")
    }

    fn node_mut(&mut self, index: NodeIndex) -> &mut Node {
        self.nodes.get_mut(&index).expect("invariant: a node that is read or has children is never evicted")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(n: usize) -> Vec<u32> {
        (0..n as u32).collect()
    }

    fn run(pool: &mut Pool, scope: u128, ids: &[u32]) -> usize {
        let mut table = pool.admit(CacheScope::Shared(scope), ids, ids.len(), true).unwrap();
        pool.grow(&mut table, ids.len());
        let reused = table.n_reused();
        pool.release(table, ids);
        reused
    }

    #[test]
    fn the_next_turn_finds_the_full_blocks_of_the_last() {
        let mut pool = Pool::new(8);
        assert_eq!(run(&mut pool, 1, &ids(40)), 0);
        assert_eq!(run(&mut pool, 1, &ids(50)), 32);
    }

    #[test]
    fn the_last_token_is_always_left_to_compute() {
        let mut pool = Pool::new(8);
        run(&mut pool, 1, &ids(32));
        assert_eq!(run(&mut pool, 1, &ids(32)), 16);
    }

    #[test]
    fn another_conversation_finds_nothing() {
        let mut pool = Pool::new(8);
        run(&mut pool, 1, &ids(40));
        assert_eq!(run(&mut pool, 2, &ids(40)), 0);
        assert!(pool.admit(CacheScope::Alone, &ids(40), 40, true).is_some_and(|table| table.n_reused() == 0));
    }

    #[test]
    fn what_differs_in_one_token_is_not_reused() {
        let mut pool = Pool::new(8);
        run(&mut pool, 1, &ids(40));
        let mut other = ids(40);
        other[20] = 99;
        assert_eq!(run(&mut pool, 1, &other), 16);
    }

    #[test]
    fn a_sequence_that_does_not_fit_waits_and_reserves_nothing() {
        let mut pool = Pool::new(4);
        let first = pool.admit(CacheScope::Alone, &ids(10), 48, true).unwrap();
        assert!(pool.admit(CacheScope::Alone, &ids(10), 17, true).is_none());
        let second = pool.admit(CacheScope::Alone, &ids(10), 16, true).unwrap();
        pool.release(first, &[]);
        pool.release(second, &[]);
        assert_eq!(pool.n_used(), 0);
    }

    #[test]
    fn the_least_recently_used_prefix_goes_first_and_its_leaf_before_its_root() {
        let mut pool = Pool::new(4);
        run(&mut pool, 1, &ids(32));
        run(&mut pool, 2, &ids(16));
        // Four blocks: two of conversation 1, one of 2, one free. Two more are needed.
        let mut table = pool.admit(CacheScope::Alone, &ids(2), 32, true).unwrap();
        pool.grow(&mut table, 32);
        pool.release(table, &[]);
        assert_eq!(run(&mut pool, 1, &ids(33)), 16);
        assert_eq!(run(&mut pool, 2, &ids(17)), 16);
    }

    proptest! {
        #[test]
        fn blocks_are_neither_lost_nor_held_twice(
            actions in proptest::collection::vec((0u8..3, 1usize..60, 0u128..3, 0usize..8), 1..120),
        ) {
            let mut pool = Pool::new(12);
            let mut live: Vec<(Table, Vec<u32>)> = Vec::new();
            for (action, n, scope, pick) in actions {
                match action {
                    0 => {
                        if let Some(table) = pool.admit(CacheScope::Shared(scope), &ids(n), n + 10, true) {
                            live.push((table, ids(n)));
                        }
                    }
                    1 if !live.is_empty() => {
                        let at = pick % live.len();
                        let (table, ids) = &mut live[at];
                        pool.grow(table, ids.len() + pick);
                    }
                    2 if !live.is_empty() => {
                        let (mut table, ids) = live.remove(pick % live.len());
                        pool.grow(&mut table, ids.len());
                        pool.release(table, &ids);
                    }
                    _ => {}
                }
                let held: Vec<BlockId> =
                    live.iter().flat_map(|(table, _)| table.blocks()[table.shared.len()..].to_vec()).collect();
                let mut all: Vec<BlockId> =
                    pool.free.iter().copied().chain(pool.nodes.values().map(|node| node.block)).chain(held).collect();
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(all.len(), 12);
                prop_assert!(pool.reserved <= pool.free.len() + pool.n_cached());
            }
        }
    }
}
