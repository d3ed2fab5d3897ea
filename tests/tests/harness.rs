// SPDX-License-Identifier: GPL-2.0-or-later
//! The harness sees what it has to see: a changed byte of code, a new mapping, a stopped thread.

use anyhow::{Context, Result};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use ulp_tests::case::{Case, Picture};
use ulp_tests::{elf, ensure_that};

#[test]
fn a_changed_byte_of_code_is_seen_where_it_is() -> Result<()> {
    let case = Case::life("two-functions")?;
    let target = case.start()?;
    let old = Picture::take(&target, &case.production)?;
    ensure_that!(old == Picture::take(&target, &case.production)?, "two pictures of the same program differ");
    let functions = elf::functions(&case.production.program)?;
    let entry = functions.get("left").and_then(|all| all.first()).context("the program has left()")?;
    let at = target.load_bias(&case.production.program)?.wrapping_add(*entry);
    let byte = *target.read(at, 1)?.first().context("a byte")?;
    let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", target.pid()))?;
    memory.write_all_at(&[byte ^ 1], at)?;
    let changed = old.changed(&Picture::take(&target, &case.production)?)?;
    ensure_that!(changed == [at], "one byte at {at:#x} changed, {changed:x?} was seen");
    memory.write_all_at(&[byte], at)?;
    ensure_that!(old == Picture::take(&target, &case.production)?, "the byte was put back");
    Ok(())
}

#[test]
fn a_stopped_target_is_not_alive() -> Result<()> {
    let case = Case::life("two-functions")?;
    let mut target = case.start()?;
    target.check_alive()?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(target.pid())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP)?;
    nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED))?;
    let said = target.check_alive().err().map(|error| error.to_string());
    ensure_that!(said.as_deref().is_some_and(|text| text.contains("left stopped")), "{said:?}");
    Ok(())
}

#[test]
fn threads_of_a_target_are_counted() -> Result<()> {
    let case = Case::named("threads-64-parked")?;
    let target = case.start()?;
    ensure_that!(target.threads()? == 65, "{} threads", target.threads()?);
    Ok(())
}
