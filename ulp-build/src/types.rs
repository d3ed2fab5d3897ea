// SPDX-License-Identifier: GPL-2.0-or-later
//! What debug information says about a unit: the layout of every type that has a name, the type of every variable, and which
//! function a static variable belongs to. Only what the compiler describes can be compared; no description is no answer.

mod dwarf;
mod layout;

pub use layout::compare;

use crate::model::{Code, Refusal};
use crate::object::{AtomId, Elf, Object};
use std::collections::BTreeMap;

/// The debug information of one object, as far as a comparison needs it.
#[derive(Clone, Debug, Default)]
pub struct Debug {
    pub variables: Variables,
    /// By kind and qualified name (`struct request`, `enum color`). C allows several types of one name in different blocks.
    pub layouts: BTreeMap<String, Vec<Layout>>,
    /// Enumerators of enumerations without a name: value by name.
    pub enumerators: BTreeMap<String, i128>,
}

/// Variables by the atom they live in.
#[derive(Clone, Debug, Default)]
pub struct Variables(pub BTreeMap<AtomId, Variable>);

impl Variables {
    pub fn of(&self, atom: AtomId) -> Option<&Variable> {
        self.0.get(&atom)
    }
}

/// A variable with a place of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    /// The function that declares it.
    pub function: Option<String>,
    /// Place in the order of declarations.
    pub order: usize,
    /// Its type, spelled out as far as layout goes.
    pub signature: String,
}

/// How a type lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub size: Option<u64>,
    pub members: Vec<Member>,
}

/// One member of a struct or union, base class, virtual function, or enumerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Bits from the start; the slot of a virtual function; the value of an enumerator.
    pub place: i128,
    /// Width in bits, where it is not the type's.
    pub width: Option<u64>,
    pub signature: String,
}

/// Reads what debug information an object has. An object with code or variables and none at all is refused.
pub(crate) fn read(elf: &Elf<'_>, object: &Object) -> Result<Debug, Refusal> {
    let name = object.path.display();
    let refusal = |message: String| Refusal {
        code: Code::Unsupported,
        symbol: Some(name.to_string()),
        message,
        advice: "compile with -g and without -gsplit-dwarf".into(),
    };
    if !elf.sections.iter().any(|s| s.name == ".debug_info") {
        if object.atoms.is_empty() {
            return Ok(Debug::default());
        }
        return Err(refusal(format!("{name} has no debug information, without which types cannot be compared")));
    }
    let dies = dwarf::read(elf).map_err(|e| refusal(format!("the debug information of {name} cannot be read: {e}")))?;
    Ok(layout::describe(&dies, elf, object))
}
