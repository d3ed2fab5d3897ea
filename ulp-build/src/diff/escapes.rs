// SPDX-License-Identifier: GPL-2.0-or-later
//! Changed constants whose old address may live on in the program: a table of operations that was registered at start-up is
//! still the old one after the patch, because nothing tells the data that points to it. Without a look at the code that took
//! the address, such a patch would do nothing and say nothing.

use super::checks::refuse;
use super::equal::{Comparison, is_constant, is_local_constant};
use crate::model::{Code, Refusal};
use crate::object::{Atom, AtomId, AtomKind, Object, Target};
use std::collections::BTreeMap;
use ulp_arch::AddressUse;

pub(super) fn check(comparison: &Comparison<'_>, refusals: &mut Vec<Refusal>, warnings: &mut Vec<String>) {
    let orig = comparison.orig;
    let mut worst: BTreeMap<AtomId, (AddressUse, &str)> = BTreeMap::new();
    let old_of = |f: &AtomId| comparison.twins.of.get(f).copied();
    for old in comparison.changed.iter().filter_map(old_of).filter(|o| followed(&orig.atoms[o.0])) {
        for user in orig.atoms.iter().filter(|a| a.kind == AtomKind::Function) {
            for r in user.refs.iter().filter(|r| r.target == Target::Atom(old)) {
                let field = usize::try_from(r.offset).unwrap_or(usize::MAX);
                let fate = comparison.arch.address_use(&user.bytes, field);
                let known = worst.entry(old).or_insert((fate, &user.name));
                if fate > known.0 {
                    *known = (fate, &user.name);
                }
            }
        }
    }
    for (id, (fate, user)) in worst {
        let name = &orig.atoms[id.0].name;
        // Text that is printed is handed on too, and nobody keeps it; a table of functions is handed over to be kept.
        let lasting = fate == AddressUse::Stored || fate == AddressUse::Handed && has_functions(orig, id);
        if lasting {
            let message = format!(
                "{name} changed, and {user} may have left its address in live data, which keeps the old content"
            );
            let advice = "change the functions behind it instead, or accept that what was registered stays as it was";
            refusals.push(refuse(Code::Escaped, name, message, advice));
        } else if fate == AddressUse::Handed {
            warnings.push(format!(
                "{name} changed; whoever {user} gave its address to earlier goes on with the old content"
            ));
        }
    }
}

/// Constants that have a name in the source. Nameless ones are part of the code that uses them, and `__func__` is text for people.
fn followed(atom: &Atom) -> bool {
    let told = ["__func__.", "__FUNCTION__.", "__PRETTY_FUNCTION__."];
    is_constant(atom)
        && is_local_constant(atom)
        && !atom.anonymous
        && !told.iter().any(|name| atom.name.starts_with(name))
}

fn has_functions(object: &Object, id: AtomId) -> bool {
    object.atoms[id.0].refs.iter().any(|r| match r.target {
        Target::Atom(target) => object.atoms[target.0].kind == AtomKind::Function,
        Target::Import(_) => true,
    })
}
