// SPDX-License-Identifier: GPL-2.0-or-later
//! A running process: who it is, what it has loaded, how it is stopped, looked at, changed and let go. Everything
//! that talks to the kernel is here; nothing here knows what a patch is.
//!
//! A [`Process`] is read at any time. It is *changed* only through two guards, which exist only inside a closure:
//!
//! * [`Process::remote`] holds one thread and makes `mmap`/`munmap` calls in it ([`Remote`]);
//! * [`Process::stop`] holds all threads, after proving that none is inside given code ([`Quiet`]).
//!
//! Both run on a thread of their own: when that thread ends, however it ends, the kernel lets go of every thread it
//! still holds. Errors change nothing, and threads go on as if they had not been stopped.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod cgroup;
mod cure;
mod error;
mod files;
mod going;
mod kept;
mod maps;
mod module;
mod pulse;
mod quiesce;
mod reader;
mod remote;
mod seccomp;
mod step;
mod stop;
mod sys;
mod tables;
mod task;
mod tracer;
mod undisturbed;
mod unwind;

pub use cgroup::Room;
pub use error::{BusyThread, Denial, Error, ErrorKind, Why};
pub(crate) use files::Disk;
pub use maps::{Mapping, Maps, Wish};
pub use module::{Dynamic, Module, Role, Segment, Tls};
pub use pulse::Pulse;
pub use quiesce::{Check, SHOWN, Suspect, Unwound};
pub use reader::Reader;
pub use remote::{Protection, Remote};
pub use stop::{Quiet, Timings};
pub use unwind::{ExtraTable, Unwinder};

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use ulp_arch::Arch;
pub use ulp_arch::RemoteAddr;

/// `AT_PHENT` of a 64-bit program: the size of its program headers.
const PHENT_64: u64 = 56;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_ENTRY: u64 = 9;
const AT_SYSINFO_EHDR: u64 = 33;

/// A process, known by a descriptor and its memory: its number may be used again, these cannot.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    arch: &'static dyn Arch,
    pidfd: OwnedFd,
    start_time: u64,
    directory: File,
    memory: File,
    auxv: Vec<(u64, u64)>,
    /// Bits of saved return addresses that may be signatures; the same for all threads, and known once one was held.
    signature: OnceLock<u64>,
}

/// Takes the signature off return addresses.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned {
    arch: &'static dyn Arch,
    mask: u64,
}

impl Unsigned {
    /// The bits that may be a signature.
    pub fn mask(self) -> u64 {
        self.mask
    }

    /// The address that a word stands for, if it is one.
    #[inline]
    pub fn address(self, word: u64) -> u64 {
        if self.mask == 0 { word } else { self.arch.code_address(word, self.mask) }
    }
}

/// The advisory lock of one process; given back when dropped.
#[derive(Debug)]
pub struct Lock<'a>(&'a Process);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        sys::unlock(self.0.directory.as_fd());
        sys::unlock(self.0.pidfd.as_fd());
    }
}

/// Another ulp-apply may hold the process at this moment: its stop is short, and the lock comes later.
fn wait_for_other_applier(pid: i32, tid: i32) -> Result<(), Error> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match task::refuse_traced(pid, tid) {
            Err(Error::Locked { .. }) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            answer => return answer,
        }
    }
}

/// Whether processes of a machine are worked on.
fn may_work_on(arch: &dyn Arch) -> bool {
    arch.can_apply() && (arch.proven() || cfg!(feature = "unproven"))
}

/// Refuses pages with which patches were never seen to go in and out; what is built for tests is to see it.
fn refuse_pages(arch: &dyn Arch, size: u64) -> Result<(), Error> {
    let seen = arch.pages();
    if seen.contains(&size) || cfg!(feature = "unproven") { Ok(()) } else { Err(Error::PageSize { size, seen }) }
}

