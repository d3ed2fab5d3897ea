// SPDX-License-Identifier: GPL-2.0-or-later
//! Frames that are hard to find or to follow: what a signal handler on a stack of its own interrupted, code whose tables
//! are only in a file on disk, code without tables. A thread inside is always found, and stale words are cleared only where
//! there is a table that proves it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use ulp_apply::process::{BusyThread, Check, Error, Process, RemoteAddr, Suspect, Unwinder, Why};

const MAX_STOP: Duration = Duration::from_millis(500);

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn tool(name: &str, args: &[&str], dir: &Path) {
    let status = Command::new(name).args(args).current_dir(dir).status().expect("the tool runs");
    assert!(status.success(), "{name} {args:?}");
}

/// The target, built in a directory of its own. `table` is the kind of table of its assembly; `None`: it has none.
fn build(flags: &[&str], table: Option<&str>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("gcc");
    command.current_dir(&dir).args(["-O2", "-Wall", "-Wl,--build-id", "-DHAS_ASSEMBLY", "-o", "target"]);
    command.args(table.map(|table| format!("-DTABLE={table}"))).args(flags);
    command.args([source("frames_target.c"), source("frames_target.S")]);
    assert!(command.status().expect("the compiler runs").success(), "{command:?}");
    let path = dir.path().join("target");
    (dir, path)
}

