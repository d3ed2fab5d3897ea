// SPDX-License-Identifier: GPL-2.0-or-later
//! Several patches in one process: on different functions, upon each other, and one in place of others in one stop.

use anyhow::{Context, Result};
use std::path::Path;
use ulp_tests::case::{Case, Picture};
use ulp_tests::ensure_that;
use ulp_tests::process::Running;
use ulp_tests::survivor::{changes_something, long, read_log};
use ulp_tests::tools::{Ran, run, ulp_apply, ulp_apply_in_steps};

const OLD: &str = "1 2 3";

fn apply(package: &Path, target: &Running) -> Result<Ran> {
    run(ulp_apply()?.arg(package).args(["--pid", &target.pid().to_string()]))
}

fn verb(words: &[&str], target: &Running) -> Result<Ran> {
    run(ulp_apply()?.args(words).args(["--pid", &target.pid().to_string()]))
}

fn answers(target: &mut Running, wanted: &str) -> Result<()> {
    let answer = target.ask("0")?;
    ensure_that!(answer == wanted, "answered {answer:?}, not {wanted:?}");
    target.check_alive()
}

/// `list` shows these patches, each whole.
fn listed(target: &Running, wanted: &[&str]) -> Result<()> {
    let ran = verb(&["list", "--json"], target)?;
    let json = ran.json()?;
    let patches = json["processes"][0]["patches"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = patches.iter().filter_map(|p| p["name"].as_str()).collect();
    let whole = patches.iter().all(|p| p["intact"] == true && p["state"] == "applied");
    ensure_that!(names == wanted && whole, "{wanted:?} are not all there and whole\n{}", ran.report());
    Ok(())
}

#[test]
fn different_functions_are_reverted_in_any_order() -> Result<()> {
    let case = Case::life("stacked")?;
    let packages = [
        case.package_of("one", "n + 1;", "n + 11;")?,
        case.package_of("two", "n + 2;", "n + 12;")?,
        case.package_of("three", "n + 3;", "n + 13;")?,
    ];
    let mut target = case.start()?;
    let (old, maps) = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for package in &packages {
            apply(package, &target)?.expect_code(0)?;
        }
        listed(&target, &["one", "two", "three"])?;
        let mut numbers = [11, 12, 13];
        answers(&mut target, "11 12 13")?;
        for which in order {
            verb(&["revert", ["one", "two", "three"][which]], &target)?.expect_code(0)?;
            numbers[which] -= 10;
            answers(&mut target, &numbers.map(|n| n.to_string()).join(" "))?;
        }
        ensure_that!(old == Picture::take(&target, &case.production)?, "{order:?}: the code is not as it was");
        ensure_that!(maps == target.lasting_maps()?, "{order:?}: the memory is not as it was");
    }
    Ok(())
}

const ONE: [(&str, &str); 2] = [("n + 1;", "n + 11;"), ("n + 2;", "n + 12;")];
const TWO: [(&str, &str); 3] = [("n + 1;", "n + 21;"), ("n + 2;", "n + 22;"), ("n + 3;", "n + 23;")];

#[test]
fn one_patch_upon_another() -> Result<()> {
    let case = Case::life("stacked")?;
    let one = case.package_with("one", &ONE, &[])?;
    let stranger = case.package_with("stranger", &TWO, &[])?;
    let two = case.package_with("two", &TWO, &["--requires", "one"])?;
    let three = case.package_with("three", &[("n + 1;", "n + 31;")], &["--requires", "two", "--requires", "one"])?;
    let mut target = case.start()?;
    let (old, maps) = (Picture::take(&target, &case.production)?, target.lasting_maps()?);

    let early = apply(&two, &target)?;
    ensure_that!(early.expect_code(5)?.stderr.contains("requires one"), "{}", early.report());
    apply(&one, &target)?.expect_code(0)?;
    let refused = apply(&stranger, &target)?;
    ensure_that!(refused.expect_code(5)?.stderr.contains("--replaces one"), "{}", refused.report());
    answers(&mut target, "11 12 3")?;

    for _ in 0..3 {
        apply(&two, &target)?.expect_code(0)?;
        answers(&mut target, "21 22 23")?;
        apply(&three, &target)?.expect_code(0)?;
        answers(&mut target, "31 22 23")?;
        listed(&target, &["one", "two", "three"])?;
        verb(&["verify"], &target)?.expect_code(0)?;
        apply(&one, &target)?.expect_code(0)?;
        for (below, above) in [("one", "two requires one"), ("two", "three requires two")] {
            let refused = verb(&["revert", below], &target)?;
            ensure_that!(refused.expect_code(5)?.stderr.contains(above), "{}", refused.report());
        }
        verb(&["revert", "three"], &target)?.expect_code(0)?;
        answers(&mut target, "21 22 23")?;
        verb(&["revert", "two"], &target)?.expect_code(0)?;
        answers(&mut target, "11 12 3")?;
        listed(&target, &["one"])?;
    }
    verb(&["revert", "one"], &target)?.expect_code(0)?;
    answers(&mut target, OLD)?;
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    ensure_that!(maps == target.lasting_maps()?, "the memory is not as it was");
    Ok(())
}

