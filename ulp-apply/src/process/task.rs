// SPDX-License-Identifier: GPL-2.0-or-later
//! What `/proc` says of a process and of each of its threads.

use super::error::{Denial, Error};
use super::sys;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use ulp_arch::Asleep;

// Flags of /proc/PID/stat, from include/linux/sched.h.
const PF_EXITING: u64 = 0x4;
const PF_IO_WORKER: u64 = 0x10;
const PF_USER_WORKER: u64 = 0x4000;
const PF_KTHREAD: u64 = 0x20_0000;
const CAP_SYS_PTRACE: u32 = 19;

/// The fields of `/proc/PID/task/TID/stat` that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`, ...
    pub state: u8,
    pub flags: u64,
    pub start_time: u64,
    pub start_brk: u64,
}

impl Stat {
    pub fn read(pid: i32, tid: i32) -> Option<Self> {
        Self::parse(&read_file(pid, tid, "stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses included; the last one ends it.
        let (_, rest) = text.rsplit_once(')')?;
        let field: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `state` is field 3 of proc(5) and the first after the name.
        let number = |n: usize| field.get(n.checked_sub(3)?)?.parse().ok();
        Some(Self {
            state: *field.first()?.as_bytes().first()?,
            flags: number(9)?,
            start_time: number(22)?,
            start_brk: number(47).unwrap_or(0),
        })
    }

    pub fn kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// A thread which the kernel runs on the process' behalf (io_uring, vhost) and which never runs its code.
    pub fn kernel_worker(&self) -> bool {
        self.flags & (PF_IO_WORKER | PF_USER_WORKER) != 0
    }

    pub fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    pub fn exiting(&self) -> bool {
        self.flags & PF_EXITING != 0
    }

    pub fn running(&self) -> bool {
        self.state == b'R'
    }
}

/// The fields of `/proc/PID/task/TID/status` that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    pub tgid: i32,
    pub tracer: i32,
    pub uid: u32,
    pub cap_effective: u64,
    pub seccomp: u32,
}

impl Status {
    pub fn read(pid: i32, tid: i32) -> Result<Self, Error> {
        let text = read_file(pid, tid, "status")?;
        Self::parse(&text).ok_or_else(|| Error::Proc {
            path: format!("/proc/{pid}/task/{tid}/status"),
            source: io::ErrorKind::InvalidData.into(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_ascii_whitespace().next()
        };
        Some(Self {
            tgid: field("Tgid")?.parse().ok()?,
            tracer: field("TracerPid")?.parse().ok()?,
            uid: field("Uid")?.parse().ok()?,
            cap_effective: u64::from_str_radix(field("CapEff")?, 16).ok()?,
            // A kernel without seccomp has no such line.
            seccomp: field("Seccomp").map_or(Some(0), |v| v.parse().ok())?,
        })
    }
}

/// What it means that a file of one thread can neither be opened nor read. A thread that has ended has no files; one that is
/// about to end has given up its memory before, and then the files that show it answer ESRCH (since Linux 6.16; empty before).
/// Neither says anything of the process: other threads may live on.
fn unreadable(pid: i32, tid: i32, path: String, source: io::Error) -> Error {
    if source.raw_os_error() == Some(libc::ESRCH) || source.kind() == io::ErrorKind::NotFound {
        return Error::ThreadGone { pid, tid };
    }
    Error::Proc { path, source }
}

fn bytes_of(pid: i32, tid: i32, name: &str) -> Result<Vec<u8>, Error> {
    let path = format!("/proc/{pid}/task/{tid}/{name}");
    sys::read_file(path.as_ref()).map_err(|source| unreadable(pid, tid, path, source))
}

/// The text of a file of one thread.
pub fn read_file(pid: i32, tid: i32, name: &str) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&bytes_of(pid, tid, name)?).into_owned())
}

/// The text of a file that shows the process' memory, and is empty when the thread has given that up.
pub fn read_of_memory(pid: i32, tid: i32, name: &str) -> Result<String, Error> {
    let text = read_file(pid, tid, name)?;
    if text.is_empty() { Err(Error::ThreadGone { pid, tid }) } else { Ok(text) }
}

