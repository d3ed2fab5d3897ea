// SPDX-License-Identifier: GPL-2.0-or-later
//! What a patched process knows about its patches. Each patch keeps one record in its own read-only memory, at the start
//! of a page, found by content: no state file, and a forked child has it too. The record is complete before the first
//! entry jump is written, so it is the journal as well. A process can write whatever it likes into its memory: a record
//! is a claim, parsed as a stranger's bytes, and believed only after the live bytes were compared ([`Live`]).

use crate::error::{Error, Result};
use crate::memory::{self, Memory};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;
use ulp_arch::{LoadBias, RemoteAddr};

/// The first bytes of a record's page.
pub const MAGIC: [u8; 16] = *b"\x7fulp registry\r\n\0";
/// The version this program writes, and the only one it reads.
const VERSION: u32 = 2;
/// Magic, version, body length, state, generation, commit word (and four zero bytes), digest.
pub const HEADER: u64 = 16 + 4 + 4 + 8 + 8 + 8 + 32;
/// Bytes of memory that the areas of one record, and those of all records of a process, may have: far above any patch, and
/// little enough to be read and measured.
const MOST: u64 = 1 << 30;
/// Longest body; a record with thousands of functions is shorter.
const LONGEST: u32 = 4 << 20;
const STATE_AT: u64 = 24;
const COMMIT_AT: u64 = 40;
const DIGEST_AT: usize = 48;

/// How far a patch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Being applied: some entry jumps may be there. Seen by another ulp-apply only when the one at work died.
    Applying,
    /// All entry jumps are there.
    Applied,
    /// Being reverted: some old bytes may be back.
    Reverting,
    /// Reverted, but kept, because live data may still point into it.
    Retired,
    /// Reverted, and nothing leads to it: its memory is being unmapped, and part of it may be gone already.
    Freeing,
}

impl State {
    const ALL: [Self; 5] = [Self::Applying, Self::Applied, Self::Reverting, Self::Retired, Self::Freeing];

    /// Whether entry jumps may lead to it.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Applying | Self::Applied | Self::Reverting)
    }

    fn word(self) -> u64 {
        self as u64 + 1
    }

    fn from_word(word: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.word() == word)
    }
}

/// Everything about one applied patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub name: String,
    pub description: String,
    pub cves: Vec<String>,
    /// SHA-256 of the package file, lower-case hex.
    pub digest: String,
    /// Whether patch addresses may live on in the process's data after a revert.
    pub escape: bool,
    /// Names of patches that must stay as long as this one.
    pub requires: Vec<String>,
    /// Counts the patches of this process, so that their order is known.
    pub order: u64,
    /// What every gate asks; none where the functions do not switch as one, or there is but one.
    pub commit: Option<CommitRecord>,
    pub targets: Vec<TargetRecord>,
}

/// The four bytes that decide for all functions at once: a word in the record's header, or bytes of the entry of the one
/// function that has no gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRecord {
    pub at: RemoteAddr,
    /// Their value, little-endian, while the old functions run.
    pub old: u32,
}

/// Where a function's entry leads while all functions switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateRecord {
    pub at: RemoteAddr,
    pub len: u64,
    /// What stands at the entry then: as long as `old`.
    #[serde(with = "hex")]
    pub jump: Vec<u8>,
}

/// One patched ELF file, as loaded at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRecord {
    pub file: String,
    pub build_id: String,
    pub bias: LoadBias,
    pub functions: Vec<FunctionRecord>,
    /// Constants, code, data; those that exist, lowest first and without a gap.
    pub areas: Vec<Area>,
    /// Call frame information of the new code: start and length.
    pub frames: Option<(RemoteAddr, u64)>,
}

/// One replaced function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionRecord {
    pub name: String,
    /// Where `old` and `jump` stand: the function's entry.
    pub entry: RemoteAddr,
    /// The new code.
    pub new: RemoteAddr,
    #[serde(with = "hex")]
    pub old: Vec<u8>,
    #[serde(with = "hex")]
    pub jump: Vec<u8>,
    pub gate: Option<GateRecord>,
}

/// One mapping of a patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Area {
    pub start: RemoteAddr,
    pub len: u64,
    pub access: Access,
    /// SHA-256 over the bytes from `measured` on, lower-case hex; nothing for data.
    pub sha256: Option<String>,
    /// Where the measured bytes begin: behind the record in its own area.
    pub measured: u64,
}

