// SPDX-License-Identifier: GPL-2.0-or-later
//! The command line: what may be asked, which processes are meant, and how the answer looks. Results go to stdout,
//! everything else to stderr; the exit code tells scripts what happened.

use crate::attempt::Limits;
use crate::audit;
use crate::corefile::CoreFile;
use crate::coroutines::ScanMemory;
use crate::error::{Class, Error, Result};
use crate::process::Process;
use crate::report::{Listing, Outcome, Patched, Report, SCHEMA, Status};
use crate::snapshot::PackageFile;
use crate::{disk, info, verbs};
use clap::{Args, Parser, Subcommand};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or already so
  1  failed; nothing changed
  2  wrong usage
  3  no process matches
  4  busy: a thread or a coroutine is inside a function, or another ulp-apply is at work; try later
  5  refused: another build, an unsafe change, no permission, a debugger
  6  some processes done, some not
  7  not a package, damaged, or of a newer format";

const EXAMPLES: &str = "\
Examples:
  ulp-apply fix.ulp --pid 4711          apply to one process (the word apply may be left out)
  ulp-apply apply fix.ulp --all         apply to every process that runs that build
  ulp-apply list                        what is applied where
  ulp-apply revert fix --pid 4711       put the old code back";

const SYMBOLS: &str = "\
Writes a file that names the code of all patches in a process, or in a core dump of one, to debuggers. gdb's \
add-symbol-file takes it without addresses, and gdb then unwinds through the patches, too.

The new code of NAME is called NAME@PATCH. Set breakpoints by this name: by NAME alone gdb would also write into the jump \
that leads from the old code to the new, and a breakpoint at a source line of the old code may stand in the middle of \
it. Functions of the patch that replace none are named when the package is given; else they are unnamed.1@PATCH and so \
on. NAME.gate@PATCH is passed while several functions switch; rest@PATCH is what leads to other libraries, and code that \
nothing is known of.

The process is only read, also while gdb holds it: it is not stopped, and nothing is changed or tidied up. Nothing is \
written but FILE.";

const SYMBOLS_EXAMPLES: &str = "\
Examples:
  $ gdb -p 4711
  (gdb) shell ulp-apply symbols fix.ulp --pid 4711 -o fix.sym
  fix.sym: 3 functions of fix
  (gdb) add-symbol-file fix.sym
  (gdb) backtrace
  #0  0x00007f0b37cbe904 in pause () from /lib/x86_64-linux-gnu/libc.so.6
  #1  0x0000562c1d40a01d in wait_for_it@fix ()
  #2  0x0000562c1d40a039 in answer@fix ()
  #3  0x0000562c1d3f50b7 in main ()
  (gdb) break 'answer@fix'
  (gdb) disassemble 'answer@fix'

  $ ulp-apply symbols --core core.4711 -o fix.sym
  $ gdb /usr/sbin/server core.4711 -ex 'add-symbol-file fix.sym'

  $ ulp-apply symbols --pid 4711 --perf-map -o /tmp/perf-4711.map
  $ perf report
  perf looks for /tmp/perf-PID.map when it reports, and takes it from root or from the user who runs perf.";

#[derive(Debug, Parser)]
#[command(name = "ulp-apply", version, about = "Fix running programs: apply, list, verify and revert live patches",
    long_about = "Applies live patches (.ulp files, made by ulp-build) to running processes, without restarting them.\n\n\
    A process is changed only when it runs the exact build that the patch is for and no thread is inside a function that \
    is replaced. Whatever cannot be done safely is refused, and the process goes on as it was.",
    after_help = EXIT_CODES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Cli {
    /// Say more about what is done, on stderr
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Apply patches to processes (the default verb)
    Apply(ApplyArgs),
    /// Put the old code back
    Revert(RevertArgs),
    /// Show what is applied where, compared with the live bytes
    List(ListArgs),
    /// Show what a package contains
    Info(InfoArgs),
    /// Check a package file, or that a process's patches are still as they were left
    Verify(VerifyArgs),
    /// Write a file that names the patches' code to gdb or perf
    #[command(long_about = SYMBOLS, after_long_help = SYMBOLS_EXAMPLES)]
    Symbols(SymbolsArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The process to change; may be given several times
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Vec<i32>,
    /// Every process that has a target of the patch loaded, also those started meanwhile
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct Patience {
    /// How long to try again while threads are inside the functions
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    wait: Duration,
    /// How long the threads of a process may be held at once
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = duration)]
    max_stop: Duration,
    /// Whether memory is searched for coroutines that wait inside the functions
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    scan_memory: ScanMemory,
}

