// SPDX-License-Identifier: GPL-2.0-or-later
//! What the stages hand to each other. Each value is finished when it is made; no stage changes another's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use ulp_format::Identity;

/// Why the street ended before its end.
#[derive(Debug)]
pub enum Stop {
    /// The fix changes nothing in the target; the sentences say why.
    NoChange(Vec<String>),
    /// It cannot be done safely: all the reasons that were found.
    Refused(Vec<Refusal>),
    /// Something did not work.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(vec![refusal])
    }
}

/// What the user asked for: the command line, checked, with defaults filled in.
#[derive(Clone, Debug)]
pub struct Request {
    pub orig: PathBuf,
    pub fix: FixSource,
    /// `--build`; `None`: detected.
    pub build: Option<String>,
    /// `--target`; empty: what the build linked and the fix touches.
    pub targets: Vec<PathBuf>,
    pub debuginfo: Vec<PathBuf>,
    pub build_path: Option<PathBuf>,
    pub in_place: bool,
    pub name: String,
    pub description: String,
    pub cves: Vec<String>,
    /// Patches whose fixes this one has as well: those that go when it comes, and those that it stands on.
    pub replaces: Vec<String>,
    pub requires: Vec<String>,
    pub accept: Vec<ulp_format::Accepted>,
    /// A function of which to say how it compares with what was linked and with production.
    pub explain: Option<String>,
    /// `--work`; `None`: a temporary directory, removed at the end.
    pub work: Option<PathBuf>,
    pub jobs: usize,
    pub output: PathBuf,
}

/// Where the fixed sources come from.
#[derive(Clone, Debug)]
pub enum FixSource {
    Tree(PathBuf),
    Patches(Vec<PathBuf>),
}

/// What the compile stage hands on: one production ELF file, the file that was rebuilt for it, and the units the fix touches.
#[derive(Clone, Debug)]
pub struct Built {
    pub links: Vec<LinkedElf>,
    pub units: Vec<Unit>,
    /// Fixed files that no recorded compile or link read.
    pub unread: Vec<PathBuf>,
    /// Every file that differs between the trees, relative to the tree, with both texts where they are text (for `-v` and `--json`).
    pub changed_files: Vec<ChangedFile>,
    /// `gcc (Debian 12.2.0-14) 12.2.0`: the compiler as it names itself.
    pub compiler: String,
    /// Warnings to show and to record.
    pub warnings: Vec<String>,
}

/// One ELF file that the pristine build linked, and the production file it stands for.
#[derive(Clone, Debug)]
pub struct LinkedElf {
    /// The production file (`--target`), or the linked file itself.
    pub production: PathBuf,
    /// The production file's debug information, where it was given (`--debuginfo`).
    pub debuginfo: Option<PathBuf>,
    /// The rebuilt, unstripped file with all symbols.
    pub rebuilt: PathBuf,
    pub identity: Identity,
    /// The linker's `-Map` output for it.
    pub map: PathBuf,
    /// Every object that went in, by the name the link map uses for it (`src/a.o`, `lib/libx.a(b.o)`): digest of its bytes.
    pub inputs: BTreeMap<String, String>,
    /// Objects that another link made (`ld -r`), by their names here, with the map of that link; an outer one before its parts.
    pub partial: Vec<(String, PathBuf)>,
    /// Copies of those objects, by the same names, where the build made them.
    pub objects: BTreeMap<String, PathBuf>,
    /// Shared libraries on the link line, as resolved files.
    pub libraries: Vec<PathBuf>,
}

