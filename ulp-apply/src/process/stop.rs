// SPDX-License-Identifier: GPL-2.0-or-later
//! Holding all threads of a process still. Sleeping threads are stopped and looked at first while running ones run
//! on, so that a running thread's gap does not grow with the number of threads; what is born meanwhile is caught.
//!
//! The tracer is a thread of its own which lives as long as the stop. When it ends, the kernel lets go of whatever
//! it still traces, stopped or not, which is the last line of every error path here: nothing can be left stopped.

use super::cure::look_and_cure;
use super::error::{BusyThread, Error};
use super::going::{Debt, Going};
use super::maps::Maps;
use super::quiesce::{Check, Scratch, Stacks};
use super::reader::Reader;
use super::sys::{self, DeadMan, Wait, event};
use super::tracer::{next_report, next_report_beside, on_tracer};
use super::undisturbed::{Undisturbed, end_us_after};
use super::{Process, RemoteAddr, task};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use ulp_arch::{Asleep, Regs};

/// Which part of the time a stop may take goes into letting hot threads out of the code, at most.
const LETTING_OUT: u32 = 2;

/// What a thread costs in a stop: interrupt and wait 4.7 us, registers 1.4, 7 KB of stack 2.6, detach 1.6, as measured on the
/// machine of docs/benchmarks.md, and half of that again.
const PER_THREAD: Duration = Duration::from_micros(15);

/// How long threads that were told to stop are waited for when the stop has come to nothing.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// How long the parts of a stop took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timings {
    /// Full stops that it took, this one included.
    pub attempts: u32,
    /// Threads that were held.
    pub threads: usize,
    /// Threads that were running when we looked.
    pub runners: usize,
    /// Threads whose system call would have failed with EINTR because of us.
    pub cured: usize,
    /// Threads whose system call fails with EINTR, perhaps because of us: a kernel that does not tell its first argument.
    pub interrupted: usize,
    /// From the first interrupt to the last sleeping thread stopped and looked at.
    pub sleepers: Duration,
    /// From the first running thread's interrupt until the last of them was let go.
    pub gap: Duration,
    /// From the first interrupt to the last thread let go.
    pub hold: Duration,
}

/// A stopped thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub tid: i32,
    pub regs: Regs,
    pub thread_pointer: Option<u64>,
    /// A signal that was about to be delivered, 0 for none; it is delivered when the thread is let go.
    signal: i32,
    debt: Option<Debt>,
}

/// Proof that every thread of the process is stopped and none is inside the code that was asked about. It exists
/// only inside the closure given to [`Process::stop`], on the thread that traces.
pub struct Quiet<'a> {
    process: &'a Process,
    holder: i32,
    deadline: Instant,
    stack_tops: Vec<u64>,
    held: &'a [Held],
    // A tracer is one thread: the guard may not leave it.
    _tracer: PhantomData<*const ()>,
}