/// Opens a file of one thread.
pub fn open(pid: i32, tid: i32, name: &str, write: bool) -> Result<File, Error> {
    let path = format!("/proc/{pid}/task/{tid}/{name}");
    sys::open(path.as_ref(), File::options().read(true).write(write))
        .map_err(|source| unreadable(pid, tid, path, source))
}

/// The names in a directory of one thread.
pub fn names_in(pid: i32, tid: i32, name: &str) -> Result<Vec<String>, Error> {
    let path = format!("/proc/{pid}/task/{tid}/{name}");
    sys::names_in(path.as_ref()).map_err(|source| unreadable(pid, tid, path, source))
}

/// A thread's name.
pub fn comm(pid: i32, tid: i32) -> String {
    read_file(pid, tid, "comm").map(|t| t.trim_end().to_owned()).unwrap_or_default()
}

/// The numbers of all threads.
pub fn list(pid: i32) -> Result<Vec<i32>, Error> {
    let path = format!("/proc/{pid}/task");
    match sys::names_in(path.as_ref()) {
        Ok(names) => Ok(names.iter().filter_map(|n| n.parse().ok()).collect()),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) || e.kind() == io::ErrorKind::NotFound => {
            Err(Error::Gone { pid })
        }
        Err(source) => Err(Error::Proc { path, source }),
    }
}

/// Takes note of the end of those threads, the first apart, that any thread of ours traces. None of this is a step: it is
/// done beside the tracer, when that takes long.
pub fn take_note_of_ends(pid: i32) {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for tid in threads.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat"));
        if tid != pid && stat.ok().and_then(|text| Stat::parse(&text)).is_some_and(|stat| stat.ended()) {
            sys::take_note_of_end(tid);
        }
    }
}

/// How many threads the kernel counts, the ended first one included; cheap enough to ask under a stop.
pub fn count(pid: i32) -> Option<u64> {
    sys::metadata(format!("/proc/{pid}/task").as_ref()).ok()?.nlink().checked_sub(2)
}

/// The name of the thread that traces.
pub const TRACER: &str = "tracer";

/// How long a process may take between the first sign of its end and the end of its last thread's work.
const LOOKS: u32 = 250;
const BETWEEN: Duration = Duration::from_millis(2);

/// What `read` makes of a thread that lives: the first one, or any other when that has ended. The thread may end meanwhile,
/// which `read` reports as [`Error::ThreadGone`]; then another one is asked. Where none lives the process is gone.
pub fn through_any<T>(pid: i32, mut read: impl FnMut(i32) -> Result<T, Error>) -> Result<T, Error> {
    let mut ask = |tid: i32| match Stat::read(pid, tid) {
        Some(stat) if !stat.ended() && !stat.exiting() => match read(tid) {
            Err(Error::ThreadGone { .. }) => None,
            answer => Some(answer),
        },
        _ => None,
    };
    for _ in 0..LOOKS {
        if let Some(answer) = ask(pid) {
            return answer;
        }
        let others: Vec<i32> = list(pid)?.into_iter().filter(|tid| *tid != pid).collect();
        if others.is_empty() && Stat::read(pid, pid).is_some_and(|s| s.ended()) {
            return Err(Error::Zombie { pid });
        }
        if let Some(answer) = others.into_iter().find_map(&mut ask) {
            return answer;
        }
        if ending(pid) {
            break;
        }
        // Threads were born and have ended while the list was read.
        std::thread::sleep(BETWEEN);
    }
    Err(Error::Gone { pid })
}

/// Some thread that lives.
pub fn living(pid: i32) -> Result<i32, Error> {
    through_any(pid, Ok)
}

/// Whether the process has a handler for a signal; yes where that cannot be seen.
pub fn catches(pid: i32, tid: i32, signal: i32) -> bool {
    let Ok(status) = read_file(pid, tid, "status") else { return true };
    let caught = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("SigCgt:")?.trim(), 16).ok());
    let bit = u32::try_from(signal).ok().and_then(|s| s.checked_sub(1));
    caught.zip(bit).is_none_or(|(caught, bit)| caught.checked_shr(bit).is_none_or(|rest| rest & 1 == 1))
}