/// One compiled unit that the fix touches.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Source file relative to the tree.
    pub source: PathBuf,
    pub language: Language,
    /// `cc1` ran with `-fexceptions` (the default for C++).
    pub exceptions: bool,
    /// The object of the pristine build, exactly as linked. `None`: the unit is new in the fixed tree.
    pub pristine: Option<PathBuf>,
    /// SHA-256 of that object, as in [`LinkedElf::inputs`].
    pub pristine_digest: Option<String>,
    /// Recompiled from the original sources with section flags and -g. `None` like `pristine`.
    pub orig: Option<PathBuf>,
    /// Recompiled from the fixed sources likewise. `None`: the unit is gone in the fixed tree.
    pub fix: Option<PathBuf>,
    /// The object names, as in [`LinkedElf::inputs`], that a new unit's object gets in the fixed build's links.
    pub fixed_link_names: Vec<String>,
}

/// Source languages that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    C,
    Cxx,
    Assembly,
}

/// A file that differs between the trees.
#[derive(Clone, Debug)]
pub struct ChangedFile {
    pub path: PathBuf,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// A refusal: a value, not a failure. The code is stable, the message a sentence, the advice says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Refusal {
    pub code: Code,
    /// Symbol, file or type it is about.
    pub symbol: Option<String>,
    pub message: String,
    pub advice: String,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code, symbol: None, message: message.into(), advice: advice.into() }
    }

    /// The same refusal, about this symbol, file or type.
    pub fn about(self, symbol: impl Into<String>) -> Self {
        Self { symbol: Some(symbol.into()), ..self }
    }
}

/// Stable refusal codes (docs/refusals.md lists them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    Ambiguous,
    Anchor,
    Arch,
    Asm,
    BadElf,
    BuildId,
    ComdatConflict,
    Ctor,
    DataInit,
    DataShared,
    DataSize,
    Eh,
    Escaped,
    Identity,
    Ifunc,
    IfuncUnbound,
    Init,
    Layout,
    Linker,
    Lto,
    NoBuildId,
    NoNamespace,
    Nondeterministic,
    NotLinked,
    NotReproduced,
    NothingBuilt,
    TlsModel,
    TlsNew,
    TooSmall,
    Unresolved,
    Unsupported,
    Vtable,
}

impl Code {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ambiguous => "E-AMBIGUOUS",
            Self::Anchor => "E-ANCHOR",
            Self::Arch => "E-ARCH",
            Self::Asm => "E-ASM",
            Self::BadElf => "E-BAD-ELF",
            Self::BuildId => "E-BUILD-ID",
            Self::ComdatConflict => "E-COMDAT-CONFLICT",
            Self::Ctor => "E-CTOR",
            Self::DataInit => "E-DATA-INIT",
            Self::DataShared => "E-DATA-SHARED",
            Self::DataSize => "E-DATA-SIZE",
            Self::Eh => "E-EH",
            Self::Escaped => "E-ESCAPED",
            Self::Identity => "E-IDENTITY",
            Self::Ifunc => "E-IFUNC",
            Self::IfuncUnbound => "E-IFUNC-UNBOUND",
            Self::Init => "E-INIT",
            Self::Layout => "E-LAYOUT",
            Self::Linker => "E-LINKER",
            Self::Lto => "E-LTO",
            Self::NoBuildId => "E-NO-BUILD-ID",
            Self::NoNamespace => "E-NO-NAMESPACE",
            Self::Nondeterministic => "E-NONDETERMINISTIC",
            Self::NotLinked => "E-NOT-LINKED",
            Self::NotReproduced => "E-NOT-REPRODUCED",
            Self::NothingBuilt => "E-NOTHING-BUILT",
            Self::TlsModel => "E-TLS-MODEL",
            Self::TlsNew => "E-TLS-NEW",
            Self::TooSmall => "E-TOO-SMALL",
            Self::Unresolved => "E-UNRESOLVED",
            Self::Unsupported => "E-UNSUPPORTED",
            Self::Vtable => "E-VTABLE",
        }
    }

    /// Whether `--accept` may overrule it: a refusal of judgement, not of truth.
    pub const fn is_judgement(self) -> bool {
        matches!(self, Self::Ctor | Self::DataInit | Self::Escaped | Self::Layout)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}
