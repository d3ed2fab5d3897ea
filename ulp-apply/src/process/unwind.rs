// SPDX-License-Identifier: GPL-2.0-or-later
//! A precise unwinder: it follows `.eh_frame` from a thread's registers to its outermost frame, or says that it could
//! not. It never guesses: no frame pointers, no scanning, no code without a table. What it finds is used to *clear*
//! stack words, so it also tells which words hold return addresses and which part of the stack it accounted for.

use super::error::Error;
use super::module::{Module, Role};
use super::{Process, RemoteAddr};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EhFrameHdr, EndianSlice, EvaluationResult, FrameDescriptionEntry,
    LittleEndian, Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection, Value,
};
use std::time::Instant;
use ulp_arch::{LinkAddr, Regs};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Registers that unwinding can follow: DWARF numbers below this.
const REGISTERS: usize = 64;
const MAX_FRAMES: usize = 4096;
/// Bigger tables than any program has are not read.
const MAX_TABLE: u64 = 256 << 20;
/// How far from its entry point a program without a table there may make its first call.
const ENTRY_CODE: u64 = 64;

/// An unwind table of code that no module describes: a patch's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtraTable {
    /// The code it describes: first byte and one past the last.
    pub text: (RemoteAddr, RemoteAddr),
    /// Where its `.eh_frame` lies in the process, and its size.
    pub eh_frame: (RemoteAddr, u64),
}

#[derive(Debug)]
struct Table {
    text: (u64, u64),
    eh_frame_at: u64,
    eh_frame: Vec<u8>,
    /// The binary search table, where there is one.
    header: Option<(u64, Vec<u8>)>,
    /// The bytes that prove the table is still the one of what is loaded there.
    witness: (RemoteAddr, Vec<u8>),
}

/// The unwind tables of a process, copied before anything is stopped.
#[derive(Debug, Default)]
pub struct Unwinder {
    tables: Vec<Table>,
    entries: Vec<u64>,
}

/// What unwinding one thread found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Chain {
    /// Whether the outermost frame was reached.
    pub complete: bool,
    /// Stack words that hold return addresses, innermost first.
    pub returns: Vec<u64>,
    /// Stack words that hold saved registers.
    pub saved: Vec<u64>,
    /// Stack ranges that belong to frames of known code.
    pub covered: Vec<(u64, u64)>,
}

impl Chain {
    /// Whether the word at `at` is known to be nothing that will ever be jumped to.
    pub fn clears(&self, at: u64) -> bool {
        self.complete
            && self.covered.iter().any(|(from, to)| *from <= at && at < *to)
            && !self.returns.contains(&at)
            && !self.saved.contains(&at)
    }
}

impl Unwinder {
    /// Copies the tables of all modules, and of the extra code. A module without a table has code that cannot be unwound.
    pub fn new(process: &Process, modules: &[Module], extra: &[ExtraTable]) -> Result<Self, Error> {
        let mut unwinder = Self::default();
        for module in modules {
            unwinder.tables.extend(module_table(process, module));
            if module.role == Role::Main {
                unwinder.entries.push(module.bias.remote(module.entry).0);
            }
        }
        for table in extra {
            let (at, len) = table.eh_frame;
            let len = usize::try_from(len.min(MAX_TABLE)).unwrap_or(0);
            let eh_frame = process.read_vec(at, len)?;
            unwinder.tables.push(Table {
                text: (table.text.0.0, table.text.1.0),
                eh_frame_at: at.0,
                witness: (at, eh_frame.iter().copied().take(64).collect()),
                eh_frame,
                header: None,
            });
        }
        Ok(unwinder)
    }

    /// Unwinds from `regs` as far as the tables go.
    pub(super) fn unwind(&self, process: &Process, regs: &Regs, deadline: Instant) -> Chain {
        let mut walk = Walk::new(process, regs);
        let mut context = UnwindContext::new();
        for _ in 0..MAX_FRAMES {
            if Instant::now() >= deadline {
                break;
            }
            match self.step(&mut walk, &mut context) {
                Some(Step::Next) => {}
                Some(Step::Outermost) => {
                    walk.chain.complete = true;
                    break;
                }
                None => break,
            }
        }
        walk.chain
    }

