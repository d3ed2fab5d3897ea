// SPDX-License-Identifier: GPL-2.0-or-later
//! Each system call of ulp-apply fails once, and at each the process exits, starts another program, forks or is grabbed by
//! a debugger: nothing is changed, or all of it; the message is clear and the exit code the documented one. `ULP_LONG=1`
//! tries every single step.

use anyhow::{Context, Result};
use nix::sys::ptrace;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::time::Duration;
use ulp_tests::ensure_that;
use ulp_tests::survivor::{Extent, Laboratory, OLD, Patient, Tally, Verb, changes_something, each, long};
use ulp_tests::tools::{Ran, run, ulp_apply};

/// An error that this call can really have; different ones in turn.
fn fitting(step: &str, turn: usize) -> i32 {
    use nix::libc::*;
    let words: Vec<&str> = step.split(' ').collect();
    let errors: &[i32] = match words.as_slice() {
        ["ptrace", ..] => &[ESRCH, EIO, EPERM],
        ["waitpid", ..] => &[ECHILD],
        ["call", "mmap"] => &[ENOMEM, EPERM, EACCES],
        ["call", _] => &[ENOMEM],
        ["pwrite", ..] => &[EIO, ENOMEM, EFAULT],
        ["pread" | "process_vm_readv", ..] => &[EFAULT, EIO, EPERM],
        ["flock"] => &[ENOLCK],
        ["kcmp"] => &[EPERM, ESRCH],
        ["ioctl", ..] => &[EIO, ENOTTY],
        ["pidfd_open"] => &[EMFILE, ENOMEM],
        ["poll", ..] => &[ENOMEM],
        _ => &[EMFILE, EACCES, ENOMEM, ESRCH],
    };
    errors[turn % errors.len()]
}

/// What is the same of a step in every run: no addresses and no paths.
fn name_of(step: &str) -> String {
    let words = if step.starts_with("ptrace") || step.starts_with("call") { 2 } else { 1 };
    step.split(' ').take(words).collect::<Vec<_>>().join(" ")
}

/// The steps to try: in the short form those that change something, and each `stride`-th of the others; and of a question
/// that is asked of each process on the machine, the first.
fn chosen(steps: &[String], stride: usize) -> Vec<(usize, String)> {
    let asked_before = |i: usize| i.checked_sub(1).and_then(|before| steps.get(before)).is_some_and(|s| s == "kcmp");
    let wanted = |(i, step): &(usize, &String)| {
        long() || changes_something(step) || i % stride == 0 && !(step.as_str() == "kcmp" && asked_before(*i))
    };
    steps.iter().enumerate().filter(wanted).map(|(i, step)| (i + 1, step.clone())).step_by(each()).collect()
}

/// A failure has a sentence for people, in the form that all have, and nothing of the language it is written in.
fn check_message(ran: &Ran) -> Result<()> {
    let code = ran.code.with_context(|| format!("ended by a signal\n{}", ran.report()))?;
    ensure_that!(matches!(code, 0 | 1 | 3 | 4 | 5), "exit {code} is not for this\n{}", ran.report());
    ensure_that!((code == 0) != ran.stderr.contains("error: "), "the message and the exit differ\n{}", ran.report());
    for word in ["panicked", "RUST_BACKTRACE", "Os {", "Error {", "Some(", "unwrap"] {
        ensure_that!(!ran.stderr.contains(word), "the message says {word:?}\n{}", ran.report());
    }
    Ok(())
}

/// The functions are what the exit code says, and nothing is left of an apply that failed.
fn check_outcome(laboratory: &Laboratory, patient: &mut Patient, verb: Verb, ran: &Ran) -> Result<()> {
    check_message(ran)?;
    check_versions(laboratory, patient, verb, ran)?;
    if verb == Verb::Apply && ran.code != Some(0) {
        patient.check_as_at_the_start(laboratory).with_context(|| ran.report())?;
    }
    Ok(())
}

