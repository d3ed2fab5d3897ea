// SPDX-License-Identifier: GPL-2.0-or-later
//! Packages for other machines, made here with cross compilers: the same cases, and what must come of them there.

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use std::path::Path;
use std::process::ExitCode;
use ulp_tests::case::{Case, folders};
use ulp_tests::machine::Machine;
use ulp_tests::verdict;

const MACHINES: [&str; 1] = ["aarch64"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match trials() {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    for arch in MACHINES {
        for (name, folder) in folders("cases")? {
            trials.push(Trial::ignorable_test(format!("{arch}::{name}"), move || verdict(builds(arch, &folder))));
        }
    }
    Ok(trials)
}

fn builds(arch: &str, folder: &Path) -> Result<()> {
    let case = Case::open_for(folder, &Machine::cross(arch)?)?;
    case.trees.check_has(&case.expect)?;
    case.check_package()?;
    Ok(())
}
