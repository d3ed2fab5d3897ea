// SPDX-License-Identifier: GPL-2.0-or-later
//! The `.ulp` live-patch package: one ELF relocatable whose `.ulp.*` sections say what it is for. `write` turns a
//! [`Package`] into bytes, the same bytes for the same package; `read` turns bytes back, or says what is wrong with them.
//! What a reader may rely on is docs/format.md. Nothing here knows of processes or of compilers.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod check;
mod digest;
mod elf;
pub mod hex;
mod manifest;
mod package;
mod read;
mod write;

pub use check::is_patch_name;
pub use digest::{digest_hex, sha256_hex};
pub use manifest::*;
pub use package::*;
