// SPDX-License-Identifier: GPL-2.0-or-later
//! docs/scenarios.md and the case folders say the same, and no number that the foundation promises is without a test.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use ulp_tests::case::folders;
use ulp_tests::ensure_that;
use ulp_tests::expect::{Build, Expect, MACHINES, parse};
use ulp_tests::tools::repository;

/// The numbers of the foundation's list, and those of them that belong to more of C++, link-time optimisation and
/// resolvers, which come later.
const NUMBERS: std::ops::RangeInclusive<u32> = 1..=111;
const LATER: &[u32] = &[36, 37, 38, 41, 45, 82, 83];
/// Situations that must be refused, each with a twin that goes through.
const REFUSED: &[u32] = &[11, 12, 13, 14, 15, 16, 21, 32, 42, 43, 49, 58, 62, 76, 92, 104, 105, 106, 107];

/// What an applier meets, under the names that the page's second table has for it.
const SITUATIONS: &[&str] = &[
    "PIE",
    "non-PIE",
    "static",
    "static-PIE",
    "stripped",
    "function in a shared library",
    "in a dlopen'ed library",
    "in two libraries and the program at once",
    "forked workers",
    "binary replaced or deleted on disk",
    "other mount, pid, user namespace, chroot",
    "MemoryDenyWriteExecute",
    "seccomp allow-list",
    "seccomp KILL",
    "PR_SET_DUMPABLE 0",
    "16 KiB and 64 KiB pages",
    "1 thread in a tight loop",
    "64 threads",
    "1000 threads",
    "in a function that never returns",
    "signal handler running, alternate stack",
    "a coroutine/ucontext stack suspended inside it",
    "recursion, mutual recursion",
    "red zone in use",
    "blocked in nanosleep, poll, epoll_wait, futex, read, accept",
    "zombie",
    "entry across a page",
    "10 integer and 10 floating-point arguments",
    "varargs",
    "struct returns",
    "3-byte function",
    "6-byte function with a close neighbour",
    "loop branching to its first bytes",
    "jump from elsewhere into the first bytes",
    "-fipa-ra callers with live registers",
    "far patch area (stub)",
    "exceptions and backtrace() through patched code",
    "gdb shows the name of a patched function",
    "wrong build-id",
    "wrong machine",
    "foreign bytes at an entry",
    "damaged package",
    "ulp-apply killed at every step",
    "target killed at every step",
    "every syscall of ulp-apply made to fail",
    "no memory near the text",
    "no permission, with the reason",
    "no permission because of Yama or a security module",
    "a package whose old-code digest does not match memory",
    "apply twice",
    "two patches, different functions",
    "two patches, same function",
    "revert the middle one of three",
    "revert all",
    "cumulative replace in one stop",
    "10,000 apply/revert under load",
    "revert while a thread sleeps in new code",
    "fork after apply, revert in the child",
    "several ELF files all or nothing",
    "two functions and their data switch together",
    "new code stored a string, then revert, then it is used",
    "new code stored a callback, then revert, then it is used",
    "new code stored a timer, then revert, then it is used",
    "exec, exit, fork, vfork during apply",
    "dlclose and reload",
    "pid reuse between verify and stop",
    "first thread ended",
    "CLONE_VM sibling",
    "io_uring",
    "rseq",
    "SIGALRM storm during the stop",
    "uprobe at the entry before",
    "uprobe at the entry after",
    "two ulp-apply at once",
    "musl program",
    "i386 and x32 process",
    "library loaded twice (dlmopen)",
    "more than 4,000 threads",
    "threads spawning in a storm",
    "memory cgroup at its limit",
    "RLIMIT_AS",
    "a timed wait ends on time while a busy apply waits",
    "a debugger is attached",
    "group-stopped stays stopped",
    "thread asleep inside it",
    "every thread hot in the patched function",
];