impl Quiet<'_> {
    /// Writes memory, also where it is mapped read-only.
    pub fn write(&self, addr: RemoteAddr, bytes: &[u8]) -> Result<(), Error> {
        self.process.write(self.holder, addr, bytes)
    }

    /// Whether code is written word by word here, so that a longer piece can be cut short by our death.
    pub fn writes_words(&self, at: RemoteAddr) -> Result<bool, Error> {
        self.process.writes_words(at)
    }

    /// The thread pointers of all threads but the first: where, at the top of their stacks, their descriptors are.
    pub fn stack_tops(&self) -> &[u64] {
        &self.stack_tops
    }

    /// The threads that are held, with their registers and thread pointers.
    pub fn threads(&self) -> impl Iterator<Item = (i32, &Regs, Option<u64>)> {
        self.held.iter().map(|h| (h.tid, &h.regs, h.thread_pointer))
    }

    /// Reads much memory at once, through a thread that is held.
    pub fn reader(&self) -> Result<Reader, Error> {
        Reader::new(self.process, self.holder)
    }

    /// When the stop's time is up; nothing enforces it from here on, so look before beginning something long.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Process {
    /// Refuses a process with so many threads that they cannot be stopped and looked at within `limit`.
    pub fn refuse_too_large(&self, limit: Duration) -> Result<(), Error> {
        let threads = task::list(self.pid)?.len();
        let estimate = PER_THREAD.saturating_mul(u32::try_from(threads).unwrap_or(u32::MAX));
        if estimate <= limit {
            return Ok(());
        }
        Err(Error::TooLarge { pid: self.pid, threads, estimate, limit })
    }

    /// Stops every thread, checks that none is inside the suspects of `check`, and runs `f` before all go on. With
    /// [`Error::Busy`] (as with every error) nothing was changed and all threads have gone on. Takes at most `max_stop`.
    pub fn stop<R: Send>(
        &self,
        max_stop: Duration,
        check: &Check,
        f: impl FnOnce(&Quiet<'_>) -> R + Send,
    ) -> Result<(R, Timings), Error> {
        let _undisturbed = Undisturbed::new();
        on_tracer(self, || {
            let others = self.refuse_shared_memory(&HashSet::new())?;
            let mut scratch = Scratch::new(max_stop);
            let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            // Opened before anything is held. They are the memory's: it is no matter whether the thread lives on.
            let files = Files::open(self)?;
            let live = Some(&files.maps).filter(|f| sys::can_query_mappings(f.as_fd()));
            let mut crowd = Crowd::new(self, max_stop);
            crowd.seize_all()?;
            // Who was born of a thread that we did not trace yet is seen now; later births show themselves.
            self.refuse_shared_memory(&others)?;
            crowd.hold_sleepers(processors)?;
            let maps = self.mappings(&files.maps)?;
            let stacks = Stacks::current(&maps, files.pagemap.as_ref());
            crowd.refuse_busy(check, 0, &stacks, &mut scratch)?;
            // Now, and not while the running ones are held: of a thousand threads this takes longer than the rest.
            let mut stack_tops: Vec<u64> = crowd.stack_tops(0).collect();
            crowd.timings.sleepers = crowd.began.elapsed();
            crowd.hold_runners()?;
            let runners = Runners { check, maps: &maps, files: &files, live, processors };
            crowd.check_runners(&runners, &mut scratch).or_else(|e| match e {
                Error::Busy { threads, .. } => crowd.let_out(&runners, threads, &mut scratch),
                other => Err(other),
            })?;
            let holder = crowd.held.last().map(|h| h.tid).ok_or(Error::Gone { pid: self.pid })?;
            stack_tops.extend(crowd.stack_tops(crowd.runners_from));
            let quiet = Quiet {
                process: self,
                holder,
                deadline: crowd.deadline,
                stack_tops,
                held: &crowd.held,
                _tracer: PhantomData,
            };
            if Instant::now() >= crowd.deadline {
                return Err(Error::TooLong { limit: max_stop });
            }
            let result = f(&quiet);
            Ok((result, crowd.let_go()))
        })
    }

    /// Looks again at threads that were busy, and only at them: every stop makes timed waits start over, so clean
    /// threads are left alone. Returns those that are still busy, or could not be stopped.
    pub fn look_again(&self, max_stop: Duration, check: &Check, busy: &[BusyThread]) -> Result<Vec<BusyThread>, Error> {
        let _undisturbed = Undisturbed::new();
        on_tracer(self, || {
            let mut scratch = Scratch::new(max_stop);
            let files = Files::open(self)?;
            let mut crowd = Crowd::new(self, max_stop);
            for thread in busy {
                crowd.seize(thread.tid)?;
            }
            crowd.hold_sleepers(usize::MAX)?;
            crowd.hold_runners()?;
            let maps = self.mappings(&files.maps)?;
            let stacks = Stacks::current(&maps, files.pagemap.as_ref());
            let threads: Vec<&Held> = crowd.held.iter().collect();
            let mut still = check.inspect(self, &threads, &stacks, &mut scratch, crowd.deadline)?;
            check.explain(self, &crowd.held, &mut still, crowd.deadline);
            crowd.let_go();
            Ok(still)
        })
    }

    /// Refuses while a task that is not our thread shares the memory: a child of vfork, or of clone without CLONE_THREAD.
    /// Returns whom it has seen; those of `seen` are not asked about again.
    fn refuse_shared_memory(&self, seen: &HashSet<i32>) -> Result<HashSet<i32>, Error> {
        let names = sys::names_in("/proc".as_ref()).map_err(|source| Error::Proc { path: "/proc".into(), source })?;
        let own = task::living(self.pid)?;
        let all: HashSet<i32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        for other in all.difference(seen) {
            // Who has given up its memory on its way out shares none with all kernel threads, which is the same to the kernel.
            let shared = |own| sys::same_memory(own, *other) == Some(true);
            if *other != self.pid && shared(own) && shared(task::living(self.pid)?) {
                return Err(Error::SharesMemory { pid: self.pid, other: *other });
            }
        }
        Ok(all)
    }
}

