// SPDX-License-Identifier: GPL-2.0-or-later
//! What a review asked: who is hurt when an applier is stopped, slow or killed at the worst of moments, and when the process
//! does what an applier least expects. The applier waits at a named step until the test has done its part.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use ulp_tests::case::Case;
use ulp_tests::process::Running;
use ulp_tests::tools::{run, ulp_apply, ulp_apply_in_steps};
use ulp_tests::{CannotRun, ensure_that};

ulp_tests::main_of_tests!(
    a_signal_outlives_an_applier_killed_in_front_of_it,
    an_applier_put_to_sleep_holds_nobody,
    an_applier_that_is_stopped_for_good_is_ended,
    calls_that_a_program_dispatches_are_not_made,
    a_sibling_born_at_the_last_moment_is_seen,
    appliers_of_two_views_of_proc_exclude_each_other,
);

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while !done() {
        ensure_that!(Instant::now() < give_up, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// An applier that waits at steps; ended when dropped.
struct Waiting {
    child: Child,
    places: Vec<PathBuf>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Waiting {
    /// Starts `apply`, which waits before each of `steps`: a number, and how the step's name begins.
    fn start(case: &Case, package: &Path, target: &Running, steps: &[(u32, &str)], wait: &str) -> Result<Self> {
        let places: Vec<PathBuf> = (0..steps.len()).map(|i| case.work().join(format!("at-{i}"))).collect();
        let hooks: Vec<String> =
            steps.iter().zip(&places).map(|((n, name), place)| format!("{n}:{name}:{}", place.display())).collect();
        let mut command = ulp_apply_in_steps()?;
        command.arg(package).args(["--wait", wait, "--pid"]).arg(target.pid().to_string());
        // A group of its own, whose leader has a parent in the session: only then stop signals of a terminal stop it.
        command.env("ULP_STEP_HOOKS", hooks.join(";")).process_group(0).stdout(Stdio::null());
        Ok(Self { child: command.spawn()?, places })
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(self.child.id().try_into()?))
    }

    fn reach(&mut self, place: usize) -> Result<()> {
        let path = self.places.get(place).context("a place")?;
        until("the applier reaches its step", || path.exists() || self.child.try_wait().is_ok_and(|s| s.is_some()))?;
        ensure_that!(path.exists(), "the applier ended before its step");
        Ok(())
    }

    fn leave(&self, place: usize) -> Result<()> {
        Ok(std::fs::remove_file(self.places.get(place).context("a place")?)?)
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        until("the applier ends", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.context("a status")
    }
}

fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
}

fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.lines().any(|line| line.split_whitespace().eq(["TracerPid:", "0"]))
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
}

/// The program, its package, and the program running.
fn touchy() -> Result<(Case, PathBuf, Running)> {
    let case = Case::life("touchy")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    ensure_that!(target.ask("used")? == "2", "the program is not as it should be");
    Ok((case, package, target))
}

/// Another applier patches the process as if nothing had been.
fn patch(package: &Path, target: &mut Running) -> Result<()> {
    run(ulp_apply()?.arg(package).args(["--wait", "20s", "--pid"]).arg(target.pid().to_string()))?.expect_code(0)?;
    ensure_that!(target.ask("used")? == "101", "not patched");
    target.check_alive()
}

fn a_signal_outlives_an_applier_killed_in_front_of_it() -> Result<()> {
    let (case, package, mut target) = touchy()?;
    target.ask("handle")?;
    let steps = [(1, "ptrace INTERRUPT"), (1, "ptrace DETACH")];
    let mut applier = Waiting::start(&case, &package, &target, &steps, "20s")?;
    applier.reach(0)?;
    signal(target.pid(), Signal::SIGUSR1)?;
    until("the thread stops before its signal", || state(target.pid()) == 't')?;
    applier.leave(0)?;
    // Its stop was noted, and it has not gone on yet.
    applier.reach(1)?;
    kill(applier.pid()?, Signal::SIGKILL)?;
    applier.end()?;
    let mut caught = String::new();
    until("the signal arrives", || {
        caught = target.ask("caught").unwrap_or_default();
        caught == "1" || caught.is_empty()
    })
    .with_context(|| format!("caught {caught:?}"))?;
    patch(&package, &mut target)
}

fn an_applier_put_to_sleep_holds_nobody() -> Result<()> {
    let (case, package, mut target) = touchy()?;
    let mut applier = Waiting::start(&case, &package, &target, &[(1, "pwrite 1 bytes")], "20s")?;
    applier.reach(0)?;
    ensure_that!(is_traced(target.pid()), "the process is not held where it should be");
    // As Ctrl-Z does.
    kill(applier.pid()?, Signal::SIGTSTP)?;
    std::thread::sleep(Duration::from_millis(300));
    applier.leave(0)?;
    until("the applier lets go and sleeps", || !is_traced(target.pid()) && state(applier.child.id()) == 'T')?;
    ensure_that!(target.ask("used")? == "101", "not patched");
    kill(applier.pid()?, Signal::SIGCONT)?;
    ensure_that!(applier.end()?.code() == Some(0), "the applier failed");
    target.check_alive()
}

fn an_applier_that_is_stopped_for_good_is_ended() -> Result<()> {
    let (case, package, mut target) = touchy()?;
    let mut applier = Waiting::start(&case, &package, &target, &[(1, "pwrite 1 bytes")], "20s")?;
    applier.reach(0)?;
    ensure_that!(is_traced(target.pid()), "the process is not held where it should be");
    kill(applier.pid()?, Signal::SIGSTOP)?;
    until("the process goes on", || !is_traced(target.pid()))?;
    ensure_that!(applier.end()?.signal() == Some(Signal::SIGKILL as i32), "the applier lives");
    ensure_that!(target.ask("used")? == "2", "half patched");
    target.check_alive()?;
    patch(&package, &mut target)
}

fn calls_that_a_program_dispatches_are_not_made() -> Result<()> {
    let (_case, package, mut target) = touchy()?;
    target.ask("dispatch")?;
    let ran = run(ulp_apply()?.arg(&package).args(["--wait", "300ms", "--pid"]).arg(target.pid().to_string()))?;
    target.check_alive()?;
    ran.expect_code(4)?;
    ensure_that!(ran.stderr.contains("dispatched"), "{}", ran.report());
    ensure_that!(target.ask("plain")? == "2", "patched");
    patch(&package, &mut target)
}

fn a_sibling_born_at_the_last_moment_is_seen() -> Result<()> {
    let (case, package, mut target) = touchy()?;
    // The first is that of the thread that is borrowed.
    let mut applier = Waiting::start(&case, &package, &target, &[(2, "ptrace SEIZE")], "200ms")?;
    applier.reach(0)?;
    target.ask("sibling")?;
    applier.leave(0)?;
    ensure_that!(applier.end()?.code() == Some(4), "a process shares the memory and was not seen");
    ensure_that!(target.ask("alone")? == "2", "patched");
    patch(&package, &mut target)
}

fn appliers_of_two_views_of_proc_exclude_each_other() -> Result<()> {
    let other_view = ["--mount", "sh", "-c", "mount -t proc proc /proc && exec \"$@\"", "sh"];
    let can = Command::new("unshare").args(other_view).arg("true").stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        return Err(CannotRun("no right to mount another /proc".into()).into());
    }
    let (case, package, mut target) = touchy()?;
    let mut applier = Waiting::start(&case, &package, &target, &[(1, "ptrace SEIZE")], "20s")?;
    applier.reach(0)?;
    let program = PathBuf::from(ulp_apply()?.get_program());
    let mut second = Command::new("unshare");
    second.args(other_view).arg(program).arg(&package).args(["--wait", "200ms", "--pid"]);
    let ran = run(second.arg(target.pid().to_string()))?;
    applier.leave(0)?;
    ran.expect_code(4)?;
    ensure_that!(ran.stderr.contains("another ulp-apply"), "{}", ran.report());
    ensure_that!(applier.end()?.code() == Some(0), "the applier failed");
    ensure_that!(target.ask("used")? == "101", "not patched");
    target.check_alive()
}
