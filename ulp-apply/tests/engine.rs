// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine against real processes: stopped, looked at, made to call, and abandoned by a killed patcher, again and
//! again; none of it may be noticed by them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use ulp_apply::process::{Check, Error, ErrorKind, Process, Protection, RemoteAddr, Suspect, Unwinder, Why};

const WAITS: [&str; 8] = ["futex", "poll", "read", "epoll", "recv", "nanosleep", "sigwait", "semop"];
/// Names a target that was compiled beforehand, for machines without a compiler.
const READY_TARGET: &str = "ULP_ENGINE_TARGET";
/// Tells the helper test below which process to work on.
const VICTIM: &str = "ULP_ENGINE_VICTIM";

/// How long a stop may take; longer on emulated processors.
fn max_stop() -> Duration {
    let told = std::env::var("ULP_ENGINE_MAX_STOP").ok().and_then(|ms| ms.parse().ok());
    Duration::from_millis(told.unwrap_or(500))
}

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<(Option<tempfile::TempDir>, PathBuf)> = OnceLock::new();
    let (_, path) = PROGRAM.get_or_init(|| {
        if let Some(ready) = std::env::var_os(READY_TARGET) {
            return (None, ready.into());
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("target");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine_target.c");
        let args = ["-std=gnu11", "-O2", "-Wall", "-pthread", "-o"];
        let status = Command::new("gcc").args(args).arg(&path).arg(source).status().expect("gcc runs");
        assert!(status.success());
        (Some(dir), path)
    });
    path
}

struct Target {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    ranges: HashMap<String, (u64, u64)>,
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the target starts");
        let stdin = child.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the target speaks");
        let words: Vec<&str> = line.split_whitespace().collect();
        let hex = |w: &str| u64::from_str_radix(w.trim_start_matches("0x"), 16).expect("an address");
        let ranges = words.chunks(3).map(|w| (w[0].to_owned(), (hex(w[1]), hex(w[2])))).collect();
        // Let everybody fall asleep.
        std::thread::sleep(Duration::from_millis(30));
        Self { child, stdin, stdout, ranges }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    fn open(&self) -> Process {
        Process::open(self.pid()).expect("our own child may be traced")
    }

    fn ask(&mut self) -> HashMap<String, i64> {
        self.stdin.write_all(b"?\n").expect("the target lives");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the target answers");
        let pairs = line.split_whitespace().filter_map(|w| w.split_once('='));
        let stats: HashMap<_, _> = pairs.map(|(k, v)| (k.to_owned(), v.parse().expect("a number"))).collect();
        assert!(!stats.is_empty(), "no answer");
        stats
    }

    fn assert_unharmed(&mut self) {
        let stats = self.ask();
        for key in ["eintr", "early", "wrong"] {
            assert_eq!(stats[key], 0, "{key} in {stats:?}");
        }
    }

    fn suspects(&self, names: &[&str]) -> Vec<Suspect> {
        let suspect = |name: &&str| {
            let (start, end) = self.ranges[*name];
            Suspect {
                name: (*name).to_owned(),
                start: RemoteAddr(start),
                end: RemoteAddr(end),
                at_start: false,
                // None of them ends in a call.
                at_end: false,
                for_ever: false,
            }
        };
        names.iter().map(suspect).collect()
    }

    fn check(&self, process: &Process, names: &[&str]) -> Check {
        let modules = process.modules(&process.maps().expect("maps")).expect("modules");
        Check::new(self.suspects(names), Unwinder::new(process, &modules, &[]).expect("tables"))
    }

    fn state(&self) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the target lives");
        stat.rsplit_once(") ").expect("a state").1.chars().take(1).collect()
    }
}

