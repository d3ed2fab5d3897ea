// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes the source trees of a case and builds them with plain make, as a distributor would.
//!
//! `before.c` and `after.c` become `main.c` of one tree each; `before/` and `after/` are laid over their tree; every other
//! file of the folder stands in both. `ask.c` and `ask.h` (tests/support) and, where there is none, a Makefile are added.
//! `production/` and `debuginfo/` hold sources of another build, for the cases about a binary that is not what it should be.

use crate::expect::{Expect, Has, Strip, Toolchain};
use crate::machine::Machine;
use crate::tools::{repository, run};
use crate::{CannotRun, elf, ensure_that};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The trees of a case, side by side in one work directory.
#[derive(Debug)]
pub struct Trees {
    pub work: PathBuf,
    pub before: PathBuf,
    pub after: PathBuf,
    folder: PathBuf,
    machine: Machine,
}

/// What runs, and what is known of it.
#[derive(Clone, Debug)]
pub struct Production {
    pub dir: PathBuf,
    /// The files that are patched, in the order of the case.
    pub targets: Vec<PathBuf>,
    /// The same files with their symbols, where the running ones were stripped.
    pub with_symbols: Vec<PathBuf>,
    /// `--debuginfo` files.
    pub debuginfo: Vec<PathBuf>,
    pub program: PathBuf,
}

impl Production {
    /// What a case runs, below a directory that holds `production` and `symbols`.
    pub fn below(work: &Path, expect: &Expect) -> Result<Self> {
        let dir = work.join("production");
        let targets: Vec<PathBuf> = expect.target.files.iter().map(|file| dir.join(file)).collect();
        let kept = |target: &PathBuf| Ok(work.join("symbols").join(target.file_name().context("a target has a name")?));
        Ok(Self {
            with_symbols: targets.iter().map(kept).collect::<Result<_>>()?,
            debuginfo: Vec::new(),
            program: dir.join(&expect.target.run),
            targets,
            dir,
        })
    }
}

impl Trees {
    /// Trees of a case where they have been laid out.
    pub fn below(case: &Path, work: &Path, machine: &Machine) -> Self {
        Self {
            work: work.into(),
            before: work.join("before"),
            after: work.join("after"),
            folder: case.into(),
            machine: machine.clone(),
        }
    }

    pub fn lay_out(case: &Path, work: &Path, expect: &Expect, machine: &Machine) -> Result<Self> {
        let trees = Self::below(case, work, machine);
        for (tree, side) in [(&trees.before, "before"), (&trees.after, "after")] {
            std::fs::create_dir(tree)?;
            for entry in std::fs::read_dir(case)? {
                let entry = entry?;
                let name = entry.file_name();
                match name.to_str().context("file names are plain text")? {
                    "expect" | "before" | "after" | "production" | "debuginfo" => {}
                    "before.c" if side == "before" => copy(&entry.path(), &tree.join("main.c"))?,
                    "after.c" if side == "after" => copy(&entry.path(), &tree.join("main.c"))?,
                    "before.c" | "after.c" => {}
                    name => copy(&entry.path(), &tree.join(name))?,
                }
            }
            lay_over(&case.join(side), tree)?;
            for name in ["ask.c", "ask.h"] {
                if !tree.join(name).exists() {
                    copy(&repository().join("tests/support").join(name), &tree.join(name))?;
                }
            }
            let own = tree.join("Makefile");
            let text = match std::fs::read_to_string(&own) {
                Ok(text) => machine.makefile(&text),
                Err(_) => makefile(tree, &expect.toolchain, machine)?,
            };
            if std::fs::read_to_string(&own).ok().as_ref() != Some(&text) {
                std::fs::write(own, text)?;
            }
        }
        Ok(trees)
    }

    /// Builds a copy of the original tree, which is what runs in production, and strips it where the case says so.
    pub fn production(&self, expect: &Expect) -> Result<Production> {
        let dir = self.work.join("production");
        copy(&self.before, &dir)?;
        lay_over(&self.folder.join("production"), &dir)?;
        self.make(&dir, &expect.toolchain)?;
        let other = self.folder.join("debuginfo");
        let other_build = self.work.join("debuginfo");
        if other.is_dir() {
            copy(&self.before, &other_build)?;
            lay_over(&other, &other_build)?;
            self.make(&other_build, &expect.toolchain)?;
        }
        let mut production = Production::below(&self.work, expect)?;
        std::fs::create_dir(self.work.join("symbols"))?;
        for (target, kept) in production.targets.iter().zip(&production.with_symbols) {
            std::fs::copy(target, kept).with_context(|| format!("{} was not built", target.display()))?;
            if expect.target.strip == Strip::Debuginfo {
                let debug = kept.with_extension("debug");
                let name = target.file_name().context("a target has a name")?;
                let from = if other.is_dir() { &other_build.join(name) } else { target };
                let mut objcopy = Command::new("objcopy");
                tool(self.machine.equip(objcopy.arg("--only-keep-debug").arg(from).arg(&debug))?)?;
                production.debuginfo.push(debug);
            }
            if expect.target.strip != Strip::No {
                tool(self.machine.equip(Command::new("strip").arg(target))?)?;
            }
        }
        Ok(production)
    }

