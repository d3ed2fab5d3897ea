// SPDX-License-Identifier: GPL-2.0-or-later
//! The loongarch64 column against LLVM's assembler, linker and compiler for it (Debian 12 has no others), and against QEMU, which
//! runs what we make. Without them these tests say so and pass.

mod call;
mod gate;
mod insn;
mod jump;
mod reloc;
mod shorten;
mod signal;

use object::{Object, ObjectSection};
use std::fs;
use std::path::Path;
use std::process::Command;
use ulp_arch::Arch;

/// Whether one of the tools is missing, which is said, and an error where everything has to be there.
fn missing() -> bool {
    let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    let missing = ["llvm-mc-19", "ld.lld-19", "clang-19", "qemu-loongarch64"].into_iter().find(|tool| !there(tool));
    if let Some(tool) = missing {
        assert!(std::env::var_os("CI").is_none(), "{tool} is not installed, and CI skips nothing");
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
    let args = ["--triple=loongarch64", "-mattr=+d,+lsx,+lasx", "-filetype=obj", "-o", "a.o", "a.s"];
    run("llvm-mc-19", &args, dir).unwrap_or_else(|| panic!("llvm-mc refuses:\n{source}"));
    fs::read(dir.join("a.o")).unwrap()
}

fn text_of(file: &[u8]) -> Vec<u8> {
    object::File::parse(file).unwrap().section_by_name(".text").unwrap().data().unwrap().to_vec()
}

/// The bytes of `source`, assembled to stand at `at`, where it may name the addresses `known`.
fn instructions(source: &str, at: u64, known: &[(&str, u64)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    assemble(&format!(".text\n{source}\n"), dir.path());
    let text = format!("-Ttext={at:#x}");
    let known: Vec<String> = known.iter().map(|(name, value)| format!("--defsym={name}={value:#x}")).collect();
    let mut args = vec!["--no-relax", "-e", "0", &text, "-o", "a", "a.o"];
    args.extend(known.iter().map(String::as_str));
    run("ld.lld-19", &args, dir.path()).unwrap_or_else(|| panic!("lld links\n{source}"));
    text_of(&fs::read(dir.path().join("a")).unwrap())
}

/// Bytes for the assembler.
fn listed(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
}

/// The status of the program `source` with these sections.
fn execute(source: &str, sections: &[(&str, u64)]) -> Option<i32> {
    let dir = tempfile::tempdir().unwrap();
    assemble(source, dir.path());
    let places: Vec<String> = sections.iter().map(|(name, at)| format!("--section-start=.{name}={at:#x}")).collect();
    let mut args = vec!["--no-relax", "-static", "-o", "a", "a.o"];
    args.extend(places.iter().map(String::as_str));
    run("ld.lld-19", &args, dir.path()).unwrap_or_else(|| panic!("lld links\n{source}"));
    Command::new("qemu-loongarch64").arg(dir.path().join("a")).status().unwrap().code()
}
