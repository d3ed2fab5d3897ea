// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel calls, and the only unsafe code of this crate. Every function here is one system call with its
//! arguments checked and its result turned into a value; none keeps a pointer after it returns. Raw requests are
//! used throughout because the libraries know neither real-time signals in a wait status nor every architecture's
//! register sets. Files of `/proc` are opened and read here too: each call is one step of `step`, at which tests can end us,
//! make the call fail, or have the process do something.
#![allow(unsafe_code)]

use super::step::{step, step_if};
use std::cell::RefCell;
use std::ffi::c_void;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use ulp_arch::{Regs, SetWord};

const SETREGSET: i64 = 0x4205;
const GETREGSET: i64 = 0x4204;
const SEIZE: i64 = 0x4206;
const INTERRUPT: i64 = 0x4207;
const GETEVENTMSG: i64 = 0x4201;
const GETSIGINFO: i64 = 0x4202;
const GET_SYSCALL_USER_DISPATCH: i64 = 0x4211;
const SETOPTIONS: i64 = 0x4200;
const SECCOMP_GET_FILTER: i64 = 0x420c;
const GET_RSEQ_CONFIGURATION: i64 = 0x420f;
const POKEDATA: i64 = 5;
const CONT: i64 = 7;
const DETACH: i64 = 17;
const SYSCALL: i64 = 24;
const NT_PRSTATUS: usize = 1;
const EVENT_STOP: i32 = 128;

/// Options of SEIZE: what is born of a traced thread is reported, and system call stops can be told from traps.
pub const TRACE_BIRTHS: usize = TRACE_SYSGOOD | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4; // fork, vfork, clone, exec
/// Only mark system call stops.
pub const TRACE_SYSGOOD: usize = 1;
/// Let the thread's system calls past seccomp while it is traced.
pub const SUSPEND_SECCOMP: usize = 1 << 21;

/// Events of [`Wait::Event`].
pub mod event {
    pub const FORK: i32 = 1;
    pub const VFORK: i32 = 2;
    pub const CLONE: i32 = 3;
    pub const EXEC: i32 = 4;
}

/// What a wait status says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The thread is no more.
    Ended,
    /// Stopped because we asked, or by a group-stop.
    Stop,
    /// Stopped before or after a system call.
    Syscall,
    /// Stopped before this signal is delivered.
    Signal(i32),
    /// Stopped by a traced event.
    Event(i32),
}

impl Wait {
    /// `status` is that of a stopped child: the signal, and the event above it.
    fn decode(status: i32) -> Self {
        match (status >> 8, status & 0xff) {
            (EVENT_STOP, _) => Self::Stop,
            (0, s) if s == libc::SIGTRAP | 0x80 => Self::Syscall,
            (0, s) => Self::Signal(s),
            (e, _) => Self::Event(e),
        }
    }
}

/// A request's name, for the log of steps.
fn name_of(request: i64) -> &'static str {
    match request {
        SETREGSET => "SETREGSET",
        GETREGSET => "GETREGSET",
        SEIZE => "SEIZE",
        INTERRUPT => "INTERRUPT",
        GETEVENTMSG => "GETEVENTMSG",
        SETOPTIONS => "SETOPTIONS",
        POKEDATA => "POKEDATA",
        CONT => "CONT",
        DETACH => "DETACH",
        SYSCALL => "SYSCALL",
        _ => "a reading request",
    }
}

fn ptrace(request: i64, tid: i32, addr: usize, data: usize) -> io::Result<i64> {
    step(format_args!("ptrace {} {tid} {addr:#x}", name_of(request)), || {
        // SAFETY: the callers in this file pass, for each request, either plain numbers or a pointer to a live local
        // value of the size that the request writes or reads; the kernel touches no other memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_ptrace, request, i64::from(tid), addr, data) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
    })
}

thread_local! {
    /// How often this thread has begun or ended a request to trace: odd while it is in one.
    static SEIZING: RefCell<Arc<AtomicU64>> = RefCell::default();
}

/// From now on `count` is odd while this thread makes a request to trace, which may have to wait.
pub fn count_seizing(count: &Arc<AtomicU64>) {
    SEIZING.with(|own| own.replace(count.clone()));
}

/// Begins to trace a thread without stopping it.
pub fn seize(tid: i32, options: usize) -> io::Result<()> {
    let turn = || SEIZING.with(|count| count.borrow().fetch_add(1, Ordering::SeqCst));
    turn();
    let result = ptrace(SEIZE, tid, 0, options).map(drop);
    turn();
    result
}

