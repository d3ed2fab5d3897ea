// SPDX-License-Identifier: GPL-2.0-or-later
//! What a reference to a thread-local variable means in the running program. A program's own variables stand at a fixed
//! distance from the thread pointer. What calls find is found through the very words that the target's own code has for the
//! same variable: they hold what this loader put there for this load of the file, whatever that is, and are never read by us.
//! Where there are none, and a shorter way is known, the code is rewritten as a linker would have done it.

use super::place::{Global, Where};
use super::{Context, Key, Meaning, Outside, REBUILD, refusal, unproved};
use crate::diff::Verdict;
use crate::model::{Code, Refusal};
use crate::object::{Atom, AtomId, AtomKind, Import, Ref, Scope, Target};
use crate::production::{MODULE_BASE, Slot, SlotMeaning, SymbolKind};
use ulp_arch::{Flow, Letter, LinkAddr, RelocRow, SlotKind, ThreadModel};
use ulp_format::Source;

pub(super) const ADVICE: &str =
    "reach the variable as functions of the file do that run already, or leave it out of the fix";

/// The function that sequences call, on every machine.
const CALLED: &str = "__tls_get_addr";

pub(super) fn is_thread_local(row: &RelocRow) -> bool {
    match row.formula.letter() {
        Letter::ThreadOffset | Letter::ModuleOffset => true,
        Letter::Slot(kind) => kind != SlotKind::Address,
        Letter::None | Letter::Symbol | Letter::Branch | Letter::Size => false,
    }
}

/// Whether code asks for the variable's place by a call.
fn calls(row: &RelocRow) -> bool {
    use SlotKind::{ThreadDescriptor, ThreadIndex, ThreadModule};
    matches!(row.formula.letter(), Letter::Slot(ThreadIndex | ThreadModule | ThreadDescriptor))
}

fn tls(name: &str, source: Source) -> Meaning {
    Meaning::Outside(Outside { name: name.to_owned(), source, kind: ulp_format::SymbolKind::Tls })
}

fn no_way(user: &str, name: &str) -> Refusal {
    let message = format!("{user} reaches the thread-local {name} in a way the program has no slot for");
    refusal(Code::TlsModel, name, message, ADVICE)
}

/// What a slot is for, by symbol and addend, if it holds what code of this kind wants.
fn means(meaning: &SlotMeaning, kind: SlotKind) -> Option<(Option<usize>, i64)> {
    match (kind, meaning) {
        (SlotKind::ThreadIndex, SlotMeaning::ThreadPair { symbol, addend })
        | (SlotKind::ThreadDescriptor, SlotMeaning::ThreadDescriptor { symbol, addend })
        | (SlotKind::ThreadOffset, SlotMeaning::TpOffset { symbol, addend }) => Some((*symbol, *addend)),
        _ => None,
    }
}

/// A slot of the target that finds what `is` accepts (by symbol and addend), in the way that `letter` asks for; else one that
/// holds the distance from the thread pointer, for which the code can be rewritten.
fn through(slots: &[Slot], letter: Letter, is: impl Fn(Option<usize>, i64) -> bool) -> Option<Source> {
    let find = |kind| {
        let slot = slots.iter().find(|s| means(&s.meaning, kind).is_some_and(|(symbol, addend)| is(symbol, addend)));
        slot.map(|slot| slot.addr)
    };
    let direct = || find(SlotKind::ThreadOffset).map(|slot| Source::TlsSlot { slot, delta: 0 });
    match letter {
        Letter::Slot(SlotKind::ThreadOffset) => direct(),
        Letter::Slot(kind @ SlotKind::ThreadIndex) => find(kind).map(|slot| Source::TlsPair { slot }).or_else(direct),
        Letter::Slot(kind @ SlotKind::ThreadDescriptor) => {
            find(kind).map(|slot| Source::TlsDescriptor { slot }).or_else(direct)
        }
        _ => None,
    }
}

