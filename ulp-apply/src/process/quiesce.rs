// SPDX-License-Identifier: GPL-2.0-or-later
//! Is a stopped thread inside given code? Registers and every word of its stacks are looked at; whatever *could* be a
//! return address into the code is a suspicion, and only precise unwinding clears one. Unknown counts as inside.

use super::error::{BusyThread, Error, Why};
use super::maps::Maps;
use super::stop::Held;
use super::unwind::{Chain, Unwinder};
use super::{Process, RemoteAddr, sys, task};
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Instant;

/// Bytes of stack read at once.
const BUFFER: usize = 1 << 20;
/// Busy threads that a report has room for.
pub const SHOWN: usize = 3;
/// Busy threads that are looked at more closely; each costs the time of unwinding its stack.
const MAX_NAMED: usize = 16;
/// The kernel's limit of ranges in one read.
const MAX_RANGES: usize = 1024;
/// More suspicions than these on one stack say no more than these.
const MAX_SUSPICIONS: usize = 1024;
const PAGE: u64 = 4096;

/// Code that is about to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspect {
    /// The function, for people.
    pub name: String,
    /// First byte.
    pub start: RemoteAddr,
    /// One past the last byte.
    pub end: RemoteAddr,
    /// Whether the first byte is inside too, because the function branches to it or because the code will be unmapped.
    pub at_start: bool,
    /// Whether `end` is inside too, because the last instruction is a call, whose return address it is. Otherwise it is the
    /// address of the next function, which a thread may well have at hand.
    pub at_end: bool,
    /// Whether whoever is inside stays there for ever.
    pub for_ever: bool,
}

impl Suspect {
    fn holds(&self, v: u64) -> bool {
        self.start.0 < v && v < self.end.0 || self.at_start && v == self.start.0 || self.at_end && v == self.end.0
    }
}

/// What is asked of every thread: whether it is inside any of these.
#[derive(Debug, Default)]
pub struct Check {
    suspects: Vec<Suspect>,
    unwinder: Unwinder,
    /// The lowest start and the highest end, for a fast first look.
    span: (u64, u64),
}

impl Check {
    /// A check; without suspects every thread is quiet.
    pub fn new(suspects: Vec<Suspect>, unwinder: Unwinder) -> Self {
        let low = suspects.iter().map(|s| s.start.0).min().unwrap_or(u64::MAX);
        let high = suspects.iter().map(|s| s.end.0).max().unwrap_or(0);
        Self { suspects, unwinder, span: (low, high) }
    }

    /// The code that is asked about.
    pub fn suspects(&self) -> &[Suspect] {
        &self.suspects
    }

    /// Unwinds a thread that is held, to know which words of its stack are dead.
    pub fn unwind(&self, process: &Process, regs: &ulp_arch::Regs, deadline: Instant) -> Unwound {
        Unwound(self.unwinder.unwind(process, regs, deadline))
    }

    fn suspect(&self, v: u64) -> Option<&Suspect> {
        if v < self.span.0 || v > self.span.1 {
            return None;
        }
        self.suspects.iter().find(|s| s.holds(v))
    }

    /// Looks at stopped threads; returns those that are, or may be, inside.
    pub(super) fn inspect(
        &self,
        process: &Process,
        threads: &[&Held],
        stacks: &Stacks<'_>,
        scratch: &mut Scratch,
        deadline: Instant,
    ) -> Result<Vec<BusyThread>, Error> {
        if self.suspects.is_empty() {
            return Ok(Vec::new());
        }
        let mut busy = Vec::new();
        let mut regions = Vec::new();
        for thread in threads {
            let arch = process.arch();
            let pc = arch.pc(&thread.regs);
            let named = |v: u64, why| self.suspect(v).map(|s| busy_thread(thread.tid, &s.name, v, why));
            let words = thread.regs.words.iter().take(thread.regs.len);
            let register = named(pc, Why::Running).or_else(|| words.copied().find_map(|w| named(w, Why::Register)));
            if let Some(found) = register {
                busy.push(found);
                continue;
            }
            match stacks.regions(process, thread)? {
                Some(list) => regions.extend(list.into_iter().map(|(at, len)| Region { thread: thread.tid, at, len })),
                None => {
                    let sp = arch.sp(&thread.regs);
                    busy.push(busy_thread(thread.tid, "an unknown place", sp, Why::UnknownStack));
                }
            }
        }
        if !busy.is_empty() {
            return Ok(busy);
        }
        let found = self.scan(&regions, stacks.uprobes(), scratch, deadline)?;
        let mut chain: Option<(i32, Chain)> = None;
        for hit in found {
            let Some(thread) = threads.iter().find(|t| t.tid == hit.thread) else { continue };
            if busy.iter().any(|b: &BusyThread| b.tid == hit.thread) {
                continue;
            }
            let Some(at) = hit.at else {
                busy.push(busy_thread(hit.thread, "an unknown place", hit.value, Why::UnknownStack));
                continue;
            };
            let chain = match &mut chain {
                Some((tid, chain)) if *tid == thread.tid => &*chain,
                other => {
                    let fresh = self.unwinder.unwind(process, &thread.regs, deadline);
                    &other.insert((thread.tid, fresh)).1
                }
            };
            let why = match chain.returns.iter().position(|slot| *slot == at) {
                Some(frame) => Why::Frame(frame),
                None if chain.clears(at) => continue,
                None => Why::StackWord(RemoteAddr(at)),
            };
            let found = match self.suspect(hit.value) {
                Some(suspect) => busy_thread(hit.thread, &suspect.name, hit.value, why),
                None => busy_thread(hit.thread, "a probed function", hit.value, Why::Uprobe(RemoteAddr(at))),
            };
            busy.push(found);
        }
        Ok(busy)
    }

