// SPDX-License-Identifier: GPL-2.0-or-later
//! A package against an ELF file on disk: `verify FILE --target ELF` says whether processes started from that file could
//! be patched.

use crate::error::{Error, Result};
use crate::snapshot::PackageFile;
use object::{Object, ObjectSegment};
use std::path::Path;
use ulp_format::{hex, sha256_hex};

/// Compares build-id and the code of every replaced function; returns the target's file name in the package.
pub fn compare<'f>(file: &'f PackageFile, path: &Path) -> Result<&'f str> {
    let shown = path.display();
    let unreadable = |e: &dyn std::fmt::Display| {
        Error::failed(format!("cannot read {shown}: {e}"), "give the program or library that the patch is for")
    };
    let bytes = std::fs::read(path).map_err(|e| unreadable(&e))?;
    let elf = object::File::parse(&*bytes).map_err(|e| unreadable(&e))?;
    let id = elf.build_id().map_err(|e| unreadable(&e))?.map(hex::encode).unwrap_or_default();
    let targets = &file.package.manifest.targets;
    let Some(target) = targets.iter().find(|t| t.build_id == id) else {
        let wanted: Vec<&str> = targets.iter().map(|t| t.build_id.as_str()).collect();
        let id = if id.is_empty() { "no build-id".into() } else { format!("build-id {id}") };
        return Err(Error::refused(
            format!("{shown} has {id}, the patch wants {}", wanted.join(" or ")),
            format!("rebuild the patch with --target {shown}"),
        )
        .code("E-BUILD-ID"));
    };
    for range in target.functions.iter().flat_map(|f| &f.ranges) {
        let code = elf.segments().find_map(|s| s.data_range(range.start.0, range.size).ok().flatten());
        if code.map(sha256_hex).as_deref() != Some(range.sha256.as_str()) {
            return Err(Error::refused(
                format!("the code of {} at {} of {shown} is not what the patch was made for", range.name, range.start),
                "the file was changed after it was linked; build the patch for this file",
            ));
        }
    }
    Ok(&target.file)
}
