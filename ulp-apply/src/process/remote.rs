// SPDX-License-Identifier: GPL-2.0-or-later
//! System calls made by the process itself, in one borrowed thread. The thread is pointed at a stub that lies in
//! unused bytes after a text segment: the call, then loads of every register that was changed, then a jump to where
//! the thread was. Normally we take the thread back after the call; if we die at any instant, the stub does it.
//!
//! The thread is chosen among those asleep in a system call. One that runs is taken only outside a restartable
//! sequence: the kernel would forget to abort it. A signal that arrives meanwhile sends the thread back to where it
//! was and is delivered there; the call is then made by the next thread that is free.

use super::cure::look_and_cure;
use super::error::Error;
use super::going::{Debt, Going};
use super::maps::Maps;
use super::module::{Module, Role};
use super::quiesce::{Check, Suspect};
use super::seccomp::{self, CallData, Verdict};
use super::sys::{self, Wait};
use super::tracer::{next_report_beside, on_tracer};
use super::undisturbed::{Undisturbed, end_us_after};
use super::unwind::Unwinder;
use super::{Process, RemoteAddr, task};
use std::marker::PhantomData;
use std::time::{Duration, Instant};
use ulp_arch::{Arch, Asleep, Call, LinkAddr, Mark, Regs, SetWord};

/// Zero bytes left alone between a text segment's last byte and the stub.
const DISTANCE: usize = 8;
const ALIGN: usize = 16;
/// Threads that are tried before giving up.
const MAX_CANDIDATES: usize = 64;
/// How long a thread that was told to stop, in vain as it seems, is waited for so that it goes on unharmed.
const STRAGGLER: Duration = Duration::from_millis(100);
/// Between two rounds in which signals came first.
const BREATH: Duration = Duration::from_micros(300);
/// `enum` of /proc/PID/status.
const SECCOMP_STRICT: u32 = 1;
const SECCOMP_FILTER: u32 = 2;
/// How long a thread may take for a system call of ours. It is not held meanwhile: it runs, or waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a mapping may be used for. There is no way to ask for writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    Read,
    ReadWrite,
    ReadExec,
}

impl Protection {
    fn bits(self) -> u64 {
        match self {
            Self::Read => 1,
            Self::ReadWrite => 3,
            Self::ReadExec => 5,
        }
    }
}

/// The right to have the process map and unmap memory, and to write to it. It exists only inside the closure given
/// to [`Process::remote`].
pub struct Remote<'a> {
    process: &'a Process,
    /// Where a stub may be, the best place first.
    places: Vec<RemoteAddr>,
    /// Where it is now.
    stub: RemoteAddr,
    max_stop: Duration,
    /// When to give up altogether: signals may interrupt us again and again.
    give_up: Instant,
    borrowed: Option<Borrowed>,
    /// The thread that went into the stub and was not seen to come out: it needs every byte of it, so no other thread is
    /// sent there and nothing is written there any more.
    lost: Option<i32>,
    /// Threads that were let go and are traced still.
    going: Going,
    /// Whether a thread was unfit because of a signal, of which it may be free soon.
    signals: bool,
    // A tracer is one thread: the guard may not leave it.
    _tracer: PhantomData<*const ()>,
}

/// The thread we hold.
#[derive(Clone, Copy)]
struct Borrowed {
    tid: i32,
    /// Its registers, its EINTR cured: with these it goes on.
    saved: Regs,
    debt: Option<Debt>,
    stub: RemoteAddr,
    /// The call that it slept in, where the registers do not tell.
    asleep: Option<Asleep>,
    seccomp: u32,
    /// When it has to be let go.
    deadline: Instant,
    stop: StopKind,
}

/// Where a borrowed thread stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StopKind {
    /// In a stop in which the kernel decides about restarting its system call when it goes on.
    Signal(i32),
    /// On its way through the stub.
    Running,
    /// Behind a system call that we made.
    Call,
}

