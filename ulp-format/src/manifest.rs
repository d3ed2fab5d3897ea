// SPDX-License-Identifier: GPL-2.0-or-later
//! The manifest: everything about a patch that is not code or data. It travels as JSON in `.ulp.manifest`.

use serde::{Deserialize, Serialize};
use ulp_arch::LinkAddr;

/// The format version this crate writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version; a newer one is refused.
    pub format: u32,
    /// The patch's name, unique in a process.
    pub name: String,
    /// One sentence for `info` and `list`.
    pub description: String,
    /// CVE numbers the patch fixes.
    pub cves: Vec<String>,
    /// `ulp-build 0.1.0`.
    pub tool: String,
    /// The compiler that made the code, as it names itself.
    pub compiler: String,
    /// Architecture name, the same as the ELF header's machine.
    pub arch: String,
    /// Refusals of judgement that the packager overruled.
    pub accepted: Vec<Accepted>,
    /// What the packager was warned of.
    pub warnings: Vec<String>,
    /// Whether an address inside the patch (of its code, strings, data) can end up in data that outlives a revert.
    pub escape: bool,
    /// Whether a C++ exception may begin in, end in or pass through the patch's code: then the program's own unwinder has
    /// to be shown the patch's frames. Absent: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exceptions: bool,
    /// Whether all functions switch at once, even when the applier dies between two entry jumps: at most one function
    /// without a gate. False: a mixture is possible in a window of microseconds.
    pub atomic: bool,
    /// Patches that this one replaces.
    pub replaces: Vec<String>,
    /// Patches that must be there first.
    pub requires: Vec<String>,
    /// The ELF files that are patched, at least one.
    pub targets: Vec<Target>,
}

/// An overruled refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The refusal's code, `E-...`.
    pub code: String,
    /// The symbol it was about, where it was about one.
    pub symbol: Option<String>,
}

/// One ELF file that is patched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// File name without directory, for people; identity is the build-id alone.
    pub file: String,
    /// GNU build-id, lower-case hex.
    pub build_id: String,
    /// What kind of ELF file it is.
    pub kind: Kind,
    /// How it was proved that the sources are those of this file.
    pub identity: Identity,
    /// The functions that are replaced, sorted by entry.
    pub functions: Vec<Function>,
    /// Names of the package's sections that are loaded for this target, in the package's order.
    pub sections: Vec<String>,
    /// Every undefined symbol that this target's sections refer to, sorted by symbol.
    pub references: Vec<Reference>,
}

impl Target {
    /// Where the address of an undefined symbol comes from.
    pub fn source(&self, symbol: &str) -> Option<&Source> {
        let at = self.references.binary_search_by(|reference| reference.symbol.as_str().cmp(symbol)).ok()?;
        self.references.get(at).map(|reference| &reference.source)
    }
}

/// Kinds of ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Fixed-address executable.
    Executable,
    /// Position-independent executable.
    Pie,
    /// Shared library.
    SharedLibrary,
}

/// Grades of identity (docs/design.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The rebuilt file has the same build-id.
    SameBuildId,
    /// Every loaded byte is the same, the build-id note apart.
    SameBytes,
    /// Each function that matters was proved on its own.
    PerFunction,
}

/// A range of old code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldRange {
    /// Symbol name: the function's own, or its `.cold` or `.part` child's.
    pub name: String,
    /// First byte.
    pub start: LinkAddr,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 over these bytes as the file has them, lower-case hex.
    pub sha256: String,
}

