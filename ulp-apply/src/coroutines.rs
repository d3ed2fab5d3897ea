// SPDX-License-Identifier: GPL-2.0-or-later
//! Coroutines that wait inside given code. The stack of a suspended coroutine belongs to no thread: it is ordinary memory, as is
//! what it goes on with. So all memory that the program can write to is searched for addresses inside the code, as far as
//! quiescence has not looked at it. An address counts unless it is proved that nothing can ever come back to it; which memory
//! is a coroutine's stack nobody knows, so for most of it there is no such proof.

mod known;

use crate::attempt::Limits;
use crate::error::{Error, Result};
use crate::memory::SMALLEST_PAGE;
use crate::process::{Check, Error as ProcessError, Mapping, Maps, Module, Process, Quiet, Reader, Suspect, Unwound};
use crate::snapshot::Snapshot;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ulp_arch::{Regs, RemoteAddr};

/// Whether memory is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ScanMemory {
    /// When the program or one of its libraries is known to have coroutines
    Auto,
    /// In every program
    On,
    /// Never: a coroutine that waits inside a function goes on in its old code
    Off,
}

/// Read at once: it is looked at while it is in the processor's cache.
const PIECE: usize = 512 << 10;
/// No coroutine's stack is larger.
const LARGE: u64 = 8 << 20;
/// The C library begins memory of its own for a thread's `malloc` at a multiple of this, above another one's unused rest.
const ARENA: u64 = 64 << 20;
/// A thread's descriptor beside its thread-local storage takes no more.
const DESCRIPTOR: u64 = 4096;
/// Longer than a search takes anywhere.
const LONGEST: Duration = Duration::from_secs(60);
/// More finds in one stack say no more than these.
const MAX_HITS: usize = 4096;

/// A word which a suspended coroutine may go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The function that it may wait in.
    pub function: String,
    /// The address inside that function.
    pub address: RemoteAddr,
    /// Where it stands.
    pub at: RemoteAddr,
    /// The word itself, which may be the address in disguise.
    word: u64,
    /// In which mapping, for people.
    pub mapping: String,
    /// What else stands in memory may prove the word dead although it stays as it is.
    pub on_stack: bool,
}

impl fmt::Display for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, address, at, mapping, .. } = self;
        write!(f, "a suspended coroutine is in {function}: {address} is at {at} in {mapping}, memory of no thread")
    }
}

impl Aside {
    /// Whether nothing has moved, as far as that can be told without a stop.
    pub fn stays(&self, process: &Process) -> bool {
        !self.on_stack && process.read_u64(self.at).is_ok_and(|word| word == self.word)
    }
}

/// What is searched for in every stop.
#[derive(Debug, Default)]
pub struct Scan {
    search: Option<Search>,
}

#[derive(Debug)]
struct Search {
    /// Sorted, and none is part of another.
    suspects: Vec<Suspect>,
    /// Memory of the patch, whose addresses of the code are no return addresses.
    own: Vec<Range<u64>>,
    /// What the program withholds from its children.
    withheld: Vec<Range<u64>>,
    /// What the modules occupy, data included.
    modules: Vec<Range<u64>>,
    /// How far below its thread pointer a thread's data may begin.
    tls: u64,
    /// Whether stacks are changed by the C library's `setjmp` and `longjmp` alone.
    setjmp: bool,
    /// The C library's pointer guard, and by how much it rotates what it has disguised with it.
    guard: (u64, u32),
    /// The stop's limit, for messages.
    limit: Duration,
    /// Touched before anything is stopped: fresh pages take their time.
    buffer: Mutex<Vec<u8>>,
}

impl Scan {
    /// No search, where nothing can wait inside.
    pub fn none() -> Self {
        Self::default()
    }