impl Context<'_> {
    /// A thread-local variable of the same unit.
    pub(super) fn thread_local(
        &self,
        from: Key,
        user: &str,
        id: AtomId,
        r: &Ref,
        row: &RelocRow,
    ) -> Result<Meaning, Refusal> {
        let unit = &self.units[from.0];
        let atom = unit.fixed(id);
        let name = atom.map_or("?", |a| a.name.as_str());
        if *unit.verdict(id) == Verdict::New {
            let message = format!("{user} uses the new thread-local variable {name}");
            return Err(refusal(Code::TlsNew, name, message, "keep per-thread state in a table keyed by thread"));
        }
        // Another file may have it in this one's stead: only what the loader was asked for by name is certain.
        if atom.is_some_and(|a| a.scope != Scope::Local) && self.linked.rebuilt.is_preemptible(name) {
            return self.thread_local_by_name(user, name, r, row);
        }
        let place = match (&unit.pristine, unit.pristine_of(id), &unit.object) {
            (Some(pristine), Some(id), Some(object)) => self.linked.winner(pristine, object, id).0,
            _ => Where::Unknown("it has no counterpart in the linked object".into()),
        };
        match place {
            Where::At(addr) => self.thread_local_at(user, name, addr, r, row),
            Where::Dropped => Err(refusal(
                Code::TlsNew,
                name,
                format!("{user} uses the thread-local variable {name}, which the linker left out"),
                "leave it out of the fix",
            )),
            Where::Unknown(why) => {
                Err(refusal(Code::Ambiguous, name, format!("{user} uses {name}, and {why}"), REBUILD))
            }
            Where::Unproved(why) => Err(unproved(user, name, &why)),
        }
    }

    pub(super) fn thread_local_by_name(
        &self,
        user: &str,
        name: &str,
        r: &Ref,
        row: &RelocRow,
    ) -> Result<Meaning, Refusal> {
        let elf = &self.linked.rebuilt;
        if name == MODULE_BASE {
            return self.module_base(user, r, row);
        }
        match self.linked.global(name) {
            Global::One(symbol) if symbol.kind == SymbolKind::Tls && !elf.is_preemptible(name) => {
                self.thread_local_at(user, name, self.linked.address(symbol), r, row)
            }
            Global::Unproved(why) => Err(unproved(user, name, why)),
            Global::Several => {
                let message = format!("{user} refers to {name}, and the linked file has several symbols of this name");
                Err(refusal(Code::Ambiguous, name, message, REBUILD))
            }
            _ => {
                // A symbol is known by its name and version; a name that has several versions is not asked for here.
                let mut named = elf.dynamic.iter().enumerate().filter(|(_, s)| s.name == name);
                let (Some((index, _)), None) = (named.next(), named.next()) else { return Err(no_way(user, name)) };
                let whole = |symbol, addend| symbol == Some(index) && addend == 0;
                let source = through(&elf.slots, row.formula.letter(), whole).filter(|_| r.target_offset == 0);
                source.map(|source| tls(name, source)).ok_or_else(|| no_way(user, name))
            }
        }
    }

    /// A thread-local variable of this file, by its address in the thread-local segment.
    fn thread_local_at(
        &self,
        user: &str,
        name: &str,
        addr: LinkAddr,
        r: &Ref,
        row: &RelocRow,
    ) -> Result<Meaning, Refusal> {
        let elf = &self.linked.rebuilt;
        if elf.links_thread_block() {
            let offset = elf.tp_offset(addr).ok_or_else(|| no_way(user, name))?;
            return Ok(tls(name, Source::TlsLocalExec { offset }));
        }
        let want = elf.tls.and_then(|t| addr.0.checked_sub(t.addr.0)).and_then(|o| i64::try_from(o).ok());
        let want = want.ok_or_else(|| no_way(user, name))?;
        let letter = row.formula.letter();
        // What is added to a variable's address is added behind the slot, never in it.
        if matches!(letter, Letter::Slot(_)) && r.target_offset != 0 {
            return Err(no_way(user, name));
        }
        let source = match letter {
            Letter::ModuleOffset => Some(Source::TlsOffset { offset: want }),
            Letter::Slot(SlotKind::ThreadModule) => self.module_pair(),
            _ => through(&elf.slots, letter, |symbol, addend| elf.own_thread_offset(symbol, addend) == Some(want)),
        };
        // Another variable of the same file, at a distance that the file fixes.
        let beside = || {
            let have = |slot: &Slot| match slot.meaning {
                SlotMeaning::TpOffset { symbol, addend } => elf.own_thread_offset(symbol, addend),
                _ => None,
            };
            let slot = elf.slots.iter().find_map(|s| Some((s.addr, want.checked_sub(have(s)?)?)));
            slot.filter(|_| matches!(letter, Letter::Slot(kind) if kind != SlotKind::ThreadModule))
        };
        let source = source.or_else(|| beside().map(|(slot, delta)| Source::TlsSlot { slot, delta }));
        source.map(|source| tls(name, source)).ok_or_else(|| no_way(user, name))
    }

    /// The two words for all of this file's own variables.
    fn module_pair(&self) -> Option<Source> {
        let whole = SlotMeaning::ThreadPair { symbol: None, addend: 0 };
        let slot = self.linked.rebuilt.slots.iter().find(|s| s.meaning == whole)?;
        Some(Source::TlsPair { slot: slot.addr })
    }

    /// The point from which distances within a file's own block are counted: in a library the start of the block, in a program
    /// (GNU ld) the thread pointer.
    fn module_base(&self, user: &str, r: &Ref, row: &RelocRow) -> Result<Meaning, Refusal> {
        let elf = &self.linked.rebuilt;
        let source = match row.formula.letter() {
            _ if r.target_offset != 0 => None,
            _ if elf.links_thread_block() => Some(Source::TlsLocalExec { offset: 0 }),
            Letter::Slot(SlotKind::ThreadDescriptor) => {
                let base = SlotMeaning::ThreadDescriptor { symbol: None, addend: 0 };
                let slot = elf.slots.iter().find(|s| s.meaning == base);
                slot.map(|s| Source::TlsDescriptor { slot: s.addr })
            }
            Letter::Slot(SlotKind::ThreadModule) => self.module_pair(),
            _ => None,
        };
        source.map(|source| tls(MODULE_BASE, source)).ok_or_else(|| no_way(user, MODULE_BASE))
    }

    /// The atom with every call for a thread-local variable rewritten for which the target has no words and a shorter way is
    /// known; `None`: there is none.
    pub fn shortened(&self, key: Key, atom: &Atom) -> Result<Option<Atom>, Refusal> {
        let mut new: Option<Atom> = None;
        for r in &atom.refs {
            let Some(row) = self.arch.relocation(r.r_type) else { continue };
            if !calls(row) && row.formula.letter() != Letter::ModuleOffset {
                continue;
            }
            let model = match self.decide(key, r)? {
                Meaning::Outside(Outside { source: Source::TlsLocalExec { .. }, .. }) => ThreadModel::Offset,
                Meaning::Outside(Outside { source: Source::TlsSlot { .. }, .. }) => ThreadModel::Slot,
                _ => continue,
            };
            // Linkers count from the thread pointer in code alone.
            if atom.kind != AtomKind::Function {
                return Err(no_way(&atom.name, "variable that its data counts to"));
            }
            let atom = new.get_or_insert_with(|| atom.clone());
            // Its sequence has been rewritten from another reference on.
            if atom.refs.iter().any(|other| other == r) {
                self.shorten(key, atom, r, model)?;
            }
        }
        Ok(new)
    }

    fn shorten(&self, key: Key, atom: &mut Atom, r: &Ref, model: ThreadModel) -> Result<(), Refusal> {
        let name = atom.name.clone();
        let unknown = || {
            let message = format!("{name} calls for a thread-local variable in a way that is not known ({})", r.r_type);
            refusal(Code::TlsModel, &name, message, ADVICE)
        };
        let field = usize::try_from(r.offset).map_err(|_| unknown())?;
        let short = self.arch.relax_thread_access(r.r_type, &mut atom.bytes, field, model).ok_or_else(unknown)?;
        let inside = |offset: u64| usize::try_from(offset).is_ok_and(|at| short.range.contains(&at));
        let imports: &[Import] = self.units[key.0].diff.fix.as_deref().map_or(&[], |o| &o.imports);
        for gone in atom.refs.iter().filter(|other| inside(other.offset)) {
            let called = matches!(gone.target, Target::Import(i) if imports.get(i).is_some_and(|i| i.name == CALLED));
            let same = (gone.target, gone.target_offset) == (r.target, r.target_offset);
            if !same && !called {
                return Err(unknown());
            }
        }
        // Who jumped into the sequence would find another instruction there.
        let into = |insn: &ulp_arch::Insn| match insn.flow {
            Flow::Jump { target: Some(to), .. } | Flow::Call { target: Some(to), .. } => {
                usize::try_from(to).is_ok_and(|to| to > short.range.start && to < short.range.end)
            }
            _ => false,
        };
        if self.arch.decode(&atom.bytes).iter().any(|insn| !short.range.contains(&insn.start) && into(insn)) {
            return Err(unknown());
        }
        atom.refs.retain(|other| !inside(other.offset));
        atom.refs.extend(short.fields.iter().map(|field| Ref {
            offset: field.at as u64,
            r_type: field.r_type,
            adjust: field.adjust,
            branch: false,
            resolved: false,
            ..*r
        }));
        atom.refs.sort_by_key(|r| r.offset);
        Ok(())
    }
}
