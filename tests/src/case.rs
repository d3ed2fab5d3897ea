// SPDX-License-Identifier: GPL-2.0-or-later
//! One case from its folder to its verdict.

use crate::expect::{Build, Expect, Need, parse};
use crate::machine::Machine;
use crate::process::{Running, user_namespaces_work};
use crate::store::Store;
use crate::tools::{Ran, repository, run, ulp_build};
use crate::trees::{Production, Trees, copy};
use crate::{CannotRun, ensure_that};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub use crate::prepared::{Picture, Prepared, listed};

/// The patch's name in every case.
pub const NAME: &str = "fix";

/// A case that is laid out, with its production built.
#[derive(Debug)]
pub struct Case {
    pub expect: Expect,
    pub trees: Trees,
    pub production: Production,
    machine: Machine,
    store: Store,
    /// Holds everything; goes when the case goes.
    work: TempDir,
}

/// Names and folders of the cases in `tests/cases` or `tests/selftest`.
pub fn folders(kind: &str) -> Result<Vec<(String, PathBuf)>> {
    let dir = repository().join("tests").join(kind);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        ensure_that!(path.is_dir(), "{} is not a case folder", path.display());
        let name = path.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
        found.push((name, path));
    }
    found.sort();
    Ok(found)
}

/// Runs a case whole.
pub fn run_case(folder: &Path) -> Result<()> {
    let case = Case::open(folder)?;
    match case.prepare()? {
        Some(prepared) => prepared.run(),
        None => Ok(()),
    }
}

