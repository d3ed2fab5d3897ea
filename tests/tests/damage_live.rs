// SPDX-License-Identifier: GPL-2.0-or-later
//! Damaged packages through `ulp-apply apply` on a live process. Under a digest that does not hold none is accepted. A digest
//! proves that a package is whole, not who made it: under one that holds, `ulp-apply` may accept what agrees with the
//! process in every point it can compare, and then writes nothing but entries that it compared, and takes it back exactly.
//! `ULP_LONG=1` tries two thousand of either kind.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use ulp_format::Package;
use ulp_tests::case::{Case, Picture};
use ulp_tests::ensure_that;
use ulp_tests::mutate::{Random, Specimen, how_many};
use ulp_tests::process::{Mapping, Running};
use ulp_tests::tools::{Ran, run, ulp_apply};

/// A case, its target, and what the target was like before anybody touched it.
struct Bench {
    case: Case,
    specimen: Specimen,
    original: Package,
    target: Running,
    code: Picture,
    maps: Vec<Mapping>,
    file: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Result<Self> {
        let case = Case::named(name)?;
        let specimen = Specimen::new(std::fs::read(case.build_package()?)?)?;
        let original = Package::read(&specimen.bytes)?;
        let target = case.start()?;
        let file = case.work().join("damaged.ulp");
        let (code, maps) = (Picture::take(&target, &case.production)?, lasting(&target)?);
        let mut bench = Self { case, specimen, original, target, code, maps, file };
        bench.answers(false)?;
        Ok(bench)
    }

    /// A new process in place of one that keeps memory of a patch.
    fn start_again(&mut self) -> Result<()> {
        self.target = self.case.start()?;
        self.code = Picture::take(&self.target, &self.case.production)?;
        self.answers(false)?;
        self.maps = lasting(&self.target)?;
        Ok(())
    }

    /// Asks what the case asks, as it answers with or without the patch.
    fn answers(&mut self, new: bool) -> Result<()> {
        for ask in &self.case.expect.asks {
            let wanted = if new { &ask.after } else { &ask.before };
            let answer = self.target.ask(&ask.line)?;
            ensure_that!(answer == *wanted, "{:?} was answered {answer:?}, not {wanted:?}", ask.line);
        }
        self.target.check_alive()
    }

    fn apply(&self, bytes: &[u8]) -> Result<Ran> {
        std::fs::write(&self.file, bytes)?;
        run(ulp_apply()?
            .arg("apply")
            .arg(&self.file)
            .args(["--wait", "2s", "--pid"])
            .arg(self.target.pid().to_string()))
    }

    fn check_unchanged(&mut self) -> Result<()> {
        self.target.check_alive()?;
        ensure_that!(self.code == Picture::take(&self.target, &self.case.production)?, "refused, and yet code changed");
        ensure_that!(self.maps == lasting(&self.target)?, "refused, and yet the memory map changed");
        self.answers(false)
    }

    /// An accepted package wrote to its own entries alone, and can be taken back. Only where its code is the original's the
    /// target is asked meanwhile: other code would be what the package says, whatever that does.
    fn check_accepted(&mut self, bytes: &[u8]) -> Result<&'static str> {
        let package = Package::read(bytes).context("accepted by ulp-apply and not by the reader")?;
        let bias = self.target.load_bias(self.case.production.targets.first().context("a target")?)?;
        let entries: Vec<_> = package
            .manifest
            .targets
            .iter()
            .flat_map(|t| &t.functions)
            .map(|f| bias + f.entry.0..bias + f.entry.0 + f.old_bytes.len() as u64 / 2)
            .collect();
        let now = Picture::take(&self.target, &self.case.production)?;
        for at in self.code.changed(&now)? {
            ensure_that!(entries.iter().any(|e| e.contains(&at)), "code at {at:#x} changed, which is no entry");
        }
        let both = |m: &Mapping| m.rights.contains('w') && m.rights.contains('x');
        ensure_that!(!self.target.maps()?.iter().any(both), "a mapping is writable and executable");
        let same = runs_the_same(&package, &self.original);
        if same {
            self.answers(true).context("the code is the original's")?;
        }
        let name = &package.manifest.name;
        run(ulp_apply()?.args(["revert", name, "--wait", "20s", "--pid"]).arg(self.target.pid().to_string()))?
            .expect_code(0)?;
        self.target.check_alive()?;
        ensure_that!(self.code == Picture::take(&self.target, &self.case.production)?, "the revert was not exact");
        self.answers(false)?;
        self.start_again()?;
        Ok(if same { "accepted, the original's behaviour" } else { "accepted, what that package says" })
    }
}

