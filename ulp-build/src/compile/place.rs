// SPDX-License-Identifier: GPL-2.0-or-later
//! Where a build takes place. A copy of the tree is mounted at the tree's own path, in a mount namespace that dies with
//! the command: absolute paths inside a configured tree stay true, and the user's files are never written. The parent
//! directory is private too, because packaging tools write `../`. Since this crate may not fork by itself, the program
//! runs itself under a hidden name, makes the namespace and becomes the command.

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hidden first argument.
pub const HIDDEN: &str = "__build-in";

/// More entries than this beside the tree are too many mounts: the parent directory is then not made private.
const MAX_SIBLINGS: usize = 2000;

/// A copy of a tree, and the path at which a build sees it.
#[derive(Clone, Debug)]
pub struct Place {
    /// What the build sees.
    pub seen: PathBuf,
    /// Where the files are.
    pub real: PathBuf,
    /// What the build sees in place of `seen`'s parent; `None`: no namespace, `seen` is `real`.
    pub private: Option<PathBuf>,
}

impl Place {
    /// The file behind a path that a build has seen.
    pub fn real(&self, seen: &Path) -> PathBuf {
        match seen.strip_prefix(&self.seen) {
            Ok(inside) => self.real.join(inside),
            Err(_) => match (&self.private, self.seen.parent()) {
                // What the build wrote beside its tree.
                (Some(private), Some(parent)) => match seen.strip_prefix(parent) {
                    Ok(beside) if private.join(beside).exists() && !seen.exists() => private.join(beside),
                    _ => seen.to_owned(),
                },
                _ => seen.to_owned(),
            },
        }
    }

    /// A path that a build has seen, relative to its tree; `None` when it is outside. Links are followed.
    pub fn relative(&self, seen: &Path) -> Option<PathBuf> {
        let real = self.real(seen);
        let real = real.canonicalize().unwrap_or(real);
        let inside = real.strip_prefix(&self.real).or_else(|_| real.strip_prefix(&self.seen));
        inside.ok().map(Path::to_owned)
    }

    /// The same place with another copy in it.
    pub fn with(&self, real: &Path) -> Self {
        Self { real: real.to_owned(), ..self.clone() }
    }

    /// A command that runs at this place, in directory `cwd` as the build sees it.
    pub fn command(&self, cwd: &Path, program: &OsStr) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        // An empty word: no namespace.
        let private = self.private.clone().unwrap_or_default();
        command.arg(HIDDEN).arg(&self.seen).arg(&self.real).arg(private).arg(cwd).arg(program);
        Ok(command)
    }

    /// Whether namespaces can be made here; else why not.
    pub fn try_out(&self) -> Result<()> {
        let output = self.command(&self.seen, OsStr::new("true"))?.output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// `__build-in SEEN REAL PRIVATE CWD PROGRAM ARGS...`: mounts REAL at SEEN and becomes the program. Returns only errors.
pub fn enter(arguments: &[OsString]) -> Result<std::convert::Infallible> {
    let [seen, real, private, cwd, program, rest @ ..] = arguments else { bail!("{HIDDEN} is for ulp-build itself") };
    let (seen, real, private) = (Path::new(seen), Path::new(real), Path::new(private));
    // The signals that `work::catch_signals` keeps for its own thread are the build's as well.
    SigSet::all().thread_unblock().context("cannot unblock signals")?;
    if !private.as_os_str().is_empty() {
        own_namespace()?;
        let ancestor = seen.ancestors().skip(1).find(|p| p.is_dir()).context("a tree has a parent directory")?;
        let (entries, few) = siblings(ancestor)?;
        if few {
            mount_private(ancestor, &entries, seen, real, private)?;
        } else {
            bind(real, seen)?;
        }
    }
    std::env::set_current_dir(cwd).with_context(|| format!("cannot enter {}", Path::new(cwd).display()))?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot run {}", Path::new(program).display()))
}

/// A mount namespace of our own: as root directly, else inside a user namespace that keeps our own user.
fn own_namespace() -> Result<()> {
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context("cannot make a namespace")?;
        // The kernel wants setgroups forbidden before an unprivileged process maps its group.
        fs::write("/proc/self/setgroups", "deny").context("cannot forbid setgroups")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).context("cannot map the user")?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).context("cannot map the group")?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .context("cannot separate the mounts")
}