impl Process {
    /// Borrows one thread for system calls; it goes on undisturbed afterwards. No thread is held longer than `max_stop`.
    pub fn remote<R: Send>(&self, max_stop: Duration, f: impl FnOnce(&mut Remote<'_>) -> R + Send) -> Result<R, Error> {
        let places = self.places_for_stub(max_stop)?;
        let _undisturbed = Undisturbed::new();
        on_tracer(self, || {
            let _end = end_us_after(max_stop.max(PATIENCE));
            let give_up = Instant::now() + max_stop.saturating_mul(10).max(Duration::from_secs(1));
            let mut remote = Remote {
                process: self,
                stub: RemoteAddr(0),
                places,
                max_stop,
                give_up,
                borrowed: None,
                lost: None,
                going: Going::default(),
                signals: false,
                _tracer: PhantomData,
            };
            let result = f(&mut remote);
            if let Err(e) = remote.give_back(0) {
                // What was to be done is done, and the stub brings the thread home.
                log::debug!("pid {}: {e}", self.pid);
            }
            Ok(result)
        })
    }

    /// Unused bytes for the stub: zeros in the page of a text segment, behind the segment's end, in a module that is
    /// never unmapped. More than one such place only where a stub has to be near the thread.
    fn places_for_stub(&self, max_stop: Duration) -> Result<Vec<RemoteAddr>, Error> {
        let maps = self.maps()?;
        let modules = self.modules(&maps)?;
        let tails: Vec<_> = permanent(self, &modules).flat_map(|m| tails(m, &maps)).collect();
        let enough = if self.arch().stub_comes_from_anywhere() { 1 } else { usize::MAX };
        let find = || -> Vec<RemoteAddr> {
            let place = |(at, len): &(RemoteAddr, usize)| {
                let bytes = self.read_vec(*at, *len).ok()?;
                free_offset(&bytes, self.arch().stub_len()).map(|offset| at.plus(offset as u64))
            };
            tails.iter().filter_map(place).take(enough).collect()
        };
        let places = find();
        if !places.is_empty() && (enough == 1 || places.len() == tails.len()) {
            return Ok(places);
        }
        self.clear_stubs(max_stop)?;
        let places = find();
        if places.is_empty() { Err(Error::NoPadding { pid: self.pid }) } else { Ok(places) }
    }

    /// Zeroes the stubs that an applier leaves behind which is killed, or which cannot bring a thread back. Afterwards no
    /// thread is on its way through one.
    pub fn clear_stubs(&self, max_stop: Duration) -> Result<(), Error> {
        let maps = self.maps()?;
        let modules = self.modules(&maps)?;
        for (at, len) in permanent(self, &modules).flat_map(|m| tails(m, &maps)) {
            self.clear_old_stubs(at, len, max_stop)?;
        }
        Ok(())
    }

    /// Zeroes stubs that were left behind, once it is proved that no thread is in them.
    fn clear_old_stubs(&self, tail: RemoteAddr, len: usize, max_stop: Duration) -> Result<(), Error> {
        let arch = self.arch();
        let Some([low, high]) = arch.stub_shapes() else { return Ok(()) };
        let bytes = self.read_vec(tail, len)?;
        let old: Vec<usize> =
            (0..bytes.len()).filter(|at| bytes.get(*at..).is_some_and(|b| is_stub(b, &low, &high))).collect();
        let suspects = old.iter().map(|offset| Suspect {
            name: "an abandoned system call stub".into(),
            start: tail.plus(*offset as u64),
            end: tail.plus((offset + low.len()) as u64),
            at_start: true,
            at_end: true,
            for_ever: false,
        });
        if old.is_empty() {
            return Ok(());
        }
        let check = Check::new(suspects.collect(), Unwinder::default());
        let zeros = vec![0; low.len()];
        let (cleared, _) = self.stop(max_stop, &check, |quiet| {
            old.iter().try_for_each(|offset| quiet.write(tail.plus(*offset as u64), &zeros))
        })?;
        cleared
    }
}

/// Whether `bytes` begin with a stub: everything that does not depend on the registers is the same.
fn is_stub(bytes: &[u8], low: &[u8], high: &[u8]) -> bool {
    bytes.len() >= low.len()
        && low.len() == high.len()
        && bytes.iter().zip(low).zip(high).all(|((byte, low), high)| low != high || byte == low)
}

/// Modules whose text stays for the life of the process: the program, and what it was linked with.
fn permanent<'a>(process: &'a Process, modules: &'a [Module]) -> impl Iterator<Item = &'a Module> {
    let main = modules.iter().find(|m| m.role == Role::Main);
    let needed: Vec<String> = main.map(|m| needed_names(process, m)).unwrap_or_default();
    let linked = move |m: &&Module| {
        let name = m.dynamic.as_ref().and_then(|d| string(process, m, d.soname?));
        m.role == Role::Library && name.is_some_and(|n| needed.contains(&n))
    };
    main.into_iter().chain(modules.iter().filter(linked))
}

fn needed_names(process: &Process, module: &Module) -> Vec<String> {
    let Some(dynamic) = &module.dynamic else { return Vec::new() };
    dynamic.needed.iter().filter_map(|offset| string(process, module, *offset)).collect()
}

/// A string of the module's dynamic string table.
fn string(process: &Process, module: &Module, offset: u64) -> Option<String> {
    let (table, len) = module.dynamic.as_ref()?.strtab?;
    let room = usize::try_from(len.checked_sub(offset)?.min(256)).ok()?;
    let bytes = process.read_vec(module.bias.remote(table.plus(offset)), room).ok()?;
    let text = bytes.split(|b| *b == 0).next()?;
    String::from_utf8(text.to_vec()).ok()
}

/// What lies between the end of each executable segment and the end of its last page.
fn tails(module: &Module, maps: &Maps) -> Vec<(RemoteAddr, usize)> {
    let tail = |end: LinkAddr| {
        let at = module.bias.remote(end);
        let stop = at.0.checked_next_multiple_of(sys::page())?;
        let len = usize::try_from(stop - at.0).ok()?;
        let mapping = maps.at(at.0)?;
        let file_text = mapping.inode != 0 && mapping.read && mapping.exec && !mapping.write && !mapping.shared;
        (len > 0 && file_text && stop <= mapping.end).then_some((at, len))
    };
    module.segments.iter().filter(|s| s.exec && s.file_size == s.mem_size).filter_map(|s| tail(s.end())).collect()
}

/// The first aligned offset with `len` zero bytes, some distance away from what is not zero before it.
fn free_offset(bytes: &[u8], len: usize) -> Option<usize> {
    // Alignment is that of the page, whose end is the end of `bytes`.
    let first = bytes.len() % ALIGN;
    (0..).map(|n| first + n * ALIGN).take_while(|at| at + len <= bytes.len()).find(|at| {
        let from = at.saturating_sub(DISTANCE);
        bytes.get(from..at + len).is_some_and(|b| b.iter().all(|b| *b == 0))
    })
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        let _ = self.give_back(0);
    }
}

