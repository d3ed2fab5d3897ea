// SPDX-License-Identifier: GPL-2.0-or-later
//! Proves that the recompiled original is the code that was linked: function by function against the pristine object, and the
//! pristine object's functions against the bytes of the production file. The recompile has a section per function and
//! the pristine object may not, so the assembler has resolved there what is a relocation here, and made some jumps short:
//! instructions are compared one by one, and what they refer to by meaning.

use crate::object::{Atom, AtomId, AtomKind, Object, Ref, Target};
use std::collections::{BTreeMap, BTreeSet};
use ulp_arch::{Arch, Flow, Insn, InsnDetail, LinkedForm};

/// Which pristine atom stands for an atom of the recompiled original: the one of the same name.
#[derive(Clone, Debug)]
pub struct Pairing {
    pairs: BTreeMap<AtomId, AtomId>,
    /// Names of functions that only one of the two has, or one has twice.
    pub unpaired: Vec<String>,
}

/// A function whose code is not the pristine object's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub function: String,
    pub message: String,
}

/// The names of an object's atoms; `None` where one name stands for two.
fn names(object: &Object) -> BTreeMap<&str, Option<AtomId>> {
    let mut all = BTreeMap::new();
    for (index, atom) in object.atoms.iter().enumerate().filter(|(_, a)| !a.anonymous) {
        let twice = all.insert(atom.name.as_str(), Some(AtomId(index))).is_some();
        if twice {
            all.insert(&atom.name, None);
        }
    }
    for (name, id) in &object.aliases {
        all.entry(name).or_insert(Some(*id));
    }
    all
}

impl Pairing {
    pub fn of(orig: &Object, pristine: &Object) -> Self {
        let (ours, theirs) = (names(orig), names(pristine));
        let mut pairing = Self { pairs: BTreeMap::new(), unpaired: Vec::new() };
        let function = |object: &Object, id: &Option<AtomId>| {
            id.and_then(|id| object.atoms.get(id.0)).is_none_or(|a| a.kind == AtomKind::Function)
        };
        for (name, our) in &ours {
            match (our, theirs.get(name).copied().flatten()) {
                (Some(our), Some(their)) => {
                    pairing.pairs.entry(*our).or_insert(their);
                }
                _ if function(orig, our) => pairing.unpaired.push((*name).to_owned()),
                _ => {}
            }
        }
        for (name, their) in &theirs {
            if !ours.contains_key(name) && function(pristine, their) {
                pairing.unpaired.push((*name).to_owned());
            }
        }
        pairing
    }

    pub fn pristine(&self, orig: AtomId) -> Option<AtomId> {
        self.pairs.get(&orig).copied()
    }
}

/// Compares every function of the recompiled original with the pristine object's.
pub fn compare(arch: &dyn Arch, orig: &Object, pristine: &Object, pairing: &Pairing) -> Vec<Difference> {
    let mut compare = Compare::new(arch, orig, pristine, pairing);
    let mut differences: Vec<Difference> = pairing
        .unpaired
        .iter()
        .map(|name| Difference {
            function: name.clone(),
            message: "only one of the recompiled and the linked object has this function, or one has it twice".into(),
        })
        .collect();
    for (index, atom) in orig.atoms.iter().enumerate() {
        if atom.kind != AtomKind::Function || atom.anonymous {
            continue;
        }
        let Some(their) = pairing.pristine(AtomId(index)) else { continue };
        if let Err(message) = compare.function(AtomId(index), their) {
            differences.push(Difference { function: atom.name.clone(), message });
        }
    }
    // Points inside functions can be compared only when it is known which instruction moved where.
    for (from, ours, theirs) in std::mem::take(&mut compare.inner) {
        if !compare.same_instruction(from.into, ours, theirs) {
            let message =
                format!("something at +{:#x} leads to another instruction than in the linked object", from.at);
            differences.push(Difference { function: from.function, message });
        }
    }
    differences.sort_by(|a, b| a.function.cmp(&b.function));
    differences.dedup_by(|a, b| a.function == b.function);
    differences
}

/// Who refers to a point inside a function.
struct Inner {
    function: String,
    at: u64,
    into: AtomId,
}

/// A place in the pristine object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point<'o> {
    Section(usize, i64),
    Common(AtomId, i64),
    Import(&'o str, i64),
}

