// SPDX-License-Identifier: GPL-2.0-or-later
//! The comparison of two objects as `ulp-build diff` shows it.

use super::{Compiled, Input, UnitDiff, Verdict, compare_with};
use crate::model::{Language, Refusal};
use crate::object::{Atom, AtomId, AtomKind};
use serde::{Serialize, Serializer};
use std::path::Path;

/// What `ulp-build diff --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffReport {
    pub schema: u32,
    pub verdict: Outcome,
    pub changed: Vec<String>,
    pub new: Vec<String>,
    pub gone: Vec<String>,
    #[serde(serialize_with = "without_advice")]
    pub refusals: Vec<Refusal>,
    /// For people; not part of the JSON shape.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// The comparison in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Same,
    Changed,
    Refused,
}

fn without_advice<S: Serializer>(refusals: &[Refusal], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Short<'a> {
        code: crate::model::Code,
        symbol: Option<&'a str>,
        message: &'a str,
    }
    serializer.collect_seq(refusals.iter().map(|r| Short {
        code: r.code,
        symbol: r.symbol.as_deref(),
        message: &r.message,
    }))
}

/// Compares two object files by themselves. A file that cannot be read is an error; one that is no object is a refusal.
pub fn diff_objects(orig: &Path, fix: &Path) -> std::io::Result<DiffReport> {
    let (old, new) = (std::fs::read(orig)?, std::fs::read(fix)?);
    Ok(diff_inputs(Input { path: orig, bytes: &old }, Input { path: fix, bytes: &new }))
}

/// The same with objects in memory.
pub fn diff_inputs(old: Input<'_>, new: Input<'_>) -> DiffReport {
    let language = guess(new.bytes);
    let compiled = Compiled { language, exceptions: language == Language::Cxx };
    // An object may have been compiled without -g: then types are not compared, and that is said.
    let described = |bytes: &[u8]| memchr::memmem::find(bytes, b".debug_info\0").is_some();
    let types = described(old.bytes) && described(new.bytes);
    let mut report = DiffReport::from(&compare_with(Some(old), Some(new), compiled, types));
    let machine = old.bytes.get(18..20).map_or(0, |m| u16::from_le_bytes([m[0], m[1]]));
    if !types || !super::supported(machine) {
        report
            .warnings
            .push("types are not compared: no debug information, or of a processor not supported yet".into());
    }
    report
}

/// The language, as far as an object tells: mangled names and the C++ personality routine are C++'s alone.
fn guess(bytes: &[u8]) -> Language {
    let contains = |needle: &[u8]| memchr::memmem::find(bytes, needle).is_some();
    if contains(b"\0_Z") || contains(b"__gxx_personality") { Language::Cxx } else { Language::C }
}

impl From<&UnitDiff> for DiffReport {
    fn from(diff: &UnitDiff) -> Self {
        // Cold children go with their functions and constructor lists with refusals; nobody knows them by name.
        let told = |atom: &Atom| {
            let child = atom.parent.is_some() && atom.name.contains(".cold");
            !atom.anonymous && !child && atom.kind != AtomKind::Constructors
        };
        let names = |wanted: fn(&Verdict) -> bool| {
            let fix = diff.fix.as_deref();
            let picked = diff.verdicts.iter().filter(|(_, v)| wanted(v));
            let atoms = picked.filter_map(|(AtomId(i), _)| fix.and_then(|f| f.atoms.get(*i)));
            let mut names: Vec<String> = atoms.filter(|a| told(a)).map(|a| a.name.clone()).collect();
            names.sort();
            names
        };
        let orig = diff.orig.as_deref();
        let gone = diff.gone.iter().filter_map(|AtomId(i)| orig.and_then(|o| o.atoms.get(*i)));
        let mut gone: Vec<String> = gone.filter(|a| told(a)).map(|a| a.name.clone()).collect();
        gone.sort();
        let changed = names(|v| matches!(v, Verdict::Changed(_)));
        let new = names(|v| matches!(v, Verdict::New));
        let verdict = if !diff.refusals.is_empty() {
            Outcome::Refused
        } else if changed.is_empty() && new.is_empty() && gone.is_empty() {
            Outcome::Same
        } else {
            Outcome::Changed
        };
        Self {
            schema: 1,
            verdict,
            changed,
            new,
            gone,
            refusals: diff.refusals.clone(),
            warnings: diff.warnings.clone(),
        }
    }
}
