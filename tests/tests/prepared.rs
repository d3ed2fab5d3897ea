// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs cases that another machine has compiled, and made packages for: those below `ULP_PREPARED`, with the `ulp-apply` of
//! `ULP_BIN`. Without the variable there are none.

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use std::path::Path;
use std::process::ExitCode;
use ulp_tests::case::Prepared;
use ulp_tests::verdict;

fn main() -> ExitCode {
    ulp_tests::run_all(trials)
}

fn trials() -> Result<Vec<Trial>> {
    let Some(dir) = std::env::var_os("ULP_PREPARED") else { return Ok(Vec::new()) };
    let mut trials = Vec::new();
    for entry in std::fs::read_dir(Path::new(&dir)).with_context(|| Path::new(&dir).display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
        trials.push(Trial::ignorable_test(name, move || verdict(Prepared::read(&path).and_then(|case| case.run()))));
    }
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(trials)
}
