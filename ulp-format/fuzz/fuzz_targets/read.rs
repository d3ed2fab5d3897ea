// SPDX-License-Identifier: GPL-2.0-or-later
//! A stranger's bytes through the reader, as they are and under a digest that holds: without that the fuzzer would never get past
//! the digest. What the reader accepts keeps every rule of the writer, and comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, SectionHeader as _};
use sha2::{Digest as _, Sha256};
use std::ops::Range;
use ulp_format::Package;

const DIGEST: usize = 32;

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut sealed = data.to_vec();
    if let Some(place) = digest_place(&sealed).filter(|place| sealed.get(place.clone()).is_some()) {
        sealed[place.clone()].fill(0);
        let digest = Sha256::digest(&sealed);
        sealed[place].copy_from_slice(&digest);
        read(&sealed);
    }
});

fn read(bytes: &[u8]) {
    let Ok(package) = Package::read(bytes) else { return };
    let again = package.write().expect("what was read keeps the rules of writing");
    assert_eq!(Package::read(&again).expect("what was written can be read"), package);
}

fn digest_place(bytes: &[u8]) -> Option<Range<usize>> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let sections = header.sections(LittleEndian, bytes).ok()?;
    let (_, section) = sections.section_by_name(LittleEndian, b".ulp.digest")?;
    let start = usize::try_from(section.sh_offset(LittleEndian)).ok()?;
    (section.sh_size(LittleEndian) == DIGEST as u64).then_some(start..start.checked_add(DIGEST)?)
}
