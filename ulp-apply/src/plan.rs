// SPDX-License-Identifier: GPL-2.0-or-later
//! A package and a process become a plan: which modules, which addresses, which bytes. [`verify`] proves that the package
//! fits the process, [`Verified::plan`] links it for addresses that are free. Whatever can be refused is refused here,
//! before the process is touched.

use crate::error::{Class, Error, Result};
use crate::link::{Found, Image, Layout, Run, Wanted};
use crate::memory;
use crate::process::{Maps, Module, Protection, Role, Suspect};
use crate::registry::{
    self, Access, Area, CommitRecord, Entry, FunctionRecord, GateRecord, Record, State, TargetRecord,
};
use crate::snapshot::{PackageFile, Snapshot, own_code, page_of};
use crate::stack::{self, Before};
use crate::symbols::Scope;
use crate::unwinding::{self, Row};
use ulp_arch::{Arch, Commit, Flow, Gate, RemoteAddr};
use ulp_format::{Function, Kind, Source, Target, hex, sha256_hex};

/// One target, found in the process.
#[derive(Clone, Copy, Debug)]
struct Match<'s> {
    target: &'s Target,
    module: &'s Module,
}

/// A package that fits a process, function by function.
#[derive(Debug)]
pub struct Verified<'s> {
    snapshot: &'s Snapshot<'s>,
    file: &'s PackageFile,
    matches: Vec<Match<'s>>,
    /// Applied patches that this one requires, and those that it replaces.
    below: Vec<&'s Entry>,
    replaced: Vec<&'s Entry>,
    /// The memory of this very package, kept by an earlier revert.
    retired: Option<&'s Entry>,
}

/// What verification says.
#[derive(Debug)]
pub enum Verdict<'s> {
    /// The very same package is applied and its live bytes are ours.
    Already,
    Verified(Verified<'s>),
}

/// Memory to be mapped and filled.
#[derive(Clone, Debug)]
pub struct Load {
    pub start: RemoteAddr,
    pub bytes: Vec<u8>,
    pub access: Access,
}

/// Everything that will be done, in values.
#[derive(Debug)]
pub struct Plan {
    pub record: Record,
    /// Where the record will be, or is.
    pub at: RemoteAddr,
    /// Generation of the record while it is being applied.
    pub generation: u64,
    /// Memory to map; empty when retired memory is used again.
    pub loads: Vec<Load>,
    /// The code that no thread may be inside.
    pub suspects: Vec<Suspect>,
    /// Modules that must still be there under the stop.
    pub modules: Vec<Module>,
    /// The rest of the registry as it was.
    pub others: Vec<Entry>,
    /// Patches that go in the same stop.
    pub replaced: Vec<Entry>,
    /// What the program's unwinder is shown.
    pub rows: Vec<Row>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Access {
    pub fn protection(self) -> Protection {
        match self {
            Self::Constants => Protection::Read,
            Self::Code => Protection::ReadExec,
            Self::Data => Protection::ReadWrite,
        }
    }
}

/// Whether the process has loaded any target of the package, for `--all`.
pub fn matches_any(modules: &[Module], file: &PackageFile) -> bool {
    let targets = &file.package.manifest.targets;
    targets.iter().any(|t| modules.iter().any(|m| m.build_id.as_deref() == Some(t.build_id.as_str())))
}

/// Proves that the package fits the process as it is now.
pub fn verify<'s>(snapshot: &'s Snapshot<'s>, file: &'s PackageFile) -> Result<Verdict<'s>> {
    let manifest = &file.package.manifest;
    let arch = snapshot.process.arch();
    if manifest.arch != arch.name() {
        return Err(Error::refused(
            format!("the patch is for {}, and the process runs on {}", manifest.arch, arch.name()),
            "build the patch for this machine",
        )
        .code("E-ARCH"));
    }
    let mut matches = Vec::new();
    for target in &manifest.targets {
        let found = snapshot.modules.iter().filter(|m| m.build_id.as_deref() == Some(target.build_id.as_str()));
        let before = matches.len();
        matches.extend(found.map(|module| Match { target, module }));
        if matches.len() == before {
            return Err(wrong_build(snapshot, target));
        }
    }
    if manifest.name == unwinding::NAME {
        return Err(Error::refused(format!("no patch may be named {}", manifest.name), "build it with another --name"));
    }
    if let Some(entry) = snapshot.active(&manifest.name) {
        return same_name(snapshot, file, entry);
    }
    let applied = |name: &String| snapshot.active(name).is_some();
    if let Some(missing) = manifest.requires.iter().find(|name| !applied(name)) {
        return Err(Error::refused(
            format!("the patch requires {missing}, which is not applied"),
            "apply that one first",
        ));
    }
    let below: Vec<&Entry> = manifest.requires.iter().filter_map(|name| snapshot.active(name)).collect();
    let replaced: Vec<&Entry> = manifest.replaces.iter().filter_map(|name| snapshot.active(name)).collect();
    known_are_whole(snapshot, &below, &replaced)?;
    let known: Vec<&Entry> = below.iter().chain(&replaced).copied().collect();
    let before = Before::new(snapshot.process, &known);
    for m in &matches {
        verify_references(m)?;
        for function in &m.target.functions {
            refuse_unknown(snapshot, &known, m, function)?;
            verify_function(snapshot, &before, m, function)?;
        }
    }
    let retired = snapshot.entries.iter().find(|e| e.state == State::Retired && e.record.digest == file.digest);
    Ok(Verdict::Verified(Verified { snapshot, file, matches, below, replaced, retired }))
}

