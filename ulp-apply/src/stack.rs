// SPDX-License-Identifier: GPL-2.0-or-later
//! Several patches in one process: which of them owns an entry, and what the code was before any of them.
//!
//! A patch may replace a function that an earlier one has replaced only when it says that it knows that one: it *requires*
//! it (then it stands on it, and the earlier one stays until the later one is gone) or it *replaces* it (then the earlier
//! one goes in the same stop). Everything else would undo a fix without a word.

use crate::error::Result;
use crate::memory::{self, Memory};
use crate::registry::{Entry, FunctionRecord, Record, State};
use ulp_arch::RemoteAddr;

/// Whether both have replaced the function at the same entry.
fn share(one: &Record, f: &FunctionRecord) -> bool {
    one.functions().any(|g| g.entry == f.entry)
}

/// The record without the functions that a later patch has taken over. Where there are such, the record is applied, so
/// nothing more has to be decided by its commit word.
pub fn own(entries: &[Entry], entry: &Entry) -> Record {
    let name = &entry.record.name;
    let above = entries.iter().filter(|e| e.state.is_active() && e.record.requires.contains(name));
    let later: Vec<&Record> = above.map(|e| &e.record).collect();
    let mut own = entry.record.clone();
    let before = own.functions().count();
    for target in &mut own.targets {
        target.functions.retain(|f| !later.iter().any(|record| share(record, f)));
    }
    if own.functions().count() < before {
        own.commit = None;
    }
    own
}

/// The earlier patch that has to go before this one can begin, because it replaces it: as long as it is there, nothing of
/// this one was written to any entry.
pub fn in_front<'e>(entries: &'e [Entry], entry: &Entry) -> Option<&'e Entry> {
    let record = &entry.record;
    let earlier = |e: &&Entry| e.state == State::Applied && e.at != entry.at;
    let strange = |e: &&Entry| !record.requires.contains(&e.record.name);
    let shares = |e: &&Entry| record.functions().any(|f| share(&e.record, f));
    entries.iter().filter(|_| entry.state == State::Applying).find(|e| earlier(e) && strange(e) && shares(e))
}

/// The patches from the top down: each before those that it stands on. How long ago they were applied does not tell, for
/// a patch that comes back to memory that was kept keeps its number, too.
pub fn top_down<'e>(patches: &[&'e Entry]) -> Vec<&'e Entry> {
    let mut left = patches.to_vec();
    left.sort_by_key(|e| std::cmp::Reverse(e.record.order));
    let mut sorted = Vec::new();
    while !left.is_empty() {
        let needed = |e: &Entry| left.iter().any(|l| l.at != e.at && l.record.requires.contains(&e.record.name));
        // Records that require each other in a circle are none of ours; they come in some order, too.
        let next = left.iter().position(|e| !needed(e)).unwrap_or(0);
        sorted.push(left.remove(next));
    }
    sorted
}

/// The topmost of `patches` that has replaced the function at `entry`.
pub fn top<'e>(patches: &[&'e Entry], entry: RemoteAddr) -> Option<(&'e Entry, &'e FunctionRecord)> {
    let at = |e: &'e Entry| Some((e, e.record.functions().find(|f| f.entry == entry)?));
    top_down(patches).into_iter().find_map(at)
}

/// A process's code as it was before the given patches.
pub struct Before<'a> {
    memory: &'a dyn Memory,
    /// Entries with their first bytes, the earliest patch last.
    entries: Vec<(RemoteAddr, &'a [u8])>,
}

impl<'a> Before<'a> {
    /// Every one of `patches` has to be applied, whole.
    pub fn new(memory: &'a dyn Memory, patches: &[&'a Entry]) -> Self {
        let patches = top_down(patches);
        let entries = patches.into_iter().flat_map(|e| e.record.functions().map(|f| (f.entry, &f.old[..])));
        Self { memory, entries: entries.collect() }
    }

    pub fn bytes(&self, at: RemoteAddr, len: u64) -> Result<Vec<u8>> {
        memory::bytes(self, at, len)
    }
}