/// Protections a patch's memory has; none is writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    Constants,
    Code,
    Data,
}

impl Area {
    pub fn range(&self) -> Range<u64> {
        self.start.0..self.start.0.saturating_add(self.len)
    }
}

/// A record, where it was found, and its changing part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: RemoteAddr,
    pub state: State,
    /// Counts state changes; differs when another ulp-apply was at work.
    pub generation: u64,
    pub record: Record,
}

/// A record as it was, byte for byte: what a recheck under a stop compares, where every microsecond counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    entry: Entry,
    bytes: Vec<u8>,
}

impl Image {
    pub fn of(entry: Entry) -> Result<Self> {
        let bytes = encode(&entry.record, entry.state, entry.generation)?;
        Ok(Self { entry, bytes })
    }

    /// Whether the record is still the same. The commit word is not part of it.
    pub fn is_still(&self, memory: &dyn Memory) -> Result<bool> {
        let mut now = memory::bytes(memory, self.entry.at, self.bytes.len() as u64).unwrap_or_default();
        if let Some(commit) = now.get_mut(COMMIT_AT as usize..COMMIT_AT as usize + 4) {
            commit.fill(0);
        }
        // Where the bytes differ or cannot be read, the long way says what that means: the same record may be written in other
        // words, by another version of this program, and where a page went away there is none any more.
        Ok(now == self.bytes || decode(memory, self.entry.at)?.as_ref() == Some(&self.entry))
    }
}

/// What the live bytes say about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Live {
    /// Every function has its old bytes.
    Old,
    /// Every function has our jump.
    New,
    /// Some have, some have not, and no gates make one of it: an applier died in between.
    Mixed,
    /// Entries lead to gates, some or all: an applier died in between. The commit word says that the functions are all
    /// new, or all old.
    Gated { new: bool },
    /// Bytes that are neither: somebody else changed the entry of the named function.
    Foreign { function: String, at: RemoteAddr },
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&ulp_format::hex::encode(bytes))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        ulp_format::hex::decode(&text).ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

/// The bytes of a record with its first state; they go to the start of its constants area.
pub fn encode(record: &Record, state: State, generation: u64) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(record)
        .map_err(|e| Error::failed(format!("cannot write the registry record: {e}"), "report this as a bug"))?;
    let len = u32::try_from(body.len()).ok().filter(|l| *l <= LONGEST).ok_or_else(|| {
        Error::refused("the patch's registry record is too long", "split the patch into several packages")
    })?;
    let mut bytes = Vec::with_capacity(body.len() + HEADER as usize);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(state_words(state, generation));
    bytes.extend([0; 8]);
    bytes.extend(digest(len, &body));
    bytes.extend(body);
    Ok(bytes)
}

/// Where the changing part of a record lies, and its bytes: one aligned write of two words.
pub fn state_change(at: RemoteAddr, state: State, generation: u64) -> (RemoteAddr, [u8; 16]) {
    (at.plus(STATE_AT), state_words(state, generation))
}

/// Where the commit word of the record at `at` lies.
pub fn commit_word(at: RemoteAddr) -> RemoteAddr {
    at.plus(COMMIT_AT)
}

fn state_words(state: State, generation: u64) -> [u8; 16] {
    (u128::from(state.word()) | u128::from(generation) << 64).to_le_bytes()
}

fn digest(len: u32, body: &[u8]) -> [u8; 32] {
    // The changing words are left out: they are one store, and the rest must hold whatever they say.
    let mut sha = Sha256::new();
    sha.update(MAGIC);
    sha.update(VERSION.to_le_bytes());
    sha.update(len.to_le_bytes());
    sha.update(body);
    sha.finalize().into()
}