impl Process {
    /// Finds a process and opens its memory. Changes and stops nothing.
    pub fn open(pid: i32) -> Result<Self, Error> {
        Self::open_when(pid, |tid| wait_for_other_applier(pid, tid))
    }

    /// The same for who only reads: a debugger may hold the process.
    pub fn open_to_read(pid: i32) -> Result<Self, Error> {
        Self::open_when(pid, |_| Ok(()))
    }

    fn open_when(pid: i32, free: impl Fn(i32) -> Result<(), Error>) -> Result<Self, Error> {
        let arch = ulp_arch::host()
            .filter(|a| may_work_on(*a))
            .ok_or(Error::Unsupported { machine: std::env::consts::ARCH })?;
        if pid <= 0 {
            return Err(Error::NoProcess { pid });
        }
        let status = task::Status::read(pid, pid).map_err(|e| match e {
            Error::ThreadGone { .. } => Error::NoProcess { pid },
            e => e,
        })?;
        if status.tgid != pid {
            return Err(Error::IsThread { pid, tgid: status.tgid });
        }
        let pidfd = sys::pidfd_open(pid).map_err(|_| Error::NoProcess { pid })?;
        let stat = task::Stat::read(pid, pid).ok_or(Error::NoProcess { pid })?;
        if stat.kernel_thread() {
            return Err(Error::KernelThread { pid });
        }
        let path = format!("/proc/{pid}");
        let directory =
            sys::open(path.as_ref(), File::options().read(true)).map_err(|source| Error::Proc { path, source })?;
        // Any living thread will do: the first one may have ended.
        let (memory, auxv) = task::through_any(pid, |tid| {
            let memory = task::open(pid, tid, "mem", true).map_err(|e| match e {
                Error::Proc { source, .. } if matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                    Error::NoPermission { pid, reason: task::why_denied(pid, &status) }
                }
                e => e,
            })?;
            free(tid)?;
            Ok((memory, task::auxv(pid, tid)?))
        })?;
        if !auxv.contains(&(AT_PHENT, PHENT_64)) {
            return Err(Error::Not64Bit { pid });
        }
        let process =
            Self { pid, arch, pidfd, start_time: stat.start_time, directory, memory, auxv, signature: OnceLock::new() };
        // The number was not used again between our looks.
        match task::Stat::read(pid, pid) {
            Some(again) if again.start_time == process.start_time && process.is_alive() => Ok(process),
            _ => Err(Error::Gone { pid }),
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When it started, in clock ticks since boot: together with the number, its name among all processes.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The name of its first thread.
    pub fn comm(&self) -> String {
        task::comm(self.pid, self.pid)
    }

    /// The size of its machine's pages, in which all mappings are counted.
    pub fn page(&self) -> u64 {
        sys::page()
    }

    /// Refuses machines with pages of a size that was never tested.
    pub fn refuse_other_pages(&self) -> Result<(), Error> {
        refuse_pages(self.arch, self.page())
    }

    /// Its processor.
    pub fn arch(&self) -> &'static dyn Arch {
        self.arch
    }

    /// Looks up, in a thread that is held, which bits of return addresses may be signatures.
    fn learn_signature(&self, tid: i32) -> io::Result<()> {
        if let (Some(at), None) = (self.arch.signature_in(), self.signature.get()) {
            let mask = sys::set_word(tid, at)?.unwrap_or(0);
            self.signature.get_or_init(|| mask);
        }
        Ok(())
    }

    /// What takes the signatures off return addresses. Only while threads are held: before, it is not known what a signature is.
    pub fn unsigned(&self) -> Unsigned {
        Unsigned { arch: self.arch, mask: self.signature.get().copied().unwrap_or(0) }
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        !sys::pidfd_ended(self.pidfd.as_fd())
    }

