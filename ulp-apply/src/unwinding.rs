// SPDX-License-Identifier: GPL-2.0-or-later
//! Shows the program's own unwinder the frames of patches, so that C++ exceptions, `backtrace()` and thread cancellation
//! pass through them.
//!
//! libgcc's unwinder asks one function, `_Unwind_Find_FDE`, for the call frame information of an address. To register
//! tables with it takes its lock, and nobody knows whether the thread that we would borrow holds that. So nothing is
//! registered: a *helper*, a patch of our own making, puts a few instructions in front of that function. They look the
//! address up in a list in read-only memory and go on into the function when it is no patch's: no lock, no call, no
//! memory that is allocated or written. Patches add a row to the list under the stop that switches them.

use crate::error::{Error, Result};
use crate::memory::{self, Memory};
use crate::plan::{Load, Plan};
use crate::process::{Module, Process, Quiet, Remote, Suspect};
use crate::registry::{self, Access, Area, Entry, FunctionRecord, Record, State, TargetRecord};
use crate::snapshot::{Snapshot, page_of};
use crate::symbols::{Definition, definitions};
use gimli::{BaseAddresses, CieOrFde, EhFrame, EndianSlice, LittleEndian, UnwindSection as _};
use std::ops::Range;
use ulp_arch::{Arch, Commit, Gate, RemoteAddr};
use ulp_format::{Package, SectionKind, Target};

/// The helper's name in the registry.
pub const NAME: &str = "ulp-unwind";
const FUNCTION: &str = "_Unwind_Find_FDE";
/// What a module with an unwinder that asks [`FUNCTION`] defines, and what one that does not does.
const OWN_UNWINDER: &str = "_Unwind_RaiseException";
const OTHER_UNWINDER: &str = "__unw_step";

/// Bytes of the list: rows of four words, the first of which is a header that begins with the number of rows.
const ROW: u64 = 32;
const LIST: u64 = 4096;
const ROWS: u64 = LIST / ROW - 1;
/// Bytes of the description of a function: start, end, frame description entry.
const INDEXED: u64 = 24;

/// What the list says of a patch's code in one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub start: RemoteAddr,
    pub end: RemoteAddr,
    /// Where its functions are described, and how many there are.
    pub index: RemoteAddr,
    pub functions: u64,
    /// The list that it is a row of.
    pub list: RemoteAddr,
}

/// Bytes that the index of a target's functions needs at most: its frame descriptions are counted, without looking into them.
pub fn index_room(package: &Package, target: &Target) -> u64 {
    let frames = package.sections.iter().filter(|s| s.kind == SectionKind::Frames && target.sections.contains(&s.name));
    frames.map(|s| INDEXED * entries(&s.data)).sum()
}

/// Entries of an `.eh_frame`, common ones included (LSB core, 10.6.1).
fn entries(mut data: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some(next) = rest.get(length..).filter(|_| length > 0) else { break };
        (data, count) = (next, count + 1);
    }
    count
}

/// Describes the functions of an `.eh_frame` that lies at `at`: the index's bytes, and how many there are.
pub fn index(at: RemoteAddr, eh_frame: &[u8]) -> Result<(Vec<u8>, u64)> {
    let section = EhFrame::from(EndianSlice::new(eh_frame, LittleEndian));
    let bases = BaseAddresses::default().set_eh_frame(at.0);
    let bad = |e: gimli::Error| Error::refused(format!("the patch's call frame information is bad: {e}"), REBUILD);
    let (mut bytes, mut count) = (Vec::new(), 0);
    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next().map_err(bad)? {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).map_err(bad)?;
        let start = fde.initial_address();
        for word in [start, start.wrapping_add(fde.len()), at.0.wrapping_add(fde.offset() as u64)] {
            bytes.extend(word.to_le_bytes());
        }
        count += 1;
    }
    Ok((bytes, count))
}

const REBUILD: &str = "the package asks for something ulp-apply cannot do safely; rebuild it with this release";

fn refused(message: String) -> Error {
    Error::refused(message, "a patch that exceptions may pass through cannot be applied here; restart with the fix")
        .code("E-EH")
}

/// The helper of a process, where it has one.
pub fn helper(entries: &[Entry]) -> Option<&Entry> {
    entries.iter().find(|e| e.state == State::Applied && e.record.name == NAME)
}

/// Where the helper's list is.
pub fn list_of(helper: &Entry) -> Option<RemoteAddr> {
    let area = helper.record.areas().find(|a| a.access == Access::Constants)?;
    area.range().end.checked_sub(LIST).map(RemoteAddr)
}