impl<'a> Remote<'a> {
    /// Maps fresh zeroed memory exactly at `addr`, which must be free.
    pub fn map(&mut self, addr: RemoteAddr, len: u64, protection: Protection) -> Result<(), Error> {
        // MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        const FLAGS: u64 = 0x2 | 0x20 | 0x10_0000;
        let mapped = self.call(Call::Mmap, "mmap", [addr.0, len, protection.bits(), FLAGS, u64::MAX, 0]);
        let got = mapped.map_err(|e| match e {
            Error::Call { pid, source, .. } if source.raw_os_error() == Some(libc::ENOMEM) => Error::NoMemory { pid },
            other => other,
        })?;
        if got == addr.0 {
            return Ok(());
        }
        // A kernel before 4.17 takes the flag for a hint.
        self.unmap(RemoteAddr(got), len)?;
        let source = std::io::Error::from_raw_os_error(libc::EEXIST);
        Err(Error::Call { pid: self.process.pid, call: "mmap", source })
    }

    /// Unmaps memory.
    pub fn unmap(&mut self, addr: RemoteAddr, len: u64) -> Result<(), Error> {
        self.call(Call::Munmap, "munmap", [addr.0, len, 0, 0, 0, 0]).map(drop)
    }

    /// What handles a signal: the process writes the answer, a `struct sigaction`, to `room`.
    pub fn handler(&mut self, signal: u64, room: RemoteAddr) -> Result<RemoteAddr, Error> {
        self.call(Call::SignalAction, "rt_sigaction", [signal, 0, room.0, 8, 0, 0])?;
        // The handler is its first word on every architecture.
        self.process.read_u64(room).map(RemoteAddr)
    }