/// What is asked about the memory while it is held.
struct Files {
    maps: File,
    pagemap: Option<File>,
}

impl Files {
    fn open(process: &Process) -> Result<Self, Error> {
        Ok(Self { maps: process.file_of_memory("maps")?, pagemap: process.file_of_memory("pagemap").ok() })
    }
}

/// What the threads that ran are looked at with.
struct Runners<'a> {
    check: &'a Check,
    /// Mappings as of a moment ago.
    maps: &'a Maps,
    files: &'a Files,
    /// Where to ask about single ones, if the kernel can answer.
    live: Option<&'a File>,
    /// Threads that can run at once.
    processors: usize,
}

/// All threads of a process, on their way into a stop and out of it.
struct Crowd<'a> {
    process: &'a Process,
    limit: Duration,
    /// First interrupt; the deadline counts from it.
    began: Instant,
    deadline: Instant,
    known: HashSet<i32>,
    /// Threads that never run the program's code, and first threads that have ended.
    ignored: u64,
    sleeping: Vec<i32>,
    running: Vec<i32>,
    /// Threads that were told to stop ahead of their turn.
    told: HashSet<i32>,
    /// Threads that were told to stop and have not been looked at.
    interrupted: Vec<i32>,
    /// Stopped threads: those that slept first, then those that ran.
    held: Vec<Held>,
    runners_from: usize,
    runners_began: Instant,
    /// Children of a fork during the stop.
    children: Vec<i32>,
    /// Calls in which threads were seen since they are traced, where that is needed.
    asleep: HashMap<i32, Asleep>,
    /// Threads that were let go and are to be seen off.
    going: Going,
    timings: Timings,
    /// Ends us when all this is not let go of in time; outlives the letting go.
    _end: Option<DeadMan>,
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<'a> Crowd<'a> {
    /// To be made before the first thread is seized. From here on we stand before all ordinary threads, until all are let go:
    /// where dozens want the processors, each slice of time is waited for.
    fn new(process: &'a Process, limit: Duration) -> Self {
        sys::hurry(true);
        let now = Instant::now();
        Self {
            process,
            limit,
            began: now,
            deadline: now + limit,
            known: HashSet::new(),
            ignored: 0,
            sleeping: Vec::new(),
            running: Vec::new(),
            told: HashSet::new(),
            interrupted: Vec::new(),
            held: Vec::new(),
            runners_from: 0,
            runners_began: now,
            children: Vec::new(),
            asleep: HashMap::new(),
            going: Going::default(),
            timings: Timings::default(),
            _end: end_us_after(limit),
        }
    }

    /// Seizes threads until a look finds no new one. From then on every new thread is born of a traced one, and caught.
    fn seize_all(&mut self) -> Result<(), Error> {
        // Threads that multiply faster than we seize them do not keep us here for ever.
        for _ in 0..1000 {
            let mut new = false;
            for tid in task::list(self.process.pid)? {
                new |= !self.known.contains(&tid);
                self.seize(tid)?;
            }
            if !new {
                return Ok(());
            }
        }
        Err(Error::TooLong { limit: self.limit })
    }

    fn seize(&mut self, tid: i32) -> Result<(), Error> {
        if !self.known.insert(tid) {
            return Ok(());
        }
        let pid = self.process.pid;
        let Some(stat) = task::Stat::read(pid, tid) else { return Ok(()) };
        if stat.ended() || stat.kernel_worker() {
            self.ignored += 1;
            return Ok(());
        }
        match sys::seize(tid, sys::TRACE_BIRTHS) {
            Ok(()) if stat.running() => self.running.push(tid),
            Ok(()) => {
                // A signal may stop it before its turn comes.
                self.see_asleep(tid);
                self.sleeping.push(tid);
            }
            Err(source) => return self.not_seized(tid, source),
        }
        Ok(())
    }

    /// A thread that could not be seized has ended, or somebody traces it, or we may not.
    fn not_seized(&mut self, tid: i32, source: io::Error) -> Result<(), Error> {
        let pid = self.process.pid;
        match task::Stat::read(pid, tid) {
            None => Ok(()),
            Some(stat) if stat.ended() => {
                self.ignored += 1;
                Ok(())
            }
            Some(_) => {
                // Born of a thread that we had seized already: it is ours and about to stop.
                if task::Status::read(pid, tid).is_ok_and(|s| s.tracer == nix::unistd::gettid().as_raw()) {
                    self.running.push(tid);
                    return Ok(());
                }
                let free = task::refuse_traced(pid, tid).and_then(|()| task::Status::read(pid, tid));
                match free {
                    // It has ended in between.
                    Err(Error::ThreadGone { .. }) => Ok(()),
                    Err(e @ (Error::Traced { .. } | Error::Locked { .. })) => Err(e),
                    Ok(status) if source.raw_os_error() == Some(libc::EPERM) => {
                        Err(Error::NoPermission { pid, reason: task::why_denied(pid, &status) })
                    }
                    _ => Err(Error::Ptrace { request: "SEIZE", tid, source }),
                }
            }
        }
    }

    fn hold_sleepers(&mut self, processors: usize) -> Result<(), Error> {
        /// So many are soon done; for more, who runs is not kept from its processor.
        const FEW: usize = 128;
        let few = self.sleeping.len() <= FEW;
        sys::hurry(few);
        self.began = Instant::now();
        self.deadline = self.began + self.limit;
        // Where more want to run than can, the sleeping ones would get to their stop late: then all are told at once.
        if few && self.running.len() > processors {
            self.runners_began = self.began;
            for tid in self.running.clone() {
                self.tell(tid)?;
                self.told.insert(tid);
            }
        }
        let sleeping = std::mem::take(&mut self.sleeping);
        self.hold(&sleeping)?;
        self.runners_from = self.held.len();
        Ok(())
    }

    /// Stops the rest, and whatever is born of it, until nothing new appears.
    fn hold_runners(&mut self) -> Result<(), Error> {
        sys::hurry(true);
        if self.told.is_empty() {
            self.runners_began = Instant::now();
        }
        // A sleeping thread may have given birth on its way into the stop.
        while !self.running.is_empty() {
            let running = std::mem::take(&mut self.running);
            self.hold(&running)?;
        }
        Ok(())
    }

    fn hold(&mut self, tids: &[i32]) -> Result<(), Error> {
        for tid in tids {
            if !self.told.remove(tid) {
                self.tell(*tid)?;
            }
            self.interrupted.push(*tid);
        }
        self.interrupted.reverse();
        while let Some(tid) = self.interrupted.pop() {
            self.await_stop(tid)?;
        }
        Ok(())
    }

    /// Looks up the call in which a traced thread sleeps, where nobody can tell that after the stop.
    fn see_asleep(&mut self, tid: i32) {
        if self.process.arch().needs_asleep()
            && let Some(asleep) = task::asleep(self.process.pid, tid)
        {
            self.asleep.insert(tid, asleep);
        }
    }

    fn tell(&mut self, tid: i32) -> Result<(), Error> {
        self.see_asleep(tid);
        match sys::interrupt(tid) {
            // ESRCH: it has ended; its last report follows.
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                Err(Error::Ptrace { request: "INTERRUPT", tid, source: e })
            }
            _ => Ok(()),
        }
    }

    fn await_stop(&mut self, tid: i32) -> Result<(), Error> {
        let pid = self.process.pid;
        let report = next_report(pid, tid, self.deadline).map_err(|source| {
            self.interrupted.push(tid);
            Error::Ptrace { request: "wait", tid, source }
        })?;
        let signal = match report {
            None => {
                // It may still stop on our account, so it is not forgotten.
                self.interrupted.push(tid);
                return Err(Error::NotStopped { tid, comm: task::comm(pid, tid), waited: self.limit });
            }
            Some(Wait::Ended) if !self.process.is_alive() => return Err(Error::Gone { pid }),
            Some(Wait::Ended) => {
                // A first thread stays in the list of threads after its end.
                self.ignored += u64::from(tid == pid);
                return Ok(());
            }
            Some(Wait::Event(event::EXEC)) => return Err(Error::Execed { pid }),
            Some(Wait::Event(kind @ (event::CLONE | event::FORK | event::VFORK))) => {
                // It is held like the others, so that it is not traced any more when its child goes on, and ends perhaps: of a
                // process that is traced even signals without an effect interrupt some thread.
                self.look(tid, 0)?;
                return self.born(tid, kind);
            }
            Some(Wait::Signal(signal)) => signal,
            Some(Wait::Stop | Wait::Syscall | Wait::Event(_)) => 0,
        };
        self.look(tid, signal)
    }

    /// Reads a stopped thread's registers and, at once, undoes the EINTR that our stop may have caused.
    fn look(&mut self, tid: i32, signal: i32) -> Result<(), Error> {
        let looked = look_and_cure(self.process, tid, signal, self.asleep.get(&tid));
        self.held.push(match &looked {
            Ok(l) => Held { tid, regs: l.regs, thread_pointer: l.thread_pointer, signal, debt: l.debt },
            Err(e) => Held { tid, regs: Regs::zeroed(0), thread_pointer: None, signal, debt: e.debt },
        });
        match looked {
            Ok(looked) => {
                self.timings.cured += usize::from(looked.cured);
                self.timings.interrupted += usize::from(looked.interrupted);
                Ok(())
            }
            Err(e) if e.source.kind() == io::ErrorKind::InvalidData => Err(Error::Not64Bit { pid: self.process.pid }),
            Err(e) => Err(self.ended_or(tid, e.request, e.source)),
        }
    }

    fn ended_or(&self, tid: i32, request: &'static str, source: io::Error) -> Error {
        let pid = self.process.pid;
        if self.process.is_alive() { Error::Ptrace { request, tid, source } } else { Error::Gone { pid } }
    }

    /// A stopped thread has just made a thread or a child, which is traced already and about to stop.
    fn born(&mut self, parent: i32, kind: i32) -> Result<(), Error> {
        let pid = self.process.pid;
        let child = sys::event_message(parent).map_err(|source| Error::Ptrace {
            request: "GETEVENTMSG",
            tid: parent,
            source,
        })?;
        if task::Stat::read(pid, child).is_some() {
            if self.known.insert(child) {
                self.running.push(child);
            }
            return Ok(());
        }
        self.children.push(child);
        // A child that shares the memory runs in it, perhaps on our thread's stack: not now.
        let shares = kind == event::VFORK || sys::same_memory(parent, child) == Some(true);
        if shares { Err(Error::SharesMemory { pid, other: child }) } else { Ok(()) }
    }

    fn refuse_busy(&self, check: &Check, from: usize, stacks: &Stacks<'_>, scratch: &mut Scratch) -> Result<(), Error> {
        let threads: Vec<&Held> = self.held.iter().skip(from).collect();
        let busy = check.inspect(self.process, &threads, stacks, scratch, self.deadline)?;
        if busy.is_empty() { Ok(()) } else { Err(self.busy(check, busy)) }
    }

    fn busy(&self, check: &Check, mut threads: Vec<BusyThread>) -> Error {
        let runners = self.held.iter().skip(self.runners_from);
        let runners: HashSet<i32> = runners.map(|h| h.tid).collect();
        threads.iter_mut().for_each(|b| b.hot = runners.contains(&b.tid));
        check.explain(self.process, &self.held, &mut threads, self.deadline);
        Error::Busy { pid: self.process.pid, threads }
    }

    /// The thread pointers of the threads held from the given one on, without the first thread's.
    fn stack_tops(&self, from: usize) -> impl Iterator<Item = u64> {
        let others = self.held.iter().skip(from).filter(|h| h.tid != self.process.pid);
        others.filter_map(|h| h.thread_pointer)
    }

    /// Everything has stopped: counts, and looks at the threads that ran.
    fn check_runners(&mut self, runners: &Runners<'_>, scratch: &mut Scratch) -> Result<(), Error> {
        let pid = self.process.pid;
        let counted = |crowd: &Self| crowd.held.len() as u64 + crowd.ignored;
        // Only a thread that was born unseen or that is ending makes the counts differ.
        while task::count(pid).is_none_or(|n| n != counted(self)) {
            let strangers: Vec<i32> = task::list(pid)?.into_iter().filter(|t| !self.known.contains(t)).collect();
            if strangers.is_empty() {
                self.refuse_forgotten()?;
                break;
            }
            for tid in strangers {
                self.seize(tid)?;
            }
            self.running.append(&mut self.sleeping);
            self.hold_runners_again()?;
        }
        let busy = self.inspect_runners(runners, scratch, |_| true)?;
        if busy.is_empty() { Ok(()) } else { Err(self.busy(runners.check, busy)) }
    }

    /// Looks at those of the threads that ran which are `wanted`. The mappings are a moment old, and a running thread may
    /// have moved to a new stack since, so its mapping is asked for.
    fn inspect_runners(
        &self,
        runners: &Runners<'_>,
        scratch: &mut Scratch,
        wanted: impl Fn(i32) -> bool,
    ) -> Result<Vec<BusyThread>, Error> {
        let threads: Vec<&Held> = self.held.iter().skip(self.runners_from).filter(|h| wanted(h.tid)).collect();
        let pagemap = runners.files.pagemap.as_ref();
        let mut inspect =
            |stacks: &Stacks<'_>| runners.check.inspect(self.process, &threads, stacks, scratch, self.deadline);
        match runners.live {
            Some(live) => inspect(&Stacks::queried(runners.maps, live, pagemap)),
            None if threads.is_empty() => Ok(Vec::new()),
            None => inspect(&Stacks::current(&self.process.mappings(&runners.files.maps)?, pagemap)),
        }
    }

    /// Refuses when a thread that lives is not held, whatever made us believe that it had ended.
    fn refuse_forgotten(&self) -> Result<(), Error> {
        let pid = self.process.pid;
        for tid in task::list(pid)? {
            let idle = |stat: task::Stat| stat.ended() || stat.kernel_worker();
            if !self.held.iter().any(|h| h.tid == tid) && !task::Stat::read(pid, tid).is_some_and(idle) {
                return Err(Error::NotStopped { tid, comm: task::comm(pid, tid), waited: self.limit });
            }
        }
        Ok(())
    }

    /// Lets busy threads that were running run on for a moment, as many at once as there are processors, while all others
    /// stay held, again and again until each is outside. A function that is hot in many threads is hardly ever left by all
    /// of them at once, but each one leaves it soon. Not for one that was asleep or has a signal to take: it has to be waited for.
    fn let_out(
        &mut self,
        runners: &Runners<'_>,
        mut busy: Vec<BusyThread>,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        // From now on, because hot threads that share a processor take their time to stop.
        let until = (Instant::now() + self.limit / LETTING_OUT).min(self.deadline);
        let mut turn = 0u32;
        loop {
            while !busy.is_empty() {
                let hot = |b: &BusyThread| {
                    let at = self.held.iter().position(|h| h.tid == b.tid && h.signal == 0 && h.debt.is_none());
                    at.is_some_and(|i| i >= self.runners_from)
                };
                if Instant::now() >= until || !busy.iter().all(hot) {
                    return Err(self.busy(runners.check, busy));
                }
                let batch: Vec<i32> = busy.drain(..runners.processors.min(busy.len())).map(|b| b.tid).collect();
                for tid in &batch {
                    self.go_on(*tid)?;
                }
                // Long enough to get to a processor, and never as long as the last time, so that a loop's own rhythm is missed.
                std::thread::sleep(Duration::from_micros(u64::from(4 + turn * 7 % 17)));
                turn += 1;
                self.hold_runners_again()?;
                busy.extend(self.inspect_runners(runners, scratch, |tid| batch.contains(&tid))?);
            }
            // Once more all of them: who was let go may have given birth.
            match self.check_runners(runners, scratch) {
                Err(Error::Busy { threads, .. }) => busy = threads,
                done => return done,
            }
        }
    }

    fn go_on(&mut self, tid: i32) -> Result<(), Error> {
        let Some(index) = self.held.iter().position(|h| h.tid == tid) else { return Ok(()) };
        let held = self.held.remove(index);
        self.running.push(held.tid);
        match sys::cont(held.tid, 0) {
            // ESRCH: it was killed; its last report follows.
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                Err(Error::Ptrace { request: "CONT", tid: held.tid, source: e })
            }
            _ => Ok(()),
        }
    }

    fn hold_runners_again(&mut self) -> Result<(), Error> {
        let began = self.runners_began;
        let result = self.hold_runners();
        self.runners_began = began;
        result
    }

    /// Lets everything go, those that ran first, and says how long it took.
    fn let_go(&mut self) -> Timings {
        self.timings.threads = self.held.len();
        self.timings.runners = self.held.len().saturating_sub(self.runners_from);
        self.release_all();
        self.timings.hold = self.began.elapsed();
        self.see_off();
        self.timings
    }

    fn cure_and_let_go(&mut self, tid: i32, signal: i32) {
        let _ = self.look(tid, signal);
        while let Some(held) = self.held.pop() {
            self.let_one_go(held);
        }
    }

    /// Failure means that it was killed meanwhile.
    fn let_one_go(&mut self, held: Held) {
        let _ = self.going.let_go(held.tid, held.signal, held.debt);
    }

    fn see_off(&mut self) {
        // Those that go on traced do so for a moment only: we end.
        self.going.see_off(self.process);
        // Only now: among ordinary threads again we may have to wait for a processor.
        sys::hurry(false);
    }

    fn release(&mut self) {
        self.release_all();
        self.see_off();
    }

    fn release_all(&mut self) {
        // When all went well all of them are held, and there is nothing to do the second time.
        let known = std::mem::take(&mut self.known);
        let others = self.held.len() as u64 + self.ignored < known.len() as u64;
        let had_runners = self.held.len() > self.runners_from;
        while let Some(held) = self.held.pop() {
            self.let_one_go(held);
            if had_runners && self.held.len() == self.runners_from {
                self.timings.gap = self.runners_began.elapsed();
            }
        }
        self.interrupted.extend(std::mem::take(&mut self.told));
        // After an error in the middle: who was told to stop has left its wait, so it is cured of its EINTR like the
        // others before it goes on. Nobody else is held meanwhile.
        let deadline = Instant::now() + STRAGGLERS;
        while let Some(tid) = self.interrupted.pop() {
            let report = next_report_beside(self.process.pid, tid, deadline, || self.going.look(self.process));
            let signal = match report {
                Ok(Some(Wait::Signal(signal))) => signal,
                Ok(Some(Wait::Ended) | None) | Err(_) => continue,
                Ok(Some(_)) => 0,
            };
            self.cure_and_let_go(tid, signal);
        }
        // Nobody told the others to stop, but a signal stops whoever is traced, and it leaves its wait then as well.
        for tid in known.into_iter().filter(|_| others) {
            if let Ok(Some(Wait::Signal(signal))) = sys::wait(tid) {
                self.cure_and_let_go(tid, signal);
            }
        }
        // Children of a fork are none of ours: they go as soon as they have reported. What has not yet is let go by
        // the kernel when this thread ends, as are threads that were seized and never stopped.
        let deadline = Instant::now() + Duration::from_millis(5);
        for child in self.children.drain(..) {
            if matches!(next_report(child, child, deadline), Ok(Some(Wait::Stop))) {
                let _ = sys::detach(child, 0);
            }
        }
    }
}
