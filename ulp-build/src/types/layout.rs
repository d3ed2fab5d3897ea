// SPDX-License-Identifier: GPL-2.0-or-later
//! Describes types as they lie in memory, and compares the descriptions. Objects of a type outlive the functions that made them,
//! so a layout may not change while the program runs, even where no function's code shows it.

use super::dwarf::{Die, TypeRef};
use super::{Debug, Layout, Member, Variable};
use crate::model::{Code, Refusal};
use crate::object::{AtomId, Elf, Object};
use gimli::constants as dw;
use std::collections::{BTreeMap, HashMap};

/// Deeper nesting of nameless types than any compiler writes: a loop in damaged debug information ends here.
const DEPTH: usize = 64;

pub(super) fn describe(dies: &[Die], elf: &Elf<'_>, object: &Object) -> Debug {
    let mut debug = Debug::default();
    let mut at: HashMap<(usize, u64), AtomId> = HashMap::new();
    let mut common: HashMap<&str, AtomId> = HashMap::new();
    for (i, atom) in object.atoms.iter().enumerate() {
        if atom.section_index == usize::MAX {
            common.insert(&atom.name, AtomId(i));
        } else if !atom.anonymous {
            at.insert((atom.section_index, atom.offset), AtomId(i));
        }
    }
    for (index, die) in dies.iter().enumerate() {
        match die.tag {
            dw::DW_TAG_structure_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_typedef
                if !die.declaration =>
            {
                if frame_only(dies, index) {
                    continue;
                }
                if let Some(name) = type_name(dies, index) {
                    let layout = layout(dies, index, 0);
                    let known = debug.layouts.entry(name).or_default();
                    if !known.contains(&layout) {
                        known.push(layout);
                    }
                } else if die.tag == dw::DW_TAG_enumeration_type {
                    for child in &die.children {
                        if let (Some(name), Some(value)) = (&dies[*child].name, dies[*child].value) {
                            debug.enumerators.insert(name.clone(), value);
                        }
                    }
                }
            }
            dw::DW_TAG_variable => {
                let Some((section, offset)) = die.place else { continue };
                let symbol = section.checked_sub(elf.sections.len()).and_then(|s| elf.symbols.get(s));
                let atom = match symbol {
                    Some(symbol) => common.get(symbol.name.as_str()),
                    None => at.get(&(section, offset)),
                };
                if let Some(atom) = atom {
                    let variable = variable(dies, index);
                    debug.variables.0.entry(*atom).or_insert(variable);
                }
            }
            _ => {}
        }
    }
    debug
}

/// Whether a type is declared in a function and has no objects but that function's automatic variables. Old code is never
/// left to run beside the new code of the same frame, so that no object of the old layout can be met. A pointer to the
/// type, an array or a member of it: then nobody knows where its objects are.
fn frame_only(dies: &[Die], index: usize) -> bool {
    if dies[index].tag == dw::DW_TAG_typedef {
        return false;
    }
    let mut scope = dies[index].parent;
    while let Some(at) = scope {
        if dies[at].tag == dw::DW_TAG_subprogram {
            let mut users = dies.iter().filter(|die| matches!(die.ty, Some(TypeRef::Die(to)) if to == index));
            return users.all(|die| die.tag == dw::DW_TAG_variable && die.place.is_none());
        }
        scope = dies[at].parent;
    }
    false
}

/// The entry that has the name and the type: the declaration or the abstract instance, where this one is only a copy.
fn origin(dies: &[Die], mut index: usize) -> usize {
    for _ in 0..DEPTH {
        match dies[index].origin {
            Some(next) => index = next,
            None => break,
        }
    }
    index
}

fn variable(dies: &[Die], index: usize) -> Variable {
    let declared = origin(dies, index);
    let mut function = None;
    let mut scope = dies[declared].parent;
    while let Some(at) = scope {
        if dies[at].tag == dw::DW_TAG_subprogram {
            let named = &dies[origin(dies, at)];
            function = named.linkage_name.clone().or_else(|| named.name.clone());
            break;
        }
        scope = dies[at].parent;
    }
    let ty = dies[index].ty.or(dies[declared].ty);
    Variable {
        name: dies[declared].name.clone().unwrap_or_default(),
        function,
        order: declared,
        signature: signature(dies, ty, 0),
    }
}