fn check_versions(laboratory: &Laboratory, patient: &mut Patient, verb: Verb, ran: &Ran) -> Result<()> {
    let versions = patient.versions()?;
    let new = (verb == Verb::Apply) == (ran.code == Some(0));
    let wanted = if new { laboratory.extent.new_versions() } else { OLD.into() };
    ensure_that!(versions == wanted, "the functions are {versions}\n{}", ran.report());
    Ok(())
}

/// Back to how it was at the start, with nothing in the way any more.
fn restore(laboratory: &Laboratory, patient: &mut Patient) -> Result<()> {
    laboratory.run(Verb::Apply, patient)?.expect_code(0)?;
    let reverted = laboratory.run(Verb::Revert, patient)?;
    reverted.expect_code(0)?;
    ensure_that!(patient.versions()? == OLD, "the functions are not the old ones after the revert");
    patient.check_as_at_the_start(laboratory).with_context(|| reverted.report())
}

/// Fails each step of an apply, then of a revert, in turn.
fn each_call_fails(extent: Extent, stride: usize, name: &str) -> Result<()> {
    const TRIALS_EACH: usize = 12;
    let laboratory = Laboratory::open(extent)?;
    let [apply, revert] = laboratory.steps()?;
    let mut tally = Tally::default();
    let mut patient = laboratory.start(0)?;
    for (verb, steps) in [(Verb::Apply, &apply), (Verb::Revert, &revert)] {
        for (n, step) in chosen(steps, stride) {
            if verb == Verb::Revert {
                laboratory.run(Verb::Apply, &patient)?.expect_code(0)?;
            }
            let errno = fitting(&step, tally.tried);
            // Steps are told by their names: the number of all steps differs from run to run, as that of processes does.
            let name = name_of(&step);
            let nth = steps.iter().take(n).filter(|step| name_of(step) == name).count();
            let wish = format!("{nth}:{errno}:{name}");
            let (ran, _) = laboratory.run_in_steps(verb, &patient, Some(("ULP_STEP_FAIL", &wish)))?;
            let when = format!("{verb:?}, {nth}. {step} fails with {errno}");
            tally.tried += 1;
            tally.hits += usize::from(ran.code != Some(0));
            // Who is told that a thread has ended, and it has not, cannot always cure it.
            let mut well = tally.examine_after(&laboratory, &mut patient, step.starts_with("waitpid"), &when);
            if well {
                let outcome = check_outcome(&laboratory, &mut patient, verb, &ran);
                well = tally.tidied(&when, outcome.and_then(|()| restore(&laboratory, &mut patient)));
            }
            if !well || tally.tried % TRIALS_EACH == 0 {
                patient = laboratory.start(tally.tried / TRIALS_EACH)?;
            }
        }
    }
    tally.conclude(name)
}

#[test]
fn each_system_call_fails_once() -> Result<()> {
    each_call_fails(Extent::OneFunction, 2, "a call fails, one function")
}

#[test]
fn each_system_call_fails_once_with_several_files() -> Result<()> {
    each_call_fails(Extent::SeveralFiles, 10, "a call fails, several files")
}

/// What the process does at a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    IsKilled,
    Exits,
    Execs,
    Forks,
    Vforks,
}

/// Long enough for whoever is not held to do it; who is held does it later.
const MOMENT: Duration = Duration::from_millis(4);

impl Event {
    /// Has it happen, or begin to happen.
    fn cause(self, patient: &mut Patient, answer: &mut Option<String>) -> Result<()> {
        match self {
            Self::IsKilled => Ok(patient.running.kill()?),
            Self::Exits => patient.running.tell("exit"),
            Self::Execs => patient.running.tell("exec"),
            Self::Forks => patient.running.tell("fork"),
            Self::Vforks => patient.running.tell("vfork"),
        }?;
        *answer = patient.running.line_within(MOMENT);
        Ok(())
    }

    fn ends_it(self) -> bool {
        matches!(self, Self::IsKilled | Self::Exits)
    }

