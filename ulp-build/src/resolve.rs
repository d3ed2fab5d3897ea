// SPDX-License-Identifier: GPL-2.0-or-later
//! Decides what each reference of patch code means in the running program: something the patch carries itself, a place in
//! the same ELF file, a slot the program has for a library's symbol, or an import of the patch's own. What is not certain
//! is refused; nothing local is ever found by name alone.

pub mod libraries;
pub mod place;
mod threads;

use crate::diff::Verdict;
use crate::model::{Code, Refusal, Unit};
use crate::object::{Atom, AtomId, AtomKind, Ref, Scope, Target};
use crate::production::{SlotMeaning, SymbolKind as ElfKind, TABLE};
use place::{Global, Linked, Pristine, Where, is_cold_child};
use std::collections::BTreeMap;
use std::sync::Arc;
use ulp_arch::{Arch, Field, Formula, Letter, LinkAddr, RelocRow, SeenFrom, SlotKind};
use ulp_format::{Kind, ObjectKind, Source};

/// An atom of a fixed object: the unit's index, and the atom in it.
pub type Key = (usize, AtomId);

/// A unit as one linked file sees it.
#[derive(Clone, Debug)]
pub struct UnitIn<'a> {
    pub unit: &'a Unit,
    pub diff: &'a crate::diff::UnitDiff,
    pub pristine: Option<Arc<Pristine>>,
    /// The link map's name of its object; `None`: it is not part of this file, or new.
    pub object: Option<String>,
}

/// Everything that is known of one linked file, and what was selected so far.
#[derive(Debug)]
pub struct Context<'a> {
    pub arch: &'static dyn Arch,
    pub linked: &'a Linked,
    pub units: Vec<UnitIn<'a>>,
    /// Fixed functions that replace one in the running program, with its entry.
    pub replaced: BTreeMap<Key, LinkAddr>,
    /// Copies of a function (COMDAT) for which another unit's stands.
    pub stands_for: BTreeMap<Key, Key>,
    /// Fixed atoms that other units see: new ones, and those in `replaced`.
    pub exported: BTreeMap<String, Key>,
}

/// What a reference means.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// An atom the patch carries.
    Own(Key),
    /// Something in the process.
    Outside(Outside),
}

/// Something outside of the patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Outside {
    /// A name for the undefined symbol.
    pub name: String,
    pub source: Source,
    pub kind: ulp_format::SymbolKind,
}

impl<'a> UnitIn<'a> {
    pub fn fixed(&self, id: AtomId) -> Option<&'a Atom> {
        self.diff.fix.as_deref().and_then(|o| o.atoms.get(id.0))
    }

    /// The pristine atom that a fixed one descends from.
    pub fn pristine_of(&self, fixed: AtomId) -> Option<AtomId> {
        self.pristine.as_ref()?.pairing.pristine(*self.diff.twins.get(&fixed)?)
    }

    pub fn verdict(&self, id: AtomId) -> &Verdict {
        self.diff.verdicts.get(&id).unwrap_or(&Verdict::New)
    }
}

pub fn refusal(code: Code, symbol: &str, message: impl Into<String>, advice: &str) -> Refusal {
    Refusal { code, symbol: Some(symbol.to_owned()), message: message.into(), advice: advice.to_owned() }
}

const REBUILD: &str =
    "check that the link map and the rebuilt file belong together, and leave this function out of the fix";