    /// Decides whether there is to be a search, and makes one while the program runs: of what it finds nothing is proved, but
    /// how long it takes is known then. One that would take longer than a stop may is refused.
    pub fn prepare(snapshot: &Snapshot<'_>, check: &mut Check, own: Vec<Range<u64>>, limits: &Limits) -> Result<Self> {
        let process = snapshot.process;
        let sign = match limits.scan {
            _ if check.suspects().is_empty() => None,
            ScanMemory::Off => None,
            ScanMemory::On => Some("--scan-memory on".to_owned()),
            ScanMemory::Auto => known::sign(process, &snapshot.modules),
        };
        let Some(sign) = sign else { return Ok(Self::none()) };
        check.expect_stacks_in_frames();
        let search = Search::new(snapshot, check, own, limits.max_stop);
        let began = Reader::processor_time();
        let looked = search.look(process, &process.reader()?, None, Instant::now() + LONGEST);
        let took = if looked.is_ok() { Reader::processor_time().saturating_sub(began) } else { LONGEST };
        let bytes = match looked {
            Ok((_, bytes)) => Some(bytes),
            Err(ProcessError::TooLong { .. }) => None,
            Err(e) => return Err(e.into()),
        };
        log::debug!(
            "pid {}: {} bytes were searched for coroutines ({sign}) in {} us",
            process.pid(),
            bytes.unwrap_or_default(),
            took.as_micros()
        );
        // A stop has other work too, and is not made for the time that it takes when all goes well.
        let estimate = took * 3 / 2;
        if estimate <= limits.max_stop {
            return Ok(Self { search: Some(search) });
        }
        let size = bytes.map_or_else(|| "the".to_owned(), |n| format!("{} MiB of", n >> 20));
        Err(Error::refused(
            format!(
                "to search {size} memory of process {} for suspended coroutines ({sign}) would stop it for about {} ms, and --max-stop is {} ms",
                process.pid(),
                estimate.as_millis(),
                limits.max_stop.as_millis()
            ),
            format!(
                "pass --max-stop {}ms if the program can bear it, or --scan-memory off if no coroutine of it can be waiting in these functions",
                (took * 2).as_millis() + 1
            ),
        ))
    }

    /// The threads' stacks, given their thread pointers, as [`crate::search`] may leave them out: not where coroutines may have
    /// theirs in them.
    pub fn stacks<'a>(&self, pointers: &'a [u64]) -> Option<&'a [u64]> {
        self.search.is_none().then_some(pointers)
    }

    /// Searches under the stop.
    pub fn under(
        &self,
        process: &Process,
        check: &Check,
        quiet: &Quiet<'_>,
    ) -> std::result::Result<Option<Aside>, ProcessError> {
        let Some(search) = &self.search else { return Ok(None) };
        let threads: Vec<Thread> = quiet.threads().map(|(tid, regs, pointer)| (tid, *regs, pointer)).collect();
        let held = Held { check, threads: &threads };
        let began = Instant::now();
        let (found, bytes) = search.look(process, &quiet.reader()?, Some(held), quiet.deadline())?;
        log::debug!(
            "pid {}: {bytes} bytes searched under the stop in {} us",
            process.pid(),
            began.elapsed().as_micros()
        );
        Ok(found)
    }
}

/// A thread, its registers and its thread pointer.
type Thread = (i32, Regs, Option<u64>);

/// The threads of a process that is stopped, and what was asked of them.
#[derive(Clone, Copy)]
struct Held<'a> {
    check: &'a Check,
    threads: &'a [Thread],
}

impl Search {
    fn new(snapshot: &Snapshot<'_>, check: &Check, own: Vec<Range<u64>>, limit: Duration) -> Self {
        let process = snapshot.process;
        let mut suspects = check.suspects().to_vec();
        // A probe on a function's return hides the return address.
        suspects.extend(snapshot.maps.iter().filter(|m| m.name == "[uprobes]").map(|m| Suspect {
            name: "a probed function".into(),
            start: RemoteAddr(m.start - 1),
            end: RemoteAddr(m.end),
            at_start: false,
            at_end: false,
            for_ever: false,
        }));
        suspects.sort_by_key(|s| (s.start, s.end));
        Self {
            suspects,
            own,
            withheld: process.withheld(),
            modules: snapshot.modules.iter().flat_map(occupied).collect(),
            tls: snapshot
                .modules
                .iter()
                .filter_map(|m| m.tls)
                .map(|t| t.mem_size.saturating_add(t.align))
                .fold(DESCRIPTOR, u64::saturating_add),
            setjmp: process.pointer_guard().is_some() && known::is_qemu(process, &snapshot.modules),
            guard: process.pointer_guard().map_or((0, 0), |guard| (guard, process.arch().pointer_rotation())),
            limit,
            buffer: Mutex::new(vec![1; PIECE]),
        }
    }

