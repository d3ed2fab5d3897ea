// SPDX-License-Identifier: GPL-2.0-or-later
//! The program's own unwinder and patches: exceptions that are thrown all the time while patches come and go, the helper
//! that shows it their frames, and the death of ulp-apply at each step.

use anyhow::{Context, Result};
use std::path::Path;
use ulp_tests::case::{Case, Picture};
use ulp_tests::ensure_that;
use ulp_tests::process::Running;
use ulp_tests::survivor::{changes_something, long, read_log};
use ulp_tests::tools::{Ran, run, ulp_apply, ulp_apply_in_steps};

fn apply(package: &Path, target: &Running) -> Result<Ran> {
    run(ulp_apply()?.arg(package).args(["--pid", &target.pid().to_string()]))
}

fn revert(name: &str, target: &Running) -> Result<Ran> {
    run(ulp_apply()?.args(["revert", name, "--pid", &target.pid().to_string()]))
}

/// The names of all records in the process.
fn names(target: &Running) -> Result<Vec<String>> {
    let ran = run(ulp_apply()?.args(["list", "--json", "--pid", &target.pid().to_string()]))?;
    let json = ran.json()?;
    let patches = json["processes"][0]["patches"].as_array().cloned().unwrap_or_default();
    ensure_that!(patches.iter().all(|p| p["intact"] == true), "{}", ran.report());
    Ok(patches.iter().filter_map(|p| p["name"].as_str().map(str::to_owned)).collect())
}

fn answers(target: &mut Running, question: &str, wanted: &str) -> Result<()> {
    let answer = target.ask(question)?;
    ensure_that!(answer == wanted, "{question:?} was answered {answer:?}, not {wanted:?}");
    target.check_alive()
}

const WELL: &str = "0 wrong, moving, 1 frames";

#[test]
fn exceptions_are_thrown_while_patches_come_and_go() -> Result<()> {
    let case = Case::life("throwing")?;
    let middle = case.build_package()?;
    let outer = case.package_of("outer", "return 200;", "return 201;")?;
    let mut target = case.start()?;
    answers(&mut target, "start", "started")?;
    let old = Picture::take(&target, &case.production)?;
    for round in 0..if long() { 1000 } else { 20 } {
        apply(&middle, &target)?.expect_code(0).with_context(|| format!("round {round}"))?;
        answers(&mut target, "versions", "101 200 300")?;
        apply(&outer, &target)?.expect_code(0)?;
        answers(&mut target, "versions", "101 201 300")?;
        let mut all = names(&target)?;
        all.sort();
        ensure_that!(all == ["fix", "outer", "ulp-unwind"], "{all:?}");
        revert("fix", &target)?.expect_code(0)?;
        answers(&mut target, "versions", "100 201 300")?;
        revert("outer", &target)?.expect_code(0)?;
        answers(&mut target, "versions", "100 200 300")?;
        answers(&mut target, "?", WELL)?;
    }
    // Memory in which an exception was on its way may be kept; what leads to it is not.
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    Ok(())
}

#[test]
fn the_helper_stays_as_long_as_it_is_needed() -> Result<()> {
    let case = Case::life("throwing")?;
    let middle = case.build_package()?;
    let mut target = case.start()?;
    let (old, maps) = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    let pid = target.pid().to_string();
    // A dry run changes nothing, not even that.
    run(ulp_apply()?.arg(&middle).args(["--dry-run", "--pid", &pid]))?.expect_code(0)?;
    ensure_that!(maps == target.lasting_maps()?, "a dry run left something");
    apply(&middle, &target)?.expect_code(0)?;
    let refused = revert("ulp-unwind", &target)?;
    ensure_that!(refused.expect_code(5)?.stderr.contains("fix requires ulp-unwind"), "{}", refused.report());
    answers(&mut target, "versions", "101 200 300")?;
    run(ulp_apply()?.args(["verify", "--pid", &pid]))?.expect_code(0)?;
    revert("fix", &target)?.expect_code(0)?;
    answers(&mut target, "versions", "100 200 300")?;
    ensure_that!(names(&target)?.is_empty(), "{:?} is left", names(&target)?);
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    ensure_that!(maps == target.lasting_maps()?, "the memory is not as it was");
    Ok(())
}

#[test]
fn killed_at_every_step_while_exceptions_are_thrown() -> Result<()> {
    let case = Case::life("throwing")?;
    let edits = [("return 100;", "return 101;"), ("return 200;", "return 201;")];
    let both = case.package_with("both", &edits, &[])?;
    let log = case.work().join("steps.log");
    let mut target = case.start()?;
    answers(&mut target, "start", "started")?;
    let in_steps = |target: &Running, words: &[&str], kill: Option<usize>| -> Result<(Ran, Vec<String>)> {
        let _ = std::fs::remove_file(&log);
        let mut command = ulp_apply_in_steps()?;
        command.args(words).args(["--pid", &target.pid().to_string(), "--wait", "20s"]).env("ULP_STEP_LOG", &log);
        command.envs(kill.map(|n| ("ULP_STEP_KILL", n.to_string())));
        Ok((run(&mut command)?, read_log(&log)?))
    };
    let package = both.to_str().context("a path")?;
    let (mut tried, mut hits) = (0, 0);
    for words in [["apply", package], ["revert", "both"]] {
        if words[0] == "revert" {
            apply(&both, &target)?.expect_code(0)?;
        }
        let steps = in_steps(&target, &words, None)?.1;
        revert("both", &target)?.expect_code(0)?;
        let wanted = |(i, step): &(usize, &String)| long() || (changes_something(step) && i % 7 == 0) || i % 97 == 0;
        for (i, step) in steps.iter().enumerate().filter(wanted) {
            let when = || format!("{} killed after step {}, {step}", words[0], i + 1);
            if words[0] == "revert" {
                apply(&both, &target)?.expect_code(0).with_context(when)?;
            }
            let (ran, _) = in_steps(&target, &words, Some(i + 1))?;
            hits += usize::from(ran.code.is_none());
            tried += 1;
            let versions = target.ask("versions").with_context(when)?;
            ensure_that!(["100 200 300", "101 201 300"].contains(&&versions[..]), "{}: {versions}", when());
            answers(&mut target, "?", WELL).with_context(when)?;
            apply(&both, &target)?.expect_code(0).with_context(when)?;
            answers(&mut target, "versions", "101 201 300").with_context(when)?;
            revert("both", &target)?.expect_code(0).with_context(when)?;
            answers(&mut target, "versions", "100 200 300").with_context(when)?;
            answers(&mut target, "?", WELL).with_context(when)?;
        }
    }
    println!("{tried} tried, {hits} killed");
    ensure_that!(hits > 15, "too few were killed: {hits} of {tried}");
    Ok(())
}
