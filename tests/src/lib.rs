// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs the case folders under `tests/cases`: real builds, real processes, and what the two programs must do with them.
//!
//! A case is a folder (docs/testing.md): sources before and after a fix, and a file `expect`. [`case::run`] makes the trees,
//! builds production, runs `ulp-build`, starts the program, applies, asks, reverts, asks again, and compares everything
//! with what was expected. It looks at the process from outside, with no code of the programs under test.
#![forbid(unsafe_code)]

pub mod case;
pub mod elf;
pub mod expect;
pub mod machine;
pub mod mutate;
pub mod prepared;
pub mod process;
pub mod store;
pub mod survivor;
pub mod tools;
pub mod trees;

/// Fails with a message when the condition does not hold: `assert!` for code that returns an error.
#[macro_export]
macro_rules! ensure_that {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            anyhow::bail!($($message)+);
        }
    };
}

/// Why a case did not run on this machine. Told apart from a failure by its type.
#[derive(Debug)]
pub struct CannotRun(pub String);

impl std::fmt::Display for CannotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// What a test runner says of a result: a test that cannot run here is ignored, with its reason, and never passed.
pub fn verdict(result: anyhow::Result<()>) -> Result<libtest_mimic::Completion, libtest_mimic::Failed> {
    match result {
        Ok(()) => Ok(libtest_mimic::Completion::Completed),
        Err(error) => match error.downcast_ref::<CannotRun>() {
            Some(CannotRun(reason)) => Ok(libtest_mimic::Completion::ignored_with(reason.clone())),
            None => Err(libtest_mimic::Failed::from(format!("{error:#}"))),
        },
    }
}

/// `main` of a test program that lists its tests when it starts.
pub fn run_all(trials: impl FnOnce() -> anyhow::Result<Vec<libtest_mimic::Trial>>) -> std::process::ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    match trials() {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// `main` of a test program without the standard harness, some of whose tests may not be able to run on a machine.
#[macro_export]
macro_rules! main_of_tests {
    ($($test:ident),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            let arguments = libtest_mimic::Arguments::from_args();
            let tests = vec![
                $(libtest_mimic::Trial::ignorable_test(stringify!($test), || $crate::verdict($test()))),+
            ];
            libtest_mimic::run(&arguments, tests).exit_code()
        }
    };
}
