// SPDX-License-Identifier: GPL-2.0-or-later
//! Rules of the house that a machine can check. Each says why.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use ulp_tests::ensure_that;
use ulp_tests::tools::{repository, run};

/// The only file that may talk to the kernel without the compiler's guard.
const UNSAFE_ROOM: &str = "ulp-apply/src/process/sys.rs";

/// Every file of the repository, relative to its root: what git knows, and what it would add.
fn files() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(repository()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let ran = run(&mut git)?;
    if ran.code == Some(0) {
        let mut files: Vec<_> = ran.stdout.lines().map(str::to_string).collect();
        files.retain(|file| repository().join(file).exists());
        ensure_that!(files.len() > 50, "git lists only {} files", files.len());
        return Ok(files);
    }
    // A source archive has no git; then everything but the build's own is looked at.
    let mut files = Vec::new();
    walk(&repository(), Path::new(""), &mut files)?;
    Ok(files)
}

fn walk(root: &Path, below: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in root.join(below).read_dir()? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if path == Path::new("target") || path == Path::new(".git") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(root, &path, files)?;
        } else {
            files.push(path.display().to_string());
        }
    }
    Ok(())
}

fn text(file: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(file)).with_context(|| file.to_string())
}

/// Rust files, with what stands before their unit tests.
fn rust_files() -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for file in files()?.into_iter().filter(|file| file.ends_with(".rs")) {
        let whole = text(&file)?;
        let code = match whole.split_once("#[cfg(test)]") {
            // What follows one test-only item may be real code again; only a module ends the file.
            Some((code, rest))
                if ["mod ", "pub mod ", "pub(crate) mod "].iter().any(|m| rest.trim_start().starts_with(m)) =>
            {
                code.to_string()
            }
            _ => whole,
        };
        all.push((file, code));
    }
    Ok(all)
}

/// A line without its comment and without what stands in strings, roughly: enough to find words of code.
fn code_of(line: &str) -> String {
    let line = line.split("//").next().unwrap_or_default();
    line.split('"').step_by(2).collect()
}

#[test]
fn every_source_names_its_licence() -> Result<()> {
    for file in files()? {
        let of_a_case = ["tests/cases/", "tests/selftest/", "tests/life/"].iter().any(|dir| file.starts_with(dir));
        let source = [".rs", ".sh", ".c", ".h", ".py", ".toml", "Makefile", ".ci/run", ".S"]
            .iter()
            .any(|end| file.ends_with(end));
        if source && !of_a_case {
            let head: String = text(&file)?.lines().take(3).collect();
            ensure_that!(head.contains("SPDX-License-Identifier: GPL-2.0-or-later"), "{file} has no SPDX line");
        }
    }
    Ok(())
}

/// Small and audited means: one file, and a reason beside each block.
#[test]
fn unsafe_lives_in_one_room() -> Result<()> {
    for (file, code) in rust_files()? {
        let mut previous: Vec<&str> = Vec::new();
        for (number, line) in code.lines().enumerate() {
            let words = code_of(line);
            // The keyword with what follows it in code; the bare word stands in help texts that span lines.
            let found = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait", "unsafe("]
                .iter()
                .any(|start| words.contains(start));
            if found {
                ensure_that!(file == UNSAFE_ROOM, "{file}:{}: unsafe outside {UNSAFE_ROOM}", number + 1);
                let reason = previous.iter().rev().take(8).any(|line| line.contains("SAFETY:"));
                ensure_that!(reason, "{file}:{}: no SAFETY comment", number + 1);
            }
            previous.push(line);
        }
    }
    for root in ["arch/src/lib.rs", "ulp-format/src/lib.rs", "ulp-build/src/lib.rs", "tests/src/lib.rs"] {
        ensure_that!(text(root)?.contains("#![forbid(unsafe_code)]"), "{root} does not forbid unsafe code");
    }
    Ok(())
}

/// Generic code asks the arch trait for a property; all architectures always compile.
#[test]
fn no_code_asks_for_the_host() -> Result<()> {
    for (file, code) in rust_files()? {
        let of_tests = file.starts_with("tests/") || file.contains("/tests/") || file.contains("/benches/");
        if file == UNSAFE_ROOM || of_tests {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let found = line.contains("target_arch");
            ensure_that!(!found || line.trim_start().starts_with("//"), "{file}:{}: {line}", number + 1);
        }
    }
    Ok(())
}

/// A panic while the target is stopped leaves it to chance. `expect` with a reason is for invariants of our own.
#[test]
fn the_applier_does_not_panic() -> Result<()> {
    for (file, code) in rust_files()?.into_iter().filter(|(file, _)| file.starts_with("ulp-apply/src/")) {
        for (number, line) in code.lines().enumerate() {
            let words = code_of(line);
            for word in [".unwrap()", "panic!(", "unreachable!(", "unimplemented!(", "todo!("] {
                ensure_that!(!words.contains(word), "{file}:{}: {word}", number + 1);
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_is_left_half_done() -> Result<()> {
    for (file, code) in rust_files()? {
        if file == "tests/tests/tidy.rs" {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            for word in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"] {
                ensure_that!(!line.contains(word), "{file}:{}: {word}", number + 1);
            }
        }
    }
    Ok(())
}

/// One idea per file: whoever opens it should be able to read it.
#[test]
fn files_stay_readable() -> Result<()> {
    for (file, _) in rust_files()? {
        let lines = text(&file)?.lines().count();
        ensure_that!(lines <= 900, "{file} has {lines} lines");
    }
    Ok(())
}

/// The top level is a table of contents.
#[test]
fn the_top_level_stays_small() -> Result<()> {
    const KNOWN: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "rustfmt.toml",
        "deny.toml",
        "LICENSE",
        "README.md",
        "INSTALL.md",
        "RELEASE.md",
        ".gitignore",
        ".gitattributes",
        ".cargo",
        ".config",
        ".ci",
        "arch",
        "ulp-format",
        "ulp-build",
        "ulp-apply",
        "fixtures",
        "tests",
        "docs",
    ];
    for file in files()? {
        let top = file.split('/').next().unwrap_or_default();
        ensure_that!(KNOWN.contains(&top), "{file} adds {top} to the top level");
    }
    Ok(())
}

/// A link to a file that is not there sends the reader away.
#[test]
fn links_in_the_documents_resolve() -> Result<()> {
    for file in files()?.into_iter().filter(|file| file.ends_with(".md")) {
        let text = text(&file)?;
        let dir = Path::new(&file).parent().map(PathBuf::from).unwrap_or_default();
        for part in text.split("](").skip(1) {
            let link = part.split([')', ' ']).next().unwrap_or_default();
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            ensure_that!(repository().join(&dir).join(path).exists(), "{file} links to {link}, which is not there");
        }
    }
    Ok(())
}