#[test]
fn one_patch_in_place_of_others() -> Result<()> {
    let case = Case::life("stacked")?;
    let one = case.package_of("one", "n + 1;", "n + 11;")?;
    let two = case.package_of("two", "n + 3;", "n + 13;")?;
    let all = case.package_with("all", &TWO, &["--replaces", "one", "--replaces", "two"])?;
    let less = case.package_with("less", &[("n + 2;", "n + 42;")], &["--replaces", "all"])?;
    let mut target = case.start()?;
    let (old, maps) = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    for _ in 0..3 {
        apply(&one, &target)?.expect_code(0)?;
        apply(&two, &target)?.expect_code(0)?;
        answers(&mut target, "11 2 13")?;
        let done = apply(&all, &target)?;
        ensure_that!(done.expect_code(0)?.stdout.contains("in place of one, two"), "{}", done.report());
        ensure_that!(!done.stderr.contains("original again"), "{}", done.report());
        answers(&mut target, "21 22 23")?;
        listed(&target, &["all"])?;
        // What the new patch does not change any more is said.
        let done = apply(&less, &target)?;
        ensure_that!(done.expect_code(0)?.stderr.contains("first, third: original again"), "{}", done.report());
        answers(&mut target, "1 42 3")?;
        verb(&["revert", "less"], &target)?.expect_code(0)?;
        answers(&mut target, OLD)?;
        // Where nothing is to be replaced it is an ordinary patch.
        apply(&all, &target)?.expect_code(0)?;
        answers(&mut target, "21 22 23")?;
        verb(&["revert", "all"], &target)?.expect_code(0)?;
        ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
        ensure_that!(maps == target.lasting_maps()?, "the memory is not as it was");
    }
    Ok(())
}

#[test]
fn everything_is_reverted() -> Result<()> {
    let case = Case::life("stacked")?;
    let one = case.package_with("one", &ONE, &[])?;
    let two = case.package_with("two", &TWO, &["--requires", "one"])?;
    let mut target = case.start()?;
    let (old, maps) = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    apply(&one, &target)?.expect_code(0)?;
    apply(&two, &target)?.expect_code(0)?;
    answers(&mut target, "21 22 23")?;
    let done = verb(&["revert", "--everything"], &target)?;
    let lines: Vec<&str> = done.expect_code(0)?.stdout.lines().collect();
    ensure_that!(lines.len() == 2 && lines[0].starts_with("two: reverted"), "{}", done.report());
    answers(&mut target, OLD)?;
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    ensure_that!(maps == target.lasting_maps()?, "the memory is not as it was");
    // With nothing there it is done already.
    verb(&["revert", "--everything"], &target)?.expect_code(0)?;
    Ok(())
}

/// Kills ulp-apply after each step that changes something (`ULP_LONG=1`: after each). Whatever happens the answer is one
/// of `allowed`, the next ulp-apply tidies up to one of them, and then all can be applied and reverted.
fn killed(case: &Case, packages: &[&Path], last: &Path, names: &[&str], allowed: &[&str]) -> Result<()> {
    let log = case.work().join("steps.log");
    let open = || -> Result<Running> {
        let target = case.start()?;
        for package in packages {
            apply(package, &target)?.expect_code(0)?;
        }
        Ok(target)
    };
    let in_steps = |target: &Running, kill: Option<usize>| -> Result<(Ran, Vec<String>)> {
        let _ = std::fs::remove_file(&log);
        let mut command = ulp_apply_in_steps()?;
        command.arg(last).args(["--pid", &target.pid().to_string(), "--wait", "10s"]).env("ULP_STEP_LOG", &log);
        command.envs(kill.map(|n| ("ULP_STEP_KILL", n.to_string())));
        Ok((run(&mut command)?, read_log(&log)?))
    };
    let steps = in_steps(&open()?, None)?.1;
    let wanted = |(i, step): &(usize, &String)| long() || changes_something(step) || i % 20 == 0;
    let (mut hits, mut seen) = (0, std::collections::BTreeMap::<String, usize>::new());
    for (i, step) in steps.iter().enumerate().filter(wanted) {
        let when = || format!("killed after step {}, {step}", i + 1);
        let mut target = open()?;
        let (ran, _) = in_steps(&target, Some(i + 1))?;
        hits += usize::from(ran.code.is_none());
        let after_death = target.ask("0").with_context(when)?;
        ensure_that!(allowed.contains(&&after_death[..]), "{}: {after_death}", when());
        *seen.entry(after_death).or_default() += 1;
        verb(&["list"], &target)?.expect_code(0).with_context(when)?;
        let tidied = target.ask("0").with_context(when)?;
        ensure_that!(allowed.contains(&&tidied[..]), "{}: tidied to {tidied}", when());
        for name in names {
            verb(&["revert", name], &target)?.expect_code(0).with_context(when)?;
        }
        answers(&mut target, OLD).with_context(when)?;
        for package in packages.iter().chain([&last]) {
            apply(package, &target)?.expect_code(0).with_context(when)?;
        }
        for name in names {
            verb(&["revert", name], &target)?.expect_code(0).with_context(when)?;
        }
        answers(&mut target, OLD).with_context(when)?;
    }
    println!("{} steps, {hits} killed, answers after the death: {seen:?}", steps.len());
    ensure_that!(hits > 20 && seen.len() > 1, "too few were killed: {hits}, {seen:?}");
    Ok(())
}

#[test]
fn killed_while_one_replaces_another() -> Result<()> {
    let case = Case::life("stacked")?;
    let one = case.package_with("one", &ONE, &[])?;
    let all = case.package_with("all", &TWO, &["--replaces", "one"])?;
    // In between everything may be the original, and nothing ever a mixture.
    killed(&case, &[&one], &all, &["all", "one"], &["11 12 3", OLD, "21 22 23"])
}

#[test]
fn killed_while_one_is_put_upon_another() -> Result<()> {
    let case = Case::life("stacked")?;
    let one = case.package_with("one", &ONE, &[])?;
    let two = case.package_with("two", &TWO, &["--requires", "one"])?;
    killed(&case, &[&one], &two, &["two", "one"], &["11 12 3", "21 22 23"])
}
