// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the atoms of a pristine object went in one linked file. The link map answers by object, section and offset, so
//! that names never decide between two statics; the symbol table must then agree.

use super::libraries::Libraries;
use crate::linkmap::{Fate, LinkMap};
use crate::model::{LinkedElf, Refusal};
use crate::object::{Atom, AtomId, AtomKind, Elf as ObjectElf, Object, Scope, may_be_shortened};
use crate::production::{Elf, Symbol, SymbolKind};
use crate::proof::Proof;
use crate::reproduce::Pairing;
use object::{Object as _, ObjectSymbol as _};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ulp_arch::LinkAddr;
use ulp_format::Identity;

/// One linked file: what was rebuilt, what is in production, and how it was put together.
#[derive(Clone, Debug)]
pub struct Linked {
    /// The file with all symbols. Where production is another link of the same objects: production itself, with the
    /// rebuilt file's symbols at the places that were proved.
    pub rebuilt: Elf,
    pub production: Elf,
    pub map: LinkMap,
    pub libraries: Libraries,
    /// Production is another link of the same objects, and this says where it has what.
    pub proof: Option<Arc<Proof>>,
    /// The file that was linked here, where [`Linked::rebuilt`] is another one and linkers shorten code.
    built_here: Option<Elf>,
    /// Names of the rebuilt file that were not proved, with the reason.
    unproved: BTreeMap<String, String>,
    /// Digest of an object to the names the link map has for it.
    objects: BTreeMap<String, Vec<String>>,
}

