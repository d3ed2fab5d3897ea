// SPDX-License-Identifier: GPL-2.0-or-later
//! Source trees as files: copies that a build may write to, digests, patches, and the list of what differs. The user's
//! own trees are only ever read.

use crate::capture::digest;
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

/// Folders of version control systems: part of a copy, because builds ask them for versions, but never a difference.
const VERSION_CONTROL: [&str; 6] = [".git", ".hg", ".svn", ".bzr", "CVS", ".pc"];

/// What stands at a path of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Directory,
    File { size: u64, executable: bool },
    Symlink(PathBuf),
}

/// All entries of a tree by their path in it. Sockets, pipes and devices are left out.
pub fn entries(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut all = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(directory) = todo.pop() {
        let path = root.join(&directory);
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?;
            let relative = directory.join(entry.file_name());
            let meta = entry.metadata()?;
            if meta.is_dir() {
                todo.push(relative.clone());
                all.insert(relative, Entry::Directory);
            } else if meta.is_symlink() {
                all.insert(relative, Entry::Symlink(fs::read_link(entry.path())?));
            } else if meta.is_file() {
                let executable = meta.permissions().mode() & 0o111 != 0;
                all.insert(relative, Entry::File { size: meta.len(), executable });
            }
        }
    }
    Ok(all)
}

/// Copies a tree with its modes, times and links.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let all = entries(from)?;
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for (path, entry) in &all {
        let to = to.join(path);
        match entry {
            Entry::Directory => fs::create_dir(&to).with_context(|| format!("cannot make {}", to.display()))?,
            Entry::Symlink(target) => {
                symlink(target, &to).with_context(|| format!("cannot make {}", to.display()))?;
            }
            Entry::File { .. } => {}
        }
    }
    all.par_iter()
        .filter(|(_, entry)| matches!(entry, Entry::File { .. }))
        .try_for_each(|(path, _)| copy_file(&from.join(path), &to.join(path)))?;
    // Times and modes of folders last, deepest first: filling a folder changes its time and needs write permission.
    for (path, _) in all.iter().rev().filter(|(_, entry)| **entry == Entry::Directory) {
        copy_attributes(&from.join(path), &to.join(path), 0o700)?;
    }
    copy_attributes(from, to, 0o700)
}

/// Copies one file with its mode and times.
pub fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    copy_attributes(from, to, 0o600)
}

/// Mode and times. The owner keeps `owner` rights, so that the copy can be changed and removed.
fn copy_attributes(from: &Path, to: &Path, owner: u32) -> Result<()> {
    let meta = fs::metadata(from)?;
    let times = fs::FileTimes::new().set_modified(meta.modified()?).set_accessed(meta.accessed()?);
    fs::set_permissions(to, fs::Permissions::from_mode(meta.permissions().mode() | owner))?;
    fs::File::open(to)
        .and_then(|file| file.set_times(times))
        .with_context(|| format!("cannot set the times of {}", to.display()))
}

fn is_version_control(path: &Path) -> bool {
    path.components().any(|c| matches!(c, Component::Normal(name) if VERSION_CONTROL.iter().any(|v| name == *v)))
}

/// One digest over all names, kinds and contents of a tree.
pub fn tree_digest(root: &Path) -> Result<String> {
    let all = entries(root)?;
    let lines: Vec<String> = all
        .par_iter()
        .filter(|(path, _)| !is_version_control(path))
        .map(|(path, entry)| {
            let what = match entry {
                Entry::Directory => "directory".to_string(),
                Entry::Symlink(target) => format!("link {}", target.display()),
                Entry::File { executable, .. } => {
                    let path = root.join(path);
                    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                    format!("file {executable} {}", digest(&bytes))
                }
            };
            Ok(format!("{}\0{what}\n", path.display()))
        })
        .collect::<Result<_>>()?;
    Ok(digest(lines.concat().as_bytes()))
}

/// How a path differs between two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Modified,
    Added,
    Removed,
}

/// A path that differs, relative to the trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: PathBuf,
    pub change: Change,
}

/// What differs between two trees.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// By path.
    pub files: Vec<Difference>,
    /// Files that differ only by the tree's own path, or are what a build or a configure run leaves behind.
    pub ignored: Vec<PathBuf>,
}

