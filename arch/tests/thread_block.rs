// SPDX-License-Identifier: GPL-2.0-or-later
//! Where a program's thread-local storage begins: what linkers put into local-exec code, for variables of several alignments.

use object::{Object, ObjectSection};
use std::process::Command;
use ulp_arch::by_name;

/// The machine, how the instruction is written whose field is the distance, and how the distance stands in it.
type Row = (&'static str, &'static str, fn(&[u8]) -> i64);

const ROWS: [Row; 2] = [
    ("x86_64", "mov %fs:var@tpoff,%eax", |code| i64::from(i32::from_le_bytes(code[4..8].try_into().unwrap()))),
    ("aarch64", "add x0,x0,#:tprel_lo12:var", |code| {
        i64::from(u32::from_le_bytes(code[..4].try_into().unwrap()) >> 10 & 0xfff)
    }),
];

#[test]
fn variables_lie_where_linkers_reach_them() {
    for (name, code, distance) in ROWS {
        let prefix = if name == std::env::consts::ARCH { String::new() } else { format!("{name}-linux-gnu-") };
        let tool = |tool: &str| Command::new(format!("{prefix}{tool}"));
        if tool("as").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "no assembler for {name}");
            println!("SKIPPED {name}: no assembler");
            continue;
        }
        for (size, align) in [(4u64, 4u64), (4, 16), (4, 64), (100, 8), (40, 64)] {
            let dir = tempfile::tempdir().unwrap();
            let source = format!(
                "{code}\n.section .tbss,\"awT\",%nobits\n.balign {align}\n.globl var\n.type var,%object\nvar: .skip {size}\n"
            );
            std::fs::write(dir.path().join("a.s"), source).unwrap();
            for (program, arguments) in [("as", "a.s -o a.o"), ("ld", "-e 0 -o a a.o")] {
                let status = tool(program).args(arguments.split(' ')).current_dir(dir.path()).status().unwrap();
                assert!(status.success(), "{name}: {program} {arguments}");
            }
            let linked = std::fs::read(dir.path().join("a")).unwrap();
            let file = object::File::parse(&*linked).unwrap();
            let text = file.section_by_name(".text").unwrap();
            // The variable is the first one of the block.
            let block = by_name(name).unwrap().thread_block(size, align);
            assert_eq!(block, Some(distance(text.data().unwrap())), "{name}: {size} bytes aligned to {align}");
        }
        assert!(by_name(name).unwrap().thread_block(u64::MAX, 1 << 63).is_none(), "{name}: beyond memory");
    }
    assert_eq!(by_name("loongarch64").unwrap().thread_block(100, 64), Some(0), "begins at the thread pointer");
}
