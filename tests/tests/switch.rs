// SPDX-License-Identifier: GPL-2.0-or-later
//! Several functions switch as one. A ring of them, spread over three files, checks itself all the while.

use anyhow::Result;
use ulp_tests::case::{Case, Picture};
use ulp_tests::ensure_that;
use ulp_tests::tools::{run, ulp_apply};

/// Cycles of apply and revert; ULP_LONG asks for many.
fn cycles() -> u32 {
    if std::env::var_os("ULP_LONG").is_some() { 2000 } else { 50 }
}

#[test]
fn sixteen_functions_in_three_files_are_never_mixed() -> Result<()> {
    let case = Case::life("ring")?;
    let package = case.build_package()?;
    let info = run(ulp_apply()?.arg("info").arg(&package))?;
    ensure_that!(info.expect_code(0)?.stdout.contains("through gates"), "no gates\n{}", info.report());
    let mut target = case.start()?;
    let pid = target.pid().to_string();
    let mut answer = target.ask("start")?;
    ensure_that!(answer == "mixtures 0 version 1", "before: {answer}");
    let (old, old_maps) = (Picture::take(&target, &case.production)?, target.lasting_maps()?);
    for _ in 0..cycles() {
        run(ulp_apply()?.arg(&package).args(["--wait", "20s", "--pid", &pid]))?.expect_code(0)?;
        answer = target.ask("check")?;
        ensure_that!(answer == "mixtures 0 version 2", "applied: {answer}");
        run(ulp_apply()?.args(["revert", "fix", "--wait", "20s", "--pid", &pid]))?.expect_code(0)?;
        answer = target.ask("check")?;
        ensure_that!(answer == "mixtures 0 version 1", "reverted: {answer}");
    }
    ensure_that!(old == Picture::take(&target, &case.production)?, "the code is not as it was");
    ensure_that!(old_maps == target.lasting_maps()?, "the mappings are not as they were");
    target.check_alive()?;
    println!("{{\"test\":\"sixteen-functions\",\"cycles\":{},\"mixtures\":0}}", cycles());
    Ok(())
}

/// A package for three files, in a process that has loaded two of them so far: it is all or nothing.
#[test]
fn several_files_of_which_one_is_missing() -> Result<()> {
    let case = Case::life("ring")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    let pid = target.pid().to_string();
    let maps = target.lasting_maps()?;
    let refused = run(ulp_apply()?.arg(&package).args(["--wait", "20s", "--pid", &pid]))?;
    ensure_that!(refused.expect_code(5)?.stderr.contains("libplugin.so"), "{}", refused.report());
    ensure_that!(maps == target.lasting_maps()?, "refused, and yet memory is left");
    let answer = target.ask("start")?;
    ensure_that!(answer == "mixtures 0 version 1", "refused: {answer}");
    run(ulp_apply()?.arg(&package).args(["--wait", "20s", "--pid", &pid]))?.expect_code(0)?;
    let answer = target.ask("check")?;
    ensure_that!(answer == "mixtures 0 version 2", "applied: {answer}");
    target.check_alive()
}