/// Waits until the first thread is in one of these states, for which it may have to get to a processor.
fn wait_for(target: &Target, states: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !states.contains(&target.state()) {
        assert!(Instant::now() < deadline, "state {}", target.state());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn a_crowd() -> Vec<&'static str> {
    let mut args: Vec<&str> = WAITS.iter().flat_map(|w| std::iter::repeat_n(*w, 9)).collect();
    args.extend(["run", "run"]);
    args
}

/// A free place near the program's text.
fn free_place(process: &Process, size: u64) -> RemoteAddr {
    let maps = process.maps().expect("maps");
    let modules = process.modules(&maps).expect("modules");
    let main = modules.iter().find(|m| m.role == ulp_apply::process::Role::Main).expect("a program");
    let wish = main.wish(size, process.arch(), None);
    maps.find_gap(&wish).expect("room")
}

#[test]
fn stops_are_not_noticed() {
    let mut target = Target::start(&a_crowd());
    let process = target.open();
    let check = target.check(&process, &["asleep", "hot"]);
    let before = target.ask()["laps"];
    let (mut cured, mut interrupted) = (0, 0);
    for _ in 0..100 {
        let ((), timings) = process.stop(max_stop(), &check, |_| ()).expect("all stop");
        assert_eq!(timings.threads, WAITS.len() * 9 + 3);
        cured += timings.cured;
        interrupted += timings.interrupted;
    }
    if kernel_tells_arguments(&process) {
        assert!(cured >= 100, "the cure had work: {cured}");
        target.assert_unharmed();
    } else {
        // Nobody hears of more than was said.
        println!(
            "SKIPPED: this kernel does not tell what is needed to begin a call anew; {interrupted} ended with EINTR"
        );
        let stats = target.ask();
        assert!((1..=interrupted as i64).contains(&stats["eintr"]), "{stats:?}, {interrupted}");
        assert_eq!((stats["early"], stats["wrong"]), (0, 0), "{stats:?}");
    }
    assert!(target.ask()["laps"] > before);
}

/// Whether the kernel of a machine that needs it tells the first argument of an interrupted call. aarch64's does on 6.1, and not
/// on 6.12.117: docs/architectures.md.
fn kernel_tells_arguments(process: &Process) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<u32>().ok()).expect("a number");
    let mut numbers = release.split('.');
    let version = (number(numbers.next()), number(numbers.next()));
    !(process.arch().name() == "aarch64" && version >= (6, 12))
}