    /// Writes memory. Only for memory that no thread of the program uses yet: nothing but one thread is stopped.
    pub fn write(&mut self, addr: RemoteAddr, bytes: &[u8]) -> Result<(), Error> {
        loop {
            match self.borrow() {
                Err(Error::NoThread { .. }) if self.signals && Instant::now() < self.give_up => {
                    std::thread::sleep(BREATH);
                }
                borrowed => return self.process.write(borrowed?.tid, addr, bytes),
            }
        }
    }

    fn call(&mut self, call: Call, name: &'static str, args: [u64; 6]) -> Result<u64, Error> {
        let arch = self.process.arch();
        let pid = self.process.pid;
        // Nothing can be mapped or unmapped at 0 with the length 0: a call that is to fail fails in the process.
        let wanted = sys::about_to_call(name);
        let args = if wanted.is_ok() { args } else { [0; 6] };
        while Instant::now() < self.give_up {
            let borrowed = match self.borrow() {
                // Where signals come as fast as we do, there is a moment without one all the same.
                Err(Error::NoThread { .. }) if self.signals => {
                    std::thread::sleep(BREATH);
                    continue;
                }
                borrowed => borrowed?,
            };
            self.ask_seccomp(&borrowed, call, name, args)?;
            let regs = arch.call_regs(&borrowed.saved, self.stub, call, args);
            sys::set_regs(borrowed.tid, &regs).map_err(|e| self.failed("SETREGSET", borrowed.tid, e))?;
            // Without a result a signal came first, and the next thread makes the call.
            let result = match self.run(&borrowed) {
                Ok(Some(result)) => result,
                Ok(None) => continue,
                Err(e) => {
                    // Wherever in the call it is, it is brought back from there if that can be done.
                    let _ = self.give_back(0);
                    return Err(e);
                }
            };
            if let Err(source) = wanted {
                return Err(Error::Call { pid, call: name, source });
            }
            if (-4095..0).contains(&result) {
                let errno = i32::try_from(-result).unwrap_or(libc::EINVAL);
                return Err(Error::Call { pid, call: name, source: std::io::Error::from_raw_os_error(errno) });
            }
            return Ok(result as u64);
        }
        Err(Error::NoThread { pid, why: "signals kept arriving" })
    }

    /// Makes the prepared call. `None`: a signal came first, the thread has been given back to take it, and the call
    /// was not made.
    fn run(&mut self, borrowed: &Borrowed) -> Result<Option<i64>, Error> {
        let tid = borrowed.tid;
        let deadline = Instant::now() + PATIENCE;
        let arch = self.process.arch();
        let mut entered = false;
        loop {
            sys::cont_to_syscall(tid, 0).map_err(|e| self.failed("SYSCALL", tid, e))?;
            self.set_stop(StopKind::Running);
            match self.report(tid, deadline)? {
                Wait::Syscall if entered => break,
                Wait::Syscall => entered = true,
                // The stub itself has met with something, and not the program: the program is not to hear of it.
                Wait::Signal(signal) if sys::raised_by_itself(tid) => {
                    self.set_stop(StopKind::Signal(0));
                    self.give_back(0)?;
                    return Err(Error::CallTrapped { pid: self.process.pid, signal });
                }
                Wait::Signal(signal) => {
                    self.set_stop(StopKind::Signal(signal));
                    self.give_back(signal)?;
                    return Ok(None);
                }
                // A group-stop begins or ends: it takes hold of the thread when we let it go.
                Wait::Stop | Wait::Event(_) => {}
                Wait::Ended => return Err(self.gone()),
            }
        }
        self.set_stop(StopKind::Call);
        let regs = sys::get_regs(tid, arch.regs_len()).map_err(|e| self.failed("GETREGSET", tid, e))?;
        Ok(Some(arch.call_result(&regs)))
    }