struct Compare<'o> {
    arch: &'o dyn Arch,
    orig: &'o Object,
    pristine: &'o Object,
    pairing: &'o Pairing,
    /// Starts of the instructions that do something, ours and theirs, of each of our functions.
    starts: BTreeMap<AtomId, Vec<(usize, usize)>>,
    inner: Vec<(Inner, i64, i64)>,
    /// Anonymous data compared already, and where in the pristine object.
    seen: BTreeSet<(AtomId, usize, i64)>,
    by_place: [BTreeMap<(usize, u64), AtomId>; 2],
}

impl<'o> Compare<'o> {
    fn new(arch: &'o dyn Arch, orig: &'o Object, pristine: &'o Object, pairing: &'o Pairing) -> Self {
        let by_place = [orig, pristine].map(|object| {
            let placed = |(i, a): (usize, &Atom)| ((a.section_index, a.offset), AtomId(i));
            object.atoms.iter().enumerate().map(placed).collect()
        });
        let (starts, inner, seen) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        Self { arch, orig, pristine, pairing, starts, inner, seen, by_place }
    }

    fn function(&mut self, id: AtomId, their_id: AtomId) -> Result<(), String> {
        let (orig, pristine) = (self.orig, self.pristine);
        let (ours, theirs) = (&orig.atoms[id.0], &pristine.atoms[their_id.0]);
        if theirs.kind != AtomKind::Function {
            return Err("it is no function in the linked object".into());
        }
        let (mut i, mut j) = (0, 0);
        let mut starts = Vec::new();
        loop {
            let a = self.next(ours, &mut i)?;
            let b = self.next(theirs, &mut j)?;
            let (a, b) = match (a, b) {
                (None, None) => break,
                (Some(a), Some(b)) => (a, b),
                _ => return Err(format!("it ends at +{i:#x} in one object and goes on in the other at +{j:#x}")),
            };
            starts.push((i, j));
            self.instruction(id, ours, i, &a, theirs, j, &b)?;
            i += a.len;
            j += b.len;
        }
        starts.push((i, j));
        self.starts.insert(id, starts);
        Ok(())
    }

    /// The instruction at `at`, or the next one that does something.
    fn next(&self, atom: &Atom, at: &mut usize) -> Result<Option<InsnDetail>, String> {
        while *at < atom.bytes.len() {
            match self.arch.detail(&atom.bytes, *at) {
                Some(insn) if insn.nop => *at += insn.len,
                Some(insn) => return Ok(Some(insn)),
                None => return Err(format!("the bytes at +{:#x} are no instruction", *at)),
            }
        }
        Ok(None)
    }

    #[allow(clippy::too_many_arguments)] // two instructions, each with its place
    fn instruction(
        &mut self,
        id: AtomId,
        ours: &'o Atom,
        i: usize,
        a: &InsnDetail,
        theirs: &'o Atom,
        j: usize,
        b: &InsnDetail,
    ) -> Result<(), String> {
        let differ = || {
            let (a, b) = (hex(&ours.bytes, i, a.len), hex(&theirs.bytes, j, b.len));
            format!("at +{i:#x} the recompiled object has {a}, the linked one {b}")
        };
        let (our_refs, their_refs) = (refs_in(ours, i, a.len), refs_in(theirs, j, b.len));
        if let (Some((what, target)), Some((also, their_target))) = (a.branch, b.branch) {
            if what != also || our_refs.len() > 1 || their_refs.len() > 1 {
                return Err(differ());
            }
            let (our_ref, their_ref) = (our_refs.first(), their_refs.first());
            let (into, offset) = match our_ref {
                Some(r) => (r.target, r.target_offset),
                None => self.ours_at(ours, target).ok_or_else(differ)?,
            };
            let point = match their_ref {
                Some(r) => self.their_point(r),
                None => Point::Section(theirs.section_index, add(theirs.offset, their_target)),
            };
            return self.same(ours, i as u64, into, offset, point);
        }
        if a.len != b.len || a.branch.is_some() != b.branch.is_some() {
            return Err(differ());
        }
        let mut masked = vec![0u8; a.len];
        let mut mask = |at: usize, bits: &[u8]| {
            for (byte, bits) in masked.iter_mut().skip(at).zip(bits) {
                *byte |= bits;
            }
        };
        for (refs, start) in [(&our_refs, i), (&their_refs, j)] {
            for r in refs.iter() {
                mask(usize::try_from(r.offset).unwrap_or(start).saturating_sub(start), &self.field_mask(r));
            }
        }
        // Each reference of ours must mean what theirs means; theirs may have been resolved by the assembler.
        for r in &our_refs {
            let within = usize::try_from(r.offset).unwrap_or(i).saturating_sub(i);
            let point = match (their_refs.iter().find(|t| t.offset as usize == j + within), b.pc_relative) {
                (Some(t), _) if t.r_type == r.r_type => self.their_point(t),
                (None, Some(field)) if field.at == within => {
                    Point::Section(theirs.section_index, add(theirs.offset, field.target))
                }
                _ => return Err(differ()),
            };
            self.same(ours, i as u64, r.target, r.target_offset, point)?;
        }
        if their_refs.len() > our_refs.len() {
            return Err(differ());
        }
        if let (Some(field), Some(their_field), true) = (a.pc_relative, b.pc_relative, our_refs.is_empty()) {
            // Both resolved by the assembler: something in the same section.
            match self.arch.assembled_in(&ours.bytes, &insn(i, a.len), i + field.at) {
                Some(r_type) => mask(field.at, &field_mask(self.arch, r_type)),
                None => mask(field.at, &vec![0xff; field.len]),
            }
            let (into, offset) = self.ours_at(ours, field.target).ok_or_else(differ)?;
            let point = Point::Section(theirs.section_index, add(theirs.offset, their_field.target));
            self.same(ours, i as u64, into, offset, point)?;
        }
        let byte = |atom: &Atom, at: usize| atom.bytes.get(at).copied().unwrap_or(0);
        let equal = (0..a.len).all(|k| (byte(ours, i + k) ^ byte(theirs, j + k)) & !masked[k] == 0);
        let _ = id;
        if equal { Ok(()) } else { Err(differ()) }
    }

