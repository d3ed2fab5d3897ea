// SPDX-License-Identifier: GPL-2.0-or-later
//! What `/proc` says of a process and of each of its threads.

use super::error::{Denial, Error};
use super::sys;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

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

/// The text of a file of one thread.
pub fn read_file(pid: i32, tid: i32, name: &str) -> Result<String, Error> {
    let path = format!("/proc/{pid}/task/{tid}/{name}");
    match sys::read_file(path.as_ref()) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) || e.kind() == io::ErrorKind::NotFound => {
            Err(Error::Gone { pid })
        }
        Err(source) => Err(Error::Proc { path, source }),
    }
}

/// Opens a file of the process through a thread that lives.
pub fn open(pid: i32, name: &str) -> Option<File> {
    let open = |path: String| sys::open(path.as_ref(), File::options().read(true));
    open(format!("/proc/{pid}/task/{}/{name}", living(pid).ok()?)).or_else(|_| open(format!("/proc/{pid}/{name}"))).ok()
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

/// Some thread that has not ended.
pub fn living(pid: i32) -> Result<i32, Error> {
    let live = |tid: &i32| Stat::read(pid, *tid).is_some_and(|s| !s.ended());
    if live(&pid) {
        return Ok(pid);
    }
    list(pid)?.into_iter().find(live).ok_or(Error::Zombie { pid })
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
    let path = format!("/proc/{pid}/task/{tid}/auxv");
    let bytes = sys::read_file(path.as_ref()).map_err(|source| Error::Proc { path, source })?;
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
    fn we_ourselves_are_alive() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(list(own).expect("our threads").contains(&own));
        assert!(count(own).expect("our count") >= 1);
        assert_eq!(living(own).expect("a thread"), own);
        assert!(auxv(own, own).expect("auxv").contains(&(4, 56)));
    }
}
