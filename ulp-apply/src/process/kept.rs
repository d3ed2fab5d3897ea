// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel keeps for a process and tells about: words that the program gave it with a timer or an epoll entry and will get
//! back, the signals it handles, and which pages of its memory are its own. Also the C library's pointer guard, which the
//! kernel gave the program at its start.

use super::error::Error;
use super::{Process, sys, task};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::time::Instant;
use ulp_arch::RemoteAddr;

const AT_RANDOM: u64 = 25;
/// `/proc/PID/pagemap`: the page is there; it is swapped out; it is a file's page, or shared memory's.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_PAGE: u64 = 1 << 61;
/// Since Linux 6.15: nothing can be touched there, although it is in the middle of a mapping (MADV_GUARD_INSTALL). Such a page
/// counts as swapped out as well.
const GUARD: u64 = 1 << 58;

impl Process {
    /// Words that come back to the program from the kernel, each with where it is kept. An error where the kernel keeps
    /// some that it does not tell.
    pub fn kept_words(&self) -> Result<Vec<(String, u64)>, Error> {
        let path = format!("/proc/{}/timers", self.pid);
        let timers = sys::read_file(path.as_ref()).map_err(|source| Error::Proc { path, source })?;
        let mut words = timer_words(&String::from_utf8_lossy(&timers));
        words.extend(task::through_any(self.pid, |tid| self.descriptor_words(tid))?);
        Ok(words)
    }

    /// Those of epoll, asked of a thread that lives: one that has ended has no descriptors, as if none were open.
    fn descriptor_words(&self, tid: i32) -> Result<Vec<(String, u64)>, Error> {
        let mut words = Vec::new();
        for fd in task::names_in(self.pid, tid, "fdinfo")? {
            let name = format!("fdinfo/{fd}");
            let path = format!("/proc/{}/task/{tid}/{name}", self.pid);
            let text = match task::read_file(self.pid, tid, &name) {
                Ok(text) => text,
                // Closed meanwhile.
                Err(Error::ThreadGone { .. }) => continue,
                Err(e) => return Err(e),
            };
            // An io_uring holds words of calls that are under way, and does not tell them.
            if text.contains("SqMask:") {
                let source = io::Error::other("an io_uring may hold addresses that it does not tell");
                return Err(Error::Proc { path, source });
            }
            words.extend(epoll_words(&text).map(|word| (format!("epoll, descriptor {fd}"), word)));
        }
        if task::doomed(self.pid, tid) {
            return Err(Error::ThreadGone { pid: self.pid, tid });
        }
        Ok(words)
    }

    /// The signals for which the program has a handler.
    pub fn caught_signals(&self) -> Result<Vec<u64>, Error> {
        let text = task::through_any(self.pid, |tid| task::read_file(self.pid, tid, "status"))?;
        let mask = text.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("SigCgt:")?.trim(), 16).ok());
        let path = || format!("/proc/{}/status", self.pid);
        let mask = mask.ok_or_else(|| Error::Proc { path: path(), source: io::ErrorKind::InvalidData.into() })?;
        Ok((1..=64).filter(|signal| mask & (1 << (signal - 1)) != 0).collect())
    }

    /// With what glibc disguises function pointers that it keeps: the second word of the random bytes at the start.
    pub fn pointer_guard(&self) -> Option<u64> {
        let (_, random) = self.auxv.iter().find(|(key, _)| *key == AT_RANDOM)?;
        self.read_u64(RemoteAddr(random.checked_add(8)?)).ok().filter(|guard| *guard != 0)
    }

    /// The pages of a private mapping that are there, as ranges; with `file`, only those that are no longer the file's.
    /// `None` where the kernel does not tell. What is not looked at before `deadline` counts as there: sanitizers map terabytes.
    pub fn resident(&self, range: Range<u64>, file: bool, deadline: Instant) -> Option<Vec<Range<u64>>> {
        resident(&self.file_of_memory("pagemap").ok()?, range, file, deadline)
    }
}

/// The same, by a pagemap that is open already.
pub(super) fn resident(pagemap: &File, range: Range<u64>, file: bool, deadline: Instant) -> Option<Vec<Range<u64>>> {
    there(pagemap, range, |_, entry| is_there(entry) && !(file && entry & FILE_PAGE != 0), deadline)
}

/// Those of a stack whose top is at `top` or above: up to the first guard there.
pub(super) fn resident_stack(
    pagemap: &File,
    range: Range<u64>,
    top: Option<u64>,
    deadline: Instant,
) -> Option<Vec<Range<u64>>> {
    let mut ended = false;
    let own = |at: u64, entry: u64| {
        ended |= entry & GUARD != 0 && top.is_some_and(|top| top < at);
        is_there(entry) && !ended
    };
    there(pagemap, range, own, deadline)
}

fn is_there(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) != 0 && entry & GUARD == 0
}

