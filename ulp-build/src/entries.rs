// SPDX-License-Identifier: GPL-2.0-or-later
//! The first bytes of replaced functions: who else leads into what an entry jump overwrites, and whether the instructions
//! there can move into a gate.

use crate::model::{Code, Refusal};
use crate::object::{AtomId, AtomKind, Target};
use crate::resolve::place::{Linked, Pristine};
use crate::resolve::{Context, Key, refusal};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use ulp_arch::{Arch, Flow, LinkAddr, Undisplaceable};
use ulp_format::{Function, Gate};

/// Pages of the smallest size: a write within one reaches all of its bytes or none.
const PAGE: u64 = 4096;

/// Why a function cannot have a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGate {
    #[error("one of its first instructions works only where it stands")]
    Instruction,
    #[error("it jumps into its own first bytes")]
    JumpedInto,
    #[error("it jumps to computed places that cannot all be seen")]
    Computed,
    #[error("this processor has no gates yet")]
    Unsupported,
    #[error("its old code is lost")]
    Lost,
}

/// What a gate of `function`, which `key` replaces, has to carry.
pub fn gate(context: &Context<'_>, key: Key, function: &Function) -> Result<Gate, NoGate> {
    let (arch, unit) = (context.arch, &context.units[key.0]);
    let (Some(pristine), Some(id)) = (&unit.pristine, unit.pristine_of(key.1)) else { return Err(NoGate::Lost) };
    let old = pristine.atom(id).ok_or(NoGate::Lost)?;
    let body = context.linked.production.bytes(function.entry, old.size).ok_or(NoGate::Lost)?;
    let landing = usize::from(function.landing);
    let len = arch.displaceable(body, landing).map_err(|why| match why {
        Undisplaceable::Instruction => NoGate::Instruction,
        Undisplaceable::JumpedInto => NoGate::JumpedInto,
        Undisplaceable::Unsupported => NoGate::Unsupported,
    })?;
    let inside = landing as i64 + 1..(landing + len.max(arch.entry_jump_len())) as i64;
    labels(arch, pristine, id, body, &inside)?;
    let displaced = body.get(landing..landing + len).ok_or(NoGate::Lost)?;
    Ok(Gate { displaced: ulp_format::hex::encode(displaced) })
}

/// Whether a label of the function that something refers to (a jump table, a `.cold` part) lies in `inside`.
fn labels(arch: &dyn Arch, pristine: &Pristine, id: AtomId, body: &[u8], inside: &Range<i64>) -> Result<(), NoGate> {
    let mut table = false;
    for atom in &pristine.object.atoms {
        for r in atom.refs.iter().filter(|r| r.target == Target::Atom(id)) {
            if inside.contains(&r.target_offset) {
                return Err(NoGate::JumpedInto);
            }
            table |= atom.kind != AtomKind::Function && r.target_offset != 0;
        }
    }
    let children = pristine.object.atoms.iter().filter(|a| a.parent == Some(id)).map(|a| a.bytes.as_slice());
    let computed = |code: &[u8]| {
        let insns = arch.decode(code);
        let whole = insns.last().map_or(0, |last| last.end) == code.len();
        !whole || insns.iter().any(|i| matches!(i.flow, Flow::Jump { target: None, .. }))
    };
    // The addresses of a computed jump are somewhere. Where none is found, they were not recognised as such.
    if !table && std::iter::once(body).chain(children).any(computed) {
        return Err(NoGate::Computed);
    }
    Ok(())
}

/// Refuses functions whose entry jump could be met half way: something outside of them leads into its bytes, or it does
/// not lie in one page, so that a write that is cut short would leave half of it.
pub fn check(arch: &dyn Arch, linked: &Linked, functions: &[Function]) -> Vec<Refusal> {
    let jump = |f: &Function| {
        let start = f.entry.0 + u64::from(f.landing);
        start..start + arch.entry_jump_len() as u64
    };
    let mut refusals = Vec::new();
    let mut refuse = |f: &Function, message: String| {
        refusals.push(refusal(Code::TooSmall, &f.name, message, "patch a caller of it instead"));
    };
    for f in functions {
        let bytes = jump(f);
        if bytes.start / PAGE != (bytes.end - 1) / PAGE {
            let at = LinkAddr(bytes.start);
            refuse(
                f,
                format!("the jump at the entry of {} ({at}) would cross a page, so it cannot be one write", f.name),
            );
        } else if let Some(symbol) = linked.rebuilt.next_symbol(LinkAddr(bytes.start)).filter(|a| a.0 < bytes.end) {
            let name = linked.rebuilt.at(symbol).next().map_or("another symbol", |s| s.name.as_str());
            refuse(f, format!("{name} begins at {symbol}, within the jump at the entry of {}", f.name));
        }
    }
    let inside: BTreeMap<u64, &Function> =
        functions.iter().flat_map(|f| jump(f).skip(1).map(move |a| (a, f))).collect();
    let mut found: Vec<(u64, u64)> =
        stretches(linked).par_iter().flat_map_iter(|s| leads_into(arch, linked, s, &inside)).collect();
    found.sort_unstable();
    found.dedup_by_key(|(_, to)| *to);
    for (from, to) in found {
        let Some(f) = inside.get(&to) else { continue };
        let (from, to) = (LinkAddr(from), LinkAddr(to));
        refuse(f, format!("code at {from} leads to {to}, within the jump at the entry of {}", f.name));
    }
    refusals
}

/// The code of the file, cut where symbols say that an instruction begins.
fn stretches(linked: &Linked) -> Vec<Range<u64>> {
    let mut all = Vec::new();
    for section in linked.rebuilt.sections.iter().filter(|s| s.executable) {
        let end = section.addr.0 + section.size;
        let mut at = section.addr;
        while at.0 < end {
            let next = linked.rebuilt.next_symbol(at).map_or(end, |a| a.0).min(end);
            all.push(at.0..next);
            at = LinkAddr(next);
        }
    }
    all
}

/// The direct jumps and calls of a stretch that lead into `inside`, but for those of the function that is meant.
fn leads_into(
    arch: &dyn Arch,
    linked: &Linked,
    stretch: &Range<u64>,
    inside: &BTreeMap<u64, &Function>,
) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let Some(mut code) = linked.production.bytes(LinkAddr(stretch.start), stretch.end - stretch.start) else {
        return found;
    };
    let mut start = stretch.start;
    while !code.is_empty() {
        let insns = arch.decode(code);
        for insn in &insns {
            let (Flow::Call { target: Some(target), .. } | Flow::Jump { target: Some(target), .. }) = insn.flow else {
                continue;
            };
            let (from, to) = (start.wrapping_add(insn.start as u64), start.wrapping_add_signed(target));
            let Some(f) = inside.get(&to) else { continue };
            if !f.ranges.iter().any(|r| from.wrapping_sub(r.start.0) < r.size) {
                found.push((from, to));
            }
        }
        // What is no instruction is data among the code; behind it everything is possible.
        let next = insns.last().map_or(0, |last| last.end).max(1);
        start += next as u64;
        code = code.get(next..).unwrap_or(&[]);
    }
    found
}