    fn set_stop(&mut self, stop: StopKind) {
        if let Some(borrowed) = &mut self.borrowed {
            borrowed.stop = stop;
        }
    }

    fn report(&mut self, tid: i32, deadline: Instant) -> Result<Wait, Error> {
        let report = next_report_beside(self.process.pid, tid, deadline, || self.going.look(self.process));
        let report = report.map_err(|e| self.failed("wait", tid, e))?;
        report.ok_or_else(|| Error::NotStopped { tid, comm: task::comm(self.process.pid, tid), waited: self.max_stop })
    }

    fn not_back(&self, tid: i32) -> Error {
        Error::NotStopped { tid, comm: task::comm(self.process.pid, tid), waited: PATIENCE }
    }

    fn failed(&mut self, request: &'static str, tid: i32, source: std::io::Error) -> Error {
        if !self.process.is_alive() {
            return self.gone();
        }
        // The process lives, so this thread has ended or is not in its stop yet: another attempt may find it, or another one.
        if source.raw_os_error() == Some(libc::ESRCH) {
            return Error::NotStopped { tid, comm: task::comm(self.process.pid, tid), waited: self.max_stop };
        }
        Error::Ptrace { request, tid, source }
    }

    fn gone(&mut self) -> Error {
        self.lost = self.borrowed.take().map(|b| b.tid).or(self.lost);
        Error::Gone { pid: self.process.pid }
    }

    /// Puts the thread back to where it was, and lets it go with the signal.
    fn give_back(&mut self, signal: i32) -> Result<(), Error> {
        let Some(borrowed) = self.borrowed.take() else { return Ok(()) };
        let tid = borrowed.tid;
        let mut signal = signal;
        // Until its registers are its own again, the stub is all that it has.
        self.lost = Some(tid);
        if matches!(borrowed.stop, StopKind::Running | StopKind::Call) {
            // Back to a stop where the kernel itself restarts what was interrupted. Its deadline is generous: the thread
            // is on its way, and if all fails the stub brings it home.
            sys::interrupt(tid).map_err(|e| self.failed("INTERRUPT", tid, e))?;
            match sys::cont(tid, 0) {
                // ESRCH: it is in the call still, and stops behind it.
                Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(self.failed("CONT", tid, e)),
                _ => {}
            }
            loop {
                match self.report(tid, Instant::now() + Duration::from_secs(1))? {
                    Wait::Stop => break,
                    Wait::Signal(s) => {
                        signal = s;
                        break;
                    }
                    Wait::Ended => return Err(self.gone()),
                    Wait::Syscall | Wait::Event(_) => sys::cont(tid, 0).map_err(|e| self.failed("CONT", tid, e))?,
                }
            }
        }
        let (own, debt) = self.returned(&borrowed, signal);
        sys::set_regs(tid, &own).map_err(|e| self.failed("SETREGSET", tid, e))?;
        self.lost = None;
        // No program counter is in the stub any more.
        let wiped = self.process.write(tid, self.stub, &vec![0; self.process.arch().stub_len()]);
        self.let_go(tid, signal, debt).map_err(|e| self.failed("DETACH", tid, e))?;
        wiped
    }

    /// The registers with which a thread goes on before `signal`, and what it is owed then.
    fn returned(&self, borrowed: &Borrowed, signal: i32) -> (Regs, Option<Debt>) {
        let arch = self.process.arch();
        let saved = borrowed.saved;
        if !arch.needs_asleep() {
            return (saved, None);
        }
        let debt = borrowed.debt.unwrap_or_default();
        // Without SA_RESTART some calls are ended that begin again here: nobody tells us with which flags a handler was set.
        let ended = |asleep| arch.interrupted(&saved, asleep, true);
        let interrupted = debt.interrupted.or_else(|| borrowed.asleep.as_ref().map(ended)).unwrap_or(saved);
        if signal != 0 && task::catches(self.process.pid, borrowed.tid, signal) {
            return (interrupted, None);
        }
        let own = match &borrowed.asleep {
            Some(asleep) if debt.anew.is_none() => arch.resumed(&saved, asleep),
            _ => saved,
        };
        let debt = Debt { interrupted: Some(interrupted).filter(|regs| *regs != own), anew: debt.anew };
        (own, Some(debt).filter(|debt| debt.interrupted.is_some() || debt.anew.is_some()))
    }

