// SPDX-License-Identifier: GPL-2.0-or-later
//! Pairs of objects through the differ. The input is one object and a list of bytes to change in its twin, so that most pairs are
//! near enough to be compared in depth; an object is always the same as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use ulp_build::diff::{Compiled, Input, compare};
use ulp_build::model::Language;

fuzz_target!(|data: &[u8]| {
    // The last bytes say how many changes there are, each of three bytes: where, in two, and what to.
    let Some((&count, rest)) = data.split_last() else { return };
    let changes = usize::from(count % 8) * 3;
    let Some(at) = rest.len().checked_sub(changes) else { return };
    let (object, changes) = rest.split_at(at);
    let mut twin = object.to_vec();
    for change in changes.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = twin.get_mut(place) {
            *byte ^= change[2];
        }
    }
    let language = if count & 0x80 == 0 { Language::C } else { Language::Assembly };
    let compiled = Compiled { language, exceptions: count & 0x40 != 0 };
    let path = Path::new("fuzz.o");
    let (orig, fix) = (Input { path, bytes: object }, Input { path, bytes: &twin });
    let _ = compare(Some(orig), Some(fix), compiled);
    let _ = compare(None, Some(fix), compiled);
    let _ = compare(Some(orig), None, compiled);
});
