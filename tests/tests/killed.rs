// SPDX-License-Identifier: GPL-2.0-or-later
//! `kill -9` of ulp-apply at each of its system calls, and at random times: before any other ulp-apply runs the process is
//! unharmed, all old or all new; the next one of any verb tidies up. `ULP_LONG=1` tries every single step, and 10,000
//! random times; `ULP_EACH=N` only each Nth step, and as much less random times.

use anyhow::{Context, Result};
use nix::sys::ptrace;
use nix::unistd::Pid;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};
use ulp_tests::ensure_that;
use ulp_tests::survivor::{
    Extent, Laboratory, Left, OLD, Patient, Tally, Verb, changes_something, each, long, nameless, read_log,
};
use ulp_tests::tools::{run, ulp_apply, ulp_apply_in_steps};

/// The steps to die after: in the short form all that change something, and each `stride`-th of the others.
fn chosen(steps: &[String], stride: usize) -> Vec<usize> {
    let wanted = |(i, step): &(usize, &String)| long() || changes_something(step) || i % stride == 0;
    let mut chosen: Vec<usize> = steps.iter().enumerate().filter(wanted).map(|(i, _)| i + 1).collect();
    // The number of steps differs by a few from run to run.
    chosen.extend(steps.len() + 1..steps.len() + 4);
    chosen.into_iter().step_by(each()).collect()
}

/// Whatever comes next tidies up: each verb has its turn. Afterwards everything is as it was at the start.
fn tidy_up(laboratory: &Laboratory, patient: &mut Patient, turn: usize) -> Result<()> {
    let pid = patient.running.pid().to_string();
    match turn % 4 {
        0 => drop(run(ulp_apply()?.args(["list", "--pid", &pid]))?.expect_code(0)),
        1 => drop(run(ulp_apply()?.args(["verify", "--pid", &pid]))?),
        _ => {}
    }
    if turn.is_multiple_of(2) {
        laboratory.run(Verb::Apply, patient)?.expect_code(0)?;
        let versions = patient.versions()?;
        ensure_that!(versions == laboratory.extent.new_versions(), "the functions are {versions} after the apply");
    }
    let ran = laboratory.run(Verb::Revert, patient)?;
    say_why_kept("to tidy up", &ran.expect_code(0)?.stderr);
    let versions = patient.versions()?;
    ensure_that!(versions == OLD, "the functions are {versions} after the revert");
    patient.check_as_at_the_start(laboratory)
}

/// Passes on the warning of a revert that keeps the memory.
fn say_why_kept(which: &str, stderr: &str) {
    for line in stderr.lines().filter(|line| line.contains(" stays")) {
        println!("{which}: {line}");
    }
}

/// Whether the patch's memory is listed as kept.
fn is_kept(patient: &Patient) -> Result<bool> {
    let ran = run(ulp_apply()?.args(["list", "--pid", &patient.running.pid().to_string()]))?;
    Ok(ran.expect_code(0)?.stdout.contains("retired (reverted, memory kept)"))
}

/// Tidies up after one trial or several. False when the program is of no use any more.
fn tidied(
    tally: &mut Tally,
    laboratory: &Laboratory,
    patient: &mut Patient,
    turn: usize,
    nameless: bool,
    when: &str,
) -> bool {
    match tidy_up(laboratory, patient, turn) {
        Err(e) if nameless && e.is::<Left>() => {
            tally.lost += 1;
            false
        }
        // A revert says so when it keeps the memory; what it does not know of is harm.
        Err(e) if e.is::<Left>() && is_kept(patient).unwrap_or(false) => {
            println!("{when}: kept: {e:#}");
            tally.kept += 1;
            false
        }
        result => tally.tidied(when, result) && tally.examine_undisturbed(patient, &format!("tidied up, {when}")),
    }
}

/// Ends an apply, then a revert, after each of their steps in turn.
fn killed_at_every_step(extent: Extent, stride: usize, name: &str) -> Result<()> {
    /// Another thread is borrowed in each program, and dead appliers' stubs fill no more than one.
    const TRIALS_EACH: usize = 12;
    let laboratory = Laboratory::open(extent)?;
    let [apply, revert] = laboratory.steps()?;
    let mut tally = Tally::default();
    let mut patient = laboratory.start(0)?;
    for (verb, steps) in [(Verb::Apply, &apply), (Verb::Revert, &revert)] {
        for n in chosen(steps, stride) {
            if verb == Verb::Revert {
                laboratory.run(Verb::Apply, &patient)?.expect_code(0)?;
            }
            let (ran, log) = laboratory.run_in_steps(verb, &patient, Some(("ULP_STEP_KILL", &n.to_string())))?;
            let last = log.last().map_or("", String::as_str);
            let when = format!("{verb:?} killed after step {n}, {last}");
            tally.tried += 1;
            match ran.code {
                None => tally.hits += 1,
                Some(0) => {}
                Some(_) => tally.note(&when, &ran.report()),
            }
            let well = tally.examine(&laboratory, &mut patient, &log, &when);
            let turn = tally.tried;
            let well = well && tidied(&mut tally, &laboratory, &mut patient, turn, nameless(&log), &when);
            if !well || tally.tried % TRIALS_EACH == 0 {
                patient = laboratory.start(tally.tried / TRIALS_EACH)?;
            }
        }
    }
    tally.conclude(name)
}