#[test]
fn nothing_runs_while_stopped() {
    let mut target = Target::start(&["run", "run", "read"]);
    let process = target.open();
    let laps = || {
        // utime of all threads, in ticks: what the kernel counts, not what the target says.
        let read = |f: &str| std::fs::read_to_string(format!("/proc/{}/{f}", process.pid())).expect("readable");
        read("schedstat").split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    let ((first, second), _) = process
        .stop(max_stop(), &Check::default(), |_| {
            let first = laps();
            std::thread::sleep(Duration::from_millis(50));
            (first, laps())
        })
        .expect("all stop");
    assert_eq!(first, second);
    target.assert_unharmed();
}

#[test]
fn a_write_under_the_stop_is_seen() {
    let target = Target::start(&["read"]);
    let process = target.open();
    let at = RemoteAddr(target.ranges["hot"].0);
    let old = process.read_vec(at, 8).expect("readable");
    let (written, _) = process.stop(max_stop(), &Check::default(), |quiet| quiet.write(at, &[0x90; 8])).expect("stops");
    written.expect("text can be written");
    assert_eq!(process.read_vec(at, 8).expect("readable"), [0x90; 8]);
    let (restored, _) = process.stop(max_stop(), &Check::default(), |quiet| quiet.write(at, &old)).expect("stops");
    restored.expect("text can be written");
    assert_eq!(process.read_vec(at, 8).expect("readable"), old);
}

fn map_and_unmap(process: &Process, at: RemoteAddr) {
    let text = b"written through the guard";
    // "Busy" is an honest answer on a loaded machine; the caller tries again, as ulp-apply does.
    let patiently = |attempt: &dyn Fn() -> Result<(), Error>| {
        for _ in 0..20 {
            match attempt() {
                Err(e) if e.kind() == ErrorKind::Busy => std::thread::sleep(Duration::from_millis(5)),
                answer => return answer,
            }
        }
        attempt()
    };
    patiently(&|| {
        process.remote(max_stop(), |remote| {
            remote.map(at, 8192, Protection::ReadExec)?;
            remote.write(at.plus(4090), text)
        })?
    })
    .expect("memory is mapped");
    assert_eq!(process.read_vec(at.plus(4090), text.len()).expect("readable"), text);
    let maps = process.maps().expect("maps");
    assert!(maps.at(at.0).is_some_and(|m| m.exec && !m.write));
    patiently(&|| process.remote(max_stop(), |remote| remote.unmap(at, 8192))?).expect("and unmapped");
}

#[test]
fn calls_in_every_kind_of_waiting_thread() {
    for wait in WAITS {
        let mut target = Target::start(&["only", wait]);
        let process = target.open();
        let at = free_place(&process, 8192);
        let before = process.maps().expect("maps");
        let ((), timings) = process.stop(max_stop(), &Check::default(), |_| ()).expect("stops");
        if timings.interrupted > 0 && !kernel_tells_arguments(&process) {
            println!("SKIPPED {wait}: this kernel does not tell what is needed to begin it anew");
            continue;
        }
        for n in 0..100 {
            map_and_unmap(&process, at);
            // 8 and 9 say that the wait has ended, with EINTR and without.
            assert_eq!(target.child.try_wait().expect("our child"), None, "{wait}, {n}");
        }
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(target.child.try_wait().expect("our child"), None, "{wait}");
        let after = process.maps().expect("maps");
        assert_eq!(before.iter().count(), after.iter().count(), "{wait}");
    }
}

#[test]
fn calls_in_a_running_thread_and_among_signals() {
    for args in [["run", "run"].as_slice(), &["alarms"], &["alarms", "run", "read"]] {
        let mut target = Target::start(args);
        let process = target.open();
        let at = free_place(&process, 8192);
        for _ in 0..100 {
            map_and_unmap(&process, at);
        }
        target.assert_unharmed();
        if args.contains(&"alarms") {
            let first = target.ask()["alarms"];
            std::thread::sleep(Duration::from_millis(20));
            assert!(target.ask()["alarms"] > first, "alarms go on");
        }
    }
}

#[test]
fn a_taken_place_is_an_error() {
    let mut target = Target::start(&["read"]);
    let process = target.open();
    let page = process.page();
    let at = RemoteAddr(target.ranges["hot"].0 & !(page - 1));
    let result = process.remote(max_stop(), |remote| remote.map(at, page, Protection::Read)).expect("a thread");
    assert!(matches!(result, Err(Error::Call { call: "mmap", .. })), "{result:?}");
    target.assert_unharmed();
}

/// Not a test by itself: `a_killed_patcher_harms_nobody` runs it in a process of its own and kills it.
#[test]
fn patcher_to_be_killed() {
    let Some(pid) = std::env::var(VICTIM).ok().and_then(|v| v.parse().ok()) else { return };
    let process = Process::open(pid).expect("the victim");
    let page = process.page();
    let at = free_place(&process, 200 * page);
    println!("begun");
    for n in 0.. {
        let at = at.plus(n % 200 * page);
        let _ = process.remote(max_stop(), |remote| {
            remote.map(at, page, Protection::ReadWrite)?;
            remote.unmap(at, page)
        });
        if n % 4 == 0 {
            let _ = process.stop(max_stop(), &Check::default(), |_| ());
        }
    }
}

fn kill_patchers(target: &mut Target, times: u64) {
    for n in 0..times {
        let mut patcher = Command::new(std::env::current_exe().expect("ourselves"))
            .args(["--exact", "patcher_to_be_killed", "--nocapture"])
            .env(VICTIM, target.pid().to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the patcher starts");
        let lines = BufReader::new(patcher.stdout.take().expect("a pipe")).lines();
        assert!(lines.map_while(Result::ok).any(|l| l.ends_with("begun")), "the patcher began");
        // Spread evenly over the first millisecond and a half, in an order that looks random.
        std::thread::sleep(Duration::from_micros(n * 619 % 1500));
        patcher.kill().expect("the patcher is ours");
        patcher.wait().expect("the patcher is ours");
        assert_eq!(target.child.try_wait().expect("our child"), None, "death after {n} kills");
    }
}

#[test]
fn a_killed_patcher_harms_nobody() {
    let mut target = Target::start(&a_crowd());
    kill_patchers(&mut target, 40);
    // Death between a stop and its cure leaves one EINTR to the calls which the kernel ends at every stop; no more.
    let stats = target.ask();
    assert_eq!((stats["early"], stats["wrong"]), (0, 0), "{stats:?}");
    assert!(stats["eintr"] <= 40 * 27, "{stats:?}");
    // And whatever the dead left behind is tidied up when the room is needed.
    let process = target.open();
    for _ in 0..20 {
        map_and_unmap(&process, free_place(&process, 8192));
    }
    assert_eq!(target.ask()["eintr"], stats["eintr"]);
}

#[test]
fn a_killed_patcher_harms_no_lonely_thread() {
    for wait in ["nanosleep", "poll", "futex"] {
        let mut target = Target::start(&["only", wait]);
        kill_patchers(&mut target, 15);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(target.child.try_wait().expect("our child"), None, "{wait}");
        wait_for(&target, "S");
    }
}

fn busy(result: Result<((), ulp_apply::process::Timings), Error>) -> Vec<ulp_apply::process::BusyThread> {
    match result {
        Err(Error::Busy { threads, .. }) => threads,
        other => panic!("not busy: {other:?}"),
    }
}

#[test]
fn a_thread_asleep_inside_is_found() {
    let mut target = Target::start(&["asleep", "read", "poll"]);
    let process = target.open();
    let check = target.check(&process, &["asleep"]);
    for _ in 0..20 {
        let found = busy(process.stop(max_stop(), &check, |_| ()));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].function.as_str(), found[0].tid != target.pid()), ("asleep", true));
        assert!(matches!(found[0].why, Why::Frame(_)), "{found:?}");
        assert_eq!(process.look_again(max_stop(), &check, &found).expect("it stops").len(), 1);
    }
    // The positive twin: nobody is in there.
    let check = target.check(&process, &["hot"]);
    process.stop(max_stop(), &check, |_| ()).expect("nobody is inside");
    target.assert_unharmed();
}

