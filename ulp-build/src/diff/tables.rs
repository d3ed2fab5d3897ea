// SPDX-License-Identifier: GPL-2.0-or-later
//! Tables that the linker collects and that no code of the object refers to: exception fix-ups, jump labels, alternative
//! instructions, lists of call sites. An entry says something about the function that it points into, so that a function whose
//! entries changed has changed, though its own bytes are the same. What an entry looks like is known to the program alone: it
//! is taken to reach from one pointer into a function to the next.

use super::twins::{Twins, unnumbered};
use crate::object::{AtomId, AtomKind, Object, Ref, Target};
use std::collections::{BTreeMap, BTreeSet};

/// The entries of each function, in words of their own.
type Entries = BTreeMap<AtomId, Vec<String>>;

/// The fixed functions whose entries are not those of their twins.
pub(super) fn touched(orig: &Object, fix: &Object, twins: &Twins) -> Vec<AtomId> {
    let (old, new) = (entries(orig), entries(fix));
    let none = Vec::new();
    let differs =
        |(f, o): (&AtomId, &AtomId)| (old.get(o).unwrap_or(&none) != new.get(f).unwrap_or(&none)).then_some(*f);
    twins.of.iter().filter_map(differs).collect()
}

fn entries(object: &Object) -> Entries {
    let function = |r: &Ref| match r.target {
        Target::Atom(id) => object.atoms.get(id.0).filter(|a| a.kind == AtomKind::Function && !a.anonymous).map(|_| id),
        Target::Import(_) => None,
    };
    let used: BTreeSet<AtomId> = (object.atoms.iter().filter(|a| a.kind == AtomKind::Function && !a.anonymous))
        .flat_map(|a| &a.refs)
        .filter_map(|r| if let Target::Atom(id) = r.target { Some(id) } else { None })
        .collect();
    let mut points: BTreeMap<AtomId, BTreeSet<i64>> = BTreeMap::new();
    for r in object.atoms.iter().flat_map(|a| &a.refs) {
        if let Target::Atom(id) = r.target {
            points.entry(id).or_default().insert(r.target_offset);
        }
    }
    let mut found = Entries::new();
    for (index, table) in object.atoms.iter().enumerate() {
        let candidate = table.anonymous && table.kind != AtomKind::Constructors && !used.contains(&AtomId(index));
        if !candidate || table.kind == AtomKind::Function {
            continue;
        }
        let mut refs = table.refs.iter().peekable();
        while let Some(first) = refs.next() {
            let Some(owner) = function(first) else { continue };
            let mut entry = format!("{} {}", table.section, say(object, &points, first));
            while let Some(next) = refs.next_if(|r| function(r) != Some(owner) && function(r).is_none()) {
                entry += &format!(" +{} {}", next.offset - first.offset, say(object, &points, next));
            }
            let end = refs.peek().map_or(table.bytes.len() as u64, |r| r.offset);
            let bytes = usize::try_from(first.offset).ok().zip(usize::try_from(end).ok());
            let bytes = bytes.and_then(|(s, e)| table.bytes.get(s..e)).unwrap_or(&[]);
            entry += &format!(" {}", ulp_format::hex::encode(bytes));
            found.entry(owner).or_default().push(entry);
        }
    }
    found
}

/// What a reference means, in words that are the same in both objects when it is.
fn say(object: &Object, points: &BTreeMap<AtomId, BTreeSet<i64>>, r: &Ref) -> String {
    let id = match r.target {
        Target::Import(index) => {
            let name = object.imports.get(index).map_or("", |i| i.name.as_str());
            return format!("{} {name} {}", r.r_type, r.target_offset);
        }
        Target::Atom(id) => id,
    };
    let Some(atom) = object.atoms.get(id.0) else { return String::new() };
    if !atom.anonymous {
        return format!("{} {} {}", r.r_type, unnumbered(&atom.name), r.target_offset);
    }
    // Without a name: the content, up to the next place that something refers to.
    let next = points.get(&id).and_then(|p| p.range(r.target_offset + 1..).next().copied());
    let start = usize::try_from(r.target_offset).unwrap_or(usize::MAX);
    let end = next.and_then(|n| usize::try_from(n).ok()).unwrap_or(atom.bytes.len()).min(atom.bytes.len());
    let mut text = format!("{} {}", r.r_type, ulp_format::hex::encode(atom.bytes.get(start..end).unwrap_or(&[])));
    for inner in atom.refs.iter().filter(|i| (start as u64..end as u64).contains(&i.offset)) {
        let name = match inner.target {
            Target::Import(index) => object.imports.get(index).map_or(String::new(), |i| i.name.clone()),
            Target::Atom(id) => {
                object.atoms.get(id.0).filter(|a| !a.anonymous).map_or(String::new(), |a| unnumbered(&a.name))
            }
        };
        text += &format!(" +{} {} {name} {}", inner.offset - start as u64, inner.r_type, inner.target_offset);
    }
    text
}
