// SPDX-License-Identifier: GPL-2.0-or-later
//! The switch itself, under a stop. Functions with gates go in three steps: entries to gates, which still lead to the old
//! code; one store of the commit word, after which every gate leads to the new code; entries straight to the new code. A
//! revert goes the same way back. So an ulp-apply that dies anywhere leaves all functions old or all new.

use crate::error::{Error, Result};
use crate::memory;
use crate::plan::foreign;
use crate::process::{Process, Quiet};
use crate::registry::{CommitRecord, FunctionRecord, Record};
use crate::snapshot::page_of;
use ulp_arch::RemoteAddr;

/// Which bytes go to the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    Old,
    /// The jump to the gate; a function without one keeps what it has.
    Gate,
    Jump,
}

/// What a switch has done.
#[derive(Debug)]
pub enum Done {
    Whole,
    /// The functions behave as wanted, and some entries still go through their gates; the next ulp-apply tidies up.
    ThroughGates(Error),
}

/// What is being written to: a process under a stop, or memory typed in for a test.
pub trait Code: memory::Memory {
    fn put(&self, at: RemoteAddr, bytes: &[u8]) -> Result<()>;
    /// Whether `put` goes word by word at `at`, and may end between two of them.
    fn by_words(&self, at: RemoteAddr) -> Result<bool>;
}

/// A process and the stop it is under.
pub struct Stopped<'a> {
    pub process: &'a Process,
    pub quiet: &'a Quiet<'a>,
}

impl memory::Memory for Stopped<'_> {
    fn read(&self, at: RemoteAddr, buffer: &mut [u8]) -> std::io::Result<()> {
        memory::Memory::read(self.process, at, buffer)
    }

    fn page(&self) -> u64 {
        self.process.page()
    }
}

impl Code for Stopped<'_> {
    fn put(&self, at: RemoteAddr, bytes: &[u8]) -> Result<()> {
        Ok(self.quiet.write(at, bytes)?)
    }

    fn by_words(&self, at: RemoteAddr) -> Result<bool> {
        Ok(self.quiet.writes_words(at)?)
    }
}

/// Makes all functions new (`Bytes::Jump`) or old (`Bytes::Old`). On an error they are what they were, unless the error
/// says that something could not be undone; then the live bytes tell.
pub fn all(code: &dyn Code, record: &Record, to: Bytes) -> Result<Done> {
    let Some(commit) = &record.commit else {
        let functions: Vec<_> = record.functions().collect();
        return write_entries(code, &functions, to).map(|()| Done::Whole);
    };
    let gated: Vec<_> = record.functions().filter(|f| f.gate.is_some()).collect();
    let new = to == Bytes::Jump;
    if record.committed(code)? != Some(new) {
        write_entries(code, &gated, Bytes::Gate)?;
        if let Err(e) = store(code, record, commit, new) {
            // Whether the store took place is seen in the word itself; where it cannot be read, nothing more is done:
            // entries that lead to gates are right either way.
            match record.committed(code) {
                Ok(Some(now)) if now == new => {}
                Ok(_) => {
                    write_entries(code, &gated, if new { Bytes::Old } else { Bytes::Jump })?;
                    return Err(e);
                }
                Err(unread) => return Err(e.while_trying(format!("cannot read the commit word either ({unread})"))),
            }
        }
    }
    Ok(write_entries(code, &gated, to).map_or_else(Done::ThroughGates, |()| Done::Whole))
}

/// The one store: the commit word, or the entry of the one function that has no gate.
fn store(code: &dyn Code, record: &Record, commit: &CommitRecord, new: bool) -> Result<()> {
    let ungated: Vec<_> = record.functions().filter(|f| f.gate.is_none()).collect();
    if ungated.is_empty() {
        let word = if new { !commit.old } else { commit.old };
        return code.put(commit.at, &word.to_le_bytes());
    }
    // The record was checked: there is but one, and its bytes lie in one page, so this is one write.
    write_entries(code, &ungated, if new { Bytes::Jump } else { Bytes::Old })
}

/// Writes the entries of the functions, page by page, after every one was compared; entries that have the wanted bytes
/// already stay. On an error everything is as before.
pub fn write_entries(code: &dyn Code, functions: &[&FunctionRecord], to: Bytes) -> Result<()> {
    let spans = spans(code, functions, to)?;
    if let Some(first) = spans.first()
        && code.by_words(first.at)?
    {
        in_one_word(&spans, functions)?;
    }
    for (i, span) in spans.iter().enumerate() {
        let written = code.put(span.at, &span.new).and_then(|()| {
            let now = memory::bytes(code, span.at, span.new.len() as u64)?;
            if now == span.new {
                return Ok(());
            }
            Err(Error::failed(format!("the bytes written at {} are not there", span.at), "report this as a bug"))
        });
        if let Err(e) = written {
            for done in spans.iter().take(i + 1).rev() {
                if let Err(undo) = code.put(done.at, &done.old) {
                    return Err(e.while_trying(format!("cannot restore {} either ({undo})", done.at)));
                }
            }
            return Err(e);
        }
    }
    Ok(())
}

