// SPDX-License-Identifier: GPL-2.0-or-later
//! Watches a build at its leaves. Drivers (`gcc`, `g++`, `collect2`) find `cc1`, `as` and `ld` in our directory first,
//! where each name is this very program; it runs the real tool unchanged and writes one [`Call`] per run. Whoever calls
//! the driver, and however, makes no difference. This module holds the records and the store; `shim` makes them.

pub mod args;
pub mod shim;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Names the store for the shims.
pub const STORE_VARIABLE: &str = "ULP_CAPTURE";

/// Leaf programs we stand in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    Cc1,
    Cc1plus,
    Lto1,
    As,
    Ld,
    /// gold, lld or mold: their links are seen but cannot be read.
    OtherLinker,
}

/// What each name in the shim directory stands for.
const NAMES: [(&str, Tool); 9] = [
    ("cc1", Tool::Cc1),
    ("cc1plus", Tool::Cc1plus),
    ("lto1", Tool::Lto1),
    ("as", Tool::As),
    ("ld", Tool::Ld),
    ("ld.bfd", Tool::Ld),
    ("ld.gold", Tool::OtherLinker),
    ("ld.lld", Tool::OtherLinker),
    ("ld.mold", Tool::OtherLinker),
];

/// What a tool of this name is: the names above, also as the tools of a cross compiler are called (`aarch64-linux-gnu-ld`).
fn tool(name: &str) -> Option<Tool> {
    let own = |&(tool, _): &(&str, Tool)| name == tool || name.strip_suffix(tool).is_some_and(|p| p.ends_with('-'));
    NAMES.iter().find(|known| own(known)).map(|(_, tool)| *tool)
}

/// The names under which a build may call assemblers and linkers of its own accord, of the tool sets that PATH has: all those
/// in front of which the same prefix stands for an assembler and a linker.
fn prefixed() -> BTreeSet<String> {
    let dirs: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let files = |dir: &PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let names: BTreeSet<String> = dirs.iter().flat_map(files).filter_map(|name| name.into_string().ok()).collect();
    let prefixes =
        names.iter().filter_map(|name| name.strip_suffix("-as")).filter(|p| names.contains(&format!("{p}-ld")));
    let tools = prefixes.flat_map(|p| NAMES.iter().map(move |(tool, _)| format!("{p}-{tool}")));
    tools.filter(|name| names.contains(name)).collect()
}

/// A file and the SHA-256 of what it held when the call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digested {
    pub name: String,
    pub digest: String,
}

/// One run of a leaf tool. Paths are absolute, as the build saw them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    pub tool: Tool,
    /// The real program, and its arguments without its name, response files expanded.
    pub program: PathBuf,
    pub args: Vec<String>,
    pub cwd: PathBuf,
    /// The environment without our own variables.
    pub env: Vec<(String, String)>,
    /// Nanoseconds since the epoch at the start: the order of calls.
    pub started: u128,
    /// The process that ran the tool, by number and start time.
    pub parent: (i32, u64),
    pub success: bool,
    pub input: Option<PathBuf>,
    /// `None`: standard output, or none at all.
    pub output: Option<PathBuf>,
    /// Files read beside `input`.
    pub reads: Vec<PathBuf>,
    /// `reads` may lack headers that the compiler takes for system headers.
    pub reads_partial: bool,
    /// `as` and `ld`: SHA-256 of the output, a copy of which is in the store.
    pub digest: Option<String>,
    /// `ld`: the objects that were loaded, archive members one by one, by their names in the link map.
    pub inputs: Vec<Digested>,
    /// `ld`: shared libraries and objects from the system.
    pub libraries: Vec<PathBuf>,
    /// `ld -r`.
    pub relocatable: bool,
}

/// A directory with everything a build left behind.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes an empty store, with the shim directory in it.
    pub fn create(root: &Path, program: &Path) -> Result<Self> {
        let store = Self::at(root);
        for dir in ["bin", "calls", "objects", "linked", "maps", "tools", "reads"] {
            std::fs::create_dir_all(root.join(dir)).with_context(|| format!("cannot make {}", root.display()))?;
        }
        for name in NAMES.map(|(name, _)| name.to_owned()).into_iter().chain(prefixed()) {
            symlink(program, store.bin().join(&name))
                .with_context(|| format!("cannot make {}", store.bin().join(&name).display()))?;
        }
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the shims are.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The copy of an assembled object.
    pub fn object(&self, digest: &str) -> PathBuf {
        self.root.join("objects").join(format!("{digest}.o"))
    }

    /// The copy of a linked file, under the name it was linked as.
    pub fn linked(&self, digest: &str, output: &Path) -> PathBuf {
        let name = output.file_name().map_or_else(|| OsString::from("a.out"), OsString::from);
        self.root.join("linked").join(digest).join(name)
    }

    /// The link map of a linked file.
    pub fn map(&self, digest: &str) -> PathBuf {
        self.root.join("maps").join(format!("{digest}.map"))
    }

    /// What a build has to find in its environment: our directory in front wherever tools are looked for. ccache would
    /// hand out old objects without running a compiler.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let in_front = |variable: &str| {
            let mut value = self.bin().into_os_string();
            if let Some(old) = std::env::var_os(variable).filter(|old| !old.is_empty()) {
                value.push(":");
                value.push(old);
            }
            (OsString::from(variable), value)
        };
        vec![
            in_front("PATH"),
            in_front("COMPILER_PATH"),
            (STORE_VARIABLE.into(), self.root.clone().into()),
            ("CCACHE_DISABLE".into(), "1".into()),
        ]
    }

    /// All calls, in the order in which they began.
    pub fn calls(&self) -> Result<Vec<Call>> {
        let mut calls = Vec::new();
        let dir = self.root.join("calls");
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let call: Call = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is not a record of a call", path.display()))?;
                calls.push(call);
            }
        }
        calls.sort_by_key(|call| call.started);
        Ok(calls)
    }
}

/// SHA-256 as lower-case hex.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