    /// Why nothing can be done in it any more, if that is so: it has ended or is bound to, or it started another program.
    /// Asked when something failed; a process that is being killed is given a moment to show it.
    pub fn lost(&self) -> Option<Error> {
        /// How often one that still has its memory is looked at.
        const PATIENCE: u32 = 5;
        let headers = self.auxv.iter().find(|(key, _)| *key == AT_PHDR)?.1;
        // An end takes its time on a busy machine, and its memory goes first; a new program's first thread lives.
        for look in 0..250 {
            // In this order: who has no memory and is not bound to end after that has another one.
            let look_at = sys::read_at(&self.memory, &mut [0; 4], headers);
            let empty = look_at.is_err_and(|e| e.kind() == io::ErrorKind::UnexpectedEof);
            if !self.is_alive() || task::ending(self.pid) {
                return Some(Error::Gone { pid: self.pid });
            }
            if empty && !task::doomed(self.pid, self.pid) {
                return Some(Error::Execed { pid: self.pid });
            }
            if !empty && look >= PATIENCE {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Some(Error::Gone { pid: self.pid })
    }

    /// Takes the lock that keeps two appliers from working on one process, waiting for it as long as told.
    pub fn lock(&self, wait: Duration) -> Result<Lock<'_>, Error> {
        let deadline = Instant::now() + wait;
        loop {
            match self.try_lock() {
                Ok(true) => return Ok(Lock(self)),
                Ok(false) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Ok(false) => return Err(Error::Locked { pid: self.pid }),
                Err(source) => return Err(Error::System { what: "lock the process", source }),
            }
        }
    }

    /// The directory under /proc is one file for all who see the same /proc, the descriptor also for those of other
    /// containers.
    fn try_lock(&self) -> io::Result<bool> {
        if !sys::try_lock(self.directory.as_fd())? {
            return Ok(false);
        }
        let pidfd = self.pidfd.as_fd();
        if !sys::pidfd_is_its_own_file(pidfd) {
            return Ok(true);
        }
        let locked = sys::try_lock(pidfd);
        if !matches!(locked, Ok(true)) {
            sys::unlock(self.directory.as_fd());
        }
        locked
    }

    /// The user that owns it, for the audit line.
    pub fn owner(&self) -> Option<u32> {
        self.directory.metadata().ok().map(|m| m.uid())
    }

    /// Its mappings now.
    pub fn maps(&self) -> Result<Maps, Error> {
        let (tid, text) = task::through_any(self.pid, |tid| Ok((tid, task::read_of_memory(self.pid, tid, "maps")?)))?;
        let mut maps = self.parse_maps(&text)?;
        maps.start_brk = task::Stat::read(self.pid, tid).map_or(0, |s| s.start_brk);
        if let Some(min) = task::number_in("/proc/sys/vm/mmap_min_addr") {
            maps.min_addr = u64::max(min, 65536);
        }
        Ok(maps)
    }

    /// Its mappings now, by a file that is open already; not to look for free places in.
    fn mappings(&self, file: &File) -> Result<Maps, Error> {
        let text = sys::read_whole(file).map_err(|source| Error::Proc { path: self.maps_path(), source })?;
        // Nobody uses the memory any more that the file shows: who lives says why.
        if text.is_empty() { self.maps() } else { self.parse_maps(&String::from_utf8_lossy(&text)) }
    }

    fn parse_maps(&self, text: &str) -> Result<Maps, Error> {
        let bad = || Error::Proc { path: self.maps_path(), source: io::ErrorKind::InvalidData.into() };
        Maps::parse(text).ok_or_else(bad)
    }

    fn maps_path(&self) -> String {
        format!("/proc/{}/maps", self.pid)
    }

    /// A file that shows the process' memory, opened through a thread that lives.
    fn file_of_memory(&self, name: &str) -> Result<File, Error> {
        task::through_any(self.pid, |tid| task::open(self.pid, tid, name, false))
    }

    /// The ELF files that are loaded, read from memory; the kernel's own (vdso) is among them with its role.
    pub fn modules(&self, maps: &Maps) -> Result<Vec<Module>, Error> {
        let find = |key| self.auxv.iter().find(|(k, _)| *k == key).map_or(0, |(_, v)| *v);
        module::find(self, maps, find(AT_ENTRY), find(AT_SYSINFO_EHDR))
    }

    /// Reads memory. This is the memory of the program that ran when the process was opened: after an exec it is gone.
    pub fn read(&self, addr: RemoteAddr, buffer: &mut [u8]) -> Result<(), Error> {
        sys::read_at(&self.memory, buffer, addr.0).map_err(|source| {
            let failed = Error::Read { addr, len: buffer.len(), source };
            self.memory_ended(&failed).unwrap_or(failed)
        })
    }

    /// What became of a process whose memory nobody uses any more: its file has come to its end, and is not an error at a place
    /// as where nothing is mapped. The kernel may take its time to say that such a process has ended.
    fn memory_ended(&self, failed: &Error) -> Option<Error> {
        match failed {
            Error::Read { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => self.lost(),
            _ => (!self.is_alive()).then_some(Error::Gone { pid: self.pid }),
        }
    }

    /// Reads `len` bytes.
    pub fn read_vec(&self, addr: RemoteAddr, len: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; len];
        self.read(addr, &mut buffer)?;
        Ok(buffer)
    }

    /// Reads one little-endian word.
    pub fn read_u64(&self, addr: RemoteAddr) -> Result<u64, Error> {
        let mut word = [0; 8];
        self.read(addr, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Whether code at `at` can only be written word by word, because the kernel forbids it through the file
    /// (`proc_mem.force_override` of Linux 6.12). Writes the byte that is there already, and so may copy its page.
    pub(super) fn writes_words(&self, at: RemoteAddr) -> Result<bool, Error> {
        let byte = self.read_vec(at, 1)?;
        Ok(sys::write_at(&self.memory, &byte, at.0).is_err_and(|e| forbidden(&e)))
    }

    /// Writes memory, also read-only mappings (which become private copies). `tid` is a thread that is stopped by
    /// the calling thread; kernels that forbid writing through the file still let a tracer poke words.
    fn write(&self, tid: i32, addr: RemoteAddr, bytes: &[u8]) -> Result<(), Error> {
        let failed = |source| Error::Write { addr, len: bytes.len(), source };
        match sys::write_at(&self.memory, bytes, addr.0) {
            Ok(()) => Ok(()),
            Err(e) if forbidden(&e) => self.poke(tid, addr, bytes).map_err(failed),
            Err(e) => Err(failed(e)),
        }
    }

    fn poke(&self, tid: i32, addr: RemoteAddr, bytes: &[u8]) -> io::Result<()> {
        let first = addr.0 & !7;
        let mut at = first;
        let end = addr.0.saturating_add(bytes.len() as u64);
        while at < end {
            let mut word = [0; 8];
            sys::read_at(&self.memory, &mut word, at)?;
            let old = word;
            for (i, byte) in (at..).zip(word.iter_mut()) {
                let new = i.checked_sub(addr.0).and_then(|n| bytes.get(usize::try_from(n).ok()?));
                *byte = new.copied().unwrap_or(*byte);
            }
            if word != old {
                sys::poke(tid, at, u64::from_le_bytes(word))?;
            }
            at = at.saturating_add(8);
        }
        Ok(())
    }
}

/// Whether a write through the file failed for what the kernel thinks of such writes, and not for what is there.
fn forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EFAULT | libc::EPERM | libc::EACCES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_pages_are_refused_by_their_size() {
        for arch in ulp_arch::ALL {
            for size in [4096, 16384, 65536] {
                let Err(error) = refuse_pages(arch, size) else {
                    assert!(arch.pages().contains(&size) || cfg!(feature = "unproven"), "{} {size}", arch.name());
                    continue;
                };
                assert!(error.kind() == ErrorKind::Refused && error.to_string().contains(&size.to_string()), "{error}");
                assert!(!arch.pages().contains(&size), "{} {size}", arch.name());
            }
        }
    }
}