/// Asks a seized thread to stop.
pub fn interrupt(tid: i32) -> io::Result<()> {
    ptrace(INTERRUPT, tid, 0, 0).map(drop)
}

/// Lets a stopped thread go on, delivering a signal unless it is 0.
pub fn cont(tid: i32, signal: i32) -> io::Result<()> {
    ptrace(CONT, tid, 0, signal as usize).map(drop)
}

/// Lets a stopped thread go on to the next system call stop, delivering a signal unless it is 0.
pub fn cont_to_syscall(tid: i32, signal: i32) -> io::Result<()> {
    ptrace(SYSCALL, tid, 0, signal as usize).map(drop)
}

/// Lets a stopped thread go, delivering a signal unless it is 0. A group-stop it was in holds on.
pub fn detach(tid: i32, signal: i32) -> io::Result<()> {
    ptrace(DETACH, tid, 0, signal as usize).map(drop)
}

/// Changes the options of a stopped thread.
pub fn set_options(tid: i32, options: usize) -> io::Result<()> {
    ptrace(SETOPTIONS, tid, 0, options).map(drop)
}

/// The message of an event stop: the number of the thread or process that was born.
pub fn event_message(tid: i32) -> io::Result<i32> {
    let mut message: libc::c_ulong = 0;
    ptrace(GETEVENTMSG, tid, 0, (&raw mut message) as usize)?;
    i32::try_from(message).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The general registers of a stopped thread. An error of kind `InvalidData` means a set of another size: a 32-bit thread.
pub fn get_regs(tid: i32, words: usize) -> io::Result<Regs> {
    let mut regs = Regs::zeroed(words);
    let mut iov = libc::iovec { iov_base: regs.words.as_mut_ptr().cast(), iov_len: regs.len * 8 };
    ptrace(GETREGSET, tid, NT_PRSTATUS, (&raw mut iov) as usize)?;
    if iov.iov_len == regs.len * 8 { Ok(regs) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Sets the general registers of a stopped thread.
pub fn set_regs(tid: i32, regs: &Regs) -> io::Result<()> {
    let mut words = regs.words;
    let len = regs.len.min(words.len()) * 8;
    let mut iov = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: len };
    ptrace(SETREGSET, tid, NT_PRSTATUS, (&raw mut iov) as usize).map(drop)
}

/// A word of another register set of a stopped thread; `None` where the processor, or the kernel, has no such set.
pub fn set_word(tid: i32, at: SetWord) -> io::Result<Option<u64>> {
    let mut words = [0u64; 4];
    let len = (8 * (at.word + 1)).min(size_of_val(&words));
    let mut iov = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: len };
    match ptrace(GETREGSET, tid, at.set as usize, (&raw mut iov) as usize) {
        Ok(_) if iov.iov_len == len => Ok(words.get(at.word).copied()),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENODEV)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The register set `set` of a stopped thread, which is a number of 32 bits.
pub fn set_number(tid: i32, set: u32) -> io::Result<i32> {
    let mut number = 0i32;
    let mut iov = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of_val(&number) };
    ptrace(GETREGSET, tid, set as usize, (&raw mut iov) as usize)?;
    Ok(number)
}

/// Sets it.
pub fn change_set_number(tid: i32, set: u32, number: i32) -> io::Result<()> {
    let mut number = number;
    let mut iov = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of_val(&number) };
    ptrace(SETREGSET, tid, set as usize, (&raw mut iov) as usize).map(drop)
}

/// Writes one word into the memory of a stopped thread, also where its mapping is read-only.
pub fn poke(tid: i32, addr: u64, word: u64) -> io::Result<()> {
    ptrace(POKEDATA, tid, addr as usize, word as usize).map(drop)
}

/// One instruction of a seccomp filter: `struct sock_filter`.
pub type BpfWords = [u8; 8];

