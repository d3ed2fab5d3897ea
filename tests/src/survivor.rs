// SPDX-License-Identifier: GPL-2.0-or-later
//! The program of `tests/life/survivor`, which notices every harm that an applier can do to it, and the applier of the
//! feature `steps`, which can be ended or made to fail at each of its system calls.

mod stops;

use crate::case::{Case, NAME, Picture};
use crate::ensure_that;
use crate::process::{Mapping, Running};
use crate::tools::{Ran, run, ulp_apply, ulp_apply_in_steps};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the program's functions answer before any patch.
pub const OLD: &str = "1 1 1 1 1";
/// Kinds of wait; the first thread can be in each of them.
const KINDS: usize = 17;

/// How much of a program a patch changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    OneFunction,
    SeveralFunctions,
    SeveralFiles,
}

impl Extent {
    /// How many of the functions, in their order, are changed.
    pub fn functions(self) -> usize {
        match self {
            Self::OneFunction => 1,
            Self::SeveralFunctions => 3,
            Self::SeveralFiles => 5,
        }
    }

    /// What the program's functions answer with the patch.
    pub fn new_versions(self) -> String {
        let version = |i| if i < self.functions() { "2" } else { "1" };
        (0..5).map(version).collect::<Vec<_>>().join(" ")
    }
}

/// The program's sources, its build, and one patch for it.
#[derive(Debug)]
pub struct Laboratory {
    pub case: Case,
    pub extent: Extent,
    pub package: PathBuf,
}

impl Laboratory {
    pub fn open(extent: Extent) -> Result<Self> {
        const FUNCTIONS: [(&str, u32); 5] = [("main", 1), ("main", 2), ("main", 3), ("one", 4), ("two", 5)];
        let case = Case::life("survivor")?;
        let texts = FUNCTIONS.map(|(file, n)| (file, format!("n + 10{n}"), format!("n + 20{n}")));
        let edits: Vec<_> = texts.iter().map(|(file, old, new)| (*file, old.as_str(), new.as_str())).collect();
        let targets = if extent == Extent::SeveralFiles { 3 } else { 1 };
        let package = case.package_for(NAME, edits.get(..extent.functions()).context("functions")?, &[], targets)?;
        Ok(Self { case, extent, package })
    }

    /// Starts the program; `first` chooses what its first thread waits in, which is the one an applier borrows.
    pub fn start(&self, first: usize) -> Result<Patient> {
        let mut running = Running::start(&self.case.production.program, &[(first % KINDS).to_string()])?;
        let answer = running.ask(&format!("group {}", self.extent.functions()))?;
        ensure_that!(answer == "ok", "the program answers {answer:?}");
        let maps = running.lasting_maps()?;
        let code = Picture::take(&running, &self.case.production)?;
        Ok(Patient { running, maps, code })
    }

    /// An apply of the patch, or a revert.
    pub fn command(&self, mut applier: Command, verb: Verb, patient: &Patient) -> Command {
        match verb {
            Verb::Apply => applier.arg("apply").arg(&self.package),
            Verb::Revert => applier.args(["revert", "fix"]),
        };
        applier.args(["--wait", "20s", "--pid"]).arg(patient.running.pid().to_string());
        applier
    }

    /// Applies or reverts, undisturbed.
    pub fn run(&self, verb: Verb, patient: &Patient) -> Result<Ran> {
        run(&mut self.command(ulp_apply()?, verb, patient))
    }

    /// Applies or reverts with a wish for one step, and with a log of all. The last line of the log is the last step done.
    pub fn run_in_steps(
        &self,
        verb: Verb,
        patient: &Patient,
        wish: Option<(&str, &str)>,
    ) -> Result<(Ran, Vec<String>)> {
        let log = self.case.work().join("steps.log");
        let _ = std::fs::remove_file(&log);
        let mut command = self.command(ulp_apply_in_steps()?, verb, patient);
        command.env("ULP_STEP_LOG", &log).envs(wish);
        let ran = run(&mut command)?;
        Ok((ran, read_log(&log)?))
    }

    /// Applies or reverts, and has something done before one of the steps, while the applier waits there. False when it
    /// ended before that step.
    pub fn run_with_hook(
        &self,
        verb: Verb,
        patient: &mut Patient,
        step: usize,
        act: impl FnOnce(&mut Patient) -> Result<()>,
    ) -> Result<(Ran, bool)> {
        let file = |name: &str| self.case.work().join(name);
        let (hook, out, err) = (file("hook"), file("hook.out"), file("hook.err"));
        let mut command = self.command(ulp_apply_in_steps()?, verb, patient);
        command.env("ULP_STEP_HOOK", format!("{step}:{}", hook.display()));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let started = Instant::now();
        let mut child = command.spawn()?;
        let mut act = Some(act);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if act.is_some() && hook.exists() {
                let done = act.take().map_or(Ok(()), |act| act(patient));
                std::fs::remove_file(&hook)?;
                if let Err(e) = done {
                    child.wait()?;
                    return Err(e);
                }
            }
            if started.elapsed() > Duration::from_secs(60) {
                child.kill()?;
                child.wait()?;
                bail!("no end after 60 s: {command:?}\n{}", std::fs::read_to_string(&err)?);
            }
            std::thread::sleep(Duration::from_micros(300));
        };
        let text = format!("{command:?}");
        let read = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let ran =
            Ran { command: text, code: status.code(), stdout: read(out)?, stderr: read(err)?, took: started.elapsed() };
        Ok((ran, act.is_none()))
    }

    /// The steps of one undisturbed apply and of one revert.
    pub fn steps(&self) -> Result<[Vec<String>; 2]> {
        let patient = self.start(0)?;
        let mut both = [Vec::new(), Vec::new()];
        for (verb, steps) in [Verb::Apply, Verb::Revert].into_iter().zip(&mut both) {
            let (ran, log) = self.run_in_steps(verb, &patient, None)?;
            ran.expect_code(0)?;
            ensure_that!(log.len() > 50, "an applier of only {} steps", log.len());
            *steps = log;
        }
        Ok(both)
    }
}