/// The patches that this one stands on or replaces are as they were left, and nothing else needs those that go.
fn known_are_whole(snapshot: &Snapshot<'_>, below: &[&Entry], replaced: &[&Entry]) -> Result<()> {
    for entry in below.iter().chain(replaced) {
        let name = &entry.record.name;
        if let Some(damage) = crate::snapshot::damage(snapshot, entry)? {
            return Err(Error::refused(format!("the patch builds on {name}, but {damage}"), "nothing was changed"));
        }
    }
    let stays = |e: &&Entry| e.state.is_active() && !replaced.iter().any(|r| r.at == e.at);
    for goes in replaced {
        let name = &goes.record.name;
        if let Some(other) = snapshot.entries.iter().filter(stays).find(|e| e.record.requires.contains(name)) {
            let (other, pid) = (&other.record.name, snapshot.process.pid());
            return Err(Error::refused(
                format!("the patch replaces {name}, and {other} requires {name}"),
                format!("revert that one first: ulp-apply revert {other} --pid {pid}"),
            ));
        }
    }
    Ok(())
}

/// Refuses what another patch has replaced already, unless this one says that it knows it.
fn refuse_unknown(snapshot: &Snapshot<'_>, known: &[&Entry], m: &Match<'_>, function: &Function) -> Result<()> {
    let (bias, name) = (m.module.bias, &function.name);
    let inside = |f: &FunctionRecord| {
        let ranges = || function.ranges.iter().map(|r| (bias.remote(r.start).0, r.size));
        ranges().any(|(start, size)| (start..start.saturating_add(size)).contains(&f.entry.0))
    };
    for entry in snapshot.entries.iter().filter(|e| e.state.is_active()) {
        let Some(f) = entry.record.functions().find(|f| inside(f)) else { continue };
        if known.iter().any(|k| k.at == entry.at) && f.entry == bias.remote(function.entry) {
            continue;
        }
        let (other, pid) = (&entry.record.name, snapshot.process.pid());
        return Err(Error::refused(
            format!("{name} is replaced by the patch {other} already, and this patch does not know of it"),
            format!(
                "revert that one first (ulp-apply revert {other} --pid {pid}), or build this one from sources with both \
                 fixes and with ulp-build --replaces {other}"
            ),
        ));
    }
    Ok(())
}

fn same_name<'s>(snapshot: &Snapshot<'_>, file: &PackageFile, entry: &Entry) -> Result<Verdict<'s>> {
    let (name, pid) = (&entry.record.name, snapshot.process.pid());
    if entry.record.digest != file.digest {
        return Err(Error::refused(
            format!(
                "another patch named {name} is applied already (digest {:.12}, not {:.12})",
                entry.record.digest, file.digest
            ),
            format!("revert it first: ulp-apply revert {name} --pid {pid}"),
        ));
    }
    match crate::snapshot::damage(snapshot, entry)? {
        None => Ok(Verdict::Already),
        Some(damage) => Err(Error::refused(format!("{name} is applied already, but {damage}"), "nothing was changed")),
    }
}

