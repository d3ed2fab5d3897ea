// SPDX-License-Identifier: GPL-2.0-or-later
//! A patched process sees no EINTR that was not there, no early end of a wait, and no wait that never ends: threads in every kind
//! of wait while patches go in and out, and while one apply finds a thread asleep in the function for a long time.
//! `ULP_LONG=1` runs the long form: 1000 threads, 100 applies, 20 s busy.

use anyhow::{Context, Result};
use serde_json::Value;
use std::time::{Duration, Instant};
use ulp_tests::case::Case;
use ulp_tests::ensure_that;
use ulp_tests::process::Running;
use ulp_tests::tools::{run, ulp_apply};

/// (Threads, applies, seconds busy.)
fn size() -> (usize, usize, u64) {
    if std::env::var_os("ULP_LONG").is_some() { (1000, 100, 20) } else { (200, 10, 3) }
}

/// What the threads of one kind with one timeout have seen.
struct Row {
    kind: String,
    class: String,
    ms: u64,
    eintr: u64,
    early: u64,
    timeouts: u64,
    other: u64,
    late: u64,
    latest: u64,
}

fn report(target: &mut Running) -> Result<Vec<Row>> {
    let report: Value = serde_json::from_str(&target.ask("report")?)?;
    let rows = report.as_array().context("a list of kinds")?;
    let row = |row: &Value| {
        let number = |key: &str| row[key].as_u64().with_context(|| format!("{key} in {row}"));
        let text = |key: &str| row[key].as_str().map(str::to_string).with_context(|| format!("{key} in {row}"));
        Ok(Row {
            kind: text("kind")?,
            class: text("class")?,
            ms: number("ms")?,
            eintr: number("eintr")?,
            early: number("early")?,
            timeouts: number("timeouts")?,
            other: number("other")?,
            late: number("late")?,
            latest: number("latest")?,
        })
    };
    rows.iter().map(row).collect()
}

/// Nothing may have been seen that no patcher may show. Prints how late waits were.
fn check(target: &mut Running, what: &str) -> Result<Vec<Row>> {
    let rows = report(target)?;
    let bad: Vec<String> = rows
        .iter()
        .filter(|row| row.eintr + row.early + row.other > 0)
        .map(|row| {
            let Row { kind, ms, eintr, early, other, .. } = row;
            format!("{kind} ({ms} ms): {eintr} EINTR, {early} early, {other} other")
        })
        .collect();
    ensure_that!(bad.is_empty(), "{what}: {}", bad.join("\n"));
    for class in ["kept", "cured"] {
        for ms in [500, 1000, 2000, 5000] {
            let rows = || rows.iter().filter(|row| row.class == class && row.ms == ms);
            println!(
                "{what}: {class} {ms} ms: {} waits ended, {} more than 20 % late, latest at {} permille",
                rows().map(|row| row.timeouts).sum::<u64>(),
                rows().map(|row| row.late).sum::<u64>(),
                rows().map(|row| row.latest).max().unwrap_or(0)
            );
        }
    }
    Ok(rows)
}

fn start(case: &Case) -> Result<Running> {
    let mut target = case.start()?;
    target.ask(&format!("start {}", size().0))?;
    Ok(target)
}

fn apply(case: &Case, target: &Running, wait: &str) -> Result<String> {
    let ran =
        run(ulp_apply()?.arg(case.package()).args(["--json", "--wait", wait, "--pid"]).arg(target.pid().to_string()))?;
    ran.expect_code(0)?;
    Ok(ran.stdout)
}

fn revert(target: &Running) -> Result<()> {
    run(ulp_apply()?.args(["revert", "fix", "--wait", "20s", "--pid"]).arg(target.pid().to_string()))?
        .expect_code(0)
        .map(|_| ())
}

#[test]
fn nothing_is_seen_of_applies() -> Result<()> {
    let case = Case::life("waits")?;
    case.build_package()?;
    let mut target = start(&case)?;
    for _ in 0..size().1 {
        apply(&case, &target, "20s")?;
        ensure_that!(target.ask("0")? == "2", "not patched");
        revert(&target)?;
        ensure_that!(target.ask("0")? == "1", "not as it was");
        std::thread::sleep(Duration::from_millis(200));
    }
    // The longest wait may have begun anew at the last stop.
    std::thread::sleep(Duration::from_secs(6));
    let rows = check(&mut target, "applies")?;
    for row in rows.iter().filter(|row| row.ms > 0) {
        ensure_that!(row.timeouts > 0, "{} of {} ms has never ended", row.kind, row.ms);
    }
    target.check_alive()
}

#[test]
fn nothing_is_seen_of_a_busy_apply() -> Result<()> {
    let case = Case::life("waits")?;
    case.build_package()?;
    let mut target = start(&case)?;
    let busy = Duration::from_secs(size().2);
    target.ask(&format!("inside {}", busy.as_millis()))?;
    let began = Instant::now();
    apply(&case, &target, "60s")?;
    ensure_that!(began.elapsed() >= busy / 2, "the apply was not busy: {:?}", began.elapsed());
    ensure_that!(target.ask("0")? == "2", "not patched");
    std::thread::sleep(Duration::from_secs(11));
    let rows = check(&mut target, "busy")?;
    for row in rows.iter().filter(|row| row.ms > 0) {
        ensure_that!(row.timeouts > 0, "{} of {} ms has never ended", row.kind, row.ms);
    }
    target.check_alive()
}

/// Signals arrive in the stops too: each ends its wait with EINTR, once.
#[test]
fn a_signal_still_interrupts() -> Result<()> {
    let case = Case::life("waits")?;
    case.build_package()?;
    let mut target = start(&case)?;
    target.ask("storm")?;
    for _ in 0..size().1 {
        apply(&case, &target, "20s")?;
        revert(&target)?;
    }
    let answer = target.ask("calm")?;
    println!("sent, handled, interrupted; alarms, interrupted: {answer}");
    let counts: Vec<u64> = answer.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [sent, handled, interrupted, alarms, alarmed] = counts.as_slice() else {
        anyhow::bail!("five counts: {answer}")
    };
    ensure_that!(
        *sent > 100 && sent == handled && sent == interrupted,
        "a signal without its EINTR, or the other way: {answer}"
    );
    ensure_that!(*alarms > 100 && alarms == alarmed, "a timer signal without its EINTR, or the other way: {answer}");
    check(&mut target, "signals")?;
    target.check_alive()
}
