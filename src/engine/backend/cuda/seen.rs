//! Which tokens a sequence has seen, as bits on the device, where drawing reads and adds to them.

use std::collections::HashMap;

use super::{
    device::{Address, Device, DeviceError, write_numbers},
    kernels::seen_words,
    plan::MOST_SLOTS,
};
use crate::engine::backend::{Row, SequenceId};

/// A row of bits for each of some sequences.
pub(super) struct Seen {
    bits: Address,
    n_words: usize,
    slots: HashMap<SequenceId, Slot>,
    free: Vec<usize>,
    clock: u64,
}

/// What is in a row of bits.
struct Slot {
    index: usize,
    /// How many ids of the sequence.
    n_ids: usize,
    /// The last of them.
    last: u32,
    used: u64,
}

impl Seen {
    pub(super) fn new(device: &mut dyn Device, vocab_size: usize) -> Result<Self, DeviceError> {
        let n_words = seen_words(vocab_size);
        let bits = device.allocate(MOST_SLOTS * n_words * size_of::<u32>())?;
        Ok(Self { bits, n_words, slots: HashMap::new(), free: (0..MOST_SLOTS).collect(), clock: 0 })
    }

    /// Shape (slot, words).
    pub(super) fn bits(&self) -> Address {
        self.bits
    }

    /// The slot that says what this row has seen; written only where it does not say so already.
    pub(super) fn slot(&mut self, device: &mut dyn Device, row: &Row) -> Result<usize, DeviceError> {
        self.clock += 1;
        let (n_ids, last) = (row.ids.len(), row.ids.last().copied().unwrap_or_default());
        if let Some(slot) = self.slots.get_mut(&row.sequence)
            && (slot.n_ids, slot.last) == (n_ids, last)
        {
            slot.used = self.clock;
            return Ok(slot.index);
        }
        let index = match self.slots.remove(&row.sequence) {
            Some(slot) => slot.index,
            None => self.free_slot(),
        };
        let mut words = vec![0_u32; self.n_words];
        for id in &row.ids {
            // An id outside the vocabulary has no logit that could be made less.
            if let Some(word) = words.get_mut(*id as usize / 32) {
                *word |= 1 << (id % 32);
            }
        }
        write_numbers(device, self.bits.plus(index * self.n_words * size_of::<u32>()), &words)?;
        self.slots.insert(row.sequence, Slot { index, n_ids, last, used: self.clock });
        Ok(index)
    }

    /// The device drew a token for a sequence and added it.
    pub(super) fn drawn(&mut self, sequence: SequenceId, token: u32) {
        if let Some(slot) = self.slots.get_mut(&sequence) {
            slot.n_ids += 1;
            slot.last = token;
        }
    }

    /// The device may have added a token that the sequence has not got: its bits are written anew before it draws again.
    pub(super) fn distrust(&mut self, sequence: SequenceId) {
        if let Some(slot) = self.slots.get_mut(&sequence) {
            slot.n_ids = 0;
        }
    }

    pub(super) fn release(&mut self, sequence: SequenceId) {
        self.free.extend(self.slots.remove(&sequence).map(|slot| slot.index));
    }

    pub(super) fn forget(&mut self) {
        self.slots.clear();
        self.free = (0..MOST_SLOTS).collect();
    }

    /// One that nobody has, or that was not used for longest: its sequence writes another when it draws again.
    fn free_slot(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used).map(|(sequence, _)| *sequence);
            let slot = oldest.and_then(|sequence| self.slots.remove(&sequence));
            slot.map(|slot| slot.index).expect("invariant: a slot is free or somebody's")
        })
    }
}