    /// The thread we hold, or a fresh one with its stub written.
    fn borrow(&mut self) -> Result<Borrowed, Error> {
        if let Some(borrowed) = self.borrowed {
            if Instant::now() < borrowed.deadline {
                return Ok(borrowed);
            }
            // It has been held long enough; the next one, then.
            self.give_back(0)?;
        }
        if let Some(tid) = self.lost {
            return Err(self.not_back(tid));
        }
        let pid = self.process.pid;
        let arch = self.process.arch();
        let mut traced = None;
        self.signals = false;
        self.going.see_off(self.process);
        for choice in [Choice::Best, Choice::Any] {
            for tid in candidates(pid, choice)? {
                let borrowed = match self.try_borrow(tid, choice) {
                    Ok(borrowed) => borrowed,
                    // A debugger has this one. What we have begun can perhaps be taken back through another.
                    Err(e @ Error::Traced { .. }) => {
                        traced = Some(e);
                        continue;
                    }
                    Err(e) => return Err(e),
                };
                let Some(borrowed) = borrowed else { continue };
                self.stub = borrowed.stub;
                self.borrowed = Some(borrowed);
                let Some(stub) = arch.stub_at(&borrowed.saved, self.stub) else {
                    self.give_back(0)?;
                    return Err(Error::Unsupported { machine: arch.name() });
                };
                if let Err(e) = self.process.write(tid, self.stub, &stub.bytes) {
                    // Nobody is sent into a stub that is not there.
                    let _ = self.give_back(0);
                    return Err(e);
                }
                return Ok(borrowed);
            }
        }
        let why = "all are busy in the kernel or in restartable sequences, or have their system calls dispatched to themselves";
        Err(traced.unwrap_or(Error::NoThread { pid, why }))
    }

    /// Stops one thread; lets it go again when it is not fit.
    fn try_borrow(&mut self, tid: i32, choice: Choice) -> Result<Option<Borrowed>, Error> {
        let pid = self.process.pid;
        let arch = self.process.arch();
        let Ok(status) = task::Status::read(pid, tid) else { return Ok(None) };
        if self.going.is_on_its_way(tid) {
            return Ok(None);
        }
        let own = self.going.take_back(tid);
        let seized = if own.is_some() { Ok(()) } else { sys::seize(tid, sys::TRACE_SYSGOOD) };
        match seized {
            Ok(()) => {}
            Err(_) if task::Stat::read(pid, tid).is_none_or(|s| s.ended()) => return Ok(None),
            Err(e) => {
                match task::refuse_traced(pid, tid) {
                    Err(Error::ThreadGone { .. }) => return Ok(None),
                    answer => answer?,
                }
                return Err(match e.raw_os_error() {
                    Some(libc::EPERM) => Error::NoPermission { pid, reason: task::why_denied(pid, &status) },
                    _ => self.failed("SEIZE", tid, e),
                });
            }
        }
        let deadline = Instant::now() + self.max_stop;
        // Now that no signal is taken without our knowledge: a thread that sleeps here has left its call by us or not at all.
        let asleep = arch.needs_asleep().then(|| task::asleep(pid, tid)).flatten();
        let seen = asleep.or(own.flatten());
        sys::interrupt(tid).map_err(|e| self.failed("INTERRUPT", tid, e))?;
        let signal = match self.report(tid, deadline) {
            Ok(Wait::Signal(signal)) => signal,
            Ok(Wait::Ended) => return Ok(None),
            Ok(Wait::Stop | Wait::Syscall | Wait::Event(_)) => 0,
            Err(e) => {
                self.let_slip(tid, seen.as_ref());
                return Err(e);
            }
        };
        let looked = match look_and_cure(self.process, tid, signal, seen.as_ref()) {
            Ok(looked) => looked,
            Err(e) => {
                // Whatever fails here fails because the thread has ended.
                let _ = self.let_go(tid, signal, e.debt);
                if e.source.kind() == std::io::ErrorKind::InvalidData {
                    return Err(Error::Not64Bit { pid });
                }
                return Err(self.failed(e.request, tid, e.source));
            }
        };
        let saved = looked.regs;
        let place = self.places.iter().copied().find(|at| arch.stub_at(&saved, *at).is_some());
        if let Some(stub) = place.filter(|_| signal == 0 && self.is_fit(tid, &saved, asleep.as_ref(), choice)) {
            // Once more: a filter may have been set until the thread stopped.
            let seccomp = task::Status::read(pid, tid).map_or(SECCOMP_FILTER, |s| s.seccomp);
            let (debt, stop) = (looked.debt, StopKind::Signal(0));
            return Ok(Some(Borrowed { tid, saved, debt, stub, asleep, seccomp, deadline, stop }));
        }
        self.let_go(tid, signal, looked.debt).map_err(|e| self.failed("DETACH", tid, e))?;
        self.signals |= signal != 0;
        Ok(None)
    }

