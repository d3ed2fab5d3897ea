// SPDX-License-Identifier: GPL-2.0-or-later
//! Is a stopped thread inside given code? Registers and every word of its stacks are looked at; whatever *could* be a
//! return address into the code is a suspicion, and only precise unwinding clears one. Unknown counts as inside.
//!
//! A thread's frames lie above its stack pointer, except when a signal handler runs on a stack of its own: what it
//! interrupted may be anywhere, even below it, when that stack is an array in some frame. So the contexts that the kernel
//! saves for handlers are looked for too, and the stacks that they lead to are looked at likewise.

use super::error::{BusyThread, Error, Why};
use super::maps::{Mapping, Maps};
use super::stop::Held;
use super::sys::Span;
use super::unwind::{Chain, Unwinder};
use super::{Process, RemoteAddr, Unsigned, kept, sys, task};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Instant;
use ulp_arch::{Arch, Mark};

/// Bytes of stack read at once.
const BUFFER: usize = 1 << 20;
/// Busy threads that a report has room for.
pub const SHOWN: usize = 3;
/// Busy threads that are looked at more closely; each costs the time of unwinding its stack.
const MAX_NAMED: usize = 16;
/// The kernel's limit of ranges in one read.
const MAX_RANGES: usize = 1024;
/// Where there are more suspicions than these on one stack, the rest of it counts as unknown.
const MAX_SUSPICIONS: usize = 4096;
/// No stack that a program makes for itself is larger; what lies above it is other memory.
const LARGEST: u64 = 64 << 20;
/// More handlers than these, each interrupted by the next, are none that were called.
const MAX_CONTEXTS: usize = 64;
/// No coroutine has a smaller stack: this is MINSIGSTKSZ, below which the C library takes none for a handler.
const SMALLEST_STACK: u64 = 2048;

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

    /// A large frame may hold a coroutine's stack from now on, so that what stands in one is not cleared any more.
    pub fn expect_stacks_in_frames(&mut self) {
        self.unwinder.largest_frame = Some(SMALLEST_STACK);
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
        let busy = self.inspect_stacks(process, threads, stacks, scratch, deadline)?;
        if !busy.iter().any(|b| b.why == Why::UnknownStack) {
            return Ok(busy);
        }
        self.inspect_stacks(process, threads, &Stacks { guards: true, ..*stacks }, scratch, deadline)
    }

    fn inspect_stacks(
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
        let mut looked: Vec<Stack> = Vec::new();
        for thread in threads {
            let arch = process.arch();
            let unsigned = process.unsigned();
            let pc = arch.pc(&thread.regs);
            let named =
                |v: u64, why| self.suspect(unsigned.address(v)).map(|s| busy_thread(thread.tid, &s.name, v, why));
            let words = thread.regs.words.iter().take(thread.regs.len);
            let register = named(pc, Why::Running).or_else(|| words.copied().find_map(|w| named(w, Why::Register)));
            if let Some(found) = register {
                busy.push(found);
                continue;
            }
            match stacks.of(process, thread, deadline)? {
                Some(list) => looked.extend(list),
                None => {
                    let sp = arch.sp(&thread.regs);
                    busy.push(busy_thread(thread.tid, "an unknown place", sp, Why::UnknownStack));
                }
            }
        }
        if !busy.is_empty() {
            return Ok(busy);
        }
        let mut chains = Chains { unwinder: &self.unwinder, process, deadline, last: None };
        let mut hits = Vec::new();
        let mut new: Vec<Stack> = looked.clone();
        while !new.is_empty() {
            let found = self.scan(process, &new, stacks.uprobes(), scratch, deadline)?;
            hits.extend(found.hits);
            new.clear();
            for context in found.contexts {
                if Instant::now() >= deadline {
                    return Err(Error::TooLong { limit: scratch.limit });
                }
                let Some(thread) = threads.iter().find(|t| t.tid == context.thread) else { continue };
                let Some(stack) = stacks.interrupted(process, &context, &looked, deadline)? else { continue };
                // Left behind by a handler that has ended.
                if chains.of(thread).leaves_out(context.pc_at(process)) {
                    continue;
                }
                if looked.iter().filter(|s| s.thread == context.thread).count() > MAX_CONTEXTS {
                    busy.push(busy_thread(thread.tid, "an unknown place", context.at, Why::UnknownStack));
                    break;
                }
                looked.push(stack.clone());
                new.push(stack);
            }
        }
        for hit in hits {
            let Some(thread) = threads.iter().find(|t| t.tid == hit.thread) else { continue };
            // A frame says more than a word that only looks like one.
            let known = busy.iter().position(|b| b.tid == hit.thread);
            if known.and_then(|i| busy.get(i)).is_some_and(|b| !matches!(b.why, Why::StackWord(_))) {
                continue;
            }
            let found = match hit.at {
                None => busy_thread(hit.thread, "an unknown place", hit.value, Why::UnknownStack),
                Some(at) => {
                    let chain = chains.of(thread);
                    let why = match chain.returns.iter().position(|slot| *slot == at) {
                        Some(frame) => Why::Frame(frame),
                        None if chain.clears(at) => continue,
                        None => Why::StackWord(RemoteAddr(at)),
                    };
                    match self.suspect(hit.value) {
                        Some(suspect) => busy_thread(hit.thread, &suspect.name, hit.value, why),
                        None => busy_thread(hit.thread, "a probed function", hit.value, Why::Uprobe(RemoteAddr(at))),
                    }
                }
            };
            match known.and_then(|i| busy.get_mut(i)) {
                Some(word) if matches!(found.why, Why::Frame(_)) => *word = found,
                Some(_) => {}
                None => busy.push(found),
            }
        }
        Ok(busy)
    }

    /// Reads the unwind tables that only files on disk have, when they may clear what is in the way. Nothing may be stopped.
    pub fn learn(&self, process: &Process, busy: &[BusyThread]) {
        if busy.iter().any(|b| matches!(b.why, Why::StackWord(_) | Why::Uprobe(_))) {
            self.unwinder.read_files(process);
        }
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
            let unsigned = process.unsigned();
            let values = chain.returns.iter().map_while(|at| process.read_u64(RemoteAddr(*at)).ok());
            let values: Vec<u64> = values.map(|word| unsigned.address(word)).collect();
            // A word that could be stale says nothing about for ever.
            let there = |v: u64| self.suspect(v).is_some_and(|s| s.for_ever);
            b.for_ever = matches!(b.why, Why::Running | Why::Frame(_)) && there(b.address.0);
            let inside = values.iter().rposition(|v| self.suspect(*v).is_some());
            b.caller = values.get(inside.map_or(0, |i| i + 1)).copied().map(RemoteAddr);
        }
    }

    /// Reads all stacks, many pieces at a time, and returns the suspicious words.
    fn scan(
        &self,
        process: &Process,
        stacks: &[Stack],
        uprobes: Option<(u64, u64)>,
        scratch: &mut Scratch,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut batch: Vec<Region> = Vec::new();
        let mut bytes = 0;
        let arch = process.arch();
        let scanner = Scanner { check: self, uprobes, arch, mark: arch.signal_mark(), unsigned: process.unsigned() };
        let regions = stacks.iter().flat_map(|s| s.parts.iter().map(|(at, len)| (s.thread, *at, *len)));
        for (thread, at, len) in regions {
            let mut rest = Region { thread, at, len };
            while rest.len > 0 {
                if bytes == BUFFER || batch.len() == MAX_RANGES {
                    scanner.scan(&batch, scratch, &mut found);
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
        scanner.scan(&batch, scratch, &mut found);
        Ok(found)
    }
}

/// What words are looked for.
struct Scanner<'a> {
    check: &'a Check,
    uprobes: Option<(u64, u64)>,
    arch: &'static dyn Arch,
    mark: Mark,
    unsigned: Unsigned,
}

impl Scanner<'_> {
    /// Whether the mark at `index` of `words`, which is at `at`, stands in a context.
    fn is_context(&self, words: &[[u8; 8]], index: usize, at: u64) -> bool {
        let word = |offset: i64| {
            let index = index.checked_add_signed(isize::try_from(offset / 8).ok()?)?;
            words.get(index).map(|word| u64::from_le_bytes(*word))
        };
        self.arch.may_be_context(at, &word)
    }

    fn scan(&self, batch: &[Region], scratch: &mut Scratch, found: &mut Found) {
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
                found.hits.push(Hit { thread: region.thread, at: None, value: region.at });
                continue;
            }
            let before = found.hits.len();
            let (words, _) = bytes.as_chunks::<8>();
            for (index, word) in words.iter().enumerate() {
                let word = u64::from_le_bytes(*word);
                let at = region.at.saturating_add(8 * index as u64);
                if self.mark.is(word) && self.is_context(words, index, at) {
                    found.contexts.push(Context { thread: region.thread, at });
                }
                let value = self.unsigned.address(word);
                let probed = self.uprobes.is_some_and(|(from, to)| from <= value && value < to);
                if !probed && self.check.suspect(value).is_none() {
                    continue;
                }
                if found.hits.len() - before == MAX_SUSPICIONS {
                    found.hits.push(Hit { thread: region.thread, at: None, value: at });
                    break;
                }
                found.hits.push(Hit { thread: region.thread, at: Some(at), value });
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

/// Pieces of one stack of a thread that are looked at, or those of its home stack that are there.
#[derive(Clone, Debug)]
struct Stack {
    thread: i32,
    /// What the pieces stand for: from the lowest byte that may be in use to the mapping's end.
    whole: (u64, u64),
    parts: Vec<(u64, usize)>,
}

/// What a look at stacks has found.
#[derive(Default)]
struct Found {
    hits: Vec<Hit>,
    contexts: Vec<Context>,
}

/// A suspicious word; without a place when the region could not be read.
struct Hit {
    thread: i32,
    at: Option<u64>,
    value: u64,
}

/// What may be a context that the kernel saved for a signal handler: where its mark stands.
struct Context {
    thread: i32,
    at: u64,
}

impl Context {
    /// Where the program counter is saved in it; 0 where there is no such thing.
    fn pc_at(&self, process: &Process) -> u64 {
        process.arch().interrupted_at().map_or(0, |offset| self.at.wrapping_add_signed(offset))
    }

    /// Where the stack pointer is, likewise.
    fn sp_at(&self, process: &Process) -> u64 {
        let arch = process.arch();
        arch.saved_by_signal(arch.dwarf_sp()).map_or(0, |offset| self.at.wrapping_add_signed(offset))
    }
}

/// The way from a thread's registers to the bottom of its stack; the last one asked for is kept.
struct Chains<'a> {
    unwinder: &'a Unwinder,
    process: &'a Process,
    deadline: Instant,
    last: Option<(i32, Chain)>,
}

impl Chains<'_> {
    fn of(&mut self, thread: &Held) -> &Chain {
        let known = self.last.take().filter(|(tid, _)| *tid == thread.tid);
        let unwind = || (thread.tid, self.unwinder.unwind(self.process, &thread.regs, self.deadline));
        &self.last.insert(known.unwrap_or_else(unwind)).1
    }
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
    /// Whether stacks end at guard pages. It takes time to look for them, and who reads a stack to its end has met with none.
    guards: bool,
}