fn wrong_build(snapshot: &Snapshot<'_>, target: &Target) -> Error {
    let base = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let namesake = snapshot.modules.iter().find(|m| base(&m.name) == base(&target.file));
    let pid = snapshot.process.pid();
    let (message, advice) = match namesake {
        Some(module) => (
            format!(
                "{} has build-id {}, the patch wants {}",
                module.name,
                module.build_id.as_deref().unwrap_or("(none)"),
                target.build_id
            ),
            format!("the process runs another build; rebuild the patch with --target /proc/{pid}/exe"),
        ),
        None => (
            format!("the process has not loaded {} with build-id {}", target.file, target.build_id),
            "give the process that runs it, or --all".to_owned(),
        ),
    };
    Error::refused(message, advice).code("E-BUILD-ID")
}

/// What the patch refers to in its target lies inside the target: new code must not read or jump through the rest of the
/// process, whatever a package says. The end itself is a place, too (`_end`).
fn verify_references(m: &Match<'_>) -> Result<()> {
    let end = m.module.bias.link(m.module.range.1);
    for reference in &m.target.references {
        let inside = match &reference.source {
            Source::Local { addr, size } => {
                *addr >= m.module.bias.link(m.module.range.0)
                    && addr.0.checked_add(*size).is_some_and(|past| past <= end.0)
            }
            Source::Slot { slot, .. } | Source::TlsSlot { slot, .. } => {
                m.module.segment(*slot).is_some_and(|s| slot.0.checked_add(8).is_some_and(|past| past <= s.end().0))
            }
            Source::TlsPair { slot } | Source::TlsDescriptor { slot } => {
                m.module.segment(*slot).is_some_and(|s| slot.0.checked_add(16).is_some_and(|past| past <= s.end().0))
            }
            Source::Import { .. } | Source::OwnTable | Source::TlsOffset { .. } => true,
            // Only the program's own storage is at a fixed distance from the thread pointer.
            Source::TlsLocalExec { .. } if m.module.role != Role::Main => {
                let message = format!(
                    "the patch takes {} for the program, by whose thread pointer {} is found, and it is a library here",
                    m.module.name, reference.symbol
                );
                return Err(Error::refused(message, DISAGREES));
            }
            Source::TlsLocalExec { .. } => true,
        };
        if !inside {
            let message = format!("{} is not inside {}, where the patch says it is", reference.symbol, m.module.name);
            return Err(Error::refused(message, DISAGREES));
        }
    }
    Ok(())
}

fn verify_function(snapshot: &Snapshot<'_>, before: &Before<'_>, m: &Match<'_>, function: &Function) -> Result<()> {
    let (arch, bias) = (snapshot.process.arch(), m.module.bias);
    let entry = bias.remote(function.entry);
    let name = &function.name;
    for range in &function.ranges {
        let start = bias.remote(range.start);
        let inside = m
            .module
            .segment(range.start)
            .is_some_and(|s| s.exec && range.start.0.saturating_add(range.size) <= s.end().0);
        if !inside {
            return Err(Error::refused(
                format!("{} at {start} is not code of {}", range.name, m.module.name),
                DISAGREES,
            ));
        }
        if sha256_hex(&before.bytes(start, range.size)?) != range.sha256 {
            return Err(foreign(&range.name, start));
        }
    }
    let old = hex::decode(&function.old_bytes).unwrap_or_default();
    let wanted = usize::from(function.landing) + arch.entry_jump_len();
    let pad = arch.landing_pad_len(&old);
    if old.len() != wanted || pad != usize::from(function.landing) || function.room < wanted as u64 {
        return Err(Error::refused(
            format!("the entry of {name} has room for {} bytes, and a jump needs {wanted}", function.room),
            "this function cannot be patched; patch its callers",
        )
        .code("E-TOO-SMALL"));
    }
    if page_of(entry.plus(pad as u64)) != page_of(entry.plus(wanted.saturating_sub(1) as u64)) {
        return Err(Error::refused(
            format!(
                "the jump at the entry of {name} would lie on two pages, and a write that is cut short leave half of it"
            ),
            "this function cannot be patched; patch its callers",
        )
        .code("E-TOO-SMALL"));
    }
    if before.bytes(entry, old.len() as u64)? != old {
        return Err(foreign(name, entry));
    }
    if let Some(displaced) = displaced(function) {
        // A gate that takes half an instruction along kills the process, so the package's word is not enough.
        let range = function.ranges.iter().find(|r| r.start == function.entry);
        let code = range.map_or(Ok(Vec::new()), |r| before.bytes(entry, r.size))?;
        let same = code.get(pad..pad + displaced.len()) == Some(&displaced[..]);
        if !same || arch.displaceable(&code, pad) != Ok(displaced.len()) {
            return Err(Error::refused(format!("the gate of {name} does not fit its code"), DISAGREES));
        }
    }
    Ok(())
}