impl Patience {
    fn limits(&self) -> Limits {
        Limits { wait: self.wait, max_stop: self.max_stop, scan: self.scan_memory }
    }
}

#[derive(Debug, Args)]
struct ApplyArgs {
    /// Packages, applied in this order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    patience: Patience,
    /// Check everything, look a few times who is in the way (each look is a stop), print the plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RevertArgs {
    /// The patch's name, or its package (a name with a slash or the ending .ulp)
    #[arg(value_name = "NAME|FILE", required_unless_present = "everything")]
    patch: Option<String>,
    /// All patches of each process, the newest first
    #[arg(long, conflicts_with = "patch")]
    everything: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    patience: Patience,
    /// Also unmap memory that was kept, when nothing in the process points into it any more
    #[arg(long)]
    purge: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only this process; may be given several times
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Vec<i32>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InfoArgs {
    /// The package
    file: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct VerifyArgs {
    /// A package: its digest and structure are checked
    #[arg(conflicts_with = "pid")]
    file: Option<PathBuf>,
    /// An ELF file on disk that the package must fit; may be given several times
    #[arg(long, value_name = "ELF", requires = "file")]
    target: Vec<PathBuf>,
    /// A process: entry jumps and code of all its patches are compared with what was left there
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Vec<i32>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SymbolsArgs {
    /// Packages of patches that are applied there, for the names of all their functions
    #[arg(value_name = "PACKAGE")]
    files: Vec<PathBuf>,
    /// A process
    #[arg(long, value_name = "PID", required_unless_present = "core", conflicts_with = "core",
        value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// A core dump
    #[arg(long, value_name = "CORE")]
    core: Option<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write a map for perf, which looks for it in /tmp/perf-PID.map
    #[arg(long, conflicts_with = "core")]
    perf_map: bool,
}

/// `30s`, `50ms`, `2m`, `1.5` (seconds)
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[number.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit}; use us, ms, s, m or h")),
    };
    let value: f64 = number.parse().map_err(|_| "give a number and a unit, such as 30s or 50ms".to_owned())?;
    /// More is a slip of the pen, and would overflow the clock.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    let time = Duration::try_from_secs_f64(value * scale).ok().filter(|t| *t <= LONGEST);
    time.ok_or_else(|| "give a positive time of at most a year, such as 30s or 50ms".to_owned())
}

/// `ulp-apply FILE --pid PID` is `ulp-apply apply FILE --pid PID`: the verb is put in where the first argument is none.
fn with_verb(mut args: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    const FIRST: [&str; 11] =
        ["apply", "revert", "list", "info", "verify", "symbols", "help", "-h", "--help", "-V", "--version"];
    let is_option = |a: &std::ffi::OsString| a == "-v" || a == "--verbose";
    let first = args.iter().skip(1).take_while(|a| is_option(a)).count() + 1;
    if args.get(first).is_some_and(|a| a.to_str().is_none_or(|a| !FIRST.contains(&a))) {
        args.insert(first, "apply".into());
    }
    args
}

/// Runs the command; the exit code.
pub fn run(args: Vec<std::ffi::OsString>) -> u8 {
    let cli = match Cli::try_parse_from(with_verb(args)) {
        Ok(cli) => cli,
        Err(e) => {
            // Help goes to stdout and is no error; a closed pipe is none either.
            let _ = e.print();
            return if e.use_stderr() { Class::Usage.exit_code() } else { 0 };
        }
    };
    speak(cli.verbose);
    let result = match cli.verb {
        Verb::Apply(args) => apply(&args),
        Verb::Revert(args) => revert(&args),
        Verb::List(args) => list(&args),
        Verb::Info(args) => show(&args),
        Verb::Verify(args) => verify(&args),
        Verb::Symbols(args) => symbols(&args),
    };
    result.unwrap_or_else(|e| {
        complain(None, &e);
        e.class.exit_code()
    })
}

/// Sends log records to stderr.
fn speak(verbose: bool) {
    struct Stderr;
    impl log::Log for Stderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let level = record.level().as_str().to_lowercase();
            tell(&format!("{}: {}", if level == "warn" { "warning" } else { &level }, record.args()));
        }
        fn flush(&self) {}
    }
    static STDERR: Stderr = Stderr;
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(if verbose { log::LevelFilter::Debug } else { log::LevelFilter::Warn });
    }
}

