// SPDX-License-Identifier: GPL-2.0-or-later
//! The digest over the whole file: SHA-256 with the 32 bytes of `.ulp.digest` taken as zeroes. It covers headers,
//! padding and whatever else is between the sections, so that no bit of a package is without its guard.

use crate::elf::DIGEST;
use crate::{ReadError, hex};
use object::LittleEndian;
use object::elf::{FileHeader64, SHT_PROGBITS};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use sha2::{Digest as _, Sha256};
use std::ops::Range;

pub(crate) const LEN: usize = 32;

/// SHA-256 of some bytes, lower-case hex: the spelling of [`crate::OldRange::sha256`].
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes))
}

/// The digest of a package file, verified, in lower-case hex: how log lines and registries name exactly this package.
pub fn digest_hex(file: &[u8]) -> Result<String, ReadError> {
    verify(file).map(|digest| hex::encode(&digest))
}

/// The digest's value for a file whose digest bytes stand at `place`.
pub(crate) fn compute(file: &[u8], place: Range<usize>) -> Option<[u8; LEN]> {
    let (before, after) = (file.get(..place.start)?, file.get(place.end..)?);
    let hash = Sha256::new().chain_update(before).chain_update([0; LEN]).chain_update(after);
    Some(hash.finalize().into())
}

/// Finds the digest, and proves the file by it. Only what is needed to find it is read before.
pub(crate) fn verify(file: &[u8]) -> Result<[u8; LEN], ReadError> {
    let place = find(file)?;
    let damaged = || ReadError::Damaged("its digest does not match its content".into());
    let stored = file.get(place.clone()).ok_or_else(damaged)?;
    let computed = compute(file, place).ok_or_else(damaged)?;
    if stored == computed { Ok(computed) } else { Err(damaged()) }
}

/// Where the digest's bytes stand. A file that is ELF but has no `.ulp.digest` is some other file; one whose section
/// headers cannot be read may have been ours.
fn find(file: &[u8]) -> Result<Range<usize>, ReadError> {
    let foreign = |what: &str| ReadError::NotAPackage(what.into());
    let damaged = |what: object::Error| ReadError::Damaged(what.to_string().to_lowercase());
    if !file.starts_with(b"\x7fELF") {
        return Err(foreign("it is not an elf file"));
    }
    let header = FileHeader64::<LittleEndian>::parse(file).map_err(|_| foreign("it is not a 64-bit elf file"))?;
    if !header.is_little_endian() {
        return Err(foreign("it is a big-endian elf file"));
    }
    let sections = header.sections(LittleEndian, file).map_err(damaged)?;
    let (_, section) =
        sections.section_by_name(LittleEndian, DIGEST.as_bytes()).ok_or_else(|| foreign("it has no .ulp.digest"))?;
    if section.sh_type(LittleEndian) != SHT_PROGBITS || section.sh_size(LittleEndian) != LEN as u64 {
        return Err(ReadError::Damaged("its .ulp.digest is not 32 bytes".into()));
    }
    let start = usize::try_from(section.sh_offset(LittleEndian)).ok();
    let place = start.and_then(|start| Some(start..start.checked_add(LEN)?));
    place.ok_or_else(|| ReadError::Damaged("its .ulp.digest lies outside the file".into()))
}