    /// Finds out the threads' names, who called the functions that the first of the busy threads are in, and whether they will ever leave them;
    /// for people, so it may fail.
    pub(super) fn explain(&self, process: &Process, threads: &[Held], busy: &mut [BusyThread], deadline: Instant) {
        for b in busy.iter_mut() {
            b.comm = task::comm(process.pid(), b.tid);
        }
        for b in busy.iter_mut().take(MAX_NAMED) {
            let Some(thread) = threads.iter().find(|t| t.tid == b.tid) else { continue };
            let chain = self.unwinder.unwind(process, &thread.regs, deadline);
            let values = chain.returns.iter().map_while(|at| process.read_u64(RemoteAddr(*at)).ok());
            let values: Vec<u64> = values.collect();
            // A word that could be stale says nothing about for ever.
            let there = |v: u64| self.suspect(v).is_some_and(|s| s.for_ever);
            b.for_ever = matches!(b.why, Why::Running | Why::Frame(_)) && there(b.address.0);
            let inside = values.iter().rposition(|v| self.suspect(*v).is_some());
            b.caller = values.get(inside.map_or(0, |i| i + 1)).copied().map(RemoteAddr);
        }
    }

    /// Reads all regions, many at a time, and returns the suspicious words.
    fn scan(
        &self,
        regions: &[Region],
        uprobes: Option<(u64, u64)>,
        scratch: &mut Scratch,
        deadline: Instant,
    ) -> Result<Vec<Hit>, Error> {
        let mut hits = Vec::new();
        let mut batch: Vec<Region> = Vec::new();
        let mut bytes = 0;
        for region in regions {
            let mut rest = *region;
            while rest.len > 0 {
                if bytes == BUFFER || batch.len() == MAX_RANGES {
                    self.scan_batch(&batch, uprobes, scratch, &mut hits);
                    (bytes, batch) = (0, Vec::new());
                    if Instant::now() >= deadline {
                        return Err(Error::TooLong { limit: scratch.limit });
                    }
                }
                let len = rest.len.min(BUFFER - bytes);
                batch.push(Region { len, ..rest });
                bytes += len;
                rest.len -= len;
                rest.at = rest.at.saturating_add(len as u64);
            }
        }
        self.scan_batch(&batch, uprobes, scratch, &mut hits);
        Ok(hits)
    }

    fn scan_batch(&self, batch: &[Region], uprobes: Option<(u64, u64)>, scratch: &mut Scratch, hits: &mut Vec<Hit>) {
        // A thread that is held has the memory. The first one may have ended, and then has none.
        let Some(holder) = batch.first().map(|region| region.thread) else { return };
        let ranges: Vec<_> = batch.iter().map(|r| (r.at, r.len)).collect();
        let total: usize = batch.iter().map(|r| r.len).sum();
        let whole = sys::read_ranges(holder, &mut scratch.buffer, &ranges).is_ok_and(|n| n == total);
        let mut from = 0;
        for region in batch {
            let Some(bytes) = scratch.buffer.get_mut(from..from + region.len) else { return };
            from += region.len;
            // One bad range spoils a batch: then each is read by itself, and the bad one is unknown.
            if !whole && !sys::read_ranges(holder, bytes, &[(region.at, region.len)]).is_ok_and(|n| n == region.len) {
                hits.push(Hit { thread: region.thread, at: None, value: region.at });
                continue;
            }
            let before = hits.len();
            let (words, _) = bytes.as_chunks::<8>();
            for (index, word) in words.iter().enumerate() {
                let value = u64::from_le_bytes(*word);
                let probed = uprobes.is_some_and(|(from, to)| from <= value && value < to);
                if (probed || self.suspect(value).is_some()) && hits.len() - before < MAX_SUSPICIONS {
                    let at = region.at.saturating_add(8 * index as u64);
                    hits.push(Hit { thread: region.thread, at: Some(at), value });
                }
            }
        }
    }
}

/// What is known of one thread's stack.
#[derive(Debug)]
pub struct Unwound(Chain);

impl Unwound {
    /// Whether the word at `at` is known to be nothing that will ever be jumped to.
    pub fn clears(&self, at: u64) -> bool {
        self.0.clears(at)
    }
}

