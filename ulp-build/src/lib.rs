// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes a live patch from two source trees. A one-way street:
//! request -> trees -> compile -> objects -> diff -> select -> resolve -> check -> package.
#![forbid(unsafe_code)]

pub mod diff;
pub mod linesync;
pub mod linkmap;
pub mod model;
pub mod object;
pub mod production;
