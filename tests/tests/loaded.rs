// SPDX-License-Identifier: GPL-2.0-or-later
//! Libraries that come and go while they are patched, and one that is in the process twice.

use anyhow::Result;
use std::path::PathBuf;
use ulp_tests::case::Case;
use ulp_tests::ensure_that;
use ulp_tests::process::Running;
use ulp_tests::tools::{Ran, run, ulp_apply};

struct Plugins {
    /// Holds the work directory.
    _case: Case,
    package: PathBuf,
    target: Running,
}

impl Plugins {
    fn start() -> Result<Self> {
        let case = Case::life("plugins")?;
        let package = case.build_package()?;
        let target = case.start()?;
        let mut all = Self { _case: case, package, target };
        all.answers("open", "2 -1")?;
        Ok(all)
    }

    fn answers(&mut self, question: &str, wanted: &str) -> Result<()> {
        let answer = self.target.ask(question)?;
        ensure_that!(answer == wanted, "{question}: {answer}, not {wanted}");
        self.target.check_alive()
    }

    fn verb(&self, words: &[&str]) -> Result<Ran> {
        run(ulp_apply()?.args(words).arg("--pid").arg(self.target.pid().to_string()))
    }

    fn apply(&self) -> Result<Ran> {
        self.verb(&["apply", &self.package.to_string_lossy()])
    }
}

#[test]
fn a_patched_library_is_unloaded() -> Result<()> {
    let mut plugins = Plugins::start()?;
    let maps = plugins.target.lasting_maps()?;
    plugins.apply()?.expect_code(0)?;
    plugins.answers("x", "101 -1")?;
    plugins.answers("close", "-1 -1")?;
    let list = plugins.verb(&["list"])?;
    ensure_that!(list.expect_code(0)?.stdout.contains("libplugin.so was unloaded"), "{}", list.report());
    plugins.verb(&["verify"])?.expect_code(1)?;
    plugins.apply()?.expect_code(5)?;
    // Nothing is written where the library was, whatever is there now.
    plugins.verb(&["revert", "fix"])?.expect_code(0)?;
    plugins.answers("open", "2 -1")?;
    ensure_that!(plugins.target.lasting_maps()?.len() == maps.len(), "the patch's memory stays");
    plugins.apply()?.expect_code(0)?;
    plugins.answers("x", "101 -1")?;
    plugins.verb(&["revert", "fix"])?.expect_code(0)?;
    plugins.answers("x", "2 -1")
}

#[test]
fn a_patched_library_is_loaded_anew() -> Result<()> {
    let mut plugins = Plugins::start()?;
    plugins.apply()?.expect_code(0)?;
    plugins.answers("close", "-1 -1")?;
    plugins.answers("open", "2 -1")?;
    let again = plugins.apply()?;
    ensure_that!(again.expect_code(5)?.stderr.contains("revert the patch"), "{}", again.report());
    plugins.verb(&["revert", "fix"])?.expect_code(0)?;
    plugins.apply()?.expect_code(0)?;
    plugins.answers("x", "101 -1")?;
    plugins.verb(&["verify"])?.expect_code(0)?;
    plugins.verb(&["revert", "fix"])?.expect_code(0)?;
    plugins.answers("x", "2 -1")
}

#[test]
fn both_copies_of_a_library_are_patched() -> Result<()> {
    let mut plugins = Plugins::start()?;
    plugins.answers("second", "2 2")?;
    plugins.apply()?.expect_code(0)?;
    plugins.answers("x", "101 101")?;
    plugins.verb(&["revert", "fix"])?.expect_code(0)?;
    plugins.answers("x", "2 2")
}

#[test]
fn a_second_copy_that_comes_later_is_reported() -> Result<()> {
    let mut plugins = Plugins::start()?;
    plugins.apply()?.expect_code(0)?;
    plugins.answers("second", "101 2")?;
    let verify = plugins.verb(&["verify"])?;
    ensure_that!(verify.expect_code(1)?.stderr.contains("second copy"), "{}", verify.report());
    plugins.apply()?.expect_code(5)?;
    plugins.verb(&["revert", "fix"])?.expect_code(0)?;
    plugins.apply()?.expect_code(0)?;
    plugins.answers("x", "101 101")
}
