// SPDX-License-Identifier: GPL-2.0-or-later
//! Code from which a linker took bytes out: what is left, and where everything went. A linker that does so leaves no record of
//! it; what it did is read off the linked code, and believed only where nothing else is different.

/// A relocation of code, as far as it matters to a linker that shortens code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeReloc {
    /// Its place in the section.
    pub offset: usize,
    /// The psABI's number.
    pub r_type: u32,
    /// Its symbol's number; 0: none.
    pub symbol: usize,
    /// Its addend.
    pub addend: i64,
}

/// What a linker made of a section's code before it moved it to its place and filled in the fields.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shortened {
    /// The code that is left; what is in the fields means nothing.
    pub code: Vec<u8>,
    /// The type that each relocation has become; `None`: there is nothing left to fill in.
    pub types: Vec<Option<u32>>,
    /// What was taken out: its place in the object's code, and how many bytes were, with all before it.
    removed: Vec<(usize, usize)>,
}

impl Shortened {
    /// Notes that `len` bytes at `at` of the object's code are gone; `at` grows from call to call.
    pub(crate) fn remove(&mut self, at: usize, len: usize) {
        if len > 0 {
            self.removed.push((at, self.taken_out() + len));
        }
    }

    /// How many bytes were taken out.
    pub fn taken_out(&self) -> usize {
        self.removed.last().map_or(0, |(_, total)| *total)
    }

    /// Where what stood at `offset` of the object's code is now; what was taken out itself is where the rest goes on.
    pub fn moved(&self, offset: u64) -> u64 {
        let count = self.removed.partition_point(|(at, _)| (*at as u64) < offset);
        let Some((at, total)) = count.checked_sub(1).and_then(|last| self.removed.get(last)) else { return offset };
        let before = count.checked_sub(2).and_then(|last| self.removed.get(last)).map_or(0, |(_, total)| *total as u64);
        let len = *total as u64 - before;
        offset - before - len.min(offset - *at as u64)
    }
}