impl Context<'_> {
    /// What `r`, a reference of the atom `from`, means.
    pub fn decide(&self, from: Key, r: &Ref) -> Result<Meaning, Refusal> {
        let unit = &self.units[from.0];
        let user = unit.fixed(from.1).map_or("?", |a| a.name.as_str());
        let row = self.arch.relocation(r.r_type);
        let row = row.ok_or_else(|| {
            let message = format!("{user} has a relocation of type {}, which is not known", r.r_type);
            refusal(Code::Unsupported, user, message, "report it with the object file")
        })?;
        supported(row, user, self.linked.rebuilt.kind)?;
        let meaning = match r.target {
            Target::Atom(id) => self.atom(from, user, id, r, row)?,
            Target::Import(index) => {
                let import = unit.diff.fix.as_deref().and_then(|o| o.imports.get(index));
                let import = import.ok_or_else(|| refusal(Code::BadElf, user, "a reference has no symbol", REBUILD))?;
                self.import(user, &import.name, r, row)?
            }
        };
        if let Meaning::Outside(outside) = &meaning {
            reachable(outside, user, r, row)?;
        }
        Ok(meaning)
    }

    /// A reference to something its own unit defines.
    fn atom(&self, from: Key, user: &str, id: AtomId, r: &Ref, row: &RelocRow) -> Result<Meaning, Refusal> {
        let unit = &self.units[from.0];
        let atom = unit.fixed(id).ok_or_else(|| refusal(Code::BadElf, user, "a reference leads nowhere", REBUILD))?;
        let key = (from.0, id);
        if let Some(problem) = &atom.problem {
            let message = format!("{user} refers to {}: {problem}", atom.name);
            return Err(refusal(Code::Unsupported, &atom.name, message, "leave this function out of the fix"));
        }
        if matches!(atom.kind, AtomKind::TlsData | AtomKind::TlsZero) {
            self.in_block(from.0, user, id, row)?;
            return self.thread_local(from, user, id, r, row);
        }
        if let Some(meaning) = self.in_block(from.0, user, id, row)? {
            return Ok(meaning);
        }
        let stands = self.stands_for.get(&key).copied().unwrap_or(key);
        if let Some(entry) = self.replaced.get(&stands) {
            let from_table = self.units[from.0].fixed(from.1).is_some_and(|a| a.anonymous);
            return self.replaced(stands, *entry, atom, r, row, from_table);
        }
        let own = match (unit.verdict(id), atom.kind) {
            _ if is_cold_child(atom) => true,
            (_, AtomKind::ReadOnly | AtomKind::Data) if atom.anonymous => true,
            (Verdict::New, _) => true,
            (Verdict::Changed(_), AtomKind::ReadOnly) => true,
            _ => false,
        };
        if own {
            return match self.exported.get(&atom.name) {
                Some(key) if atom.scope != Scope::Local => Ok(Meaning::Own(*key)),
                _ => Ok(Meaning::Own(key)),
            };
        }
        if atom.scope != Scope::Local && self.linked.rebuilt.is_preemptible(&atom.name) {
            if !bound_locally(row) {
                return self.dynamic(user, &atom.name, r, row);
            }
            // A function may have a local alias, by which its own file reaches it.
            if atom.kind != AtomKind::Function {
                return Err(bound_too_early(user, &atom.name, row));
            }
        }
        let place = match (&unit.pristine, unit.pristine_of(id), &unit.object) {
            (Some(pristine), Some(id), Some(object)) => self.linked.winner(pristine, object, id).0,
            _ => Where::Unknown(format!("{} has no counterpart in the linked object", atom.name)),
        };
        match place {
            Where::At(addr) if self.is_resolver(addr) => self.chosen(user, &atom.name, addr, r, row),
            Where::At(addr) => self.local(atom.name.clone(), addr, atom.size, kind_of(atom.kind)),
            // Nobody used it, so the linker left it out: it comes along.
            Where::Dropped => Ok(Meaning::Own(key)),
            Where::Unknown(why) => {
                Err(refusal(Code::Ambiguous, &atom.name, format!("{user} refers to {}, and {why}", atom.name), REBUILD))
            }
            Where::Unproved(why) => Err(unproved(user, &atom.name, &why)),
        }
    }

    /// A reference to a datum through which others of its block may be reached: right where the running program has the whole
    /// block as the fixed object has it. `None`: it stands alone.
    fn in_block(&self, index: usize, user: &str, id: AtomId, row: &RelocRow) -> Result<Option<Meaning>, Refusal> {
        let unit = &self.units[index];
        let Some(fix) = unit.diff.fix.as_deref().filter(|_| !unit.diff.apart) else { return Ok(None) };
        let (Some(block), Some(named)) = (fix.block(id), fix.atoms.get(id.0)) else { return Ok(None) };
        let apart = |why: String| {
            let message = format!("{user} reaches data of {} through {}, and {why}", named.section, named.name);
            let advice = "keep the variables of the file as they are, or build production with -fno-section-anchors";
            refusal(Code::Anchor, &named.name, message, advice)
        };
        let thread = threads::is_thread_local(row);
        if named.scope != Scope::Local && !bound_locally(row) && !thread {
            // A slot holds the address of one datum, and no compiler knows what stands around it.
            return Ok(None);
        }
        let mut start = None;
        for id in block {
            let Some(atom) = fix.atoms.get(id.0).filter(|a| !a.anonymous) else { continue };
            let same = match atom.kind {
                AtomKind::ReadOnly => *unit.verdict(*id) == Verdict::Same,
                _ => *unit.verdict(*id) != Verdict::New,
            };
            let place = match (&unit.pristine, unit.pristine_of(*id), &unit.object) {
                (Some(pristine), Some(id), Some(object)) if same => self.linked.winner(pristine, object, id).0,
                _ => return Err(apart(format!("{} is not there in the running program", atom.name))),
            };
            let base = match place {
                Where::At(addr) => addr.0.wrapping_sub(atom.offset),
                Where::Unproved(why) => return Err(unproved(user, &atom.name, &why)),
                Where::Dropped | Where::Unknown(_) => {
                    return Err(apart(format!("where the running program has {} is not known", atom.name)));
                }
            };
            if *start.get_or_insert(base) != base {
                return Err(apart(format!("{} stands elsewhere among them in the running program", atom.name)));
            }
        }
        let Some(start) = start else { return Err(apart("none of them has a name".into())) };
        for id in block {
            // Where zeroes have no name, nothing is.
            let nameless = |a: &&Atom| a.anonymous && a.kind != AtomKind::ZeroData;
            let Some(atom) = fix.atoms.get(id.0).filter(nameless) else { continue };
            let there = self.linked.rebuilt.bytes(LinkAddr(start.wrapping_add(atom.offset)), atom.size);
            if !atom.refs.is_empty() || there != Some(atom.bytes.as_slice()) {
                return Err(apart(format!("{} is not there in the running program", atom.name)));
            }
        }
        let addr = LinkAddr(start.wrapping_add(named.offset));
        if thread {
            return Ok(None);
        }
        if named.scope != Scope::Local && self.linked.rebuilt.is_preemptible(&named.name) {
            return Err(bound_too_early(user, &named.name, row));
        }
        self.local(named.name.clone(), addr, named.size, kind_of(named.kind)).map(Some)
    }

    /// A reference to a function that is replaced. Branches go to the new body; its address stays the old entry, which
    /// compares equal with pointers taken before and survives a revert.
    fn replaced(
        &self,
        key: Key,
        entry: LinkAddr,
        atom: &Atom,
        r: &Ref,
        row: &RelocRow,
        from_table: bool,
    ) -> Result<Meaning, Refusal> {
        let inside = r.target_offset != 0 || from_table && row.formula == Formula::PcRelative;
        if atom.scope != Scope::Local
            && !inside
            && !bound_locally(row)
            && self.linked.rebuilt.is_preemptible(&atom.name)
        {
            return self.dynamic(&atom.name, &atom.name, r, row);
        }
        if r.branch || inside {
            return Ok(Meaning::Own(key));
        }
        let source = Source::Local { addr: entry, size: 0 };
        let kind = ulp_format::SymbolKind::Function;
        Ok(Meaning::Outside(Outside { name: format!("{}.old", atom.name), source, kind }))
    }

    /// A reference by name to something another object or a library defines.
    fn import(&self, user: &str, name: &str, r: &Ref, row: &RelocRow) -> Result<Meaning, Refusal> {
        if threads::is_thread_local(row) {
            return self.thread_local_by_name(user, name, r, row);
        }
        // Code that takes the page of its file's table of slots counts slots from there: a patch has slots and a table of its own.
        if name == TABLE && row.formula == Formula::PagePcRelative && r.target_offset == 0 {
            let kind = ulp_format::SymbolKind::Untyped;
            return Ok(Meaning::Outside(Outside { name: name.to_owned(), source: Source::OwnTable, kind }));
        }
        // What is meant by parts of its address alone cannot be told.
        if name == TABLE && row.span().is_some() {
            let message = format!("{user} uses the address of the program's table of slots ({})", row.name);
            return Err(refusal(Code::Unsupported, user, message, "compile the file with -fPIC or -fPIE"));
        }
        // A linker option (--wrap) turns undefined references to a name into another one, and only the linker knows.
        let wrapper = format!("__wrap_{name}");
        if self.linked.rebuilt.named(&wrapper).next().is_some() || self.exported.contains_key(&wrapper) {
            let message = format!("{user} refers to {name}, which the linker may have turned into {wrapper}");
            return Err(refusal(
                Code::Linker,
                name,
                message,
                "leave this reference out of the fix, or link without --wrap",
            ));
        }
        if let Some(key) = self.exported.get(name).copied() {
            let atom = self.units[key.0].fixed(key.1);
            match (atom, self.replaced.get(&key)) {
                (Some(atom), Some(entry)) => return self.replaced(key, *entry, atom, r, row, false),
                _ => return Ok(Meaning::Own(key)),
            }
        }
        match self.linked.global(name) {
            Global::One(_) if self.linked.rebuilt.is_preemptible(name) => self.dynamic(user, name, r, row),
            Global::One(symbol) => match symbol.kind {
                ElfKind::Ifunc => self.chosen(user, name, symbol.addr, r, row),
                ElfKind::Tls => self.thread_local_by_name(user, name, r, row),
                _ => {
                    let kind = match symbol.kind {
                        ElfKind::Function => ulp_format::SymbolKind::Function,
                        ElfKind::Data => ulp_format::SymbolKind::Object,
                        _ => ulp_format::SymbolKind::Untyped,
                    };
                    self.local(name.to_owned(), symbol.addr, symbol.size, kind)
                }
            },
            Global::Several => {
                let message = format!("{user} refers to {name}, and the linked file has several symbols of this name");
                Err(refusal(Code::Ambiguous, name, message, REBUILD))
            }
            Global::Unproved(why) => Err(unproved(user, name, why)),
            Global::None => match self.promoted(name) {
                Some(key) => self.atom(key, user, key.1, r, row),
                None => self.dynamic(user, name, r, row),
            },
        }
    }

    /// What another unit's fix has made global and the running program has as a static.
    fn promoted(&self, name: &str) -> Option<Key> {
        self.units.iter().enumerate().find_map(|(index, unit)| {
            let fix = unit.diff.fix.as_deref()?;
            let id = fix.atoms.iter().position(|a| a.name == name && a.scope != Scope::Local).map(AtomId)?;
            let old = unit.pristine.as_ref()?.atom(unit.pristine_of(id)?)?;
            (old.scope == Scope::Local).then_some((index, id))
        })
    }

    fn is_resolver(&self, addr: LinkAddr) -> bool {
        self.linked.rebuilt.at(addr).any(|s| s.kind == ElfKind::Ifunc)
    }

    /// A call of a function of this file that a resolver chooses, through the slot that holds the choice. In a static
    /// program that is half of the string functions. Its address is another matter: the file may have a linkage table
    /// entry that stands for it.
    fn chosen(&self, user: &str, name: &str, addr: LinkAddr, r: &Ref, row: &RelocRow) -> Result<Meaning, Refusal> {
        let slots = &self.linked.rebuilt.slots;
        let slot = slots.iter().find(|s| s.meaning == SlotMeaning::Chosen { resolver: addr });
        let call = r.branch && matches!(row.formula.letter(), Letter::Branch | Letter::Slot(SlotKind::Address));
        match slot {
            Some(slot) if call && r.target_offset == 0 => Ok(Meaning::Outside(Outside {
                name: name.to_owned(),
                source: Source::Slot {
                    slot: slot.addr,
                    lazy: false,
                    name: name.to_owned(),
                    version: None,
                    object: ObjectKind::Function,
                },
                kind: ulp_format::SymbolKind::Function,
            })),
            Some(_) => {
                let message = format!("{user} takes the address of {name}, which a resolver chooses");
                Err(refusal(Code::Ifunc, name, message, "call it, or leave this reference out of the fix"))
            }
            None => {
                let message = format!(
                    "{user} refers to {name}, which a resolver chooses, and the program has no slot bound to it"
                );
                Err(refusal(Code::IfuncUnbound, name, message, "use another function"))
            }
        }
    }

    fn local(&self, name: String, addr: LinkAddr, size: u64, kind: ulp_format::SymbolKind) -> Result<Meaning, Refusal> {
        if self.is_resolver(addr) {
            let message = format!("the address of {name} is what a resolver chose");
            return Err(refusal(Code::Ifunc, &name, message, "leave this reference out of the fix"));
        }
        Ok(Meaning::Outside(Outside { name, source: Source::Local { addr, size }, kind }))
    }

    /// A symbol that another object of the process may define: through the target's slot, else through an own one.
    fn dynamic(&self, user: &str, name: &str, r: &Ref, row: &RelocRow) -> Result<Meaning, Refusal> {
        let elf = &self.linked.rebuilt;
        let export = self.linked.libraries.export(name);
        let known = elf.dynamic_named(name);
        let outside = |source: Source, object: ObjectKind| {
            let kind = match object {
                ObjectKind::Function => ulp_format::SymbolKind::Function,
                ObjectKind::Data => ulp_format::SymbolKind::Object,
            };
            Ok(Meaning::Outside(Outside { name: name.to_owned(), source, kind }))
        };
        let from_kind = |kind: ElfKind| match kind {
            ElfKind::Function | ElfKind::Ifunc => ObjectKind::Function,
            _ => ObjectKind::Data,
        };
        let defined_here = known.is_some_and(|(_, s)| s.defined);
        // What a plug-in takes from the program that loads it is defined in no library; its own slot knows all the same.
        let bound = known.and_then(|(index, s)| {
            elf.slots.iter().find_map(|slot| match slot.meaning {
                SlotMeaning::Jump { symbol } if symbol == index => Some(ObjectKind::Function),
                SlotMeaning::Address { symbol } if symbol == index && r.branch => Some(ObjectKind::Function),
                SlotMeaning::Address { symbol } if symbol == index => Some(from_kind(s.kind)),
                _ => None,
            })
        });
        let Some(object) = known
            .filter(|(_, s)| s.defined)
            .map(|(_, s)| from_kind(s.kind))
            .or(export.as_ref().map(|e| from_kind(e.kind)))
            .or(bound)
        else {
            let missing = &self.linked.libraries.missing;
            let also = if missing.is_empty() {
                String::new()
            } else {
                format!(" (not found on this machine: {})", missing.join(", "))
            };
            let (message, advice) = if elf.is_static() {
                let message = format!("{user} refers to {name}, which the linker did not put into this static program");
                (message, "use a function that the program holds, or add the source of this one to the fix")
            } else {
                let message =
                    format!("{user} refers to {name}, which neither the program nor a library it needs defines{also}");
                (message, "a patch cannot load libraries; use what the program has")
            };
            return Err(refusal(Code::Unresolved, name, message, advice));
        };
        let ifunc = !defined_here && export.as_ref().is_some_and(|e| e.kind == ElfKind::Ifunc);
        if export.as_ref().is_some_and(|e| e.kind == ElfKind::Tls) && !defined_here {
            let message = format!("{user} refers to the thread-local {name} of a library");
            return Err(refusal(Code::TlsModel, name, message, "leave this reference out of the fix"));
        }
        let through_plt = row.formula == Formula::PltPcRelative && r.branch;
        if let Some((index, symbol)) = known {
            if !symbol.defined && symbol.addr.0 != 0 && elf.kind != Kind::SharedLibrary {
                // The executable's own linkage table entry is the function's address for the whole process.
                return self.local(name.to_owned(), symbol.addr, 0, ulp_format::SymbolKind::Function);
            }
            let find = |jump: bool| {
                elf.slots.iter().find(|s| match s.meaning {
                    SlotMeaning::Address { symbol } => !jump && symbol == index,
                    SlotMeaning::Jump { symbol } => jump && symbol == index,
                    _ => false,
                })
            };
            let slot = find(false).map(|s| (s, false)).or_else(|| find(true).map(|s| (s, !elf.bind_now)));
            if let Some((slot, lazy)) = slot
                && (!ifunc || !lazy || through_plt)
            {
                let version = symbol.version.clone();
                return outside(Source::Slot { slot: slot.addr, lazy, name: name.to_owned(), version, object }, object);
            }
        }
        if ifunc {
            let message =
                format!("{user} refers to {name}, which a resolver chooses, and the program has no slot bound to it");
            let advice = "call it through a function of the program that uses it already";
            return Err(refusal(Code::IfuncUnbound, name, message, advice));
        }
        // A program that holds a copy of it under another name (`environ`, `__environ`) uses the copy.
        let copied = |alias: &&str| elf.dynamic_named(alias).is_some_and(|(_, s)| s.defined);
        if object == ObjectKind::Data
            && let Some(alias) = self.linked.libraries.aliases(name).find(copied)
        {
            let message = format!("{user} refers to {name}, which the program holds a copy of as {alias}");
            return Err(refusal(Code::Unresolved, name, message, "use the name that the program uses"));
        }
        let version = match known {
            Some((_, symbol)) => symbol.version.clone(),
            None => export.and_then(|e| e.version),
        };
        outside(Source::Import { name: name.to_owned(), version, object }, object)
    }
}

