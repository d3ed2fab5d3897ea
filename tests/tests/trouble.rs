// SPDX-License-Identifier: GPL-2.0-or-later
//! What a user can get wrong: the documented exit code, a message that says what to do, and a target that lives on.

use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use ulp_tests::case::{Case, Picture};
use ulp_tests::process::Running;
use ulp_tests::tools::{Ran, run, ulp_apply, ulp_build};
use ulp_tests::trees::{copy, tool};
use ulp_tests::{elf, ensure_that};

fn apply(package: &Path, target: &Running) -> Result<Ran> {
    run(ulp_apply()?.arg(package).arg("--pid").arg(target.pid().to_string()))
}

/// The process runs, answers as before, and not one byte of its code or its mappings has changed.
fn unharmed(case: &Case, target: &mut Running, old: &(Picture, usize)) -> Result<()> {
    target.check_alive()?;
    ensure_that!(old.0 == Picture::take(target, &case.production)?, "code of the target has changed");
    ensure_that!(old.1 == target.lasting_maps()?.len(), "mappings of the target have changed");
    let ask = case.expect.asks.first().context("the case asks something")?;
    let answer = target.ask(&ask.line)?;
    ensure_that!(answer == ask.before, "the target answers {answer:?}");
    Ok(())
}

fn picture(case: &Case, target: &Running) -> Result<(Picture, usize)> {
    Ok((Picture::take(target, &case.production)?, target.lasting_maps()?.len()))
}

#[test]
fn wrong_build_id() -> Result<()> {
    let (case, other) = (Case::life("two-functions")?, Case::life("forking")?);
    let package = case.build_package()?;
    let mut target = other.start()?;
    let old = picture(&other, &target)?;
    let ran = apply(&package, &target)?;
    ran.expect_code(5)?;
    for file in [&case.production.program, &other.production.program] {
        let id = elf::build_id(file)?;
        ensure_that!(ran.stderr.contains(&id[..8]), "build-id {id} is not named\n{}", ran.report());
    }
    unharmed(&other, &mut target, &old)
}

#[test]
fn wrong_machine() -> Result<()> {
    let case = Case::life("two-functions")?;
    let mut package = ulp_format::Package::read(&std::fs::read(case.build_package()?)?)?;
    // The very same patch, were it for another processor.
    package.manifest.arch = "aarch64".into();
    for section in &mut package.sections {
        section.relocations.clear();
    }
    for function in package.manifest.targets.iter_mut().flat_map(|target| &mut target.functions) {
        // A jump is one word there.
        function.old_bytes.truncate(8);
    }
    let file = case.work().join("other.ulp");
    std::fs::write(&file, package.write()?)?;
    let mut target = case.start()?;
    let old = picture(&case, &target)?;
    let ran = apply(&file, &target)?;
    ran.expect_code(5)?;
    ensure_that!(ran.stderr.contains("aarch64"), "the machine is not named\n{}", ran.report());
    unharmed(&case, &mut target, &old)
}

#[test]
fn damaged_package() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    let good = std::fs::read(&package)?;
    let mut target = case.start()?;
    let old = picture(&case, &target)?;
    let bad = case.work().join("bad.ulp");
    let step = (good.len() / 40).max(1);
    for at in (0..good.len()).step_by(step) {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        for (what, bytes) in [("bit flipped", &flipped[..]), ("truncated", &good[..at])] {
            std::fs::write(&bad, bytes)?;
            let ran = apply(&bad, &target)?;
            ran.expect_code(7).with_context(|| format!("{what} at {at} of {}", good.len()))?;
            run(ulp_apply()?.arg("info").arg(&bad))?.expect_code(7)?;
        }
    }
    std::fs::write(&bad, [&good[..], b"x"].concat())?;
    apply(&bad, &target)?.expect_code(7)?;
    unharmed(&case, &mut target, &old)
}

#[test]
fn no_permission() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    let old = picture(&case, &target)?;
    // Root tries as nobody; anyone else tries what belongs to root. The program may lie where nobody may not look.
    let program = case.work().join("ulp-apply");
    copy(Path::new(ulp_apply()?.get_program()), &program)?;
    for path in [case.work(), &program, &package] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    let root = nix::unistd::geteuid().is_root();
    let mut command = Command::new(&program);
    if root {
        command.uid(65534).gid(65534);
    }
    let pid = if root { target.pid() } else { 1 };
    let ran = run(command.arg(&package).arg("--pid").arg(pid.to_string()))?;
    ran.expect_code(5)?;
    ensure_that!(ran.stderr.contains(&pid.to_string()), "the message does not name the process\n{}", ran.report());
    unharmed(&case, &mut target, &old)
}

