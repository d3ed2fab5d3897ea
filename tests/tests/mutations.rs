// SPDX-License-Identifier: GPL-2.0-or-later
//! Small mutations of a program, each made into a patch and applied to the running original. The judge is the same program
//! compiled from the mutated source: for every input the two must answer alike. A refusal must be the one that the table
//! says, and `no-change` must be true.
//!
//! `tests/mutations/NAME.c` is a program, `NAME.mutations` what is done to it. `ULP_LONG=1` does it with other options too.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use ulp_tests::ensure_that;
use ulp_tests::process::Running;
use ulp_tests::tools::{Ran, repository, run, ulp_apply, ulp_build};
use ulp_tests::trees::{copy, tool};

/// What every function is asked.
const INPUTS: [i32; 14] = [-17, -3, -1, 0, 1, 2, 3, 4, 5, 6, 7, 9, 64, 1000];

/// One line of a table.
struct Mutation {
    what: String,
    from: String,
    to: String,
    outcome: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Patched,
    NoChange,
    Refused(String),
    /// What a compiler makes of it differs: anything that is right.
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Patched,
    NoChange,
    Refused(Vec<String>),
}

/// A program, built as production, with a work directory that every patch reuses.
struct Fixture {
    dir: tempfile::TempDir,
    source: String,
    questions: Vec<String>,
    cflags: String,
}

fn read(name: &str) -> Result<(String, Vec<Mutation>)> {
    let at = |extension: &str| repository().join("tests/mutations").join(name).with_extension(extension);
    let source = std::fs::read_to_string(at("c"))?;
    let mut mutations = Vec::new();
    for line in std::fs::read_to_string(at("mutations"))?.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let mut parts = line.split(" @ ");
        let what = parts.next().context("a kind")?.to_owned();
        let edit = parts.next().with_context(|| format!("{what}: no edit"))?;
        let (from, to) = edit.split_once(" => ").with_context(|| format!("{what}: no =>"))?;
        let outcome = match parts.next() {
            None => Expected::Patched,
            Some("no-change") => Expected::NoChange,
            Some("any") => Expected::Any,
            Some(code) => Expected::Refused(code.to_owned()),
        };
        let text = |t: &str| t.replace("\\n", "\n");
        let (from, to) = (text(from), text(to));
        ensure_that!(
            source.matches(&from).count() == 1,
            "{what}: the text stands there {} times",
            source.matches(&from).count()
        );
        mutations.push(Mutation { what, from, to, outcome });
    }
    Ok((source, mutations))
}