    /// The code that an address lies in. The first byte does not count: no call returns there, a coroutine that has yet to begin
    /// there begins in the new code, and addresses of functions are everywhere.
    fn suspect(&self, v: u64) -> Option<&Suspect> {
        let after = self.suspects.partition_point(|s| s.start.0 < v);
        self.suspects.get(..after)?.last().filter(|s| v < s.end.0 || s.at_end && v == s.end.0)
    }

    /// As the C library had it before it disguised it.
    fn plain(&self, disguised: u64) -> u64 {
        disguised.rotate_right(self.guard.1) ^ self.guard.0
    }

    /// Returns the first find that may live, and how many bytes were read. While the process runs no thread's place is known:
    /// then all is searched to the end, to see how long that takes.
    fn look(
        &self,
        process: &Process,
        reader: &Reader,
        held: Option<Held<'_>>,
        deadline: Instant,
    ) -> std::result::Result<(Option<Aside>, u64), ProcessError> {
        let maps = process.maps()?;
        let threads = held.map_or(&[][..], |held| held.threads);
        let stacks = Stacks::new(process, &maps, threads);
        let mut sieve = Sieve::new(self, self.candidates(&maps, &stacks), process.unsigned().mask());
        for (_, regs, _) in threads {
            regs.words.iter().take(regs.len).for_each(|word| sieve.pointer(None, *word));
        }
        let setjmp = self.setjmp && stacks.are_known(&sieve.candidates);
        let mut unwound = BTreeMap::new();
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        // What can tell soonest that somebody waits: coroutines' stacks, and the places where their stack pointers are kept.
        let mut mappings: Vec<&Mapping> = self.searched(&maps).collect();
        mappings.sort_by_key(|m| (sieve.candidate(m).is_none(), m.name != "[heap]", m.end - m.start));
        for mapping in mappings {
            let looked_at = stacks.of_threads.get(&mapping.start);
            // What quiescence has looked at may still tell where other stacks are gone on with; below it nothing lives.
            let range = match looked_at {
                Some(_) if sieve.candidates.is_empty() => continue,
                Some(from) => *from..mapping.end,
                None => mapping.start..mapping.end,
            };
            sieve.enter(mapping, looked_at.is_none());
            for piece in self.pieces(reader, mapping, range, deadline) {
                if Instant::now() >= deadline {
                    return Err(ProcessError::TooLong { limit: self.limit });
                }
                let len = usize::try_from(piece.end - piece.start).unwrap_or(PIECE).min(PIECE);
                let (buffer, _) = buffer.split_at_mut(len);
                reader.read(piece.start, buffer)?;
                bytes += len as u64;
                sieve.words(piece.start, buffer);
                for (at, value) in std::mem::take(&mut sieve.found) {
                    let Some(held) = held else { continue };
                    if !stacks.clear(process, &held, &mut unwound, at, deadline) {
                        return Ok((Some(self.aside(mapping, at, value, false)), bytes));
                    }
                }
            }
            // Nothing that is read later can make these dead.
            let certain = |c: &Candidate, at: u64| c.saves.lead(at) || !setjmp && c.others.lead(at);
            let mut lives = sieve.candidates.iter().flat_map(|c| c.hits.iter().filter(move |(at, _)| certain(c, *at)));
            let lives = held.and_then(|held| {
                lives.find(|(at, _)| !stacks.clear(process, &held, &mut unwound, *at, deadline)).copied()
            });
            if let Some((at, value)) = lives {
                return Ok((maps.at(at).map(|mapping| self.aside(mapping, at, value, true)), bytes));
            }
        }
        for (candidate, &(at, value)) in sieve.candidates.iter().flat_map(|c| c.hits.iter().map(move |hit| (c, hit))) {
            let beside = process.read_u64(RemoteAddr(at.saturating_sub(8)))?;
            let lives = !candidate.is_dead(at, setjmp) || self.is_saved_sp(beside, at, candidate, &sieve.candidates);
            let Some(held) = held.filter(|_| lives) else { continue };
            if !stacks.clear(process, &held, &mut unwound, at, deadline) {
                return Ok((maps.at(at).map(|mapping| self.aside(mapping, at, value, true)), bytes));
            }
        }
        Ok((None, bytes))
    }