/// Whether a thread has ended, is ending, or is bound to because a SIGKILL waits for it, as for each thread of a process that
/// was killed or calls exit_group. None of these ever comes back. What cannot be read says nothing.
pub fn doomed(pid: i32, tid: i32) -> bool {
    const SIGKILL: u64 = 1 << 8;
    let text = match read_file(pid, tid, "stat") {
        Ok(text) => text,
        Err(e) => return matches!(e, Error::ThreadGone { .. }),
    };
    if Stat::parse(&text).is_some_and(|s| s.ended() || s.exiting()) {
        return true;
    }
    let Ok(status) = read_file(pid, tid, "status") else { return false };
    let pending = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("SigPnd:")?.trim(), 16).ok());
    pending.is_some_and(|signals| signals & SIGKILL != 0)
}

/// Whether all threads are doomed. A list of threads that end while it is read may be too short, so the kernel's count has to
/// agree with it; and who is doomed makes no new threads.
pub fn ending(pid: i32) -> bool {
    match list(pid) {
        Ok(tids) => tids.iter().all(|tid| doomed(pid, *tid)) && count(pid).is_none_or(|n| n <= tids.len() as u64),
        Err(e) => matches!(e, Error::Gone { .. }),
    }
}

/// Refuses a thread that has a tracer already. That another thread of the process has one shows when it is seized.
pub fn refuse_traced(pid: i32, tid: i32) -> Result<(), Error> {
    match Status::read(pid, tid)?.tracer {
        0 => Ok(()),
        tracer if is_applier(tracer) => Err(Error::Locked { pid }),
        tracer => Err(Error::Traced { pid, tracer, comm: comm(tracer, tracer) }),
    }
}

/// Whether a tracer is another ulp-apply, whose stop passes in a moment, and no debugger.
fn is_applier(tracer: i32) -> bool {
    let program = |who: &str| sys::read_link(format!("/proc/{who}/exe").as_ref()).ok();
    // One that is just ending has no program any more, and lets go in a moment.
    let same = program(&tracer.to_string()).is_none_or(|theirs| program("self") == Some(theirs));
    same && comm(tracer, tracer) == TRACER
}

/// The auxiliary vector, as pairs of words.
pub fn auxv(pid: i32, tid: i32) -> Result<Vec<(u64, u64)>, Error> {
    let bytes = bytes_of(pid, tid, "auxv")?;
    if bytes.is_empty() {
        return Err(Error::ThreadGone { pid, tid });
    }
    let (words, _) = bytes.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    Ok(pairs.iter().map(|[k, v]| (u64::from_le_bytes(*k), u64::from_le_bytes(*v))).collect())
}

/// Whether two processes live in the same user namespace; unknown counts as yes.
fn same_user_namespace(pid: i32) -> bool {
    let namespace = |who: String| sys::read_link(format!("/proc/{who}/ns/user").as_ref());
    match (namespace(pid.to_string()), namespace("self".into())) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => true,
    }
}

/// The number that is all a file of the kernel's settings holds.
pub fn number_in<T: std::str::FromStr>(path: &str) -> Option<T> {
    String::from_utf8(sys::read_file(path.as_ref()).ok()?).ok()?.trim().parse().ok()
}

/// Finds out why the kernel does not let us near a process.
pub fn why_denied(pid: i32, theirs: &Status) -> Denial {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let capable = Status::read(own, own).is_ok_and(|s| s.cap_effective & (1 << CAP_SYS_PTRACE) != 0);
    let yama = number_in("/proc/sys/kernel/yama/ptrace_scope");
    let ours = sys::effective_user();
    let owner = sys::metadata(format!("/proc/{pid}").as_ref()).map(|m| m.uid()).ok();
    if !same_user_namespace(pid) {
        Denial::UserNamespace
    } else if yama == Some(3) {
        Denial::Yama { scope: 3 }
    } else if capable {
        Denial::Unknown
    } else if theirs.uid != ours {
        Denial::OtherUser { theirs: theirs.uid, ours }
    } else if owner.is_some_and(|o| o != theirs.uid) {
        // The kernel gives the files of a non-dumpable process to root.
        Denial::NotDumpable
    } else if let Some(scope @ 1..) = yama {
        Denial::Yama { scope }
    } else {
        Denial::Unknown
    }
}