/// The seccomp filter number `index` (the newest is 0) of a stopped thread; `None` past the last.
pub fn seccomp_filter(tid: i32, index: usize) -> io::Result<Option<Vec<BpfWords>>> {
    let len = match ptrace(SECCOMP_GET_FILTER, tid, index, 0) {
        Ok(len) => usize::try_from(len).unwrap_or(0),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut program = vec![[0u8; 8]; len];
    // The filter cannot change while the thread is stopped and filters are only ever added in front of a running one.
    let again = ptrace(SECCOMP_GET_FILTER, tid, index, program.as_mut_ptr() as usize)?;
    if usize::try_from(again) == Ok(len) { Ok(Some(program)) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Address of the thread's restartable sequence area, 0 where it has none.
pub fn rseq_area(tid: i32) -> io::Result<u64> {
    // struct ptrace_rseq_configuration: u64 pointer, u32 size, u32 signature, u32 flags, u32 pad
    let mut config = [0u64; 3];
    let size = size_of_val(&config);
    ptrace(GET_RSEQ_CONFIGURATION, tid, size, config.as_mut_ptr() as usize)?;
    let [pointer, ..] = config;
    Ok(pointer)
}

/// Whether the thread has its system calls turned into signals, unless they are made from one range of addresses
/// (PR_SET_SYSCALL_USER_DISPATCH). False before Linux 6.4, which cannot tell.
pub fn dispatches_calls(tid: i32) -> bool {
    // struct ptrace_sud_config: u64 mode, selector, offset, len
    let mut config = [0u64; 4];
    let size = size_of_val(&config);
    let asked = ptrace(GET_SYSCALL_USER_DISPATCH, tid, size, config.as_mut_ptr() as usize);
    asked.is_ok() && config.first() != Some(&0)
}

/// Whether the signal which a thread is stopped before was raised by what the thread itself did, and not sent.
pub fn raised_by_itself(tid: i32) -> bool {
    // siginfo_t: 128 bytes, of which the third word is si_code: what was sent has none above zero.
    let mut info = [0i32; 32];
    let asked = ptrace(GETSIGINFO, tid, 0, info.as_mut_ptr() as usize);
    let [signal, _, code, ..] = info;
    let synchronous = [libc::SIGSYS, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGFPE];
    asked.is_ok() && synchronous.contains(&signal) && code > 0
}

/// What the thread has to report, `None` when nothing yet. Never blocks, and never takes another child's status.
///
/// The report of a stop is read and not taken: a thread that stands before a signal whose report was taken loses the signal
/// when its tracer dies, and one whose report was not taken gets it.
pub fn wait(tid: i32) -> io::Result<Option<Wait>> {
    let call = || {
        let id = libc::id_t::try_from(tid).map_err(|_| io::Error::from_raw_os_error(libc::ECHILD))?;
        let options = libc::WSTOPPED | libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `info` is a live local of the type which the kernel fills.
        if unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), options) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: all bytes zero are a siginfo_t, and so is what the kernel writes; the fields of a child's report are read,
        // which are zero as long as there is none.
        let (pid, code, status) = unsafe {
            let info = info.assume_init();
            (info.si_pid(), info.si_code, info.si_status())
        };
        match code {
            _ if pid == 0 => Ok(None),
            libc::CLD_TRAPPED | libc::CLD_STOPPED => Ok(Some(Wait::decode(status))),
            _ => {
                // SAFETY: no status is asked for, so the kernel writes nowhere. The end of a thread is noted, because it
                // stays in the list of threads until then.
                unsafe { libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) };
                Ok(Some(Wait::Ended))
            }
        }
    };
    step_if(format_args!("waitpid {tid}"), call, Option::is_some)
}

/// Takes note of the end of a thread that any thread of ours traces. The thread must be known to have ended: of one that
/// has stopped this would take away the report, whatever is asked for.
pub fn take_note_of_end(tid: i32) {
    if let Ok(id) = libc::id_t::try_from(tid) {
        let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
        // SAFETY: no information is asked for, so the kernel writes nowhere.
        unsafe { libc::waitid(libc::P_PID, id, std::ptr::null_mut(), options) };
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(i32::try_from(time.subsec_nanos()).unwrap_or(0)),
    }
}

/// Ends this process in `limit` from now, as `kill -9` does, unless what is returned was dropped before.
pub fn end_us_in(limit: Duration) -> Option<DeadMan> {
    let mut timer = std::ptr::null_mut();
    // SAFETY: all bytes zero are a sigevent.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    // SAFETY: two live locals; the kernel reads the one and writes the other.
    if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } != 0 {
        return None;
    }
    let armed = DeadMan(timer);
    let once = libc::itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(limit) };
    // SAFETY: the timer was made above, and `once` is a live local which the kernel reads.
    (unsafe { libc::timer_settime(armed.0, 0, &raw const once, std::ptr::null_mut()) } == 0).then_some(armed)
}