/// Kind and qualified name; `None` where a type has no name.
fn type_name(dies: &[Die], index: usize) -> Option<String> {
    let die = &dies[index];
    let kind = match die.tag {
        dw::DW_TAG_union_type => "union",
        dw::DW_TAG_enumeration_type => "enum",
        dw::DW_TAG_typedef => "typedef",
        // `struct` and `class` are one thing to C++.
        _ => "struct",
    };
    let mut path = die.name.clone()?;
    let mut scope = die.parent;
    while let Some(at) = scope {
        let outer = &dies[at];
        let unit = [dw::DW_TAG_compile_unit, dw::DW_TAG_type_unit, dw::DW_TAG_partial_unit].contains(&outer.tag);
        if !unit && outer.tag != dw::DW_TAG_lexical_block {
            let name = dies[origin(dies, at)].name.clone();
            path = format!("{}::{path}", name.unwrap_or_else(|| "(nameless)".into()));
        }
        scope = outer.parent;
    }
    Some(format!("{kind} {path}"))
}

fn layout(dies: &[Die], index: usize, depth: usize) -> Layout {
    let die = &dies[index];
    if die.tag == dw::DW_TAG_typedef {
        let whole = Member { name: String::new(), place: 0, width: None, signature: signature(dies, die.ty, depth) };
        return Layout { size: None, members: vec![whole] };
    }
    let mut members = Vec::new();
    for child in &die.children {
        let child = &dies[*child];
        let member = match child.tag {
            dw::DW_TAG_member | dw::DW_TAG_inheritance if !child.declaration => Member {
                name: child.name.clone().unwrap_or_default(),
                place: bit_place(dies, child),
                width: child.bit_size,
                signature: signature(dies, child.ty, depth + 1),
            },
            dw::DW_TAG_enumerator => Member {
                name: child.name.clone().unwrap_or_default(),
                place: child.value.unwrap_or_default(),
                width: None,
                signature: String::new(),
            },
            dw::DW_TAG_subprogram if child.slot.is_some() => Member {
                name: child.linkage_name.clone().or_else(|| child.name.clone()).unwrap_or_default(),
                place: child.slot.unwrap_or_default(),
                width: None,
                signature: "virtual".into(),
            },
            _ => continue,
        };
        members.push(member);
    }
    Layout { size: die.size, members }
}

/// Where a member begins, in bits.
fn bit_place(dies: &[Die], member: &Die) -> i128 {
    let bytes = member.at.unwrap_or(0) * 8;
    match (member.bit_at, member.old_bit_at, member.bit_size) {
        (Some(bits), ..) => i128::from(bits),
        // DWARF 3 counts from the most significant bit of the storage unit.
        (None, Some(from_top), Some(width)) => {
            let own = |ty| match ty {
                Some(TypeRef::Die(i)) => dies[origin(dies, i)].size,
                _ => None,
            };
            let unit = member.size.or_else(|| own(member.ty)).unwrap_or(0);
            bytes + i128::from(unit) * 8 - i128::from(from_top) - i128::from(width)
        }
        _ => bytes,
    }
}

/// A type in words, as far as layout goes: names of named types stand for them, since they are compared on their own.
fn signature(dies: &[Die], ty: Option<TypeRef>, depth: usize) -> String {
    let index = match ty {
        None => return "void".into(),
        Some(TypeRef::Signature(s)) => return format!("type unit {s:016x}"),
        Some(TypeRef::Die(index)) => index,
    };
    if depth > DEPTH {
        return "too deep".into();
    }
    let die = &dies[index];
    let inner = |ty| signature(dies, ty, depth + 1);
    match die.tag {
        dw::DW_TAG_const_type
        | dw::DW_TAG_volatile_type
        | dw::DW_TAG_restrict_type
        | dw::DW_TAG_atomic_type
        | dw::DW_TAG_typedef => inner(die.ty),
        dw::DW_TAG_base_type => {
            // Signed and unsigned of one size lie the same; a fix may well change one into the other.
            let class = match die.encoding.map(|e| gimli::DwAte(e as u8)) {
                Some(
                    dw::DW_ATE_signed
                    | dw::DW_ATE_unsigned
                    | dw::DW_ATE_signed_char
                    | dw::DW_ATE_unsigned_char
                    | dw::DW_ATE_boolean
                    | dw::DW_ATE_UTF,
                ) => "integer".to_owned(),
                Some(dw::DW_ATE_float) => "float".to_owned(),
                other => format!("{other:?}"),
            };
            format!("{class} of {}", die.size.unwrap_or(0))
        }
        dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type | dw::DW_TAG_rvalue_reference_type => {
            format!("pointer to {}", inner(die.ty))
        }
        dw::DW_TAG_array_type => {
            let mut bounds = String::new();
            for child in die.children.iter().map(|c| &dies[*c]).filter(|c| c.tag == dw::DW_TAG_subrange_type) {
                let count = child.count.map(i128::from).or(child.upper.map(|upper| upper + 1));
                bounds += &count.map_or("[]".to_owned(), |count| format!("[{count}]"));
            }
            format!("{}{bounds}", inner(die.ty))
        }
        dw::DW_TAG_subroutine_type => {
            let parameters = die.children.iter().map(|c| &dies[*c]).map(|c| match c.tag {
                dw::DW_TAG_unspecified_parameters => "...".to_owned(),
                _ => inner(c.ty),
            });
            format!("function({}) giving {}", parameters.collect::<Vec<_>>().join(", "), inner(die.ty))
        }
        dw::DW_TAG_structure_type | dw::DW_TAG_union_type | dw::DW_TAG_class_type | dw::DW_TAG_enumeration_type => {
            match type_name(dies, index) {
                Some(name) => name,
                None => {
                    let layout = layout(dies, index, depth + 1);
                    let members =
                        layout.members.iter().map(|m| format!("{}@{}:{:?} {}", m.name, m.place, m.width, m.signature));
                    format!("{{{}}} of {:?}", members.collect::<Vec<_>>().join("; "), layout.size)
                }
            }
        }
        other => format!("{other} {} {} {:?}", die.name.as_deref().unwrap_or(""), inner(die.ty), die.size),
    }
}

