// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the atoms of a pristine object went in one linked file. The link map answers by object, section and offset, so
//! that names never decide between two statics; the symbol table must then agree.

use super::libraries::Libraries;
use crate::linkmap::{Fate, LinkMap};
use crate::model::LinkedElf;
use crate::object::{Atom, AtomId, AtomKind, Object, Scope};
use crate::production::{Elf, Symbol, SymbolKind};
use crate::reproduce::Pairing;
use object::{Object as _, ObjectSection as _};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use ulp_arch::LinkAddr;

/// One linked file: what was rebuilt, what is in production, and how it was put together.
#[derive(Clone, Debug)]
pub struct Linked {
    pub rebuilt: Elf,
    pub production: Elf,
    pub map: LinkMap,
    pub libraries: Libraries,
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
}

/// Where an atom went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    At(LinkAddr),
    /// Thrown away by the linker.
    Dropped,
    Unknown(String),
}

/// What the link made of a name that more than one object sees.
#[derive(Clone, Copy, Debug)]
pub enum Global<'a> {
    One(&'a Symbol),
    None,
    /// Several locals of this name, of which any may be meant.
    Several,
}

impl Pristine {
    /// `bytes` are those that `object` was read from.
    pub fn new(object: Object, bytes: &[u8], orig: Option<&Object>) -> Result<Self, object::read::Error> {
        let mut sections = BTreeMap::new();
        for section in object::File::parse(bytes)?.sections() {
            let name = String::from_utf8_lossy(section.name_bytes()?).into_owned();
            sections.insert(section.index().0, (name, section.size()));
        }
        let pairing = orig.map_or_else(|| Pairing::of(&object, &object), |orig| Pairing::of(orig, &object));
        Ok(Self { object, pairing, sections })
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
        let map = LinkMap::parse(&String::from_utf8_lossy(&text)).map_err(|e| LinkedError::Map(link.map.clone(), e))?;
        let rebuilt = elf(&link.rebuilt)?;
        let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, digest) in &link.inputs {
            if map.has_object(name) {
                objects.entry(digest.clone()).or_default().push(name.clone());
            }
        }
        Ok(Self {
            production: elf(&link.production)?,
            libraries: Libraries::of(&rebuilt, &link.production, &link.libraries),
            rebuilt,
            map,
            objects,
        })
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
                _ => Where::Unknown(format!("the common symbol {} is not in the symbol table", atom.name)),
            };
        }
        let Some((section, sizes, nth)) = pristine.namesakes(atom.section_index) else {
            return Where::Unknown(format!("{} is in no section", atom.name));
        };
        match self.map.fate(name, section, &sizes, nth) {
            Fate::Placed(extent) => self.checked(pristine, id, atom, extent.addr.plus(atom.offset)),
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