const DISAGREES: &str = "the package disagrees with the program; build the patch again";

/// The entry's bytes are not what the package was made for.
pub fn foreign(name: &str, at: RemoteAddr) -> Error {
    Error::refused(
        format!("the code of {name} at {at} is not what the patch was made for"),
        "a breakpoint, a probe or another patching tool changed it; remove that first",
    )
}

/// The instructions that the function's gate takes along.
fn displaced(function: &Function) -> Option<Vec<u8>> {
    function.gate.as_ref().and_then(|gate| hex::decode(&gate.displaced))
}

/// Where a gate goes on while its function is old: at `from`, with these instructions first.
struct OldWay {
    from: RemoteAddr,
    displaced: Vec<u8>,
}

/// Bytes of a gate, rounded up so that the next one is aligned.
fn gate_room(arch: &dyn Arch, displaced: &[u8]) -> u64 {
    (arch.gate_len(displaced) as u64).next_multiple_of(16)
}

/// What links one match at one place.
struct Linked<'s> {
    m: Match<'s>,
    layout: Layout<'s>,
    image: Image,
}

impl<'s> Verified<'s> {
    /// Links the package for free addresses near its targets, or for the memory it had before.
    pub fn plan(&self) -> Result<Plan> {
        if let Some(retired) = self.retired
            && let Some(plan) = self.plan_again(retired)?
        {
            return Ok(plan);
        }
        let order = self.snapshot.entries.iter().map(|e| e.record.order).max().unwrap_or(0).saturating_add(1);
        let mut record = self.record(order);
        // The record's length depends on its areas; they are at most three for each match.
        let areas = vec![
            Area {
                start: RemoteAddr(0),
                len: 0,
                access: Access::Constants,
                sha256: Some("0".repeat(64)),
                measured: 0
            };
            3
        ];
        for t in &mut record.targets {
            t.areas = areas.clone();
            t.frames = Some((RemoteAddr(0), 0));
        }
        let room = registry::room(&record)?.next_multiple_of(64);
        let mut taken = self.snapshot.maps.clone();
        let mut linked = Vec::new();
        for (i, m) in self.matches.iter().enumerate() {
            let layout = self.layout(m, if i == 0 { room } else { 0 })?;
            let base = self.place(&mut taken, m, layout.len())?;
            linked.push(self.link(*m, layout, base)?);
        }
        self.finish(record, linked, room, 1)
    }

