// SPDX-License-Identifier: GPL-2.0-or-later
//! Threads in the way of a patch: those that can be caught between two calls are, the others are named.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use ulp_tests::case::Case;
use ulp_tests::ensure_that;
use ulp_tests::process::Running;
use ulp_tests::tools::{Ran, run, ulp_apply};

/// One test at a time: each wants the processors for itself.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn apply(package: &Path, target: &Running, more: &[&str]) -> Result<Ran> {
    run(ulp_apply()?.arg(package).args(["--pid", &target.pid().to_string()]).args(more))
}

/// Applies and reverts ten times while threads call the function in a loop, with this `--max-stop` (milliseconds).
fn caught(body: &str, threads: u32, max_stop: u64) -> Result<()> {
    let _alone = alone();
    let case = Case::life("busy")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    target.ask(&format!("{body} {threads}"))?;
    let limit = format!("{max_stop}ms");
    let (mut holds, mut attempts) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        for question in ["11 1", "1 1"] {
            let pid = target.pid().to_string();
            let ran = match question {
                "11 1" => apply(&package, &target, &["--json", "--max-stop", &limit])?,
                _ => run(ulp_apply()?.args(["revert", "fix", "--json", "--max-stop", &limit, "--pid", &pid]))?,
            };
            let stop = ran.expect_code(0)?.json()?["results"][0]["stop"].clone();
            let number = |name: &str| stop[name].as_u64().with_context(|| format!("{name} in {stop}"));
            ensure_that!(number("threads")? == u64::from(threads) + 1, "{stop}");
            holds.push(number("hold_us")?);
            attempts.push(number("attempts")?);
            let answer = target.ask("now")?;
            ensure_that!(answer == question, "{answer:?}, not {question:?}");
        }
    }
    holds.sort_unstable();
    println!("{body}, {threads} threads: hold us {holds:?}, attempts {attempts:?}");
    target.check_alive()
}

#[test]
fn a_tight_loop_is_caught_between_two_calls() -> Result<()> {
    caught("loop", 1, 50)
}

#[test]
fn sixty_four_threads_are_caught_between_two_calls() -> Result<()> {
    caught("half", 64, 50)
}

/// Threads that do nothing else are outside for some two of a hundred parts of their time: 64 of them need longer.
#[test]
fn sixty_four_tight_loops_are_caught_when_there_is_time() -> Result<()> {
    caught("loop", 64, 1000)
}

#[test]
fn the_report_names_thread_function_line_and_caller() -> Result<()> {
    let _alone = alone();
    let case = Case::life("busy")?;
    let package = case.package_of("slower", "left = 1000000 * n", "left = 2000000 * n")?;
    let mut target = case.start()?;
    target.ask("asleep 1")?;
    let started = Instant::now();
    let ran = apply(&package, &target, &["--wait", "1s"])?;
    let text = &ran.expect_code(4)?.stderr;
    for words in ["is in asleep: ", "asleep at main.c:", "called from caller_of_asleep at main.c:"] {
        ensure_that!(text.contains(words), "no {words:?} in\n{}", ran.report());
    }
    ensure_that!(started.elapsed().as_secs() < 20, "it took {:?}", started.elapsed());
    let json = apply(&package, &target, &["--wait", "1ms", "--json"])?.expect_code(4)?.json()?;
    let blocker = &json["results"][0]["blockers"][0];
    ensure_that!(
        blocker["function"] == "asleep" && blocker["tid"].is_i64() && blocker["address"].is_string(),
        "{json}"
    );
    // What a dry run sees in its looks.
    let dry = apply(&package, &target, &["--dry-run"])?;
    ensure_that!(dry.expect_code(0)?.stdout.contains(" of 5 looks: thread "), "{}", dry.report());
    let json = apply(&package, &target, &["--dry-run", "--json"])?.json()?;
    let blockers = json["results"][0]["blockers"].as_array().context("blockers")?;
    let seen = |b: &serde_json::Value| b["seen"].as_u64().unwrap_or(0);
    // A look at which the process could not be stopped in time, on a machine with much to do, is one of its own.
    ensure_that!(blockers.iter().all(|b| b["of"] == 5) && blockers.iter().map(seen).sum::<u64>() == 5, "{json}");
    ensure_that!(blockers.iter().any(|b| b["function"] == "asleep" && seen(b) > 0), "{json}");
    let idle = apply(&case.build_package()?, &target, &["--dry-run"])?;
    ensure_that!(idle.expect_code(0)?.stdout.contains("nobody was in the way"), "{}", idle.report());
    target.check_alive()
}

/// Symbols and lines come from the file that distributions install beside a stripped program.
#[test]
fn the_report_names_lines_from_the_debug_file() -> Result<()> {
    let _alone = alone();
    let case = Case::life("busy")?;
    let package = case.package_of("slower", "left = 1000000 * n", "left = 2000000 * n")?;
    let program = &case.production.program;
    let folder = program.parent().context("a folder")?.join(".debug");
    std::fs::create_dir(&folder)?;
    let debug = folder.join("symbols.debug");
    run(Command::new("objcopy").arg("--only-keep-debug").arg(program).arg(&debug))?.expect_code(0)?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    run(Command::new("objcopy").args(["--strip-all", &link]).arg(program))?.expect_code(0)?;
    let mut target = case.start()?;
    target.ask("asleep 1")?;
    let with = apply(&package, &target, &["--wait", "1ms"])?;
    ensure_that!(with.expect_code(4)?.stderr.contains("called from caller_of_asleep at main.c:"), "{}", with.report());
    std::fs::remove_file(&debug)?;
    let without = apply(&package, &target, &["--wait", "1ms"])?;
    ensure_that!(!without.expect_code(4)?.stderr.contains("caller_of_asleep"), "{}", without.report());
    target.check_alive()
}

/// The builder knows that the function never returns, and whoever waits for it is told.
#[test]
fn a_function_that_never_returns_is_not_waited_for() -> Result<()> {
    let _alone = alone();
    let case = Case::life("busy")?;
    let package = case.package_of("ever", "++*turns;", "*turns += 2;")?;
    let mut target = case.start()?;
    // While nobody is in it, it is patched like any other.
    apply(&package, &target, &[])?.expect_code(0)?;
    run(ulp_apply()?.args(["revert", "ever", "--pid", &target.pid().to_string()]))?.expect_code(0)?;
    target.ask("ever 1")?;
    let started = Instant::now();
    let ran = apply(&package, &target, &["--wait", "1m"])?;
    ensure_that!(ran.expect_code(4)?.stderr.contains("forever never returns"), "{}", ran.report());
    ensure_that!(started.elapsed().as_secs() < 20, "it was waited for: {:?}", started.elapsed());
    target.check_alive()
}
