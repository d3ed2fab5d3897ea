// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether two atoms mean the same: equal bytes where no relocation stands, and references to the same things. Data without a
//! name has no identity but its content and is followed as deep as it goes.

use super::Reason;
use super::twins::Twins;
use crate::object::{Atom, AtomId, AtomKind, Frame, Object, Ref, Target};
use std::collections::{BTreeSet, HashMap};
use ulp_arch::Arch;

/// Two objects, their twins, and what is known to have changed so far.
pub(super) struct Comparison<'a> {
    pub orig: &'a Object,
    pub fix: &'a Object,
    pub arch: &'static dyn Arch,
    /// Fixed atom to original atom.
    pub twins: &'a Twins,
    /// Fixed atoms, functions and read-only data, that differ from their twins.
    pub changed: BTreeSet<AtomId>,
    /// Pairs of nameless or content-compared atoms, with the answer; a pair under comparison counts as equal.
    memo: HashMap<(AtomId, AtomId), bool>,
    /// Likewise for blocks of data, by their sections.
    blocks: HashMap<(usize, usize), bool>,
}

/// What differs between two atoms.
pub(super) type Difference = Option<Reason>;

impl<'a> Comparison<'a> {
    pub fn new(orig: &'a Object, fix: &'a Object, arch: &'static dyn Arch, twins: &'a Twins) -> Self {
        Self { orig, fix, arch, twins, changed: BTreeSet::new(), memo: HashMap::new(), blocks: HashMap::new() }
    }

    /// Forgets answers that may have rested on something that is now known to have changed.
    pub fn forget(&mut self) {
        self.memo.clear();
        self.blocks.clear();
    }

    /// Compares an original atom with a fixed one, references followed.
    pub fn difference(&mut self, o: AtomId, f: AtomId) -> Difference {
        let (old, new) = (&self.orig.atoms[o.0], &self.fix.atoms[f.0]);
        if old.size != new.size {
            return Some(Reason::Size);
        }
        if (old.kind, old.ifunc) != (new.kind, new.ifunc) || !same_bytes(self.arch, old, new) {
            return Some(Reason::Bytes);
        }
        for (a, b) in old.refs.iter().zip(&new.refs) {
            if let Some(reason) = self.ref_difference(a, b) {
                return Some(reason);
            }
        }
        self.frame_difference(old.frame.as_ref(), new.frame.as_ref())
    }

    fn frame_difference(&mut self, old: Option<&Frame>, new: Option<&Frame>) -> Difference {
        let (old, new) = match (old, new) {
            (None, None) => return None,
            (Some(old), Some(new)) => (old, new),
            _ => return Some(Reason::Bytes),
        };
        // Length and the pointer to the common entry depend on what stands around. So does the padding, which is
        // no-operations (zeroes): the last entry of a file has more of it.
        fn meaning(entry: &[u8], header: usize) -> &[u8] {
            let rest = entry.get(header..).unwrap_or(&[]);
            let len = rest.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
            &rest[..len]
        }
        if old.start != new.start
            || meaning(&old.cie, 4) != meaning(&new.cie, 4)
            || meaning(&old.fde, 8) != meaning(&new.fde, 8)
        {
            return Some(Reason::Bytes);
        }
        for pair in [(&old.personality, &new.personality), (&old.lsda, &new.lsda)] {
            match pair {
                (None, None) => {}
                (Some(a), Some(b)) if self.ref_difference(a, b).is_none() => {}
                _ => return Some(Reason::Data),
            }
        }
        None
    }

    /// Whether two atoms without identity have the same content.
    pub fn same_content(&mut self, o: AtomId, f: AtomId) -> bool {
        if let Some(known) = self.memo.get(&(o, f)) {
            return *known;
        }
        self.memo.insert((o, f), true);
        let same = self.difference(o, f).is_none();
        if !same {
            // What counted as equal because this pair did has to be asked again.
            self.memo.retain(|_, known| !*known);
            self.blocks.retain(|_, known| !*known);
        }
        self.memo.insert((o, f), same);
        same
    }