    fn layout(&self, m: &Match<'s>, room: u64) -> Result<Layout<'s>> {
        let arch = self.snapshot.process.arch();
        let ways = m.target.functions.iter().filter_map(|f| self.old_way(m, f)).filter(|_| self.gated());
        let gates = ways.map(|way| gate_room(arch, &way.displaced)).sum();
        let index = if self.unwound() { unwinding::index_room(&self.file.package, m.target) } else { 0 };
        Layout::new(arch, &self.file.package, m.target, room + index, gates, self.snapshot.process.page())
    }

    /// The list of the helper, where the process has one.
    fn list(&self) -> Option<RemoteAddr> {
        unwinding::helper(&self.snapshot.entries).and_then(unwinding::list_of)
    }

    /// Whether the program's unwinder is shown the patch: it is when the process has the helper for it.
    fn unwound(&self) -> bool {
        self.list().is_some() && self.file.package.sections.iter().any(|s| s.kind == ulp_format::SectionKind::Frames)
    }

    /// Whether the functions switch as one through gates. Counted here once more, because a file can be loaded twice.
    fn gated(&self) -> bool {
        let all = || self.matches.iter().flat_map(|m| &m.target.functions);
        self.file.package.manifest.atomic
            && all().count() > 1
            && all().filter(|f| f.gate.is_none()).count() <= 1
            // Gates that ask an entry must go when its file goes.
            && (self.matches.iter().all(|m| m.target.functions.iter().all(|f| self.old_way(m, f).is_some()))
                || self.matches.windows(2).all(|w| matches!(w, [a, b] if a.module.bias == b.module.bias)))
            // A jump across two pages is two writes, and cannot be what decides.
            && self.records().iter().flatten().all(|f| f.gate.is_some() || f.in_one_page())
    }

    /// What the function's entry leads to below this patch: the new code of an earlier one that it requires.
    fn below(&self, m: &Match<'_>, f: &Function) -> Option<&'s FunctionRecord> {
        stack::top(&self.below, m.module.bias.remote(f.entry)).map(|(_, f)| f)
    }

    fn old_way(&self, m: &Match<'_>, f: &Function) -> Option<OldWay> {
        if let Some(below) = self.below(m, f) {
            return Some(OldWay { from: below.new, displaced: Vec::new() });
        }
        let from = m.module.bias.remote(f.entry).plus(u64::from(f.landing));
        displaced(f).map(|displaced| OldWay { from, displaced })
    }

    /// The functions of each match, as far as they are known before linking; gates wait for their places.
    fn records(&self) -> Vec<Vec<FunctionRecord>> {
        let function = |m: &Match<'_>, f: &Function| FunctionRecord {
            name: f.name.clone(),
            entry: m.module.bias.remote(f.entry),
            new: RemoteAddr(0),
            old: self
                .below(m, f)
                .map_or_else(|| hex::decode(&f.old_bytes).unwrap_or_default(), |below| below.jump.clone()),
            jump: vec![0; f.old_bytes.len() / 2],
            gate: self.old_way(m, f).map(|_| GateRecord {
                at: RemoteAddr(0),
                len: 0,
                jump: vec![0; f.old_bytes.len() / 2],
            }),
        };
        self.matches.iter().map(|m| m.target.functions.iter().map(|f| function(m, f)).collect()).collect()
    }

    fn place(&self, taken: &mut Maps, m: &Match<'_>, size: u64) -> Result<RemoteAddr> {
        /// What absolute relocations of 32 bits reach, which a program may have that lies below it itself.
        const LOW: RemoteAddr = RemoteAddr(1 << 31);
        let below = (m.target.kind == Kind::Executable && m.module.range.1 <= LOW).then_some(LOW);
        let base = taken.find_gap(&m.module.wish(size, self.snapshot.process.arch(), below))?;
        taken.take(base, size);
        Ok(base)
    }

    fn link(&self, m: Match<'s>, layout: Layout<'s>, base: RemoteAddr) -> Result<Linked<'s>> {
        let found = self.find(&m, &layout)?;
        let image = layout.link(base, m.module.bias, &found)?;
        Ok(Linked { m, layout, image })
    }

    /// Looks up what the layout wants to know.
    fn find(&self, m: &Match<'_>, layout: &Layout<'_>) -> Result<Found> {
        let process = self.snapshot.process;
        let bias = m.module.bias;
        let mut found = Found::default();
        let mut scope = None;
        for demand in layout.demands()? {
            match (demand.what, demand.source) {
                (Wanted::ThreadSlotWord, Source::TlsSlot { slot, .. }) => {
                    let word = memory::word(process, bias.remote(*slot))? as i64;
                    found.thread_words.insert(demand.symbol, word);
                }
                (Wanted::Address, Source::Slot { slot, lazy: false, .. }) => {
                    let word = memory::word(process, bias.remote(*slot))?;
                    found.addresses.insert(demand.symbol, RemoteAddr(word));
                }
                (Wanted::Address, Source::Slot { name, version, .. } | Source::Import { name, version, .. }) => {
                    let scope = match &scope {
                        Some(scope) => scope,
                        None => scope.insert(Scope::read(process, process.arch(), &self.snapshot.modules)?),
                    };
                    let address = scope.address(bias, name, version.as_deref())?;
                    found.addresses.insert(demand.symbol, address);
                }
                _ => return Err(Error::refused("the package asks for an address that has no meaning", DISAGREES)),
            }
        }
        Ok(found)
    }

    fn record(&self, order: u64) -> Record {
        let manifest = &self.file.package.manifest;
        let gated = self.gated();
        let mut records = self.records();
        if !gated {
            records.iter_mut().flatten().for_each(|f| f.gate = None);
        }
        Record {
            name: manifest.name.clone(),
            description: manifest.description.clone(),
            cves: manifest.cves.clone(),
            digest: self.file.digest.clone(),
            escape: manifest.escape,
            requires: manifest.requires.iter().cloned().chain(self.unwound().then(|| unwinding::NAME.into())).collect(),
            order,
            commit: gated.then_some(CommitRecord { at: RemoteAddr(0), old: 0 }),
            targets: self
                .matches
                .iter()
                .zip(records)
                .map(|(m, functions)| TargetRecord {
                    file: m.target.file.clone(),
                    build_id: m.target.build_id.clone(),
                    bias: m.module.bias,
                    functions,
                    areas: Vec::new(),
                    frames: None,
                })
                .collect(),
        }
    }