impl Case {
    /// Lays the trees out and builds production, for this machine.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_for(folder, &Machine::host())
    }

    /// Likewise for a machine.
    pub fn open_for(folder: &Path, machine: &Machine) -> Result<Self> {
        let expect = read_expect(folder, &machine.arch)?;
        for need in &expect.needs {
            check_need(*need, machine)?;
        }
        let work = work_directory()?;
        let trees = Trees::lay_out(folder, work.path(), &expect, machine)?;
        let production = trees.production(&expect)?;
        Ok(Self { expect, trees, production, machine: machine.clone(), store: Store::None, work })
    }

    /// A case that a test drives by itself, where the [`Store`] says.
    fn driven(kind: &str, name: &str) -> Result<Self> {
        let folder = repository().join("tests").join(kind).join(name);
        let store = Store::of(name)?;
        match &store {
            Store::None => Self::open(&folder),
            // All tests get the same program: a second build would have another build-id.
            Store::Making { folder: to, room, machine } if !to.exists() => {
                std::fs::create_dir_all(room)?;
                let mut case = Self::open_for(&folder, machine)?;
                copy(case.work(), room)?;
                case.trees = Trees::below(&folder, room, machine);
                case.production = Production::below(room, &case.expect)?;
                Prepared::write_program(&case.production, &folder, to)?;
                Ok(Self { store, ..case })
            }
            Store::Making { folder: at, room, machine } => {
                let work = work_directory()?;
                Self::built_in(&folder, at, room, machine, store.clone(), work)
            }
            // A test may do with the program what it likes: it has a copy.
            Store::Made(at) => {
                let work = work_directory()?;
                for part in ["production", "symbols"] {
                    copy(&at.join(part), &work.path().join(part))?;
                }
                let room = work.path().to_path_buf();
                Self::built_in(&folder, at, &room, &Machine::host(), store.clone(), work)
            }
        }
    }

    /// A case that was laid out and built in `room` before; `at` has what is expected of it.
    fn built_in(folder: &Path, at: &Path, room: &Path, machine: &Machine, store: Store, work: TempDir) -> Result<Self> {
        let expect = read_expect(at, &machine.arch)?;
        let production = Production::below(room, &expect)?;
        let trees = Trees::below(folder, room, machine);
        Ok(Self { expect, trees, production, machine: machine.clone(), store, work })
    }

    /// The case of this name under `tests/cases`.
    pub fn named(name: &str) -> Result<Self> {
        Self::driven("cases", name)
    }

    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// Where this case's package is written.
    pub fn package(&self) -> PathBuf {
        self.work().join(NAME).with_extension("ulp")
    }

    /// Runs `ulp-build` as the case wants it.
    pub fn ulp_build(&self, output: &Path, json: bool) -> Result<Ran> {
        let toolchain = &self.expect.toolchain;
        let mut command = ulp_build()?;
        command.arg("--orig").arg(&self.trees.before);
        if toolchain.patch {
            command.arg("--patch").arg(self.trees.as_patch()?);
        } else {
            command.arg("--fix").arg(&self.trees.after);
        }
        if let Some(build) = &toolchain.command {
            command.arg("--build").arg(build);
        }
        for target in &self.production.targets {
            command.arg("--target").arg(target);
        }
        for file in &self.production.debuginfo {
            command.arg("--debuginfo").arg(file);
        }
        for code in &self.expect.accept {
            command.arg("--accept").arg(code);
        }
        if json {
            command.arg("--json");
        }
        command.args(&toolchain.options).arg("-o").arg(output);
        run(self.machine.equip(&mut command)?)
    }

    /// The program of this name under `tests/life`, for tests that drive it by themselves.
    pub fn life(name: &str) -> Result<Self> {
        Self::driven("life", name)
    }

    /// Makes a package of another fix: the original tree with this text replaced in `main.c` or `main.cc`.
    pub fn package_of(&self, name: &str, old: &str, new: &str) -> Result<PathBuf> {
        self.package_with(name, &[(old, new)], &[])
    }

    /// Makes a package of another fix: the original tree with these texts replaced there, and more options.
    pub fn package_with(&self, name: &str, edits: &[(&str, &str)], options: &[&str]) -> Result<PathBuf> {
        let edits: Vec<_> = edits.iter().map(|(old, new)| ("main", *old, *new)).collect();
        self.package_for(name, &edits, options, self.production.targets.len())
    }

    /// Makes a package of the original tree with texts replaced in its files, which are named without what makes them C or
    /// C++, for the first targets.
    pub fn package_for(
        &self,
        name: &str,
        edits: &[(&str, &str, &str)],
        options: &[&str],
        targets: usize,
    ) -> Result<PathBuf> {
        let recipe = format!("{name} {edits:?} {options:?} {targets}");
        self.store.package(self.work().join(name).with_extension("ulp"), &recipe, |package| {
            let tree = self.work().join(format!("fix-{name}"));
            copy(&self.trees.before, &tree)?;
            for (file, old, new) in edits {
                let names = ["c", "cc"].map(|kind| tree.join(file).with_extension(kind));
                let source = names.iter().find(|p| p.exists()).with_context(|| format!("no {file}.c"))?;
                let text = std::fs::read_to_string(source)?;
                ensure_that!(text.contains(old), "{} has no {old:?}", source.display());
                std::fs::write(source, text.replace(old, new))?;
            }
            let mut command = ulp_build()?;
            command.arg("--orig").arg(&self.trees.before).arg("--fix").arg(&tree);
            for target in self.production.targets.iter().take(targets) {
                command.arg("--target").arg(target);
            }
            command.args(options).arg("-o").arg(package);
            run(self.machine.equip(&mut command)?)?.expect_code(0).map(drop)
        })
    }

    /// Makes the package, for tests that go on by themselves.
    pub fn build_package(&self) -> Result<PathBuf> {
        self.store.package(self.package(), NAME, |package| self.ulp_build(package, false)?.expect_code(0).map(drop))
    }

    /// Makes the package and compares what came of it with what was expected.
    pub fn check_package(&self) -> Result<Ran> {
        let package = self.package();
        let ran = self.ulp_build(&package, true)?;
        match &self.expect.or_refuse {
            Some(code) if ran.code == Some(5) => self.check_refusal(&ran, &package, code, None)?,
            _ => self.check_build(&ran, &package)?,
        }
        Ok(ran)
    }

    fn check_build(&self, ran: &Ran, package: &Path) -> Result<()> {
        for tree in [&self.trees.before, &self.trees.after] {
            ensure_that!(!tree.join("main.o").exists(), "ulp-build wrote into the user's tree {}", tree.display());
        }
        for warning in &self.expect.warn {
            ensure_that!(ran.stderr.contains(warning.as_str()), "no warning says {warning:?}\n{}", ran.report());
        }
        match &self.expect.build {
            Build::Changed(functions) => {
                ran.expect_code(0)?;
                ensure_that!(package.exists(), "exit 0 and no package\n{}", ran.report());
                let json = ran.json()?;
                same_set(&json, "changed", Some(functions), ran)?;
                same_set(&json, "new", self.expect.new.as_ref(), ran)?;
                same_set(&json, "gone", self.expect.gone.as_ref(), ran)?;
            }
            Build::NoChange => {
                ran.expect_code(3)?;
                ensure_that!(!package.exists(), "no change, and yet a package\n{}", ran.report());
                ensure_that!(ran.json()?["result"] == "no-change", "--json says something else\n{}", ran.report());
            }
            Build::Refuse { code, symbol } => self.check_refusal(ran, package, code, symbol.as_deref())?,
        }
        Ok(())
    }

    /// A refusal has its exit code, names its code to people and to programs, and leaves no file.
    fn check_refusal(&self, ran: &Ran, package: &Path, code: &str, symbol: Option<&str>) -> Result<()> {
        ran.expect_code(5)?;
        ensure_that!(!package.exists(), "a refusal, and yet a package\n{}", ran.report());
        let people = self.ulp_build(package, false)?;
        people.expect_code(5)?;
        ensure_that!(people.stderr.contains(code), "stderr does not name {code}\n{}", people.report());
        let json = ran.json()?;
        let refusals = json.get("refusals").and_then(Value::as_array).context("--json has no refusals")?;
        let matches = |refusal: &Value| {
            let text = |key: &str| refusal.get(key).and_then(Value::as_str);
            text("code") == Some(code)
                && text("message").is_some_and(|message| !message.is_empty())
                && symbol.is_none_or(|wanted| text("symbol").is_some_and(|found| found.contains(wanted)))
        };
        let what = symbol.unwrap_or("");
        ensure_that!(refusals.iter().any(matches), "--json has no refusal {code} {what}\n{}", ran.report());
        Ok(())
    }

    /// Checks what `ulp-build` makes of the case; the case as it is to run, where there is a package.
    pub fn prepare(&self) -> Result<Option<Prepared>> {
        self.trees.check_has(&self.expect)?;
        let ran = self.check_package()?;
        Ok((ran.code == Some(0)).then(|| Prepared {
            expect: self.expect.clone(),
            production: self.production.clone(),
            package: self.package(),
        }))
    }

    pub fn start(&self) -> Result<Running> {
        Running::start(&self.production.program, &[self.expect.target.threads.to_string()])
    }
}

