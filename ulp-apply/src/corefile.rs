// SPDX-License-Identifier: GPL-2.0-or-later
//! A core dump as memory that can be read: what a process had when it died, or when `gcore` copied it. The file may be cut
//! short or made up, so it is read as a stranger's bytes; nothing is read but headers, the note that names the mapped
//! files, and what is asked for.

use crate::error::{Class, Error, Result};
use crate::memory::{Memory, SMALLEST_PAGE};
use object::elf::{self, FileHeader64, NT_AUXV, NT_FILE};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, ReadCache, ReadRef as _};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use ulp_arch::{Arch, RemoteAddr};

/// Notes of more bytes than a hundred thousand threads have are none.
const MOST_NOTES: u64 = 1 << 30;
/// Of the auxiliary vector: the size of pages (`AT_PAGESZ`, include/uapi/linux/auxvec.h).
const PAGE_SIZE: u64 = 6;
/// No kernel of a machine that ulp knows has larger ones.
const LARGEST_PAGE: u64 = 64 << 10;

/// A core dump whose headers were read.
#[derive(Debug)]
pub struct CoreFile {
    file: File,
    machine: u16,
    /// What is in the file, lowest address first.
    segments: Vec<Segment>,
    /// Mappings of files, as far as the core tells.
    mapped: Vec<Range<u64>>,
    page: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    memory: Range<u64>,
    offset: u64,
    constant: bool,
}

impl CoreFile {
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = File::open(path).map_err(|e| {
            let class = if e.kind() == std::io::ErrorKind::PermissionDenied { Class::Refused } else { Class::Failed };
            Error::new(class, format!("cannot read {shown}: {e}"), "check the file's name and permissions")
        })?;
        Self::parse(file).map_err(|what| {
            Error::failed(
                format!("{shown}: {what}"),
                "give a core dump of a 64-bit process, whole, as the kernel, gcore or coredumpctl dump wrote it",
            )
        })
    }

    fn parse(file: File) -> std::result::Result<Self, String> {
        let data = ReadCache::new(&file);
        let header = FileHeader64::<Endianness>::parse(&data).map_err(|_| "not a 64-bit ELF file")?;
        let endian = header.endian().map_err(|e| e.to_string())?;
        if header.e_type(endian) != elf::ET_CORE || endian != Endianness::Little {
            return Err("not a core dump of a little-endian machine".into());
        }
        let headers = header.program_headers(endian, &data).map_err(|_| "it is cut short")?;
        // By a limit or a full disk; any part could be lost.
        let len = (&data).len().map_err(|()| "its length cannot be found")?;
        let ends = headers.iter().map(|h| h.file_range(endian)).map(|(at, size)| at.checked_add(size));
        if ends.into_iter().any(|end| end.is_none_or(|end| end > len)) {
            return Err("it is cut short".into());
        }
        let (mut segments, mut mapped, mut page) = (Vec::new(), Vec::new(), None);
        for header in headers {
            let (offset, size) = header.file_range(endian);
            if header.p_type(endian) == elf::PT_LOAD && size > 0 {
                let start = header.p_vaddr(endian);
                let end = start.checked_add(size).ok_or("a segment wraps around")?;
                let constant = header.p_flags(endian).0 & (elf::PF_R | elf::PF_W | elf::PF_X).0 == elf::PF_R.0;
                segments.push(Segment { memory: start..end, offset, constant });
            }
            if header.p_type(endian) == elf::PT_NOTE && size <= MOST_NOTES {
                let notes = header.notes(endian, &data).map_err(|e| e.to_string())?;
                for note in notes.into_iter().flatten() {
                    let note = note.map_err(|e| e.to_string())?;
                    if note.n_type(endian) == NT_FILE && note.name() == b"CORE" {
                        mapped = mapped_files(note.desc()).ok_or("its list of mapped files makes no sense")?;
                    }
                    if note.n_type(endian) == NT_AUXV && note.name() == b"CORE" {
                        page = page.or_else(|| page_size(note.desc()));
                    }
                }
            }
        }
        segments.sort_by_key(|s| s.memory.start);
        if segments.windows(2).any(|w| matches!(w, [a, b] if b.memory.start < a.memory.end)) {
            return Err("its segments overlap".into());
        }
        let machine = header.e_machine(endian).0;
        drop(data);
        // A search by the smallest pages finds what begins with a larger one.
        Ok(Self { file, machine, segments, mapped, page: page.unwrap_or(SMALLEST_PAGE) })
    }

    pub fn arch(&self) -> Result<&'static dyn Arch> {
        ulp_arch::by_machine(self.machine).ok_or_else(|| {
            let message = format!("the core dump is of a machine that ulp does not know (e_machine {})", self.machine);
            Error::refused(message, "no patch can have been applied there")
        })
    }

    /// Memory that may hold a registry: of no file, and only readable.
    pub fn candidates(&self) -> impl Iterator<Item = Range<u64>> {
        let of_a_file = |m: &Range<u64>| self.mapped.iter().any(|f| f.start < m.end && m.start < f.end);
        self.segments.iter().filter(move |s| s.constant && !of_a_file(&s.memory)).map(|s| s.memory.clone())
    }
}