/// How many bytes to keep free for `record`, whatever its addresses become.
pub fn room(record: &Record) -> Result<u64> {
    let mut widest = record.clone();
    widest.order = u64::MAX;
    widest.commit = widest.commit.map(|_| CommitRecord { at: RemoteAddr(u64::MAX), old: u32::MAX });
    for target in &mut widest.targets {
        target.bias = LoadBias(u64::MAX);
        for f in &mut target.functions {
            (f.entry, f.new) = (RemoteAddr(u64::MAX), RemoteAddr(u64::MAX));
            if let Some(gate) = &mut f.gate {
                (gate.at, gate.len) = (RemoteAddr(u64::MAX), u64::MAX);
            }
        }
        target.frames = target.frames.map(|_| (RemoteAddr(u64::MAX), u64::MAX));
        for a in &mut target.areas {
            (a.start, a.len, a.measured) = (RemoteAddr(u64::MAX), u64::MAX, u64::MAX);
        }
    }
    Ok(encode(&widest, State::Applying, 0)?.len() as u64)
}

/// Reads the record at `at`. `None`: there is none. An error: there is the beginning of one, and it does not hold.
pub fn decode(memory: &dyn Memory, at: RemoteAddr) -> Result<Option<Entry>> {
    // A page that went away since the mappings were listed has no record. Asked twice, because a record that is overlooked
    // makes a patched process look like one that never was.
    let magic = || memory::array::<16>(memory, at);
    let Ok(magic) = magic().or_else(|_| magic()) else { return Ok(None) };
    if magic != MAGIC {
        return Ok(None);
    }
    let damaged = |what: &str| {
        Error::refused(
            format!("the process has a patch registry at {at}, but {what}"),
            "its memory was changed by something else; restart the program at the next occasion",
        )
    };
    let head = memory::array::<{ HEADER as usize }>(memory, at)?;
    let word = |from: usize| head.get(from..from + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let half = |from: usize| head.get(from..from + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let (version, len) = (half(16), half(20));
    if version != VERSION {
        return Err(damaged(&format!("of version {version}; use the ulp-apply that wrote it")));
    }
    if len > LONGEST {
        return Err(damaged("its length makes no sense"));
    }
    if half(44) != 0 {
        return Err(damaged("its header makes no sense"));
    }
    let state = State::from_word(word(24)).ok_or_else(|| damaged("its state makes no sense"))?;
    let body = memory::bytes(memory, at.plus(HEADER), u64::from(len))?;
    if head.get(DIGEST_AT..) != Some(&digest(len, &body)[..]) {
        return Err(damaged("its digest does not hold"));
    }
    let record: Record = serde_json::from_slice(&body).map_err(|_| damaged("its text makes no sense"))?;
    sane(&record, at, memory.page()).map_err(|what| damaged(&what))?;
    Ok(Some(Entry { at, state, generation: word(32), record }))
}

/// A digest proves no good will: everything a record says is checked for being possible at all.
fn sane(record: &Record, at: RemoteAddr, page: u64) -> std::result::Result<(), String> {
    // What is shown to people or compared with what they say. A package's texts are as strict.
    let line = |text: &String| !text.chars().any(char::is_control);
    let targets_say = record.targets.iter().flat_map(|t| [&t.file, &t.build_id]);
    let texts = record.cves.iter().chain([&record.digest]).chain(targets_say);
    let names = record.functions().map(|f| &f.name);
    if !ulp_format::is_patch_name(&record.name) || !texts.chain(&record.requires).chain(names).all(line) {
        return Err("its names make no sense".into());
    }
    if record.areas().try_fold(0, |sum: u64, a| sum.checked_add(a.len)).is_none_or(|sum| sum > MOST) {
        return Err("its areas are larger than any patch's".into());
    }
    let mut last_end = 0;
    let mut areas: Vec<_> = record.targets.iter().flat_map(|t| &t.areas).collect();
    areas.sort_by_key(|a| a.start);
    for area in areas {
        let end = area.start.0.checked_add(area.len).ok_or("an area wraps around")?;
        let aligned = area.start.0.is_multiple_of(page) && area.len.is_multiple_of(page);
        // Only data may change: memory whose bytes nothing is known of is not taken for ours.
        let measured = area.measured <= area.len && (area.sha256.is_some() || area.access == Access::Data);
        if !aligned || area.len == 0 || area.start.0 < last_end || !measured {
            return Err(format!("its area at {} makes no sense", area.start));
        }
        last_end = end;
    }
    let home = record.targets.first().and_then(|t| t.areas.first());
    if home.is_none_or(|a| a.start != at || a.access != Access::Constants) {
        return Err("it does not describe its own memory".into());
    }
    let mut entries: Vec<_> = record.functions().map(|f| (f.entry.0, f.old.len() as u64)).collect();
    entries.sort_unstable();
    let mut free_from = 0;
    for (start, len) in entries {
        if start < free_from {
            return Err("its entries overlap".into());
        }
        free_from = start.checked_add(len).ok_or("an entry wraps around")?;
    }
    for target in &record.targets {
        let framed = target.frames.is_none_or(|(start, len)| {
            let end = start.0.checked_add(len);
            let inside = |a: &Area| a.start <= start && end.is_some_and(|end| end <= a.range().end);
            target.areas.iter().any(|a| a.access == Access::Constants && inside(a))
        });
        if !framed {
            return Err("its call frame information is not its own".into());
        }
        for f in &target.functions {
            let code = target.areas.iter().filter(|a| a.access == Access::Code);
            if f.old.is_empty() || f.old.len() != f.jump.len() || f.old.len() > 64 || f.old == f.jump {
                return Err(format!("its bytes for {} make no sense", f.name));
            }
            if !code.into_iter().any(|a| a.range().contains(&f.new.0)) {
                return Err(format!("the new code of {} is not its own", f.name));
            }
            let code = target.areas.iter().filter(|a| a.access == Access::Code);
            if let Some(gate) = &f.gate
                && !sane_gate(f, gate, code.map(Area::range))
            {
                return Err(format!("the gate of {} makes no sense", f.name));
            }
        }
    }
    let ungated: Vec<_> = record.functions().filter(|f| f.gate.is_none()).collect();
    let gates = record.functions().count() - ungated.len();
    let sane = match (&record.commit, &ungated[..]) {
        (None, _) => gates == 0,
        (Some(commit), []) => gates > 1 && (commit.at, commit.old) == (commit_word(at), 0),
        (Some(commit), [f]) => gates > 0 && f.in_one_page() && f.commits().any(|c| c == *commit),
        (Some(_), _) => false,
    };
    if sane { Ok(()) } else { Err("its commit word makes no sense".into()) }
}

fn sane_gate(f: &FunctionRecord, gate: &GateRecord, mut code: impl Iterator<Item = Range<u64>>) -> bool {
    let end = gate.at.0.checked_add(gate.len);
    let inside = |c: Range<u64>| gate.len > 0 && c.start <= gate.at.0 && end.is_some_and(|end| end <= c.end);
    gate.jump.len() == f.old.len() && gate.jump != f.old && gate.jump != f.jump && code.any(inside)
}

impl FunctionRecord {
    /// Whether old bytes and jump lie in one page: only then writing them is one step that cannot be cut in two.
    pub fn in_one_page(&self) -> bool {
        let last = self.entry.plus((self.old.len() as u64).saturating_sub(1));
        crate::snapshot::page_of(self.entry) == crate::snapshot::page_of(last)
    }

    /// The commits that this entry can be for other functions: four bytes that its jump changes. The last come first,
    /// because a breakpoint set later would change the first byte.
    pub fn commits(&self) -> impl Iterator<Item = CommitRecord> {
        let pairs = self.old.windows(4).zip(self.jump.windows(4)).zip(0u64..);
        let differing = pairs.filter(|((old, jump), _)| old != jump).filter_map(|((old, _), offset)| {
            let old = u32::from_le_bytes(old.try_into().ok()?);
            Some(CommitRecord { at: self.entry.plus(offset), old })
        });
        differing.collect::<Vec<_>>().into_iter().rev()
    }
}

impl Record {
    /// All functions, whatever their target.
    pub fn functions(&self) -> impl Iterator<Item = &FunctionRecord> {
        self.targets.iter().flat_map(|t| &t.functions)
    }

    /// All areas.
    pub fn areas(&self) -> impl Iterator<Item = &Area> {
        self.targets.iter().flat_map(|t| &t.areas)
    }

    /// The record of some of the targets alone. A commit word that is an entry of another one is left out with it.
    pub fn only(&self, wanted: impl FnMut(&TargetRecord) -> bool) -> Self {
        let mut part = self.clone();
        let mut wanted = wanted;
        let (kept, gone): (Vec<_>, Vec<_>) = part.targets.into_iter().partition(|t| wanted(t));
        part.targets = kept;
        let lost = |c: &CommitRecord| {
            gone.iter().flat_map(|t| &t.functions).flat_map(FunctionRecord::commits).any(|g| g.at == c.at)
        };
        part.commit = part.commit.filter(|c| !lost(c));
        part
    }

    /// Whether the commit word says that the functions are new; `None` where there is none.
    pub fn committed(&self, memory: &dyn Memory) -> Result<Option<bool>> {
        let Some(commit) = &self.commit else { return Ok(None) };
        Ok(Some(u32::from_le_bytes(memory::array(memory, commit.at)?) != commit.old))
    }

    /// What the entries look like now.
    pub fn live(&self, memory: &dyn Memory) -> Result<Live> {
        let (mut old, mut new, mut gated) = (false, false, false);
        let committed = self.committed(memory)?;
        for f in self.functions() {
            let now = memory::bytes(memory, f.entry, f.old.len() as u64)?;
            // Nobody leaves an old entry beside a commit word that says new, nor a jump beside one that says old.
            if now == f.old && committed != Some(true) {
                old = true;
            } else if now == f.jump && committed != Some(false) {
                new = true;
            } else if f.gate.as_ref().is_some_and(|gate| gate.jump == now) {
                gated = true;
            } else {
                return Ok(Live::Foreign { function: f.name.clone(), at: f.entry });
            }
        }
        Ok(match (old, new, gated, committed) {
            (.., true, _) => Live::Gated { new: committed == Some(true) },
            (true, true, ..) => Live::Mixed,
            (false, true, ..) => Live::New,
            (_, false, ..) => Live::Old,
        })
    }

    /// The first area whose measured bytes are no longer those we left.
    pub fn changed_area(&self, memory: &dyn Memory) -> Result<Option<&Area>> {
        for target in &self.targets {
            if let Some(area) = target.changed_area(memory)? {
                return Ok(Some(area));
            }
        }
        Ok(None)
    }
}

impl TargetRecord {
    /// The first area whose measured bytes are no longer those we left.
    pub fn changed_area(&self, memory: &dyn Memory) -> Result<Option<&Area>> {
        for area in &self.areas {
            let Some(digest) = &area.sha256 else { continue };
            let now = memory::bytes(memory, area.start.plus(area.measured), area.len - area.measured)?;
            if ulp_format::sha256_hex(&now) != *digest {
                return Ok(Some(area));
            }
        }
        Ok(None)
    }
}

/// Finds all records in private, anonymous, read-only mappings.
pub fn scan(memory: &dyn Memory, mappings: impl IntoIterator<Item = Range<u64>>) -> Result<Vec<Entry>> {
    /// Neighbouring mappings of several patches may have grown together, so every page counts, within reason.
    const PAGES: usize = 4096;
    /// Pages of all mappings together: a process may have more such memory than anybody would want to search.
    const ALL_PAGES: usize = 1 << 20;
    let step = usize::try_from(memory.page()).unwrap_or(usize::MAX);
    let mut left = ALL_PAGES;
    let mut found: Vec<Entry> = Vec::new();
    for mapping in mappings {
        for page in mapping.step_by(step).take(PAGES) {
            left = left.checked_sub(1).ok_or_else(|| {
                Error::refused(
                    format!("the process has more than {ALL_PAGES} pages of memory that may hold its patch registry"),
                    "it cannot be told which patches it has; restart the program with the fix built in",
                )
            })?;
            found.extend(decode(memory, RemoteAddr(page))?);
        }
    }
    apart(&found)?;
    found.sort_by_key(|e| e.record.order);
    Ok(found)
}

/// No two records can be about the same memory: freeing one would take it from the other.
fn apart(entries: &[Entry]) -> Result<()> {
    let hint = "its memory was changed by something else; restart the program at the next occasion";
    let mut areas: Vec<_> =
        entries.iter().flat_map(|e| e.record.areas().map(|a| (a.range(), &e.record.name))).collect();
    areas.sort_by_key(|(range, _)| range.start);
    for pair in areas.windows(2) {
        if let [(a, one), (b, other)] = pair
            && b.start < a.end
        {
            let message = format!("the patch registry of the process says that {one} and {other} share memory");
            return Err(Error::refused(message, hint));
        }
    }
    // They lie apart, so the sum is less than the address space.
    if areas.iter().map(|(a, _)| a.end - a.start).sum::<u64>() > MOST {
        return Err(Error::refused("the patch registry of the process has more memory than any patches", hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