/// Refuses when the bytes that change at one entry lie in more than one aligned word.
fn in_one_word(spans: &[Span], functions: &[&FunctionRecord]) -> Result<()> {
    for f in functions {
        let entry = f.entry.0..f.entry.0.saturating_add(f.old.len() as u64);
        let changed = spans.iter().flat_map(|s| (s.at.0..).zip(s.old.iter().zip(&s.new)));
        let mut words = changed.filter(|(at, (old, new))| entry.contains(at) && old != new).map(|(at, _)| at / 8);
        let first = words.next();
        if words.any(|word| Some(word) != first) {
            return Err(Error::refused(
                format!(
                    "this kernel allows code to be written word by word only, and the jump of {} lies in two",
                    f.name
                ),
                "boot it with proc_mem.force_override=ptrace",
            ));
        }
    }
    Ok(())
}

/// One stretch of code with entries in it, written at once.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    at: RemoteAddr,
    old: Vec<u8>,
    new: Vec<u8>,
}

fn spans(memory: &dyn memory::Memory, functions: &[&FunctionRecord], to: Bytes) -> Result<Vec<Span>> {
    let mut sorted = functions.to_vec();
    sorted.sort_by_key(|f| f.entry);
    let mut spans: Vec<Span> = Vec::new();
    for page in sorted.chunk_by(|a, b| page_of(a.entry) == page_of(b.entry)) {
        let (Some(first), Some(last)) = (page.first(), page.last()) else { continue };
        let len = last.entry.0.saturating_sub(first.entry.0).saturating_add(last.old.len() as u64);
        let old = memory::bytes(memory, first.entry, len)?;
        let mut new = old.clone();
        let mut free_from = 0;
        for f in page {
            let start = usize::try_from(f.entry.0 - first.entry.0).unwrap_or(usize::MAX);
            let place = start.checked_add(f.old.len()).and_then(|end| new.get_mut(start..end));
            let place = place.filter(|_| start >= free_from).ok_or_else(|| foreign(&f.name, f.entry))?;
            let gate = f.gate.as_ref().map(|gate| &gate.jump);
            if *place != *f.old && *place != *f.jump && gate.is_none_or(|gate| *place != **gate) {
                return Err(foreign(&f.name, f.entry));
            }
            match (to, gate) {
                (Bytes::Old, _) => place.copy_from_slice(&f.old),
                (Bytes::Jump, _) => place.copy_from_slice(&f.jump),
                (Bytes::Gate, Some(gate)) => place.copy_from_slice(gate),
                (Bytes::Gate, None) => {}
            }
            free_from = start.saturating_add(f.old.len());
        }
        if new != old {
            spans.push(Span { at: first.entry, old, new });
        }
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::test::Pieces;
    use crate::registry::{GateRecord, Live, TargetRecord};
    use std::cell::{Cell, RefCell};
    use ulp_arch::LoadBias;

    fn function(entry: u64, old: [u8; 2], jump: [u8; 2]) -> FunctionRecord {
        FunctionRecord {
            name: format!("f{entry:x}"),
            entry: RemoteAddr(entry),
            new: RemoteAddr(0),
            old: old.to_vec(),
            jump: jump.to_vec(),
            gate: None,
        }
    }

    #[test]
    fn entries_on_one_page_are_one_write() {
        let mut code = Pieces::default();
        code.put(0x1000, vec![0x90; 0x2000]);
        let (f, g, h) = (
            function(0x1010, [0x90, 0x90], [1, 2]),
            function(0x1004, [0x90, 0x90], [3, 4]),
            function(0x1fff, [0x90, 0x90], [5, 6]),
        );
        let other = function(0x2800, [0x90, 0x90], [7, 8]);
        let spans = spans(&code, &[&f, &g, &h, &other], Bytes::Jump).expect("all are as expected");
        let shape: Vec<_> = spans.iter().map(|s| (s.at.0, s.new.len())).collect();
        assert_eq!(shape, [(0x1004, 0xffd), (0x2800, 2)]);
        assert_eq!(
            (&spans[0].new[..2], &spans[0].new[12..14], &spans[0].new[0xffb..]),
            (&[3, 4][..], &[1, 2][..], &[5, 6][..])
        );
        assert_eq!(spans[0].new[2], 0x90, "what is between stays");
    }

    #[test]
    fn foreign_bytes_and_overlaps_are_refused() {
        let mut code = Pieces::default();
        code.put(0x1000, vec![0xcc, 0x90, 0x90, 0x90]);
        let probed = function(0x1000, [0x90, 0x90], [1, 2]);
        assert!(spans(&code, &[&probed], Bytes::Jump).is_err());
        let (f, g) = (function(0x1001, [0x90, 0x90], [1, 2]), function(0x1002, [0x90, 0x90], [1, 2]));
        assert!(spans(&code, &[&f, &g], Bytes::Jump).is_err());
        assert_eq!(spans(&code, &[&f], Bytes::Old).expect("already so"), []);
    }

    /// Memory whose writes fail or end, as a process's would when its applier is killed.
    struct Shaky {
        memory: RefCell<Pieces>,
        left: Cell<usize>,
        /// Whether later writes work again, as those of an applier that lives do.
        heals: bool,
        words: bool,
    }

    impl memory::Memory for Shaky {
        fn read(&self, at: RemoteAddr, buf: &mut [u8]) -> std::io::Result<()> {
            self.memory.borrow().read(at, buf)
        }

        fn page(&self) -> u64 {
            memory::SMALLEST_PAGE
        }
    }

    impl Code for Shaky {
        fn by_words(&self, _: RemoteAddr) -> Result<bool> {
            Ok(self.words)
        }

        fn put(&self, at: RemoteAddr, bytes: &[u8]) -> Result<()> {
            if self.left.get() == 0 {
                self.left.set(if self.heals { usize::MAX } else { 0 });
                return Err(Error::failed("no more", "end of test"));
            }
            self.left.set(self.left.get() - 1);
            let mut memory = self.memory.borrow_mut();
            let (start, piece) = memory.0.range_mut(..=at.0).next_back().expect("mapped");
            let offset = (at.0 - start) as usize;
            piece[offset..offset + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
    }

    const OLD: [u8; 5] = [1, 2, 3, 4, 5];
    const JUMP: [u8; 5] = [0xe9, 7, 7, 7, 7];
    const GATE: [u8; 5] = [0xe9, 8, 8, 8, 8];
    const WORD: u64 = 0x9000;

    /// Three functions on two pages, all with gates, or the last without.
    fn record(ungated: bool) -> Record {
        let functions: Vec<_> = [0x1000, 0x1100, 0x2000]
            .into_iter()
            .map(|entry| FunctionRecord {
                name: format!("f{entry:x}"),
                entry: RemoteAddr(entry),
                new: RemoteAddr(0),
                old: OLD.to_vec(),
                jump: JUMP.to_vec(),
                gate: (!ungated || entry != 0x2000).then(|| GateRecord {
                    at: RemoteAddr(0x8000),
                    len: 32,
                    jump: GATE.to_vec(),
                }),
            })
            .collect();
        let own = CommitRecord { at: RemoteAddr(WORD), old: 0 };
        let commit = if ungated { functions[2].commits().next().expect("the jump differs") } else { own };
        Record {
            name: "fix".into(),
            description: String::new(),
            cves: vec![],
            digest: "00".into(),
            escape: false,
            requires: vec![],
            order: 1,
            commit: Some(commit),
            targets: vec![TargetRecord {
                file: "app".into(),
                build_id: "ab".into(),
                bias: LoadBias(0),
                functions,
                areas: vec![],
                frames: None,
            }],
        }
    }

    fn program(new: bool, writes: usize, heals: bool) -> Shaky {
        let mut memory = Pieces::default();
        memory.put(0x1000, vec![0x90; 0x2000]);
        memory.put(WORD, vec![0; 8]);
        let shaky = Shaky { memory: RefCell::new(memory), left: Cell::new(usize::MAX), heals, words: false };
        for entry in [0x1000, 0x1100, 0x2000] {
            shaky.put(RemoteAddr(entry), if new { &JUMP } else { &OLD }).expect("works");
        }
        if new {
            shaky.put(RemoteAddr(WORD), &[0xff; 4]).expect("works");
        }
        shaky.left.set(writes);
        shaky
    }

    /// Which code each function runs: what a processor would do with entry and gate.
    fn runs_new(code: &Shaky, record: &Record) -> Vec<bool> {
        let one = |f: &FunctionRecord| {
            let now = memory::bytes(code, f.entry, 5).expect("mapped");
            now == JUMP || (now == GATE && record.committed(code).expect("mapped") == Some(true))
        };
        record.functions().map(one).collect()
    }

    #[test]
    fn death_after_any_write_leaves_all_old_or_all_new_and_the_bytes_tell() {
        for (ungated, forward) in [(false, true), (false, false), (true, true), (true, false)] {
            let record = record(ungated);
            let (to, from) = if forward { (Bytes::Jump, Bytes::Old) } else { (Bytes::Old, Bytes::Jump) };
            let mut ends = Vec::new();
            for writes in 0..9 {
                let code = program(!forward, writes, false);
                let done = matches!(all(&code, &record, to), Ok(Done::Whole));
                let new = runs_new(&code, &record);
                assert!(new.iter().all(|n| *n == new[0]), "{ungated} {forward} {writes}: {new:?}");
                let live = record.live(&code).expect("readable");
                let told = match live {
                    Live::Old => false,
                    Live::New => true,
                    Live::Gated { new } => new,
                    other => panic!("{ungated} {forward} {writes}: {other:?}"),
                };
                assert_eq!(told, new[0], "{ungated} {forward} {writes}");
                assert_eq!(done, live == if forward { Live::New } else { Live::Old } && new[0] == forward);
                ends.push(new[0] == forward);
                // The next one goes on to either end.
                code.left.set(usize::MAX);
                for end in [to, from] {
                    assert!(matches!(all(&code, &record, end), Ok(Done::Whole)), "{ungated} {forward} {writes}");
                    assert!(runs_new(&code, &record).iter().all(|n| *n == (end == Bytes::Jump)));
                }
            }
            assert!(ends.contains(&true) && ends.contains(&false), "the deaths were before and behind the store");
        }
    }

    #[test]
    fn a_failed_write_is_undone_before_the_store_and_carried_on_behind_it() {
        for (ungated, forward) in [(false, true), (false, false), (true, true), (true, false)] {
            let record = record(ungated);
            let to = if forward { Bytes::Jump } else { Bytes::Old };
            let mut kinds = [0; 3];
            for writes in 0..7 {
                let code = program(!forward, writes, true);
                let done = all(&code, &record, to);
                let (live, before, after) = (record.live(&code).expect("readable"), !forward, forward);
                let plain = |new| if new { Live::New } else { Live::Old };
                let (kind, expected) = match done {
                    Err(_) => (0, plain(before)),
                    Ok(Done::ThroughGates(_)) => (1, Live::Gated { new: after }),
                    Ok(Done::Whole) => (2, plain(after)),
                };
                kinds[kind] += 1;
                assert_eq!(live, expected, "{ungated} {forward} {writes}");
            }
            assert!(kinds.iter().all(|n| *n > 0), "{ungated} {forward}: {kinds:?}");
        }
    }

    #[test]
    fn a_jump_in_two_words_is_not_written_by_words() {
        let mut record = record(false);
        let mut code = program(false, usize::MAX, false);
        code.words = true;
        assert!(matches!(all(&code, &record, Bytes::Jump), Ok(Done::Whole)), "all lie in one word each");
        // Bytes 4 to 8 of 0x1104: the last one is in the next word.
        record.targets[0].functions[1].entry = RemoteAddr(0x1104);
        let mut code = program(false, usize::MAX, false);
        code.put(RemoteAddr(0x1104), &OLD).expect("works");
        code.words = true;
        assert!(all(&code, &record, Bytes::Jump).is_err());
        assert_eq!(memory::bytes(&code, RemoteAddr(0x1000), 5).expect("mapped"), OLD, "nothing was written");
    }

    #[test]
    fn what_no_applier_leaves_is_foreign() {
        let record = record(false);
        let code = program(false, usize::MAX, false);
        code.put(RemoteAddr(WORD), &[1, 0, 0, 0]).expect("works");
        assert!(matches!(record.live(&code), Ok(Live::Foreign { .. })), "old entries beside a new word");
        let code = program(true, usize::MAX, false);
        code.put(RemoteAddr(WORD), &[0; 4]).expect("works");
        assert!(matches!(record.live(&code), Ok(Live::Foreign { .. })), "jumps beside an old word");
        let code = program(false, usize::MAX, false);
        code.put(RemoteAddr(0x1000), &[0xcc]).expect("works");
        assert!(all(&code, &record, Bytes::Jump).is_err());
        assert_eq!(memory::bytes(&code, RemoteAddr(0x2000), 5).expect("mapped"), OLD, "nothing was written");
    }
}
