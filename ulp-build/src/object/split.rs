// SPDX-License-Identifier: GPL-2.0-or-later
//! Cuts sections into atoms: one per symbol, one per mergeable string or constant, and one per stretch of anything else that no
//! symbol covers. Stretches are not cut at the points that code refers to: a table may be read far behind its first byte.

use super::elf::{Elf, Place, Section, Symbol};
use super::{Atom, AtomId, AtomKind, Object, Scope};
use object::elf;
use std::collections::{BTreeMap, BTreeSet};

/// Which atom covers which bytes of each section.
pub(super) struct Cut {
    /// By section: (start, end, atom), sorted, not overlapping.
    pub spans: Vec<Vec<(u64, u64, AtomId)>>,
    /// By symbol: its atom and the offset in it.
    pub of_symbol: Vec<Option<(AtomId, u64)>>,
}

impl Cut {
    /// The atom that a point of a section belongs to, and whether that is beyond doubt.
    pub fn at(&self, section: usize, point: i64) -> Option<(AtomId, i64, bool)> {
        let spans = self.spans.get(section)?;
        if let [(start, end, atom)] = spans.as_slice() {
            // The only atom of its section: a point outside is a biased base or an end pointer of just this atom.
            let offset = point.checked_sub(i64::try_from(*start).ok()?)?;
            let near = i64::try_from(end - start).ok()?.checked_add(1 << 20)?;
            return Some((*atom, offset, (-near..=near).contains(&offset)));
        }
        let after = spans.partition_point(|(start, ..)| i64::try_from(*start).is_ok_and(|s| s <= point));
        let (start, end, atom) = *spans.get(after.saturating_sub(1))?;
        let offset = point.checked_sub(i64::try_from(start).ok()?)?;
        let inside = offset >= 0 && (offset as u64) < (end - start).max(1);
        Some((atom, offset, inside))
    }
}

/// What the atoms of a section are; `None`: not loaded, or read elsewhere.
fn kind_of(section: &Section<'_>) -> Option<AtomKind> {
    let name = section.name.as_str();
    let zero = section.kind == elf::SHT_NOBITS;
    let starts = |stem: &str| name == stem || name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'));
    let array = matches!(section.kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY);
    if !section.has(elf::SHF_ALLOC) || name == ".eh_frame" || name == ".note.gnu.property" {
        None
    } else if array || starts(".ctors") || starts(".dtors") || starts(".init_array") || starts(".fini_array") {
        Some(AtomKind::Constructors)
    } else if section.has(elf::SHF_EXECINSTR) {
        Some(AtomKind::Function)
    } else if section.has(elf::SHF_TLS) {
        Some(if zero { AtomKind::TlsZero } else { AtomKind::TlsData })
    } else if !section.has(elf::SHF_WRITE) || starts(".data.rel.ro") {
        Some(AtomKind::ReadOnly)
    } else {
        Some(if zero { AtomKind::ZeroData } else { AtomKind::Data })
    }
}

/// Whether a symbol names something for the programmer: compiler labels and the assembler's mapping symbols do not.
fn names_something(symbol: &Symbol) -> bool {
    // GNU as makes labels of its own (`L0^A`) where it leaves distances to the linker.
    let labels = symbol.name.is_empty() || symbol.name.starts_with(".L") || symbol.name.contains('\u{1}');
    let local = symbol.bind == elf::STB_LOCAL;
    let untyped = symbol.kind == elf::STT_NOTYPE && local;
    let bookkeeping = matches!(symbol.kind, elf::STT_SECTION | elf::STT_FILE) || (untyped && labels);
    // Assemblers give every symbol of a thread-local section that section's type.
    let sizeless = local && symbol.kind == elf::STT_TLS && symbol.size == 0;
    let mapping = (untyped || sizeless) && is_mapping_symbol(&symbol.name);
    !bookkeeping && !mapping
}

/// Local symbols with which assemblers say where code and where data begin (AAELF64, "Mapping symbols"): `$x`, `$d.1`.
pub(crate) fn is_mapping_symbol(name: &str) -> bool {
    name.strip_prefix('$').is_some_and(|rest| {
        let mut chars = rest.chars();
        matches!(chars.next(), Some('x' | 'd' | 't')) && matches!(chars.next(), None | Some('.'))
    })
}

fn scope_of(symbol: &Symbol) -> Scope {
    match symbol.bind {
        elf::STB_LOCAL => Scope::Local,
        elf::STB_WEAK => Scope::Weak,
        _ => Scope::Global,
    }
}

