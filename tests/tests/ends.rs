// SPDX-License-Identifier: GPL-2.0-or-later
//! Threads and processes that end while they are looked at. A thread that ends is not its process: another one is asked, and all
//! goes on. A process that ends is gone, at whatever moment it does so, and never a failure.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use ulp_tests::case::Case;
use ulp_tests::ensure_that;
use ulp_tests::process::Running;
use ulp_tests::survivor::long;
use ulp_tests::tools::{Ran, run, ulp_apply, ulp_apply_in_steps};

/// The program after its first thread has ended, and the numbers of those that can be told to end, in the order of birth.
fn leaving(case: &Case) -> Result<(Running, Vec<String>)> {
    let mut target = case.start()?;
    let parked = (0..4).map(|_| target.ask("park")).collect::<Result<Vec<_>>>()?;
    ensure_that!(target.ask("first ends")? == "ok", "the first thread stays");
    let stat = format!("/proc/{}/stat", target.pid());
    let ended = || std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ended() {
        ensure_that!(Instant::now() < deadline, "the first thread does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((target, parked))
}

/// Runs ulp-apply; at the first step of this name the program is told something.
fn told_at(case: &Case, target: &mut Running, words: &[&str], step: &str, word: &str) -> Result<Ran> {
    let hook = case.work().join("hook");
    let pid = target.pid().to_string();
    let mut command = ulp_apply_in_steps()?;
    command.args(words).args(["--wait", "20s", "--pid", &pid]);
    command.env("ULP_STEP_HOOKS", format!("1:{step}:{}", hook.display()));
    std::thread::scope(|scope| {
        let running = scope.spawn(move || run(&mut command));
        while !hook.exists() && !running.is_finished() {
            std::thread::sleep(Duration::from_micros(300));
        }
        ensure_that!(hook.exists(), "there is no step {step:?}");
        let told =
            if word == "exit" { target.tell(word).and_then(|()| target.end()) } else { target.ask(word).map(drop) };
        std::fs::remove_file(&hook)?;
        let ran = running.join().expect("the thread does not panic")?;
        told.map(|()| ran)
    })
}

/// The files that are read of a thread, in the order in which ulp-apply comes to them.
const STEPS: [(&str, &str); 4] = [("open", "mem"), ("read", "status"), ("read", "auxv"), ("read", "maps")];

#[test]
fn a_thread_that_ends_while_it_is_asked_is_not_the_process() -> Result<()> {
    let case = Case::life("leaving")?;
    let package = case.build_package()?;
    let package = package.to_str().context("a path")?;
    for (call, file) in STEPS {
        let (mut target, mut parked) = leaving(&case)?;
        for (words, wanted) in [(["apply", package], "20"), (["revert", "fix"], "15")] {
            let first = parked.remove(0);
            let step = format!("{call} /proc/{}/task/{first}/{file}", target.pid());
            let ran = told_at(&case, &mut target, &words, &step, &format!("end {first}"))?;
            ran.expect_code(0).with_context(|| step.clone())?;
            let answer = target.ask("5")?;
            ensure_that!(answer == wanted, "{step}: {answer}, not {wanted}\n{}", ran.report());
        }
        target.end()?;
    }
    Ok(())
}

#[test]
fn a_process_that_ends_while_it_is_asked_is_gone() -> Result<()> {
    let case = Case::life("leaving")?;
    let package = case.build_package()?;
    let package = package.to_str().context("a path")?;
    for (call, file) in STEPS {
        for words in [&["apply", package][..], &["revert", "fix"], &["revert", "--everything"]] {
            let (mut target, parked) = leaving(&case)?;
            let step = format!("{call} /proc/{}/task/{}/{file}", target.pid(), parked[0]);
            let ran = told_at(&case, &mut target, words, &step, "exit").with_context(|| format!("{words:?}"))?;
            ran.expect_code(3).with_context(|| step.clone())?;
        }
    }
    Ok(())
}

/// Without steps, so that it happens between any two instructions of the kernel.
#[test]
fn processes_end_at_any_moment() -> Result<()> {
    let case = Case::life("leaving")?;
    let package = case.build_package()?;
    let package = package.to_str().context("a path")?;
    let mut codes = BTreeMap::<i32, usize>::new();
    for n in 0..if long() { 3000 } else { 200u64 } {
        let mut target = if n % 3 == 0 { case.start()? } else { leaving(&case)?.0 };
        let pid = target.pid().to_string();
        let words: &[&str] = match n % 5 {
            0 => &["apply", package],
            1 => &["revert", "fix"],
            2 => &["revert", "--everything"],
            3 => &["list"],
            _ => &["verify"],
        };
        let mut command: Command = ulp_apply()?;
        command.args(words).args(["--pid", &pid]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn()?;
        // Every moment of its run, in an order that does not follow that of the verbs.
        std::thread::sleep(Duration::from_micros(n * 7919 % 12_000));
        if n % 2 == 0 {
            target.tell("exit")?
        } else {
            target.kill()?
        }
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        let code = done.status.code().context("ended by a signal")?;
        ensure_that!(matches!(code, 0 | 3), "{words:?}: exit {code} is not for this\n{said}");
        *codes.entry(code).or_default() += 1;
        target.end()?;
    }
    println!("exit codes and their numbers {codes:?}");
    ensure_that!(codes.contains_key(&3), "no process ended in time: {codes:?}");
    Ok(())
}