/// Compares two trees. A tree's own path in its files counts as the same on both sides.
pub fn differences(orig: &Path, fix: &Path) -> Result<Differences> {
    let (old, new) = (entries(orig)?, entries(fix)?);
    let mut paths: Vec<&PathBuf> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let verdicts: Vec<(PathBuf, Option<Change>, bool)> = paths
        .into_par_iter()
        .filter(|path| !is_version_control(path))
        .map(|path| {
            let (change, ignored) = match (old.get(path), new.get(path)) {
                (Some(Entry::Directory) | None, Some(Entry::Directory)) | (Some(Entry::Directory), None) => {
                    (None, false)
                }
                (Some(_), None) => (Some(Change::Removed), is_product(&orig.join(path))?),
                (None, Some(_)) => (Some(Change::Added), is_product(&fix.join(path))?),
                (Some(Entry::File { .. }), Some(Entry::File { .. })) => {
                    let (a, b) = (read(&orig.join(path))?, read(&fix.join(path))?);
                    if a == b {
                        (None, false)
                    } else {
                        let same = without_path(&a, orig) == without_path(&b, fix);
                        (Some(Change::Modified), same || is_product(&orig.join(path))?)
                    }
                }
                (a, b) if a == b => (None, false),
                _ => (Some(Change::Modified), false),
            };
            Ok((path.clone(), change, ignored))
        })
        .collect::<Result<_>>()?;
    let mut found = Differences::default();
    for (path, change, ignored) in verdicts {
        match change {
            Some(_) if ignored => found.ignored.push(path),
            Some(change) => found.files.push(Difference { path, change }),
            None => {}
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The bytes with every mention of the tree's own path taken out.
fn without_path(bytes: &[u8], root: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let Ok(root) = root.canonicalize() else { return bytes.to_vec() };
    replace(bytes, root.as_os_str().as_bytes(), b"\0tree\0")
}

/// Replaces a path in bytes, where it is a whole path or the beginning of one.
pub fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = find(rest, from) {
        let (before, after) = rest.split_at(at);
        let after = after.get(from.len()..).unwrap_or_default();
        out.extend_from_slice(before);
        let whole = !after.first().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+'));
        out.extend_from_slice(if whole { to } else { from });
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

/// Where `needle` first stands in `bytes`.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|b| *b == first) {
        let at = from + at;
        if bytes.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Whether a file is what compilers, linkers and configure scripts leave behind.
pub fn is_product(path: &Path) -> Result<bool> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let suffix = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    if ["o", "lo", "la", "a", "so", "d", "Po", "Plo", "gcda", "gcno", "gch", "pyc", "log", "cache"].contains(&&*suffix)
    {
        return Ok(true);
    }
    if matches!(&*name, "config.status" | "stamp-h1" | ".dirstamp" | ".ninja_log" | ".ninja_deps") {
        return Ok(true);
    }
    if !path.is_file() {
        return Ok(false);
    }
    Ok(is_binary(path)?.is_some())
}

/// Compiled files, told by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Object,
    Linked,
    Archive,
}

/// Whether a file is an ELF file or an archive.
pub fn is_binary(path: &Path) -> Result<Option<Binary>> {
    use std::io::Read;
    let mut head = Vec::with_capacity(18);
    fs::File::open(path)
        .and_then(|file| file.take(18).read_to_end(&mut head))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(if head.starts_with(b"!<arch>\n") || head.starts_with(b"!<thin>\n") {
        Some(Binary::Archive)
    } else if head.starts_with(b"\x7fELF") {
        // ET_REL is 1.
        Some(if matches!(head.get(16..18), Some([1, 0] | [0, 1])) { Binary::Object } else { Binary::Linked })
    } else {
        None
    })
}

/// A file of a tree that mentions one of these paths, generated or not.
pub fn mentions(root: &Path, paths: &[PathBuf]) -> Result<Option<PathBuf>> {
    use std::os::unix::ffi::OsStrExt;
    let all = entries(root)?;
    Ok(all
        .par_iter()
        .filter(|(path, entry)| {
            matches!(entry, Entry::File { .. })
                && !is_version_control(path)
                && path.extension().is_none_or(|e| e != "log" && e != "o" && e != "a")
        })
        .find_any(|(path, _)| {
            fs::read(root.join(path))
                .is_ok_and(|bytes| paths.iter().any(|p| find(&bytes, p.as_os_str().as_bytes()).is_some()))
        })
        .map(|(path, _)| path.clone()))
}

/// Replaces a path in every text file of a copy, for trees that were configured where they stood.
pub fn rewrite_path(root: &Path, from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let (from, to) = (from.as_os_str().as_bytes(), to.as_os_str().as_bytes());
    if from == to {
        return Ok(());
    }
    entries(root)?.par_iter().try_for_each(|(path, entry)| {
        if !matches!(entry, Entry::File { .. }) || is_version_control(path) {
            return Ok(());
        }
        let path = root.join(path);
        let bytes = read(&path)?;
        if find(&bytes, from).is_none() || bytes.contains(&0) {
            return Ok(());
        }
        let times = fs::metadata(&path)?.modified()?;
        fs::write(&path, replace(&bytes, from, to))?;
        Ok(fs::File::options().write(true).open(&path)?.set_modified(times)?)
    })
}

/// Applies patch files to a tree, each of them wholly.
pub fn apply_patches(tree: &Path, patches: &[PathBuf]) -> Result<()> {
    for patch in patches {
        let text = fs::read(patch).with_context(|| format!("cannot read {}", patch.display()))?;
        let strip = ["-p1", "-p0"]
            .into_iter()
            .find(|strip| matches!(run_patch(tree, &text, &[strip, "--dry-run"]), Ok((true, _))));
        let Some(strip) = strip else {
            let (_, output) = run_patch(tree, &text, &["-p1", "--dry-run"])?;
            bail!(
                "{} does not apply to {}: {}\n  check that the patch is for exactly these sources, and not applied already",
                patch.display(),
                tree.display(),
                output.trim()
            );
        };
        let (good, output) = run_patch(tree, &text, &[strip])?;
        if !good {
            bail!("{} does not apply to {}: {}", patch.display(), tree.display(), output.trim());
        }
    }
    Ok(())
}

/// Runs patch(1). `--force` keeps it from asking, and from taking a patch that is applied already for a reversed one.
fn run_patch(tree: &Path, text: &[u8], options: &[&str]) -> Result<(bool, String)> {
    let mut child = Command::new("patch")
        .args(["--force", "--no-backup-if-mismatch", "--reject-file=-", "-s", "-d"])
        .arg(tree)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run patch: install it, or give --fix DIR")?;
    let mut input = child.stdin.take().context("the pipe to patch is gone")?;
    // patch may stop reading early; its status tells.
    let feed = std::thread::spawn({
        let text = text.to_vec();
        move || input.write_all(&text)
    });
    let output = child.wait_with_output()?;
    let _ = feed.join();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        dir
    }

    #[test]
    fn what_differs() {
        let a =
            tree(&[("same.c", "x"), ("mod.c", "1"), ("old.c", ""), (".git/HEAD", "a"), ("x.o", "a"), ("sub/k.h", "")]);
        let b =
            tree(&[("same.c", "x"), ("mod.c", "2"), ("new.c", ""), (".git/HEAD", "b"), ("x.o", "b"), ("sub/k.h", "")]);
        for (dir, name) in [(&a, "Makefile"), (&b, "Makefile")] {
            fs::write(dir.path().join(name), format!("TOP={}/src", dir.path().display())).expect("a file");
        }
        let found = differences(a.path(), b.path()).expect("two trees");
        let got: Vec<_> = found.files.iter().map(|d| (d.path.to_str().expect("utf-8"), d.change)).collect();
        assert_eq!(got, [("mod.c", Change::Modified), ("new.c", Change::Added), ("old.c", Change::Removed)]);
        assert_eq!(found.ignored, [PathBuf::from("Makefile"), PathBuf::from("x.o")]);
    }

    #[test]
    fn copies_keep_modes_times_and_links() {
        let from = tree(&[("bin/run.sh", "#!/bin/sh\n"), ("a.c", "")]);
        let script = from.path().join("bin/run.sh");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
        symlink("a.c", from.path().join("link.c")).expect("a link");
        let to = tempfile::tempdir().expect("a temporary directory");
        let to = to.path().join("copy");
        copy(from.path(), &to).expect("a copy");
        let meta = |p: &Path| fs::metadata(p).expect("metadata");
        assert_eq!(meta(&to.join("bin/run.sh")).permissions().mode() & 0o777, 0o755);
        assert_eq!(
            meta(&to.join("a.c")).modified().expect("time"),
            meta(&from.path().join("a.c")).modified().expect("time")
        );
        assert_eq!(fs::read_link(to.join("link.c")).expect("a link"), PathBuf::from("a.c"));
        assert_eq!(tree_digest(from.path()).expect("digest"), tree_digest(&to).expect("digest"));
        fs::write(to.join("a.c"), "changed").expect("a file");
        assert_ne!(tree_digest(from.path()).expect("digest"), tree_digest(&to).expect("digest"));
    }

    #[test]
    fn patches_apply_wholly_or_not() {
        let dir = tree(&[("src/a.c", "one\ntwo\n"), ("src/b.c", "three\n")]);
        let good = "--- a/src/a.c\n+++ b/src/a.c\n@@ -1,2 +1,2 @@\n one\n-two\n+TWO\n";
        let half = format!(
            "{}--- a/src/b.c\n+++ b/src/b.c\n@@ -1 +1 @@\n-nothing\n+like this\n",
            good.replace("two", "TWO").replace("+TWO", "+2")
        );
        let patches = tree(&[("good", good), ("half", &half)]);
        apply_patches(dir.path(), &[patches.path().join("good")]).expect("it applies");
        let text = |f: &str| fs::read_to_string(dir.path().join(f)).expect("text");
        assert_eq!(text("src/a.c"), "one\nTWO\n");
        // Applied a second time, or applying in part only: an error, and nothing is written.
        for name in ["good", "half"] {
            assert!(apply_patches(dir.path(), &[patches.path().join(name)]).is_err(), "{name}");
            assert_eq!(text("src/a.c"), "one\nTWO\n", "{name}");
        }
    }

    #[test]
    fn paths_are_replaced_whole() {
        assert_eq!(replace(b"a=/x/t b=/x/t/s c=/x/t2", b"/x/t", b"/y"), b"a=/y b=/y/s c=/x/t2");
    }
}