/// A process that sleeps in the frames that it was asked for.
struct Sleeper {
    child: Child,
    ranges: [(u64, u64); 2],
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sleeper {
    fn start(path: &Path, what: &str) -> Self {
        let mut child =
            Command::new(path).arg(what).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it speaks");
        let address = |w: &str| u64::from_str_radix(w.trim_start_matches("0x"), 16).ok();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(address).collect();
        let [a, b, c, d] = numbers[..] else { panic!("{what}: {line:?}") };
        // Let it fall asleep.
        std::thread::sleep(Duration::from_millis(30));
        Self { child, ranges: [(a, b), (c, d)] }
    }

    fn open(&self) -> Process {
        Process::open(i32::try_from(self.child.id()).expect("a pid")).expect("our own child may be traced")
    }

    fn suspects(&self, name: &str) -> Vec<Suspect> {
        let (start, end) = self.ranges[usize::from(name == "left")];
        let (start, end) = (RemoteAddr(start), RemoteAddr(end));
        vec![Suspect { name: name.into(), start, end, at_start: false, at_end: true, for_ever: false }]
    }

    fn check(&self, process: &Process, name: &str) -> Check {
        let modules = process.modules(&process.maps().expect("maps")).expect("modules");
        Check::new(self.suspects(name), Unwinder::new(process, &modules, &[]).expect("tables"))
    }
}

/// Who is in the way of a stop; nobody: it succeeds.
fn in_the_way(process: &Process, check: &Check) -> Vec<BusyThread> {
    match process.stop(MAX_STOP, check, |_| ()) {
        Ok(_) => Vec::new(),
        Err(Error::Busy { threads, .. }) => threads,
        Err(e) => panic!("{e}"),
    }
}

/// Whether the frame of `inside` is found by following the stack, or only its word.
#[derive(PartialEq, Eq, Debug)]
enum Found {
    Frame,
    Word,
}

fn found(path: &Path, what: &str) -> Found {
    let target = Sleeper::start(path, what);
    let process = target.open();
    let check = target.check(&process, "inside");
    let first = in_the_way(&process, &check);
    assert_eq!(first.len(), 1, "{what} of {path:?}: {first:?}");
    check.learn(&process, &first);
    let busy = in_the_way(&process, &check);
    assert_eq!(busy.len(), 1, "{what} of {path:?}: {busy:?}");
    match busy[0].why {
        Why::Frame(_) => Found::Frame,
        Why::StackWord(_) => Found::Word,
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn what_a_handler_interrupted_beneath_its_own_stack_is_found() {
    for (flags, seen) in [
        (&["-fPIE", "-pie"][..], Found::Frame),
        (&["-static"], Found::Frame),
        // The trampoline has no table.
        (&["-DOWN_RESTORER"], Found::Frame),
        // Nobody can follow these frames, and the words are found all the same.
        (&["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"], Found::Word),
        (&["-static", "-fno-asynchronous-unwind-tables", "-DOWN_RESTORER"], Found::Word),
    ] {
        let (_dir, path) = build(flags, Some(".eh_frame"));
        assert_eq!(found(&path, "stack-in-a-frame"), seen, "{flags:?}");
    }
}

#[test]
fn what_a_handler_interrupted_on_a_coroutines_stack_is_found() {
    for (flags, seen) in [(&["-g"][..], Found::Frame), (&["-fno-asynchronous-unwind-tables"], Found::Word)] {
        let flags = [flags, &["-DHAS_COROUTINES"]].concat();
        let (_dir, path) = build(&flags, None);
        assert_eq!(found(&path, "handler-upon-a-coroutine"), seen, "{flags:?}");
    }
}

#[test]
fn what_a_handler_left_behind_leads_nowhere() {
    let (_dir, path) = build(&[], Some(".eh_frame"));
    let target = Sleeper::start(&path, "handler-has-returned");
    let process = target.open();
    // Without tables the context counts, and what lies beneath it ...
    let blind = Check::new(target.suspects("left"), Unwinder::default());
    assert!(!in_the_way(&process, &blind).is_empty(), "the situation is not there");
    // ... and with them it does not.
    assert_eq!(in_the_way(&process, &target.check(&process, "left")), []);
    assert_eq!(in_the_way(&process, &target.check(&process, "inside")), []);
}

#[test]
fn among_thousands_of_words_none_is_passed_over() {
    let (_dir, path) = build(&["-g"], None);
    let target = Sleeper::start(&path, "many-words");
    let process = target.open();
    let busy = in_the_way(&process, &target.check(&process, "inside"));
    assert!(matches!(busy[..], [BusyThread { why: Why::UnknownStack, .. }]), "{busy:?}");
}

#[test]
fn a_stack_of_several_mappings_is_looked_at_as_a_whole() {
    let (_dir, path) = build(&["-g"], None);
    assert_eq!(found(&path, "locked-key"), Found::Frame);
}

#[test]
fn a_coroutines_stack_in_a_frame_is_not_accounted_for() {
    let (_dir, path) = build(&["-g", "-DHAS_COROUTINES"], None);
    let target = Sleeper::start(&path, "coroutine-in-a-frame");
    let process = target.open();
    let mut check = target.check(&process, "inside");
    assert_eq!(in_the_way(&process, &check), [], "for all that is known the frame holds data");
    check.expect_stacks_in_frames();
    let busy = in_the_way(&process, &check);
    assert!(matches!(busy[..], [BusyThread { why: Why::StackWord(_), .. }]), "{busy:?}");
}

/// Whether the words of `left` are in the way at first, and after the files were read.
fn stale(path: &Path, what: &str) -> (bool, bool) {
    let target = Sleeper::start(path, what);
    let process = target.open();
    let check = target.check(&process, "left");
    let blind = Check::new(target.suspects("left"), Unwinder::default());
    assert!(!in_the_way(&process, &blind).is_empty(), "the situation is not there");
    let first = in_the_way(&process, &check);
    assert!(first.iter().all(|b| matches!(b.why, Why::StackWord(_))), "{first:?}");
    check.learn(&process, &first);
    (!first.is_empty(), !in_the_way(&process, &check).is_empty())
}

#[test]
fn tables_are_taken_from_wherever_they_are() {
    for (flags, table, what, seen) in [
        (&["-g"][..], Some(".eh_frame"), "above-assembly", (false, false)),
        (&[], Some(".debug_frame"), "above-assembly", (true, false)),
        (&["-no-pie", "-fno-pie"], Some(".debug_frame"), "above-assembly", (true, false)),
        (&["-gz"], Some(".debug_frame"), "above-assembly", (true, false)),
        // No table, no proof.
        (&["-g"], None, "above-assembly", (true, true)),
        // All code of the program has only this kind of table.
        (&["-g", "-fno-asynchronous-unwind-tables"], Some(".debug_frame"), "traces", (true, false)),
        // The table is in memory, and nothing there says where.
        (&["-Wl,--no-eh-frame-hdr"], Some(".eh_frame"), "traces", (true, false)),
        (&["-static"], Some(".debug_frame"), "above-assembly", (true, false)),
    ] {
        let (_dir, path) = build(flags, table);
        assert_eq!(stale(&path, what), seen, "{what} of {flags:?} with {table:?}");
    }
}

#[test]
fn the_file_with_the_debug_information_counts_when_it_is_of_this_build() {
    let (dir, path) = build(&["-g"], Some(".debug_frame"));
    let (other, _) = build(&["-g", "-DOTHER=1", "-O1"], Some(".debug_frame"));
    for dir in [dir.path(), other.path()] {
        tool("objcopy", &["--only-keep-debug", "target", "target.debug"], dir);
        tool("objcopy", &["--strip-all", "--add-gnu-debuglink=target.debug", "target"], dir);
    }
    assert_eq!(stale(&path, "above-assembly"), (true, false), "beside the program");
    std::fs::create_dir(dir.path().join(".debug")).expect("a folder");
    std::fs::rename(dir.path().join("target.debug"), dir.path().join(".debug/target.debug")).expect("moved");
    assert_eq!(stale(&path, "above-assembly"), (true, false), "in a folder of its own");
    std::fs::copy(other.path().join("target.debug"), dir.path().join(".debug/target.debug")).expect("copied");
    assert_eq!(stale(&path, "above-assembly"), (true, true), "of another build");
}