    fn step(&self, walk: &mut Walk<'_>, context: &mut UnwindContext<usize>) -> Option<Step> {
        let pc = walk.pc;
        // A return address may be the first byte after the function: the call before it belongs to the caller.
        let lookup = if walk.exact { pc } else { pc.checked_sub(1)? };
        let table = self.tables.iter().find(|t| t.text.0 <= lookup && lookup < t.text.1);
        if let Some(done) = self.start_code(lookup, table.is_some_and(|t| t.fde(lookup).is_some())) {
            return Some(done);
        }
        let table = table?;
        if walk.process.read_vec(table.witness.0, table.witness.1.len()).ok()? != table.witness.1 {
            return None;
        }
        let section = EhFrame::new(&table.eh_frame, LittleEndian);
        let bases = table.bases();
        let fde = table.fde(lookup)?;
        let row = fde.unwind_info_for_address(&section, &bases, context, lookup).ok()?;
        let encoding = fde.cie().encoding();
        let evaluate =
            |walk: &Walk<'_>, e: &UnwindExpression<usize>, first| walk.evaluate(e, &section, encoding, first);
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => walk.get(*register)?.wrapping_add_signed(*offset),
            CfaRule::Expression(e) => evaluate(walk, e, None)?,
        };
        let arch = walk.process.arch();
        let (sp, ra) = (Register(arch.dwarf_sp()), fde.cie().return_address_register());
        let signal_frame = fde.is_signal_trampoline();
        let old_sp = walk.get(sp)?;
        if !signal_frame {
            // A frame lies above its stack pointer, or it is none.
            if cfa < old_sp || cfa == old_sp && row.register(ra) != Some(RegisterRule::Undefined) {
                return None;
            }
            let red_zone = if walk.exact { arch.red_zone() } else { 0 };
            walk.chain.covered.push((old_sp.saturating_sub(red_zone), cfa));
        }
        if row.register(ra) == Some(RegisterRule::Undefined) {
            return Some(Step::Outermost);
        }
        let mut next = walk.regs;
        if let Some(slot) = next.get_mut(usize::from(sp.0)) {
            *slot = Some(cfa);
        }
        for (register, rule) in row.registers() {
            let value = match rule {
                RegisterRule::Undefined => None,
                RegisterRule::SameValue => walk.get(*register),
                RegisterRule::ValOffset(n) => Some(cfa.wrapping_add_signed(*n)),
                RegisterRule::Register(other) => walk.get(*other),
                RegisterRule::ValExpression(e) => Some(evaluate(walk, e, Some(cfa))?),
                RegisterRule::Constant(c) => Some(*c),
                RegisterRule::Offset(_) | RegisterRule::Expression(_) => {
                    let at = match rule {
                        RegisterRule::Offset(n) => cfa.wrapping_add_signed(*n),
                        RegisterRule::Expression(e) => evaluate(walk, e, Some(cfa))?,
                        _ => return None,
                    };
                    if *register == ra { &mut walk.chain.returns } else { &mut walk.chain.saved }.push(at);
                    Some(walk.process.read_u64(RemoteAddr(at)).ok()?)
                }
                _ => return None,
            };
            if let Some(slot) = next.get_mut(usize::from(register.0)) {
                *slot = value;
            }
        }
        // Without a rule for the return address there is no way on, and no proof that this was the end.
        row.register(ra)?;
        walk.pc = next.get(usize::from(ra.0)).copied().flatten()?;
        walk.regs = next;
        walk.exact = signal_frame;
        Some(Step::Next)
    }

    /// The program's entry code may have no table (musl's); nothing called it, so it ends the chain.
    fn start_code(&self, pc: u64, described: bool) -> Option<Step> {
        let at_entry = self.entries.iter().any(|e| pc.wrapping_sub(*e) < ENTRY_CODE);
        (at_entry && !described).then_some(Step::Outermost)
    }
}

enum Step {
    Next,
    Outermost,
}

impl Table {
    fn bases(&self) -> BaseAddresses {
        let bases = BaseAddresses::default().set_eh_frame(self.eh_frame_at).set_text(self.text.0);
        match &self.header {
            Some((at, _)) => bases.set_eh_frame_hdr(*at),
            None => bases,
        }
    }

