// SPDX-License-Identifier: GPL-2.0-or-later
//! A case that is compiled, with its package: a directory that holds all that its run takes, for this machine or another one.

use crate::case::NAME;
use crate::expect::{Apply, Build, Expect};
use crate::process::Running;
use crate::tools::{Ran, run, ulp_apply};
use crate::trees::{Production, copy};
use crate::{elf, ensure_that};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A case whose program and package are made.
#[derive(Debug)]
pub struct Prepared {
    pub expect: Expect,
    pub production: Production,
    pub package: PathBuf,
}

impl Prepared {
    /// Writes it down: `expect`, `fix.ulp`, `production` and `symbols`, without what only a compiler needs.
    pub fn write(&self, folder: &Path, to: &Path) -> Result<()> {
        Self::write_program(&self.production, folder, to)?;
        copy(&self.package, &to.join(NAME).with_extension("ulp"))
    }

    /// Likewise without a package.
    pub fn write_program(production: &Production, folder: &Path, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to.join("symbols"))?;
        copy(&folder.join("expect"), &to.join("expect"))?;
        let built = to.join("production");
        copy(&production.dir, &built)?;
        remove_objects(&built)?;
        for file in &production.with_symbols {
            copy(file, &to.join("symbols").join(file.file_name().context("a file has a name")?))?;
        }
        Ok(())
    }

    /// What [`Prepared::write`] left, for the machine that this is.
    pub fn read(dir: &Path) -> Result<Self> {
        let expect = crate::case::read_expect(dir, std::env::consts::ARCH)?;
        let production = Production::below(dir, &expect)?;
        Ok(Self { expect, production, package: dir.join(NAME).with_extension("ulp") })
    }

    /// Looks at the package, then applies and reverts it.
    pub fn run(&self) -> Result<()> {
        let Build::Changed(functions) = &self.expect.build else { return Ok(()) };
        self.check_info()?;
        self.live(functions)
    }

    /// `info` must tell a stranger what the package is for.
    fn check_info(&self) -> Result<()> {
        let ran = run(ulp_apply()?.arg("info").arg(&self.package))?;
        ran.expect_code(0)?;
        for target in &self.production.targets {
            let id = elf::build_id(target)?;
            let ours = ran.stdout.contains(&id) || self.production.targets.len() > 1;
            ensure_that!(ours, "info does not show the build-id {id}\n{}", ran.report());
        }
        ensure_that!(ran.stdout.contains(NAME), "info does not show the patch's name\n{}", ran.report());
        if let Some(grade) = &self.expect.identity {
            let json = run(ulp_apply()?.arg("info").arg(&self.package).arg("--json"))?;
            json.expect_code(0)?.json()?;
            ensure_that!(
                json.stdout.contains(&format!("\"{grade}\"")),
                "info does not state the identity {grade}\n{}",
                json.report()
            );
        }
        if let Some(wanted) = self.expect.gates {
            let json = run(ulp_apply()?.arg("info").arg(&self.package).arg("--json"))?;
            let manifest = json.expect_code(0)?.json()?["manifest"].clone();
            let targets = manifest["targets"].as_array().cloned().unwrap_or_default();
            let functions: Vec<_> = targets.iter().filter_map(|t| t["functions"].as_array()).flatten().collect();
            let gates = functions.iter().filter(|f| !f["gate"].is_null()).count();
            ensure_that!(gates == wanted, "{gates} gates, not {wanted}\n{}", json.report());
            let atomic = functions.len() - gates <= 1;
            ensure_that!(manifest["atomic"] == atomic, "info says otherwise than the gates\n{}", json.report());
        }
        for accepted in &self.expect.accept {
            let code = accepted.split(':').next().unwrap_or(accepted);
            ensure_that!(ran.stdout.contains(code), "info does not show the accepted {code}\n{}", ran.report());
        }
        Ok(())
    }

    pub fn start(&self) -> Result<Running> {
        Running::start(&self.production.program, &[self.expect.target.threads.to_string()])
    }

    /// Starts the program, applies, asks, reverts, asks again, looks at memory all the while.
    fn live(&self, functions: &BTreeSet<String>) -> Result<()> {
        let mut target = self.start()?;
        if self.expect.target.threads > 0 {
            let threads = target.threads()?;
            ensure_that!(threads > self.expect.target.threads as usize, "only {threads} threads");
        }
        for line in &self.expect.setup {
            target.ask(line)?;
        }
        self.ask_all(&mut target, Moment::Before)?;
        let old = Picture::take(&target, &self.production)?;
        let old_maps = target.lasting_maps()?;

        if let Apply::Busy { function } = &self.expect.apply {
            let busy = self.apply(&target, &self.expect.wait)?;
            target.check_alive()?;
            busy.expect_code(4)?;
            ensure_that!(busy.stderr.contains(function), "busy, but {function} is not named\n{}", busy.report());
            ensure_that!(old == Picture::take(&target, &self.production)?, "busy, and yet code has changed");
            self.ask_all(&mut target, Moment::Before)?;
            let Some(line) = &self.expect.release else { return target.check_alive() };
            target.ask(line)?;
        }
        let applied = self.apply(&target, "20s")?;
        target.check_alive()?;
        applied.expect_code(0)?;
        self.ask_all(&mut target, Moment::After)?;
        target.check_alive()?;
        let new = Picture::take(&target, &self.production)?;
        self.check_entries(&target, functions, &old, &new)?;
        self.check_protections(&target)?;
        ensure_that!(listed(&target)?, "list does not show the patch");
        run(ulp_apply()?.args(["verify", "--pid"]).arg(target.pid().to_string()))?.expect_code(0)?;

        let reverted = self.revert(&target)?;
        target.check_alive()?;
        reverted.expect_code(0)?;
        ensure_that!(old == Picture::take(&target, &self.production)?, "the revert did not restore the code as it was");
        self.ask_all(&mut target, Moment::Reverted)?;
        let maps = target.lasting_maps()?;
        if maps != old_maps {
            let list = run(ulp_apply()?.args(["list", "--json", "--pid"]).arg(target.pid().to_string()))?;
            list.expect_code(0)?;
            let retired = list.stdout.contains("retired");
            let extra: Vec<_> = maps.symmetric_difference(&old_maps).collect();
            ensure_that!(retired, "memory maps differ after the revert, and list shows nothing retired: {extra:x?}");
        }
        target.check_alive()
    }

    fn revert(&self, target: &Running) -> Result<Ran> {
        let mut command = ulp_apply()?;
        command.args(["revert", NAME, "--wait", "20s", "--pid"]).arg(target.pid().to_string());
        run(&mut command)
    }

    fn apply(&self, target: &Running, wait: &str) -> Result<Ran> {
        let mut command = ulp_apply()?;
        command.arg("apply").arg(&self.package).args(["--wait", wait, "--pid"]).arg(target.pid().to_string());
        run(&mut command)
    }

    fn ask_all(&self, target: &mut Running, moment: Moment) -> Result<()> {
        for ask in &self.expect.asks {
            let wanted = match moment {
                Moment::Before => &ask.before,
                Moment::After => &ask.after,
                Moment::Reverted => ask.reverted.as_ref().unwrap_or(&ask.before),
            };
            let answer = target.ask(&ask.line)?;
            ensure_that!(answer == *wanted, "{moment:?}: {:?} was answered {answer:?}, not {wanted:?}", ask.line);
        }
        Ok(())
    }

    /// Every replaced function's entry must have changed, and no byte of the program but at entries.
    fn check_entries(
        &self,
        target: &Running,
        functions: &BTreeSet<String>,
        old: &Picture,
        new: &Picture,
    ) -> Result<()> {
        let mut entries = Vec::new();
        for (file, symbols) in self.production.targets.iter().zip(&self.production.with_symbols) {
            let bias = target.load_bias(file)?;
            let table = elf::functions(symbols)?;
            for (name, address) in functions.iter().filter_map(|name| Some((name, table.get(name)?))) {
                entries.extend(address.iter().map(|address| (name, bias.wrapping_add(*address))));
            }
        }
        let changed = old.changed(new)?;
        for name in functions {
            let mut own = entries.iter().filter(|(n, _)| *n == name).peekable();
            let known = own.peek().is_some();
            let moved = own.any(|(_, entry)| changed.iter().any(|at| (*entry..*entry + 16).contains(at)));
            ensure_that!(!known || moved, "{name} counts as changed, but no byte of its entry has");
        }
        for at in changed {
            let ours = entries.iter().any(|(_, entry)| (*entry..*entry + 16).contains(&at));
            ensure_that!(ours, "code at {at:#x} changed, which is no entry of {functions:?}");
        }
        Ok(())
    }

    fn check_protections(&self, target: &Running) -> Result<()> {
        for mapping in target.maps()? {
            let both = mapping.rights.contains('w') && mapping.rights.contains('x');
            ensure_that!(!both, "a mapping is writable and executable: {mapping:x?}");
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    Before,
    After,
    Reverted,
}

/// Takes out what the compiler left: a run needs no objects.
fn remove_objects(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_objects(&path)?;
        } else if path.extension().is_some_and(|e| e == "o" || e == "a") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// All code of the patched files as it is in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture(pub Vec<(u64, Vec<u8>)>);

impl Picture {
    pub fn take(target: &Running, production: &Production) -> Result<Self> {
        let mut all = Vec::new();
        for file in &production.targets {
            all.extend(target.code_of(file)?);
        }
        Ok(Self(all))
    }

    /// Addresses of the bytes that differ.
    pub fn changed(&self, new: &Self) -> Result<Vec<u64>> {
        ensure_that!(self.0.len() == new.0.len(), "another number of segments");
        let mut changed = Vec::new();
        for ((start, old), (_, new)) in self.0.iter().zip(&new.0) {
            let pairs = old.iter().zip(new).zip(*start..);
            changed.extend(pairs.filter(|((a, b), _)| a != b).map(|(_, at)| at));
        }
        Ok(changed)
    }
}

/// Whether `list` shows the case's patch in this process, to people and to programs.
pub fn listed(target: &Running) -> Result<bool> {
    let pid = target.pid().to_string();
    let people = run(ulp_apply()?.args(["list", "--pid", &pid]))?;
    let json = run(ulp_apply()?.args(["list", "--json", "--pid", &pid]))?;
    people.expect_code(0)?;
    json.expect_code(0)?.json()?;
    Ok(people.stdout.contains(NAME) && json.stdout.contains(&format!("\"{NAME}\"")))
}
