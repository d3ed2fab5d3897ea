// SPDX-License-Identifier: GPL-2.0-or-later
//! How code finds a thread-local variable: by its distance from the thread pointer (local-exec), by a slot that holds this
//! distance (initial-exec), or by a call, of `__tls_get_addr` (general-dynamic, local-dynamic) or of what a descriptor holds.
//! Linkers turn the longer ways into shorter ones where they know enough.

use crate::LinkAddr;
use core::ops::Range;

/// A way without a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadModel {
    /// Initial-exec: a slot holds the variable's distance from the thread pointer.
    Slot,
    /// Local-exec: the distance stands in the instructions.
    Offset,
}

/// Types of the loader's relocations (`r_type` of `Elf64_Rela`) for what calls take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadSlots {
    /// The first word for `__tls_get_addr`: the number of the variable's module.
    pub module: u32,
    /// The second one: the variable's distance from the start of the module's block. Without this relocation it stands there.
    pub offset: u32,
    /// Both words of a descriptor.
    pub descriptor: u32,
}

/// What a linker made of a field that takes part in a call for a thread-local variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadForm {
    /// As its relocation row says.
    AsWritten,
    /// The instructions hold the variable's distance from the thread pointer: this one.
    Offset(i64),
    /// They load the distance from this slot.
    Slot(LinkAddr),
    /// Nothing is left of the field: only the thread pointer is taken, or its neighbours do its work.
    Gone,
    /// Nobody knows.
    Unknown,
}

/// Code that was rewritten to reach a variable in a shorter way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShorterWay {
    /// The bytes of the sequence: every relocation that there was in it is done away with.
    pub range: Range<usize>,
    /// The relocations that stand there now; all for the variable.
    pub fields: Vec<ShorterField>,
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShorterField {
    /// Where the field is.
    pub at: usize,
    /// The relocation's type.
    pub r_type: u32,
    /// What its addend has besides that of the variable: a field may count from the end of its instruction.
    pub adjust: i64,
}