impl<'a> Stacks<'a> {
    /// Mappings as of now.
    pub fn current(maps: &'a Maps, pagemap: Option<&'a File>) -> Self {
        Self { maps, live: None, pagemap, guards: false }
    }

    /// Mappings as of a moment ago, and a file that knows better.
    pub fn queried(maps: &'a Maps, live: &'a File, pagemap: Option<&'a File>) -> Self {
        Self { maps, live: Some(live), pagemap, guards: false }
    }

    fn mapping(&self, addr: u64) -> Result<Option<Span>, Error> {
        match self.live {
            Some(file) => sys::query_mapping(file.as_fd(), addr)
                .map_err(|source| Error::System { what: "ask for a mapping", source }),
            None => Ok(self.maps.at(addr).map(|m| {
                let Mapping { start, end, shared, .. } = *m;
                Span { start, end, data: m.read && m.write, shared }
            })),
        }
    }

    fn uprobes(&self) -> Option<(u64, u64)> {
        self.maps.iter().find(|m| m.name == "[uprobes]").map(|m| (m.start, m.end))
    }

    /// A thread's stacks that may hold frames; `None` when its stack pointer leads nowhere.
    fn of(&self, process: &Process, thread: &Held, deadline: Instant) -> Result<Option<Vec<Stack>>, Error> {
        let home = self.home(process, thread)?;
        let Some((from, end)) = self.in_use(process, process.arch().sp(&thread.regs), home)? else { return Ok(None) };
        let guard = self.first_guard(from, end, deadline);
        let end = guard.unwrap_or(end);
        // The first thread's descriptor is elsewhere.
        let pointer = thread.thread_pointer.filter(|tp| home.is_some_and(|home| home.start <= *tp && *tp < home.end));
        let Ok(len) = usize::try_from(end.saturating_sub(from)) else { return Ok(None) };
        let mut stacks = vec![Stack { thread: thread.tid, whole: (from, end), parts: vec![(from, len)] }];
        // On an alternate or a coroutine's stack, the frames that were left are in the home stack. Of a mapping with many stacks in it
        // this is the one with the thread's descriptor.
        let left = match home {
            Some(home) if !(from < home.end && home.start < end) => Some(home),
            Some(home) if guard.is_some() && pointer.is_none_or(|tp| !(from <= tp && tp < end)) => Some(home),
            _ => None,
        };
        if let Some(home) = left {
            stacks.push(self.resident(thread.tid, home, pointer, deadline));
        }
        Ok(Some(stacks))
    }