pub(crate) fn read_expect(folder: &Path, arch: &str) -> Result<Expect> {
    let text = std::fs::read_to_string(folder.join("expect")).context("expect")?;
    parse(&text, arch).context("expect")
}

fn work_directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("ulp-case.").tempdir()?)
}

/// Compares a list of names in the JSON with what was expected, if anything was.
fn same_set(json: &Value, key: &str, wanted: Option<&BTreeSet<String>>, ran: &Ran) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let list = json.get(key).and_then(Value::as_array);
    let list = list.with_context(|| format!("--json has no list {key:?}\n{}", ran.report()))?;
    let mut found = BTreeSet::new();
    for item in list {
        found.insert(item.as_str().with_context(|| format!("{key} holds {item}"))?.to_string());
    }
    ensure_that!(found == *wanted, "{key}: {wanted:?} was expected, {found:?} was found\n{}", ran.report());
    Ok(())
}

fn check_need(need: Need, machine: &Machine) -> Result<()> {
    let (there, what) = match need {
        Need::X86_64 => (machine.arch == "x86_64", "an x86_64 machine"),
        Need::Cxx => (machine.has("g++"), "g++"),
        Need::Musl => (machine.has("musl-gcc"), "musl-gcc"),
        Need::Native => (machine.is_host(), "programs that run where they are compiled"),
        Need::UserNamespace => (user_namespaces_work(), "the right to make namespaces"),
    };
    if !there {
        bail!(CannotRun(format!("needs {what}")));
    }
    Ok(())
}