/// Prints to stdout. Whoever reads may stop reading: that is no error of ours, and no reason to stop half way.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", shown(text));
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shown(text));
}

/// Text that may be shown on a terminal. Names come from packages and from processes, and those of a damaged package or
/// of a hostile process must not be able to move the cursor, or to turn the reading direction around.
fn shown(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn say_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        // As it is: it is for programs, and JSON has its own way to write control characters.
        Ok(text) => drop(writeln!(std::io::stdout(), "{text}")),
        Err(e) => tell(&format!("error: cannot write the answer: {e}")),
    }
}

fn complain(what: Option<&str>, error: &Error) {
    match what {
        Some(what) => tell(&format!("error: {what}: {error}")),
        None => tell(&format!("error: {error}")),
    }
}

/// All process numbers, ours apart.
fn all_processes() -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut pids: Vec<i32> = pids.filter(|pid| *pid != own).collect();
    pids.sort_unstable();
    pids
}

/// Collects what became of each process and turns it into one answer.
struct Tally {
    verb: &'static str,
    json: bool,
    results: Vec<Outcome>,
    classes: BTreeSet<Class>,
    done: usize,
    /// All processes are meant that there are, and not certain ones.
    all: bool,
    /// Processes that ended before it was their turn, where all are meant: nothing has failed.
    ended: usize,
    /// Outcomes of processes that were not found as they were to be.
    changes: usize,
}

impl Tally {
    fn new(verb: &'static str, json: bool, all: bool) -> Self {
        Self { verb, json, results: Vec::new(), classes: BTreeSet::new(), done: 0, all, ended: 0, changes: 0 }
    }

    /// Notes one outcome and says it; `doing` is the beginning of an error's sentence.
    fn note(&mut self, pid: i32, command: Option<String>, patch: &str, doing: &str, result: Result<Outcome>) {
        let mut outcome = match result {
            Ok(outcome) => {
                self.done += 1;
                outcome
            }
            Err(e) if self.all && e.class == Class::NoProcess => {
                log::debug!("{doing}: {e}");
                self.ended += 1;
                self.changes += 1;
                return;
            }
            Err(e) => {
                self.classes.insert(e.class);
                complain(Some(doing), &e);
                Outcome::error(&e)
            }
        };
        self.changes += usize::from(!matches!(outcome.status, Status::AlreadyApplied | Status::NotApplied));
        outcome.pid = Some(pid);
        outcome.command = command;
        outcome.patch.get_or_insert_with(|| patch.to_owned());
        for warning in &outcome.warnings {
            tell(&format!("warning: {warning}"));
        }
        if !self.json && outcome.status != Status::Error {
            say(&outcome.line());
        }
        self.results.push(outcome);
    }

    fn exit_code(&self) -> u8 {
        match (self.done, self.classes.last()) {
            (0, None) if self.ended > 0 => Class::NoProcess.exit_code(),
            (_, None) => 0,
            (0, Some(worst)) => worst.exit_code(),
            (_, Some(_)) => 6,
        }
    }

    fn finish(self) -> u8 {
        let exit = self.exit_code();
        if self.json {
            say_json(&Report { schema: SCHEMA, verb: self.verb, exit, results: self.results });
        }
        exit
    }
}

/// Whom an action on one process was about, and how it ended: one line for the system's log.
fn audited(verb: &str, process: &Process, patch: &str, digest: &str, result: Result<Outcome>) -> Result<Outcome> {
    let (word, stop) = match &result {
        Ok(outcome) => ("done", outcome.stop.map(|s| Duration::from_micros(s.hold_us as u64))),
        Err(e) => (e.class.word(), None),
    };
    let command = process.comm();
    audit::log(&audit::Event { verb, pid: process.pid(), command: &command, patch, digest, result: word, stop });
    result
}

