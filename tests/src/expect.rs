// SPDX-License-Identifier: GPL-2.0-or-later
//! Reads a case's `expect` file: `key: value` lines, `#` comments. An unknown key, a wrong value or a contradiction is an
//! error, because an expectation that nobody checks is worse than none.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;

/// Everything that a case asks for and expects.
#[derive(Clone, Debug)]
pub struct Expect {
    pub toolchain: Toolchain,
    pub target: Target,
    pub build: Build,
    /// Functions that only the fixed program has; `None`: not checked.
    pub new: Option<BTreeSet<String>>,
    /// Functions that the fixed program no longer has; `None`: not checked.
    pub gone: Option<BTreeSet<String>>,
    /// Text that must appear among `ulp-build`'s warnings.
    pub warn: Vec<String>,
    /// `--accept` options.
    pub accept: Vec<String>,
    /// What the compiled objects must show, so that the case provokes what it says.
    pub has: Vec<Has>,
    /// Functions whose instructions are the same in both trees: only what they refer to has changed.
    pub same_code: Vec<String>,
    /// A refusal with this code is as right as the patch: the situation can be understood or not, but never got wrong.
    pub or_refuse: Option<String>,
    /// The identity grade that the package must state.
    pub identity: Option<String>,
    /// How many functions have a gate; the package is atomic where one at most has none.
    pub gates: Option<usize>,
    /// Lines sent once, before the first question; each is answered.
    pub setup: Vec<String>,
    pub asks: Vec<Ask>,
    pub apply: Apply,
    /// A line that makes the busy thread leave; then the apply must succeed.
    pub release: Option<String>,
    /// `--wait` of the apply.
    pub wait: String,
    /// What this machine must offer.
    pub needs: Vec<Need>,
    /// Selftest only: text that the failure of this case must contain.
    pub fails: Option<String>,
}

/// How both trees are built.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub cc: String,
    pub cflags: String,
    pub ldflags: String,
    pub libs: String,
    /// `--build`; without it the build system is detected.
    pub command: Option<String>,
    /// `--patch` with a diff of the trees in place of `--fix`.
    pub patch: bool,
    /// Other options of `ulp-build`.
    pub options: Vec<String>,
}

/// What is patched and how it runs.
#[derive(Clone, Debug)]
pub struct Target {
    /// The ELF files to patch, relative to the tree; handed over as `--target`.
    pub files: Vec<String>,
    /// The program to start.
    pub run: String,
    pub strip: Strip,
    /// Parked threads that the program starts at once.
    pub threads: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strip {
    No,
    /// Symbols are thrown away.
    Yes,
    /// Symbols go to a file of their own, given as `--debuginfo`.
    Debuginfo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Build {
    Changed(BTreeSet<String>),
    NoChange,
    Refuse { code: String, symbol: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    Ok,
    Busy { function: String },
}

/// A question and the answers of the old program, the patched one and the reverted one.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub line: String,
    pub before: String,
    pub after: String,
    /// The old answer, unless the program counts.
    pub reverted: Option<String>,
}

/// A symbol or section of the compiled objects.
#[derive(Clone, Debug)]
pub struct Has {
    pub before: Option<bool>,
    pub after: Option<bool>,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    X86_64,
    Cxx,
    Musl,
    UserNamespace,
    /// What is compiled has to run here: the build does so itself.
    Native,
}

/// Kinds of machines that a line may be for: `aarch64 build: ...`.
pub const MACHINES: [&str; 3] = ["x86_64", "aarch64", "loongarch64"];

/// Reads the file as it is for a kind of machine.
pub fn parse(text: &str, machine: &str) -> Result<Expect> {
    let mut e = Expect {
        toolchain: Toolchain {
            cc: "gcc".into(),
            cflags: "-O2 -g".into(),
            ldflags: String::new(),
            libs: String::new(),
            command: None,
            patch: false,
            options: Vec::new(),
        },
        target: Target { files: vec!["app".into()], run: "app".into(), strip: Strip::No, threads: 0 },
        build: Build::NoChange,
        new: None,
        gone: None,
        warn: Vec::new(),
        accept: Vec::new(),
        has: Vec::new(),
        same_code: Vec::new(),
        or_refuse: None,
        identity: None,
        gates: None,
        setup: Vec::new(),
        asks: Vec::new(),
        apply: Apply::Ok,
        release: None,
        wait: "20s".into(),
        needs: Vec::new(),
        fails: None,
    };
    let mut build = None;
    let mut own = Vec::new();
    let mut other = e.clone();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) =
            line.split_once(':').with_context(|| format!("line {}: no `key: value`: {line}", number + 1))?;
        match key.trim().split_once(' ').filter(|(name, _)| MACHINES.contains(name)) {
            Some((name, key)) if name == machine => own.push((number, key.trim(), value.trim())),
            // Whoever writes it for another machine has to spell it right all the same.
            Some((_, key)) => one(&mut other, &mut None, key.trim(), value.trim())?,
            None => one(&mut e, &mut build, key.trim(), value.trim())
                .with_context(|| format!("line {}: {line}", number + 1))?,
        }
    }
    // What is said for one kind of machine stands in place of what is said for all.
    if own.iter().any(|(_, key, _)| *key == "warn") {
        e.warn.clear();
    }
    let other_build = own.iter().any(|(_, key, _)| *key == "build");
    for (number, key, value) in own {
        one(&mut e, &mut build, key, value).with_context(|| format!("line {}", number + 1))?;
    }
    if other_build && !matches!(build, Some(Build::Changed(_))) {
        // Nothing is applied here that could be asked.
        (e.asks, e.apply, e.release) = (Vec::new(), Apply::Ok, None);
    }
    e.build = build.context("no `build:` line")?;
    check(&e)?;
    Ok(e)
}

