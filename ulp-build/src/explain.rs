// SPDX-License-Identifier: GPL-2.0-or-later
//! `--explain FUNCTION`: how a function fared in the two comparisons that stand between a recompile and a patch: the recompiled
//! original against the object that was linked, and the linked code against production. Where one differs, both
//! disassemblies are shown around the first difference.

use crate::diff::UnitDiff;
use crate::model::Built;
use crate::object::{AtomKind, Object};
use crate::production::Elf;
use crate::reproduce;
use crate::resolve::place::{Linked, Pristine};
use std::fmt::Write as _;
use ulp_arch::{Arch, LinkAddr};
use ulp_format::Identity;

/// Instructions shown before and behind the first that differs.
const AROUND: usize = 4;

/// What there is to say of every function of this name.
pub fn explain(built: &Built, diffs: &[UnitDiff], function: &str) -> String {
    let mut text = String::new();
    for (unit, diff) in built.units.iter().zip(diffs) {
        let Some(pristine) = unit.pristine.as_deref().and_then(|path| Some((path, std::fs::read(path).ok()?))) else {
            continue;
        };
        let Ok(pristine) = Pristine::read(pristine.0, &pristine.1, diff.orig.as_deref()) else { continue };
        let object = &pristine.object;
        let Some(arch) = ulp_arch::by_machine(object.machine) else { continue };
        let named = |o: &Object| o.atoms.iter().position(|a| a.kind == AtomKind::Function && a.name == function);
        let Some(theirs) = named(object) else { continue };
        let linked_bytes = object.atoms[theirs].bytes.clone();
        let _ = writeln!(text, "{function} of {}", unit.source.display());
        match diff.orig.as_deref() {
            None => text += "  nothing of its unit changed, so it was not taken apart\n",
            Some(orig) => {
                let all = reproduce::compare(arch, orig, &pristine.object, &pristine.pairing);
                match all.iter().find(|d| d.function == function) {
                    None => text += "  recompiled as it was linked\n",
                    Some(difference) => {
                        let _ = writeln!(text, "  recompiled differently: {}", difference.message);
                        if let Some(ours) = named(orig).and_then(|i| orig.atoms.get(i)) {
                            text += &side_by_side(arch, ["recompiled", "linked"], [&ours.bytes, &linked_bytes], None);
                        }
                    }
                }
            }
        }
        for link in &built.links {
            let file = link.production.display();
            if link.identity != Identity::PerFunction {
                let _ = writeln!(text, "  {file} is what was built here, byte for byte");
                continue;
            }
            let (Ok(linked), Ok(rebuilt)) = (Linked::read(link), Elf::read(&link.rebuilt)) else { continue };
            let Some(proof) = &linked.proof else { continue };
            for symbol in rebuilt.named(function) {
                match proof.function(symbol.addr) {
                    None => {}
                    Some(Ok(())) => {
                        let at = proof.place(symbol.addr, false).map(|a| a.to_string()).unwrap_or_default();
                        let evidence = proof.evidence(symbol.addr, false).map(|e| e.to_string()).unwrap_or_default();
                        let _ = writeln!(text, "  proved in {file} at {at}: {evidence}");
                    }
                    Some(Err(doubt)) => {
                        let _ = writeln!(text, "  not proved in {file}: {}", doubt.why);
                        let Some((start, offset)) = doubt.at else { continue };
                        let bytes = (rebuilt.bytes(symbol.addr, symbol.size), production(&linked, start, symbol.size));
                        if let (Some(ours), Some(theirs)) = bytes {
                            text += &side_by_side(arch, ["built here", "production"], [ours, theirs], Some(offset));
                        }
                    }
                }
            }
        }
    }
    if text.is_empty() {
        text = format!("no unit that the fix touches has a function {function}\n");
    }
    text
}

/// The code of production, and a little of what follows, where there is any.
fn production(linked: &Linked, start: LinkAddr, size: u64) -> Option<&[u8]> {
    linked.production.bytes(start, size + 16).or_else(|| linked.production.bytes(start, size))
}

/// Two columns of instructions around the first difference; `at` says where that is, where it is known.
fn side_by_side(arch: &dyn Arch, heads: [&str; 2], code: [&[u8]; 2], at: Option<u64>) -> String {
    let [ours, theirs] = code.map(|bytes| arch.disassemble(bytes));
    let first = match at {
        Some(at) => ours.partition_point(|(start, _)| *start as u64 <= at).saturating_sub(1),
        None => ours.iter().zip(&theirs).position(|(a, b)| a.1 != b.1).unwrap_or(ours.len().min(theirs.len())),
    };
    let mut text = format!("      {:<48} {}\n", heads[0], heads[1]);
    let line = |side: &[(usize, String)], i: usize| {
        side.get(i).map_or_else(String::new, |(start, text)| format!("+{start:#x} {text}"))
    };
    for i in first.saturating_sub(AROUND)..(first + AROUND + 1).min(ours.len().max(theirs.len())) {
        let mark = if i == first { ">" } else { " " };
        let _ = writeln!(text, "    {mark} {:<48} {}", line(&ours, i), line(&theirs, i));
    }
    text
}