fn siblings(directory: &Path) -> Result<(Vec<(PathBuf, fs::FileType)>, bool)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        if all.len() >= MAX_SIBLINGS {
            return Ok((Vec::new(), false));
        }
        all.push((entry.path(), entry.file_type()?));
    }
    Ok((all, true))
}

/// Gives the build its own version of `ancestor`: what is there is there still, the tree is the copy, and what the
/// build makes beside its tree lands in `private`.
fn mount_private(
    ancestor: &Path,
    entries: &[(PathBuf, fs::FileType)],
    seen: &Path,
    real: &Path,
    private: &Path,
) -> Result<()> {
    fs::create_dir_all(private)?;
    // The folder that holds the work directory comes first, while nothing is mounted inside of it.
    let (holding, others): (Vec<_>, Vec<_>) = entries.iter().partition(|(path, _)| private.starts_with(path));
    for (path, kind) in holding.into_iter().chain(others) {
        let Some(name) = path.file_name() else { continue };
        let at = private.join(name);
        if kind.is_symlink() {
            if at.symlink_metadata().is_err() {
                std::os::unix::fs::symlink(fs::read_link(path)?, &at)?;
            }
            continue;
        }
        if path == seen {
            continue;
        }
        if kind.is_file() && path.metadata().is_ok_and(|m| m.len() <= COPIED) {
            // The build may write to it, or put another one in its place, as packaging tools do with what they made last time.
            let _ = copy_once(path, &at, private);
            continue;
        }
        if kind.is_dir() {
            fs::create_dir_all(&at)?;
        } else if !at.exists() {
            fs::File::create(&at)?;
        }
        // What cannot be mounted (a folder without permission) the build could not have used either.
        let bound = bind(path, &at).is_ok();
        let hidden = name.to_string_lossy().starts_with('.');
        if bound
            && (kind.is_file() || kind.is_dir() && !hidden)
            && !private.starts_with(path)
            && ancestor != Path::new("/")
        {
            let _ = read_only(&at);
        }
    }
    let inside = seen.strip_prefix(ancestor).context("the tree is inside its ancestor")?;
    let at = private.join(inside);
    fs::create_dir_all(&at)?;
    bind(real, &at)?;
    if ancestor == Path::new("/") {
        // Nothing can be mounted over the root directory, but another one can be entered.
        return nix::unistd::chroot(private).context("cannot change the root directory");
    }
    bind(private, ancestor)
}

/// Larger files beside the tree are shown as they are, read-only.
const COPIED: u64 = 64 << 20;

/// Copies a file, whole or not at all: several commands enter at the same time.
fn copy_once(from: &Path, to: &Path, private: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    let copy = tempfile::NamedTempFile::new_in(private)?;
    fs::copy(from, copy.path())?;
    copy.as_file().set_modified(fs::metadata(from)?.modified()?)?;
    match copy.persist_noclobber(to) {
        Err(e) if e.error.kind() != std::io::ErrorKind::AlreadyExists => Err(e.error.into()),
        _ => Ok(()),
    }
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    // With everything below: a user namespace may not bind a folder without the mounts inside of it.
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

/// Makes one mount read-only, with the restrictions it has already, which a user namespace must not drop.
fn read_only(at: &Path) -> Result<()> {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let now = statvfs(at)?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    for (has, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if now.contains(has) {
            flags |= keep;
        }
    }
    Ok(mount(None::<&str>, at, None::<&str>, flags, None::<&str>)?)
}