/// Which of several names of one place is the atom's: strong before weak before local, the more telling size, then the alphabet.
fn preference(symbol: &Symbol) -> (bool, u8, bool, &str) {
    let scope = match scope_of(symbol) {
        Scope::Global => 0,
        Scope::Weak => 1,
        Scope::Local => 2,
    };
    (symbol.size == 0, scope, symbol.name.ends_with(".localalias"), &symbol.name)
}

/// Cuts all sections; `points` are the places that relocations refer to, by section.
pub(super) fn cut(elf: &Elf<'_>, points: &[BTreeSet<u64>], object: &mut Object) -> Cut {
    let mut cut = Cut { spans: vec![Vec::new(); elf.sections.len()], of_symbol: vec![None; elf.symbols.len()] };
    let mut named: Vec<BTreeMap<u64, Vec<usize>>> = vec![BTreeMap::new(); elf.sections.len()];
    for (i, symbol) in elf.symbols.iter().enumerate() {
        match symbol.place {
            Place::Section(section) if names_something(symbol) => {
                named[section].entry(symbol.value).or_default().push(i);
            }
            Place::Common => {
                let id = AtomId(object.atoms.len());
                let mut atom = blank(&symbol.name, AtomKind::ZeroData, "COMMON", usize::MAX);
                atom.scope = scope_of(symbol);
                atom.hidden = symbol.hidden;
                atom.size = symbol.size;
                atom.align = symbol.value.max(1);
                object.atoms.push(atom);
                cut.of_symbol[i] = Some((id, 0));
            }
            _ => {}
        }
    }
    let none = BTreeSet::new();
    for (index, section) in elf.sections.iter().enumerate() {
        if let Some(kind) = kind_of(section) {
            let points = points.get(index).unwrap_or(&none);
            cut_section(elf, index, section, kind, &named[index], points, object, &mut cut);
        }
    }
    cut
}

fn blank(name: &str, kind: AtomKind, section: &str, section_index: usize) -> Atom {
    Atom {
        name: name.to_owned(),
        anonymous: false,
        kind,
        scope: Scope::Local,
        hidden: false,
        comdat: None,
        section: section.to_owned(),
        section_index,
        offset: 0,
        size: 0,
        align: 1,
        bytes: Vec::new(),
        refs: Vec::new(),
        parent: None,
        frame: None,
        ifunc: false,
        problem: None,
    }
}

/// The alignment that a copy of what stands at `offset` needs at most.
fn align_at(section: &Section<'_>, offset: u64) -> u64 {
    let place = if offset == 0 { section.align } else { 1 << offset.trailing_zeros() };
    place.min(section.align)
}

fn atom_of(index: usize, section: &Section<'_>, kind: AtomKind, start: u64, end: u64) -> Atom {
    let mut atom = blank(&format!("{}+{start:#x}", section.name), kind, &section.name, index);
    if !atom.name.starts_with('.') {
        atom.name.insert(0, '.');
    }
    atom.anonymous = true;
    atom.comdat.clone_from(&section.comdat);
    atom.offset = start;
    atom.size = end - start;
    atom.align = align_at(section, start);
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    atom.bytes = range.and_then(|(s, e)| section.bytes.get(s..e)).map(<[u8]>::to_vec).unwrap_or_default();
    atom
}

#[allow(clippy::too_many_arguments)] // one call; the arguments are one section and the two results
fn cut_section(
    elf: &Elf<'_>,
    index: usize,
    section: &Section<'_>,
    kind: AtomKind,
    named: &BTreeMap<u64, Vec<usize>>,
    points: &BTreeSet<u64>,
    object: &mut Object,
    cut: &mut Cut,
) {
    let mut free = 0; // everything before is covered
    let mut starts = named.iter().peekable();
    while let Some((&start, symbols)) = starts.next() {
        let first = *symbols.iter().min_by_key(|i| preference(&elf.symbols[**i])).expect("entries are never empty");
        let size = symbols.iter().map(|i| elf.symbols[*i].size).max().unwrap_or(0);
        if start < free {
            inner_label(elf, symbols, start, start + size, object, cut);
            continue;
        }
        if free < start {
            cut_gap(index, section, kind, free, start, points, object, cut);
        }
        let next = starts.peek().map_or(section.size, |(next, _)| **next);
        let sized = size > 0 || next == start || kind != AtomKind::Function;
        let end = if sized { start + size } else { next };
        let id = AtomId(object.atoms.len());
        let symbol = &elf.symbols[first];
        let mut atom = atom_of(index, section, kind, start, end);
        atom.name.clone_from(&symbol.name);
        atom.anonymous = false;
        atom.scope = scope_of(symbol);
        atom.hidden = symbol.hidden;
        atom.ifunc = symbol.kind == elf::STT_GNU_IFUNC;
        // A function alone in its section ends where the section does.
        let alone = start == 0 && named.len() == 1 && symbol.kind == elf::STT_FUNC;
        if !sized && !alone {
            atom.problem = Some(format!("{} has no size: nobody says where it ends", symbol.name));
        } else if symbols.iter().any(|i| !matches!(elf.symbols[*i].size, 0) && elf.symbols[*i].size != size) {
            atom.problem = Some(format!("{} has several names of different sizes", symbol.name));
        }
        object.atoms.push(atom);
        cut.spans[index].push((start, end, id));
        free = end;
        for i in symbols {
            cut.of_symbol[*i] = Some((id, 0));
            if *i != first {
                object.aliases.push((elf.symbols[*i].name.clone(), id));
            }
        }
    }
    if free < section.size {
        cut_gap(index, section, kind, free, section.size, points, object, cut);
    }
}

