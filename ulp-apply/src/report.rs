// SPDX-License-Identifier: GPL-2.0-or-later
//! What the verbs tell, as values: one serialisation for programs, one sentence for people. The JSON shapes are part of
//! the interface; `schema` changes when they do.

use crate::error::Error;
use crate::plan::Plan;
use crate::process::Timings;
use crate::registry::{Entry, Record, State};
use serde::Serialize;
use std::fmt::Write as _;
use ulp_arch::RemoteAddr;

/// The version of every JSON answer.
pub const SCHEMA: u32 = 1;

/// The answer to `apply` and `revert`.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub verb: &'static str,
    pub exit: u8,
    pub results: Vec<Outcome>,
}

/// What became of one patch in one process.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub pid: Option<i32>,
    pub command: Option<String>,
    pub patch: Option<String>,
    pub status: Status,
    pub functions: Vec<Function>,
    /// Patches that went in the same stop.
    pub replaced: Vec<String>,
    /// Bytes of memory that the patch has, or would have, in the process.
    pub memory: u64,
    pub stop: Option<Stop>,
    /// Who was in the way: of a dry run in any of its looks, of a busy process in the last one.
    pub blockers: Vec<Blocker>,
    pub warnings: Vec<String>,
    pub error: Option<Problem>,
}

/// A thread that an apply would have to wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// For people.
    pub what: String,
    /// Its number and name; null where it is no thread.
    pub tid: Option<i32>,
    pub comm: Option<String>,
    /// The function that it is, or may be, inside of, and the code address that says so.
    pub function: Option<String>,
    pub address: Option<String>,
    /// In how many of how many looks it was in the way.
    pub seen: u32,
    pub of: u32,
}

impl Blocker {
    /// Nobody in particular: the process could not be stopped.
    pub fn of_process(what: String) -> Self {
        Self { what, tid: None, comm: None, function: None, address: None, seen: 1, of: 1 }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Applied,
    AlreadyApplied,
    Planned,
    Reverted,
    /// Reverted, and its memory kept.
    Retired,
    NotApplied,
    Purged,
    Error,
}

#[derive(Clone, Debug, Serialize)]
pub struct Function {
    pub name: String,
    pub file: String,
    pub entry: String,
    pub new: String,
}

/// The stop, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stop {
    pub threads: usize,
    /// How often all threads were stopped until none was in the way.
    pub attempts: u32,
    /// What a running thread missed; 0 when all slept.
    pub gap_us: u128,
    /// From the first interrupt to the last thread let go.
    pub hold_us: u128,
    /// System calls that would have failed with EINTR, and did not.
    pub cured: usize,
    /// System calls that fail with EINTR, perhaps because of the stop: a kernel that does not tell their first argument.
    pub interrupted: usize,
}

/// An error as JSON has it.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    pub class: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
    pub advice: String,
}

impl From<&Error> for Problem {
    fn from(e: &Error) -> Self {
        Self { class: e.class.word(), code: e.code, message: e.message.clone(), advice: e.advice.clone() }
    }
}

impl Stop {
    /// What a running thread saw comes first; the sleeping ones were held one by one, and few of them saw anything.
    fn sentence(self) -> String {
        let (threads, attempts) = (count(self.threads, "thread"), count(self.attempts as usize, "attempt"));
        let stopped = if self.gap_us > 0 { self.gap_us } else { self.hold_us };
        let interrupted = match self.interrupted {
            0 => String::new(),
            n => format!(", {} ended with EINTR", count(n, "waiting call")),
        };
        format!(", stopped {stopped} us ({threads}, {} us from first to last), {attempts}{interrupted}", self.hold_us)
    }
}

impl From<Timings> for Stop {
    fn from(t: Timings) -> Self {
        Self {
            threads: t.threads,
            attempts: t.attempts,
            gap_us: t.gap.as_micros(),
            hold_us: t.hold.as_micros(),
            cured: t.cured,
            interrupted: t.interrupted,
        }
    }
}

/// A patch's functions, for any answer.
pub fn functions(record: &Record) -> Vec<Function> {
    let one = |file: &str, f: &crate::registry::FunctionRecord| Function {
        name: f.name.clone(),
        file: file.to_owned(),
        entry: f.entry.to_string(),
        new: f.new.to_string(),
    };
    record.targets.iter().flat_map(|t| t.functions.iter().map(|f| one(&t.file, f))).collect()
}

impl Outcome {
    pub fn new(status: Status) -> Self {
        Self {
            pid: None,
            command: None,
            patch: None,
            status,
            functions: Vec::new(),
            replaced: Vec::new(),
            memory: 0,
            stop: None,
            blockers: Vec::new(),
            warnings: Vec::new(),
            error: None,
        }
    }

    pub fn of(status: Status, record: &Record) -> Self {
        let memory = record.areas().map(|a| a.len).sum();
        Self { patch: Some(record.name.clone()), functions: functions(record), memory, ..Self::new(status) }
    }

    pub fn error(error: &Error) -> Self {
        Self { error: Some(error.into()), blockers: error.blockers.clone(), ..Self::new(Status::Error) }
    }

