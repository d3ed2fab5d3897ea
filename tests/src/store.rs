// SPDX-License-Identifier: GPL-2.0-or-later
//! Programs of `tests/life`, and the packages that tests want of them, made on one machine and used on another one that has
//! no compiler. The same test does both: with `ULP_PREPARE=DIR` and `ULP_PREPARE_FOR=ARCH` it makes what it wants below DIR
//! and ends where it would start a program; with `ULP_PREPARED=DIR` it finds there what it made.

use crate::ensure_that;
use crate::machine::Machine;
use crate::trees::copy;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Where the program and the packages of a case come from.
#[derive(Clone, Debug)]
pub enum Store {
    /// This machine makes them for itself.
    None,
    /// This machine makes them for another one: the case's folder there, and where it is built.
    Making { folder: PathBuf, room: PathBuf, machine: Machine },
    /// They were made before: the case's folder.
    Made(PathBuf),
}

/// The folder of the cases' folders.
const LIFE: &str = "life";
const PACKAGES: &str = "packages";

impl Store {
    pub fn of(case: &str) -> Result<Self> {
        if let Some(dir) = std::env::var_os("ULP_PREPARED") {
            return Ok(Self::Made(Path::new(&dir).join(LIFE).join(case)));
        }
        let Some(arch) = std::env::var_os("ULP_PREPARE_FOR") else { return Ok(Self::None) };
        let arch = arch.to_str().context("ULP_PREPARE_FOR")?;
        let dir = PathBuf::from(std::env::var_os("ULP_PREPARE").context("ULP_PREPARE_FOR without ULP_PREPARE")?);
        let folder = dir.join(arch).join(LIFE).join(case);
        Ok(Self::Making { folder, room: dir.join("rooms").join(arch).join(case), machine: Machine::cross(arch)? })
    }

    /// Whether programs cannot be started, because they are made for another machine.
    pub fn is_making() -> bool {
        std::env::var_os("ULP_PREPARE_FOR").is_some()
    }

    /// A package of this name, made by `make`, or by who made it before out of the same `recipe`.
    pub fn package(&self, to: PathBuf, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = format!("{}.ulp", &ulp_format::hex::encode(&Sha256::digest(recipe))[..16]);
        match self {
            Self::None => make(&to)?,
            Self::Making { folder, .. } => {
                let kept = folder.join(PACKAGES).join(name);
                if kept.exists() {
                    copy(&kept, &to)?;
                } else {
                    make(&to)?;
                    std::fs::create_dir_all(folder.join(PACKAGES))?;
                    copy(&to, &kept)?;
                }
            }
            Self::Made(folder) => {
                let made = folder.join(PACKAGES).join(name);
                ensure_that!(made.exists(), "no package was made beforehand of {recipe}");
                copy(&made, &to)?;
            }
        }
        Ok(to)
    }
}