    /// Whether what stands around two data, and may be reached through their addresses, is the same at the same distances.
    fn same_block(&mut self, o: AtomId, f: AtomId) -> bool {
        let (orig, fix) = (self.orig, self.fix);
        let (old, new) = match (orig.block(o), fix.block(f)) {
            (None, None) => return true,
            (Some(old), Some(new)) if old.len() == new.len() => (old, new),
            _ => return false,
        };
        let key = (orig.atoms[o.0].section_index, fix.atoms[f.0].section_index);
        if let Some(known) = self.blocks.get(&key) {
            return *known;
        }
        self.blocks.insert(key, true);
        let same = old.iter().zip(new).all(|(o, f)| {
            let (a, b) = (&orig.atoms[o.0], &fix.atoms[f.0]);
            let alike = (a.offset, a.size, a.kind, a.anonymous) == (b.offset, b.size, b.kind, b.anonymous);
            alike
                && match a.anonymous {
                    true => self.same_content(*o, *f),
                    false => self.twins.of.get(f) == Some(o) && !self.changed.contains(f),
                }
        });
        if !same {
            // What counted as equal because this block did has to be asked again.
            self.memo.retain(|_, known| !*known);
            self.blocks.retain(|_, known| !*known);
        }
        self.blocks.insert(key, same);
        same
    }

    fn ref_difference(&mut self, a: &Ref, b: &Ref) -> Difference {
        if a.target_offset != b.target_offset || a.adjust != b.adjust {
            return Some(Reason::Reference);
        }
        let (o, f) = match (a.target, b.target) {
            (Target::Import(x), Target::Import(y)) => {
                let same = self.orig.imports[x] == self.fix.imports[y];
                return (!same).then_some(Reason::Reference);
            }
            (Target::Atom(o), Target::Atom(f)) => (o, f),
            _ => return Some(Reason::Reference),
        };
        if !self.same_block(o, f) {
            return Some(Reason::Data);
        }
        let (old, new) = (&self.orig.atoms[o.0], &self.fix.atoms[f.0]);
        if self.twins.of.get(&f) == Some(&o) {
            // The entry of a changed function stays where it was; a point inside its old body means nothing in the new one.
            let stays = match new.kind {
                AtomKind::Function => a.target_offset == 0,
                AtomKind::ReadOnly => false,
                _ => true,
            };
            return (!stays && self.changed.contains(&f)).then_some(Reason::Data);
        }
        // Without a twin only read-only data can be the same, by content.
        let by_content = |atom: &Atom| is_constant(atom) && atom.anonymous || is_local_constant(atom);
        let unpaired = !self.twins.of.contains_key(&f) && !self.twins.has_original(o);
        if by_content(old) && by_content(new) && old.anonymous == new.anonymous && (new.anonymous || unpaired) {
            return (!self.same_content(o, f)).then_some(Reason::Data);
        }
        Some(Reason::Reference)
    }
}

/// Read-only data, of which a copy is as good as the original.
pub(super) fn is_constant(atom: &Atom) -> bool {
    // Data without a name that is understood all the same is a sanitizer's, of which every copy does.
    atom.kind == AtomKind::ReadOnly || atom.kind == AtomKind::Data && atom.anonymous && atom.problem.is_none()
}

pub(super) fn is_local_constant(atom: &Atom) -> bool {
    is_constant(atom) && atom.scope == crate::object::Scope::Local
}

/// Whether the bytes agree where no relocation stands, and the relocations stand at the same places and are of one class.
pub(super) fn same_bytes(arch: &'static dyn Arch, old: &Atom, new: &Atom) -> bool {
    if old.bytes.len() != new.bytes.len() || old.refs.len() != new.refs.len() {
        return false;
    }
    let mut at = 0usize;
    for (a, b) in old.refs.iter().zip(&new.refs) {
        // A direct call reads the same through PC32 and PLT32.
        if a.offset != b.offset || (a.r_type != b.r_type && !(a.branch && b.branch)) {
            return false;
        }
        let width = arch.relocation(a.r_type).map_or(0, |row| row.field.size());
        let start = usize::try_from(a.offset).unwrap_or(usize::MAX).min(old.bytes.len());
        if at < start && old.bytes[at..start] != new.bytes[at..start] {
            return false;
        }
        // What an assembler filled in depends on what stands around. Under a relocation it writes zeroes, which the linker
        // overwrites: they are compared all the same, which can only err towards "changed".
        let whole = matches!(arch.relocation(a.r_type).map(|row| row.field), Some(ulp_arch::Field::Bytes(_)));
        let masked = whole && (a.resolved || b.resolved);
        let end = start.saturating_add(if masked { width } else { 0 });
        at = at.max(end.min(old.bytes.len()));
    }
    old.bytes[at..] == new.bytes[at..]
}
