// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine that changes a running process, and the verbs built on it. `process` talks to the kernel, `cli` to people,
//! everything else computes. docs/safety.md tells why a process survives us.
pub mod error;
pub mod link;
pub mod memory;
pub mod process;
pub mod registry;
pub mod symbols;