fn one(e: &mut Expect, build: &mut Option<Build>, key: &str, value: &str) -> Result<()> {
    let words = || value.split_whitespace().map(str::to_string);
    match key {
        "cc" => e.toolchain.cc = value.into(),
        "cflags" => e.toolchain.cflags = value.into(),
        "ldflags" => e.toolchain.ldflags = value.into(),
        "libs" => e.toolchain.libs = value.into(),
        "command" => e.toolchain.command = Some(value.into()),
        "options" => e.toolchain.options = words().collect(),
        "fix-as" => {
            e.toolchain.patch = match value {
                "patch" => true,
                "tree" => false,
                _ => bail!("patch or tree"),
            }
        }
        "target" => e.target.files = words().collect(),
        "run" => e.target.run = value.into(),
        "threads" => e.target.threads = value.parse()?,
        "strip" => {
            e.target.strip = match value {
                "no" => Strip::No,
                "yes" => Strip::Yes,
                "debuginfo" => Strip::Debuginfo,
                _ => bail!("yes, no or debuginfo"),
            }
        }
        "build" => *build = Some(parse_build(value)?),
        "new" => e.new = Some(words().collect()),
        "gone" => e.gone = Some(words().collect()),
        "warn" => e.warn.push(value.into()),
        "accept" => e.accept.push(value.into()),
        "has" => e.has.push(parse_has(value)?),
        "same-code" => e.same_code.extend(words()),
        "or-refuse" => e.or_refuse = Some(value.into()),
        "gates" => e.gates = Some(value.parse()?),
        "identity" => e.identity = Some(value.into()),
        "setup" => e.setup.push(value.into()),
        "ask" => e.asks.push(Ask { line: value.into(), ..Ask::default() }),
        "before" => last(e)?.before = value.into(),
        "after" => last(e)?.after = value.into(),
        "reverted" => last(e)?.reverted = Some(value.into()),
        "apply" => {
            e.apply = match value.split_once(' ') {
                None if value == "ok" => Apply::Ok,
                Some(("busy", rest)) => {
                    let function = rest.trim().strip_prefix("function=").context("busy function=NAME")?;
                    Apply::Busy { function: function.into() }
                }
                _ => bail!("ok, or busy function=NAME"),
            }
        }
        "release" => e.release = Some(value.into()),
        "wait" => e.wait = value.into(),
        "alive" if value == "yes" => {} // Always checked; may be said for the reader.
        "needs" => {
            for word in value.split_whitespace() {
                e.needs.push(match word {
                    "x86_64" => Need::X86_64,
                    "c++" => Need::Cxx,
                    "musl" => Need::Musl,
                    "user-namespace" => Need::UserNamespace,
                    "native" => Need::Native,
                    _ => bail!("unknown need {word}"),
                });
            }
        }
        "fails" => e.fails = Some(value.into()),
        _ => bail!("unknown key {key}"),
    }
    Ok(())
}