impl Fixture {
    fn new(source: &str, cflags: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ulp-mutations.").tempdir()?;
        let orig = dir.path().join("orig");
        std::fs::create_dir(&orig)?;
        copy(&repository().join("tests/support"), &orig)?;
        std::fs::write(orig.join("main.c"), source)?;
        let link = if cflags.contains("-no-pie") { "-no-pie" } else { "-pie" };
        let makefile = format!(
            "app: main.o ask.o\n\tgcc {link} -o $@ main.o ask.o -lm -pthread\n%.o: %.c ask.h\n\tgcc {cflags} -c -o $@ $<\nclean:\n\trm -f app *.o\n"
        );
        std::fs::write(orig.join("Makefile"), makefile)?;
        copy(&orig, &dir.path().join("production"))?;
        tool(Command::new("make").arg("-s").current_dir(dir.path().join("production")))?;
        // The names that answer() compares with are those of the functions.
        let names: BTreeSet<&str> =
            source.split("strcmp(name, \"").skip(1).filter_map(|s| s.split('"').next()).collect();
        let questions = names.iter().flat_map(|name| INPUTS.iter().map(move |n| format!("{name} {n}"))).collect();
        Ok(Self { dir, source: source.to_owned(), questions, cflags: cflags.to_owned() })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Everything the program at `app` answers when it is fresh.
    fn answers(&self, program: &mut Running) -> Result<Vec<String>> {
        self.questions.iter().map(|question| program.ask(question)).collect()
    }

    fn fresh(&self, app: &Path) -> Result<Vec<String>> {
        let mut program = Running::start(app, &[])?;
        let answers = self.answers(&mut program)?;
        program.end()?;
        Ok(answers)
    }

    /// Makes one patch and holds the patched program against the mutated one.
    fn try_one(&self, mutation: &Mutation, old: &[String], number: usize) -> Result<Outcome> {
        let fix = self.at("fix");
        if fix.exists() {
            std::fs::remove_dir_all(&fix)?;
        }
        copy(&self.at("orig"), &fix)?;
        std::fs::write(fix.join("main.c"), self.source.replace(&mutation.from, &mutation.to))?;
        let out = self.at("fix.ulp");
        let _ = std::fs::remove_file(&out);
        let mut command = ulp_build()?;
        command.arg("--orig").arg(self.at("orig")).arg("--fix").arg(&fix).arg("--work").arg(self.at("work"));
        command.arg("--target").arg(self.at("production/app")).arg("--name").arg(format!("m{number}"));
        let built = run(command.arg("--json").arg("-o").arg(&out))?;
        if built.code == Some(5) {
            return Ok(Outcome::Refused(codes(&built)?));
        }
        tool(Command::new("make").arg("-s").current_dir(&fix)).context("the mutated source")?;
        let new = self.fresh(&fix.join("app"))?;
        match built.code {
            Some(0) => {}
            Some(3) => {
                ensure_that!(new == old, "no change, and yet {}", self.first(old, &new));
                return Ok(Outcome::NoChange);
            }
            _ => bail!("{}", built.report()),
        }
        let mut program = Running::start(&self.at("production/app"), &[])?;
        let pid = program.pid().to_string();
        run(ulp_apply()?.arg("apply").arg(&out).args(["--pid", &pid]))?.expect_code(0)?;
        let patched = self.answers(&mut program)?;
        ensure_that!(patched == new, "WRONG: {}", self.first(&new, &patched));
        run(ulp_apply()?.arg("revert").arg(&out).args(["--pid", &pid]))?.expect_code(0)?;
        // State goes on, so only functions without any can be held against the original.
        for (question, old) in self.questions.iter().zip(old) {
            let stateful = ["count ", "add ", "thread "].iter().any(|name| question.starts_with(name));
            let answer = program.ask(question)?;
            ensure_that!(stateful || answer == *old, "WRONG after the revert: {question}: {answer}, not {old}");
        }
        program.end()?;
        Ok(Outcome::Patched)
    }

    fn first(&self, want: &[String], got: &[String]) -> String {
        let differ = self.questions.iter().zip(want.iter().zip(got)).find(|(_, (a, b))| a != b);
        differ.map_or_else(String::new, |(q, (a, b))| format!("{q:?} ({}) was answered {b:?}, not {a:?}", self.cflags))
    }
}

fn codes(built: &Ran) -> Result<Vec<String>> {
    let json = built.json()?;
    let refusals = json["refusals"].as_array().context("refusals")?;
    Ok(refusals.iter().filter_map(|r| r["code"].as_str()).map(str::to_owned).collect())
}

/// All mutations of a fixture with one set of options. Prints the counts, and fails with everything that is not as the table says.
fn mutate(name: &str, cflags: &str) -> Result<()> {
    let (source, mutations) = read(name)?;
    let fixture = Fixture::new(&source, cflags)?;
    let old = fixture.fresh(&fixture.at("production/app"))?;
    let (mut patched, mut refused, mut same, mut wrong) = (0, 0, 0, Vec::new());
    for (number, mutation) in mutations.iter().enumerate() {
        match fixture.try_one(mutation, &old, number) {
            Err(error) => wrong.push(format!("{}: {error:#}", mutation.what)),
            Ok(outcome) => {
                match &outcome {
                    Outcome::Patched => patched += 1,
                    Outcome::NoChange => same += 1,
                    Outcome::Refused(_) => refused += 1,
                }
                let fits = match (&mutation.outcome, &outcome) {
                    (Expected::Any, _)
                    | (Expected::Patched, Outcome::Patched)
                    | (Expected::NoChange, Outcome::NoChange) => true,
                    (Expected::Refused(code), Outcome::Refused(codes)) => codes.contains(code),
                    _ => false,
                };
                if !fits && cflags == USUAL {
                    wrong.push(format!("{}: {outcome:?} in place of {:?}", mutation.what, mutation.outcome));
                }
            }
        }
    }
    println!(
        "{name} ({cflags}): {} mutations tried, {patched} patched right, {same} truly without change, {refused} refused, {} wrong or not as expected",
        mutations.len(),
        wrong.len()
    );
    ensure_that!(wrong.is_empty(), "{name} ({cflags}):\n{}", wrong.join("\n"));
    ensure_that!(
        cflags != USUAL || refused * 10 <= mutations.len() * 3,
        "{refused} of {} were refused",
        mutations.len()
    );
    Ok(())
}

const USUAL: &str = "-O2 -g";

/// With other options a refusal may come where the table has a patch; never a wrong patch.
const OTHERS: [&str; 7] = [
    "-O0 -g",
    "-O1",
    "-O3 -g",
    "-Os",
    "-O2 -fno-pie -no-pie",
    "-O2 -fPIC -fcf-protection",
    "-O3 -march=x86-64-v3 -ffast-math",
];

fn all(name: &str) -> Result<()> {
    mutate(name, USUAL)?;
    if std::env::var_os("ULP_LONG").is_some() {
        let results: Vec<Result<()>> = OTHERS.iter().map(|cflags| mutate(name, cflags)).collect();
        results.into_iter().collect::<Result<Vec<()>>>()?;
    }
    Ok(())
}

#[test]
fn numbers() -> Result<()> {
    all("numbers")
}

#[test]
fn data() -> Result<()> {
    all("data")
}