    fn aside(&self, mapping: &Mapping, at: u64, value: u64, on_stack: bool) -> Aside {
        let address = if self.suspect(value).is_some() { value } else { self.plain(value) };
        let name = if mapping.name.is_empty() { "" } else { " " };
        Aside {
            function: self.suspect(address).map_or_else(String::new, |s| s.name.clone()),
            address: RemoteAddr(address),
            at: RemoteAddr(at),
            word: value,
            mapping: format!("{:#x}-{:#x}{name}{}", mapping.start, mapping.end, mapping.name),
            on_stack,
        }
    }

    /// Mappings in which something may wait. Larger than any stack, and withheld from the program's children: a guest's or a
    /// device's memory. Or executable where the first thread's stack is not: code that the program makes.
    fn searched<'m>(&'m self, maps: &'m Maps) -> impl Iterator<Item = &'m Mapping> {
        let all_executable = maps.iter().any(|m| m.name == "[stack]" && m.exec);
        let foreign = move |m: &Mapping| self.withheld.contains(&(m.start..m.end)) || m.exec && !all_executable;
        maps.iter().filter(move |m| m.write && !(m.end - m.start > LARGE && foreign(m)))
    }

    /// What is there of a part of a mapping, in pieces.
    fn pieces(&self, reader: &Reader, mapping: &Mapping, range: Range<u64>, deadline: Instant) -> Vec<Range<u64>> {
        // Pages of a private mapping that are still the file's have no address of this process in them.
        let file = mapping.inode != 0 && !mapping.shared;
        let there = reader.resident(range.clone(), file, deadline).unwrap_or_else(|| Vec::from([range]));
        let pieces = |r: Range<u64>| (r.start..r.end).step_by(PIECE).map(move |at| at..r.end.min(at + PIECE as u64));
        there.into_iter().flat_map(pieces).collect()
    }

    /// Mappings that may be coroutines' stacks. One has a page below that cannot be touched, so that an overflow is noticed.
    /// What is found without a pointer is none: a module's data by its code, a thread's by its register.
    fn candidates(&self, maps: &Maps, stacks: &Stacks) -> Vec<Candidate> {
        let module = |m: &Mapping| self.modules.iter().any(|r| r.start < m.end && m.start < r.end);
        let anonymous = |m: &Mapping| m.inode == 0 && !m.shared && (m.name.is_empty() || m.name.starts_with("[anon"));
        let guarded = maps
            .iter()
            .filter(|m| m.read && m.write && anonymous(m) && is_guarded(maps, m) && !module(m))
            .filter(|m| !stacks.of_threads.contains_key(&m.start));
        let candidate = |m: &Mapping| {
            // The kernel makes one mapping of a stack and what lies above it: other memory, a thread's data.
            let data = stacks.pointers.iter().filter(|tp| m.contains(**tp)).map(|tp| tp.saturating_sub(self.tls));
            let end = data.chain([m.end, m.start.saturating_add(LARGE)]).min()?;
            (m.start < end).then(|| Candidate::new(m.start..end))
        };
        guarded.filter_map(candidate).collect()
    }

    /// The word below a saved program counter is the stack pointer saved with it, in every structure of the C library, the
    /// kernel's included. Such a structure may lie on a stack and be found by an address above the two.
    fn is_saved_sp(&self, beside: u64, at: u64, own: &Candidate, all: &[Candidate]) -> bool {
        let leads = |v: u64| {
            let other = |c: &Candidate| c.range != own.range && c.holds(v);
            own.range.start <= v && v <= at || all.iter().any(other)
        };
        leads(bare(beside)) || leads(self.plain(beside))
    }
}

/// What a module occupies. Between segments that are linked for larger pages than the machine has, there may be anything else:
/// the kernel loads the dynamic loader and keeps nothing there.
fn occupied(module: &Module) -> impl Iterator<Item = Range<u64>> {
    module.segments.iter().map(|s| module.bias.remote(s.vaddr).0..module.bias.remote(s.end()).0)
}