impl Memory for Before<'_> {
    fn read(&self, at: RemoteAddr, buf: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(at, buf)?;
        for (entry, old) in &self.entries {
            for (n, byte) in (0u64..).zip(*old) {
                let place = entry.0.wrapping_add(n).checked_sub(at.0).and_then(|i| usize::try_from(i).ok());
                if let Some(place) = place.and_then(|i| buf.get_mut(i)) {
                    *place = *byte;
                }
            }
        }
        Ok(())
    }

    fn page(&self) -> u64 {
        self.memory.page()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::test::Pieces;
    use crate::registry::TargetRecord;
    use ulp_arch::LoadBias;

    fn entry(name: &str, order: u64, requires: &[&str], functions: &[(u64, u8, u8)]) -> Entry {
        let functions = functions.iter().map(|(at, old, jump)| FunctionRecord {
            name: format!("f{at:x}"),
            entry: RemoteAddr(*at),
            new: RemoteAddr(0x9000),
            old: vec![*old; 4],
            jump: vec![*jump; 4],
            gate: None,
        });
        let target = TargetRecord {
            file: "app".into(),
            build_id: "ab".into(),
            bias: LoadBias(0),
            functions: functions.collect(),
            areas: vec![],
            frames: None,
        };
        let record = Record {
            name: name.into(),
            description: String::new(),
            cves: vec![],
            digest: "00".into(),
            escape: false,
            requires: requires.iter().map(|r| (*r).into()).collect(),
            order,
            commit: None,
            targets: vec![target],
        };
        Entry { at: RemoteAddr(0x100_0000 * order), state: State::Applied, generation: 1, record }
    }

    #[test]
    fn the_code_before_is_seen_through_any_number_of_patches() {
        let mut memory = Pieces::default();
        memory.put(0x1000, [[3; 4], [0x90; 4], [7; 4]].concat());
        // Applied in the order one, two, three; two stands on one.
        let (one, two) = (entry("one", 1, &[], &[(0x1000, 1, 2)]), entry("two", 2, &["one"], &[(0x1000, 2, 3)]));
        let three = entry("three", 3, &[], &[(0x1008, 6, 7)]);
        let before = Before::new(&memory, &[&three, &one, &two]);
        assert_eq!(before.bytes(RemoteAddr(0x1000), 12).expect("mapped"), [[1; 4], [0x90; 4], [6; 4]].concat());
        assert_eq!(before.bytes(RemoteAddr(0x1002), 4).expect("mapped"), [1, 1, 0x90, 0x90], "cut by the border");
        let above = Before::new(&memory, &[&two]);
        assert_eq!(above.bytes(RemoteAddr(0x1000), 4).expect("mapped"), [2; 4], "only the one that was asked about");
    }

    #[test]
    fn an_entry_belongs_to_the_last_that_stands_on_it() {
        let one = entry("one", 1, &[], &[(0x1000, 1, 2), (0x2000, 1, 2)]);
        let two = entry("two", 2, &["one"], &[(0x1000, 2, 3)]);
        let entries = [one.clone(), two.clone()];
        let names = |r: &Record| r.functions().map(|f| f.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&own(&entries, &one)), ["f2000"]);
        assert_eq!(names(&own(&entries, &two)), ["f1000"]);
        assert_eq!(top(&[&one, &two], RemoteAddr(0x1000)).map(|(e, _)| e.record.order), Some(2));
        // The same when the lower one has been applied anew, to memory that was kept for it, and has the higher number.
        let mut again = one.clone();
        again.record.order = 7;
        let entries_again = [again.clone(), two.clone()];
        assert_eq!(names(&own(&entries_again, &again)), ["f2000"]);
        assert_eq!(top(&[&again, &two], RemoteAddr(0x1000)).map(|(e, _)| e.record.order), Some(2));
        let (mut ring_a, mut ring_b) = (one.clone(), two.clone());
        ring_a.record.requires = vec!["two".into()];
        ring_b.record.requires = vec!["one".into()];
        assert_eq!(top_down(&[&ring_a, &ring_b]).len(), 2, "a circle ends");
        assert!(in_front(&entries, &two).is_none(), "it stands on the other one");
        // The same without a word about the first: it waits until that is gone.
        let mut other = entry("other", 3, &[], &[(0x1000, 1, 4)]);
        other.state = State::Applying;
        assert!(in_front(&[one.clone(), other.clone()], &other).is_some());
        let mut gone = one;
        gone.state = State::Retired;
        assert!(in_front(&[gone, other.clone()], &other).is_none());
    }
}