/// Without what takes time to find out; see [`Check::explain`].
fn busy_thread(tid: i32, function: &str, address: u64, why: Why) -> BusyThread {
    BusyThread {
        tid,
        comm: String::new(),
        function: function.to_owned(),
        address: RemoteAddr(address),
        why,
        caller: None,
        for_ever: false,
        hot: false,
    }
}

/// Part of a stack.
#[derive(Clone, Copy, Debug)]
struct Region {
    thread: i32,
    at: u64,
    len: usize,
}

/// A suspicious word; without a place when the region could not be read.
struct Hit {
    thread: i32,
    at: Option<u64>,
    value: u64,
}

/// Memory for the stacks, touched before anything is stopped: fresh pages would cost more than the reading.
pub(super) struct Scratch {
    buffer: Vec<u8>,
    /// The stop's limit, for messages.
    limit: std::time::Duration,
}

impl Scratch {
    pub fn new(limit: std::time::Duration) -> Self {
        // Not `vec![0; n]`: that would leave the pages to be populated at their first use.
        let mut buffer = Vec::with_capacity(BUFFER);
        buffer.resize(BUFFER, 1);
        Self { buffer, limit }
    }
}

/// Where stacks end.
pub(super) struct Stacks<'a> {
    maps: &'a Maps,
    /// The maps file to ask about single mappings, where the kernel can answer and `maps` may be out of date.
    live: Option<&'a File>,
    pagemap: Option<&'a File>,
}

impl<'a> Stacks<'a> {
    /// Mappings as of now.
    pub fn current(maps: &'a Maps, pagemap: Option<&'a File>) -> Self {
        Self { maps, live: None, pagemap }
    }

    /// Mappings as of a moment ago, and a file that knows better.
    pub fn queried(maps: &'a Maps, live: &'a File, pagemap: Option<&'a File>) -> Self {
        Self { maps, live: Some(live), pagemap }
    }

    fn mapping(&self, addr: u64) -> Result<Option<(u64, u64)>, Error> {
        match self.live {
            Some(file) => sys::query_mapping(file.as_fd(), addr)
                .map_err(|source| Error::System { what: "ask for a mapping", source }),
            None => Ok(self.maps.at(addr).map(|m| (m.start, m.end))),
        }
    }

    fn uprobes(&self) -> Option<(u64, u64)> {
        self.maps.iter().find(|m| m.name == "[uprobes]").map(|m| (m.start, m.end))
    }

    /// The parts of a thread's stacks that may hold frames; `None` when its stack pointer leads nowhere.
    fn regions(&self, process: &Process, thread: &Held) -> Result<Option<Vec<(u64, usize)>>, Error> {
        let arch = process.arch();
        let sp = arch.sp(&thread.regs);
        let Some((start, end)) = self.mapping(sp)? else { return Ok(None) };
        let from = sp.saturating_sub(arch.red_zone()).max(start) & !7;
        let Ok(len) = usize::try_from(end.saturating_sub(from)) else { return Ok(None) };
        let mut regions = vec![(from, len)];
        if let Some((home_start, home_end)) = self.home(process, thread)?
            && !(home_start <= sp && sp < home_end)
        {
            // On an alternate or a coroutine's stack: the frames that were left are in the home stack.
            regions.extend(self.resident(home_start, home_end));
        }
        Ok(Some(regions))
    }

    /// The stack a thread was born with: `[stack]` for the first, else the mapping that holds the thread pointer (the C
    /// libraries put a thread's descriptor at the top of its stack).
    fn home(&self, process: &Process, thread: &Held) -> Result<Option<(u64, u64)>, Error> {
        if thread.tid == process.pid() {
            return Ok(self.maps.iter().find(|m| m.name == "[stack]").map(|m| (m.start, m.end)));
        }
        match process.arch().thread_pointer(&thread.regs) {
            Some(tp) if tp != 0 => self.mapping(tp),
            _ => Ok(None),
        }
    }

    /// The pages that are there (or swapped out): reading the others would only create them.
    fn resident(&self, start: u64, end: u64) -> Vec<(u64, usize)> {
        let pages = usize::try_from((end - start) / PAGE).unwrap_or(0);
        let mut entries = vec![0u8; pages.saturating_mul(8)];
        let known = self.pagemap.is_some_and(|f| sys::read_at(f, &mut entries, start / PAGE * 8).is_ok());
        if !known {
            return vec![(start, usize::try_from(end - start).unwrap_or(usize::MAX))];
        }
        const PRESENT_OR_SWAPPED: u64 = 3 << 62;
        let (words, _) = entries.as_chunks::<8>();
        let there = words.iter().map(|w| u64::from_le_bytes(*w) & PRESENT_OR_SWAPPED != 0);
        (0u64..).zip(there).filter(|(_, there)| *there).map(|(n, _)| (start + n * PAGE, PAGE as usize)).collect()
    }
}
