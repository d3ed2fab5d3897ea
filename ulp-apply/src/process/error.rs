// SPDX-License-Identifier: GPL-2.0-or-later
//! Everything that can go wrong between us and a process, with the facts a person needs for the next step.

use std::fmt;
use std::time::Duration;
use thiserror::Error;
use ulp_arch::RemoteAddr;

/// What an error means to the caller; the exit codes follow from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// There is no such process (any more).
    NoProcess,
    /// Not now; another attempt may succeed.
    Busy,
    /// It cannot be done safely, or we may not.
    Refused,
    /// Something failed that should have worked.
    Failed,
}

/// Why the kernel does not let us trace a process, as far as it can be found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Denial {
    /// The process belongs to another user.
    OtherUser { theirs: u32, ours: u32 },
    /// Yama restricts tracing: 1 to descendants, 2 to administrators, 3 altogether.
    Yama { scope: u32 },
    /// The process has made itself non-dumpable (or changed its user), so only CAP_SYS_PTRACE helps.
    NotDumpable,
    /// The process lives in a user namespace where we have no rights.
    UserNamespace,
    /// None of the above: a security module, perhaps.
    Unknown,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherUser { theirs, ours } => {
                write!(f, "it belongs to user {theirs} and we are user {ours}; run as that user or as root")
            }
            Self::Yama { scope: 3 } => {
                write!(f, "kernel.yama.ptrace_scope is 3, which forbids tracing until the next boot")
            }
            Self::Yama { scope } => {
                write!(f, "kernel.yama.ptrace_scope is {scope}; run with CAP_SYS_PTRACE (as root)")
            }
            Self::NotDumpable => write!(f, "it is not dumpable; run with CAP_SYS_PTRACE (as root)"),
            Self::UserNamespace => {
                write!(f, "it lives in another user namespace; run as root of the outer one, or inside its own")
            }
            Self::Unknown => {
                write!(f, "the kernel or a security module (SELinux, AppArmor) forbids it; look at the audit log")
            }
        }
    }
}

/// One thread that is, or may be, inside code that is about to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusyThread {
    /// Thread number.
    pub tid: i32,
    /// Its name.
    pub comm: String,
    /// The function it may be inside of.
    pub function: String,
    /// The code address that was seen.
    pub address: RemoteAddr,
    /// Where it was seen.
    pub why: Why,
    /// Where the function will return to, as far as the stack could be followed.
    pub caller: Option<RemoteAddr>,
    /// The function never returns.
    pub for_ever: bool,
    /// It ran when it was stopped: it may leave and come back many times before it is looked at again.
    pub hot: bool,
}

impl fmt::Display for BusyThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} ({}) is in {}: {} {}", self.tid, self.comm, self.function, self.address, self.why)
    }
}

/// Where a suspicious code address was seen, and what is known about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The program counter.
    Running,
    /// Another register.
    Register,
    /// The return address of a frame, counted from the innermost.
    Frame(usize),
    /// A stack word which could not be proved stale.
    StackWord(RemoteAddr),
    /// A stack word points into `[uprobes]`, which hides a return address.
    Uprobe(RemoteAddr),
    /// The thread's stack could not be read or found.
    UnknownStack,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => write!(f, "is its program counter"),
            Self::Register => write!(f, "is in a register"),
            Self::Frame(n) => write!(f, "is the return address of frame {n}"),
            Self::StackWord(at) => write!(f, "is on its stack at {at}"),
            Self::Uprobe(at) => write!(f, "on its stack at {at} is a probe's"),
            Self::UnknownStack => write!(f, "is its stack pointer, and that stack cannot be read"),
        }
    }
}