    /// What the exit code may be: done before it happened or in spite of it, or why not.
    fn codes(self) -> &'static [i32] {
        match self {
            Self::IsKilled | Self::Exits => &[0, 3],
            Self::Execs => &[0, 4],
            Self::Forks | Self::Vforks => &[0],
        }
    }

    /// All is well afterwards.
    fn check(
        self,
        laboratory: &Laboratory,
        patient: &mut Patient,
        verb: Verb,
        ran: &Ran,
        answer: Option<String>,
    ) -> Result<()> {
        check_message(ran)?;
        let code = ran.code.unwrap_or(-1);
        ensure_that!(self.codes().contains(&code), "exit {code} is not for this\n{}", ran.report());
        if self.ends_it() {
            return patient.running.end();
        }
        let answer = answer.map_or_else(|| patient.running.line(), Ok)?;
        match self {
            Self::Execs => {
                ensure_that!(answer == "ready", "the program says {answer:?} in place of \"ready\"");
                patient.started_again(laboratory)?;
                let versions = patient.versions()?;
                if verb == Verb::Apply && ran.code == Some(0) && versions != OLD {
                    // It was there before the applier looked.
                    laboratory.run(Verb::Revert, patient)?.expect_code(0)?;
                    patient.started_again(laboratory)?;
                }
                ensure_that!(patient.versions()? == OLD, "the functions of the new program are {versions}");
            }
            _ => {
                ensure_that!(answer == "ok", "the child did not live: {answer:?}\n{}", ran.report());
                check_outcome(laboratory, patient, verb, ran)?;
            }
        }
        restore(laboratory, patient)
    }
}

/// The process does something at each step in turn.
fn at_each_step(event: Event, stride: usize, name: &str) -> Result<()> {
    const TRIALS_EACH: usize = 12;
    let laboratory = Laboratory::open(Extent::SeveralFunctions)?;
    let [apply, revert] = laboratory.steps()?;
    let mut tally = Tally::default();
    let mut patient = laboratory.start(0)?;
    let mut codes = BTreeMap::<i32, usize>::new();
    for (verb, steps) in [(Verb::Apply, &apply), (Verb::Revert, &revert)] {
        for (n, step) in chosen(steps, 6).into_iter().step_by(if long() { 1 } else { stride }) {
            if verb == Verb::Revert {
                laboratory.run(Verb::Apply, &patient)?.expect_code(0)?;
            }
            let when = format!("{verb:?}, {event:?} at step {n}, about {step}");
            let mut answer = None;
            let (ran, reached) =
                laboratory.run_with_hook(verb, &mut patient, n, |patient| event.cause(patient, &mut answer))?;
            tally.tried += 1;
            tally.hits += usize::from(reached);
            *codes.entry(ran.code.unwrap_or(-1)).or_default() += 1;
            let mut well = true;
            if reached {
                let checked = event.check(&laboratory, &mut patient, verb, &ran, answer);
                well = tally.tidied(&when, checked);
            }
            if event.ends_it() && reached {
                well = false;
            } else {
                // The new program begins its life traced, and the old one's child dies with its parent: of a process that is
                // traced even this signal without an effect interrupts some thread.
                well = well && tally.examine_after(&laboratory, &mut patient, event == Event::Execs, &when);
            }
            if !well || tally.tried % TRIALS_EACH == 0 {
                patient = laboratory.start(tally.tried / TRIALS_EACH)?;
            }
        }
    }
    println!("{name}: exit codes and their numbers {codes:?}");
    tally.conclude(name)
}

#[test]
fn killed_at_each_step() -> Result<()> {
    at_each_step(Event::IsKilled, 2, "the process is killed")
}

#[test]
fn exit_at_each_step() -> Result<()> {
    at_each_step(Event::Exits, 2, "the process exits")
}

#[test]
fn exec_at_each_step() -> Result<()> {
    at_each_step(Event::Execs, 2, "the process execs")
}

#[test]
fn fork_at_each_step() -> Result<()> {
    at_each_step(Event::Forks, 3, "the process forks")
}