    fn field_size(&self, r: &Ref) -> usize {
        self.arch.relocation(r.r_type).map_or(8, |row| row.field.size())
    }

    fn field_mask(&self, r: &Ref) -> Vec<u8> {
        field_mask(self.arch, r.r_type)
    }

    /// The atom of the recompiled object at a distance from the start of one of its functions.
    fn ours_at(&self, from: &Atom, distance: i64) -> Option<(Target, i64)> {
        let point = u64::try_from(add(from.offset, distance)).ok()?;
        let section = from.section_index;
        let (_, id) = self.by_place[0].range((section, 0)..=(section, point)).next_back()?;
        let offset = i64::try_from(point - self.orig.atoms.get(id.0)?.offset).ok()?;
        Some((Target::Atom(*id), offset))
    }

    fn their_point(&self, r: &Ref) -> Point<'o> {
        let pristine = self.pristine;
        match r.target {
            Target::Import(i) => Point::Import(pristine.imports.get(i).map_or("", |m| &m.name), r.target_offset),
            Target::Atom(id) => match pristine.atoms.get(id.0) {
                Some(atom) if atom.section_index == usize::MAX => Point::Common(id, r.target_offset),
                Some(atom) => Point::Section(atom.section_index, add(atom.offset, r.target_offset)),
                None => Point::Common(id, r.target_offset),
            },
        }
    }

    /// Whether our reference means the pristine point.
    fn same(&mut self, from: &Atom, at: u64, into: Target, offset: i64, point: Point<'o>) -> Result<(), String> {
        let other =
            |what: &str| Err(format!("at +{at:#x} the recompiled object refers to {what}, the linked one does not"));
        let id = match into {
            Target::Import(i) => {
                let name = self.orig.imports.get(i).map_or("", |m| m.name.as_str());
                return if point == Point::Import(name, offset) { Ok(()) } else { other(name) };
            }
            Target::Atom(id) => id,
        };
        let Some(atom) = self.orig.atoms.get(id.0) else { return other("nothing") };
        if atom.anonymous {
            let Point::Section(section, their_offset) = point else { return other(&atom.name) };
            let start = their_offset.saturating_sub(offset);
            return self.anonymous(id, section, start).map_err(|why| format!("at +{at:#x}: {why}"));
        }
        let Some(their_id) = self.pairing.pristine(id) else { return other(&atom.name) };
        let theirs = &self.pristine.atoms[their_id.0];
        match point {
            Point::Common(their, their_offset) if their == their_id && their_offset == offset => Ok(()),
            Point::Section(section, their_offset) if section == theirs.section_index => {
                let within = their_offset.saturating_sub(i64::try_from(theirs.offset).unwrap_or(i64::MAX));
                if atom.kind == AtomKind::Function && (offset != 0 || within != 0) {
                    let from = Inner { function: from.name.clone(), at, into: id };
                    self.inner.push((from, offset, within));
                    Ok(())
                } else if within == offset {
                    Ok(())
                } else {
                    other(&atom.name)
                }
            }
            _ => other(&atom.name),
        }
    }

    /// Whether two points inside a function are the same instruction (or the same padding before it).
    fn same_instruction(&self, function: AtomId, ours: i64, theirs: i64) -> bool {
        let Some(starts) = self.starts.get(&function) else { return false };
        let (Ok(ours), Ok(theirs)) = (usize::try_from(ours), usize::try_from(theirs)) else { return false };
        starts.partition_point(|(a, _)| *a < ours) == starts.partition_point(|(_, b)| *b < theirs)
    }

    /// Strings, constants and tables: the same content, and references that mean the same.
    fn anonymous(&mut self, id: AtomId, section: usize, start: i64) -> Result<(), String> {
        if !self.seen.insert((id, section, start)) {
            return Ok(());
        }
        let (orig, pristine) = (self.orig, self.pristine);
        let ours = &orig.atoms[id.0];
        let name = &ours.name;
        let differ = || format!("the data {name} is not that of the linked object");
        let start = u64::try_from(start).map_err(|_| differ())?;
        let (_, their_id) = self.by_place[1]
            .range((section, 0)..=(section, start))
            .next_back()
            .filter(|((s, _), _)| *s == section)
            .ok_or_else(differ)?;
        let theirs = &pristine.atoms[their_id.0];
        let shift = usize::try_from(start - theirs.offset).map_err(|_| differ())?;
        let mut masked = vec![false; ours.bytes.len()];
        for r in &ours.refs {
            let at = usize::try_from(r.offset).map_err(|_| differ())?;
            masked.iter_mut().skip(at).take(self.field_size(r)).for_each(|m| *m = true);
            let their_ref = theirs.refs.iter().find(|t| t.offset == r.offset + shift as u64 && t.r_type == r.r_type);
            let point = self.their_point(their_ref.ok_or_else(differ)?);
            self.same(ours, r.offset, r.target, r.target_offset, point)?;
        }
        let span = r_span(shift, ours.bytes.len());
        let more = theirs.refs.iter().filter(|t| span.contains(&(t.offset as usize))).count();
        // Zeroes behind the end are padding of the section.
        let equal = (0..ours.bytes.len())
            .all(|k| masked[k] || ours.bytes[k] == theirs.bytes.get(shift + k).copied().unwrap_or(0));
        if equal && more == ours.refs.len() && theirs.bytes.len() > shift { Ok(()) } else { Err(differ()) }
    }
}