/// Refuses every type and variable that both objects have and that lies differently. `copied` are the constants that the patch
/// brings anew: nobody meets the old ones through new code.
pub fn compare(
    old: &Debug,
    new: &Debug,
    copied: impl Fn(AtomId) -> bool,
    twins: &BTreeMap<AtomId, AtomId>,
    refusals: &mut Vec<Refusal>,
    warnings: &mut Vec<String>,
) {
    let mut refuse = |name: &str, what: String| {
        refusals.push(Refusal {
            code: Code::Layout,
            symbol: Some(name.to_owned()),
            message: format!("{name} changes: {what}; objects of it may be alive in the program"),
            advice: "keep the type as it is and put new members into a type of their own".into(),
        });
    };
    for (name, layouts) in &new.layouts {
        let Some(known) = old.layouts.get(name) else { continue };
        match (known.as_slice(), layouts.as_slice()) {
            ([a], [b]) => {
                if let Some(what) = difference(name, a, b, warnings) {
                    refuse(name, what);
                }
            }
            _ if known.iter().all(|a| layouts.contains(a)) => {}
            _ => refuse(name, "several types have this name, and one of them differs".into()),
        }
    }
    for (name, value) in &new.enumerators {
        if let Some(before) = old.enumerators.get(name)
            && before != value
        {
            refuse(name, format!("its value was {before} and becomes {value}"));
        }
    }
    for (atom, variable) in &new.variables.0 {
        let before = twins.get(atom).and_then(|o| old.variables.of(*o));
        if let Some(before) = before.filter(|_| !copied(*atom))
            && before.signature != variable.signature
        {
            refuse(&variable.name, format!("it was {} and becomes {}", before.signature, variable.signature));
        }
    }
}

/// What about a type is not as it was.
fn difference(name: &str, old: &Layout, new: &Layout, warnings: &mut Vec<String>) -> Option<String> {
    if old == new {
        return None;
    }
    let mut renamed = Vec::new();
    if name.starts_with("enum ") {
        let value = |layout: &Layout, name: &str| layout.members.iter().find(|m| m.name == name).map(|m| m.place);
        for member in &old.members {
            match value(new, &member.name) {
                Some(after) if after == member.place => {}
                Some(after) => return Some(format!("{} was {} and becomes {after}", member.name, member.place)),
                None => return Some(format!("{} is gone", member.name)),
            }
        }
    } else {
        // In the order of declaration, which is the order in memory but for unions.
        for (a, b) in old.members.iter().zip(&new.members) {
            if (a.place, a.width, &a.signature) != (b.place, b.width, &b.signature) {
                let told = |m: &Member| format!("{} ({} at bit {})", m.name, m.signature, m.place);
                return Some(format!("member {} becomes {}", told(a), told(b)));
            }
            if a.name != b.name {
                renamed.push((a.name.clone(), b.name.clone()));
            }
        }
        let count = old.members.len().min(new.members.len());
        if let Some(member) = old.members.get(count).or(new.members.get(count)) {
            return Some(format!("member {} comes or goes", member.name));
        }
    }
    if old.size != new.size {
        return Some(format!("its size was {:?} and becomes {:?}", old.size, new.size));
    }
    // Two members that change places keep the layout and swap their meaning.
    if renamed.iter().any(|(_, new_name)| old.members.iter().any(|m| m.name == *new_name)) {
        return Some("its members change places".into());
    }
    for (a, b) in renamed {
        warnings.push(format!("{name}: member {a} is called {b} now"));
    }
    None
}
