// SPDX-License-Identifier: GPL-2.0-or-later
//! Reads large parts of a process's memory at the least cost: straight from its pages to ours, and only those that are
//! there. Memory of devices is not read at all: the kernel refuses it here, where through the memory file it would be
//! asked of the device.

use super::error::Error;
use super::{Process, RemoteAddr, kept, sys, task};
use std::fs::File;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A thread that has the memory, and which pages are there.
#[derive(Debug)]
pub struct Reader {
    pid: i32,
    tid: i32,
    pagemap: Option<File>,
}

impl Process {
    /// Reads while the process runs.
    pub fn reader(&self) -> Result<Reader, Error> {
        Reader::new(self, task::living(self.pid)?)
    }

    /// The ranges which the program withholds from its children (`MADV_DONTFORK`), as it does with a guest's or a device's memory.
    /// None where the kernel does not tell.
    pub fn withheld(&self) -> Vec<Range<u64>> {
        let text = task::through_any(self.pid, |tid| task::read_of_memory(self.pid, tid, "smaps"));
        text.map_or(Vec::new(), |text| withheld(&text))
    }
}

fn withheld(smaps: &str) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    let mut range = None;
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            found.extend(range.take().filter(|_| flags.split_ascii_whitespace().any(|flag| flag == "dc")));
        } else if let Some((start, end)) = line.split(' ').next().and_then(|word| word.split_once('-')) {
            let address = |text| u64::from_str_radix(text, 16).ok();
            range = address(start).zip(address(end)).map(|(start, end)| start..end).or(range);
        }
    }
    found
}

impl Reader {
    /// The time on a processor that this thread has spent so far. To read takes little else, and under a stop nobody takes the
    /// processor away; while the process runs, others may.
    pub fn processor_time() -> Duration {
        sys::processor_time()
    }

    pub(super) fn new(process: &Process, tid: i32) -> Result<Self, Error> {
        Ok(Self { pid: process.pid, tid, pagemap: process.file_of_memory("pagemap").ok() })
    }

    /// The pages of a private mapping that hold anything, as [`Process::resident`] tells them.
    pub fn resident(&self, range: Range<u64>, file: bool, deadline: Instant) -> Option<Vec<Range<u64>>> {
        kept::resident(self.pagemap.as_ref()?, range, file, deadline)
    }

    /// Fills the buffer from `at`. What cannot be read, because nothing is there (any more), is left out: zeros stand for it.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let from = at.saturating_add(done as u64);
            match sys::read_ranges(self.tid, rest, &[(from, rest.len())]) {
                Ok(read) if read > 0 => done += read,
                Err(e) if e.raw_os_error() != Some(libc::EFAULT) => {
                    let gone = e.raw_os_error() == Some(libc::ESRCH);
                    let failed = || Error::Read { addr: RemoteAddr(from), len: rest.len(), source: e };
                    return Err(if gone { Error::ThreadGone { pid: self.pid, tid: self.tid } } else { failed() });
                }
                _ => {
                    let page = sys::page();
                    let absent = usize::try_from(page - from % page).unwrap_or(1).min(rest.len());
                    rest.iter_mut().take(absent).for_each(|byte| *byte = 0);
                    done += absent;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn withheld_ranges_are_read() {
        let text = "7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \nSize: 1048576 kB\nVmFlags: rd wr mr mw me dc ac sd \n\
                    7f0050000000-7f0050001000 r--p 00000000 08:01 9    /a-b c\nKernelPageSize: 4 kB\nVmFlags: rd mr mw me \n";
        let guest = 0x7f00_0000_0000..0x7f00_4000_0000;
        assert_eq!(withheld(text), Vec::from([guest]));
        assert_eq!(withheld("VmFlags: dc\nnonsense"), []);
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let process = Process::open(own).expect("ourselves");
        let reader = process.reader().expect("a living thread");
        let text = b"what is there".to_vec();
        let mut copy = vec![0; text.len()];
        reader.read(text.as_ptr() as u64, &mut copy).expect("readable");
        assert_eq!(copy, text);
        let mut none = vec![1; 5000];
        reader.read(8, &mut none).expect("nothing is there, and that is no error");
        assert!(none.iter().all(|byte| *byte == 0));
    }
}