/// Whether nothing can be touched directly below the mapping. An arena of the C library's `malloc` may look the same.
fn is_guarded(maps: &Maps, mapping: &Mapping) -> bool {
    let below = mapping.start.checked_sub(1).and_then(|at| maps.at(at));
    below.is_some_and(|m| !m.read && !m.write && !m.exec) && !mapping.start.is_multiple_of(ARENA)
}

/// Addresses have 48 bits; what programs put above them marks the pointer.
fn bare(value: u64) -> u64 {
    value & (u64::MAX >> 16)
}

/// Where the threads stand.
#[derive(Debug, Default)]
struct Stacks {
    /// Stacks that threads were born with and are on: the mapping's start, and from where quiescence has looked at it.
    of_threads: BTreeMap<u64, u64>,
    /// For each thread, where its frames may be.
    frames: Vec<Range<u64>>,
    /// All thread pointers.
    pointers: Vec<u64>,
}

impl Stacks {
    fn new(process: &Process, maps: &Maps, threads: &[Thread]) -> Self {
        let arch = process.arch();
        let mut stacks = Self::default();
        let mut on = BTreeMap::new();
        for (tid, regs, tp) in threads {
            let sp = arch.sp(regs);
            stacks.pointers.extend(*tp);
            let Some(mapping) = maps.at(sp) else {
                stacks.frames.push(sp..sp);
                continue;
            };
            let from = sp.saturating_sub(arch.red_zone()).max(mapping.start) & !7;
            let first = *tid == process.pid() && mapping.name == "[stack]";
            let home = first || tp.is_some_and(|tp| mapping.contains(tp)) && is_guarded(maps, mapping);
            stacks.frames.push(from..mapping.end);
            // More than one thread on a stack: it is none that a thread was born with.
            on.entry(mapping.start).and_modify(|home| *home = None).or_insert(home.then_some(from));
        }
        stacks.of_threads = on.into_iter().filter_map(|(start, from)| Some((start, from?))).collect();
        stacks
    }

    /// Whether each thread is on the stack that it was born with or on a coroutine's, and not in a signal handler on another, from
    /// where the stack pointer that matters is saved like any word.
    fn are_known(&self, candidates: &[Candidate]) -> bool {
        let known = |frames: &Range<u64>| {
            self.of_threads.values().any(|from| *from == frames.start)
                || candidates.iter().any(|c| c.range.contains(&frames.start))
        };
        self.frames.iter().all(known)
    }

    /// Whether the word is on the stack of a thread which is known never to come back to it.
    fn clear(
        &self,
        process: &Process,
        held: &Held<'_>,
        unwound: &mut BTreeMap<usize, Unwound>,
        at: u64,
        deadline: Instant,
    ) -> bool {
        self.frames.iter().zip(held.threads).enumerate().filter(|(_, (frames, _))| frames.contains(&at)).any(
            |(index, (_, (_, regs, _)))| {
                unwound.entry(index).or_insert_with(|| held.check.unwind(process, regs, deadline)).clears(at)
            },
        )
    }
}

/// A mapping that may be a coroutine's stack and nothing else.
#[derive(Debug)]
struct Candidate {
    range: Range<u64>,
    /// Where addresses inside the code stand in it, and these.
    hits: Vec<(u64, u64)>,
    /// Ways to it by registers, and by what the C library has disguised; and by all other memory.
    saves: Ways,
    others: Ways,
    /// Whether there is one by a disguised word.
    saved: bool,
}

/// Words that point into a stack.
#[derive(Debug)]
struct Ways {
    /// The lowest address in it that stands outside of it, or in a register.
    lowest: u64,
    /// Words in it that point to lower places in it: where they stand, and where they point.
    down: Vec<(u64, u64)>,
}

impl Ways {
    /// Whether one leads to the return address at `at`.
    fn lead(&self, at: u64) -> bool {
        self.lowest <= at + 8 || self.down.iter().any(|(from, to)| *from > at && *to <= at + 8)
    }
}