/// The mapped ranges of an `NT_FILE` note: count and page size, then start, end and place in the file of each, then names.
fn mapped_files(note: &[u8]) -> Option<Vec<Range<u64>>> {
    let words = note.chunks_exact(8).filter_map(|w| Some(u64::from_le_bytes(w.try_into().ok()?)));
    let words: Vec<u64> = words.collect();
    let count = usize::try_from(*words.first()?).ok()?;
    let rows = words.get(2..)?.chunks_exact(3).take(count);
    let ranges: Vec<_> = rows.filter_map(|row| Some(*row.first()?..*row.get(1)?)).collect();
    (ranges.len() == count).then_some(ranges)
}

/// What an auxiliary vector says of pages, if that is possible. The page size of `NT_FILE` is another thing: gcore writes 1.
fn page_size(auxv: &[u8]) -> Option<u64> {
    let (words, _) = auxv.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    let size = pairs.iter().map(|pair| pair.map(u64::from_le_bytes)).find(|[key, _]| *key == PAGE_SIZE)?[1];
    (size.is_power_of_two() && (SMALLEST_PAGE..=LARGEST_PAGE).contains(&size)).then_some(size)
}

impl Memory for CoreFile {
    fn page(&self) -> u64 {
        self.page
    }

    fn read(&self, at: RemoteAddr, buf: &mut [u8]) -> std::io::Result<()> {
        let absent = || std::io::Error::other("not in the core dump");
        let (mut at, mut rest) = (at.0, buf);
        while !rest.is_empty() {
            // Mappings that lie side by side may be segments of their own.
            let next = self.segments.partition_point(|s| s.memory.end <= at);
            let segment = self.segments.get(next).filter(|s| s.memory.contains(&at)).ok_or_else(absent)?;
            let here = usize::try_from(segment.memory.end - at).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(here);
            self.file.read_exact_at(now, segment.offset + (at - segment.memory.start))?;
            (at, rest) = (segment.memory.start.max(at) + here as u64, later);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const HEADER: usize = 64;
    const ROW: usize = 56;

    /// A core with these segments: type, flags, address, bytes.
    fn core(segments: &[(u32, u32, u64, Vec<u8>)]) -> Vec<u8> {
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(16, 0);
        let half = |out: &mut Vec<u8>, v: usize| out.extend((v as u16).to_le_bytes());
        half(&mut out, 4);
        half(&mut out, 62);
        out.extend(1u32.to_le_bytes());
        for word in [0, HEADER as u64, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for v in [HEADER, ROW, segments.len(), 0, 0, 0] {
            half(&mut out, v);
        }
        let mut offset = HEADER + ROW * segments.len();
        for (p_type, flags, at, bytes) in segments {
            out.extend(p_type.to_le_bytes());
            out.extend(flags.to_le_bytes());
            for word in [offset as u64, *at, 0, bytes.len() as u64, bytes.len() as u64, 4] {
                out.extend(word.to_le_bytes());
            }
            offset += bytes.len();
        }
        out.extend(segments.iter().flat_map(|(.., bytes)| bytes));
        out
    }

    fn open(bytes: &[u8]) -> Result<CoreFile> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        CoreFile::open(file.path())
    }

    fn note(kind: u32, words: &[u64]) -> Vec<u8> {
        let desc: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let head = [5u32, desc.len() as u32, kind].map(u32::to_le_bytes).concat();
        [head, b"CORE\0\0\0\0".to_vec(), desc].concat()
    }

    /// A note that says that a file is mapped there.
    fn file_at(range: Range<u64>) -> Vec<u8> {
        note(NT_FILE.0, &[1, 4096, range.start, range.end, 0])
    }

    #[test]
    fn pages_are_those_of_the_machine_that_died() {
        let page = |notes: &[Vec<u8>]| {
            let rows: Vec<_> = notes.iter().map(|note| (4, 0, 0, note.clone())).collect();
            open(&core(&rows)).expect("a core").page()
        };
        let says = |size| note(NT_AUXV.0, &[3, 0x40, PAGE_SIZE, size, 0, 0]);
        for size in [4096, 16384, 65536] {
            assert_eq!(page(&[file_at(0..1), says(size)]), size);
        }
        assert_eq!(page(&[file_at(0..1)]), 4096, "the list of files says nothing");
        for size in [0, 1, 2048, 12288, 1 << 17, u64::MAX] {
            assert_eq!(page(&[says(size)]), 4096, "{size}");
        }
        assert_eq!(page(&[note(NT_AUXV.0, &[PAGE_SIZE])]), 4096, "cut short");
    }

    #[test]
    fn memory_is_read_across_segments_and_never_made_up() {
        let core = core(&[(1, 5, 0x2000, vec![2; 16]), (1, 4, 0x2010, vec![3; 16]), (1, 4, 0x9000, vec![4; 16])]);
        let core = open(&core).expect("a core");
        let read = |at, len| crate::memory::bytes(&core, RemoteAddr(at), len);
        assert_eq!(read(0x200e, 4).expect("there"), [2, 2, 3, 3]);
        assert_eq!(read(0x900f, 1).expect("there"), [4]);
        for (at, len) in [(0x1fff, 1), (0x201f, 2), (0x9010, 1), (u64::MAX, 2)] {
            assert!(read(at, len).is_err(), "{at:#x}");
        }
    }

    #[test]
    fn only_read_only_memory_of_no_file_may_hold_a_registry() {
        let page = || vec![0; 16];
        let note = file_at(0x3000..0x4000);
        let rows = [(4, 0, 0, note), (1, 4, 0x1000, page()), (1, 6, 0x2000, page()), (1, 4, 0x3000, page())];
        let core = open(&core(&[&rows[..], &[(1, 5, 0x5000, page())]].concat())).expect("a core");
        let found: Vec<_> = core.candidates().map(|m| (m.start, m.end)).collect();
        assert_eq!(found, [(0x1000, 0x1010)]);
    }

    #[test]
    fn what_is_no_core_is_said_to_be_none() {
        let good = core(&[(4, 0, 0, file_at(0..1)), (1, 4, 0x1000, vec![1; 64])]);
        assert!(open(&good).is_ok());
        for len in 0..good.len() {
            assert!(open(&good[..len]).is_err(), "{len} bytes of a core");
        }
        let mut program = good.clone();
        program[16] = 2;
        assert!(open(&program).is_err(), "a program");
        assert!(open(&core(&[(1, 4, 0x1000, vec![1; 64]), (1, 4, 0x103f, vec![1; 64])])).is_err(), "overlapping");
        assert!(open(&core(&[(1, 4, u64::MAX, vec![1; 64])])).is_err(), "wraps around");
        // Whatever a byte is, nothing panics.
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                drop(open(&bad).map(|c| (c.candidates().count(), c.read(RemoteAddr(0x1000), &mut [0; 64]))));
            }
        }
    }
}