/// Does `each` for the processes that are meant. With `--all` passes repeat until one finds nobody new to whom anything had to be
/// done, so that workers forked meanwhile are not forgotten: whoever is left was then forked of somebody who was done already.
/// Who cannot be opened is counted, not treated as a failure.
fn for_each(
    which: &Which,
    tally: &mut Tally,
    wanted: impl Fn(&Process) -> Result<bool>,
    mut each: impl FnMut(&mut Tally, i32, Result<Process>),
) -> Result<()> {
    if !which.all {
        for &pid in &which.pid {
            each(tally, pid, Process::open(pid).map_err(Error::from));
        }
        return Ok(());
    }
    /// A program that forks faster than it is patched is not followed for ever.
    const PASSES: usize = 50;
    let mut seen = BTreeSet::new();
    let mut closed = BTreeSet::new();
    for _ in 0..PASSES {
        let before = tally.changes;
        for pid in all_processes() {
            match Process::open(pid) {
                Ok(process) if seen.contains(&(pid, process.start_time())) => {}
                Ok(process) => {
                    if wanted(&process).unwrap_or(false) {
                        seen.insert((pid, process.start_time()));
                        each(tally, pid, Ok(process));
                    }
                }
                // No program of anybody's.
                Err(crate::process::Error::KernelThread { .. }) => {}
                Err(e) if e.kind() == crate::process::ErrorKind::Refused => {
                    log::debug!("pid {pid}: {e}");
                    closed.insert(pid);
                }
                Err(_) => {}
            }
        }
        if tally.changes == before {
            break;
        }
    }
    let closed = closed.len();
    if seen.is_empty() {
        let advice = match closed {
            0 => "start the program first, or check the package with ulp-apply info".to_owned(),
            n => format!("{n} processes could not be looked at; run as root to see them all"),
        };
        return Err(Error::new(Class::NoProcess, "no process matches", advice));
    }
    Ok(())
}

fn apply(args: &ApplyArgs) -> Result<u8> {
    let files = args.files.iter().map(|f| PackageFile::read(f)).collect::<Result<Vec<_>>>()?;
    let limits = args.patience.limits();
    let mut tally = Tally::new("apply", args.json, args.which.all);
    let wanted =
        |p: &Process| Ok(files.iter().map(|f| verbs::is_target(p, f)).collect::<Result<Vec<_>>>()?.contains(&true));
    for_each(&args.which, &mut tally, wanted, |tally, pid, process| {
        let process = match process {
            Ok(process) => process,
            Err(e) => {
                let file = &files[0];
                let doing = format!("cannot apply {} to {pid}", file.path.display());
                return tally.note(pid, None, file.name(), &doing, Err(e));
            }
        };
        for file in &files {
            // With --all and several packages, each process gets those that are for it.
            if args.which.all && !verbs::is_target(&process, file).unwrap_or(true) {
                continue;
            }
            let doing = format!("cannot apply {} to {pid}", file.path.display());
            let mut plan = None;
            let result = verbs::apply(&process, file, &limits, args.dry_run).map(|applied| {
                plan = applied.plan;
                applied.outcome
            });
            let result = if args.dry_run || matches!(&result, Ok(o) if o.status != Status::Applied) {
                result
            } else {
                audited("apply", &process, file.name(), &file.digest, result)
            };
            let failed = result.is_err();
            tally.note(pid, Some(process.comm()), file.name(), &doing, result);
            if let Some(plan) = plan.filter(|_| !args.json) {
                say(plan.trim_end());
            }
            // Later packages may build on this one.
            if failed {
                break;
            }
        }
    })?;
    Ok(tally.finish())
}

fn revert(args: &RevertArgs) -> Result<u8> {
    let Some(patch) = &args.patch else { return revert_everything(args) };
    let is_file = patch.contains('/') || patch.ends_with(".ulp");
    let wanted = if is_file {
        let file = PackageFile::read(patch.as_ref())?;
        verbs::Wanted { name: file.name().to_owned(), digest: Some(file.digest) }
    } else {
        verbs::Wanted { name: patch.clone(), digest: None }
    };
    let limits = args.patience.limits();
    let mut tally = Tally::new("revert", args.json, args.which.all);
    let has = |p: &Process| verbs::has_patch(p, &wanted);
    for_each(&args.which, &mut tally, has, |tally, pid, process| {
        let doing = format!("cannot revert {} in {pid}", wanted.name);
        let (command, result) = match process {
            Ok(process) => {
                let result = verbs::revert(&process, &wanted, args.purge, &limits);
                let digest = wanted.digest.as_deref().unwrap_or("-");
                let result = match &result {
                    Ok(outcome) if outcome.status == Status::NotApplied => result,
                    _ => audited("revert", &process, &wanted.name, digest, result),
                };
                (Some(process.comm()), result)
            }
            Err(e) => (None, Err(e)),
        };
        tally.note(pid, command, &wanted.name, &doing, result);
    })?;
    Ok(tally.finish())
}