/// A timer that ends this process; disarmed when dropped.
#[derive(Debug)]
pub struct DeadMan(libc::timer_t);

impl Drop for DeadMan {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `end_us_in`, which is the only maker of this value, and is deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Waits until a thread that we trace may have something to report, for `limit` at most. Its report comes with a SIGCHLD, which
/// has to be blocked; where it is not, or where it is ignored, this is a sleep.
pub fn await_child(limit: Duration) {
    let timeout = timespec(limit);
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is a live local which sigemptyset fills before anything reads it; nothing but the set and the timeout,
    // a live local too, is read, and no information is asked for.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigtimedwait(set.as_ptr(), std::ptr::null_mut(), &raw const timeout);
    }
}

/// Gives the processor to whoever waits for it.
pub fn yield_now() {
    std::thread::yield_now();
}

/// Puts this thread before all ordinary ones, or back among them. Where dozens of threads of the process want the processors, a
/// stop would take as long as they let us wait. Without CAP_SYS_NICE it stays as it is.
pub fn hurry(now: bool) {
    const OURS: i32 = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: plain numbers only; 0 means this thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    let (wanted, priority) = match (now, policy) {
        (true, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE) => (OURS, 1),
        (false, OURS) => (libc::SCHED_OTHER, 0),
        // Whoever started us has chosen something, and it stays.
        _ => return,
    };
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 means this thread, and the kernel only reads `param`; failure leaves everything as it is.
    unsafe { libc::sched_setscheduler(0, wanted, &raw const param) };
}

/// The time that this thread has had a processor.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills `time`, which lives until the call returns.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    let (seconds, rest) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    if failed { Duration::ZERO } else { Duration::new(seconds.unwrap_or(0), rest.unwrap_or(0)) }
}

/// Makes this thread's short sleeps short: the default slack of 50 us would be the largest part of a pause.
pub fn short_sleeps() {
    // SAFETY: plain numbers only; failure leaves the default.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) };
}

/// A descriptor for a process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    step(format_args!("pidfd_open"), || {
        // SAFETY: plain numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, i64::from(pid), 0) };
        match i32::try_from(fd) {
            // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
            Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

/// Whether the process behind a descriptor has ended.
pub fn pidfd_ended(fd: BorrowedFd<'_>) -> bool {
    let ended = step(format_args!("poll pidfd"), || {
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd, and a timeout of zero.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        Ok(ready > 0 && poll.revents != 0)
    });
    ended.unwrap_or(false)
}

/// Whether two processes share their memory; `None` where the kernel cannot tell.
pub fn same_memory(a: i32, b: i32) -> Option<bool> {
    const KCMP_VM: i64 = 1;
    let call = || {
        // SAFETY: plain numbers only.
        let result = unsafe { libc::syscall(libc::SYS_kcmp, i64::from(a), i64::from(b), KCMP_VM, 0, 0) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result == 0) }
    };
    step(format_args!("kcmp"), call).ok()
}

/// Reads many ranges of another process, one behind the other, into `buffer`; the bytes that were read before the
/// first unreadable page are counted.
pub fn read_ranges(pid: i32, buffer: &mut [u8], ranges: &[(u64, usize)]) -> io::Result<usize> {
    let total = ranges.iter().try_fold(0usize, |sum, r| sum.checked_add(r.1)).unwrap_or(usize::MAX);
    if total > buffer.len() || ranges.len() > 1024 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: total };
    let remote: Vec<_> = ranges.iter().map(|r| libc::iovec { iov_base: r.0 as *mut c_void, iov_len: r.1 }).collect();
    step(format_args!("process_vm_readv"), || {
        let count = remote.len() as libc::c_ulong;
        // SAFETY: `local` describes at most the whole of `buffer`, checked above; the remote addresses are never
        // dereferenced by us.
        let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), count, 0) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    })
}

/// A mapping as the kernel tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub start: u64,
    pub end: u64,
    /// Readable and writable, as stacks are.
    pub data: bool,
    pub shared: bool,
}