/// Whether the process has to get a helper before the package is applied: an exception may pass through the patch, or the
/// program has an unwinder that may be asked about it. An error when there must be one and cannot.
pub fn wanted(snapshot: &Snapshot<'_>, package: &Package) -> Result<bool> {
    let framed = package.sections.iter().any(|s| s.kind == SectionKind::Frames);
    if !framed || helper(&snapshot.entries).is_some() {
        return Ok(false);
    }
    let found = unwinders(snapshot);
    match (found.is_empty(), package.manifest.exceptions) {
        (false, true) => Ok(true),
        // Without exceptions it is a courtesy to backtrace(), and no reason to refuse anything.
        (false, false) => Ok(hooks(snapshot, &found).is_ok()),
        (true, false) => Ok(false),
        (true, true) => Err(refused(format!(
            "an exception may pass through the patch, and process {} has no unwinder that can be shown the patch's frames",
            snapshot.process.pid()
        ))),
    }
}

/// Modules with an unwinder that asks [`FUNCTION`]: libgcc_s, and what has libgcc inside and exports it.
fn unwinders<'s>(snapshot: &'s Snapshot<'_>) -> Vec<Definition<'s>> {
    let (process, modules) = (snapshot.process, &snapshot.modules[..]);
    let in_module =
        |name, module: &Module| definitions(process, modules, name).iter().any(|d| d.module.bias == module.bias);
    let found = definitions(process, modules, FUNCTION).into_iter();
    found.filter(|d| in_module(OWN_UNWINDER, d.module) && !in_module(OTHER_UNWINDER, d.module)).collect()
}

/// One unwinder's function, ready to get something in front.
struct Hook<'s> {
    module: &'s Module,
    entry: RemoteAddr,
    pad: usize,
    /// The landing pad and the bytes under the jump.
    old: Vec<u8>,
    displaced: Vec<u8>,
}

fn hooks<'s>(snapshot: &Snapshot<'_>, found: &[Definition<'s>]) -> Result<Vec<Hook<'s>>> {
    let (process, arch) = (snapshot.process, snapshot.process.arch());
    let hook = |d: &Definition<'s>| {
        let entry = d.module.bias.remote(d.addr);
        let cannot = |why: &str| refused(format!("{FUNCTION} of {} at {entry} {why}", d.module.name));
        let code = memory::bytes(process, entry, d.size)?;
        let pad = arch.landing_pad_len(&code);
        let len = arch.displaceable(&code, pad).map_err(|_| cannot("begins with code that cannot be moved"))?;
        let jump = pad + arch.entry_jump_len();
        let bytes = |range: Range<usize>| code.get(range).map(<[u8]>::to_vec).ok_or_else(|| cannot("is too short"));
        let (old, displaced) = (bytes(0..jump)?, bytes(pad..pad + len)?);
        if page_of(entry.plus(pad as u64)) != page_of(entry.plus(jump as u64 - 1)) {
            return Err(cannot("has no room for a jump on one page"));
        }
        if snapshot.entries.iter().any(|e| e.state.is_active() && e.record.functions().any(|f| f.entry == entry)) {
            return Err(cannot("is patched already"));
        }
        if d.module.build_id.is_none() {
            return Err(cannot("is in a file without a build-id"));
        }
        Ok(Hook { module: d.module, entry, pad, old, displaced })
    };
    found.iter().map(hook).collect()
}