    fn fde(&self, pc: u64) -> Option<FrameDescriptionEntry<Bytes<'_>>> {
        let section = EhFrame::new(&self.eh_frame, LittleEndian);
        let bases = self.bases();
        let searched = self.header.as_ref().and_then(|(_, bytes)| {
            let header = EhFrameHdr::new(bytes, LittleEndian).parse(&bases, 8).ok()?;
            header.table()?.fde_for_address(&section, &bases, pc, EhFrame::cie_from_offset).ok()
        });
        let fde = match searched {
            Some(fde) => Some(fde),
            None if self.header.is_none() => walk_fdes(&section, &bases, pc),
            None => None,
        };
        fde.filter(|f| f.contains(pc))
    }
}

fn walk_fdes<'a>(
    section: &EhFrame<Bytes<'a>>,
    bases: &BaseAddresses,
    pc: u64,
) -> Option<FrameDescriptionEntry<Bytes<'a>>> {
    let mut entries = section.entries(bases);
    while let Some(entry) = entries.next().ok()? {
        if let CieOrFde::Fde(partial) = entry {
            let fde = partial.parse(EhFrame::cie_from_offset).ok()?;
            if fde.contains(pc) {
                return Some(fde);
            }
        }
    }
    None
}

/// Reads a module's table; `None` when it has none that can be used.
fn module_table(process: &Process, module: &Module) -> Option<Table> {
    let (hdr, hdr_len) = module.eh_frame_hdr?;
    let hdr_at = module.bias.remote(hdr);
    let header = process.read_vec(hdr_at, usize::try_from(hdr_len.min(MAX_TABLE)).ok()?).ok()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(hdr_at.0).set_text(module.range.0.0);
    let parsed = EhFrameHdr::new(&header, LittleEndian).parse(&bases, 8).ok()?;
    let gimli::Pointer::Direct(eh_frame_at) = parsed.eh_frame_ptr() else { return None };
    let link: LinkAddr = module.bias.link(RemoteAddr(eh_frame_at));
    // Its size stands nowhere in memory: it ends with a zero entry, and at the latest with its segment.
    let segment = module.segment(link)?;
    let len = segment.vaddr.0.checked_add(segment.file_size)?.checked_sub(link.0)?;
    let eh_frame = process.read_vec(RemoteAddr(eh_frame_at), usize::try_from(len.min(MAX_TABLE)).ok()?).ok()?;
    let has_table = parsed.table().is_some();
    Some(Table {
        text: (module.range.0.0, module.range.1.0),
        eh_frame_at,
        eh_frame,
        header: has_table.then_some((hdr_at.0, header)),
        witness: module.headers.clone(),
    })
}

/// The state of one walk.
struct Walk<'a> {
    process: &'a Process,
    regs: [Option<u64>; REGISTERS],
    pc: u64,
    /// Whether `pc` is the next instruction, rather than a return address.
    exact: bool,
    chain: Chain,
}

impl<'a> Walk<'a> {
    fn new(process: &'a Process, regs: &Regs) -> Self {
        let arch = process.arch();
        let mut values = [None; REGISTERS];
        for (number, slot) in (0u16..).zip(values.iter_mut()) {
            *slot = arch.dwarf_slot(number).and_then(|w| regs.words.get(w).copied());
        }
        Self { process, regs: values, pc: arch.pc(regs), exact: true, chain: Chain::default() }
    }

    fn get(&self, register: Register) -> Option<u64> {
        self.regs.get(usize::from(register.0)).copied().flatten()
    }

    fn evaluate(
        &self,
        expression: &UnwindExpression<usize>,
        section: &EhFrame<Bytes<'_>>,
        encoding: gimli::Encoding,
        first: Option<u64>,
    ) -> Option<u64> {
        let expression = expression.get(section).ok()?;
        let mut evaluation = expression.evaluation(encoding);
        evaluation.set_max_iterations(1000);
        if let Some(value) = first {
            evaluation.set_initial_value(value);
        }
        let mut state = evaluation.evaluate().ok()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size: 8, space: None, .. } => {
                    let word = self.process.read_u64(RemoteAddr(address)).ok()?;
                    evaluation.resume_with_memory(Value::Generic(word)).ok()?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(self.get(register)?)).ok()?
                }
                _ => return None,
            };
        }
        match evaluation.value_result()? {
            Value::Generic(value) => Some(value),
            _ => None,
        }
    }
}