#[test]
fn a_hot_thread_is_found() {
    let target = Target::start(&["hot"]);
    let process = target.open();
    let check = target.check(&process, &["hot"]);
    // A hot thread is let out of the function while there is time, which takes some tens of milliseconds here.
    let too_short = max_stop() / 100;
    let found = (0..20).find_map(|_| match process.stop(too_short, &check, |_| ()) {
        Err(Error::Busy { threads, .. }) => Some(threads),
        _ => None,
    });
    let found = found.expect("it is there nearly always");
    assert!(found.iter().any(|b| b.why == Why::Running), "{found:?}");
}

#[test]
fn stale_words_are_cleared_and_only_by_unwinding() {
    let target = Target::start(&["left"]);
    let process = target.open();
    // Without tables the words count, so they are there ...
    let blind = Check::new(target.suspects(&["left"]), Unwinder::default());
    let found = busy(process.stop(max_stop(), &blind, |_| ()));
    assert!(matches!(found[0].why, Why::StackWord(_)), "{found:?}");
    // ... and with them they do not.
    let check = target.check(&process, &["left"]);
    process.stop(max_stop(), &check, |_| ()).expect("all of it is stale");
}

#[test]
fn a_handler_on_another_stack_is_found() {
    let target = Target::start(&["handler"]);
    let process = target.open();
    // The handler itself, and what waits beneath it, on two stacks.
    let found = busy(process.stop(max_stop(), &target.check(&process, &["handler"]), |_| ()));
    assert!(matches!(found[0].why, Why::Frame(_)), "{found:?}");
    // The stale words of the home stack lie below its frames or in them: what is not accounted for stays suspicious.
    let left = target.check(&process, &["left"]);
    match process.stop(max_stop(), &left, |_| ()) {
        Ok(_) => {}
        Err(Error::Busy { threads, .. }) => assert!(threads.iter().all(|b| matches!(b.why, Why::StackWord(_)))),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn what_a_handler_interrupted_beneath_its_own_stack_is_found() {
    let target = Target::start(&["beneath"]);
    let process = target.open();
    for name in ["beneath", "handler"] {
        let found = busy(process.stop(max_stop(), &target.check(&process, &[name]), |_| ()));
        assert_eq!((found.len(), found[0].function.as_str()), (1, name), "{found:?}");
        assert!(matches!(found[0].why, Why::Frame(_)), "{found:?}");
        // By its word alone, where nobody can follow the frames.
        let found = busy(process.stop(max_stop(), &Check::new(target.suspects(&[name]), Unwinder::default()), |_| ()));
        assert!(matches!(found[0].why, Why::StackWord(_)), "{found:?}");
    }
    process.stop(max_stop(), &target.check(&process, &["hot"]), |_| ()).expect("nobody is inside");
    let left = target.check(&process, &["left"]);
    process.stop(max_stop(), &left, |_| ()).expect("nobody has been inside");
}

#[test]
fn what_is_born_meanwhile_is_caught() {
    let mut target = Target::start(&["breed", "breed", "run", "read", "futex"]);
    let process = target.open();
    let check = target.check(&process, &["asleep"]);
    for _ in 0..100 {
        match process.stop(max_stop(), &check, |_| ()) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::Busy, "{e}"),
        }
    }
    let before = target.ask()["births"];
    std::thread::sleep(Duration::from_millis(20));
    assert!(target.ask()["births"] > before);
    target.assert_unharmed();
}