    /// Lets a stopped thread go.
    fn let_go(&mut self, tid: i32, signal: i32, debt: Option<Debt>) -> std::io::Result<()> {
        self.going.let_go(tid, signal, debt)?;
        self.going.see_off(self.process);
        Ok(())
    }

    /// A thread was told to stop and we do not know whether it has: if so, it is cured and goes on.
    fn let_slip(&mut self, tid: i32, asleep: Option<&Asleep>) {
        let deadline = Instant::now() + STRAGGLER;
        let report = next_report_beside(self.process.pid, tid, deadline, || self.going.look(self.process));
        let signal = match report {
            Ok(Some(Wait::Signal(signal))) => signal,
            Ok(Some(Wait::Ended) | None) | Err(_) => return,
            Ok(Some(_)) => 0,
        };
        // Whatever fails here fails because the thread has ended.
        let debt = look_and_cure(self.process, tid, signal, asleep).map_or_else(|e| e.debt, |looked| looked.debt);
        let _ = self.let_go(tid, signal, debt);
    }

    fn is_fit(&self, tid: i32, saved: &Regs, asleep: Option<&Asleep>, choice: Choice) -> bool {
        let arch = self.process.arch();
        // Its system calls are signals to the program itself; ours would be, too.
        if sys::dispatches_calls(tid) {
            return false;
        }
        let (in_call, has_timeout) = match asleep {
            Some(asleep) => (arch.in_system_call_of(saved, asleep), arch.in_restart_block_of(saved, asleep)),
            None => (arch.in_system_call(saved), arch.in_restart_block(saved)),
        };
        if in_call {
            return choice == Choice::Any || !has_timeout;
        }
        choice == Choice::Any
            && !loses_registers(arch, tid)
            && self.in_restartable_sequence(tid, arch.pc(saved)) == Some(false)
    }

    /// Whether a thread that runs is inside a restartable sequence; `None` when that cannot be found out.
    fn in_restartable_sequence(&self, tid: i32, pc: u64) -> Option<bool> {
        let area = sys::rseq_area(tid).ok()?;
        if area == 0 {
            return Some(false);
        }
        // struct rseq: the descriptor's address is its third word; struct rseq_cs: version and flags, start, length.
        let descriptor = self.process.read_u64(RemoteAddr(area).plus(8)).ok()?;
        if descriptor == 0 {
            return Some(false);
        }
        let start = self.process.read_u64(RemoteAddr(descriptor).plus(8)).ok()?;
        let len = self.process.read_u64(RemoteAddr(descriptor).plus(16)).ok()?;
        Some(pc.wrapping_sub(start) < len)
    }