#[test]
fn unknown_pid() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    // A child that has been waited for: its number is free, and numbers are not reused at once.
    let mut child = Command::new("true").spawn()?;
    child.wait()?;
    let ran = run(ulp_apply()?.arg(&package).arg("--pid").arg(child.id().to_string()))?;
    ran.expect_code(3)?;
    ensure_that!(ran.stderr.contains(&child.id().to_string()), "the pid is not named\n{}", ran.report());
    // Nobody runs the program at all.
    run(ulp_apply()?.arg(&package).arg("--all"))?.expect_code(3)?;
    Ok(())
}

#[test]
fn traced_by_a_debugger() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    let old = picture(&case, &target)?;
    let tracer = Tracer::attach(&target)?;
    let ran = apply(&package, &target)?;
    ran.expect_code(5)?;
    let named = ran.stderr.contains(&nix::unistd::gettid().to_string());
    ensure_that!(named, "the tracer is not named\n{}", ran.report());
    tracer.detach()?;
    unharmed(&case, &mut target, &old)
}

/// This test as a debugger that only attaches. Tracing belongs to a thread, so all of it stays in one.
struct Tracer(nix::unistd::Pid);

impl Tracer {
    fn attach(target: &Running) -> Result<Self> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(target.pid())?);
        nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty())?;
        Ok(Self(pid))
    }

    fn detach(self) -> Result<()> {
        nix::sys::ptrace::interrupt(self.0)?;
        nix::sys::wait::waitpid(self.0, None)?;
        nix::sys::ptrace::detach(self.0, None)?;
        Ok(())
    }
}

#[test]
fn usage_errors() -> Result<()> {
    run(ulp_apply()?.arg("--no-such-option"))?.expect_code(2)?;
    run(ulp_apply()?.arg("nothing.ulp"))?.expect_code(2)?;
    run(&mut ulp_build()?)?.expect_code(2)?;
    let ran = run(ulp_apply()?.args(["info", "/dev/null"]))?;
    ran.expect_code(7)?;
    Ok(())
}

#[test]
fn no_build_system() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (tree, text) in [("a", "int f(void) { return 1; }\n"), ("b", "int f(void) { return 2; }\n")] {
        std::fs::create_dir(dir.path().join(tree))?;
        std::fs::write(dir.path().join(tree).join("f.c"), text)?;
    }
    let build = |more: &[&str]| -> Result<Ran> {
        let mut command = ulp_build()?;
        command.arg("--orig").arg(dir.path().join("a")).arg("--fix").arg(dir.path().join("b"));
        run(command.arg("-o").arg(dir.path().join("x.ulp")).args(more))
    };
    let ran = build(&[])?;
    ran.expect_code(1)?;
    ensure_that!(ran.stderr.contains("--build"), "the message does not say what to do\n{}", ran.report());
    let ran = build(&["--build", "true"])?;
    ensure_that!(matches!(ran.code, Some(1 | 5)), "nothing compiled, and yet\n{}", ran.report());
    ensure_that!(ran.stderr.contains("compil"), "the message does not say that nothing compiled\n{}", ran.report());
    let ran = build(&["--build", "gcc --no-such-flag f.c"])?;
    ran.expect_code(1)?;
    ensure_that!(!dir.path().join("x.ulp").exists(), "an error, and yet a package");
    Ok(())
}

#[test]
fn fix_that_touches_nothing() -> Result<()> {
    let case = Case::life("two-functions")?;
    let same = case.work().join("same");
    copy(&case.trees.before, &same)?;
    let out = case.work().join("same.ulp");
    let mut command = ulp_build()?;
    command.arg("--orig").arg(&case.trees.before).arg("--fix").arg(&same).arg("--target");
    run(command.arg(&case.production.program).arg("-o").arg(&out))?.expect_code(3)?;
    ensure_that!(!out.exists(), "no change, and yet a package");
    Ok(())
}

#[test]
fn package_opens_with_binutils() -> Result<()> {
    let case = Case::life("two-functions")?;
    let package = case.build_package()?;
    tool(Command::new("readelf").arg("-SW").arg(&package))?;
    let ran = run(Command::new("objdump").arg("-d").arg(&package))?;
    ran.expect_code(0)?;
    ensure_that!(ran.stdout.contains("left"), "objdump shows no code of left\n{}", ran.report());
    Ok(())
}