#[test]
fn forks_go_on_unharmed() {
    let mut target = Target::start(&["fork", "read", "poll"]);
    let process = target.open();
    let mut stopped = 0;
    for _ in 0..100 {
        match process.stop(max_stop(), &Check::default(), |_| ()) {
            Ok(_) => stopped += 1,
            Err(e) => assert_eq!(e.kind(), ErrorKind::Busy, "{e}"),
        }
    }
    assert!(stopped > 0);
    let before = target.ask()["births"];
    std::thread::sleep(Duration::from_millis(50));
    assert!(target.ask()["births"] > before);
    target.assert_unharmed();
}

fn signal(target: &Target, name: &str) {
    assert!(Command::new("kill").args([name, &target.pid().to_string()]).status().expect("kill runs").success());
}

#[test]
fn a_stopped_program_stays_stopped() {
    let mut target = Target::start(&["run", "poll", "epoll"]);
    let process = target.open();
    let at = free_place(&process, 8192);
    // The kernel ends some calls at a group-stop, without us. Where it has decided about the call before we see the thread, nobody knows
    // whether a handler has run by then, and this EINTR is the program's.
    signal(&target, "-STOP");
    wait_for(&target, "T");
    signal(&target, "-CONT");
    wait_for(&target, "RS");
    // All of them, and not the first one alone.
    std::thread::sleep(Duration::from_millis(100));
    let before = target.ask();
    let own = if process.arch().needs_asleep() { before["eintr"] } else { 0 };
    signal(&target, "-STOP");
    wait_for(&target, "T");
    for _ in 0..20 {
        process.stop(max_stop(), &Check::default(), |_| ()).expect("all stop");
        wait_for(&target, "T");
        map_and_unmap(&process, at);
        wait_for(&target, "T");
    }
    signal(&target, "-CONT");
    wait_for(&target, "RS");
    let after = target.ask();
    assert!((0..=own).contains(&(after["eintr"] - before["eintr"])), "{before:?} {after:?}");
    assert_eq!((after["early"], after["wrong"]), (0, 0), "{after:?}");
}

#[test]
fn the_first_thread_may_have_ended() {
    let mut target = Target::start(&["run", "read", "leave"]);
    let process = target.open();
    let at = free_place(&process, 8192);
    for _ in 0..10 {
        let ((), timings) = process.stop(max_stop(), &Check::default(), |_| ()).expect("the others stop");
        assert_eq!(timings.threads, 3);
        map_and_unmap(&process, at);
    }
    target.assert_unharmed();
}