/// The names of the steps in a log, in their order.
pub fn read_log(path: &Path) -> Result<Vec<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let name = |line: &str| Some(line.split_once(' ')?.1.to_string());
    text.lines().map(|line| name(line).with_context(|| format!("a step without a name: {line:?}"))).collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Apply,
    Revert,
}

/// The running program and how it was at its start.
#[derive(Debug)]
pub struct Patient {
    pub running: Running,
    maps: BTreeSet<Mapping>,
    code: Picture,
}

impl Patient {
    /// The program has started another one in its place: how that one is at its start.
    pub fn started_again(&mut self, laboratory: &Laboratory) -> Result<()> {
        let answer = self.running.ask(&format!("group {}", laboratory.extent.functions()))?;
        ensure_that!(answer == "ok", "the program answers {answer:?}");
        self.maps = self.running.lasting_maps()?;
        self.code = Picture::take(&self.running, &laboratory.case.production)?;
        Ok(())
    }

    pub fn versions(&mut self) -> Result<String> {
        self.running.ask("versions")
    }

    /// An error unless memory and code are as they were at the start.
    pub fn check_as_at_the_start(&self, laboratory: &Laboratory) -> Result<()> {
        let code = Picture::take(&self.running, &laboratory.case.production)?;
        let changed = self.code.changed(&code)?;
        ensure_that!(changed.is_empty(), "code differs at {changed:x?}");
        let maps = self.running.lasting_maps()?;
        let gone: Vec<_> = self.maps.difference(&maps).collect();
        ensure_that!(gone.is_empty(), "mappings are gone: {gone:x?}");
        let left: Vec<_> = maps.difference(&self.maps).cloned().collect();
        if left.is_empty() { Ok(()) } else { Err(Left(left).into()) }
    }
}

/// Memory that was not there at the start.
#[derive(Debug)]
pub struct Left(pub Vec<Mapping>);

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory is left: {:x?}", self.0)
    }
}

impl std::error::Error for Left {}

/// Whether an applier of this log ended when memory was mapped, or about to be, and its record not yet begun: a record
/// begins with the one write of its first 16 bytes.
pub fn nameless(log: &[String]) -> bool {
    let head = |step: &&String| step.starts_with("pwrite 16 bytes") && step.ends_with("000");
    log.iter().rev().take_while(|step| !head(step)).any(|step| step == "call mmap")
}

/// What a series of trials came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub tried: usize,
    /// Trials in which what was wished for came to pass.
    pub hits: usize,
    pub deaths: usize,
    pub stopped: usize,
    pub mixtures: i64,
    pub registers: i64,
    pub errno: i64,
    pub eintr: i64,
    /// EINTR of trials that ended between the stop of a thread and its cure: only the dead applier could have cured it.
    pub eintr_at_stop: i64,
    /// Waits that ended with something else than what they were sent.
    pub other: i64,
    /// Waits that could not be ended any more.
    pub stuck: i64,
    pub untidied: usize,
    /// Trials that ended while memory was there and nothing in it yet said whose it was: it stays, and does no harm.
    pub lost: usize,
    /// Reverts that kept the memory, because something in the program may have pointed there.
    pub kept: usize,
    /// What the numbers above stand for.
    pub harm: Vec<String>,
}

impl Tally {
    /// Looks at the program before anything else is done to it: it lives, nothing is stopped, nothing was disturbed, and
    /// all functions are old or all new. False when it is of no use for another trial.
    pub fn examine(&mut self, laboratory: &Laboratory, patient: &mut Patient, log: &[String], when: &str) -> bool {
        let last: Vec<&str> = log.iter().rev().take(24).map(String::as_str).collect();
        let when = format!("{when} (backwards: {})", last.join(", "));
        self.examine_after(laboratory, patient, stops::at_stop(log), &when)
    }