    /// The one line of a success.
    pub fn line(&self) -> String {
        let patch = self.patch.as_deref().unwrap_or("?");
        let to = match (self.pid, &self.command) {
            (Some(pid), Some(command)) => format!("{pid} ({command})"),
            (Some(pid), None) => pid.to_string(),
            _ => "?".into(),
        };
        let stop = self.stop.map_or(String::new(), Stop::sentence);
        let functions = count(self.functions.len(), "function");
        let functions = match &self.replaced[..] {
            [] => functions,
            names => format!("{functions} in place of {}", names.join(", ")),
        };
        match self.status {
            Status::Applied => format!("{patch}: applied to {to}: {functions}{stop}"),
            Status::AlreadyApplied => format!("{patch}: already applied to {to}"),
            Status::Planned => {
                let mut text =
                    format!("{patch}: would be applied to {to}: {functions}, {} bytes of memory", self.memory);
                for b in &self.blockers {
                    let _ = write!(text, "\n  in the way in {} of {} looks: {}", b.seen, b.of, b.what);
                }
                if self.blockers.is_empty() {
                    text.push_str("; nobody was in the way");
                }
                text
            }
            Status::Reverted => format!("{patch}: reverted in {to}{stop}"),
            Status::Retired => format!(
                "{patch}: reverted in {to}{stop}; {} bytes are kept, because the program's data may point into them",
                self.memory
            ),
            Status::NotApplied => format!("{patch}: not applied to {to}; nothing to do"),
            Status::Purged => format!("{patch}: its kept memory in {to} is unmapped{stop}"),
            Status::Error => format!("{patch}: error in {to}"),
        }
    }
}

/// `1 function`, `2 functions`
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The plan in words, for `--dry-run`.
pub fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    for target in &plan.record.targets {
        let _ = writeln!(text, "  {} at {}, build-id {}", target.file, target.bias, target.build_id);
        for f in &target.functions {
            let _ = writeln!(text, "    {} at {} jumps to {}", f.name, f.entry, f.new);
        }
        for area in &target.areas {
            let what = match area.access {
                crate::registry::Access::Constants => "constants, read only",
                crate::registry::Access::Code => "code, read and execute",
                crate::registry::Access::Data => "data, read and write",
            };
            let end: RemoteAddr = area.start.plus(area.len);
            let _ = writeln!(text, "    {}-{end} {what}", area.start);
        }
    }
    let several = plan.record.functions().count() > 1;
    match &plan.record.commit {
        Some(commit) => {
            let gates = plan.record.functions().filter(|f| f.gate.is_some()).count();
            let _ =
                writeln!(text, "  all functions switch at once: {}, one store at {}", count(gates, "gate"), commit.at);
        }
        None if several => text.push_str("  not atomic: a mixture is possible if ulp-apply is killed meanwhile\n"),
        None => {}
    }
    let _ = writeln!(text, "  no thread may be inside:");
    for s in &plan.suspects {
        let _ = writeln!(text, "    {} {}-{}", s.name, s.start, s.end);
    }
    text
}

/// The answer to `list` and `verify --pid`.
#[derive(Debug, Serialize)]
pub struct Listing {
    pub schema: u32,
    pub processes: Vec<Patched>,
    /// Processes that could not be looked at.
    pub unreadable: usize,
}

#[derive(Debug, Serialize)]
pub struct Patched {
    pub pid: i32,
    pub command: String,
    pub patches: Vec<Listed>,
    /// What a dead ulp-apply had left half done, and was finished or taken back now.
    pub tidied: Vec<String>,
}

/// One patch of a process.
#[derive(Debug, Serialize)]
pub struct Listed {
    pub name: String,
    pub description: String,
    pub cves: Vec<String>,
    pub digest: String,
    pub state: State,
    /// The live bytes are those of a complete patch.
    pub intact: bool,
    pub damage: Option<String>,
    pub memory: u64,
    pub functions: Vec<Function>,
}

impl Listed {
    pub fn new(entry: &Entry, damage: Option<String>) -> Self {
        let r = &entry.record;
        Self {
            name: r.name.clone(),
            description: r.description.clone(),
            cves: r.cves.clone(),
            digest: r.digest.clone(),
            state: entry.state,
            intact: damage.is_none(),
            damage,
            memory: r.areas().map(|a| a.len).sum(),
            functions: functions(r),
        }
    }

    /// What `list` prints.
    pub fn line(&self, pid: i32, command: &str) -> String {
        let state = match self.state {
            State::Applied => "applied",
            State::Retired => "retired (reverted, memory kept)",
            State::Applying | State::Reverting => "half done",
            State::Freeing => "reverted (memory being given back)",
        };
        let names: Vec<&str> = self.functions.iter().map(|f| f.name.as_str()).collect();
        let cves = if self.cves.is_empty() { String::new() } else { format!("  {}", self.cves.join(" ")) };
        let damage = self.damage.as_ref().map_or(String::new(), |d| format!("\n  NOT INTACT: {d}"));
        format!("{pid} ({command})  {}  {state}  {}{cves}{damage}", self.name, names.join(" "))
    }
}
