// SPDX-License-Identifier: GPL-2.0-or-later
//! A precise unwinder: it follows call frame information from a thread's registers to its outermost frame, or says that it
//! could not. It never guesses: no frame pointers, no scanning, no code without a table; only what the kernel lays down for
//! a signal handler needs none. What it finds is used to *clear* stack words, so it also tells which words hold return
//! addresses and which part of the stack it accounted for.

use super::error::Error;
use super::module::{Module, Role};
use super::tables::{Bytes, Kind, Table};
use super::{Process, RemoteAddr};
use gimli::{
    CfaRule, EvaluationResult, FrameDescriptionEntry, Register, RegisterRule, UnwindContext, UnwindExpression,
    UnwindSection, Value,
};
use std::sync::OnceLock;
use std::time::Instant;
use ulp_arch::Regs;

/// Registers that unwinding can follow: DWARF numbers below this.
const REGISTERS: u16 = 64;
const MAX_FRAMES: usize = 4096;
/// How far from its entry point a program without a table there may make its first call.
const ENTRY_CODE: u64 = 64;
/// More than the kernel puts between a saved context and the stack that it interrupted: the largest state of a processor's vector
/// units has 11 KB.
const SIGNAL_FRAME: u64 = 16 << 10;
/// As much of a signal trampoline as has to be seen.
const TRAMPOLINE: usize = 16;

/// An unwind table of code that no module describes: a patch's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtraTable {
    /// The code it describes: first byte and one past the last.
    pub text: (RemoteAddr, RemoteAddr),
    /// Where its `.eh_frame` lies in the process, and its size.
    pub eh_frame: (RemoteAddr, u64),
}

/// The unwind tables of a process, copied before anything is stopped.
#[derive(Debug, Default)]
pub struct Unwinder {
    tables: Vec<Table>,
    /// Modules, and whether each has a table in memory: where to look for more.
    modules: Vec<(Module, bool)>,
    /// What only the files on disk have, once somebody needed it.
    from_files: OnceLock<Vec<Table>>,
    entries: Vec<u64>,
    /// Frames that are larger may hold a stack of their own, so nothing in them is accounted for.
    pub(super) largest_frame: Option<u64>,
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
    /// Stack ranges that belong to frames of known code, and have no other stack in them.
    pub covered: Vec<(u64, u64)>,
    /// Whether it led through a signal handler's frame to another stack: the handler may have been left for good long ago, as
    /// by those who make coroutines with its help. Then what lies behind is no proof of anything.
    pub changed_stack: bool,
}

impl Chain {
    /// Whether a context that the kernel may have saved for a signal handler is none that a handler returns to: the way to the
    /// bottom of the stack does not lead through it. `pc_at` is where its program counter stands.
    pub fn leaves_out(&self, pc_at: u64) -> bool {
        self.complete && !self.changed_stack && !self.returns.contains(&pc_at)
    }

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
            let table = Table::of_module(process, module);
            unwinder.modules.push((module.clone(), table.is_some()));
            unwinder.tables.extend(table);
            if module.role == Role::Main {
                unwinder.entries.push(module.bias.remote(module.entry).0);
            }
        }
        for table in extra {
            unwinder.tables.push(Table::of_extra(process, table)?);
        }
        Ok(unwinder)
    }

    /// Reads what only the files on disk have, once. It takes long where there is much debug information, so it is left
    /// until a stack could not be followed without; nothing may be stopped meanwhile.
    pub(super) fn read_files(&self, process: &Process) {
        self.from_files.get_or_init(|| {
            let of = |(module, has_own): &(Module, bool)| Table::of_files(process, module, *has_own);
            self.modules.iter().flat_map(of).collect()
        });
    }

    /// Unwinds from `regs` as far as the tables go.
    pub(super) fn unwind(&self, process: &Process, regs: &Regs, deadline: Instant) -> Chain {
        let mut walk = Walk { largest_frame: self.largest_frame, ..Walk::new(process, regs) };
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
        if let Some(mark) = walk.signal_frame() {
            return walk.interrupted(mark);
        }
        let pc = walk.pc;
        // A return address may be the first byte after the function: the call before it belongs to the caller.
        let lookup = if walk.exact { pc } else { pc.checked_sub(1)? };
        let from_files = self.from_files.get().into_iter().flatten();
        let mut tables = self.tables.iter().chain(from_files).filter(|t| t.is_for(lookup));
        let Some((table, entry)) = tables.find_map(|t| Some((t, t.entry(lookup)?))) else {
            return self.start_code(lookup);
        };
        if !table.is_current(walk.process) {
            return None;
        }
        match table.kind {
            Kind::EhFrame => walk.follow(table, &table.eh_frame(), &entry, context, lookup),
            Kind::DebugFrame => walk.follow(table, &table.debug_frame(), &entry, context, lookup),
        }
    }

    /// The program's entry code may have no table (musl's); nothing called it, so it ends the chain.
    fn start_code(&self, pc: u64) -> Option<Step> {
        self.entries.iter().any(|e| pc.wrapping_sub(*e) < ENTRY_CODE).then_some(Step::Outermost)
    }
}