#[test]
fn seccomp_is_asked_before_it_kills() {
    let mut target = Target::start(&["seccomp-kill"]);
    let process = target.open();
    let page = process.page();
    let at = free_place(&process, page);
    let result = process.remote(max_stop(), |remote| remote.map(at, page, Protection::Read)).expect("a thread");
    let error = result.expect_err("the filter says kill");
    assert!(matches!(error, Error::Seccomp { .. } | Error::SeccompUnreadable { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Refused);
    target.assert_unharmed();

    let mut target = Target::start(&["seccomp-errno"]);
    let process = target.open();
    let at = free_place(&process, page);
    match process.remote(max_stop(), |remote| remote.map(at, page, Protection::Read)).expect("a thread") {
        Ok(()) => assert!(process.maps().expect("maps").at(at.0).is_some()),
        Err(e) => assert_eq!(e.kind(), ErrorKind::Refused, "{e}"),
    }
    target.assert_unharmed();
}

#[test]
fn a_filter_that_kills_resumed_waits_is_minded() {
    let mut target = Target::start(&["seccomp-resume", "nanosleep", "nanosleep", "poll", "futex"]);
    let process = target.open();
    let at = free_place(&process, 8192);
    for _ in 0..20 {
        process.stop(max_stop(), &Check::default(), |_| ()).expect("all stop");
        map_and_unmap(&process, at);
    }
    target.assert_unharmed();
    // One that waits alone makes the calls, too.
    let mut target = Target::start(&["seccomp-resume", "only", "nanosleep"]);
    let process = target.open();
    let at = free_place(&process, 8192);
    for _ in 0..20 {
        map_and_unmap(&process, at);
        process.stop(max_stop(), &Check::default(), |_| ()).expect("it stops");
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(target.child.try_wait().expect("our child"), None);
    }
}

#[test]
fn a_wait_that_may_not_be_resumed_bears_many_stops() {
    let mut target = Target::start(&["seccomp-resume", "nanosleep", "nanosleep", "read"]);
    let process = target.open();
    for n in 0..5 {
        process.stop(max_stop(), &Check::default(), |_| ()).expect("all stop");
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(target.child.try_wait().expect("our child"), None, "stop {n}");
    }
    target.assert_unharmed();
}

#[test]
fn what_a_handler_leaves_in_the_registers_is_no_argument() {
    let mut target = Target::start(&["harried"]);
    let process = target.open();
    for _ in 0..300 {
        process.stop(max_stop(), &Check::default(), |_| ()).expect("all stop");
    }
    let stats = target.ask();
    assert_eq!((stats["early"], stats["wrong"]), (0, 0), "{stats:?}");
    std::thread::sleep(Duration::from_millis(20));
    assert!(target.ask()["alarms"] > stats["alarms"], "it goes on");
}

#[test]
fn stacks_with_guard_pages_between_them_are_told_apart() {
    let target = Target::start(&["guarded", "read"]);
    let process = target.open();
    let found = busy(process.stop(max_stop(), &target.check(&process, &["asleep"]), |_| ()));
    assert!(found.iter().any(|b| matches!(b.why, Why::Frame(_))), "{found:?}");
    process.stop(max_stop(), &target.check(&process, &["hot"]), |_| ()).expect("nobody is inside");
    // By its words alone, too.
    let found = busy(process.stop(max_stop(), &Check::new(target.suspects(&["asleep"]), Unwinder::default()), |_| ()));
    assert!(found.iter().any(|b| matches!(b.why, Why::StackWord(_))), "{found:?}");
}

#[test]
fn frames_above_guard_pages_are_found() {
    // In a thread and in the first one, whose descriptor is not on its stack.
    for args in [["guarded-frame"].as_slice(), &["only", "guarded-frame"]] {
        let target = Target::start(args);
        let process = target.open();
        for unwinder in [true, false] {
            let suspects = target.suspects(&["beneath"]);
            let check =
                if unwinder { target.check(&process, &["beneath"]) } else { Check::new(suspects, Unwinder::default()) };
            let found = busy(process.stop(max_stop(), &check, |_| ()));
            let named = |b: &&ulp_apply::process::BusyThread| b.function == "beneath";
            assert_eq!(found.iter().filter(named).count(), 1, "{args:?}, {unwinder}: {found:?}");
        }
    }
}

#[test]
fn each_signal_that_is_let_in_ends_one_wait() {
    for kind in ["let-in-epoll", "let-in-ppoll", "let-in-suspend"] {
        let mut target = Target::start(&[kind, "read"]);
        let process = target.open();
        let at = free_place(&process, 8192);
        for _ in 0..100 {
            process.stop(max_stop(), &Check::default(), |_| ()).expect("all stop");
        }
        for _ in 0..20 {
            map_and_unmap(&process, at);
        }
        let stats = target.ask();
        assert_eq!((stats["eintr"], stats["early"], stats["wrong"]), (0, 0, 0), "{kind}: {stats:?}");
        std::thread::sleep(Duration::from_millis(20));
        assert!(target.ask()["alarms"] > stats["alarms"], "{kind}: signals are let in");
    }
}

#[test]
fn who_cannot_be_opened_is_named() {
    let kind = |pid: i32| Process::open(pid).expect_err("it cannot be opened").kind();
    assert_eq!(kind(0), ErrorKind::NoProcess);
    assert_eq!(kind(-5), ErrorKind::NoProcess);
    assert_eq!(kind(i32::MAX), ErrorKind::NoProcess);
    let target = Target::start(&["read"]);
    let threads = std::fs::read_dir(format!("/proc/{}/task", target.pid())).expect("threads");
    let tid = threads
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .find(|t| *t != target.pid())
        .expect("a second thread");
    assert!(matches!(Process::open(tid), Err(Error::IsThread { tgid, .. }) if tgid == target.pid()));
    // A zombie: ended, and nobody has waited for it.
    let mut ended = Command::new("true").spawn().expect("true runs");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(kind(i32::try_from(ended.id()).expect("a pid")), ErrorKind::NoProcess);
    ended.wait().expect("our child");
}

#[test]
fn a_process_in_another_stop_is_busy() {
    let target = Target::start(&["read"]);
    let (first, second) = (target.open(), target.open());
    let (inner, _) = first
        .stop(max_stop(), &Check::default(), |_| second.stop(max_stop(), &Check::default(), |_| ()).map(drop))
        .expect("all stop");
    // Our own kind is waited for; a debugger (tests/trouble.rs) is not.
    assert!(matches!(inner, Err(Error::Locked { .. })), "{inner:?}");
    assert!(matches!(Process::open(target.pid()).map(drop), Ok(())));
}

#[test]
fn one_at_a_time() {
    let target = Target::start(&["read"]);
    let (first, second) = (target.open(), target.open());
    let lock = first.lock(Duration::ZERO).expect("nobody else is here");
    assert!(matches!(second.lock(Duration::from_millis(20)), Err(Error::Locked { .. })));
    drop(lock);
    second.lock(Duration::ZERO).expect("free again");
}

#[test]
fn a_dead_process_is_gone() {
    let mut target = Target::start(&["read"]);
    let process = target.open();
    target.child.kill().expect("ours");
    target.child.wait().expect("ours");
    assert!(!process.is_alive());
    let stop = process.stop(max_stop(), &Check::default(), |_| ()).expect_err("it is gone");
    assert_eq!(stop.kind(), ErrorKind::NoProcess, "{stop}");
    let remote = process.remote(max_stop(), |_| ()).expect_err("it is gone");
    assert_eq!(remote.kind(), ErrorKind::NoProcess, "{remote}");
    let read = process.read_u64(RemoteAddr(target.ranges["hot"].0)).expect_err("it is gone");
    assert_eq!(read.kind(), ErrorKind::NoProcess, "{read}");
}