    /// Whether the compiler does what the case is about. What an optimiser does is fixed for one version only: another one
    /// that does something else makes the case pointless, not wrong.
    pub fn check_has(&self, expect: &Expect) -> Result<()> {
        if expect.has.is_empty() && expect.same_code.is_empty() {
            return Ok(());
        }
        let (old, new) = (self.work.join("production"), self.work.join("after-built"));
        copy(&self.after, &new)?;
        self.make(&new, &expect.toolchain)?;
        for name in &expect.same_code {
            let (a, b) = (elf::code(&old.join("main.o"), name)?, elf::code(&new.join("main.o"), name)?);
            self.unprovoked(a == b, || format!("same-code: {name} has other instructions after the fix"))?;
        }
        let (before, after) = (self.names_of_objects(&old)?, self.names_of_objects(&new)?);
        for Has { before: in_before, after: in_after, text } in &expect.has {
            for (names, wanted, side) in [(&before, in_before, "before"), (&after, in_after, "after")] {
                let found = names.iter().any(|name| name.contains(text.as_str()));
                let said = || format!("has: {text} is there or not there against expectation {side}: {names:?}");
                self.unprovoked(wanted.is_none_or(|wanted| wanted == found), said)?;
            }
        }
        Ok(())
    }

    /// A situation that the compiler did not provoke: a failure with the compiler that the cases were made with, and with any
    /// other a reason not to run.
    fn unprovoked(&self, as_wanted: bool, message: impl FnOnce() -> String) -> Result<()> {
        if as_wanted {
            return Ok(());
        }
        if self.machine.is_host() && self.machine.gcc_major()? == 12 {
            bail!("{}", message());
        }
        bail!(CannotRun(format!("another compiler: {}", message())));
    }

    fn make(&self, dir: &Path, toolchain: &Toolchain) -> Result<()> {
        let mut command = Command::new("sh");
        command.arg("-ec").arg(toolchain.command.as_deref().unwrap_or("make -s")).current_dir(dir);
        tool(self.machine.equip(&mut command)?)
    }

    fn names_of_objects(&self, dir: &Path) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let is_object = path.extension().is_some_and(|e| e == "o");
            if is_object && path.file_stem().is_some_and(|stem| stem != "ask") {
                all.extend(elf::names(&path)?);
            }
        }
        Ok(all)
    }

    /// The difference of the trees as `patch -p1` takes it.
    pub fn as_patch(&self) -> Result<PathBuf> {
        let ran = run(Command::new("diff").args(["-ruN", "before", "after"]).current_dir(&self.work))?;
        let path = self.work.join("fix.patch");
        std::fs::write(&path, ran.stdout)?;
        Ok(path)
    }
}

fn lay_over(from: &Path, tree: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &tree.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn makefile(tree: &Path, toolchain: &Toolchain, machine: &Machine) -> Result<String> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(tree)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".c") || name.ends_with(".cc") {
            sources.push(name);
        }
    }
    sources.sort();
    let Toolchain { cc, cflags, ldflags, libs, .. } = toolchain;
    let cflags = machine.options(cflags)?;
    let objects: Vec<_> = sources.iter().map(|name| format!("{}.o", stem(name))).collect();
    let mut text = format!("app: {o}\n\t{cc} {ldflags} -o $@ {o} {libs} -pthread\n", o = objects.join(" "));
    for (source, object) in sources.iter().zip(&objects) {
        // C++ programs keep the loop in C, so that it is the same everywhere.
        let cc = if source.ends_with(".c") { cc.replace("g++", "gcc") } else { cc.clone() };
        text += &format!("{object}: {source} $(wildcard *.h)\n\t{cc} {cflags} -c -o $@ {source}\n");
    }
    Ok(text + "clean:\n\trm -f app *.o\n")
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Runs a tool that has to succeed.
pub fn tool(command: &mut Command) -> Result<()> {
    let ran = run(command)?;
    ensure_that!(ran.code == Some(0), "{}", ran.report());
    Ok(())
}

/// Copies a file or a tree, times included: make must see what was built as built.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    tool(Command::new("cp").arg("-a").arg("-T").arg(from).arg(to))
}
