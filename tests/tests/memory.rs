// SPDX-License-Identifier: GPL-2.0-or-later
//! Targets in want of memory: limits of their address space, of their control group, of what may be executed, and programs
//! with nothing free around them.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use ulp_tests::case::{Case, Picture};
use ulp_tests::process::Running;
use ulp_tests::tools::{Ran, run, ulp_apply};
use ulp_tests::{CannotRun, ensure_that};

struct Scene {
    case: Case,
    package: PathBuf,
    target: Running,
}

impl Scene {
    fn set(state: &str) -> Result<Self> {
        let case = Case::life("memory")?;
        let package = case.build_package()?;
        let mut target = case.start()?;
        let answer = target.ask(state)?;
        if answer == "failed" {
            return Err(CannotRun(format!("this kernel does not know: {state}")).into());
        }
        ensure_that!(answer == "2", "{state}: {answer}");
        Ok(Self { case, package, target })
    }

    fn apply(&self) -> Result<Ran> {
        let pid = self.target.pid().to_string();
        run(ulp_apply()?.arg(&self.package).args(["--wait", "20s", "--pid", &pid]))
    }

    /// In and out again, as in any other process.
    fn goes_in_and_out(&mut self) -> Result<()> {
        let old = Picture::take(&self.target, &self.case.production)?;
        let maps = self.target.lasting_maps()?;
        self.apply()?.expect_code(0)?;
        ensure_that!(self.target.ask("x")? == "101", "not patched");
        let pid = self.target.pid().to_string();
        run(ulp_apply()?.args(["revert", "fix", "--wait", "20s", "--pid", &pid]))?.expect_code(0)?;
        ensure_that!(self.target.ask("x")? == "2", "not reverted");
        ensure_that!(old == Picture::take(&self.target, &self.case.production)?, "the code is not as it was");
        ensure_that!(maps == self.target.lasting_maps()?, "the mappings are not as they were");
        self.target.check_alive()
    }

    /// With this code and these words, and nothing has changed.
    fn is_refused(&mut self, code: i32, words: &[&str]) -> Result<()> {
        let old = Picture::take(&self.target, &self.case.production)?;
        let maps = self.target.lasting_maps()?;
        let ran = self.apply()?;
        ran.expect_code(code)?;
        for word in words {
            ensure_that!(ran.stderr.contains(word), "no word of {word:?}\n{}", ran.report());
        }
        ensure_that!(old == Picture::take(&self.target, &self.case.production)?, "the code is not as it was");
        ensure_that!(maps == self.target.lasting_maps()?, "the mappings are not as they were");
        ensure_that!(self.target.ask("x")? == "2", "the target answers something else");
        self.target.check_alive()
    }
}

fn no_address_space_is_left() -> Result<()> {
    let mut scene = Scene::set("address space")?;
    scene.is_refused(5, &["RLIMIT_AS", "prlimit"])?;
    ensure_that!(scene.target.ask("no limit")? == "2", "the limit stays");
    scene.goes_in_and_out()
}

fn writable_memory_may_not_become_code() -> Result<()> {
    let mut scene = Scene::set("no new code")?;
    scene.goes_in_and_out()
}

fn all_memory_is_locked() -> Result<()> {
    let mut scene = Scene::set("locked")?;
    scene.goes_in_and_out()
}

fn nothing_is_free_near_the_text() -> Result<()> {
    let mut scene = Scene::set("nothing near")?;
    scene.is_refused(5, &["no free", "near"])
}

/// A control group of our own, removed at the end.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        // Its members have ended or go back; the kernel may need a moment.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// The memory hierarchy: where groups are made, and the file with the limit.
fn hierarchy() -> Option<(PathBuf, &'static str)> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let found = |prefix: &str, file: &'static str, wanted: fn(&str) -> bool| {
        let own = groups.lines().find(|l| wanted(l))?.splitn(3, ':').nth(2)?;
        [Path::new(prefix).join(own.trim_start_matches('/')), prefix.into()]
            .into_iter()
            .map(|folder| folder.join(format!("ulp-test-{}", std::process::id())))
            .find(|folder| {
                let made = std::fs::create_dir(folder).is_ok();
                let counts = made && folder.join(file).exists();
                if made && !counts {
                    let _ = std::fs::remove_dir(folder);
                }
                counts
            })
            .map(|folder| (folder, file))
    };
    found("/sys/fs/cgroup/memory", "memory.limit_in_bytes", |l| l.contains(":memory:"))
        .or_else(|| found("/sys/fs/cgroup", "memory.max", |l| l.starts_with("0::")))
}

fn the_memory_group_is_at_its_limit() -> Result<()> {
    let mut scene = Scene::set("x")?;
    let (folder, file) = hierarchy().context(CannotRun("no right to make a memory control group".into()))?;
    let group = Group(folder);
    std::fs::write(group.0.join("cgroup.procs"), scene.target.pid().to_string()).context("move the target")?;
    // Its memory was charged elsewhere, so the group has nothing but what comes from now on: less than a patch needs.
    std::fs::write(group.0.join(file), "131072").context("set the limit")?;
    scene.is_refused(5, &["memory group", "limit"])?;
    std::fs::write(group.0.join(file), "16777216").context("raise the limit")?;
    scene.goes_in_and_out()?;
    drop(scene);
    drop(group);
    Ok(())
}

ulp_tests::main_of_tests![
    no_address_space_is_left,
    writable_memory_may_not_become_code,
    all_memory_is_locked,
    nothing_is_free_near_the_text,
    the_memory_group_is_at_its_limit,
];