/// Everything that can go wrong between us and a process.
#[derive(Debug, Error)]
pub enum Error {
    #[error(
        "to stop the {threads} threads of process {pid} would take about {} ms, and --max-stop is {} ms; \
         pass --max-stop {}ms if the program can bear it: a thread that is woken meanwhile may wait that long",
        .estimate.as_millis(), .limit.as_millis(), 2 * .estimate.as_millis()
    )]
    TooLarge { pid: i32, threads: usize, estimate: Duration, limit: Duration },
    #[error("no process {pid}")]
    NoProcess { pid: i32 },
    #[error("{pid} is a thread of process {tgid}; give the process's number")]
    IsThread { pid: i32, tgid: i32 },
    #[error("process {pid} has ended and waits for its parent")]
    Zombie { pid: i32 },
    #[error("{pid} is a kernel thread")]
    KernelThread { pid: i32 },
    #[error("process {pid} ended meanwhile; nothing was changed")]
    Gone { pid: i32 },
    #[error("thread {tid} of process {pid} ended meanwhile; nothing was changed, try again")]
    ThreadGone { pid: i32, tid: i32 },
    #[error("process {pid} started another program meanwhile; nothing was changed, try again")]
    Execed { pid: i32 },
    #[error("process {pid} is being traced by {tracer} ({comm}); end that debugger first")]
    Traced { pid: i32, tracer: i32, comm: String },
    #[error("process {pid} may not be traced: {reason}")]
    NoPermission { pid: i32, reason: Denial },
    #[error("process {pid} is not a 64-bit program; only those can be patched")]
    Not64Bit { pid: i32 },
    #[error("processes of this machine ({machine}) are not supported yet")]
    Unsupported { machine: &'static str },
    #[error("the pages of this machine have {size} bytes, and processes are patched only where they have {}; boot a kernel with such pages", sizes(.seen))]
    PageSize { size: u64, seen: &'static [u64] },
    #[error("another ulp-apply works on process {pid}; try again when it is done")]
    Locked { pid: i32 },
    #[error("process {pid} is busy: {}", .threads.first().map(ToString::to_string).unwrap_or_default())]
    Busy { pid: i32, threads: Vec<BusyThread> },
    #[error("thread {tid} ({comm}) did not stop within {waited:?}; try again, or raise --max-stop")]
    NotStopped { tid: i32, comm: String, waited: Duration },
    #[error("the stop took longer than {limit:?} and was given up; try again, or raise --max-stop")]
    TooLong { limit: Duration },
    #[error("process {other} shares the memory of {pid} (vfork or clone); try again when it is gone")]
    SharesMemory { pid: i32, other: i32 },
    #[error("no thread of process {pid} can make a system call for us now: {why}; try again")]
    NoThread { pid: i32, why: &'static str },
    #[error(
        "no unused bytes after any program text of process {pid} to hold the system call stub; it cannot be patched"
    )]
    NoPadding { pid: i32 },
    #[error(
        "seccomp would answer {call} of process {pid} with {action}; allow the call in its filter, or patch before the filter is set"
    )]
    Seccomp { pid: i32, call: &'static str, action: &'static str },
    #[error("process {pid} has a seccomp filter and it cannot be read ({source}); run with CAP_SYS_ADMIN (as root)")]
    SeccompUnreadable { pid: i32, source: std::io::Error },
    #[error(
        "process {pid} answers a system call that we make in it with signal {signal}, which was kept from it; it cannot be patched while it does so"
    )]
    CallTrapped { pid: i32, signal: i32 },
    #[error("{call} in process {pid} failed: {source}{}", if is_access(.source) { " (SELinux's execmem, perhaps)" } else { "" })]
    Call { pid: i32, call: &'static str, source: std::io::Error },
    #[error(
        "no free address space of {size} bytes near the code at {near}; the process has mapped or reserved all that its code can reach, so it cannot be patched while it runs"
    )]
    NoRoom { size: u64, near: RemoteAddr },
    #[error(
        "process {pid} may not map more memory; it is at its RLIMIT_AS (see prlimit --pid {pid}), at vm.max_map_count, or the machine has none left: raise the limit and try again"
    )]
    NoMemory { pid: i32 },
    #[error("cannot read {len} bytes at {addr}: {source}")]
    Read { addr: RemoteAddr, len: usize, source: std::io::Error },
    #[error("cannot write {len} bytes at {addr}: {source}")]
    Write { addr: RemoteAddr, len: usize, source: std::io::Error },
    #[error("cannot read {path}: {source}")]
    Proc { path: String, source: std::io::Error },
    #[error("ptrace request {request} for thread {tid} failed: {source}")]
    Ptrace { request: &'static str, tid: i32, source: std::io::Error },
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

fn is_access(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}

impl Error {
    /// Whether something else was mapped meanwhile where memory was to be mapped.
    pub fn place_taken(&self) -> bool {
        matches!(self, Self::Call { call: "mmap", source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists)
    }

    /// Whether another attempt on the same memory may succeed: a program that was started in its place never is the one meant.
    pub fn may_pass(&self) -> bool {
        self.kind() == ErrorKind::Busy && !matches!(self, Self::Execed { .. })
    }

    /// What this means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProcess { .. } | Self::IsThread { .. } | Self::Zombie { .. } | Self::Gone { .. } => {
                ErrorKind::NoProcess
            }
            Self::Busy { .. }
            | Self::ThreadGone { .. }
            | Self::Execed { .. }
            | Self::Locked { .. }
            | Self::NotStopped { .. }
            | Self::TooLong { .. }
            | Self::SharesMemory { .. }
            | Self::NoThread { .. } => ErrorKind::Busy,
            Self::KernelThread { .. }
            | Self::Traced { .. }
            | Self::NoPermission { .. }
            | Self::Not64Bit { .. }
            | Self::Unsupported { .. }
            | Self::PageSize { .. }
            | Self::NoPadding { .. }
            | Self::Seccomp { .. }
            | Self::SeccompUnreadable { .. }
            | Self::CallTrapped { .. }
            | Self::NoMemory { .. }
            | Self::TooLarge { .. }
            | Self::NoRoom { .. } => ErrorKind::Refused,
            Self::Call { source, .. } if is_access(source) => ErrorKind::Refused,
            Self::Call { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Proc { .. }
            | Self::Ptrace { .. }
            | Self::System { .. } => ErrorKind::Failed,
        }
    }
}

fn sizes(seen: &[u64]) -> String {
    seen.iter().map(u64::to_string).collect::<Vec<_>>().join(" or ")
}