#[test]
fn vfork_at_each_step() -> Result<()> {
    at_each_step(Event::Vforks, 3, "the process vforks")
}

/// Threads are born and end all the time while the patch goes in and out.
#[test]
fn threads_born_in_a_storm() -> Result<()> {
    let laboratory = Laboratory::open(Extent::SeveralFiles)?;
    let mut tally = Tally::default();
    let mut patient = laboratory.start(0)?;
    ensure_that!(patient.running.ask("storm")? == "ok", "no storm");
    for round in 0..if long() { 200 } else { 15 } {
        for verb in [Verb::Apply, Verb::Revert] {
            let ran = laboratory.run(verb, &patient)?;
            let when = format!("round {round}, {verb:?}");
            tally.tried += 1;
            tally.hits += usize::from(ran.code == Some(0));
            let outcome = ran.expect_code(0).and_then(|_| check_versions(&laboratory, &mut patient, verb, &ran));
            tally.tidied(&when, outcome.map(drop));
            tally.examine(&laboratory, &mut patient, &[], &when);
        }
    }
    ensure_that!(patient.running.ask("calm")? == "ok", "no calm");
    tally.conclude("threads are born in a storm")
}

/// A debugger that comes in the middle: this test takes hold of the first thread at each step, as one does that attaches.
#[test]
fn debugger_at_each_step() -> Result<()> {
    let laboratory = Laboratory::open(Extent::SeveralFunctions)?;
    let [apply, _] = laboratory.steps()?;
    let mut tally = Tally::default();
    let mut patient = laboratory.start(4)?;
    let mut codes = BTreeMap::<i32, usize>::new();
    for (n, step) in chosen(&apply, 6).into_iter().step_by(if long() { 1 } else { 3 }) {
        let when = format!("a debugger comes at step {n}, about {step}");
        let thread = Pid::from_raw(i32::try_from(patient.running.pid())?);
        let mut attached = false;
        let (ran, reached) = laboratory.run_with_hook(Verb::Apply, &mut patient, n, |_| {
            // Where the applier was faster, the debugger is the one that is refused.
            attached = ptrace::seize(thread, ptrace::Options::empty()).is_ok();
            Ok(())
        })?;
        if attached {
            let_go(thread)?;
        }
        tally.tried += 1;
        tally.hits += usize::from(reached && attached);
        *codes.entry(ran.code.unwrap_or(-1)).or_default() += 1;
        let outcome = check_outcome(&laboratory, &mut patient, Verb::Apply, &ran).and_then(|()| {
            let code = ran.code.unwrap_or(-1);
            ensure_that!(matches!(code, 0 | 4 | 5), "exit {code} is not for this\n{}", ran.report());
            let named = ran.stderr.contains("debugger") && ran.stderr.contains(&nix::unistd::gettid().to_string());
            ensure_that!(code != 5 || named, "the debugger is not named\n{}", ran.report());
            restore(&laboratory, &mut patient)
        });
        let well = tally.tidied(&when, outcome);
        // The debugger's own stop is not cured by anybody, so only a wait that the kernel starts again is asked about: the
        // first thread's, which reads.
        if !tally.examine(&laboratory, &mut patient, &[], &when) || !well {
            patient = laboratory.start(4)?;
        }
    }
    println!("a debugger comes: exit codes and their numbers {codes:?}");
    ensure_that!(codes.contains_key(&5), "the debugger was never in the way: {codes:?}");
    tally.conclude("a debugger comes")
}

/// Detaching wants a stopped thread.
fn let_go(thread: Pid) -> Result<()> {
    ptrace::interrupt(thread)?;
    nix::sys::wait::waitpid(thread, Some(nix::sys::wait::WaitPidFlag::__WALL))?;
    Ok(ptrace::detach(thread, None)?)
}