/// The plan that puts the helper into a process.
pub fn plan(snapshot: &Snapshot<'_>) -> Result<Plan> {
    let arch = snapshot.process.arch();
    let found = unwinders(snapshot);
    let hooks = hooks(snapshot, &found)?;
    if hooks.is_empty() {
        return Err(refused("the process has no unwinder".into()));
    }
    let page = snapshot.process.page();
    let order = snapshot.entries.iter().map(|e| e.record.order).max().unwrap_or(0).saturating_add(1);
    let mut record = record(&hooks, order);
    let room = registry::room(&record)?.next_multiple_of(64);
    let constants = (room + LIST).next_multiple_of(page);
    let mut taken = snapshot.maps.clone();
    let mut list = RemoteAddr(0);
    let mut loads = Vec::new();
    for (i, (hook, target)) in hooks.iter().zip(&mut record.targets).enumerate() {
        let own = if i == 0 { constants } else { 0 };
        let base = taken.find_gap(&hook.module.wish(own + page, arch, None))?;
        taken.take(base, own + page);
        if i == 0 {
            list = base.plus(constants - LIST);
        }
        let commit = RemoteAddr(list.0 + 8);
        let code = code(arch, hook, list, commit, base.plus(own))?;
        let cannot = |e| refused(format!("{FUNCTION} of {}: {e}", hook.module.name));
        let new = base.plus(own);
        let jump = arch.entry_jump(hook.entry.plus(hook.pad as u64), new).map_err(cannot)?;
        let mut bytes = hook.old.get(..hook.pad).unwrap_or_default().to_vec();
        bytes.extend(jump);
        if let Some(f) = target.functions.first_mut() {
            (f.new, f.jump) = (new, bytes);
        }
        target.areas.clear();
        if i == 0 {
            target.areas.push(area(base, constants, Access::Constants, &[]));
            loads.push(Load { start: base, bytes: vec![0; constants as usize], access: Access::Constants });
        }
        let mut code_page = code;
        code_page.resize(page as usize, 0);
        target.areas.push(area(new, page, Access::Code, &code_page));
        loads.push(Load { start: new, bytes: code_page, access: Access::Code });
    }
    let encoded = registry::encode(&record, State::Applying, 1)?;
    let home = loads.first_mut().ok_or_else(|| refused("there is nothing to load".into()))?;
    let at = home.start;
    match home.bytes.get_mut(..encoded.len()) {
        Some(place) if encoded.len() as u64 <= room => place.copy_from_slice(&encoded),
        _ => return Err(Error::failed("the registry record grew", "report this as a bug")),
    }
    let suspects = hooks.iter().map(|hook| Suspect {
        name: FUNCTION.into(),
        start: hook.entry.plus(hook.pad as u64),
        end: hook.entry.plus(hook.old.len() as u64),
        at_start: false,
        at_end: false,
        for_ever: false,
    });
    Ok(Plan {
        suspects: suspects.collect(),
        modules: hooks.iter().map(|hook| hook.module.clone()).collect(),
        others: snapshot.entries.clone(),
        replaced: Vec::new(),
        rows: Vec::new(),
        warnings: Vec::new(),
        generation: 1,
        record,
        at,
        loads,
    })
}

/// The list's bytes change, so nothing of the constants is measured.
fn area(start: RemoteAddr, len: u64, access: Access, bytes: &[u8]) -> Area {
    let measured = if access == Access::Constants { len } else { 0 };
    Area { start, len, access, sha256: Some(ulp_format::sha256_hex(bytes)), measured }
}

fn record(hooks: &[Hook<'_>], order: u64) -> Record {
    let wide = |access| Area { start: RemoteAddr(0), len: 0, access, sha256: Some("0".repeat(64)), measured: 0 };
    let target = |hook: &Hook<'_>| TargetRecord {
        file: hook.module.name.clone(),
        build_id: hook.module.build_id.clone().unwrap_or_default(),
        bias: hook.module.bias,
        functions: vec![FunctionRecord {
            name: FUNCTION.into(),
            entry: hook.entry,
            new: RemoteAddr(0),
            old: hook.old.clone(),
            jump: vec![0; hook.old.len()],
            gate: None,
        }],
        areas: vec![wide(Access::Constants), wide(Access::Code)],
        frames: None,
    };
    Record {
        name: NAME.into(),
        description: "shows the frames of patches to the program's own unwinder".into(),
        cves: Vec::new(),
        digest: ulp_format::sha256_hex(NAME.as_bytes()),
        escape: false,
        requires: Vec::new(),
        order,
        commit: None,
        targets: hooks.iter().map(target).collect(),
    }
}

/// The hook, and behind it the instructions that its jump displaces: a gate that always goes on in the old code.
fn code(arch: &dyn Arch, hook: &Hook<'_>, list: RemoteAddr, commit: RemoteAddr, at: RemoteAddr) -> Result<Vec<u8>> {
    let none = || refused(format!("patches cannot be shown to an unwinder on {} yet", arch.name()));
    let mut code = arch.unwind_hook(list).ok_or_else(none)?;
    let from = hook.entry.plus(hook.pad as u64);
    let gate = Gate {
        at: at.plus(code.len() as u64),
        // A word that is never written, in memory that the program cannot write.
        commit: Commit { at: commit, old: 0 },
        new: from,
        from,
        displaced: &hook.displaced,
    };
    let cannot = |e| refused(format!("{FUNCTION} of {}: {e}", hook.module.name));
    code.extend(arch.gate(&gate).map_err(cannot)?);
    Ok(code)
}