fn unproved(user: &str, name: &str, why: &str) -> Refusal {
    let message = format!("{user} refers to {name}, whose place in production is not proved: {why}");
    refusal(Code::NotReproduced, name, message, "build with production's own compiler, flags and path")
}

fn kind_of(kind: AtomKind) -> ulp_format::SymbolKind {
    match kind {
        AtomKind::Function => ulp_format::SymbolKind::Function,
        AtomKind::TlsData | AtomKind::TlsZero => ulp_format::SymbolKind::Tls,
        _ => ulp_format::SymbolKind::Object,
    }
}

/// A relocation that a linker accepts against the file's own definition only: the compiler knew it cannot be pre-empted.
fn bound_locally(row: &RelocRow) -> bool {
    use Formula::{PageOffset, PagePcRelative, PcPages, PcRelative, TpOffset, TpOffsetRounded};
    matches!(row.formula, PcRelative | PagePcRelative | PageOffset | PcPages(_) | TpOffset | TpOffsetRounded)
}

/// Another file may have the symbol in this one's stead, and the code was compiled as if none could. Linkers refuse it too.
fn bound_too_early(user: &str, name: &str, row: &RelocRow) -> Refusal {
    let message =
        format!("{user} reaches {name} of the library itself ({}), and another file may define it instead", row.name);
    refusal(Code::Unsupported, user, message, "compile the fix as the library was compiled, with -fPIC")
}

