// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine that changes a running process, and the verbs built on it. `process` talks to the kernel, everything else computes.

pub mod process;