/// Why a linked file cannot be looked at. These are failures, not refusals.
#[derive(Debug, thiserror::Error)]
pub enum LinkedError {
    #[error("{0}: {1}")]
    Elf(PathBuf, #[source] crate::production::ElfError),
    #[error("{0}: cannot read it: {1}")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("{0}: {1}; ulp-build knows GNU ld's maps only, so link with -fuse-ld=bfd")]
    Map(PathBuf, #[source] crate::linkmap::MapError),
}

/// The object of the pristine build, with its section table.
#[derive(Clone, Debug)]
pub struct Pristine {
    pub object: Object,
    pub pairing: Pairing,
    /// By section index: name and size.
    sections: BTreeMap<usize, (String, u64)>,
    /// What this is the shortened form of: the object as it was compiled.
    whole: Option<Arc<Self>>,
}

/// Where an atom went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    At(LinkAddr),
    /// Thrown away by the linker.
    Dropped,
    Unknown(String),
    /// The link has it, and production has something else, or nobody knows where.
    Unproved(String),
}

/// What the link made of a name that more than one object sees.
#[derive(Clone, Copy, Debug)]
pub enum Global<'a> {
    One(&'a Symbol),
    None,
    /// Several locals of this name, of which any may be meant.
    Several,
    /// The link has it, and where production has it is not proved.
    Unproved(&'a str),
}

impl Pristine {
    /// Takes a compiled object apart; `orig` is its recompiled original.
    pub fn read(path: &Path, bytes: &[u8], orig: Option<&Object>) -> Result<Self, Refusal> {
        Self::from_elf(path, &ObjectElf::read(path, bytes)?, orig)
    }

    fn from_elf(path: &Path, elf: &ObjectElf<'_>, orig: Option<&Object>) -> Result<Self, Refusal> {
        let object = Object::from_elf(path, elf)?;
        let sections = elf.sections.iter().enumerate().map(|(i, s)| (i, (s.name.clone(), s.size))).collect();
        let pairing = orig.map_or_else(|| Pairing::of(&object, &object), |orig| Pairing::of(orig, &object));
        Ok(Self { object, pairing, sections, whole: None })
    }

    /// The object as it was compiled, for comparison with another compile of it. What a linker shortened is another code.
    pub fn compiled(&self) -> &Self {
        self.whole.as_deref().unwrap_or(self)
    }

    pub fn atom(&self, id: AtomId) -> Option<&Atom> {
        self.object.atoms.get(id.0)
    }

    /// All names of an atom, its own first.
    pub fn names(&self, id: AtomId) -> impl Iterator<Item = &str> {
        let own = self.atom(id).map(|a| a.name.as_str());
        own.into_iter().chain(self.object.aliases.iter().filter(move |(_, a)| *a == id).map(|(n, _)| n.as_str()))
    }

    /// The sizes of all sections called like section `index`, and which of them it is.
    fn namesakes(&self, index: usize) -> Option<(&str, Vec<u64>, usize)> {
        let (name, _) = self.sections.get(&index)?;
        let same: Vec<_> = self.sections.iter().filter(|(_, (n, _))| n == name).collect();
        let nth = same.iter().position(|(i, _)| **i == index)?;
        Some((name, same.iter().map(|(_, (_, size))| *size).collect(), nth))
    }
}

impl Linked {
    pub fn read(link: &LinkedElf) -> Result<Self, LinkedError> {
        let elf = |path: &Path| Elf::read(path).map_err(|e| LinkedError::Elf(path.to_owned(), e));
        let text = std::fs::read(&link.map).map_err(|e| LinkedError::Io(link.map.clone(), e))?;
        let parse = |path: &Path, text: &[u8]| {
            LinkMap::parse(&String::from_utf8_lossy(text)).map_err(|e| LinkedError::Map(path.to_owned(), e))
        };
        let mut map = parse(&link.map, &text)?;
        for (object, path) in &link.partial {
            let text = std::fs::read(path).map_err(|e| LinkedError::Io(path.clone(), e))?;
            map.take_in(object, &parse(path, &text)?);
        }
        let (rebuilt, production) = (elf(&link.rebuilt)?, elf(&link.production)?);
        let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, digest) in &link.inputs {
            if map.has_object(name) {
                objects.entry(digest.clone()).or_default().push(name.clone());
            }
        }
        let libraries = Libraries::of(&rebuilt, &link.production, &link.libraries);
        let (proof, built_here, unproved) = (None, None, BTreeMap::new());
        let mut linked = Self { production, libraries, rebuilt, map, proof, built_here, unproved, objects };
        if link.identity == Identity::PerFunction
            && let Some(arch) = ulp_arch::by_machine(linked.rebuilt.machine)
        {
            let proof = Proof::of(arch, &linked.rebuilt, &linked.production, &linked.map, &link.objects);
            let (mut symbols, mut unproved) = proof.symbols(&linked.rebuilt, &linked.production);
            if let Some(debug) = &link.debuginfo {
                let debug = std::fs::read(debug).map_err(|e| LinkedError::Io(debug.clone(), e))?;
                second_source(&debug, &mut symbols, &mut unproved);
            }
            linked.map = linked.map.moved(|addr| proof.place(addr, false).ok());
            let built = std::mem::replace(&mut linked.rebuilt, linked.production.with_symbols(symbols));
            linked.built_here =
                arch.relocations().iter().any(|row| arch.allows_relaxation(row.r_type)).then_some(built);
            (linked.proof, linked.unproved) = (Some(Arc::new(proof)), unproved);
        }
        Ok(linked)
    }

    /// The object that the map calls `name` as this link has it: with its code as short as the linker made it. Where that cannot
    /// be followed it stays as it is, and nothing of it will be found in the link.
    pub fn shortened(&self, whole: &Arc<Pristine>, name: &str, orig: Option<&Object>) -> Arc<Pristine> {
        let path = &whole.object.path;
        let shortened = || -> Option<Pristine> {
            let arch = ulp_arch::by_machine(whole.object.machine)?;
            let bytes = std::fs::read(path).ok()?;
            if !may_be_shortened(&ObjectElf::read(path, &bytes).ok()?, arch) {
                return None;
            }
            let built = self.built_here.as_ref().unwrap_or(&self.rebuilt);
            let placed = |section: &str, sizes: &[u64], nth: usize| built.placed(&self.map, name, section, sizes, nth);
            let elf = ObjectElf::read_linked(path, &bytes, &placed).ok()?;
            let pristine = Pristine::from_elf(path, &elf, orig).ok()?;
            Some(Pristine { whole: Some(whole.clone()), ..pristine })
        };
        shortened().map_or_else(|| whole.clone(), Arc::new)
    }

    /// The names under which an object with this digest went in.
    pub fn objects(&self, digest: &str) -> &[String] {
        self.objects.get(digest).map_or(&[], Vec::as_slice)
    }

    /// Where the link put an atom of the object that the map calls `name`.
    pub fn place(&self, pristine: &Pristine, name: &str, id: AtomId) -> Where {
        let Some(atom) = pristine.atom(id) else { return Where::Unknown("there is no such atom".into()) };
        if atom.section_index == usize::MAX {
            // Common symbols of one name are merged by the linker.
            return match self.global(&atom.name) {
                Global::One(symbol) => Where::At(self.address(symbol)),
                Global::Unproved(why) => Where::Unproved(why.to_owned()),
                _ => Where::Unknown(format!("the common symbol {} is not in the symbol table", atom.name)),
            };
        }
        let Some((section, sizes, nth)) = pristine.namesakes(atom.section_index) else {
            return Where::Unknown(format!("{} is in no section", atom.name));
        };
        match self.map.fate(name, section, &sizes, nth) {
            Fate::Placed(extent) => {
                let (addr, thread) = (extent.addr.plus(atom.offset), is_thread_local(atom));
                match self.proof.as_ref().map_or(Ok(addr), |proof| proof.place(addr, thread)) {
                    Ok(addr) => self.checked(pristine, id, atom, addr),
                    Err(doubt) => Where::Unproved(doubt.why),
                }
            }
            Fate::Dropped => Where::Dropped,
            Fate::Unknown => {
                Where::Unknown(format!("the link map does not tell where section {section} of {name} went"))
            }
        }
    }

    /// The symbol table must have the atom's name at the address that the link map gives.
    fn checked(&self, pristine: &Pristine, id: AtomId, atom: &Atom, addr: LinkAddr) -> Where {
        let agrees = |name: &str| {
            self.rebuilt.named(name).any(|s| self.address(s) == addr)
                || atom.scope != Scope::Local && self.rebuilt.named(name).next().is_some()
        };
        if atom.anonymous || pristine.names(id).any(agrees) {
            Where::At(addr)
        } else {
            Where::Unknown(format!("the link map has {} at {addr}, the symbol table does not", atom.name))
        }
    }

    /// The address of a symbol; the symbol table gives thread-local ones from the start of their segment.
    pub fn address(&self, symbol: &Symbol) -> LinkAddr {
        match (symbol.kind, self.rebuilt.tls) {
            (SymbolKind::Tls, Some(tls)) => tls.addr.plus(symbol.addr.0),
            _ => symbol.addr,
        }
    }

    /// The definition that won the link for a name other objects see. Hidden globals became local symbols: the link map
    /// knows them from statics.
    pub fn global(&self, name: &str) -> Global<'_> {
        if let Some(why) = self.unproved.get(name) {
            return Global::Unproved(why);
        }
        let visible: Vec<_> = self.rebuilt.named(name).filter(|s| !s.local).collect();
        let quiet = || self.rebuilt.named(name).filter(|s| s.local && self.map.is_global(self.address(s))).collect();
        match one(visible).or_else(|| one(quiet())) {
            Some(Ok(symbol)) => Global::One(symbol),
            Some(Err(())) => Global::Several,
            None => Global::None,
        }
    }