enum Step {
    Next,
    Outermost,
}

/// The state of one walk.
struct Walk<'a> {
    process: &'a Process,
    regs: [Option<u64>; REGISTERS as usize],
    pc: u64,
    /// Whether `pc` is the next instruction, rather than a return address.
    exact: bool,
    largest_frame: Option<u64>,
    chain: Chain,
}

impl<'a> Walk<'a> {
    fn new(process: &'a Process, regs: &Regs) -> Self {
        let arch = process.arch();
        let value = |number: usize| {
            let word = u16::try_from(number).ok().and_then(|n| arch.dwarf_slot(n))?;
            regs.words.get(word).copied()
        };
        Self {
            process,
            regs: std::array::from_fn(value),
            pc: arch.pc(regs),
            exact: true,
            largest_frame: None,
            chain: Chain::default(),
        }
    }

    fn get(&self, register: Register) -> Option<u64> {
        self.regs.get(usize::from(register.0)).copied().flatten()
    }

    /// Where the mark of a saved context is, when this frame is what a signal handler returns to.
    fn signal_frame(&self) -> Option<u64> {
        let arch = self.process.arch();
        let code = self.process.read_vec(RemoteAddr(self.pc), TRAMPOLINE).ok()?;
        let mark = self.get(Register(arch.dwarf_sp()))?.checked_add(arch.signal_trampoline(&code)?)?;
        arch.signal_mark().is(self.process.read_u64(RemoteAddr(mark)).ok()?).then_some(mark)
    }

    /// Goes on where a signal interrupted the thread, from the registers that the kernel saved.
    fn interrupted(&mut self, mark: u64) -> Option<Step> {
        let arch = self.process.arch();
        let mut next = [None; REGISTERS as usize];
        for (dwarf, slot) in (0..).zip(&mut next) {
            let Some(offset) = arch.saved_by_signal(dwarf) else { continue };
            let at = mark.checked_add_signed(offset)?;
            self.chain.saved.push(at);
            *slot = Some(self.process.read_u64(RemoteAddr(at)).ok()?);
        }
        let pc_at = mark.checked_add_signed(arch.interrupted_at()?)?;
        self.chain.returns.push(pc_at);
        self.pc = self.process.read_u64(RemoteAddr(pc_at)).ok()?;
        self.regs = next;
        self.exact = true;
        let sp = self.get(Register(arch.dwarf_sp()))?;
        self.chain.changed_stack |= sp <= mark || sp - mark > SIGNAL_FRAME;
        Some(Step::Next)
    }