/// A symbol inside another one's range.
fn inner_label(elf: &Elf<'_>, symbols: &[usize], start: u64, end: u64, object: &mut Object, cut: &mut Cut) {
    for &i in symbols {
        let Place::Section(section) = elf.symbols[i].place else { continue };
        let Some(&(outer_start, outer_end, id)) = cut.spans[section].iter().rfind(|(s, ..)| *s <= start) else {
            continue;
        };
        cut.of_symbol[i] = Some((id, start - outer_start));
        let how = if end > outer_end { "overlaps" } else { "stands inside" };
        let atom = &mut object.atoms[id.0];
        atom.problem = Some(format!("the symbol {} {how} {}", elf.symbols[i].name, atom.name));
    }
}

/// A stretch that no symbol covers.
#[allow(clippy::too_many_arguments)]
fn cut_gap(
    index: usize,
    section: &Section<'_>,
    kind: AtomKind,
    start: u64,
    end: u64,
    points: &BTreeSet<u64>,
    object: &mut Object,
    cut: &mut Cut,
) {
    let mut push = |start: u64, end: u64, problem: Option<String>| {
        let id = AtomId(object.atoms.len());
        let mut atom = atom_of(index, section, kind, start, end);
        atom.problem = problem;
        object.atoms.push(atom);
        cut.spans[index].push((start, end, id));
    };
    let bytes = |s: u64, e: u64| section.bytes.get(s as usize..e as usize).unwrap_or(&[]);
    if section.has(elf::SHF_MERGE)
        && section.entsize > 0
        && section.bytes.len() as u64 == section.size
        && section.relocs.is_empty()
    {
        let step = section.entsize;
        let mut from = start;
        while from < end {
            let mut to = end.min(from.saturating_add(step));
            if section.has(elf::SHF_STRINGS) {
                while to < end && bytes(to - step, to).iter().any(|b| *b != 0) {
                    to = end.min(to.saturating_add(step));
                }
            }
            push(from, to, None);
            from = to;
        }
        return;
    }
    let relocated =
        section.relocs.partition_point(|r| r.offset < start) < section.relocs.partition_point(|r| r.offset < end);
    let referred = relocated || points.range(start..end).next().is_some();
    let empty = |s: u64, e: u64| bytes(s, e).iter().all(|b| *b == 0) && points.range(s..e).next().is_none();
    let padding = !relocated && end - start < section.align.max(if end == section.size { 1 } else { 64 });
    match kind {
        // Padding between functions is no-operations, which nobody refers to.
        AtomKind::Function if !referred && end - start < section.align => {}
        AtomKind::Function => push(start, end, Some(format!("{} holds code without a symbol", section.name))),
        AtomKind::ReadOnly if !(padding && empty(start, end)) => {
            // Alignment padding in front is left out, so that a copy can be aligned like the original.
            let mut from = start;
            let mut align = section.align;
            while align > 1 {
                match start.checked_next_multiple_of(align) {
                    Some(up) if up < end && empty(start, up) => {
                        from = up;
                        break;
                    }
                    _ => align /= 2,
                }
            }
            let doubt = (align_at(section, from) < section.align)
                .then(|| format!("{} holds data of unknown alignment without a symbol", section.name));
            push(from, end, doubt);
        }
        AtomKind::Constructors => push(start, end, None),
        // A sanitizer's description of one place of the code: whoever copies the code may copy it too.
        AtomKind::Data if section.name.contains("..Lubsan_") => push(start, end, None),
        AtomKind::Data | AtomKind::ZeroData | AtomKind::TlsData | AtomKind::TlsZero
            if referred || !(padding && empty(start, end)) =>
        {
            push(start, end, Some(format!("{} holds writable data without a symbol", section.name)));
        }
        _ => {}
    }
}
