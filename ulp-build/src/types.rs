// SPDX-License-Identifier: GPL-2.0-or-later
//! Compares types, through DWARF. Code that was recompiled with another layout of a structure must not meet objects that
//! the running program has already made with the old one, and no instruction need differ for that to happen. Every named
//! structure, union, class and enumeration of a unit, anonymous ones behind a typedef, and the type of every variable with
//! a fixed place are described as text in which other named types stand by their name; what exists in both objects and is
//! described differently is refused. Types that only one object has are nobody's business here: their objects are new, or gone.

use crate::model::{Code, Refusal};
use std::collections::BTreeMap;

mod dwarf;

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub refusals: Vec<Refusal>,
    pub warnings: Vec<String>,
}

/// Compares the types of two recompiled objects of one unit.
pub fn compare(orig: &[u8], fix: &[u8]) -> Result<Report, Refusal> {
    let (orig, fix) = (Types::read(orig)?, Types::read(fix)?);
    let mut report = Report::default();
    for (key, old) in &orig.layouts {
        let Some(new) = fix.layouts.get(key) else { continue };
        if old == new {
            continue;
        }
        match difference(old, new) {
            None => {}
            Some(Difference::Names(which)) => report.warnings.push(format!("{key}: {which}; its layout is the same")),
            Some(Difference::Layout(which)) => report.refusals.push(Refusal {
                code: Code::Layout,
                symbol: Some(key.clone()),
                message: format!("{key} has another layout in the fixed sources: {which}"),
                advice:
                    "objects of the old layout may be alive; keep the layout and put new state into new variables, or \
                         overrule with --accept E-LAYOUT when no such object can meet the new code"
                        .to_owned(),
            }),
        }
    }
    Ok(report)
}

/// How one type is laid out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Layout {
    /// Size and alignment, as far as they are stated.
    whole: String,
    parts: Vec<Part>,
    /// Parts may be added at the end without harm: enumerators.
    open_ended: bool,
}

/// A member or an enumerator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    name: String,
    /// Offset, bits and type, or the value.
    what: String,
}

enum Difference {
    Layout(String),
    Names(String),
}

fn difference(old: &[Layout], new: &[Layout]) -> Option<Difference> {
    if old.len() != new.len() {
        return Some(Difference::Layout("there are more or fewer things of this name".to_owned()));
    }
    // Several of one name (static variables of sibling blocks) are compared as a set: sorted when they were read.
    let differences: Vec<Difference> = old.iter().zip(new).filter_map(|(o, n)| one_difference(o, n)).collect();
    let layout = differences.iter().position(|d| matches!(d, Difference::Layout(_)));
    differences.into_iter().nth(layout.unwrap_or(0))
}

fn one_difference(old: &Layout, new: &Layout) -> Option<Difference> {
    if old.open_ended && new.open_ended {
        let changed = old.parts.iter().find(|o| !new.parts.contains(o));
        return match changed {
            Some(part) => Some(Difference::Layout(format!("enumerator {} is gone or has another value", part.name))),
            None if old.whole != new.whole => Some(layout_changed(&old.whole, &new.whole)),
            None => None,
        };
    }
    for (o, n) in old.parts.iter().zip(&new.parts) {
        if o.what != n.what {
            return Some(Difference::Layout(format!(
                "member {} was '{}' and is now {} '{}'",
                o.name, o.what, n.name, n.what
            )));
        }
    }
    if let Some(part) = new.parts.get(old.parts.len()) {
        return Some(Difference::Layout(format!("member {} is new", part.name)));
    }
    if let Some(part) = old.parts.get(new.parts.len()) {
        return Some(Difference::Layout(format!("member {} is gone", part.name)));
    }
    if old.whole != new.whole {
        return Some(layout_changed(&old.whole, &new.whole));
    }
    let renamed = old.parts.iter().zip(&new.parts).find(|(o, n)| o.name != n.name);
    renamed.map(|(o, n)| Difference::Names(format!("member {} is now called {}", o.name, n.name)))
}

fn layout_changed(old: &str, new: &str) -> Difference {
    Difference::Layout(format!("it was '{old}' and is now '{new}'"))
}

/// The described types and variables of one object, by kind and scoped name.
struct Types {
    layouts: BTreeMap<String, Vec<Layout>>,
}

