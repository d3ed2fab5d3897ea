// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs a build command at its place under the eyes of the shims. Leaves out what a build means; `units` finds that.

use super::place::Place;
use crate::capture::Store;
use crate::trees::{self, Binary};
use crate::work::Group;
use anyhow::{Context, Result, anyhow, bail};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// How a tree says that it is to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    pub command: String,
    /// The file it was detected by.
    pub by: &'static str,
}

/// Finds the build command of a tree that comes without one.
pub fn detect(tree: &Path, jobs: usize) -> Result<Detected> {
    let found = |by, command: String| Ok(Detected { command, by });
    for makefile in ["GNUmakefile", "makefile", "Makefile"] {
        if tree.join(makefile).is_file() {
            return found(makefile, format!("make -j{jobs}"));
        }
    }
    if tree.join("configure").is_file() {
        return found("configure", format!("./configure && make -j{jobs}"));
    }
    if tree.join("CMakeLists.txt").is_file() {
        return found("CMakeLists.txt", format!("cmake -S . -B build && cmake --build build -j {jobs}"));
    }
    if tree.join("meson.build").is_file() {
        return found(
            "meson.build",
            format!("{{ test -e build/build.ninja || meson setup build; }} && ninja -C build -j {jobs}"),
        );
    }
    if tree.join("debian/rules").is_file() {
        return found("debian/rules", "dpkg-buildpackage -b -uc -us".into());
    }
    bail!(
        "{} has no Makefile, configure, CMakeLists.txt, meson.build or debian/rules\n  say with --build CMD how it is built",
        tree.display()
    )
}

/// Runs the build command; everything it says goes to `log`.
pub fn run(place: &Place, store: &Store, command: &str, log: &Path) -> Result<()> {
    let status = shell(place, Some(store), command, log)?;
    if !status {
        bail!(
            "the build failed: {command}\n{}  the command has to work in a fresh copy of the tree; give another with --build CMD",
            last_lines(log, 15)
        );
    }
    Ok(())
}

fn shell(place: &Place, store: Option<&Store>, line: &str, log: &Path) -> Result<bool> {
    let out = fs::File::options().create(true).append(true).open(log)?;
    let mut command = place.command(&place.seen, OsStr::new("sh"))?;
    command.arg("-c").arg(line).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    // Shells trust PWD when it names their directory; production's own build had it too.
    command.env("PWD", &place.seen).process_group(0);
    if let Some(store) = store {
        command.envs(store.environment());
    }
    let mut child = command.spawn().context("cannot run sh")?;
    let _group = Group::of(&child);
    Ok(child.wait()?.success())
}

fn last_lines(log: &Path, count: usize) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(count)).map(|line| format!("  | {line}\n")).collect()
}

/// Makes a copy of a tree that was built before build everything again. Returns what was done, for the user.
pub fn clean(place: &Place, command: &str, log: &Path) -> Result<Option<String>> {
    // Packaging tools clean by themselves, and by rules of their own.
    let packaging = ["dpkg-buildpackage", "debuild", "rpmbuild"].iter().any(|tool| command.contains(tool));
    if packaging || products(&place.real)?.is_empty() {
        return Ok(None);
    }
    let line = if ["GNUmakefile", "makefile", "Makefile"].iter().any(|m| place.real.join(m).is_file()) {
        Some("make clean")
    } else if place.real.join("build/build.ninja").is_file() {
        Some("ninja -C build clean")
    } else if place.real.join("build/Makefile").is_file() {
        Some("make -C build clean")
    } else {
        None
    };
    // It may fail: what it leaves is removed below.
    let cleaned = match line {
        Some(line) => shell(place, None, line, log)?,
        None => false,
    };
    let left = products(&place.real)?;
    for path in &left {
        fs::remove_file(place.real.join(path)).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    let how = if cleaned { format!("with {}", line.unwrap_or_default()) } else { "by hand".into() };
    Ok(Some(format!("the tree was built already; its copy was cleaned {how}, {} more files removed", left.len())))
}

/// Objects, and archives of them, that were compiled here: not listed by git, and beside their source.
fn products(tree: &Path) -> Result<Vec<PathBuf>> {
    let all = trees::entries(tree)?;
    let tracked = tracked(tree);
    let stems: std::collections::BTreeSet<_> = all
        .keys()
        .filter(|p| {
            p.extension()
                .is_some_and(|e| ["c", "cc", "cpp", "cxx", "C", "s", "S", "m", "l", "y"].iter().any(|s| e == *s))
        })
        .filter_map(|p| p.file_stem())
        .collect();
    let mut found = Vec::new();
    let mut archives = Vec::new();
    for (path, entry) in &all {
        if !matches!(entry, trees::Entry::File { .. }) || tracked.contains(path) {
            continue;
        }
        let suffix = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
        // `x.o`, `x.lo` and `prog-x.o` come from `x.c`; a vendor's object without source stays.
        let stem = path.file_stem().unwrap_or_default();
        let of_source = stems.contains(stem)
            || stem.to_string_lossy().rsplit_once('-').is_some_and(|(_, s)| stems.contains(OsStr::new(s)))
            || stems.contains(Path::new(stem).file_stem().unwrap_or_default());
        match &*suffix {
            "o" | "os" | "obj" if of_source && trees::is_binary(&tree.join(path))? == Some(Binary::Object) => {
                found.push(path.clone());
            }
            "lo" if of_source => found.push(path.clone()),
            "a" if trees::is_binary(&tree.join(path))? == Some(Binary::Archive) => archives.push(path.clone()),
            _ => {}
        }
    }
    if !found.is_empty() {
        found.extend(archives);
    }
    Ok(found)
}

fn tracked(tree: &Path) -> std::collections::BTreeSet<PathBuf> {
    let listed = std::process::Command::new("git").arg("-C").arg(tree).args(["ls-files", "-z"]).output();
    let Ok(listed) = listed.map_err(|e| anyhow!(e)) else { return Default::default() };
    use std::os::unix::ffi::OsStrExt;
    listed.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| PathBuf::from(OsStr::from_bytes(n))).collect()
}
