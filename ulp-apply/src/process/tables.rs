// SPDX-License-Identifier: GPL-2.0-or-later
//! Call frame information: copies of the tables that are in a process's memory, and those that only its files on disk have
//! (`.debug_frame`, and the `.eh_frame` of a program without a search table). A table is copied before anything is stopped.

use super::Process;
use super::module::Module;
use super::unwind::ExtraTable;
use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, FrameDescriptionEntry, LittleEndian,
    UnwindSection, Vendor,
};
use object::{Object as _, ObjectSection as _};
use ulp_arch::{LinkAddr, RemoteAddr};

pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Bigger tables than any program has are not read.
const MAX_TABLE: u64 = 256 << 20;

/// Which rules a table is read by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    EhFrame,
    DebugFrame,
}

/// How the entry for an address is found.
#[derive(Debug)]
enum Search {
    /// `.eh_frame_hdr`: its address and bytes.
    Header(u64, Vec<u8>),
    /// Of every entry, sorted: first address, one past the last, place in the table.
    Index(Vec<(u64, u64, usize)>),
}

/// One table of one module.
#[derive(Debug)]
pub(super) struct Table {
    pub kind: Kind,
    /// Whose rules it may have beside those of all.
    vendor: Vendor,
    text: (u64, u64),
    /// Where the table lies, as its own relative addresses count.
    at: u64,
    bytes: Vec<u8>,
    search: Search,
    /// What is subtracted from an address in the process before the table is asked: 0 where the table counts from where it lies.
    bias: u64,
    /// The bytes that prove the table is still the one of what is loaded there: headers and build-id.
    witnesses: Vec<(RemoteAddr, Vec<u8>)>,
}

impl Table {
    /// The module's own table in memory; `None` when it has none that can be used there.
    pub fn of_module(process: &Process, module: &Module) -> Option<Self> {
        let (hdr, hdr_len) = module.eh_frame_hdr?;
        let hdr_at = module.bias.remote(hdr);
        let header = process.read_vec(hdr_at, usize::try_from(hdr_len.min(MAX_TABLE)).ok()?).ok()?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(hdr_at.0).set_text(module.range.0.0);
        let parsed = EhFrameHdr::new(&header, LittleEndian).parse(&bases, 8).ok()?;
        let gimli::Pointer::Direct(at) = parsed.eh_frame_ptr() else { return None };
        let link: LinkAddr = module.bias.link(RemoteAddr(at));
        // Its size stands nowhere in memory: it ends with a zero entry, and at the latest with its segment.
        let segment = module.segment(link)?;
        let len = segment.vaddr.0.checked_add(segment.file_size)?.checked_sub(link.0)?;
        let bytes = process.read_vec(RemoteAddr(at), usize::try_from(len.min(MAX_TABLE)).ok()?).ok()?;
        let table = Self {
            kind: Kind::EhFrame,
            vendor: vendor(process),
            text: (module.range.0.0, module.range.1.0),
            at,
            bytes,
            search: Search::Index(Vec::new()),
            bias: 0,
            witnesses: witnesses(module),
        };
        let search = match parsed.table() {
            Some(_) => Search::Header(hdr_at.0, header),
            None => table.index(|_| true),
        };
        Some(Self { search, ..table })
    }

    /// The table of code that no module describes.
    pub fn of_extra(process: &Process, extra: &ExtraTable) -> Result<Self, super::Error> {
        let (at, len) = extra.eh_frame;
        let bytes = process.read_vec(at, usize::try_from(len.min(MAX_TABLE)).unwrap_or(0))?;
        let table = Self {
            kind: Kind::EhFrame,
            vendor: vendor(process),
            text: (extra.text.0.0, extra.text.1.0),
            at: at.0,
            witnesses: vec![(at, bytes.iter().copied().take(64).collect())],
            bytes,
            search: Search::Index(Vec::new()),
            bias: 0,
        };
        let search = table.index(|_| true);
        Ok(Self { search, ..table })
    }

    /// What the module's files on disk have: `.debug_frame`, and `.eh_frame` where memory has none that can be used.
    pub fn of_files(process: &Process, module: &Module, has_own: bool) -> Vec<Self> {
        let mut tables = Vec::new();
        for file in process.files_of(module) {
            let of = |name: &str, kind| {
                let (address, bytes) = file.ask(|elf| {
                    let section = elf.section_by_name(name).filter(|s| s.size() <= MAX_TABLE)?;
                    // A debug file has the header of a section that stayed behind, and no bytes.
                    let bytes = section.uncompressed_data().ok().filter(|bytes| !bytes.is_empty())?;
                    Some((section.address(), bytes.into_owned()))
                })?;
                let (at, bias) = match kind {
                    Kind::EhFrame => (module.bias.remote(LinkAddr(address)).0, 0),
                    Kind::DebugFrame => (0, module.bias.0),
                };
                let text = (module.range.0.0, module.range.1.0);
                let search = Search::Index(Vec::new());
                let vendor = vendor(process);
                let table = Self { kind, vendor, text, at, bytes, search, bias, witnesses: witnesses(module) };
                // Functions that the linker left out have entries too, with an address that is none.
                let search =
                    table.index(|start| start != 0 && module.executes(RemoteAddr(start.wrapping_add(table.bias))));
                Some(Self { search, ..table })
            };
            if !has_own && !tables.iter().any(|t: &Self| t.kind == Kind::EhFrame) {
                tables.extend(of(".eh_frame", Kind::EhFrame));
            }
            tables.extend(of(".debug_frame", Kind::DebugFrame));
        }
        tables
    }

