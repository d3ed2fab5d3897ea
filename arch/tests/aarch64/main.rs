// SPDX-License-Identifier: GPL-2.0-or-later
//! The aarch64 column against that processor's assemblers, linkers and compilers, and against QEMU, which runs what we make.
//! On other machines the cross tools do it; without them these tests say so and pass.

mod address;
mod decode;
mod gate;
mod registers;
mod relax;
mod reloc;
mod signal;
mod veneer;

use object::{Object, ObjectSection};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use ulp_arch::Arch;

fn aarch64() -> &'static dyn Arch {
    ulp_arch::by_name("aarch64").unwrap()
}

fn native() -> bool {
    ulp_arch::host().is_some_and(|host| host.machine() == aarch64().machine())
}

/// The name of a GNU tool for aarch64.
fn gnu(name: &str) -> String {
    if native() { name.to_owned() } else { format!("aarch64-linux-gnu-{name}") }
}

/// Whether one of the tools is missing, which is said, and an error where everything has to be there.
fn missing(tools: &[&str]) -> bool {
    let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    let missing = tools.iter().find(|tool| !there(tool));
    if let Some(tool) = missing {
        assert!(std::env::var_os("CI").is_none(), "{tool} is not installed, and CI skips nothing");
        println!("SKIPPED: {tool} is not installed");
    }
    missing.is_some()
}

fn output(tool: &str, args: &[&str], dir: &Path) -> Output {
    let done = Command::new(tool).args(args).current_dir(dir).output();
    done.unwrap_or_else(|e| panic!("{tool}: {e}"))
}

fn run(tool: &str, args: &[&str], dir: &Path) -> Result<(), String> {
    let done = output(tool, args, dir);
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

fn text_of(file: &[u8]) -> Vec<u8> {
    object::File::parse(file).unwrap().section_by_name(".text").unwrap().data().unwrap().to_vec()
}

/// The bytes of `source` linked at `address`.
fn assemble(source: &str, address: u64) -> Vec<u8> {
    assemble_with(source, address, &[])
}

/// Likewise, where the symbols have these values.
fn assemble_with(source: &str, address: u64, symbols: &[(&str, u64)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.s"), format!(".arch armv8.5-a+sve\n.text\n{source}\n")).unwrap();
    run(&gnu("as"), &["-o", "a.o", "a.s"], dir.path()).unwrap_or_else(|e| panic!("as refuses:\n{source}\n{e}"));
    let text = format!("-Ttext={address:#x}");
    let symbols: Vec<_> = symbols.iter().map(|(name, value)| format!("--defsym={name}={value:#x}")).collect();
    let mut args = vec!["-e", "0", &text, "-o", "a", "a.o"];
    args.extend(symbols.iter().map(String::as_str));
    run(&gnu("ld"), &args, dir.path()).unwrap_or_else(|e| panic!("ld refuses:\n{source}\n{e}"));
    text_of(&std::fs::read(dir.path().join("a")).unwrap())
}

/// The exit status, or the negative signal, of a program whose sections stand at these places, on a processor with everything that QEMU has.
fn run_program(source: &str, places: &[(&str, u64)]) -> Option<i32> {
    run_linked(source, places, &[])
}

/// Likewise, linked with these options too.
fn run_linked(source: &str, places: &[(&str, u64)], options: &[&str]) -> Option<i32> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.s"), source).unwrap();
    run(&gnu("as"), &["-o", "a.o", "a.s"], dir.path()).unwrap_or_else(|e| panic!("as refuses:\n{source}\n{e}"));
    let places: Vec<_> = places.iter().map(|(name, at)| format!("--section-start=.{name}={at:#x}")).collect();
    let mut args = vec!["-o", "a", "a.o"];
    args.extend(places.iter().map(String::as_str));
    args.extend(options);
    run(&gnu("ld"), &args, dir.path()).unwrap_or_else(|e| panic!("ld refuses:\n{source}\n{e}"));
    let status = match native() {
        true => Command::new(dir.path().join("a")).status().unwrap(),
        false => output("qemu-aarch64", &["-cpu", "max,pauth-impdef=on", "./a"], dir.path()).status,
    };
    status.code().or_else(|| status.signal().map(|signal| -signal))
}