/// The heap's and the stacks' ends move by themselves.
fn lasting(target: &Running) -> Result<Vec<Mapping>> {
    Ok(target.lasting_maps()?.into_iter().collect())
}

/// Whether the package makes the same functions run the same code, as far as that is decided by its contents.
fn runs_the_same(a: &Package, b: &Package) -> bool {
    let targets = a.manifest.targets.iter().zip(&b.manifest.targets);
    let function = |f: &ulp_format::Function| (f.entry, f.new_symbol.clone(), f.old_bytes.clone());
    a.sections == b.sections
        && a.symbols == b.symbols
        && a.manifest.targets.len() == b.manifest.targets.len()
        && targets.into_iter().all(|(a, b)| {
            (&a.build_id, a.kind, &a.sections, &a.references) == (&b.build_id, b.kind, &b.sections, &b.references)
                && a.functions.iter().map(function).eq(b.functions.iter().map(function))
        })
}

/// No way that `ulp-apply` ends may be a crash, and what it prints is safe for a terminal.
fn check_end(ran: &Ran) -> Result<i32> {
    let code = ran.code.with_context(|| format!("ulp-apply was killed\n{}", ran.report()))?;
    ensure_that!(matches!(code, 0 | 1 | 4 | 5 | 7), "an exit code that apply does not have\n{}", ran.report());
    ensure_that!(!ran.stderr.contains("panicked"), "ulp-apply panicked\n{}", ran.report());
    let text = |c: char| !c.is_control() || c == '\n' || c == '\t';
    ensure_that!(ran.stderr.chars().chain(ran.stdout.chars()).all(text), "control characters\n{:?}", ran.report());
    Ok(code)
}

fn show(path: &Path, tally: &BTreeMap<String, usize>) {
    println!("{}: {tally:?}", path.display());
}

#[test]
fn damaged_packages_change_no_process() -> Result<()> {
    let mut bench = Bench::new("two-functions-in-one-fix")?;
    let mut tally = BTreeMap::<String, usize>::new();
    for number in 0..how_many(100, 2_000) {
        let bytes = bench.specimen.damaged(&mut Random::new(number as u64));
        let ran = bench.apply(&bytes)?;
        let code = check_end(&ran).with_context(|| format!("mutation {number}"))?;
        ensure_that!(code == 7, "mutation {number} was not refused as damaged\n{}", ran.report());
        bench.check_unchanged().with_context(|| format!("mutation {number}\n{}", ran.report()))?;
        *tally.entry(format!("exit {code}")).or_default() += 1;
    }
    show(&bench.file, &tally);
    // What it was all about: the package itself is accepted.
    bench.apply(&bench.specimen.bytes)?.expect_code(0)?;
    bench.answers(true)
}

#[test]
fn forged_packages_write_nothing_but_what_was_compared() -> Result<()> {
    let mut all = BTreeMap::<String, usize>::new();
    for name in ["two-functions-in-one-fix", "initialised-statics-added"] {
        let mut bench = Bench::new(name)?;
        let mut tally = BTreeMap::<String, usize>::new();
        for number in 0..how_many(50, 1_000) {
            // Another sequence than the reader's, so that the two do not try the same.
            let forged = bench.specimen.forged(&mut Random::new(1 << 32 | number as u64));
            let ran = bench.apply(&forged.bytes)?;
            let what = || format!("{name}, mutation {number}: {:?}\n{}", forged.done, ran.report());
            let code = check_end(&ran).with_context(what)?;
            let became = if code == 0 {
                bench.check_accepted(&forged.bytes).with_context(what)?.to_owned()
            } else {
                bench.check_unchanged().with_context(what)?;
                format!("exit {code}")
            };
            *tally.entry(became).or_default() += 1;
        }
        show(Path::new(name), &tally);
        tally.into_iter().for_each(|(became, n)| *all.entry(became).or_default() += n);
    }
    ensure_that!(all.keys().any(|k| k.starts_with("accepted")), "no mutation got past the comparisons: {all:?}");
    ensure_that!(all.contains_key("exit 5"), "no mutation was refused by a comparison: {all:?}");
    Ok(())
}
