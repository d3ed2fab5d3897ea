// SPDX-License-Identifier: GPL-2.0-or-later
//! A stranger's bytes through the object reader: refused, or taken apart into atoms whose every reference leads to another
//! one, and the same again when it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use ulp_build::object::{Object, Target};

fuzz_target!(|data: &[u8]| {
    let Ok(object) = Object::read(Path::new("fuzz.o"), data) else { return };
    for atom in &object.atoms {
        for r in &atom.refs {
            match r.target {
                Target::Atom(id) => assert!(id.0 < object.atoms.len()),
                Target::Import(index) => assert!(index < object.imports.len()),
            }
        }
        assert!(atom.parent.is_none_or(|id| id.0 < object.atoms.len()));
    }
    let again = Object::read(Path::new("fuzz.o"), data).expect("what was read once");
    assert_eq!(format!("{object:?}"), format!("{again:?}"));
});