/// While one applier is at work, another one waits as long as it was told to and then says so.
#[test]
fn second_applier_says_busy() -> Result<()> {
    let laboratory = Laboratory::open(Extent::OneFunction)?;
    let [apply, _] = laboratory.steps()?;
    let locked = apply.iter().position(|step| step == "flock").context("there is no lock")? + 2;
    let mut patient = laboratory.start(0)?;
    let mut second = None;
    let pid = patient.running.pid().to_string();
    let (first, reached) = laboratory.run_with_hook(Verb::Apply, &mut patient, locked, |_| {
        let mut command = ulp_apply()?;
        second = Some(run(command.arg("apply").arg(&laboratory.package).args(["--wait", "100ms", "--pid", &pid]))?);
        Ok(())
    })?;
    ensure_that!(reached, "the first applier ended before its step {locked}");
    let second = second.context("there was no second applier")?;
    second.expect_code(4)?;
    ensure_that!(second.stderr.contains("another ulp-apply"), "the other is not named\n{}", second.report());
    first.expect_code(0)?;
    ensure_that!(patient.versions()? == laboratory.extent.new_versions(), "the first did not apply");
    let mut tally = Tally { tried: 1, hits: 1, ..Tally::default() };
    tally.examine(&laboratory, &mut patient, &[], "two appliers");
    tally.tidied("two appliers", restore(&laboratory, &mut patient));
    tally.conclude("two appliers at once")
}

/// The process ends and another one of the same program gets its number, between two steps: it is not touched.
#[test]
fn number_used_again() -> Result<()> {
    let laboratory = Laboratory::open(Extent::OneFunction)?;
    let [apply, _] = laboratory.steps()?;
    let mut tally = Tally::default();
    let (mut recycled, mut codes) = (0, BTreeMap::<i32, usize>::new());
    let opened = apply.iter().position(|step| step == "flock").context("there is no lock")?;
    for n in [2, 3, 4, 5, 6, 8, opened, opened + 1, opened + 5, opened + 30, opened + 60] {
        let mut patient = laboratory.start(0)?;
        let mut heir = None;
        let (ran, reached) = laboratory.run_with_hook(Verb::Apply, &mut patient, n, |patient| {
            let pid = patient.running.pid();
            patient.running.end()?;
            heir = start_with_number(&laboratory, pid)?;
            Ok(())
        })?;
        tally.tried += 1;
        *codes.entry(ran.code.unwrap_or(-1)).or_default() += 1;
        let Some(mut heir) = heir.filter(|_| reached) else { continue };
        recycled += 1;
        tally.hits += 1;
        let when = format!("the number is used again at step {n}");
        let outcome = check_message(&ran).and_then(|()| {
            // Opened as a whole before or after the change it is one process; else it is refused.
            let code = ran.code.unwrap_or(-1);
            ensure_that!(matches!(code, 0 | 3 | 4), "exit {code} is not for this\n{}", ran.report());
            let wanted = if code == 0 { laboratory.extent.new_versions() } else { OLD.into() };
            let versions = heir.versions()?;
            ensure_that!(versions == wanted, "the functions of the new process are {versions}\n{}", ran.report());
            if code == 0 { Ok(()) } else { heir.check_as_at_the_start(&laboratory) }
        });
        tally.tidied(&when, outcome);
        tally.examine(&laboratory, &mut heir, &[], &when);
    }
    println!("the number is used again: exit codes and their numbers {codes:?}");
    if recycled == 0 {
        println!("SKIPPED number_used_again: this user may not say which number a process gets");
        return Ok(());
    }
    tally.conclude("a number is used again")
}

/// Starts the program with this number, if that can be had.
fn start_with_number(laboratory: &Laboratory, pid: u32) -> Result<Option<Patient>> {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    for _ in 0..50 {
        if std::fs::write(LAST, (pid - 1).to_string()).is_err() {
            return Ok(None);
        }
        // Somebody else may have been faster, or an end not yet been taken note of.
        let patient = laboratory.start(0)?;
        if patient.running.pid() == pid {
            return Ok(Some(patient));
        }
    }
    Ok(None)
}
