// SPDX-License-Identifier: GPL-2.0-or-later
//! Lists every case folder as a test, for `cargo test` and `cargo nextest run` alike.
//!
//! Folders under `tests/selftest` hold cases that must fail: a harness that lets a wrong expectation pass proves nothing.

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use std::path::Path;
use std::process::ExitCode;
use ulp_tests::CannotRun;
use ulp_tests::case::{folders, run_case};
use ulp_tests::expect::parse;
use ulp_tests::verdict;

fn main() -> ExitCode {
    ulp_tests::run_all(trials)
}

fn trials() -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for (name, folder) in folders("cases")? {
        trials.push(Trial::ignorable_test(name, move || verdict(run_case(&folder))));
    }
    for (name, folder) in folders("selftest")? {
        trials.push(Trial::ignorable_test(format!("selftest::{name}"), move || verdict(must_fail(&folder))));
    }
    Ok(trials)
}

/// A case with a wrong expectation must fail, and for the reason that its `fails:` line gives.
fn must_fail(folder: &Path) -> Result<()> {
    let text = std::fs::read_to_string(folder.join("expect"))?;
    let why = text.lines().find_map(|line| line.strip_prefix("fails:")).context("no `fails:` line")?.trim();
    let wanted_unknown = parse(&text, std::env::consts::ARCH).is_err();
    match run_case(folder) {
        Ok(()) => anyhow::bail!("a wrong expectation passed"),
        Err(error) if error.is::<CannotRun>() => Err(error),
        Err(error) => {
            let said = format!("{error:#}");
            ulp_tests::ensure_that!(
                said.contains(why),
                "it failed (unreadable: {wanted_unknown}), but not with {why:?}: {said}"
            );
            Ok(())
        }
    }
}
