// SPDX-License-Identifier: GPL-2.0-or-later
//! What happens to a patched process in its life: patched twice, by two patches, forked, its file gone.

use anyhow::{Context, Result};
use std::path::Path;
use ulp_tests::case::{Case, Picture, listed};
use ulp_tests::ensure_that;
use ulp_tests::process::Running;
use ulp_tests::survivor::long;
use ulp_tests::tools::{Ran, run, ulp_apply};

fn apply(package: &Path, target: &Running, more: &[&str]) -> Result<Ran> {
    run(ulp_apply()?.arg(package).args(["--wait", "20s", "--pid"]).arg(target.pid().to_string()).args(more))
}

fn revert(name: &str, target: &Running) -> Result<Ran> {
    run(ulp_apply()?.args(["revert", name, "--wait", "20s", "--pid"]).arg(target.pid().to_string()))
}

fn answers(target: &mut Running, question: &str, wanted: &str) -> Result<()> {
    let answer = target.ask(question)?;
    ensure_that!(answer == wanted, "{question:?} was answered {answer:?}, not {wanted:?}");
    target.check_alive()
}

#[test]
fn applied_twice_is_already_so() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    let first = apply(&package, &target, &[])?;
    // Its entry has no landing pad: a probe set on it later would break the jump.
    ensure_that!(first.expect_code(0)?.stderr.contains("do not set a uprobe"), "no warning\n{}", first.report());
    let once = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    let again = apply(&package, &target, &[])?;
    again.expect_code(0)?;
    ensure_that!(
        once == (Picture::take(&target, &case.production)?, target.lasting_maps()?),
        "the second apply changed the process\n{}",
        again.report()
    );
    answers(&mut target, "5", "105 7")
}

#[test]
fn two_patches_on_different_functions() -> Result<()> {
    let case = Case::life("two-functions")?;
    let (one, two) = (case.package_of("one", "n + 1;", "n + 100;")?, case.package_of("two", "n + 2;", "n + 200;")?);
    let mut target = case.start()?;
    let old = Picture::take(&target, &case.production)?;
    apply(&one, &target, &[])?.expect_code(0)?;
    answers(&mut target, "5", "105 7")?;
    apply(&two, &target, &[])?.expect_code(0)?;
    answers(&mut target, "5", "105 205")?;
    // The first comes out and the second stays, in whatever order they went in.
    revert("one", &target)?.expect_code(0)?;
    answers(&mut target, "5", "6 205")?;
    apply(&one, &target, &[])?.expect_code(0)?;
    revert("two", &target)?.expect_code(0)?;
    answers(&mut target, "5", "105 7")?;
    revert("one", &target)?.expect_code(0)?;
    answers(&mut target, "5", "6 7")?;
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    Ok(())
}

#[test]
fn fork_after_apply() -> Result<()> {
    let case = Case::life("forking")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    apply(&package, &target, &[])?.expect_code(0)?;
    let child = target.ask("fork")?;
    answers(&mut target, "child 5", "20")?;
    // The registry lies in memory, so that the child has it too.
    let list = run(ulp_apply()?.args(["list", "--json", "--pid", &child]))?;
    list.expect_code(0)?.json()?;
    ensure_that!(list.stdout.contains("\"fix\""), "the child's list does not show the patch\n{}", list.report());
    run(ulp_apply()?.args(["revert", "fix", "--wait", "20s", "--pid", &child]))?.expect_code(0)?;
    answers(&mut target, "child 5", "15")?;
    answers(&mut target, "5", "20")?;
    revert("fix", &target)?.expect_code(0)?;
    answers(&mut target, "5", "15")
}

#[test]
fn parent_and_child_are_reverted_each_by_itself() -> Result<()> {
    let case = Case::life("forking")?;
    let package = case.build_package()?;
    for parent_first in [true, false] {
        let mut target = case.start()?;
        let old = Picture::take(&target, &case.production)?;
        apply(&package, &target, &[])?.expect_code(0)?;
        let child = target.ask("fork")?;
        for parent in [parent_first, !parent_first] {
            let pid = if parent { target.pid().to_string() } else { child.clone() };
            run(ulp_apply()?.args(["revert", "fix", "--wait", "20s", "--pid", &pid]))?.expect_code(0)?;
            // Who is reverted first changes nothing for the other.
            let both = parent != parent_first;
            answers(&mut target, "5", if both || parent { "15" } else { "20" })?;
            answers(&mut target, "child 5", if both || !parent { "15" } else { "20" })?;
        }
        ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
        // The child can be patched again, and its parent stays.
        run(ulp_apply()?.arg(&package).args(["--wait", "20s", "--pid", &child]))?.expect_code(0)?;
        answers(&mut target, "child 5", "20")?;
        answers(&mut target, "5", "15")?;
    }
    Ok(())
}