    /// Where the first page stands above `from` that guards another stack. The C library may have all threads' stacks in one mapping
    /// (glibc 2.42 on Linux 6.13), and before Linux 6.15 nothing tells where they end: then they cannot be read to the end.
    fn first_guard(&self, from: u64, end: u64, deadline: Instant) -> Option<u64> {
        let guards = self.pagemap.filter(|_| self.guards).and_then(|f| kept::guards(f, from..end, deadline))?;
        guards.first().map(|guard| guard.start)
    }

    /// What may be in use of the stack with this stack pointer, if there is memory. The kernel makes several mappings of a
    /// stack when parts of it are locked or kept out of dumps, so what adjoins may belong to it too, up to the thread's home.
    fn in_use(&self, process: &Process, sp: u64, home: Option<Span>) -> Result<Option<(u64, u64)>, Error> {
        let Some(first) = self.mapping(sp)? else { return Ok(None) };
        let from = sp.saturating_sub(process.arch().red_zone()).max(first.start) & !7;
        let is_home = |span: Span| home.is_some_and(|home| home.start < span.end && span.start < home.end);
        let mut last = first;
        while !is_home(last) {
            match self.mapping(last.end)? {
                Some(next) if next.start == last.end && next.data && (is_home(next) || next.end - from <= LARGEST) => {
                    last = next;
                }
                _ => break,
            }
        }
        Ok(Some((from, last.end)))
    }

