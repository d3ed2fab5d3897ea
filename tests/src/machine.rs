// SPDX-License-Identifier: GPL-2.0-or-later
//! What the programs of the cases are compiled for: this machine, or another one with the GNU cross tools. These stand in front
//! of PATH under their plain names, so that a case's Makefile calls them without knowing.

use crate::{CannotRun, ensure_that};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// A kind of machine, and how to compile for it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel's name: `x86_64`, `aarch64`.
    pub arch: String,
    tools: Option<Arc<TempDir>>,
}

/// A compiler that does not stand where it was configured to looks beside itself before it looks in COMPILER_PATH; told by an option
/// it looks there first, as an installed one does.
fn unpacked(name: &Path, compiler: &Path) -> Result<()> {
    let script = format!(
        "#!/bin/sh\nIFS=:\nfor dir in $COMPILER_PATH; do set -- \"-B$dir/\" \"$@\"; done\nexec {} \"$@\"\n",
        compiler.display()
    );
    std::fs::write(name, script)?;
    std::fs::set_permissions(name, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

impl Machine {
    pub fn host() -> Self {
        Self { arch: std::env::consts::ARCH.into(), tools: None }
    }

    /// With the cross tools that PATH has: `ARCH-linux-gnu-gcc` and its like.
    pub fn cross(arch: &str) -> Result<Self> {
        let prefix = format!("{arch}-linux-gnu-");
        let tools = tempfile::Builder::new().prefix("ulp-tools.").tempdir()?;
        let path = std::env::var_os("PATH").context("PATH")?;
        for dir in std::env::split_paths(&path) {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(plain) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
                let link = tools.path().join(plain);
                if link.exists() {
                    continue;
                }
                let compiler = ["gcc", "g++", "c++", "cpp"].contains(&plain);
                if compiler && !dir.starts_with("/usr") {
                    for name in [&link, &tools.path().join(&name)] {
                        unpacked(name, &entry.path())?;
                    }
                } else {
                    symlink(entry.path(), link)?;
                }
            }
        }
        if !tools.path().join("gcc").exists() {
            bail!(CannotRun(format!("needs {prefix}gcc")));
        }
        Ok(Self { arch: arch.into(), tools: Some(Arc::new(tools)) })
    }

    /// Whether programs compiled for it run here.
    pub fn is_host(&self) -> bool {
        self.tools.is_none()
    }

    /// Whether it has this tool.
    pub fn has(&self, tool: &str) -> bool {
        let path = self.path().unwrap_or_default();
        match &self.tools {
            Some(tools) => tools.path().join(tool).exists(),
            None => std::env::split_paths(&path).any(|dir| dir.join(tool).exists()),
        }
    }

    fn path(&self) -> Result<OsString> {
        let path = std::env::var_os("PATH").context("PATH")?;
        let own = self.tools.iter().map(|tools| tools.path().to_path_buf());
        Ok(std::env::join_paths(own.chain(std::env::split_paths(&path)).collect::<Vec<PathBuf>>())?)
    }

    /// A command that finds this machine's tools.
    pub fn equip<'c>(&self, command: &'c mut Command) -> Result<&'c mut Command> {
        if !self.is_host() {
            command.env("PATH", self.path()?);
        }
        Ok(command)
    }

    /// What stands for an option that protects branches; `None`: another option.
    fn protection(&self, option: &str) -> Option<&'static str> {
        match option {
            "-fcf-protection=full" if self.arch == "aarch64" => Some("-mbranch-protection=standard"),
            "-fcf-protection=none" | "-fcf-protection=full" if self.arch != "x86_64" => Some(""),
            _ => None,
        }
    }

    /// Compiler options of a case as this machine has them. What is left of x86_64's own options belongs to cases that are about
    /// them.
    pub fn options(&self, flags: &str) -> Result<String> {
        let mut own = Vec::new();
        for flag in flags.split_whitespace() {
            match self.protection(flag) {
                Some(other) => own.push(other),
                None if self.arch != "x86_64" && flag.starts_with("-m") => {
                    bail!(CannotRun(format!("{flag} is for x86_64")));
                }
                None => own.push(flag),
            }
        }
        Ok(own.join(" "))
    }

    /// Likewise in the text of a case's own Makefile.
    pub fn makefile(&self, text: &str) -> String {
        let options = ["-fcf-protection=full", "-fcf-protection=none"];
        options.into_iter().fold(text.into(), |text: String, option| match self.protection(option) {
            Some(other) => text.replace(option, other),
            None => text,
        })
    }

    /// The compiler's version, its first number.
    pub fn gcc_major(&self) -> Result<u32> {
        let mut command =
            Command::new(if self.is_host() { "gcc".into() } else { format!("{}-linux-gnu-gcc", self.arch) });
        let ran = crate::tools::run(command.arg("-dumpversion"))?;
        ensure_that!(ran.code == Some(0), "{}", ran.report());
        Ok(ran.stdout.trim().split('.').next().context("a version")?.parse()?)
    }
}
