// SPDX-License-Identifier: GPL-2.0-or-later
//! Compares the two recompiled objects of a unit, atom by atom.

use crate::model::Refusal;
use crate::object::{AtomId, Object};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the fix changed in one unit.
#[derive(Clone, Debug)]
pub struct UnitDiff {
    /// `None`: the unit is new.
    pub orig: Option<Arc<Object>>,
    /// `None`: the unit is gone.
    pub fix: Option<Arc<Object>>,
    /// Fixed atom to original atom.
    pub twins: BTreeMap<AtomId, AtomId>,
    /// A verdict for every atom of the fixed object.
    pub verdicts: BTreeMap<AtomId, Verdict>,
    /// Original atoms that have no twin.
    pub gone: Vec<AtomId>,
    pub refusals: Vec<Refusal>,
    pub warnings: Vec<String>,
}

/// What became of an atom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// Functions, and read-only data that only changed functions use.
    Changed(Reason),
    New,
}

/// Why an atom counts as changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Size,
    Bytes,
    /// Refers to something else than before.
    Reference,
    /// Refers to read-only data whose content changed.
    Data,
    /// Its `.cold` or `.part` child changed, appeared or went.
    Child,
}
