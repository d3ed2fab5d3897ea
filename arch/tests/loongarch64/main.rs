// SPDX-License-Identifier: GPL-2.0-or-later
//! The loongarch64 column against LLVM's assembler, linker and compiler for it (Debian 12 has no others), and against QEMU, which
//! runs what we make. Without them these tests say so and pass.

mod reloc;

use object::{Object, ObjectSection};
use std::fs;
use std::path::Path;
use std::process::Command;
use ulp_arch::Arch;

/// Whether one of the tools is missing, which is said.
fn missing() -> bool {
    let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    let missing = ["llvm-mc-19", "ld.lld-19", "clang-19", "qemu-loongarch64"].into_iter().find(|tool| !there(tool));
    if let Some(tool) = missing {
        println!("SKIPPED: {tool} is not installed");
    }
    missing.is_some()
}

fn loongarch64() -> &'static dyn Arch {
    ulp_arch::by_name("loongarch64").unwrap()
}

/// Runs a tool of LLVM 19; `None` when it says no.
fn run(tool: &str, args: &[&str], dir: &Path) -> Option<Vec<u8>> {
    let done = Command::new(tool).args(args).current_dir(dir).output();
    let done = done.unwrap_or_else(|e| panic!("{tool}: {e}"));
    if !done.status.success() {
        println!("{tool} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    done.status.success().then_some(done.stdout)
}

fn assemble(source: &str, dir: &Path) -> Vec<u8> {
    fs::write(dir.join("a.s"), source).unwrap();
    let args = ["--triple=loongarch64", "-mattr=+d", "-filetype=obj", "-o", "a.o", "a.s"];
    run("llvm-mc-19", &args, dir).unwrap_or_else(|| panic!("llvm-mc refuses:\n{source}"));
    fs::read(dir.join("a.o")).unwrap()
}

fn text_of(file: &[u8]) -> Vec<u8> {
    object::File::parse(file).unwrap().section_by_name(".text").unwrap().data().unwrap().to_vec()
}