/// The mapping that holds `addr`, asked of an open maps file. `Unsupported` before Linux 6.11.
pub fn query_mapping(maps: BorrowedFd<'_>, addr: u64) -> io::Result<Option<Span>> {
    // struct procmap_query, 104 bytes, all fields 0 but: size, query_flags (offset 8), query_addr (16);
    // the answer: vma_start (24), vma_end (32), vma_flags (40): 1 readable, 2 writable, 4 executable, 8 shared.
    const QUERY: libc::c_ulong = 0xc068_6611;
    let mut query = [0u64; 13];
    let [size, _flags, at, ..] = &mut query;
    (*size, *at) = (104, addr);
    let asked = step(format_args!("ioctl PROCMAP_QUERY"), || {
        // SAFETY: the request number encodes a size of 104 bytes, which is the size of `query`.
        let result = unsafe { libc::ioctl(maps.as_raw_fd(), QUERY as _, query.as_mut_ptr()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    });
    let [_, _, _, start, end, flags, ..] = query;
    match asked {
        Ok(()) => Ok(Some(Span { start, end, data: flags & 3 == 3, shared: flags & 8 != 0 })),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => Err(io::ErrorKind::Unsupported.into()),
        Err(e) => Err(e),
    }
}

/// Whether this kernel answers [`query_mapping`].
pub fn can_query_mappings(maps: BorrowedFd<'_>) -> bool {
    !matches!(query_mapping(maps, 0), Err(e) if e.kind() == io::ErrorKind::Unsupported)
}

/// Whether this process has a thread with this number, be it one that is ending.
pub fn is_own_thread(tid: i32) -> bool {
    // SAFETY: plain numbers only, and no signal.
    tid > 0 && unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, 0) } == 0
}

/// The size of the machine's pages.
pub fn page() -> u64 {
    static PAGE: OnceLock<u64> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: a plain number, and no memory of ours.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        u64::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
    })
}

/// Our effective user.
pub fn effective_user() -> u32 {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::geteuid() }
}

/// Takes the advisory lock on an open file or directory; false when somebody else has it.
pub fn try_lock(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let locked = step(format_args!("flock"), || {
        // SAFETY: plain numbers only.
        let result = unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    });
    match locked {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether all descriptors of one process are the same file, as since Linux 6.9, so that a lock on one is a lock on all.
pub fn pidfd_is_its_own_file(fd: BorrowedFd<'_>) -> bool {
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    nix::sys::statfs::fstatfs(fd).is_ok_and(|fs| fs.filesystem_type().0 == PID_FS_MAGIC)
}

/// Gives that lock back.
pub fn unlock(fd: BorrowedFd<'_>) {
    // SAFETY: plain numbers only.
    unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
}

/// Opens a file.
pub fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    step(format_args!("open {}", path.display()), || options.open(path))
}

/// All bytes of a file of `/proc`.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    step(format_args!("read {}", path.display()), || read_to_end(&File::open(path)?))
}

/// All bytes of an open file of `/proc`, from its beginning.
pub fn read_whole(file: &File) -> io::Result<Vec<u8>> {
    step(format_args!("read a file"), || read_to_end(file))
}

/// Such a file does not say how long it is, and most are shorter than a page: the standard library begins with 32 bytes and would
/// make many calls for them.
fn read_to_end(file: &File) -> io::Result<Vec<u8>> {
    const PAGE: usize = 4096;
    let mut bytes = Vec::new();
    let mut filled = 0;
    loop {
        bytes.resize(filled + PAGE, 0);
        match file.read_at(bytes.get_mut(filled..).unwrap_or_default(), filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The names in a directory.
pub fn names_in(path: &Path) -> io::Result<Vec<String>> {
    step(format_args!("readdir {}", path.display()), || {
        // A name that is no text is not one of those that the kernel gives.
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().unwrap_or_default());
        fs::read_dir(path)?.map(name).collect()
    })
}

/// Where a link leads.
pub fn read_link(path: &Path) -> io::Result<PathBuf> {
    step(format_args!("readlink {}", path.display()), || fs::read_link(path))
}

/// Owner, number of links and so on.
pub fn metadata(path: &Path) -> io::Result<Metadata> {
    step(format_args!("stat {}", path.display()), || fs::metadata(path))
}

/// Fills `buffer` from a place in a file of `/proc`: memory, or what is known of it.
pub fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    step(format_args!("pread {} bytes at {at:#x}", buffer.len()), || file.read_exact_at(buffer, at))
}

/// Writes memory through its file.
pub fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    step(format_args!("pwrite {} bytes at {at:#x}", bytes.len()), || file.write_all_at(bytes, at))
}

/// A system call is about to be made in the process. This is an error only when a test wants that call to fail.
pub fn about_to_call(name: &str) -> io::Result<()> {
    step(format_args!("call {name}"), || Ok(()))
}