    /// Where the running program's copy of a function or datum is: the object's own, or for names that several objects may
    /// define (weak, COMDAT) the one that won. The second value tells whether it is the object's own.
    pub fn winner(&self, pristine: &Pristine, name: &str, id: AtomId) -> (Where, bool) {
        let place = self.place(pristine, name, id);
        let Some(atom) = pristine.atom(id) else { return (place, true) };
        if atom.scope == Scope::Local || atom.anonymous {
            return (place, true);
        }
        match (&place, self.global(&atom.name)) {
            (Where::Unproved(_), _) => (place, true),
            (_, Global::Unproved(why)) => (Where::Unproved(why.to_owned()), true),
            (Where::Unknown(_), Global::One(_)) if atom.comdat.is_none() && atom.scope == Scope::Global => {
                (place, true)
            }
            (place, Global::One(symbol)) => {
                let addr = self.address(symbol);
                (Where::At(addr), *place == Where::At(addr))
            }
            (Where::At(_), _) => {
                (Where::Unknown(format!("{} is not in the symbol table of the rebuilt file", atom.name)), true)
            }
            _ => (place, true),
        }
    }
}

/// The debug information of production has symbols too. Where a name stands for one thing in both, the two must agree.
fn second_source(debug: &[u8], symbols: &mut Vec<Symbol>, unproved: &mut BTreeMap<String, String>) {
    let Ok(file) = object::File::parse(debug) else { return };
    let mut said: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for symbol in file.symbols().filter(|s| s.is_definition()) {
        let Ok(name) = symbol.name() else { continue };
        let one = said.entry(name).or_insert(Some(symbol.address()));
        if *one != Some(symbol.address()) {
            *one = None;
        }
    }
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for symbol in symbols.iter() {
        *times.entry(symbol.name.clone()).or_default() += 1;
    }
    symbols.retain(|symbol| {
        let Some(Some(addr)) = said.get(symbol.name.as_str()).copied() else { return true };
        let agree = addr == symbol.addr.0 || times.get(&symbol.name) != Some(&1) || symbol.kind == SymbolKind::Tls;
        if !agree {
            let other = LinkAddr(addr);
            let why = format!("the debug information has it at {other}, and production's own code at {}", symbol.addr);
            unproved.insert(symbol.name.clone(), why);
        }
        agree
    });
}

fn is_thread_local(atom: &Atom) -> bool {
    matches!(atom.kind, AtomKind::TlsData | AtomKind::TlsZero)
}

/// Whether an atom is code that can be entered by a call, and not only reached by a jump from its parent.
pub fn is_cold_child(atom: &Atom) -> bool {
    let cold = |name: &str| {
        name.rsplit_once(".cold")
            .is_some_and(|(_, rest)| rest.trim_start_matches('.').bytes().all(|b| b.is_ascii_digit()))
    };
    atom.kind == AtomKind::Function && atom.parent.is_some() && cold(&atom.name)
}

/// The only place that symbols of one name have, `Err` when there are several.
fn one(mut all: Vec<&Symbol>) -> Option<Result<&Symbol, ()>> {
    all.dedup_by_key(|s| s.addr);
    match all.as_slice() {
        [] => None,
        [only] => Some(Ok(only)),
        _ => Some(Err(())),
    }
}