/// The newest first, because later patches may stand on earlier ones; the first that stays ends it for its process.
fn revert_everything(args: &RevertArgs) -> Result<u8> {
    let limits = args.patience.limits();
    let mut tally = Tally::new("revert", args.json, args.which.all);
    let has = |p: &Process| Ok(!verbs::patches_of(p, args.purge)?.is_empty());
    for_each(&args.which, &mut tally, has, |tally, pid, process| {
        let found = process.and_then(|p| Ok((verbs::patches_of(&p, args.purge)?, p)));
        let (names, process) = match found {
            Ok(found) => found,
            Err(e) => return tally.note(pid, None, "*", &format!("cannot revert anything in {pid}"), Err(e)),
        };
        for name in names {
            let doing = format!("cannot revert {name} in {pid}");
            let wanted = verbs::Wanted { name, digest: None };
            let result = verbs::revert(&process, &wanted, args.purge, &limits);
            let result = audited("revert", &process, &wanted.name, "-", result);
            let failed = result.is_err();
            tally.note(pid, Some(process.comm()), &wanted.name, &doing, result);
            if failed {
                break;
            }
        }
    })?;
    Ok(tally.finish())
}

/// Looks at processes without changing any.
fn look(pids: &[i32]) -> Result<Listing> {
    let mut listing = Listing { schema: SCHEMA, processes: Vec::new(), unreadable: 0 };
    for &pid in pids {
        let process = Process::open(pid)?;
        let nothing = || Patched { pid, command: process.comm(), patches: Vec::new(), tidied: Vec::new() };
        listing.processes.push(verbs::list(&process)?.unwrap_or_else(nothing));
    }
    if pids.is_empty() {
        for pid in all_processes() {
            match Process::open(pid) {
                Ok(process) => match verbs::list(&process) {
                    Ok(found) => listing.processes.extend(found),
                    Err(e) if !process.is_alive() => log::debug!("pid {pid}: {e}"),
                    Err(e) => {
                        complain(Some(&format!("cannot list {pid}")), &e);
                        listing.unreadable += 1;
                    }
                },
                Err(e) if e.kind() == crate::process::ErrorKind::Refused => {
                    // Kernel threads and other users' processes; the latter may have patches.
                    log::debug!("pid {pid}: {e}");
                    let kernel = matches!(e, crate::process::Error::KernelThread { .. });
                    listing.unreadable += usize::from(!kernel);
                }
                Err(_) => {}
            }
        }
    }
    for p in &listing.processes {
        for note in &p.tidied {
            tell(&format!("note: {} ({}): {note}", p.pid, p.command));
        }
    }
    Ok(listing)
}

fn list(args: &ListArgs) -> Result<u8> {
    let listing = look(&args.pid)?;
    if args.json {
        say_json(&listing);
        return Ok(0);
    }
    let lines = listing.processes.iter().flat_map(|p| p.patches.iter().map(|l| l.line(p.pid, &p.command)));
    let lines: Vec<String> = lines.collect();
    say(if lines.is_empty() { "no live patches".to_owned() } else { lines.join("\n") }.as_str());
    if listing.unreadable > 0 {
        tell(&format!("note: {} processes could not be looked at; run as root to see them all", listing.unreadable));
    }
    Ok(0)
}

fn show(args: &InfoArgs) -> Result<u8> {
    let file = PackageFile::read(&args.file)?;
    let info = info::Info::new(&file);
    if args.json {
        say_json(&info);
    } else {
        say(info.text().trim_end());
    }
    Ok(0)
}

fn verify(args: &VerifyArgs) -> Result<u8> {
    if let Some(path) = &args.file {
        let file = PackageFile::read(path)?;
        for target in &args.target {
            let name = disk::compare(&file, target)?;
            log::debug!("{} is {name} as the patch wants it", target.display());
        }
        if args.json {
            say_json(&info::Info::new(&file));
        } else {
            let fits = args.target.iter().map(|t| format!(", fits {}", t.display())).collect::<String>();
            say(&format!("{}: whole, digest {}{fits}", path.display(), file.digest));
        }
        return Ok(0);
    }
    let listing = look(&args.pid)?;
    let patches = || listing.processes.iter().flat_map(|p| p.patches.iter().map(move |l| (p, l)));
    let bad = patches().filter(|(_, l)| !l.intact).count();
    if args.json {
        say_json(&listing);
    }
    for (p, l) in patches().filter(|(_, l)| !l.intact) {
        let damage = l.damage.as_deref().unwrap_or_default();
        tell(&format!("error: {} in {} ({}): {damage}", l.name, p.pid, p.command));
    }
    if bad > 0 {
        return Ok(Class::Failed.exit_code());
    }
    if !args.json {
        let n = crate::report::count(patches().count(), "patch").replace("patchs", "patches");
        let pids: Vec<String> = args.pid.iter().map(ToString::to_string).collect();
        say(&format!("{}: {n}, as left", pids.join(", ")));
    }
    Ok(0)
}

