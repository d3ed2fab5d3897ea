// SPDX-License-Identifier: GPL-2.0-or-later
//! Packages for other machines, made here with cross compilers: the same cases, and what must come of them there. With
//! `ULP_PREPARE=DIR` they are laid down below it, for `tests/prepared.rs` to run on such a machine.

use anyhow::Result;
use libtest_mimic::Trial;
use std::path::Path;
use std::process::ExitCode;
use ulp_tests::case::{Case, folders};
use ulp_tests::machine::Machine;
use ulp_tests::verdict;

const MACHINES: [&str; 2] = ["aarch64", "loongarch64"];

fn main() -> ExitCode {
    ulp_tests::run_all(trials)
}

fn trials() -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for arch in MACHINES {
        for (name, folder) in folders("cases")? {
            let title = format!("{arch}::{name}");
            trials.push(Trial::ignorable_test(title, move || verdict(builds(arch, &name, &folder))));
        }
    }
    Ok(trials)
}

/// Compares what `ulp-build` makes of the case with what was expected; leaves it to be run on a machine of that kind.
fn builds(arch: &str, name: &str, folder: &Path) -> Result<()> {
    let case = Case::open_for(folder, &Machine::cross(arch)?)?;
    let prepared = case.prepare()?;
    match (prepared, std::env::var_os("ULP_PREPARE")) {
        (Some(prepared), Some(to)) => prepared.write(folder, &Path::new(&to).join(arch).join(name)),
        _ => Ok(()),
    }
}