/// The rows of the list that are in use, by their place.
fn rows(memory: &dyn Memory, list: RemoteAddr) -> Result<Vec<(RemoteAddr, Row)>> {
    let bytes = memory::bytes(memory, list, LIST)?;
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
    let used = words.first().copied().unwrap_or(0).min(ROWS);
    let row = |n: u64| {
        let words = words.get(usize::try_from(n * ROW / 8).ok()?..)?;
        let [start, end, index, functions] = words.first_chunk().copied()?;
        Some((
            list.plus(n * ROW),
            Row { start: RemoteAddr(start), end: RemoteAddr(end), index: RemoteAddr(index), functions, list },
        ))
    };
    Ok((1..=used).filter_map(row).collect())
}

/// Under a stop: adds rows to the helper's list, which is still where it was when they were planned (the stop's recheck has
/// seen to that). Nothing leads to their code yet.
pub fn show(process: &Process, quiet: &Quiet<'_>, wanted: &[Row]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    for row in wanted {
        let list = row.list;
        let rows = rows(process, list)?;
        if rows.iter().any(|(_, known)| known == row) {
            continue;
        }
        let free = rows.iter().find(|(_, known)| known.end.0 == 0).map(|(at, _)| *at);
        let used = rows.len() as u64;
        if free.is_none() && used >= ROWS {
            return Err(refused(format!("the process has {ROWS} patches with frames already")));
        }
        let at = free.unwrap_or(list.plus((used + 1) * ROW));
        let words = [row.start.0, 0, row.index.0, row.functions];
        quiet.write(at, &words.map(u64::to_le_bytes).concat())?;
        // The row counts from here on.
        quiet.write(at.plus(8), &row.end.0.to_le_bytes())?;
        if free.is_none() {
            quiet.write(list, &(used + 1).to_le_bytes())?;
        }
    }
    Ok(())
}

/// Takes the rows of code that is about to be unmapped out of the list.
pub fn hide(
    process: &Process,
    remote: &mut Remote<'_>,
    gone: &[Range<u64>],
) -> std::result::Result<(), crate::process::Error> {
    let entries = process.maps().ok().and_then(|maps| crate::snapshot::registry_of(process, &maps).ok());
    let Some(list) = entries.as_deref().and_then(|entries| list_of(helper(entries)?)) else { return Ok(()) };
    for (at, row) in rows(process, list).unwrap_or_default() {
        if gone.iter().any(|area| area.contains(&row.start.0)) {
            remote.write(at.plus(8), &0u64.to_le_bytes())?;
        }
    }
    Ok(())
}

/// Memory of the helper, which may well point to patches.
pub fn own_memory(entries: &[Entry]) -> Vec<Range<u64>> {
    helper(entries).into_iter().flat_map(|e| e.record.areas().map(Area::range)).collect()
}

/// The helper, when no patch needs it any more.
pub fn idle(entries: &[Entry]) -> Option<&Entry> {
    let needed = || entries.iter().any(|e| e.record.requires.iter().any(|name| name == NAME));
    helper(entries).filter(|_| !needed())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A common entry (`zR`, pc-relative with four bytes) and two frame entries, as `.eh_frame` has them at 0x1000.
    fn table() -> Vec<u8> {
        let mut bytes =
            vec![20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0];
        for (start, len) in [(0x5000u32, 0x20u32), (0x5020, 0x10)] {
            let at = bytes.len() as u32;
            bytes.extend(16u32.to_le_bytes());
            bytes.extend((at + 4).to_le_bytes());
            bytes.extend(start.wrapping_sub(0x1000 + at + 8).to_le_bytes());
            bytes.extend(len.to_le_bytes());
            bytes.extend([0; 4]);
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn every_function_of_a_table_is_described() {
        let table = table();
        assert_eq!(entries(&table), 3);
        let (bytes, count) = index(RemoteAddr(0x1000), &table).expect("whole");
        let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
        assert_eq!((count, words), (2, vec![0x5000, 0x5020, 0x1018, 0x5020, 0x5030, 0x102c]));
        assert!(index(RemoteAddr(0x1000), &table[..30]).is_err(), "a table cut short");
        assert_eq!(entries(&table[..30]), 1);
    }

    #[test]
    fn the_list_is_read_as_a_strangers() {
        let mut memory = crate::memory::test::Pieces::default();
        let mut list = vec![0u8; LIST as usize];
        list[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        list[ROW as usize..ROW as usize + 8].copy_from_slice(&5u64.to_le_bytes());
        memory.put(0x1000, list);
        let rows = rows(&memory, RemoteAddr(0x1000)).expect("readable");
        assert_eq!(rows.len() as u64, ROWS, "never more than there are");
        assert_eq!((rows[0].0.0, rows[0].1.start.0, rows[0].1.end.0), (0x1020, 5, 0));
    }
}