/// `--all` while workers are forked and ended every few milliseconds.
#[test]
fn workers_are_forked_while_all_are_patched() -> Result<()> {
    let case = Case::life("nursery")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    let ages = |answer: &str| -> Result<(String, u64)> {
        let (ages, born) = answer.trim_end_matches(" born").rsplit_once(' ').context("an answer")?;
        Ok((ages.to_owned(), born.parse()?))
    };
    let (before, mut born) = ages(&target.ask("start 3000")?)?;
    ensure_that!(before == "13 old 0 new", "before: {before}");
    for _ in 0..5 {
        for verb in ["apply", "revert"] {
            let ran = run(ulp_apply()?.arg(verb).arg(&package).args(["--all", "--wait", "20s"]))?;
            ran.expect_code(0)?;
            let (now, born_now) = ages(&target.ask("check")?)?;
            let wanted = if verb == "apply" { "0 old 13 new" } else { "13 old 0 new" };
            ensure_that!(now == wanted, "{verb}: {now}, not {wanted}\n{}", ran.report());
            ensure_that!(born_now > born, "nobody was born meanwhile");
            born = born_now;
        }
    }
    target.check_alive()
}

/// What new code writes into a new variable is read by other new code only, and old code never sees what new code left.
#[test]
fn functions_and_their_data_switch_together() -> Result<()> {
    let case = Case::life("contract")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    answers(&mut target, "start", "mixtures 0 versions 1 1 1 1")?;
    let (old, maps) = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    let mut kept = None;
    for _ in 0..if long() { 2000 } else { 50 } {
        apply(&package, &target, &[])?.expect_code(0)?;
        answers(&mut target, "check", "mixtures 0 versions 2 2 2 2")?;
        revert("fix", &target)?.expect_code(0)?;
        answers(&mut target, "check", "mixtures 0 versions 1 1 1 1")?;
        // The variable may have been made known to others, so its memory is kept, and is the same each time.
        let now = target.lasting_maps()?;
        ensure_that!(*kept.get_or_insert_with(|| now.clone()) == now, "the kept memory is another one: {now:x?}");
    }
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    let pid = target.pid().to_string();
    run(ulp_apply()?.args(["revert", "fix", "--purge", "--max-stop", "5s", "--pid", &pid]))?.expect_code(0)?;
    ensure_that!(maps == target.lasting_maps()?, "the memory is not as it was");
    answers(&mut target, "check", "mixtures 0 versions 1 1 1 1")
}

/// A thread sleeps in new code, so its memory must stay: busy, with the function's name, and all is as it was before the revert.
#[test]
fn revert_while_a_thread_sleeps_in_new_code() -> Result<()> {
    let case = Case::named("thread-asleep-inside-function")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    answers(&mut target, "now", "0")?;
    let old = Picture::take(&target, &case.production)?;
    apply(&package, &target, &[])?.expect_code(0)?;
    answers(&mut target, "sleep", "asleep")?;
    let (new, new_maps) = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    for what in ["fix", "--everything"] {
        let busy = run(ulp_apply()?.args(["revert", what, "--wait", "300ms", "--pid"]).arg(target.pid().to_string()))?;
        ensure_that!(busy.expect_code(4)?.stderr.contains("wait_here"), "nobody is named\n{}", busy.report());
        ensure_that!(new == Picture::take(&target, &case.production)?, "busy, and yet code has changed");
        ensure_that!(new_maps == target.lasting_maps()?, "busy, and yet memory has changed");
        answers(&mut target, "now", "7")?;
        run(ulp_apply()?.args(["verify", "--pid"]).arg(target.pid().to_string()))?.expect_code(0)?;
    }
    // Who waits gets it as soon as the thread leaves, which it does in the new code.
    let mut command = ulp_apply()?;
    command.args(["revert", "fix", "--wait", "20s", "--pid"]).arg(target.pid().to_string());
    let waiting = std::thread::spawn(move || run(&mut command));
    std::thread::sleep(std::time::Duration::from_millis(300));
    ensure_that!(!waiting.is_finished(), "the revert did not wait");
    answers(&mut target, "wake", "awake")?;
    waiting.join().expect("the thread does not panic")?.expect_code(0)?;
    answers(&mut target, "now", "0")?;
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    // The thread's stack came in between, and stays with the C library.
    let gone: Vec<_> = new_maps.difference(&target.lasting_maps()?).cloned().collect();
    ensure_that!(gone.iter().any(|m| m.rights.contains('x')), "the new code stays mapped; gone is {gone:x?}");
    Ok(())
}