/// What a pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Register,
    Plain,
    Disguised,
}

impl Candidate {
    fn new(range: Range<u64>) -> Self {
        let none = || Ways { lowest: u64::MAX, down: Vec::new() };
        Self { range, hits: Vec::new(), saves: none(), others: none(), saved: false }
    }

    /// Notes a pointer to `to`, which lies in this mapping or right behind it.
    fn point(&mut self, from: Option<u64>, to: u64, kind: Kind) {
        self.saved |= kind == Kind::Disguised;
        let ways = if kind == Kind::Plain { &mut self.others } else { &mut self.saves };
        match from.filter(|from| self.range.contains(from)) {
            Some(from) if to > from + 8 => {}
            Some(from) if ways.down.len() < MAX_HITS => ways.down.push((from, to)),
            _ => ways.lowest = ways.lowest.min(to),
        }
    }

    /// Whether a stack pointer may point there: right behind it, when nothing is on the stack.
    fn holds(&self, sp: u64) -> bool {
        self.range.start <= sp && sp <= self.range.end
    }

    /// Whether nothing can come back to the return address at `at`. Who goes on with a stack needs a stack pointer, which is kept
    /// outside of what it leads to, or a pointer to the place on the stack where it is kept. Neither is above the
    /// return address, but for that of a call which has returned already, like `swapcontext`'s and `setjmp`'s: it stands right below.
    ///
    ///   dead(at)  <=>  no word outside of [start, at] points into [start, at + 8]
    ///
    /// Where it is known that stacks are changed by `setjmp` and `longjmp` only, as in QEMU, and a stack pointer that was saved for
    /// this one is there, only such count: what requests that are done have left in memory leads to their coroutines' stacks, too.
    fn is_dead(&self, at: u64, setjmp: bool) -> bool {
        !self.saves.lead(at) && (setjmp && self.saved || !self.others.lead(at))
    }
}

/// As many as fit into the processor's nearer caches.
const PAGE_BITS: usize = 1 << 20;

/// Which word and which bit stands for the page of an address.
fn page_bit(address: u64) -> (usize, u64) {
    let page = address / SMALLEST_PAGE % PAGE_BITS as u64;
    ((page / 64) as usize, 1 << (page % 64))
}

/// Looks at all words, and picks out the few that matter.
struct Sieve<'a> {
    search: &'a Search,
    candidates: Vec<Candidate>,
    /// The lowest address of the code, and how far it extends; the same of the candidates.
    code: (u64, u64),
    stacks: (u64, u64),
    /// A bit for each page of the candidates, and for pages elsewhere whose numbers differ in upper digits only. The heap may
    /// lie among the stacks, and is full of pointers.
    pages: Vec<u64>,
    /// The bits of a return address that are no signature.
    keep: u64,
    /// Whether addresses inside the code count here, and which candidate this is.
    counts: bool,
    here: Option<usize>,
    /// Addresses inside the code that are in no candidate: where they stand, and these.
    found: Vec<(u64, u64)>,
    picked: Vec<(u64, u64)>,
}

impl<'a> Sieve<'a> {
    fn new(search: &'a Search, candidates: Vec<Candidate>, signature: u64) -> Self {
        /// No address of a process.
        const NOWHERE: (u64, u64) = (1 << 63, 0);
        let span = |low: Option<u64>, high: Option<u64>| {
            low.zip(high).map_or(NOWHERE, |(low, high)| (low, high.saturating_sub(low)))
        };
        let code = span(search.suspects.first().map(|s| s.start.0), search.suspects.iter().map(|s| s.end.0).max());
        let stacks = span(candidates.first().map(|c| c.range.start), candidates.last().map(|c| c.range.end));
        let mut pages = vec![0; if candidates.is_empty() { 0 } else { PAGE_BITS / 64 }];
        for at in candidates.iter().flat_map(|c| (c.range.start..=c.range.end).step_by(SMALLEST_PAGE as usize)) {
            let (word, bit) = page_bit(at);
            if let Some(word) = pages.get_mut(word) {
                *word |= bit;
            }
        }
        Self {
            search,
            candidates,
            code,
            stacks,
            pages,
            keep: !signature,
            counts: true,
            here: None,
            found: Vec::new(),
            picked: Vec::new(),
        }
    }