fn symbols(args: &SymbolsArgs) -> Result<u8> {
    let files = args.files.iter().map(|f| PackageFile::read(f)).collect::<Result<Vec<_>>>()?;
    let unnamed = |what: &dyn std::fmt::Display| format!("cannot name the patches of {what}");
    let (patches, arch) = if let Some(path) = &args.core {
        let core = CoreFile::open(path)?;
        let patches = verbs::symbols_of_core(&core, &files);
        (patches.map_err(|e| e.while_trying(unnamed(&path.display())))?, core.arch()?)
    } else {
        let process = Process::open_to_read(args.pid.unwrap_or_default())?;
        let patches = verbs::symbols(&process, &files);
        (patches.map_err(|e| e.while_trying(unnamed(&process.pid())))?, process.arch())
    };
    for warning in &patches.warnings {
        tell(&format!("warning: {warning}"));
    }
    let bytes = if args.perf_map { patches.perf_map().into_bytes() } else { patches.elf(arch)? };
    let shown = args.output.display();
    std::fs::write(&args.output, bytes)
        .map_err(|e| Error::failed(format!("cannot write {shown}: {e}"), "give another file with -o"))?;
    let n = crate::report::count(patches.functions(), "function");
    say(&format!("{shown}: {n} of {}", patches.names.join(", ")));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_verb_apply_may_be_left_out() {
        let check = |args: &[&str], expected: &[&str]| {
            let all = |a: &[&str]| a.iter().map(Into::into).collect::<Vec<std::ffi::OsString>>();
            assert_eq!(with_verb(all(args)), all(expected));
        };
        check(&["u", "a.ulp", "--pid", "1"], &["u", "apply", "a.ulp", "--pid", "1"]);
        check(&["u", "--pid", "1", "a.ulp"], &["u", "apply", "--pid", "1", "a.ulp"]);
        check(&["u", "list"], &["u", "list"]);
        check(&["u", "--help"], &["u", "--help"]);
        check(&["u"], &["u"]);
    }

    #[test]
    fn what_is_shown_cannot_steer_a_terminal() {
        for (text, expected) in [
            ("two\nlines\tand ümlaut", "two\nlines\tand ümlaut"),
            ("\x1b[2J", "\\u{1b}[2J"),
            ("a\rb\0", "a\\rb\\u{0}"),
            ("\u{9b}1m \u{202e}", "\\u{9b}1m \\u{202e}"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn times_have_units() {
        let ms = |t: &str| duration(t).ok().map(|d| d.as_millis());
        let rows =
            [("30s", Some(30_000)), ("50ms", Some(50)), ("2m", Some(120_000)), ("1.5", Some(1500)), ("0", Some(0))];
        for (text, expected) in rows {
            assert_eq!(ms(text), expected, "{text}");
        }
        for text in ["", "s", "5 parsecs", "-1s", "1e400s", "nan", "1e18s", "9000h"] {
            assert_eq!(ms(text), None, "{text}");
        }
    }

    #[test]
    fn exit_codes_are_those_of_the_design() {
        let check = |done: usize, classes: &[Class], expected: u8| {
            let tally = Tally { done, classes: classes.iter().copied().collect(), ..Tally::new("apply", true, false) };
            assert_eq!(tally.exit_code(), expected);
        };
        check(2, &[], 0);
        check(0, &[Class::Busy], 4);
        check(0, &[Class::Refused, Class::NoProcess], 5);
        check(1, &[Class::Busy], 6);
        // Of all processes, those that end meanwhile need nothing; if that is every one, there was none.
        let gone = || Err(Error::new(Class::NoProcess, "gone", ""));
        let mut tally = Tally::new("apply", true, true);
        tally.note(1, None, "fix", "cannot", gone());
        assert_eq!((tally.exit_code(), tally.results.len()), (3, 0));
        tally.done = 1;
        assert_eq!(tally.exit_code(), 0);
        let mut tally = Tally { done: 1, ..Tally::new("apply", true, false) };
        tally.note(1, None, "fix", "cannot", gone());
        assert_eq!((tally.exit_code(), tally.results.len()), (6, 1));
    }
}