fn last(e: &mut Expect) -> Result<&mut Ask> {
    e.asks.last_mut().context("an answer without an `ask:` above it")
}

fn parse_build(value: &str) -> Result<Build> {
    let mut words = value.split_whitespace();
    let build = match words.next() {
        Some("changed") => Build::Changed(words.by_ref().map(str::to_string).collect()),
        Some("no-change") => Build::NoChange,
        Some("refuse") => {
            let code = words.next().context("refuse CODE")?.to_string();
            if !code.starts_with("E-") {
                bail!("a code starts with E-");
            }
            Build::Refuse { code, symbol: words.next().map(str::to_string) }
        }
        _ => bail!("changed NAME..., no-change or refuse CODE [SYMBOL]"),
    };
    if words.next().is_some() {
        bail!("too many words");
    }
    Ok(build)
}

/// `both .cold`, `before x.0`, `only-after .rodata.cst16`, `neither foo`.
fn parse_has(value: &str) -> Result<Has> {
    let (side, text) = value.split_once(' ').context("has: SIDE TEXT")?;
    let (before, after) = match side {
        "before" => (Some(true), None),
        "after" => (None, Some(true)),
        "both" => (Some(true), Some(true)),
        "neither" => (Some(false), Some(false)),
        "only-before" => (Some(true), Some(false)),
        "only-after" => (Some(false), Some(true)),
        _ => bail!("before, after, both, neither, only-before or only-after"),
    };
    Ok(Has { before, after, text: text.trim().into() })
}

/// Says no to a case that would check less than it seems to.
fn check(e: &Expect) -> Result<()> {
    match &e.build {
        Build::Changed(functions) => {
            if functions.is_empty() {
                bail!("`build: changed` names no function");
            }
            if e.asks.is_empty() {
                bail!("a patch without a question: nothing would show that it works");
            }
        }
        Build::NoChange | Build::Refuse { .. } => {
            if !e.asks.is_empty() || e.apply != Apply::Ok || e.release.is_some() {
                bail!("nothing is applied here, so nothing can be asked");
            }
        }
    }
    for ask in &e.asks {
        if ask.before.is_empty() || ask.after.is_empty() {
            bail!("`ask: {}` needs `before:` and `after:`", ask.line);
        }
    }
    if !e.asks.is_empty() && e.asks.iter().all(|a| a.before == a.after) {
        bail!("no answer differs: nothing would show that the patch is in");
    }
    if e.release.is_some() && e.apply == Apply::Ok {
        bail!("`release:` without `apply: busy`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_check_less_than_it_seems_is_an_error() {
        for (text, why) in [
            ("build: changed f\nask: x\nbefore: 1\nafter: 2\ncolour: red", "unknown key"),
            ("ask: x", "no `build:`"),
            ("build: changed", "names no function"),
            ("build: changed f", "without a question"),
            ("build: changed f\nask: x\nbefore: 1", "needs"),
            ("build: changed f\nask: x\nbefore: 1\nafter: 1", "no answer differs"),
            ("build: no-change\nask: x\nbefore: 1\nafter: 2", "nothing is applied"),
            ("build: refuse DATA", "starts with E-"),
            ("build: refuse E-X a b", "too many words"),
            ("build: no-change\napply: maybe", "ok, or busy"),
            ("build: no-change\nalive: no", "unknown key"),
            ("before: 1", "without an `ask:`"),
        ] {
            let error = format!("{:#}", parse(text, "x86_64").expect_err(text));
            assert!(error.contains(why), "{text:?} gave {error}");
        }
    }

    #[test]
    fn a_full_file_is_read() {
        let e = parse(
            "# why\ncflags: -O3\nbuild: changed f g\nask: x: y\nbefore: 1\nafter: 2\nreverted: 3\nhas: only-after a.0",
            "x86_64",
        )
        .expect("it is well formed");
        assert_eq!(e.build, Build::Changed(["f".to_string(), "g".to_string()].into()));
        assert_eq!((e.asks[0].line.as_str(), e.asks[0].reverted.as_deref()), ("x: y", Some("3")));
        assert_eq!((e.has[0].before, e.has[0].after), (Some(false), Some(true)));
    }
}