    /// The part of a stack that a signal interrupted and that has not been `looked` at; `None` when there is none.
    fn interrupted(
        &self,
        process: &Process,
        context: &Context,
        looked: &[Stack],
        deadline: Instant,
    ) -> Result<Option<Stack>, Error> {
        let at = context.sp_at(process);
        let Ok(sp) = process.read_u64(RemoteAddr(at)) else { return Ok(None) };
        let Some((from, end)) = self.in_use(process, sp, None)? else { return Ok(None) };
        let end = self.first_guard(from, end, deadline).unwrap_or(end);
        let own = looked.iter().filter(|s| s.thread == context.thread && s.whole.0 < end && from < s.whole.1);
        let end = own.map(|s| s.whole.0).min().unwrap_or(end);
        if from >= end {
            return Ok(None);
        }
        let shared = self.mapping(from)?.is_none_or(|span| span.shared);
        Ok(Some(self.resident(context.thread, Span { start: from, end, data: true, shared }, None, deadline)))
    }

    /// The stack a thread was born with: `[stack]` for the first, else the mapping that holds the thread pointer (the C
    /// libraries put a thread's descriptor at the top of its stack).
    fn home(&self, process: &Process, thread: &Held) -> Result<Option<Span>, Error> {
        if thread.tid == process.pid() {
            let stack = self.maps.iter().find(|m| m.name == "[stack]");
            return Ok(stack.map(|m| Span { start: m.start, end: m.end, data: true, shared: false }));
        }
        match thread.thread_pointer {
            Some(tp) if tp != 0 => self.mapping(tp),
            _ => Ok(None),
        }
    }

    /// What is there (or swapped out) of part of a stack: reading the rest would only create it. A thread's descriptor, at `pointer`, is
    /// at its stack's top, so that no frame is above the next guard. A guard below may be that of another stack which
    /// lies in one of its frames, so all is looked at there.
    fn resident(&self, thread: i32, span: Span, pointer: Option<u64>, deadline: Instant) -> Stack {
        // What several processes share may be there without this one having touched it.
        let pagemap = self.pagemap.filter(|_| !span.shared);
        let there = pagemap.and_then(|f| kept::resident_stack(f, span.start..span.end, pointer, deadline));
        let part = |r: Range<u64>| (r.start, usize::try_from(r.end - r.start).unwrap_or(usize::MAX));
        let parts = there.map_or_else(|| vec![part(span.start..span.end)], |all| all.into_iter().map(part).collect());
        Stack { thread, whole: (span.start, span.end), parts }
    }
}