    fn finish(&self, mut record: Record, mut linked: Vec<Linked<'_>>, room: u64, generation: u64) -> Result<Plan> {
        let arch = self.snapshot.process.arch();
        let mut loads = Vec::new();
        for (l, target) in linked.iter_mut().zip(&mut record.targets) {
            for (f, kept) in l.m.target.functions.iter().zip(&mut target.functions) {
                kept.new = self.new_code(l, f)?;
                kept.new = self.behind_pad(l, f, kept.new)?;
                kept.jump = jump(arch, f, kept, kept.new)?;
            }
        }
        self.make_gates(&mut record, &mut linked)?;
        let mut rows = Vec::new();
        for (i, l) in linked.iter_mut().enumerate() {
            rows.extend(self.index(l, if i == 0 { room } else { 0 })?);
        }
        for (i, (l, target)) in linked.iter().zip(&mut record.targets).enumerate() {
            target.frames = l.layout.frames().map(|(at, len)| (l.image.base.plus(at), len));
            target.areas.clear();
            for run in Run::ALL {
                let (start, bytes) = l.image.run(run).clone();
                if bytes.is_empty() {
                    continue;
                }
                let access = match run {
                    Run::Constants => Access::Constants,
                    Run::Code => Access::Code,
                    Run::Data => Access::Data,
                };
                let measured = if i == 0 && run == Run::Constants { room } else { 0 };
                let kept = usize::try_from(measured).ok().and_then(|n| bytes.get(n..)).unwrap_or_default();
                let sha256 = (run != Run::Data).then(|| sha256_hex(kept));
                target.areas.push(Area { start, len: bytes.len() as u64, access, sha256, measured });
                loads.push(Load { start, bytes, access });
            }
        }
        let encoded = registry::encode(&record, State::Applying, generation)?;
        let home = loads.first_mut().ok_or_else(|| Error::refused("the package loads nothing", DISAGREES))?;
        if encoded.len() as u64 > room {
            return Err(Error::failed("the registry record grew", "report this as a bug"));
        }
        let at = home.start;
        if let Some(place) = home.bytes.get_mut(..encoded.len()) {
            place.copy_from_slice(&encoded);
        }
        Ok(Plan { rows, ..self.plan_of(record, at, generation, loads) })
    }

    /// Puts the index of the functions in front of the constants, and says what the unwinder has to be shown.
    fn index(&self, l: &mut Linked<'_>, before: u64) -> Result<Option<Row>> {
        let (Some((at, len)), Some(list)) = (l.layout.frames(), self.list()) else { return Ok(None) };
        let frames = l.image.base.plus(at);
        let (start, constants) = l.image.run(Run::Constants);
        let from = usize::try_from(frames.0.saturating_sub(start.0)).unwrap_or(usize::MAX);
        let table = usize::try_from(len).ok().and_then(|len| constants.get(from..from.checked_add(len)?));
        let (bytes, functions) = unwinding::index(frames, table.unwrap_or_default())?;
        if bytes.len() as u64 > unwinding::index_room(&self.file.package, l.m.target) {
            return Err(Error::failed("the index of the frames grew", "report this as a bug"));
        }
        let index = l.image.base.plus(before);
        l.image.put_constants(index, &bytes)?;
        let (start, code) = l.image.run(Run::Code);
        Ok(Some(Row { start: *start, end: start.plus(code.len() as u64), index, functions, list }))
    }