    /// Makes sure that the call will not be the thread's death.
    fn ask_seccomp(&self, borrowed: &Borrowed, call: Call, name: &'static str, args: [u64; 6]) -> Result<(), Error> {
        let pid = self.process.pid;
        let refused = |verdict: Verdict| Error::Seccomp { pid, call: name, action: verdict.name() };
        match borrowed.seccomp {
            0 => return Ok(()),
            SECCOMP_STRICT => return Err(refused(Verdict::Kill)),
            _ => {}
        }
        let arch = self.process.arch();
        let mut filters = Vec::new();
        loop {
            match sys::seccomp_filter(borrowed.tid, filters.len()) {
                Ok(Some(filter)) => filters.push(filter),
                Ok(None) => break,
                Err(source) => return Err(Error::SeccompUnreadable { pid, source }),
            }
        }
        let audit_arch = seccomp::audit_arch(arch);
        let number = u32::try_from(arch.call_number(call)).unwrap_or(u32::MAX);
        // The kernel shows a filter the address behind the call instruction, which is the stub's first; a filter that
        // tells addresses apart is asked about both ends of what that can be.
        let ask = |pc: u64| seccomp::evaluate(&filters, &CallData { number, arch: audit_arch, pc, args });
        let verdict = (1..=4).map(|n| ask(self.stub.0 + n)).min().unwrap_or(Verdict::Unknown);
        match verdict {
            Verdict::Allow => Ok(()),
            // An error is harmless; past seccomp, while we trace, the call is made all the same.
            Verdict::Errno => {
                sys::set_options(borrowed.tid, sys::TRACE_SYSGOOD | sys::SUSPEND_SECCOMP).map_err(|_| refused(verdict))
            }
            _ => Err(refused(verdict)),
        }
    }
}

/// Whether a call would lose registers of a stopped thread that was in none; yes where that cannot be seen.
fn loses_registers(arch: &dyn Arch, tid: i32) -> bool {
    let loses =
        |(at, used): &(SetWord, Mark)| sys::set_word(tid, *at).map_or(true, |word| word.is_some_and(|w| used.is(w)));
    arch.lost_by_calls().iter().any(loses)
}

/// Which threads are good enough.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Asleep in a system call without a timeout of its own, and not filtered by seccomp.
    Best,
    /// Any that can be used safely.
    Any,
}

fn candidates(pid: i32, choice: Choice) -> Result<Vec<i32>, Error> {
    let usable = |tid: &i32| {
        let Some(stat) = task::Stat::read(pid, *tid) else { return false };
        if stat.ended() || stat.kernel_worker() || stat.state == b'D' {
            return false;
        }
        choice == Choice::Any || !stat.running() && task::Status::read(pid, *tid).is_ok_and(|s| s.seccomp == 0)
    };
    Ok(task::list(pid)?.into_iter().filter(usable).take(MAX_CANDIDATES).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_bytes_are_aligned_and_apart() {
        // 16 bytes of 0xc3, then zeros up to the end of the page.
        let mut tail = vec![0u8; 512];
        tail[0] = 0xc3;
        let check = |bytes: &[u8], expected| assert_eq!(free_offset(bytes, 192), expected);
        check(&tail, Some(16));
        check(&tail[..200], None);
        check(&[0; 191], None);
        check(&[0; 192], Some(0));
        tail[100] = 1;
        check(&tail, Some(112));
        tail[500] = 1;
        check(&tail, Some(112));
        tail[300] = 1;
        check(&tail, None);
        // An odd length: the page's end is aligned, the segment's end is not.
        check(&[0; 205], Some(13));
    }

    #[test]
    fn an_abandoned_stub_is_recognised() {
        let arch = ulp_arch::host().expect("a supported host");
        let [low, high] = arch.stub_shapes().expect("stubs");
        let mut regs = Regs::zeroed(arch.regs_len());
        // In reach of the stub, whatever the architecture: the program counter is one of these words.
        regs.words = [0x12_3458; Regs::MAX];
        let other = arch.stub_at(&regs, RemoteAddr(0x12_0000)).expect("a stub").bytes;
        assert!(low != high && low != other);
        assert!(is_stub(&other, &low, &high));
        assert!(!is_stub(&other[..other.len() - 1], &low, &high));
        assert!(!is_stub(&vec![0; low.len()], &low, &high));
        let mut damaged = other;
        damaged[0] ^= 1;
        assert!(!is_stub(&damaged, &low, &high));
    }
}