/// The system call that a thread sleeps in; `None` for one that runs, or is in no call.
pub fn asleep(pid: i32, tid: i32) -> Option<Asleep> {
    parse_asleep(&read_file(pid, tid, "syscall").ok()?)
}

/// "NUMBER ARGUMENT*6 SP PC", all but the number in hex; "running"; or "-1 SP PC" for a thread that waits in no call.
fn parse_asleep(text: &str) -> Option<Asleep> {
    let (number, rest) = text.trim_end().split_once(' ')?;
    let words: Option<Vec<u64>> =
        rest.split(' ').map(|w| u64::from_str_radix(w.strip_prefix("0x")?, 16).ok()).collect();
    let [args @ .., sp, pc] = <[u64; 8]>::try_from(words?).ok()?;
    Some(Asleep { number: number.parse().ok()?, args, sp, pc })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "7 (a) R b(c)) S 1 7 7 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 3 0 555 1 1 1 1 1 1 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 11 22 33 0";
        let stat = Stat::parse(text).expect("a stat line");
        assert_eq!(stat, Stat { state: b'S', flags: 4194304, start_time: 555, start_brk: 33 });
        assert_eq!(Stat::parse("7 (x"), None);
        assert_eq!(Stat::parse("7 (x) S 1 2"), None);
    }

    #[test]
    fn status_is_read_by_name() {
        let text =
            "Name:\tUid:\nTgid:\t7\nTracerPid:\t9\nUid:\t1000\t0\t0\t0\nCapEff:\t00000000000000ff\nSeccomp:\t2\n";
        let status = Status::parse(text).expect("a status");
        assert_eq!(status, Status { tgid: 7, tracer: 9, uid: 1000, cap_effective: 255, seccomp: 2 });
        assert_eq!(Status::parse("Tgid:\t7\n"), None);
    }

    #[test]
    fn another_thread_is_asked_when_one_has_ended() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let (ask, told) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || told.recv());
        let mut asked = Vec::new();
        let answer = through_any(own, |tid| {
            asked.push(tid);
            if tid == own { Err(Error::ThreadGone { pid: own, tid }) } else { Ok(tid) }
        });
        assert_eq!(asked.first(), Some(&own));
        assert!(matches!(answer, Ok(tid) if tid != own), "{answer:?}");
        assert!(!ending(own) && !doomed(own, own));
        ask.send(()).expect("the other thread waits");
        other.join().expect("no panic").expect("told");
    }

    #[test]
    fn a_killed_process_is_ending() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep runs");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert!(!ending(pid));
        child.kill().expect("our child");
        // From the signal on, not only from the last thread's end on.
        assert!(ending(pid) || child.try_wait().is_ok_and(|end| end.is_some()));
        child.wait().expect("our child");
        assert!(ending(pid));
    }

    #[test]
    fn the_call_of_a_sleeper() {
        let text = "7 0x7ffc1 0x1 0xffffffffffffffff 0x0 0x5 0x6 0x7ffc0 0x7f12\n";
        let expected = Asleep { number: 7, args: [0x7_ffc1, 1, u64::MAX, 0, 5, 6], sp: 0x7_ffc0, pc: 0x7f12 };
        assert_eq!(parse_asleep(text), Some(expected));
        for text in ["running\n", "-1 0x7ffc0 0x7f12\n", "", "7 0x1 0x2\n", "7 1 2 3 4 5 6 7 8\n"] {
            assert_eq!(parse_asleep(text), None, "{text}");
        }
    }

    #[test]
    fn signals_with_a_handler() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        // Rust's own handler for overflowing stacks.
        assert!(catches(own, own, libc::SIGSEGV));
        assert!(!catches(own, own, libc::SIGUSR2) && !catches(own, own, libc::SIGCHLD));
        assert!(catches(own, own, 0) && catches(own, own, 65) && catches(i32::MAX, i32::MAX, libc::SIGUSR2), "unknown");
    }

    #[test]
    fn we_ourselves_are_alive() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(list(own).expect("our threads").contains(&own));
        assert!(count(own).expect("our count") >= 1);
        assert_eq!(living(own).expect("a thread"), own);
        assert!(auxv(own, own).expect("auxv").contains(&(4, 56)));
    }
}