    fn candidate(&self, mapping: &Mapping) -> Option<usize> {
        self.candidates.binary_search_by_key(&mapping.start, |c| c.range.start).ok()
    }

    /// What follows are words of this mapping.
    fn enter(&mut self, mapping: &Mapping, counts: bool) {
        self.counts = counts;
        self.here = self.candidate(mapping);
    }

    /// `bytes` stand at `at`.
    fn words(&mut self, at: u64, bytes: &[u8]) {
        let within = |(low, len): (u64, u64), value: u64| value.wrapping_sub(low) <= len;
        let (code, stacks, (guard, rotation), keep) = (self.code, self.stacks, self.search.guard, self.keep);
        let mut picked = std::mem::take(&mut self.picked);
        // All time is spent here, so that nothing is called, and nothing read but the words.
        let (words, _) = bytes.as_chunks::<8>();
        for (word, place) in words.iter().zip((at..).step_by(8)) {
            let value = u64::from_le_bytes(*word);
            let plain = value.rotate_right(rotation) ^ guard;
            if within(code, value & keep) | within(code, plain) | within(stacks, bare(value)) | within(stacks, plain) {
                picked.push((place, value));
            }
        }
        for (place, value) in picked.drain(..) {
            let plain = self.search.plain(value);
            if self.is_near(bare(value)) || self.is_near(plain) || within(code, value & keep) || within(code, plain) {
                self.pick(place, value);
            }
        }
        self.picked = picked;
    }

    fn is_near(&self, value: u64) -> bool {
        let (word, bit) = page_bit(value);
        self.pages.get(word).is_some_and(|word| word & bit != 0)
    }

    fn pick(&mut self, at: u64, value: u64) {
        self.pointer(Some(at), value);
        let address = value & self.keep;
        let value = if self.search.suspect(address).is_some() { address } else { value };
        let inside = [value, self.search.plain(value)].into_iter().any(|v| self.search.suspect(v).is_some());
        if !inside || !self.counts || self.search.own.iter().any(|own| own.contains(&at)) {
            return;
        }
        match self.here.and_then(|here| self.candidates.get_mut(here)) {
            Some(stack) if stack.range.contains(&at) && stack.hits.len() < MAX_HITS => stack.hits.push((at, value)),
            _ => self.found.push((at, value)),
        }
    }

