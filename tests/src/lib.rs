// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs the case folders under `tests/cases`: real builds, real processes.