#[test]
fn binary_deleted_on_disk() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    std::fs::remove_file(&case.production.program)?;
    apply(&package, &target, &[])?.expect_code(0)?;
    answers(&mut target, "5", "105 7")?;
    ensure_that!(listed(&target)?, "list does not show the patch");
    revert("fix", &target)?.expect_code(0)?;
    answers(&mut target, "5", "6 7")
}

#[test]
fn all_processes_of_the_binary_and_no_other() -> Result<()> {
    let (case, other) = (Case::life("two-functions")?, Case::life("forking")?);
    let package = case.package_of("everywhere", "n + 1;", "n + 100;")?;
    // It carries another patch of the same name, which a revert by file must leave alone.
    let same_name = other.package_of("everywhere", "n * 3;", "n * 5;")?;
    let (mut one, mut two, mut stranger) = (case.start()?, case.start()?, other.start()?);
    run(ulp_apply()?.arg(&package).args(["--all", "--wait", "20s"]))?.expect_code(0)?;
    answers(&mut one, "5", "105 7")?;
    answers(&mut two, "5", "105 7")?;
    answers(&mut stranger, "5", "15")?;
    apply(&same_name, &stranger, &[])?.expect_code(0)?;
    run(ulp_apply()?.arg("revert").arg(&package).args(["--all", "--wait", "20s"]))?.expect_code(0)?;
    answers(&mut one, "5", "6 7")?;
    answers(&mut two, "5", "6 7")?;
    answers(&mut stranger, "5", "25")
}

/// The second waits for the first; if it waits in vain it says busy, and nothing is half done.
#[test]
fn two_appliers_at_once() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    for _ in 0..10 {
        for verb in ["apply", "revert"] {
            let pid = target.pid().to_string();
            let both = std::thread::scope(|scope| {
                let one = || run(ulp_apply()?.arg(verb).arg(&package).args(["--pid", &pid]));
                let threads = [scope.spawn(one), scope.spawn(one)];
                threads.map(|thread| thread.join().expect("the thread does not panic"))
            });
            for ran in both {
                let ran = ran?;
                ensure_that!(matches!(ran.code, Some(0 | 4)), "neither done nor busy\n{}", ran.report());
            }
            answers(&mut target, "5", if verb == "apply" { "105 7" } else { "6 7" })?;
        }
    }
    Ok(())
}

#[test]
fn dry_run_changes_nothing() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    let old = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    let ran = apply(&package, &target, &["--dry-run"])?;
    ran.expect_code(0)?;
    ensure_that!(ran.stdout.contains("left"), "the plan does not name the function\n{}", ran.report());
    ensure_that!(old == (Picture::take(&target, &case.production)?, target.lasting_maps()?), "the process was changed");
    answers(&mut target, "5", "6 7")
}

/// `ULP_CYCLES` says how often, 1,000 times without it.
#[test]
fn applied_and_reverted_a_thousand_times() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    let old = Picture::take(&target, &case.production)?;
    let cycles = std::env::var("ULP_CYCLES").map_or(Ok(1000), |text| text.parse())?;
    let status = |target: &Running| -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", target.pid()))?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    let mut seen = Vec::new();
    for cycle in 0..cycles {
        apply(&package, &target, &[])?.expect_code(0).with_context(|| format!("cycle {cycle}"))?;
        answers(&mut target, "5", "105 7")?;
        revert("fix", &target)?.expect_code(0).with_context(|| format!("cycle {cycle}"))?;
        answers(&mut target, "5", "6 7")?;
        if cycle % 50 == 0 || cycle + 1 == cycles {
            seen.push((target.lasting_maps()?, status(&target)?));
        }
    }
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    let (first, last) = (seen.first().context("a cycle")?, seen.last().context("a cycle")?);
    ensure_that!(first.0 == last.0, "mappings grow with every cycle: {:x?}", last.0);
    ensure_that!(last.1 <= first.1 + 64, "memory grows with every cycle: {} KiB, then {} KiB", first.1, last.1);
    Ok(())
}