    /// Goes on to the caller by the rules of a table.
    fn follow<'t, S: UnwindSection<Bytes<'t>>>(
        &mut self,
        table: &'t Table,
        section: &S,
        fde: &FrameDescriptionEntry<Bytes<'t>>,
        context: &mut UnwindContext<usize>,
        lookup: u64,
    ) -> Option<Step> {
        let row = fde.unwind_info_for_address(section, &table.bases(), context, table.own(lookup)).ok()?;
        let encoding = fde.cie().encoding();
        let evaluate = |walk: &Self, e: &UnwindExpression<usize>, first| walk.evaluate(e, section, encoding, first);
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => self.get(*register)?.wrapping_add_signed(*offset),
            CfaRule::Expression(e) => evaluate(self, e, None)?,
        };
        let arch = self.process.arch();
        let (sp, ra) = (Register(arch.dwarf_sp()), fde.cie().return_address_register());
        let signal_frame = fde.is_signal_trampoline();
        let old_sp = self.get(sp)?;
        // A trampoline that is not known: where its stack goes on is not known either.
        self.chain.changed_stack |= signal_frame;
        // Nor, where the return address column is a register like others, where the program counter was.
        if signal_frame && arch.returns_by_register() {
            return None;
        }
        // Only a function that has called nothing yet may come back to where a register says: a call would have changed it.
        let by_register = self.exact && arch.returns_by_register();
        let in_register = by_register && matches!(row.register(ra), None | Some(RegisterRule::SameValue));
        if !signal_frame {
            // A frame lies above its stack pointer, or it is none.
            let empty = in_register || row.register(ra) == Some(RegisterRule::Undefined);
            if cfa < old_sp || cfa == old_sp && !empty {
                return None;
            }
            let red_zone = if self.exact { arch.red_zone() } else { 0 };
            let may_hold_a_stack = self.largest_frame.is_some_and(|largest| cfa - old_sp > largest);
            if !self.chain.changed_stack && !may_hold_a_stack {
                self.chain.covered.push((old_sp.saturating_sub(red_zone), cfa));
            }
        }
        if row.register(ra) == Some(RegisterRule::Undefined) {
            return Some(Step::Outermost);
        }
        let mut next = self.regs;
        if let Some(slot) = next.get_mut(usize::from(sp.0)) {
            *slot = Some(cfa);
        }
        for (register, rule) in row.registers() {
            let value = match rule {
                RegisterRule::Undefined => None,
                RegisterRule::SameValue if *register == ra && !in_register && arch.returns_by_register() => {
                    return None;
                }
                RegisterRule::SameValue => self.get(*register),
                RegisterRule::ValOffset(n) => Some(cfa.wrapping_add_signed(*n)),
                RegisterRule::Register(other) => self.get(*other),
                RegisterRule::ValExpression(e) => Some(evaluate(self, e, Some(cfa))?),
                RegisterRule::Constant(c) => Some(*c),
                RegisterRule::Offset(_) | RegisterRule::Expression(_) => {
                    let at = match rule {
                        RegisterRule::Offset(n) => cfa.wrapping_add_signed(*n),
                        RegisterRule::Expression(e) => evaluate(self, e, Some(cfa))?,
                        _ => return None,
                    };
                    if *register == ra { &mut self.chain.returns } else { &mut self.chain.saved }.push(at);
                    Some(self.process.read_u64(RemoteAddr(at)).ok()?)
                }
                _ => return None,
            };
            if let Some(slot) = next.get_mut(usize::from(register.0)) {
                *slot = value;
            }
        }
        // Without a rule for the return address there is no way on, and no proof that this was the end.
        if row.register(ra).is_none() && !in_register {
            return None;
        }
        self.pc = self.process.unsigned().address(next.get(usize::from(ra.0)).copied().flatten()?);
        self.regs = next;
        if let Some(slot) = self.regs.get_mut(usize::from(ra.0)).filter(|_| arch.returns_by_register()) {
            // The call that led here put it there; what its caller had in it is not known by it.
            *slot = None;
        }
        self.exact = signal_frame;
        Some(Step::Next)
    }

    fn evaluate<'t, S: UnwindSection<Bytes<'t>>>(
        &self,
        expression: &UnwindExpression<usize>,
        section: &S,
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
