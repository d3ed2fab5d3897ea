// SPDX-License-Identifier: GPL-2.0-or-later
//! The work directory: the copy of the original tree, what its build left in the store, and the recompiled objects.
//! Everything of one original (sources, build command, environment, tool) stands in a folder named by their digest, so
//! that a second patch finds the build done. A build that was cut short has no `complete` mark and is done again.

use crate::capture::{Store, digest};
use crate::model::Request;
use crate::trees;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Environment variables that change what a build makes.
const ENVIRONMENT: [&str; 14] = [
    "CC",
    "CXX",
    "CPP",
    "AS",
    "LD",
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "LDFLAGS",
    "ASFLAGS",
    "MAKEFLAGS",
    "PATH",
    "SOURCE_DATE_EPOCH",
    "DEB_BUILD_OPTIONS",
];

/// What is to go, and who is to be told, when this program is ended by a signal.
#[derive(Default)]
struct Cleanup {
    remove: Vec<PathBuf>,
    groups: Vec<i32>,
}

static CLEANUP: Mutex<Cleanup> = Mutex::new(Cleanup { remove: Vec::new(), groups: Vec::new() });

/// From now on an interrupt ends the build that is running and removes the temporary directory. Call it before any
/// thread starts: they inherit the mask that leaves the signals to one thread that waits for them.
pub fn catch_signals() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    if signals.thread_block().is_err() {
        return;
    }
    std::thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        if let Ok(cleanup) = CLEANUP.lock() {
            for group in &cleanup.groups {
                let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(*group), Signal::SIGTERM);
            }
            for path in &cleanup.remove {
                // The dying build may still be writing: a second pass gets what the first one missed.
                for _ in 0..20 {
                    if fs::remove_dir_all(path).is_ok() || !path.exists() {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            }
        }
        std::process::exit(128 + signal as i32);
    });
}

/// A process group that an interrupt has to reach, for as long as this lives.
pub struct Group(i32);

impl Group {
    pub fn of(child: &std::process::Child) -> Self {
        let group = i32::try_from(child.id()).unwrap_or(0);
        if let Ok(mut cleanup) = CLEANUP.lock()
            && group > 1
        {
            cleanup.groups.push(group);
        }
        Self(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(mut cleanup) = CLEANUP.lock() {
            cleanup.groups.retain(|group| *group != self.0);
        }
    }
}

/// A work directory, ours alone for as long as this lives.
pub struct Work {
    /// The folder of this original.
    root: PathBuf,
    /// The folder of this run.
    run: PathBuf,
    temporary: Option<PathBuf>,
    _lock: Option<Flock<fs::File>>,
}

impl Work {
    /// Opens the work directory of a request, waiting for another run that uses it.
    pub fn open(request: &Request, build: &str, seen: &Path) -> Result<Self> {
        let (base, temporary, lock) = match &request.work {
            Some(work) => {
                fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
                let file = fs::File::create(work.join("lock"))
                    .with_context(|| format!("cannot write to {}", work.display()))?;
                let lock = Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, errno)| errno)
                    .with_context(|| format!("cannot lock {}", work.display()))?;
                (work.canonicalize()?, None, Some(lock))
            }
            None => {
                let path = tempfile::Builder::new().prefix("ulp-build-").tempdir()?.keep().canonicalize()?;
                if let Ok(mut cleanup) = CLEANUP.lock() {
                    cleanup.remove.push(path.clone());
                }
                (path.clone(), Some(path), None)
            }
        };
        let key = match temporary {
            // Nobody comes back for it: no need to read the whole tree.
            Some(_) => "tree".to_string(),
            None => {
                let mut what = vec![
                    env!("CARGO_PKG_VERSION").to_string(),
                    trees::tree_digest(&request.orig)?,
                    build.to_string(),
                    seen.display().to_string(),
                    request.in_place.to_string(),
                ];
                for name in ENVIRONMENT {
                    what.push(format!("{name}={:?}", std::env::var_os(name)));
                }
                digest(what.join("\0").as_bytes()).chars().take(16).collect()
            }
        };
        let root = base.join(key);
        let run = root.join("run");
        if run.exists() {
            fs::remove_dir_all(&run).with_context(|| format!("cannot remove {}", run.display()))?;
        }
        fs::create_dir_all(&run).with_context(|| format!("cannot make {}", run.display()))?;
        Ok(Self { root, run, temporary, _lock: lock })
    }

    /// The copy of the original tree.
    pub fn copy(&self) -> PathBuf {
        self.root.join("orig")
    }

    /// Where the store of the pristine build is.
    pub fn store(&self) -> Store {
        Store::at(&self.root.join("store"))
    }

    /// What the build sees in place of its tree's parent directory.
    pub fn private(&self) -> PathBuf {
        self.root.join("private")
    }

    /// Originals of files that are swapped for fixed ones at the moment.
    pub fn swapped(&self) -> PathBuf {
        self.root.join("swapped")
    }

    /// Room for files of this run alone.
    pub fn run(&self) -> &Path {
        &self.run
    }

    pub fn is_complete(&self) -> bool {
        self.root.join("complete").exists()
    }

    /// Marks the pristine build as done.
    pub fn complete(&self) -> Result<()> {
        Ok(fs::write(self.root.join("complete"), "")?)
    }

    /// Empties the folder for a new build.
    pub fn begin(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path == self.run {
                continue;
            }
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let gone = self.temporary.as_ref().unwrap_or(&self.run);
        let _ = fs::remove_dir_all(gone);
        if let Ok(mut cleanup) = CLEANUP.lock() {
            cleanup.remove.retain(|path| path != gone);
        }
    }
}
