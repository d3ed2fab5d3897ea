// SPDX-License-Identifier: GPL-2.0-or-later
//! How a thread is let go. Where the kernel decides about an interrupted call when the thread goes on, that is all. Where it has
//! decided before (`Arch::needs_asleep`), a call that our stop has ended begins again because *we* put the thread in front of it,
//! and the kernel does not know: a handler that ran now would end nothing, and who waits for a signal to end its call would
//! wait for ever. So such a thread is seen into its call, and stays traced until the tracer ends, which does not stop it again. A
//! signal with a handler that comes first finds the call ended.

use super::sys::{self, Wait};
use super::{Process, RemoteAddr, task};
use std::time::{Duration, Instant};
use ulp_arch::{Asleep, Call, Regs};

/// What is owed to a thread until it is in its call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debt {
    /// The registers for when a signal's handler runs first; `None`: the kernel knows.
    pub interrupted: Option<Regs>,
    /// The number of the call, where `restart_syscall` would be the process' death.
    pub anew: Option<u64>,
}

/// Lets a stopped thread go, with a signal unless it is 0. One with a debt is to be seen off after this.
pub(super) fn let_go(tid: i32, signal: i32, debt: Option<Debt>) -> std::io::Result<Option<(i32, Debt)>> {
    match debt {
        None => sys::detach(tid, signal).map(|()| None),
        Some(debt) => sys::cont_to_syscall(tid, signal).map(|()| Some((tid, debt))),
    }
}

/// How long threads may take to get to a processor and into their calls.
const PATIENCE: Duration = Duration::from_secs(3);

/// Waits until each of these threads is in its call or has a signal's handler to run. None of them is held meanwhile. Returns those
/// that go on traced, until the tracer ends: to be let go by a request a thread has to stop, and this would end a call that it is
/// about to begin. Those that have not come there in time go on likewise, in front of their calls.
pub(super) fn see_off(process: &Process, going: impl IntoIterator<Item = (i32, Debt)>) -> Vec<i32> {
    /// Looks before the first sleep.
    const SPINS: u32 = 20;
    let mut left: Vec<(i32, Debt)> = going.into_iter().collect();
    let mut traced = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    for look in 0u32.. {
        // One that waits for a processor does not keep the others in front of their calls.
        left.retain(|(tid, debt)| match see_one_off(process, *tid, *debt) {
            Seen::Waits => true,
            Seen::InCall => {
                traced.push(*tid);
                false
            }
            Seen::Gone => false,
        });
        if left.is_empty() || Instant::now() >= deadline {
            break;
        }
        if look < SPINS { sys::yield_now() } else { sys::await_child(Duration::from_micros(500)) }
    }
    traced.extend(left.iter().map(|(tid, _)| tid));
    traced
}

/// Where a thread is that was let go with a debt.
enum Seen {
    /// Not in its call yet.
    Waits,
    /// There, and traced.
    InCall,
    /// On its way without us.
    Gone,
}

fn see_one_off(process: &Process, tid: i32, debt: Debt) -> Seen {
    let signal = match sys::wait(tid) {
        Ok(Some(Wait::Syscall)) => {
            pay_anew(process, tid, debt);
            return if sys::cont(tid, 0).is_ok() { Seen::InCall } else { Seen::Gone };
        }
        Ok(Some(Wait::Signal(signal))) if task::catches(process.pid, tid, signal) => {
            if let Some(interrupted) = debt.interrupted {
                let _ = sys::set_regs(tid, &interrupted);
            }
            signal
        }
        // It has no effect on the call: it is ignored, or ends or stops the process.
        Ok(Some(Wait::Signal(signal))) => {
            return if sys::cont_to_syscall(tid, signal).is_ok() { Seen::Waits } else { Seen::Gone };
        }
        // A group-stop, which holds on.
        Ok(Some(Wait::Stop | Wait::Event(_))) => 0,
        Ok(None) => return Seen::Waits,
        Err(e) if e.raw_os_error() == Some(libc::EINTR) => return Seen::Waits,
        Ok(Some(Wait::Ended)) | Err(_) => return Seen::Gone,
    };
    // Whatever fails here fails because the thread has ended.
    let _ = sys::detach(tid, signal);
    Seen::Gone
}

/// At the entry of `restart_syscall`: the call is made in its place. Filters look at the number after this.
fn pay_anew(process: &Process, tid: i32, debt: Debt) {
    let arch = process.arch();
    let (Some(set), Some(number)) = (arch.call_number_in(), debt.anew) else { return };
    let (Ok(own), Ok(number)) = (i32::try_from(arch.call_number(Call::Restart)), i32::try_from(number)) else { return };
    if sys::set_number(tid, set).is_ok_and(|entered| entered == own) {
        let _ = sys::change_set_number(tid, set, number);
        // The next stop has to find the call that is made.
        if let (Ok(mut regs), Some(number)) = (sys::get_regs(tid, arch.regs_len()), debt.anew) {
            arch.set_call_number(&mut regs, number);
            let _ = sys::set_regs(tid, &regs);
        }
    }
}

/// The call with this number from which a stopped thread has come back, where the kernel has forgotten it: with the argument that
/// the result stands in the place of.
pub(super) fn call_of(process: &Process, tid: i32, regs: &Regs, number: u64) -> Option<Asleep> {
    let arch = process.arch();
    let (set, number) = (arch.call_number_in()?, i32::try_from(number).ok()?);
    let call = arch.call_instruction();
    let behind = arch.pc(regs);
    let at = behind.checked_sub(u64::try_from(call.len()).ok()?)?;
    if process.read_vec(RemoteAddr(at), call.len()).ok()? != call {
        return None;
    }
    // Nothing but the file looks at the number from here to the thread's next call.
    sys::change_set_number(tid, set, number).ok()?;
    let asleep = task::asleep(process.pid, tid);
    sys::change_set_number(tid, set, -1).or_else(|_| sys::change_set_number(tid, set, -1)).ok()?;
    asleep
}

/// The number of the call with which a stopped thread would go on by `restart_syscall`, if it stands in front of one.
pub(super) fn resumable(process: &Process, regs: &Regs) -> Option<u64> {
    let arch = process.arch();
    let number = arch.may_be_resumed(regs)?;
    let call = arch.call_instruction();
    let there = process.read_vec(RemoteAddr(arch.pc(regs)), call.len()).ok()?;
    (there == call).then_some(number)
}