    /// Decides what every gate asks, and puts the gates' code behind that of the patch.
    fn make_gates(&self, record: &mut Record, linked: &mut [Linked<'_>]) -> Result<()> {
        let arch = self.snapshot.process.arch();
        if record.commit.is_none() {
            return Ok(());
        }
        let Some(home) = linked.first().map(|l| l.image.base) else { return Ok(()) };
        let own = CommitRecord { at: registry::commit_word(home), old: 0 };
        let commit = match record.functions().find(|f| f.gate.is_none()) {
            None => own,
            Some(f) => f.commits().next().ok_or_else(|| {
                Error::refused(format!("the jump of {} is what stands there already", f.name), DISAGREES)
            })?,
        };
        record.commit = Some(commit);
        for (l, target) in linked.iter_mut().zip(&mut record.targets) {
            let mut at = l.image.base.plus(l.layout.gates());
            for (f, kept) in l.m.target.functions.iter().zip(&mut target.functions) {
                let Some(OldWay { from, displaced }) = self.old_way(&l.m, f) else { continue };
                let unbuilt = |e| Error::refused(format!("the gate of {}: {e}", f.name), DISAGREES);
                let gate = Gate {
                    at,
                    commit: Commit { at: commit.at, old: commit.old },
                    new: kept.new,
                    from,
                    displaced: &displaced,
                };
                let code = arch.gate(&gate).map_err(unbuilt)?;
                let room = gate_room(arch, &displaced);
                if code.is_empty() || code.len() as u64 > room {
                    return Err(Error::refused(format!("the gate of {} does not fit", f.name), DISAGREES));
                }
                l.image.put_code(at, &code)?;
                kept.gate = Some(GateRecord { at, len: code.len() as u64, jump: jump(arch, f, kept, at)? });
                at = at.plus(room);
            }
        }
        Ok(())
    }

    fn plan_of(&self, record: Record, at: RemoteAddr, generation: u64, loads: Vec<Load>) -> Plan {
        let suspects = self.matches.iter().flat_map(|m| {
            m.target.functions.iter().flat_map(|f| {
                f.ranges.iter().map(|r| Suspect {
                    name: if r.name == f.name { f.name.clone() } else { format!("{} (of {})", r.name, f.name) },
                    start: m.module.bias.remote(r.start),
                    end: m.module.bias.remote(r.start).plus(r.size),
                    at_start: f.loops_to_entry || r.start != f.entry,
                    at_end: self.may_end_in_call(m.module.bias.remote(r.start), r.size),
                    for_ever: f.never_returns,
                })
            })
        });
        // Old code is what the entries lead to now. Of a patch that goes all of it must be left.
        let entries: Vec<RemoteAddr> = record.functions().map(|f| f.entry).collect();
        let under = self.below.iter().filter(|e| e.record.functions().any(|f| entries.contains(&f.entry)));
        let suspects = suspects.chain(under.chain(&self.replaced).flat_map(|e| own_code(e)));
        let manifest = &self.file.package.manifest;
        let mut warnings = manifest.warnings.clone();
        let unsafe_probes = self.matches.iter().flat_map(|m| &m.target.functions).filter(|f| !f.probe_safe);
        let unsafe_probes: Vec<_> = unsafe_probes.map(|f| f.name.as_str()).collect();
        if !unsafe_probes.is_empty() {
            warnings.push(format!(
                "do not set a uprobe on the entry of {} while the patch is applied: it would harm the process",
                unsafe_probes.join(", ")
            ));
        }
        for goes in &self.replaced {
            let lost = goes.record.functions().filter(|f| !entries.contains(&f.entry));
            let lost: Vec<_> = lost.map(|f| f.name.as_str()).collect();
            if !lost.is_empty() {
                let (name, lost) = (&goes.record.name, lost.join(", "));
                warnings.push(format!("{name}, which this patch replaces, had also changed {lost}: original again"));
            }
        }
        if manifest.atomic && record.functions().count() > 1 && record.commit.is_none() {
            warnings.push("the functions do not switch as one in this process if ulp-apply is killed meanwhile".into());
        }
        let others = self.snapshot.entries.iter().filter(|e| e.at != at).cloned().collect();
        let mut modules: Vec<Module> = Vec::new();
        for m in &self.matches {
            if !modules.iter().any(|known| known.bias == m.module.bias) {
                modules.push(m.module.clone());
            }
        }
        let suspects = suspects.collect();
        let replaced = self.replaced.iter().map(|e| (*e).clone()).collect();
        let rows = Vec::new();
        Plan { record, at, generation, loads, suspects, modules, others, replaced, rows, warnings }
    }

    /// Whether the last instruction may be a call, so that its return address is one past the code.
    fn may_end_in_call(&self, start: RemoteAddr, size: u64) -> bool {
        let process = self.snapshot.process;
        let Ok(code) = memory::bytes(process, start, size) else { return true };
        let insns = process.arch().decode(&code);
        let last = insns.last().filter(|last| last.end == code.len());
        last.is_none_or(|last| matches!(last.flow, Flow::Call { .. }))
    }

    fn new_code(&self, l: &Linked<'_>, f: &Function) -> Result<RemoteAddr> {
        let (index, symbol) = self
            .file
            .package
            .symbol(&f.new_symbol)
            .ok_or_else(|| Error::refused(format!("the package has no {}", f.new_symbol), DISAGREES))?;
        let code = l.image.run(Run::Code);
        let new = l.image.symbols.get(&index).copied();
        let inside = |a: &RemoteAddr| a.0.checked_sub(code.0.0).is_some_and(|n| n < code.1.len() as u64);
        new.filter(inside)
            .ok_or_else(|| Error::refused(format!("{} is not code of the package", symbol.name), DISAGREES))
    }

    /// Where a jump behind the function's landing pad has to lead in order to reach `new`: where the pad has an effect, to a hop
    /// that undoes it.
    fn behind_pad(&self, l: &mut Linked<'_>, f: &Function, new: RemoteAddr) -> Result<RemoteAddr> {
        let arch = self.snapshot.process.arch();
        let old = hex::decode(&f.old_bytes).unwrap_or_default();
        let pad = old.get(..usize::from(f.landing)).unwrap_or_default();
        if !arch.pad_acts(pad) {
            return Ok(new);
        }
        let symbol = self.file.package.symbol(&f.new_symbol).map(|(index, _)| index);
        let at = symbol.and_then(|index| l.layout.hop(index)).map(|at| l.image.base.plus(at));
        let at = at.ok_or_else(|| Error::refused(format!("{} has no room for a hop", f.name), DISAGREES))?;
        let unbuilt = |e| Error::refused(format!("the hop of {}: {e}", f.name), DISAGREES);
        l.image.put_code(at, &arch.hop(at, pad, new).map_err(unbuilt)?)?;
        Ok(at)
    }

    /// The plan that uses memory kept by an earlier revert, when the patch would be the very same bytes there.
    fn plan_again(&self, retired: &Entry) -> Result<Option<Plan>> {
        let kept = &retired.record;
        let fresh = self.record(kept.order);
        let same = kept.targets.len() == fresh.targets.len()
            && kept
                .targets
                .iter()
                .zip(&fresh.targets)
                .all(|(a, b)| (&a.build_id, a.bias, a.functions.len()) == (&b.build_id, b.bias, b.functions.len()));
        // The program may have unmapped it, or changed its protection, or mapped something else there since.
        let there = kept.areas().all(|area| {
            let protection = area.access.protection();
            let (w, x) = (protection == Protection::ReadWrite, protection == Protection::ReadExec);
            let range = area.range();
            self.snapshot
                .maps
                .covers(range.start, range.end, |m| m.read && m.inode == 0 && !m.shared && (m.write, m.exec) == (w, x))
        });
        // A commit word that says new while no patch is applied is nobody's doing that we know of.
        if !same
            || !there
            || kept.committed(self.snapshot.process)? == Some(true)
            || kept.changed_area(self.snapshot.process)?.is_some()
        {
            return Ok(None);
        }
        let room = kept.areas().next().map_or(0, |a| a.measured);
        let mut linked = Vec::new();
        for (i, (m, t)) in self.matches.iter().zip(&kept.targets).enumerate() {
            let layout = self.layout(m, if i == 0 { room } else { 0 })?;
            let Some(base) = t.areas.first().map(|a| a.start) else { return Ok(None) };
            linked.push(self.link(*m, layout, base)?);
        }
        let generation = retired.generation.wrapping_add(1);
        let Ok(plan) = self.finish(fresh, linked, room, generation) else { return Ok(None) };
        // Own slots lie in data, which has no digest; they lead to objects that cannot be unloaded, so they still hold.
        Ok((plan.record == *kept).then_some(Plan { loads: Vec::new(), ..plan }))
    }
}

/// The bytes written over an entry: the landing pad as it is, then the jump.
fn jump(arch: &dyn Arch, f: &Function, kept: &FunctionRecord, to: RemoteAddr) -> Result<Vec<u8>> {
    let pad = usize::from(f.landing);
    let from = kept.entry.plus(u64::from(f.landing));
    let jump = arch.entry_jump(from, to).map_err(|e| {
        Error::refused(format!("{}: {e}", f.name), "no memory near enough was free; try again, or restart the program")
    })?;
    let mut bytes = kept.old.get(..pad).unwrap_or_default().to_vec();
    bytes.extend(jump);
    if bytes.len() != kept.old.len() {
        return Err(Error::new(Class::Refused, format!("the jump of {} has another length", f.name), DISAGREES));
    }
    Ok(bytes)
}
