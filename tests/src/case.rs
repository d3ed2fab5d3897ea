// SPDX-License-Identifier: GPL-2.0-or-later
//! One case from its folder to its verdict.

use crate::expect::{Apply, Build, Expect, Need, parse};
use crate::machine::Machine;
use crate::process::{Running, user_namespaces_work};
use crate::tools::{Ran, repository, run, ulp_apply, ulp_build};
use crate::trees::{Production, Trees};
use crate::{CannotRun, elf, ensure_that};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The patch's name in every case.
pub const NAME: &str = "fix";

/// A case that is laid out, with its production built.
#[derive(Debug)]
pub struct Case {
    pub expect: Expect,
    pub trees: Trees,
    pub production: Production,
    machine: Machine,
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
    case.trees.check_has(&case.expect)?;
    let package = case.package();
    let ran = case.check_package()?;
    if let (Build::Changed(functions), Some(0)) = (&case.expect.build, ran.code) {
        case.check_info(&package)?;
        case.live(&package, functions)?;
    }
    Ok(())
}

impl Case {
    /// Lays the trees out and builds production, for this machine.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_for(folder, &Machine::host())
    }

    /// Likewise for a machine.
    pub fn open_for(folder: &Path, machine: &Machine) -> Result<Self> {
        let text = std::fs::read_to_string(folder.join("expect")).context("expect")?;
        let expect = parse(&text, &machine.arch).context("expect")?;
        for need in &expect.needs {
            check_need(*need, machine)?;
        }
        let work = tempfile::Builder::new().prefix("ulp-case.").tempdir()?;
        let trees = Trees::lay_out(folder, work.path(), &expect, machine)?;
        let production = trees.production(&expect)?;
        Ok(Self { expect, trees, production, machine: machine.clone(), work })
    }

    /// The case of this name under `tests/cases`.
    pub fn named(name: &str) -> Result<Self> {
        Self::open(&repository().join("tests/cases").join(name))
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
        Self::open(&repository().join("tests/life").join(name))
    }

    /// Makes a package of another fix: the original tree with this text replaced in `main.c` or `main.cc`.
    pub fn package_of(&self, name: &str, old: &str, new: &str) -> Result<PathBuf> {
        self.package_with(name, &[(old, new)], &[])
    }

    /// Makes a package of another fix: the original tree with these texts replaced there, and more options.
    pub fn package_with(&self, name: &str, edits: &[(&str, &str)], options: &[&str]) -> Result<PathBuf> {
        let tree = self.work().join(format!("fix-{name}"));
        crate::trees::copy(&self.trees.before, &tree)?;
        let names = ["main.c", "main.cc"];
        let source = names.iter().map(|n| tree.join(n)).find(|p| p.exists()).context("no main.c")?;
        let mut text = std::fs::read_to_string(&source)?;
        for (old, new) in edits {
            ensure_that!(text.contains(old), "{} has no {old:?}", source.display());
            text = text.replace(old, new);
        }
        std::fs::write(&source, text)?;
        let package = self.work().join(name).with_extension("ulp");
        let mut command = ulp_build()?;
        command.arg("--orig").arg(&self.trees.before).arg("--fix").arg(&tree);
        for target in &self.production.targets {
            command.arg("--target").arg(target);
        }
        run(command.args(options).arg("-o").arg(&package))?.expect_code(0)?;
        Ok(package)
    }

    /// Makes the package, for tests that go on by themselves.
    pub fn build_package(&self) -> Result<PathBuf> {
        let package = self.package();
        self.ulp_build(&package, false)?.expect_code(0)?;
        Ok(package)
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

    /// `info` must tell a stranger what the package is for.
    fn check_info(&self, package: &Path) -> Result<()> {
        let ran = run(ulp_apply()?.arg("info").arg(package))?;
        ran.expect_code(0)?;
        for target in &self.production.targets {
            let id = elf::build_id(target)?;
            let ours = ran.stdout.contains(&id) || self.production.targets.len() > 1;
            ensure_that!(ours, "info does not show the build-id {id}\n{}", ran.report());
        }
        ensure_that!(ran.stdout.contains(NAME), "info does not show the patch's name\n{}", ran.report());
        if let Some(grade) = &self.expect.identity {
            let json = run(ulp_apply()?.arg("info").arg(package).arg("--json"))?;
            json.expect_code(0)?.json()?;
            ensure_that!(
                json.stdout.contains(&format!("\"{grade}\"")),
                "info does not state the identity {grade}\n{}",
                json.report()
            );
        }
        if let Some(wanted) = self.expect.gates {
            let json = run(ulp_apply()?.arg("info").arg(package).arg("--json"))?;
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
    fn live(&self, package: &Path, functions: &BTreeSet<String>) -> Result<()> {
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
            let busy = self.apply(package, &target, &self.expect.wait)?;
            target.check_alive()?;
            busy.expect_code(4)?;
            ensure_that!(busy.stderr.contains(function), "busy, but {function} is not named\n{}", busy.report());
            ensure_that!(old == Picture::take(&target, &self.production)?, "busy, and yet code has changed");
            self.ask_all(&mut target, Moment::Before)?;
            let Some(line) = &self.expect.release else { return target.check_alive() };
            target.ask(line)?;
        }
        let applied = self.apply(package, &target, "20s")?;
        target.check_alive()?;
        applied.expect_code(0)?;
        self.ask_all(&mut target, Moment::After)?;
        target.check_alive()?;
        let new = Picture::take(&target, &self.production)?;
        self.check_entries(&target, functions, &old, &new)?;
        self.check_protections(&target)?;
        ensure_that!(listed(&target)?, "list does not show the patch");
        run(ulp_apply()?.args(["verify", "--pid"]).arg(target.pid().to_string()))?.expect_code(0)?;

        let reverted =
            run(ulp_apply()?.args(["revert", NAME, "--wait", "20s", "--pid"]).arg(target.pid().to_string()))?;
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

    fn apply(&self, package: &Path, target: &Running, wait: &str) -> Result<Ran> {
        run(ulp_apply()?.arg("apply").arg(package).args(["--wait", wait, "--pid"]).arg(target.pid().to_string()))
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
