// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine that changes a running process, and the verbs built on it. `process` talks to the kernel, `cli` to people,
//! everything else computes. docs/safety.md tells why a process survives us.
//!
//! verify -> plan -> load -> (stop -> recheck -> quiesce -> switch -> resume) -> tidy
pub mod apply;
pub mod attempt;
pub mod audit;
pub mod claim;
pub mod cli;
pub mod corefile;
pub mod coroutines;
pub mod disk;
pub mod error;
pub mod frames;
pub mod info;
pub mod link;
pub mod memory;
pub mod places;
pub mod plan;
pub mod process;
pub mod registry;
pub mod report;
pub mod revert;
pub mod search;
pub mod snapshot;
pub mod stack;
pub mod switch;
pub mod symbols;
pub mod symfile;
pub mod unwinding;
pub mod verbs;