    /// Whether the table is one of the module with this address in its range.
    pub fn is_for(&self, pc: u64) -> bool {
        self.text.0 <= pc && pc < self.text.1
    }

    /// Whether what it describes is still loaded there.
    pub fn is_current(&self, process: &Process) -> bool {
        let is_there =
            |(at, old): &(RemoteAddr, Vec<u8>)| process.read_vec(*at, old.len()).is_ok_and(|now| now == *old);
        self.witnesses.iter().all(is_there)
    }

    pub fn bases(&self) -> BaseAddresses {
        let bases = BaseAddresses::default().set_eh_frame(self.at).set_text(self.text.0);
        match &self.search {
            Search::Header(at, _) => bases.set_eh_frame_hdr(*at),
            Search::Index(_) => bases,
        }
    }

    /// The address by the table's own count.
    pub fn own(&self, pc: u64) -> u64 {
        pc.wrapping_sub(self.bias)
    }

    pub fn eh_frame(&self) -> EhFrame<Bytes<'_>> {
        let mut section = EhFrame::new(&self.bytes, LittleEndian);
        section.set_vendor(self.vendor);
        section
    }

    pub fn debug_frame(&self) -> DebugFrame<Bytes<'_>> {
        let mut section = DebugFrame::new(&self.bytes, LittleEndian);
        section.set_vendor(self.vendor);
        section
    }

    /// The entry for the code at `pc`.
    pub fn entry(&self, pc: u64) -> Option<FrameDescriptionEntry<Bytes<'_>>> {
        let place = self.place_of(self.own(pc))?;
        match self.kind {
            Kind::EhFrame => self.entry_at(&self.eh_frame(), place, pc),
            Kind::DebugFrame => self.entry_at(&self.debug_frame(), place, pc),
        }
    }

    /// Where the last entry stands whose first address is not behind `pc`, by the table's own count.
    fn place_of(&self, pc: u64) -> Option<usize> {
        match &self.search {
            Search::Header(_, bytes) => {
                let bases = self.bases();
                let header = EhFrameHdr::new(bytes, LittleEndian).parse(&bases, 8).ok()?;
                let table = header.table()?;
                let entry = table.lookup(pc, &bases).ok().filter(|entry| entry.pointer() >= self.at)?;
                Some(table.pointer_to_offset(entry).ok()?.0)
            }
            Search::Index(index) => {
                let after = index.partition_point(|(start, _, _)| *start <= pc);
                index.get(after.checked_sub(1)?).filter(|(_, end, _)| pc < *end).map(|(_, _, place)| *place)
            }
        }
    }

    /// The entry at `place` of this table as a section, if it is for the code at `pc`.
    fn entry_at<'t, S: UnwindSection<Bytes<'t>>>(
        &self,
        section: &S,
        place: usize,
        pc: u64,
    ) -> Option<FrameDescriptionEntry<Bytes<'t>>> {
        let entry = section.fde_from_offset(&self.bases(), place.into(), S::cie_from_offset).ok()?;
        entry.contains(self.own(pc)).then_some(entry)
    }

    /// All entries whose first address is `wanted` and their own: of a function that was compiled several times, the linker keeps
    /// one, and the entries of the others may remain and lead to it. What cannot be read ends the table.
    fn index(&self, wanted: impl Fn(u64) -> bool) -> Search {
        let mut index = match self.kind {
            Kind::EhFrame => entries(&self.eh_frame(), &self.bases()),
            Kind::DebugFrame => entries(&self.debug_frame(), &self.bases()),
        };
        index.retain(|(start, _, _)| wanted(*start));
        index.sort_unstable();
        let starts: Vec<u64> = index.iter().map(|(start, _, _)| *start).collect();
        let alone = |start: u64| starts.partition_point(|s| *s <= start) - starts.partition_point(|s| *s < start) == 1;
        index.retain(|(start, _, _)| alone(*start));
        Search::Index(index)
    }
}

/// Only those who sign return addresses have a rule of their own: it says that this one is signed.
fn vendor(process: &Process) -> Vendor {
    if process.arch().signature_in().is_some() { Vendor::AArch64 } else { Vendor::Default }
}

fn witnesses(module: &Module) -> Vec<(RemoteAddr, Vec<u8>)> {
    vec![module.headers.clone(), module.note.clone()]
}

fn entries<'t, S: UnwindSection<Bytes<'t>>>(section: &S, bases: &BaseAddresses) -> Vec<(u64, u64, usize)> {
    let mut all = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(S::cie_from_offset) else { break };
        all.push((fde.initial_address(), fde.end_address(), fde.offset()));
    }
    all
}