/// Number to names, as the table has them.
fn table() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = std::fs::read_to_string(repository().join("docs/scenarios.md"))?;
    let mut rows = BTreeMap::<String, BTreeSet<String>>::new();
    let (numbered, _) = text.split_once("\n## What an applier meets").context("the page's second part")?;
    for line in numbered.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let number = cells.next().context("a number")?.to_string();
        let name = cells.next().context("a name")?.trim_matches('`').to_string();
        rows.entry(number).or_default().insert(name);
    }
    Ok(rows)
}

#[test]
fn every_folder_is_listed_and_every_name_exists() -> Result<()> {
    let listed: BTreeSet<String> = table()?.into_values().flatten().collect();
    let there: BTreeSet<String> = folders("cases")?.into_iter().map(|(name, _)| name).collect();
    for name in &there {
        ensure_that!(listed.contains(name), "docs/scenarios.md does not list {name}");
    }
    for name in listed.difference(&there) {
        exists(name)?;
    }
    Ok(())
}

/// Whether there is a test of this name: `FILE::NAME` here, `CRATE/FILE::NAME` in another crate.
fn exists(name: &str) -> Result<()> {
    let (file, function) = name.split_once("::").with_context(|| format!("there is no case {name}"))?;
    let (home, file) = file.split_once('/').unwrap_or(("tests", file));
    let path = repository().join(home).join("tests").join(file).with_extension("rs");
    let source = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let place = source.find(&format!("fn {function}()")).with_context(|| format!("there is no test {name}"))?;
    let before = source.get(..place).unwrap_or_default();
    let listed =
        source.split_once("main_of_tests!").is_some_and(|(_, list)| list.contains(&format!("    {function},")));
    ensure_that!(listed || before.trim_end().ends_with("#[test]"), "{name} is no test");
    Ok(())
}

#[test]
fn every_situation_has_a_test_or_a_reason() -> Result<()> {
    let text = std::fs::read_to_string(repository().join("docs/scenarios.md"))?;
    let (_, situations) = text.split_once("\n## What an applier meets").context("the page's second part")?;
    let mut rows = BTreeMap::new();
    for line in situations.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| situation")) {
        let (name, tests) = line.trim_matches(['|', ' ']).split_once(" | ").context("two cells")?;
        ensure_that!(rows.insert(name, tests).is_none(), "{name} stands there twice");
    }
    let folders: BTreeSet<String> = folders("cases")?.into_iter().map(|(name, _)| name).collect();
    for name in SITUATIONS {
        let tests = rows.remove(name).with_context(|| format!("docs/scenarios.md does not have {name:?}"))?;
        if let Some(reason) = tests.strip_prefix("not yet: ") {
            ensure_that!(reason.len() > 20, "{name:?} hardly says why there is no test");
            continue;
        }
        let mut named = tests.split('`').skip(1).step_by(2).peekable();
        ensure_that!(named.peek().is_some(), "{name:?} names no test");
        named.filter(|test| !folders.contains(*test)).try_for_each(exists)?;
    }
    ensure_that!(rows.is_empty(), "situations that nobody asks for: {:?}", rows.keys());
    Ok(())
}

#[test]
fn every_number_has_a_case() -> Result<()> {
    let table = table()?;
    let text = std::fs::read_to_string(repository().join("docs/scenarios.md"))?;
    for number in NUMBERS.filter(|number| !LATER.contains(number)) {
        // Without a test there has to be a reason.
        let reason = text.lines().find_map(|line| line.strip_prefix(&format!("| D{number} | not yet | ")));
        let reasoned = reason.is_some_and(|reason| reason.len() > 20);
        let tested = table.contains_key(&format!("D{number}"));
        ensure_that!(tested != reasoned, "D{number} needs either a case or a reason why there is none yet");
    }
    Ok(())
}