    /// A word that may point into a candidate.
    fn pointer(&mut self, from: Option<u64>, value: u64) {
        let kind = if from.is_some() { Kind::Plain } else { Kind::Register };
        for (to, kind) in [(bare(value), kind), (self.search.plain(value), Kind::Disguised)] {
            let after = self.candidates.partition_point(|c| c.range.start <= to);
            if let Some(stack) = after.checked_sub(1).and_then(|i| self.candidates.get_mut(i)).filter(|c| c.holds(to)) {
                stack.point(from, to, kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARD: (u64, u32) = (0x1234_5678_9abc_de00, 17);
    /// A stack, and where an address inside the code stands on it.
    const STACK: Range<u64> = 0x7000_0000..0x7001_0000;
    const AT: u64 = 0x7000_8000;

    fn search() -> Search {
        let suspect = |name: &str, start, end, at_end| Suspect {
            name: name.into(),
            start: RemoteAddr(start),
            end: RemoteAddr(end),
            at_start: true,
            at_end,
            for_ever: false,
        };
        Search {
            suspects: Vec::from([suspect("one", 0x5000, 0x5100, true), suspect("two", 0x5100, 0x5200, false)]),
            own: Vec::new(),
            withheld: Vec::new(),
            modules: Vec::new(),
            tls: 0,
            setjmp: false,
            guard: GUARD,
            limit: Duration::ZERO,
            buffer: Mutex::default(),
        }
    }

    fn disguised(value: u64) -> u64 {
        (value ^ GUARD.0).rotate_left(GUARD.1)
    }

    #[test]
    fn addresses_inside_the_code_are_found() {
        let search = search();
        for (word, function) in [
            (0x5000, None),
            (0x5001, Some("one")),
            (0x50ff, Some("one")),
            // Behind the call that the first one ends with, and so before the second one's first byte.
            (0x5100, Some("one")),
            (0x5101, Some("two")),
            (0x51ff, Some("two")),
            (0x5200, None),
            (disguised(0x5042), Some("one")),
            (disguised(0x5200), None),
            (u64::MAX, None),
            (1 << 63, None),
        ] {
            let mut sieve = Sieve::new(&search, Vec::new(), 0);
            sieve.words(0x9000, &[0, word, 0].map(u64::to_le_bytes).concat());
            let expected: &[(u64, u64)] = if function.is_some() { &[(0x9008, word)] } else { &[] };
            assert_eq!(sieve.found, expected, "{word:#x}");
            let name = [word, search.plain(word)].into_iter().find_map(|v| search.suspect(v)).map(|s| s.name.as_str());
            assert_eq!(name, function, "{word:#x}");
        }
    }

    #[test]
    fn a_return_address_without_a_way_back_is_dead() {
        let search = search();
        let here = Mapping { start: STACK.start, end: STACK.end, ..Mapping::default() };
        let elsewhere = Mapping { start: 0x9000, end: 0xa000, ..Mapping::default() };
        for (place, at, word, dead) in [
            // A stack pointer kept elsewhere: above, at, right above for a call that has returned, and below.
            (&elsewhere, 0x9000, AT + 16, true),
            (&elsewhere, 0x9000, AT + 8, false),
            (&elsewhere, 0x9000, AT, false),
            (&elsewhere, 0x9000, STACK.start, false),
            (&elsewhere, 0x9000, STACK.start - 8, true),
            (&elsewhere, 0x9000, disguised(AT - 64), false),
            (&elsewhere, 0x9000, (AT - 64) | (7 << 48), false),
            // On the stack itself: above what it leads to, and among what is dead if this is.
            (&here, AT + 0x100, AT - 64, false),
            (&here, AT + 0x100, AT + 0x80, true),
            (&here, AT - 0x100, AT - 0x180, true),
            (&here, AT - 0x100, AT + 64, true),
        ] {
            let mut sieve = Sieve::new(&search, Vec::from([Candidate::new(STACK)]), 0);
            sieve.enter(&here, true);
            sieve.words(AT, &0x5042u64.to_le_bytes());
            sieve.enter(place, false);
            sieve.words(at, &word.to_le_bytes());
            let candidate = &sieve.candidates[0];
            assert_eq!((sieve.found.as_slice(), candidate.hits.as_slice()), (&[][..], &[(AT, 0x5042)][..]));
            assert_eq!(candidate.is_dead(AT, false), dead, "{word:#x} at {at:#x}");
        }
        // Kept in a register.
        let mut sieve = Sieve::new(&search, Vec::from([Candidate::new(STACK)]), 0);
        sieve.pointer(None, AT - 8);
        assert!(!sieve.candidates[0].is_dead(AT, false) && !sieve.candidates[0].is_dead(AT, true));
        // Where stacks are changed by setjmp alone: any word counts until a saved stack pointer is known, then only these do.
        for (words, dead) in [
            (&[AT - 64][..], false),
            (&[AT - 64, disguised(AT + 64)], true),
            (&[AT - 64, disguised(AT + 64), disguised(AT - 8)], false),
            (&[disguised(AT + 64)], true),
        ] {
            let mut sieve = Sieve::new(&search, Vec::from([Candidate::new(STACK)]), 0);
            sieve.enter(&elsewhere, false);
            words.iter().for_each(|word| sieve.words(0x9000, &word.to_le_bytes()));
            assert_eq!(sieve.candidates[0].is_dead(AT, true), dead, "{words:x?}");
        }
        // Saved together with the address, in a structure on the stack that is found by a place above.
        let candidates = [Candidate::new(STACK), Candidate::new(0x7fff_0000..0x7fff_8000)];
        for (beside, saved) in [(AT - 0x200, true), (AT + 0x200, false), (0x7fff_1000, true), (7, false)] {
            assert_eq!(search.is_saved_sp(beside, AT, &candidates[0], &candidates), saved, "{beside:#x}");
        }
    }
}