fn there(
    pagemap: &File,
    range: Range<u64>,
    own: impl FnMut(u64, u64) -> bool,
    deadline: Instant,
) -> Option<Vec<Range<u64>>> {
    let (mut found, rest) = pages(pagemap, range, own, deadline)?;
    found.extend(rest);
    Some(found)
}

/// The pages of a mapping that guard the stacks in it: what is beyond one is no part of the stack on this side. `None` where not
/// all of them are known: nothing may be taken for a guard that is none.
pub(super) fn guards(pagemap: &File, range: Range<u64>, deadline: Instant) -> Option<Vec<Range<u64>>> {
    let (found, rest) = pages(pagemap, range, |_, entry| entry & GUARD != 0, deadline)?;
    rest.is_none().then_some(found)
}

type Ranges = Vec<Range<u64>>;

/// The pages that are `wanted` by their addresses and entries, as ranges, and what was not looked at before `deadline`.
fn pages(
    pagemap: &File,
    range: Range<u64>,
    mut wanted: impl FnMut(u64, u64) -> bool,
    deadline: Instant,
) -> Option<(Ranges, Option<Range<u64>>)> {
    /// Entries read at once.
    const CHUNK: u64 = 1 << 16;
    let size = sys::page();
    let mut found: Vec<Range<u64>> = Vec::new();
    let (mut page, end) = (range.start / size, range.end.div_ceil(size));
    while page < end {
        if Instant::now() >= deadline {
            return Some((found, Some((page * size).max(range.start)..range.end)));
        }
        let count = CHUNK.min(end - page);
        let mut entries = vec![0; usize::try_from(count * 8).ok()?];
        sys::read_at(pagemap, &mut entries, page * 8).ok()?;
        for (entry, number) in entries.chunks_exact(8).zip(page..) {
            let own = wanted(number * size, u64::from_le_bytes(entry.try_into().ok()?));
            let (start, stop) = ((number * size).max(range.start), ((number + 1) * size).min(range.end));
            match found.last_mut().filter(|last| own && last.end == start) {
                Some(last) => last.end = stop,
                None if own => found.push(start..stop),
                None => {}
            }
        }
        page += count;
    }
    Some((found, None))
}

/// The values of timers: `signal: 14/00007ffc00001234`.
fn timer_words(text: &str) -> Vec<(String, u64)> {
    let word = |line: &str| u64::from_str_radix(line.strip_prefix("signal:")?.split_once('/')?.1.trim(), 16).ok();
    text.lines().filter_map(word).map(|word| ("a timer's value".to_owned(), word)).collect()
}

/// The values of epoll entries: `tfd: 5 events: 19 data: 7f0012345678 pos:0 ino:1 sdev:1`.
fn epoll_words(text: &str) -> impl Iterator<Item = u64> {
    let word = |line: &str| {
        let data = line.strip_prefix("tfd:")?.split_once("data:")?.1;
        u64::from_str_radix(data.split_ascii_whitespace().next()?, 16).ok()
    };
    text.lines().filter_map(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let timers = "ID: 0\nsignal: 10/00005555deadbeef\nnotify: signal/pid.77\nClockID: 1\nID: 1\nsignal: 32/0\n";
        let words: Vec<_> = timer_words(timers).into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, [0x5555_dead_beef, 0]);
        let epoll =
            "pos:\t0\nflags:\t02\ntfd:        4 events:       19 data:     5555cafe0010  pos:0 ino:43d sdev:e\n";
        assert_eq!(epoll_words(epoll).collect::<Vec<_>>(), [0x5555_cafe_0010]);
        assert_eq!(epoll_words("data: 12\ntfd: data").count(), 0);
    }

    #[test]
    fn our_own_kept_words_and_pages() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let process = Process::open(own).expect("ourselves");
        process.kept_words().expect("readable");
        process.caught_signals().expect("readable");
        let stack = 1u8;
        let at = (&raw const stack) as u64;
        let page = at & !(sys::page() - 1);
        let range = page..page + sys::page();
        let found = process
            .resident(range.clone(), false, Instant::now() + std::time::Duration::from_secs(60))
            .expect("our own pagemap");
        assert_eq!(found, Vec::from([range]), "what is in use is there");
    }

    #[test]
    fn what_was_not_looked_at_is_there_and_no_guard() {
        let pagemap = File::open("/proc/self/pagemap").expect("our own pagemap");
        let stack = 1u8;
        let at = (&raw const stack) as u64 & !(sys::page() - 1);
        let range = at..at + sys::page();
        let (late, early) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(60));
        assert_eq!(guards(&pagemap, range.clone(), late), None);
        assert_eq!(guards(&pagemap, range.clone(), early), Some(Vec::new()));
        for file in [false, true] {
            assert_eq!(resident(&pagemap, range.clone(), file, late), Some(Vec::from([range.clone()])));
        }
        // Nothing can be read of what is behind all memory.
        assert_eq!(guards(&pagemap, u64::MAX / 2..u64::MAX / 2 + 8, early), None);
    }
}
