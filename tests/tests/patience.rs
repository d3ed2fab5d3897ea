// SPDX-License-Identifier: GPL-2.0-or-later
//! System calls made in the process may take longer than a thread may be held. The thread that makes them is not held
//! meanwhile, and nothing that it needs may be taken from under it.

use anyhow::Result;
use ulp_tests::case::Case;
use ulp_tests::ensure_that;
use ulp_tests::tools::{run, ulp_apply};

#[test]
fn calls_that_take_long_harm_nobody() -> Result<()> {
    let case = Case::life("slow-kernel")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    let pid = target.pid().to_string();
    let answer = target.ask("start")?;
    ensure_that!(answer == "2", "the target could not get ready: {answer}");
    let cycles = if std::env::var_os("ULP_LONG").is_some() { 20 } else { 5 };
    let waiting = ["--wait", "120s", "--max-stop", "20ms", "--pid", &pid];
    for _ in 0..cycles {
        run(ulp_apply()?.arg(&package).args(waiting))?.expect_code(0)?;
        ensure_that!(target.ask("check")? == "101", "not patched");
        run(ulp_apply()?.args(["revert", "fix"]).args(waiting))?.expect_code(0)?;
        ensure_that!(target.ask("check")? == "2", "not reverted");
        target.check_alive()?;
    }
    Ok(())
}