fn narrow(row: &RelocRow) -> bool {
    !matches!(row.field, Field::Bytes(8))
}

/// Whether a patch can carry this relocation at all in a file of this kind.
fn supported(row: &RelocRow, user: &str, kind: Kind) -> Result<(), Refusal> {
    let named = ["TLS", "DTP"].iter().any(|word| row.name.contains(word));
    match row.formula {
        Formula::Unsupported if named => {
            let message = format!("{user} uses a thread-local variable through {}", row.name);
            Err(refusal(Code::TlsModel, user, message, threads::ADVICE))
        }
        Formula::Unsupported | Formula::Size => {
            let message = format!("{user} has a relocation {}, which a patch cannot carry", row.name);
            Err(refusal(
                Code::Unsupported,
                user,
                message,
                "compile without -mcmodel and PIC options the program was not built with",
            ))
        }
        Formula::Slot(_, SeenFrom::Table) => {
            let message =
                format!("{user} counts from the program's table of slots ({}), which a patch has none of", row.name);
            Err(refusal(
                Code::Unsupported,
                user,
                message,
                "compile the file with -fPIC or -fPIE instead of -fpic or -fpie",
            ))
        }
        Formula::Absolute if narrow(row) && kind != Kind::Executable => {
            let message = format!("{user} has an absolute relocation {} in position-independent code", row.name);
            Err(refusal(Code::Unsupported, user, message, "compile the fix as the program was compiled"))
        }
        _ => Ok(()),
    }
}

/// A library's symbol can be anywhere in the address space: only a linkage table entry, a slot or a full address reach it.
fn reachable(outside: &Outside, user: &str, r: &Ref, row: &RelocRow) -> Result<(), Refusal> {
    let far = matches!(outside.source, Source::Slot { .. } | Source::Import { .. });
    let direct = match row.formula {
        Formula::PcRelative | Formula::PagePcRelative | Formula::PageOffset | Formula::PcPages(_) => true,
        Formula::Absolute => narrow(row),
        // Not a branch: the address of a linkage table entry would be used as the function's.
        Formula::PltPcRelative => !r.branch,
        _ => false,
    };
    if far && direct {
        let name = &outside.name;
        let message =
            format!("{user} uses {name} of a library directly ({}), and the program has no copy of it", row.name);
        return Err(refusal(Code::Unresolved, name, message, "reach it through a function or pointer the program has"));
    }
    Ok(())
}
