// SPDX-License-Identifier: GPL-2.0-or-later
//! What `ulp-build` promises beyond one good package: the same bytes every time, and no panic on a stranger's objects.

use anyhow::{Context, Result};
use std::process::Command;
use ulp_tests::case::Case;
use ulp_tests::ensure_that;
use ulp_tests::tools::{run, ulp_build};
use ulp_tests::trees::tool;

/// D98.
#[test]
fn same_bytes_for_any_number_of_threads() -> Result<()> {
    let case = Case::named("two-functions-in-one-fix")?;
    let mut packages = Vec::new();
    for (index, jobs) in ["1", "2", "7"].iter().enumerate() {
        let dir = case.work().join(index.to_string());
        std::fs::create_dir(&dir)?;
        let out = dir.join("fix.ulp");
        let mut command = ulp_build()?;
        command.arg("--orig").arg(&case.trees.before).arg("--fix").arg(&case.trees.after);
        command.arg("--target").arg(&case.production.program).args(["-j", jobs]);
        run(command.arg("-o").arg(&out))?.expect_code(0)?;
        packages.push(std::fs::read(&out)?);
    }
    ensure_that!(packages.windows(2).all(|pair| pair[0] == pair[1]), "packages differ from run to run");
    Ok(())
}

/// A second patch with a kept work directory is the same as one made afresh.
#[test]
fn kept_work_directory_gives_the_same_package() -> Result<()> {
    let case = Case::life("two-functions")?;
    let fresh = std::fs::read(case.build_package()?)?;
    let work = case.work().join("work");
    for round in ["first", "second"] {
        let dir = case.work().join(round);
        std::fs::create_dir(&dir)?;
        let out = dir.join("fix.ulp");
        let mut command = ulp_build()?;
        command.arg("--orig").arg(&case.trees.before).arg("--fix").arg(&case.trees.after);
        command.arg("--target").arg(&case.production.program).arg("--work").arg(&work);
        run(command.arg("-o").arg(&out))?.expect_code(0)?;
        ensure_that!(std::fs::read(&out)? == fresh, "the {round} package with --work differs");
    }
    Ok(())
}

/// `--explain` shows the first difference with both disassemblies, and says how an address was found.
#[test]
fn explains_what_is_not_proved() -> Result<()> {
    let explain = |name: &str, code: i32| -> Result<String> {
        let case = Case::named(name)?;
        let mut command = ulp_build()?;
        command.arg("--orig").arg(&case.trees.before).arg("--fix").arg(&case.trees.after).args(["--explain", "capped"]);
        command.arg("--target").arg(&case.production.program).arg("-o").arg(case.package());
        Ok(run(&mut command)?.expect_code(code)?.stderr.clone())
    };
    let refused = explain("linked-with-other-function-refused", 5)?;
    for text in ["capped of main.c", "recompiled as it was linked", "not proved in", "built here", "$0x32", "$0x34"] {
        ensure_that!(refused.contains(text), "{text:?} is not in\n{refused}");
    }
    let proved = explain("linked-in-other-order", 0)?;
    ensure_that!(proved.contains("proved in") && proved.contains("found by its content"), "{proved}");
    Ok(())
}

/// D95: every kind of damage is an error of its own, never a panic or a verdict about something that was not read.
#[test]
fn damaged_objects_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (good, bad) = (dir.path().join("good.o"), dir.path().join("bad.o"));
    std::fs::write(
        dir.path().join("a.c"),
        "int x; int f(int n) { return x + n; }\nint g(int n) { return f(n) * 2; }\n",
    )?;
    let mut gcc = Command::new("gcc");
    tool(gcc.current_dir(dir.path()).args(["-O2", "-g", "-ffunction-sections", "-c", "a.c", "-o", "good.o"]))?;
    let bytes = std::fs::read(&good)?;
    let diff = || run(ulp_build()?.arg("diff").arg(&good).arg(&bad).arg("--json"));

    std::fs::write(&bad, &bytes)?;
    let same = diff()?;
    let verdict = same.json()?.get("verdict").and_then(|v| v.as_str().map(str::to_string));
    ensure_that!(verdict.as_deref() == Some("same"), "an object differs from itself\n{}", same.report());

    for length in (0..bytes.len()).step_by((bytes.len() / 25).max(1)) {
        std::fs::write(&bad, bytes.get(..length).context("a prefix")?)?;
        let ran = diff()?;
        ran.expect_code(5).with_context(|| format!("truncated to {length} of {}", bytes.len()))?;
        ensure_that!(ran.stdout.contains("E-BAD-ELF"), "{}", ran.report());
    }
    for at in (0..bytes.len()).step_by((bytes.len() / 60).max(1)) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x41;
        std::fs::write(&bad, flipped)?;
        let ran = diff()?;
        // A flip may change code and nothing else, which is a change; a panic would be 101 or a signal.
        ensure_that!(matches!(ran.code, Some(0 | 1 | 3 | 5)), "byte {at} flipped\n{}", ran.report());
        ensure_that!(!ran.stderr.contains("panicked"), "byte {at} flipped\n{}", ran.report());
    }
    Ok(())
}