#[test]
fn one_function_at_every_step() -> Result<()> {
    killed_at_every_step(Extent::OneFunction, 3, "killed, one function")
}

#[test]
fn several_functions_at_every_step() -> Result<()> {
    killed_at_every_step(Extent::SeveralFunctions, 10, "killed, several functions")
}

#[test]
fn several_files_at_every_step() -> Result<()> {
    killed_at_every_step(Extent::SeveralFiles, 20, "killed, several files")
}

/// Numbers without a pattern, from a seed that is printed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Runs to its end or to a time in microseconds, whichever comes first. True when it was killed.
fn killed_after(laboratory: &Laboratory, verb: Verb, patient: &Patient, time: u64) -> Result<(bool, Vec<String>)> {
    let log = laboratory.case.work().join("random.log");
    let _ = std::fs::remove_file(&log);
    let mut command = laboratory.command(ulp_apply_in_steps()?, verb, patient);
    command.env("ULP_STEP_LOG", &log);
    let started = Instant::now();
    let said = laboratory.case.work().join("random.stderr");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&said)?);
    let mut child = command.spawn()?;
    let end = started + Duration::from_micros(time);
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    // It is our child and has not been waited for: the number is still its own.
    child.kill()?;
    let killed = child.wait()?.code().is_none();
    say_why_kept(&format!("{verb:?}"), &std::fs::read_to_string(&said)?);
    Ok((killed, read_log(&log)?))
}

#[test]
fn several_files_at_random_times() -> Result<()> {
    let trials = if long() { 10_000 } else { 500 } / each();
    let laboratory = Laboratory::open(Extent::SeveralFiles)?;
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("a clock")?.as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut patient = laboratory.start(0)?;
    // Whether memory may be lost since the last time everything was tidied up.
    let mut unnamed = false;
    let mut took = [u64::MAX; 2];
    for _ in 0..3 {
        for (verb, took) in [Verb::Apply, Verb::Revert].into_iter().zip(&mut took) {
            let (ran, _) = laboratory.run_in_steps(verb, &patient, None)?;
            ran.expect_code(0)?;
            *took = u64::try_from(ran.took.as_micros())?.min(*took);
        }
    }
    while tally.tried < trials {
        let old = patient.versions()? == OLD;
        let (verb, longest) = if old { (Verb::Apply, took[0]) } else { (Verb::Revert, took[1]) };
        let time = random.next() % longest.max(1);
        tally.tried += 1;
        let (killed, log) = killed_after(&laboratory, verb, &patient, time)?;
        tally.hits += usize::from(killed);
        unnamed |= nameless(&log);
        let last = log.last().map_or("", String::as_str);
        let when = format!("trial {}, {verb:?} killed after {time} us at step {}, {last}", tally.tried, log.len());
        let mut well = tally.examine(&laboratory, &mut patient, &log, &when);
        if well && tally.tried % 10 == 0 {
            let turn = tally.tried / 10;
            well = tidied(&mut tally, &laboratory, &mut patient, turn, unnamed, &when);
            unnamed = false;
        }
        if !well || tally.tried % 50 == 0 {
            patient = laboratory.start(tally.tried / 50)?;
            unnamed = false;
        }
    }
    ensure_that!(tally.kept * 50 <= tally.tried, "memory was kept {} times of {}", tally.kept, tally.tried);
    tally.conclude("killed at random times")
}

/// The program notices what it is there to notice: a register that changes during a call, a tracer that only stops threads
/// and so makes calls fail with EINTR, and functions of two versions.
#[test]
fn harm_is_noticed() -> Result<()> {
    let laboratory = Laboratory::open(Extent::OneFunction)?;
    let harm = |patient: &mut Patient| {
        let mut tally = Tally::default();
        tally.examine(&laboratory, patient, &[], "on purpose");
        tally
    };
    let mut patient = laboratory.start(4)?;
    let first = harm(&mut patient);
    ensure_that!(first.harm.is_empty(), "harm without a reason: {:?}", first.harm);
    // The first thread waits in read, which the kernel starts again.
    ensure_that!(patient.running.ask("spoil")? == "ok", "nothing was spoilt");
    let found = harm(&mut patient);
    ensure_that!(found.registers > 0, "a changed register went unnoticed");

    // Kind 3 is epoll_wait.
    let mut patient = laboratory.start(3)?;
    stopped(Pid::from_raw(i32::try_from(patient.running.pid())?))?;
    let found = harm(&mut patient);
    ensure_that!(found.eintr > 0, "a call that failed with EINTR went unnoticed: {:?}", found.harm);

    let mut patient = laboratory.start(0)?;
    patient.running.ask("group 2")?;
    laboratory.run(Verb::Apply, &patient)?.expect_code(0)?;
    std::thread::sleep(Duration::from_millis(20));
    let found = harm(&mut patient);
    ensure_that!(found.mixtures > 0, "a mixture went unnoticed");
    Ok(())
}

/// Stops a thread as a simple debugger does, and lets it go.
fn stopped(thread: Pid) -> Result<()> {
    ptrace::seize(thread, ptrace::Options::empty())?;
    ptrace::interrupt(thread)?;
    nix::sys::wait::waitpid(thread, Some(nix::sys::wait::WaitPidFlag::__WALL))?;
    Ok(ptrace::detach(thread, None)?)
}