/// The bits that a relocation decides.
fn field_mask(arch: &dyn Arch, r_type: u32) -> Vec<u8> {
    arch.relocation(r_type).map_or_else(|| vec![0xff; 8], |row| row.mask())
}

fn insn(start: usize, len: usize) -> Insn {
    Insn { start, end: start + len, flow: Flow::Next }
}

fn r_span(start: usize, len: usize) -> std::ops::Range<usize> {
    start..start.saturating_add(len)
}

fn add(offset: u64, distance: i64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX).saturating_add(distance)
}

fn refs_in(atom: &Atom, start: usize, len: usize) -> Vec<&Ref> {
    let span = r_span(start, len);
    atom.refs.iter().filter(|r| usize::try_from(r.offset).is_ok_and(|o| span.contains(&o))).collect()
}

fn hex(bytes: &[u8], at: usize, len: usize) -> String {
    let words: Vec<String> =
        bytes.get(at..at.saturating_add(len)).unwrap_or(&[]).iter().map(|b| format!("{b:02x}")).collect();
    words.join(" ")
}

/// Where the code of a pristine function differs from the bytes the link made of it, outside of what relocations and the
/// linker's own shortcuts change; `None`: nowhere.
pub fn linked_difference(arch: &dyn Arch, pristine: &Atom, linked: &[u8]) -> Option<usize> {
    if linked.len() != pristine.bytes.len() {
        return Some(linked.len().min(pristine.bytes.len()));
    }
    let mut masked = vec![0u8; linked.len()];
    for r in &pristine.refs {
        let (before, after) = arch.relaxed_around(r.r_type);
        let at = usize::try_from(r.offset).unwrap_or(usize::MAX);
        let Some(row) = arch.relocation_at(r.r_type, &pristine.bytes, at) else { return Some(at) };
        let field = match arch.linked_form(r.r_type, linked, at) {
            LinkedForm::AsWritten => arch.linked_mask(row),
            _ => vec![0xff; row.field.size()],
        };
        let front = vec![0xff; before.min(at)];
        let bits = front.into_iter().chain(field).chain(vec![0xff; after]);
        masked.iter_mut().skip(at.saturating_sub(before)).zip(bits).for_each(|(m, bits)| *m |= bits);
    }
    (0..linked.len()).find(|k| (linked[*k] ^ pristine.bytes[*k]) & !masked[*k] != 0)
}