impl Types {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut layouts = BTreeMap::new();
        for tree in dwarf::trees(bytes)? {
            let description = Description { tree: &tree };
            for index in 0..tree.nodes.len() {
                if let Some((key, layout)) = description.entry(index) {
                    layouts.entry(key).or_insert_with(Vec::new).push(layout);
                }
            }
        }
        for same_name in layouts.values_mut() {
            same_name.sort();
            same_name.dedup();
        }
        Ok(Self { layouts })
    }
}

/// Puts the entries of one unit into words.
struct Description<'a> {
    tree: &'a dwarf::Tree,
}

impl Description<'_> {
    /// The key and layout of an entry that is a type definition with a name, or a variable with a fixed place.
    fn entry(&self, index: usize) -> Option<(String, Layout)> {
        let node = self.tree.nodes.get(index)?;
        match node.tag {
            gimli::DW_TAG_structure_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_enumeration_type
                if !node.declaration =>
            {
                let name = self.scoped_name(index)?;
                Some((format!("{} {name}", kind(node.tag)), self.layout(index)))
            }
            // A typedef is the only name that an anonymous type may have.
            gimli::DW_TAG_typedef => {
                let target = self.tree.nodes.get(node.type_of?)?;
                if target.name.is_some() || !is_composite(target.tag) {
                    return None;
                }
                Some((format!("type {}", self.scoped_name(index)?), self.layout(node.type_of?)))
            }
            gimli::DW_TAG_variable if node.fixed_place => {
                let named = node.specification.unwrap_or(index);
                let type_of = node.type_of.or(self.tree.nodes.get(named)?.type_of);
                let whole = self.reference(type_of, 0);
                Some((
                    format!("variable {}", self.scoped_name(named)?),
                    Layout { whole, parts: Vec::new(), open_ended: false },
                ))
            }
            _ => None,
        }
    }

    /// `function::block variable`: namespaces, types and functions around, outermost first.
    fn scoped_name(&self, index: usize) -> Option<String> {
        let mut name = self.tree.nodes.get(index)?.name.clone()?;
        let mut at = self.tree.nodes.get(index)?.parent;
        while let Some(parent) = at.and_then(|i| self.tree.nodes.get(i)) {
            let origin = parent.specification.and_then(|i| self.tree.nodes.get(i));
            if let Some(outer) = parent.name.as_ref().or(origin.and_then(|o| o.name.as_ref()))
                && parent.tag != gimli::DW_TAG_compile_unit
            {
                name = format!("{outer}::{name}");
            }
            at = parent.parent;
        }
        Some(name)
    }

    fn layout(&self, index: usize) -> Layout {
        let Some(node) = self.tree.nodes.get(index) else {
            return Layout { whole: "unknown".to_owned(), parts: Vec::new(), open_ended: false };
        };
        let is_enum = node.tag == gimli::DW_TAG_enumeration_type;
        let mut whole = format!("{} of {} bytes", kind(node.tag), words(node.size));
        if let Some(align) = node.alignment {
            whole.push_str(&format!(" aligned to {align}"));
        }
        let parts = node.children.iter().filter_map(|i| self.part(*i)).collect();
        Layout { whole, parts, open_ended: is_enum }
    }

    fn part(&self, index: usize) -> Option<Part> {
        let node = self.tree.nodes.get(index)?;
        let what = match node.tag {
            gimli::DW_TAG_enumerator => words(node.value),
            gimli::DW_TAG_member if node.declaration || node.external => return None, // C++ static member: no place in the object
            gimli::DW_TAG_member | gimli::DW_TAG_inheritance => {
                let mut what = format!("at {} {}", words(node.offset.or(Some(0))), self.reference(node.type_of, 0));
                if let Some(bits) = node.bit_size {
                    what.push_str(&format!(", {bits} bits at bit {}", words(node.bit_offset)));
                }
                what
            }
            _ => return None,
        };
        Some(Part { name: node.name.clone().unwrap_or_else(|| "(unnamed)".to_owned()), what })
    }

    /// A type as another one refers to it: named ones by their name, everything else spelled out.
    fn reference(&self, type_of: Option<usize>, depth: usize) -> String {
        /// Deeper than any declaration that people write; a cycle of unnamed types would be damage.
        const DEEPEST: usize = 64;
        let Some(node) = type_of.and_then(|i| self.tree.nodes.get(i)) else { return "void".to_owned() };
        if depth > DEEPEST {
            return "too deep".to_owned();
        }
        let inner = || self.reference(node.type_of, depth + 1);
        match node.tag {
            // Qualifiers change no layout.
            gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type | gimli::DW_TAG_restrict_type => inner(),
            gimli::DW_TAG_atomic_type => format!("_Atomic {}", inner()),
            // What a typedef stands for is what matters, except for an anonymous type, which is compared under this name.
            gimli::DW_TAG_typedef => match node.type_of.and_then(|i| self.tree.nodes.get(i)) {
                Some(target) if target.name.is_none() && is_composite(target.tag) => {
                    node.name.clone().unwrap_or_default()
                }
                _ => inner(),
            },
            gimli::DW_TAG_base_type => {
                format!("{} of {} bytes", node.name.as_deref().unwrap_or("number"), words(node.size))
            }
            gimli::DW_TAG_pointer_type => format!("pointer to {}", self.pointee(node.type_of, depth + 1)),
            gimli::DW_TAG_reference_type | gimli::DW_TAG_rvalue_reference_type => {
                format!("reference to {}", self.pointee(node.type_of, depth + 1))
            }
            gimli::DW_TAG_array_type => {
                let bounds: String = node.children.iter().filter_map(|i| self.bound(*i)).collect();
                format!("array {bounds} of {}", inner())
            }
            gimli::DW_TAG_subroutine_type => {
                let parameters: Vec<String> = node
                    .children
                    .iter()
                    .filter_map(|i| self.tree.nodes.get(*i))
                    .map(|c| match c.tag {
                        gimli::DW_TAG_unspecified_parameters => "...".to_owned(),
                        _ => self.reference(c.type_of, depth + 1),
                    })
                    .collect();
                format!("function ({}) giving {}", parameters.join(", "), inner())
            }
            tag if is_composite(tag) => match &node.name {
                Some(name) => format!("{} {name}", kind(tag)),
                None => {
                    let index = type_of.unwrap_or_default();
                    let layout = self.layout_at(index, depth + 1);
                    format!("{{{layout}}}")
                }
            },
            tag => format!("{tag} {} {}", node.name.as_deref().unwrap_or(""), inner()),
        }
    }

    /// An anonymous structure inside another type, spelled out.
    fn layout_at(&self, index: usize, depth: usize) -> String {
        let Some(node) = self.tree.nodes.get(index) else { return "unknown".to_owned() };
        let mut text = format!("{} of {} bytes:", kind(node.tag), words(node.size));
        for child in node.children.iter().filter_map(|i| self.tree.nodes.get(*i)) {
            let name = child.name.as_deref().unwrap_or("(unnamed)");
            match child.tag {
                gimli::DW_TAG_member => {
                    let place = words(child.offset.or(Some(0)));
                    let bits =
                        child.bit_size.map(|b| format!(" {b} bits at {}", words(child.bit_offset))).unwrap_or_default();
                    text.push_str(&format!(" {name} at {place} {}{bits};", self.reference(child.type_of, depth + 1)));
                }
                gimli::DW_TAG_enumerator => text.push_str(&format!(" {name}={};", words(child.value))),
                _ => {}
            }
        }
        text
    }

    /// What a pointer points at, by name only: a change behind it is that type's own change.
    fn pointee(&self, type_of: Option<usize>, depth: usize) -> String {
        match type_of.and_then(|i| self.tree.nodes.get(i)) {
            Some(node) if is_composite(node.tag) && node.name.is_none() => format!("anonymous {}", kind(node.tag)),
            _ => self.reference(type_of, depth),
        }
    }

    fn bound(&self, index: usize) -> Option<String> {
        let node = self.tree.nodes.get(index)?;
        (node.tag == gimli::DW_TAG_subrange_type).then(|| match (node.count, node.upper_bound) {
            (Some(count), _) => format!("[{count}]"),
            (None, Some(last)) => format!("[{}]", last.wrapping_add(1)),
            (None, None) => "[]".to_owned(),
        })
    }
}

fn words<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |v| v.to_string())
}

fn kind(tag: gimli::DwTag) -> &'static str {
    match tag {
        gimli::DW_TAG_structure_type => "struct",
        gimli::DW_TAG_union_type => "union",
        gimli::DW_TAG_class_type => "class",
        gimli::DW_TAG_enumeration_type => "enum",
        _ => "type",
    }
}

fn is_composite(tag: gimli::DwTag) -> bool {
    kind(tag) != "type"
}