    /// The same; `at_stop` if a call may have failed with EINTR that nobody could cure.
    pub fn examine_after(&mut self, laboratory: &Laboratory, patient: &mut Patient, at_stop: bool, when: &str) -> bool {
        let before = self.harm.len();
        match patient.running.settled() {
            Ok(None) => {}
            Ok(Some(stopped)) => {
                self.stopped += 1;
                self.note(when, &stopped);
            }
            Err(e) => {
                self.deaths += 1;
                self.note(when, &format!("{e:#}"));
                return false;
            }
        }
        match patient.versions() {
            Ok(answer) if answer == OLD || answer == laboratory.extent.new_versions() => {}
            Ok(answer) => {
                self.mixtures += 1;
                self.note(when, &format!("the functions are {answer}"));
            }
            Err(e) => {
                self.deaths += 1;
                self.note(when, &format!("{e:#}"));
                return false;
            }
        }
        if let Err(e) = self.ask_for_harm(patient, at_stop, when) {
            self.deaths += 1;
            self.note(when, &format!("{e:#}"));
        }
        self.harm.len() == before
    }

    /// Looks at what was undisturbed, and so did no harm. False when it did.
    pub fn examine_undisturbed(&mut self, patient: &mut Patient, when: &str) -> bool {
        let before = self.harm.len();
        if let Err(e) = self.ask_for_harm(patient, false, when) {
            self.deaths += 1;
            self.note(when, &format!("{e:#}"));
        }
        self.harm.len() == before
    }

    fn ask_for_harm(&mut self, patient: &mut Patient, at_stop: bool, when: &str) -> Result<()> {
        /// So long a thread may wait for its turn on a machine with much to do before it counts as one that does nothing.
        const PATIENCE: Duration = Duration::from_secs(20);
        let asked = Instant::now();
        let (mut turns, mut spins) = (0, 0);
        while turns == 0 || spins == 0 {
            let text = patient.running.ask("stat")?;
            let number = |name: &str| -> Result<i64> {
                let stat: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
                stat.get(name).and_then(serde_json::Value::as_i64).context(text.clone())
            };
            (turns, spins) = (turns + number("turns")?, spins + number("spins")?);
            self.add_up(&text, number, at_stop, when)?;
            ensure_that!(turns > 0 && spins > 0 || asked.elapsed() < PATIENCE, "nothing was checked: {text}");
        }
        Ok(())
    }

    fn add_up(&mut self, text: &str, number: impl Fn(&str) -> Result<i64>, at_stop: bool, when: &str) -> Result<()> {
        for (name, sum) in [
            ("mixtures", &mut self.mixtures),
            ("registers", &mut self.registers),
            ("errno", &mut self.errno),
            ("eintr", if at_stop { &mut self.eintr_at_stop } else { &mut self.eintr }),
            ("other", &mut self.other),
            ("stuck", &mut self.stuck),
        ] {
            *sum += number(name)?;
        }
        for name in ["mixtures", "registers", "errno", "eintr", "other", "stuck"] {
            if number(name)? != 0 && !(at_stop && name == "eintr") {
                self.note(when, text);
                break;
            }
        }
        Ok(())
    }

    /// Notes harm, and says it at once, past what holds a test's output back: a series can take an hour.
    pub fn note(&mut self, when: &str, what: &str) {
        let harm = format!("{when}: {what}");
        let _ = writeln!(std::io::stderr(), "harm: {harm}");
        self.harm.push(harm);
    }

    /// Notes a failed step of tidying up. True when there was none.
    pub fn tidied(&mut self, when: &str, result: Result<()>) -> bool {
        if let Err(e) = &result {
            self.untidied += 1;
            self.note(when, &format!("{e:#}"));
        }
        result.is_ok()
    }

    /// Prints the numbers as one line of JSON, and is an error when there was harm.
    pub fn conclude(&self, name: &str) -> Result<()> {
        let line = serde_json::json!({
            "test": name, "tried": self.tried, "hits": self.hits, "deaths": self.deaths, "stopped": self.stopped,
            "mixtures": self.mixtures, "registers": self.registers, "errno": self.errno, "eintr": self.eintr,
            "eintr_at_stop": self.eintr_at_stop, "other": self.other, "stuck": self.stuck, "untidied": self.untidied,
            "lost": self.lost, "kept": self.kept,
        });
        println!("{line}");
        if !self.harm.is_empty() {
            let shown = self.harm.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
            bail!("{} of {} trials did harm\n{shown}\n{line}", self.harm.len(), self.tried);
        }
        ensure_that!(self.hits > 0, "not one trial came to what it was for: {line}");
        Ok(())
    }
}

/// Whether the long form of the tests was asked for.
pub fn long() -> bool {
    std::env::var_os("ULP_LONG").is_some_and(|v| v == "1")
}

/// `ULP_EACH=N`: only each Nth of the steps is tried, for machines on which all would take hours. 1 without it.
pub fn each() -> usize {
    let number = std::env::var("ULP_EACH").ok().and_then(|text| text.parse().ok());
    number.unwrap_or(1).max(1)
}

/// Steps after which the process or what the kernel knows of it is different. Death after any other is like death before it.
pub fn changes_something(step: &str) -> bool {
    ["ptrace", "waitpid", "pwrite", "call", "flock"].iter().any(|name| step.starts_with(name))
}