#[test]
fn every_refusal_has_a_twin() -> Result<()> {
    let folders: BTreeMap<String, PathBuf> = folders("cases")?.into_iter().collect();
    let numbers = REFUSED.iter().map(|number| format!("D{number}")).chain(["E-EH".into()]);
    let table = table()?;
    for number in numbers {
        let names = table.get(&number).with_context(|| format!("{number} has no case"))?;
        let (mut refused, mut patched) = (false, false);
        for name in names.iter().filter_map(|name| folders.get(name)) {
            let expect = parse(&std::fs::read_to_string(name.join("expect"))?, ARCH)?;
            refused |= matches!(expect.build, Build::Refuse { .. }) || expect.or_refuse.is_some();
            // D58's twin stands under D56: a symbol that a library does have.
            patched |= matches!(expect.build, Build::Changed(_)) || number == "D58";
        }
        ensure_that!(refused && patched, "{number} needs a case that is refused and one that is patched");
    }
    Ok(())
}

#[test]
fn every_case_says_why_it_exists() -> Result<()> {
    let table = table()?;
    for (name, folder) in folders("cases")? {
        let mut files = vec![folder.join("before.c"), folder.join("before")];
        let mut at = 0;
        while let Some(path) = files.get(at) {
            if let Ok(entries) = path.read_dir() {
                files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>());
            }
            at += 1;
        }
        let first = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).ok()?;
            let line = text.lines().next()?.strip_prefix("// ")?.strip_suffix(").")?;
            line.rsplit_once(" (").map(|(why, number)| (why.to_string(), number.to_string()))
        };
        let (why, number) =
            files.iter().find_map(first).with_context(|| format!("{name} does not say why it exists"))?;
        ensure_that!(why.len() > 30, "{name} hardly says why it exists: {why}");
        let listed = table.get(&number).is_some_and(|names| names.contains(&name));
        ensure_that!(listed, "{name} says {number}, docs/scenarios.md does not");
    }
    Ok(())
}

#[test]
fn every_refusal_code_is_documented() -> Result<()> {
    let page: &Path = &repository().join("docs/refusals.md");
    let text = std::fs::read_to_string(page)?;
    for (name, folder) in folders("cases")? {
        let expect = parse(&std::fs::read_to_string(folder.join("expect"))?, ARCH)?;
        if let Build::Refuse { code, .. } = &expect.build {
            ensure_that!(text.contains(code.as_str()), "{name} wants {code}, which docs/refusals.md does not have");
        }
    }
    // Every code of the program has its row, and every row a case or a test in which it can be seen.
    let folders: BTreeSet<String> = folders("cases")?.into_iter().map(|(name, _)| name).collect();
    let model = std::fs::read_to_string(repository().join("ulp-build/src/model.rs"))?;
    let codes: Vec<&str> = model.split('"').filter(|word| word.starts_with("E-")).collect();
    ensure_that!(codes.len() > 25, "only {} codes were found", codes.len());
    for code in codes {
        let row = text.lines().find(|line| line.starts_with(&format!("| {code} | ")));
        let row = row.with_context(|| format!("docs/refusals.md has no row for {code}"))?;
        let seen = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default().trim().trim_matches('`');
        if folders.contains(seen) {
            // On one kind of machine or another.
            let expect = std::fs::read_to_string(repository().join("tests/cases").join(seen).join("expect"))?;
            let all = MACHINES.map(|machine| parse(&expect, machine)).into_iter().collect::<Result<Vec<_>>>()?;
            let wants = |e: &Expect| matches!(&e.build, Build::Refuse { code: wanted, .. } if wanted == code);
            let refused = all.iter().any(wants);
            ensure_that!(refused, "{seen} does not expect {code}");
        } else {
            exists(seen).with_context(|| format!("where {code} is seen"))?;
        }
    }
    Ok(())
}

/// A claim of docs/safety.md is worth what its test is worth.
#[test]
fn tests_that_guard_safety_exist() -> Result<()> {
    let text = std::fs::read_to_string(repository().join("docs/safety.md"))?;
    let mut guards = 0;
    for name in text.split('`').skip(1).step_by(2).filter(|word| word.contains("::") && !word.contains(' ')) {
        exists(name)?;
        guards += 1;
    }
    ensure_that!(guards > 20, "only {guards} tests are named");
    Ok(())
}
