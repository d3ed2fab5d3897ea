// SPDX-License-Identifier: GPL-2.0-or-later
//! How a thread is let go. Where the kernel decides about an interrupted call when the thread goes on, that is all. Where it has
//! decided before (`Arch::needs_asleep`), a call that our stop has ended begins again because *we* put the thread in front of it,
//! and the kernel does not know: a handler that ran now would end nothing, and who waits for a signal to end its call would
//! wait for ever. So such a thread is seen into its call, and stays traced until the tracer ends, which does not stop it again. A
//! signal with a handler that comes first finds the call ended.

use super::cure::look_and_cure;
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

/// How long threads may take to get to a processor and into their calls. None of them is held meanwhile; and one that is not there
/// when the next stop comes gets an EINTR of it that nobody can cure.
const PATIENCE: Duration = Duration::from_secs(1);

/// Likewise where a thread would be the death of its process on its own.
const GREAT_PATIENCE: Duration = Duration::from_secs(3);

/// Threads that were let go and are not on their own yet. None of them is held. They are traced until the tracer ends: to be let
/// go by a request a thread has to stop, and this would end a call that it is about to begin. A signal stops who is traced,
/// so they are to be looked at again and again.
#[derive(Default)]
pub(super) struct Going {
    /// In front of their calls.
    left: Vec<(i32, Debt)>,
    /// In their calls.
    there: Vec<(i32, Option<Asleep>)>,
}

impl Going {
    /// Lets a stopped thread go, with a signal unless it is 0. One with a debt is to be seen off after this.
    pub fn let_go(&mut self, tid: i32, signal: i32, debt: Option<Debt>) -> std::io::Result<()> {
        let Some(debt) = debt else { return sys::detach(tid, signal) };
        sys::cont_to_syscall(tid, signal)?;
        self.left.push((tid, debt));
        Ok(())
    }

    /// Whether a thread may be in front of its call: it would begin the call in its next stop.
    pub fn is_on_its_way(&self, tid: i32) -> bool {
        self.left.iter().any(|(other, _)| *other == tid)
    }

    /// Takes a thread out that is in its call, with that call.
    pub fn take_back(&mut self, tid: i32) -> Option<Option<Asleep>> {
        let index = self.there.iter().position(|(other, _)| *other == tid)?;
        Some(self.there.swap_remove(index).1)
    }

    /// Looks once at each of them, and waits for none.
    pub fn look(&mut self, process: &Process) {
        for (tid, debt) in std::mem::take(&mut self.left) {
            match see_one_off(process, tid, debt) {
                Seen::Waits => self.left.push((tid, debt)),
                Seen::InCall(asleep) => self.there.push((tid, asleep)),
                Seen::Gone => {}
            }
        }
        for (tid, asleep) in std::mem::take(&mut self.there) {
            let signal = match sys::wait(tid) {
                Ok(None) => {
                    self.there.push((tid, asleep));
                    continue;
                }
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {
                    self.there.push((tid, asleep));
                    continue;
                }
                Ok(Some(Wait::Ended)) | Err(_) => continue,
                Ok(Some(Wait::Signal(signal))) => signal,
                Ok(Some(_)) => 0,
            };
            let looked = look_and_cure(process, tid, signal, asleep.as_ref());
            // Whatever fails here fails because the thread has ended.
            let _ = self.let_go(tid, signal, looked.map_or_else(|e| e.debt, |looked| looked.debt));
        }
    }

    /// Waits until each of them is in its call or has a signal's handler to run, but not for ever.
    pub fn see_off(&mut self, process: &Process) {
        /// Looks before the first sleep.
        const SPINS: u32 = 20;
        let began = Instant::now();
        for look in 0u32.. {
            self.look(process);
            let dear = self.left.iter().any(|(_, debt)| debt.anew.is_some());
            if self.left.is_empty() || began.elapsed() >= if dear { GREAT_PATIENCE } else { PATIENCE } {
                break;
            }
            if look < SPINS { sys::yield_now() } else { sys::await_child(Duration::from_micros(500)) }
        }
    }
}

/// Where a thread is that was let go with a debt.
enum Seen {
    /// Not in its call yet.
    Waits,
    /// There, and traced.
    InCall(Option<Asleep>),
    /// On its way without us.
    Gone,
}

fn see_one_off(process: &Process, tid: i32, debt: Debt) -> Seen {
    let signal = match sys::wait(tid) {
        Ok(Some(Wait::Syscall)) => {
            pay_anew(process, tid, debt);
            let asleep = task::asleep(process.pid, tid);
            return if sys::cont(tid, 0).is_ok() { Seen::InCall(asleep) } else { Seen::Gone };
        }
        Ok(Some(Wait::Signal(signal))) if task::catches(process.pid, tid, signal) => {
            let interrupted = debt.interrupted.or_else(|| end_anew(process, tid, debt));
            if let Some(interrupted) = interrupted {
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
    let (Some(set), Some(anew)) = (arch.call_number_in(), debt.anew) else { return };
    let (Ok(own), Ok(number)) = (i32::try_from(arch.call_number(Call::Restart)), i32::try_from(anew)) else { return };
    if sys::set_number(tid, set).is_ok_and(|entered| entered == own) {
        let _ = sys::change_set_number(tid, set, number);
        // The next stop of this wait has to find the call, and not the number that the kernel has put there.
        if let Ok(mut regs) = sys::get_regs(tid, arch.regs_len()) {
            arch.set_call_number(&mut regs, anew);
            let _ = sys::set_regs(tid, &regs);
        }
    }
}

/// The registers of a thread that a handler is to interrupt, if the kernel has put it in front of `restart_syscall` already: to come
/// back there would be its death. Before, the kernel itself ends the wait.
fn end_anew(process: &Process, tid: i32, debt: Debt) -> Option<Regs> {
    debt.anew?;
    let regs = sys::get_regs(tid, process.arch().regs_len()).ok()?;
    resuming_ended(process, &regs)
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
    process.arch().may_be_resumed(regs).filter(|_| makes_a_call(process, regs))
}

/// The registers of a stopped thread with its wait ended, if it would go on with it by `restart_syscall`.
pub(super) fn resuming_ended(process: &Process, regs: &Regs) -> Option<Regs> {
    process.arch().resuming_ended(regs).filter(|_| makes_a_call(process, regs))
}

fn makes_a_call(process: &Process, regs: &Regs) -> bool {
    let arch = process.arch();
    let call = arch.call_instruction();
    process.read_vec(RemoteAddr(arch.pc(regs)), call.len()).is_ok_and(|there| there == call)
}