/// A function that is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// The name in the target's symbol table.
    pub name: String,
    /// Source file, relative to the tree, where known.
    pub source: Option<String>,
    /// The old entry.
    pub entry: LinkAddr,
    /// The old code: the body first, then its children.
    pub ranges: Vec<OldRange>,
    /// Bytes of a landing pad at the entry that stay.
    pub landing: u8,
    /// Bytes from the entry (landing pad included) which may be overwritten: the body, and padding proved to be nothing else.
    pub room: u64,
    /// The first `landing` + entry jump length bytes at the entry, lower-case hex: what is there before, and what a revert restores.
    pub old_bytes: String,
    /// Whether the body branches to its own entry, so that a thread at the very first byte may be inside.
    pub loops_to_entry: bool,
    /// Whether a uprobe set on the entry later leaves the process unharmed (a landing pad or nop stays in front).
    pub probe_safe: bool,
    /// The old code has no way out: a thread inside will be there for ever. Absent: it has one, or it is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_returns: bool,
    /// The symbol in this package that replaces it.
    pub new_symbol: String,
    /// The gate that lets several functions switch at once; none where its first instructions cannot be displaced, or
    /// where it is the only function.
    pub gate: Option<Gate>,
}

/// What the applier needs to build a gate: it is made in the process, because it holds addresses of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The whole instructions behind the landing pad that the entry jump touches, lower-case hex.
    pub displaced: String,
}

/// An undefined symbol and where its address comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The undefined symbol's name in this package, unique in it.
    pub symbol: String,
    /// Where the address comes from.
    pub source: Source,
    /// How the address was found, where production is another link than the one that was rebuilt; absent: it is the rebuilt file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// Where the address of a reference comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// In the same ELF file and not pre-emptible: load bias plus this address. A replaced function's address is its old
    /// entry; data copied into the executable by a copy relocation and canonical linkage table entries are of this kind too.
    Local {
        /// Link address.
        addr: LinkAddr,
        /// Size of the symbol, 0 where unknown.
        size: u64,
    },
    /// The target has a slot for it in its global offset table: branches jump through the slot, addresses are read from it.
    Slot {
        /// Link address of the 8-byte slot.
        slot: LinkAddr,
        /// Whether the slot may be unbound (lazy binding): then it is only jumped through, never read, and where an
        /// address is needed an own slot is filled as for an import.
        lazy: bool,
        /// The symbol's name in the dynamic symbol table.
        name: String,
        /// Its version, where it has one.
        version: Option<String>,
        /// What it is.
        object: ObjectKind,
    },
    /// The target has no slot: an own one is filled at apply.
    Import {
        /// The symbol's name in the dynamic symbol table.
        name: String,
        /// Its version, where it has one.
        version: Option<String>,
        /// What it is.
        object: ObjectKind,
    },
    /// The start of the patch's own table of slots, for code that takes its page and finds slots by their distance from there.
    OwnTable,
    /// A thread-local variable of the executable: its distance from the thread pointer is a link-time constant.
    TlsLocalExec {
        /// Distance from the thread pointer (negative on x86_64), in bytes.
        offset: i64,
    },
    /// A thread-local variable reached through an initial-exec slot of the target.
    TlsSlot {
        /// Link address of the 8-byte slot that holds a distance from the thread pointer.
        slot: LinkAddr,
        /// What is added to the slot's value: another variable of the same module.
        delta: i64,
    },
    /// A thread-local variable, or all of a module's, that `__tls_get_addr` finds: the target has the two words that it takes.
    TlsPair {
        /// Link address of the first of the two words.
        slot: LinkAddr,
    },
    /// A thread-local variable that a descriptor of the target finds: a resolver and its argument.
    TlsDescriptor {
        /// Link address of the first of the two words.
        slot: LinkAddr,
    },
    /// A thread-local variable of the target, for code that has the start of the target's block already.
    TlsOffset {
        /// Its distance from there, in bytes.
        offset: i64,
    },
}

impl Source {
    /// Whether it is a thread-local variable, which has no address of its own.
    pub fn is_thread_local(&self) -> bool {
        match self {
            Self::TlsLocalExec { .. } | Self::TlsSlot { .. } => true,
            Self::TlsPair { .. } | Self::TlsDescriptor { .. } | Self::TlsOffset { .. } => true,
            Self::Local { .. } | Self::Slot { .. } | Self::Import { .. } | Self::OwnTable => false,
        }
    }
}

/// What an imported symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// Code, `STT_FUNC` (or `STT_GNU_IFUNC`, which only a bound slot can resolve).
    Function,
    /// Data.
    Data,
}
