// SPDX-License-Identifier: GPL-2.0-or-later
//! What is looked at first in a thread that has stopped on our account, and how what the stop did to its system call is undone.

use super::going::{self, Debt};
use super::seccomp::Verdict;
use super::{Process, sys, task};
use std::io;
use ulp_arch::{Arch, Asleep, Call, Regs};

/// A thread as it stands in its stop.
pub(super) struct Looked {
    pub regs: Regs,
    pub thread_pointer: Option<u64>,
    /// Whether its call would have failed with EINTR because of us.
    pub cured: bool,
    /// Whether its call fails with EINTR, perhaps because of us, and cannot be begun anew.
    pub interrupted: bool,
    pub debt: Option<Debt>,
}

/// A thread that could not be looked at to the end.
pub(super) struct NotLooked {
    pub request: &'static str,
    pub source: io::Error,
    /// It may have been cured before.
    pub debt: Option<Debt>,
}

/// The registers of a thread that has just stopped on our account, before `signal` unless that is 0, and whether the EINTR that this
/// would have caused had to be cured, which is done at once. Each request is made once more if it fails: nobody else can cure
/// the thread. `asleep`: the call in which it was seen since it is traced, where that is needed.
pub(super) fn look_and_cure(
    process: &Process,
    tid: i32,
    signal: i32,
    asleep: Option<&Asleep>,
) -> Result<Looked, Box<NotLooked>> {
    let arch = process.arch();
    let failed = |request, debt| move |source| Box::new(NotLooked { request, source, debt });
    let get = || sys::get_regs(tid, arch.regs_len());
    let mut regs = get().or_else(|_| get()).map_err(failed("GETREGSET", None))?;
    let (cured, debt) = if arch.needs_asleep() {
        owe(process, tid, signal, asleep, &mut regs)
    } else {
        (cure(arch, tid, &mut regs), None)
    };
    if cured.changed {
        let set = || sys::set_regs(tid, &regs);
        set().or_else(|_| set()).map_err(failed("SETREGSET", debt.filter(|_| !cured.eintr)))?;
    }
    process.learn_signature(tid).map_err(failed("GETREGSET", debt))?;
    let thread_pointer = match arch.thread_pointer_in() {
        Some(at) => sys::set_word(tid, at).map_err(failed("GETREGSET", debt))?,
        None => arch.thread_pointer(&regs),
    };
    Ok(Looked { regs, thread_pointer, cured: cured.eintr, interrupted: cured.left, debt })
}

/// What was done to a thread's registers.
struct Cured {
    eintr: bool,
    /// Whether an EINTR is left that may be ours.
    left: bool,
    changed: bool,
}

/// Where the kernel decides about the call when the thread goes on.
fn cure(arch: &dyn Arch, tid: i32, regs: &mut Regs) -> Cured {
    let eintr = arch.cure_eintr(regs);
    let begins_anew = arch.in_restart_block(regs) && !super::seccomp::allows_resuming(arch, tid, regs);
    if begins_anew {
        arch.begin_anew(regs);
    }
    Cured { eintr, left: false, changed: eintr || begins_anew }
}

/// Where it has decided already.
fn owe(process: &Process, tid: i32, signal: i32, asleep: Option<&Asleep>, regs: &mut Regs) -> (Cured, Option<Debt>) {
    let arch = process.arch();
    let found = *regs;
    // A handler ends the call.
    let ends = || signal != 0 && task::catches(process.pid, tid, signal);
    let may_be_cured = arch.may_be_cured(&found).filter(|_| !ends());
    let call =
        may_be_cured.filter(|_| asleep.is_some()).and_then(|number| going::call_of(process, tid, &found, number));
    // Since we trace no handler has run without our knowledge, so that this EINTR is the stop's. Else it may be a handler's, with
    // whatever that has left in the place of the argument.
    let call = call.filter(|call| asleep == Some(call));
    if call.is_some_and(|call| arch.cure_eintr_of(regs, &call)) {
        let debt = Debt { interrupted: Some(found), anew: None };
        return (Cured { eintr: true, left: false, changed: true }, Some(debt));
    }
    let left = may_be_cured.is_some();
    let Some(number) = going::resumable(process, &found) else {
        return (Cured { eintr: false, left, changed: false }, None);
    };
    let verdict = super::seccomp::of_resuming(arch, tid, &found);
    if number == arch.call_number(Call::Restart) {
        // It was resumed before, and nobody knows which call it was. Where filters cannot be read they have let it pass then. If one
        // was set since that does not, the wait ends with EINTR, which is better than with the process.
        let harmless = matches!(verdict, Verdict::Allow | Verdict::Unknown);
        let ended = going::resuming_ended(process, &found).filter(|_| !harmless);
        *regs = ended.unwrap_or(found);
        return (Cured { eintr: false, left: ended.is_some(), changed: ended.is_some() }, None);
    }
    let debt = Debt { interrupted: None, anew: Some(number) };
    (Cured { eintr: false, left, changed: false }, Some(debt).filter(|_| verdict != Verdict::Allow))
}
