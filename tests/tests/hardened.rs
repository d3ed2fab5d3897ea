// SPDX-License-Identifier: GPL-2.0-or-later
//! Targets that harden themselves, live in containers, or are odd in some other way: each is patched and reverted like any
//! process, or refused with the reason, and lives on either way.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use ulp_tests::case::{Case, Picture};
use ulp_tests::process::Running;
use ulp_tests::tools::{Ran, run, ulp_apply};
use ulp_tests::{CannotRun, ensure_that};

/// A process that was made odd.
struct Odd {
    case: Case,
    package: PathBuf,
    target: Running,
}

impl Odd {
    fn start() -> Result<Self> {
        let case = Case::life("hardened")?;
        let package = case.build_package()?;
        let target = case.start()?;
        Ok(Self { case, package, target })
    }

    /// A fresh process of the same program, made odd by these words.
    fn again(&mut self, words: &[&str]) -> Result<()> {
        self.target = self.case.start()?;
        self.become_odd(words)
    }

    fn become_odd(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            let answer = self.target.ask(word)?;
            if answer.starts_with("cannot") {
                return Err(CannotRun(format!("{word}: {answer}")).into());
            }
            ensure_that!(answer == "ok", "{word}: {answer}");
        }
        Ok(())
    }

    fn value(&mut self, wanted: &str) -> Result<()> {
        let value = self.target.ask("value")?;
        ensure_that!(value == wanted, "the value is {value}, not {wanted}");
        self.target.check_alive()
    }

    fn apply_with(&self, more: &[&str]) -> Result<Ran> {
        let pid = self.target.pid().to_string();
        run(ulp_apply()?.arg(&self.package).args(["--pid", &pid]).args(more))
    }

    fn apply(&self) -> Result<Ran> {
        self.apply_with(&["--wait", "20s"])
    }

    fn revert(&self) -> Result<Ran> {
        let pid = self.target.pid().to_string();
        run(ulp_apply()?.args(["revert", "fix", "--wait", "20s", "--pid", &pid]))
    }

    fn is_patched(&mut self) -> Result<()> {
        let old = Picture::take(&self.target, &self.case.production)?;
        self.value("1")?;
        self.apply()?.expect_code(0)?;
        self.value("2")?;
        self.revert()?.expect_code(0)?;
        self.value("1")?;
        ensure_that!(old == Picture::take(&self.target, &self.case.production)?, "the code is not as it was");
        Ok(())
    }

    fn is_refused(&mut self, code: i32, word: &str) -> Result<()> {
        let old = (Picture::take(&self.target, &self.case.production)?, self.target.lasting_maps()?);
        let ran = self.apply_with(&["--wait", "1s"])?;
        ran.expect_code(code)?;
        ensure_that!(ran.stderr.contains(word), "no word of {word:?}\n{}", ran.report());
        let new = (Picture::take(&self.target, &self.case.production)?, self.target.lasting_maps()?);
        ensure_that!(old == new, "refused, and yet something has changed");
        self.value("1")
    }
}

fn seccomp_filters_are_read_before_they_kill() -> Result<()> {
    let mut odd = Odd::start()?;
    for name in [
        "kill-mmap",
        "kill-thread-mmap",
        "trap-mmap",
        "trace-mmap",
        "notify-mmap",
        "unknown-mmap",
        "kill-exec-mmap",
        "stacked-kill",
        "args-kill",
    ] {
        odd.again(&[&format!("filter {name}")]).with_context(|| name.to_owned())?;
        odd.is_refused(5, "seccomp").with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn seccomp_filters_that_allow_us_are_no_obstacle() -> Result<()> {
    let mut odd = Odd::start()?;
    for name in ["allow", "log-mmap", "stacked-allow", "arch", "args-allow", "allow-list"] {
        odd.again(&[&format!("filter {name}")]).with_context(|| name.to_owned())?;
        odd.is_patched().with_context(|| name.to_owned())?;
    }
    // One thread has a filter that would kill it, and others do the work.
    odd.again(&["parked 4", "filter-here kill-mmap"])?;
    odd.is_patched()
}

/// A filter that answers with an error is stepped around where we have the right to, and refused where we do not.
fn seccomp_filters_that_say_no() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(CannotRun("a tracer without CAP_SYS_ADMIN cannot step around a filter".into()).into());
    }
    let mut odd = Odd::start()?;
    for name in ["errno-mmap", "errno-exec-mmap-and-mprotect", "errno-both"] {
        odd.again(&[&format!("filter {name}")]).with_context(|| name.to_owned())?;
        odd.is_patched().with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// What the patch maps could never be unmapped again: that is no reason to die.
fn seccomp_filter_that_kills_unmapping() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["filter kill-munmap"])?;
    let ran = odd.apply()?;
    if ran.code == Some(0) {
        odd.value("2")?;
        odd.revert()?;
    } else {
        ran.expect_code(5)?;
    }
    odd.value("1")
}

/// A stopped wait is resumed by a system call of its own, restart_syscall(2), which a filter may not know.
fn seccomp_filter_that_kills_resumed_waits() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["sleepers", "filter kill-restart"])?;
    for _ in 0..3 {
        odd.is_patched()?;
    }
    Ok(())
}

fn strict_seccomp() -> Result<()> {
    // It cannot even be asked afterwards: a strict process may only read, write and exit.
    let mut odd = Odd::start()?;
    odd.target.tell("filter strict")?;
    ensure_that!(odd.target.line()? == "ok", "no strict mode");
    odd.is_refused(5, "seccomp")
}

fn not_dumpable() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["undumpable"])?;
    if nix::unistd::geteuid().is_root() { odd.is_patched() } else { odd.is_refused(5, "permi") }
}

fn own_namespaces() -> Result<()> {
    let mut odd = Odd::start()?;
    for word in ["own-mounts", "own-rest", "own-users"] {
        match odd.again(&[word]) {
            Err(e) if e.is::<CannotRun>() => println!("SKIPPED {word}: {e}"),
            done => {
                done?;
                odd.is_patched().with_context(|| word.to_owned())?;
            }
        }
    }
    Ok(())
}

/// Its own process ids: inside it is 1, and we call it by what it is outside.
fn own_process_ids() -> Result<()> {
    let mut odd = Odd::start()?;
    let program = odd.case.production.program.clone();
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--kill-child", "--mount-proc", "--"]).arg(&program).arg("0");
    let mut outer = match Running::spawn(&mut command) {
        Ok(outer) => outer,
        Err(e) => return Err(CannotRun(format!("unshare --pid: {e:#}")).into()),
    };
    let pid = children_of(outer.pid())?.first().copied().context("unshare has a child")?.to_string();
    run(ulp_apply()?.arg(&odd.package).args(["--wait", "20s", "--pid", &pid]))?.expect_code(0)?;
    ensure_that!(outer.ask("value")? == "2", "not patched");
    run(ulp_apply()?.args(["revert", "fix", "--wait", "20s", "--pid", &pid]))?.expect_code(0)?;
    ensure_that!(outer.ask("value")? == "1", "not reverted");
    outer.check_alive()?;
    odd.value("1")
}

fn children_of(pid: u32) -> Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    text.split_whitespace().map(|word| Ok(word.parse()?)).collect()
}

fn changed_root() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["chroot"])?;
    odd.is_patched()
}

/// The file is another build now: what runs is in memory, and is told apart.
fn binary_replaced_by_another_build() -> Result<()> {
    let mut odd = Odd::start()?;
    let program = odd.case.production.program.clone();
    let other = program.with_extension("new");
    std::fs::copy("/bin/true", &other)?;
    std::fs::rename(&other, &program)?;
    odd.is_patched()
}

fn first_thread_ended() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["parked 2", "leader-ends"])?;
    odd.value("1")?;
    odd.apply()?.expect_code(0)?;
    odd.value("2")?;
    odd.revert()?.expect_code(0)?;
    odd.value("1")
}

fn another_process_shares_the_memory() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["sibling"])?;
    odd.is_refused(4, "shares")?;
    odd.become_odd(&["sibling-ends"])?;
    odd.is_patched()
}

fn a_vfork_child_borrows_the_memory() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["vfork"])?;
    odd.is_refused(4, "shares")?;
    odd.become_odd(&["vfork-ends"])?;
    odd.is_patched()
}

fn a_zombie_is_no_target() -> Result<()> {
    let mut odd = Odd::start()?;
    let zombie = odd.target.ask("zombie")?;
    let ran = run(ulp_apply()?.arg(&odd.package).args(["--pid", &zombie]))?;
    ran.expect_code(3)?;
    ensure_that!(ran.stderr.contains("ended"), "{}", ran.report());
    odd.is_patched()
}

/// The kernel's own threads in the process never run its code.
fn io_uring_with_threads_of_its_own() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["uring"])?;
    odd.is_patched()
}

fn restartable_sequences_are_aborted_as_by_any_interruption() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["rseq"])?;
    // A thread that is nearly always inside one is borrowed only when it is not, which takes many looks.
    for _ in 0..if std::env::var_os("ULP_LONG").is_some() { 10 } else { 1 } {
        odd.is_patched()?;
    }
    Ok(())
}

fn uprobe_at_the_entry_before() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["uprobe"])?;
    odd.is_refused(5, "value")?;
    odd.become_odd(&["uprobe-ends"])?;
    odd.is_patched()
}

/// The entry keeps its landing pad, so that the kernel's breakpoint replaces nothing of our jump.
fn uprobe_at_the_entry_after() -> Result<()> {
    let mut odd = Odd::start()?;
    let applied = odd.apply()?;
    applied.expect_code(0)?;
    ensure_that!(!applied.stderr.contains("uprobe"), "warned of a harmless probe\n{}", applied.report());
    odd.become_odd(&["uprobe"])?;
    for _ in 0..100 {
        odd.value("2")?;
    }
    // Nobody's bytes are written over: the probe goes first.
    odd.revert()?.expect_code(5)?;
    odd.value("2")?;
    odd.become_odd(&["uprobe-ends"])?;
    odd.revert()?.expect_code(0)?;
    odd.value("1")
}

/// A program for this assembler and linker mode that only waits.
fn waiting_program(folder: &std::path::Path, name: &str, modes: (&str, &str), code: &str) -> Result<PathBuf> {
    let (source, object, program) = (folder.join("wait.s"), folder.join("wait.o"), folder.join(name));
    std::fs::write(&source, code)?;
    let as_ = Command::new("as").arg(modes.0).arg(&source).arg("-o").arg(&object).output()?;
    let ld = Command::new("ld").args(["-m", modes.1]).arg(&object).arg("-o").arg(&program).output()?;
    if !as_.status.success() || !ld.status.success() {
        return Err(CannotRun(format!("as or ld cannot make {name} programs")).into());
    }
    Ok(program)
}

fn is_refused_as_32_bit(name: &str, modes: (&str, &str), code: &str) -> Result<()> {
    let mut odd = Odd::start()?;
    let folder = tempfile::tempdir()?;
    let program = waiting_program(folder.path(), name, modes, code)?;
    let mut child = match Command::new(&program).spawn() {
        Ok(child) => child,
        Err(e) => return Err(CannotRun(format!("this kernel does not run {name} programs: {e}")).into()),
    };
    std::thread::sleep(std::time::Duration::from_millis(50));
    if let Some(status) = child.try_wait()? {
        return Err(CannotRun(format!("this kernel does not run {name} programs: {status}")).into());
    }
    let ran = run(ulp_apply()?.arg(&odd.package).args(["--pid", &child.id().to_string()]));
    let alive = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    let ran = ran?;
    ran.expect_code(5)?;
    ensure_that!(alive, "the program is dead");
    ensure_that!(ran.stderr.contains("64"), "no word of the machine\n{}", ran.report());
    odd.value("1")
}

fn i386_process() -> Result<()> {
    // pause(2) for ever.
    let code = ".globl _start\n_start: mov $29, %eax\nint $0x80\njmp _start\n";
    is_refused_as_32_bit("i386", ("--32", "elf_i386"), code)
}

fn x32_process() -> Result<()> {
    let code = ".globl _start\n_start: mov $0x40000022, %eax\nsyscall\njmp _start\n";
    is_refused_as_32_bit("x32", ("--x32", "elf32_x86_64"), code)
}

fn timer_signals_all_the_while() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["parked 8", "alarms 100"])?;
    let before: u64 = odd.target.ask("count")?.parse()?;
    for _ in 0..10 {
        odd.is_patched()?;
    }
    let after: u64 = odd.target.ask("count")?.parse()?;
    ensure_that!(after > before, "no signal arrived");
    Ok(())
}

fn threads_come_and_go_in_a_storm() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["parked 8", "storm 2"])?;
    for _ in 0..5 {
        odd.is_patched()?;
    }
    odd.become_odd(&["storm-ends"])
}

fn more_threads_than_a_stop_may_take() -> Result<()> {
    let mut odd = Odd::start()?;
    odd.again(&["parked 4200"])?;
    ensure_that!(odd.target.threads()? > 4000, "only {} threads", odd.target.threads()?);
    let refused = odd.apply_with(&["--max-stop", "1ms", "--wait", "1s"])?;
    refused.expect_code(5)?;
    ensure_that!(refused.stderr.contains("pass --max-stop 1"), "no word of what to pass\n{}", refused.report());
    // Not only with a limit that nobody would choose: this many need more than the usual one.
    let usual = odd.apply_with(&[])?;
    ensure_that!(usual.expect_code(5)?.stderr.contains("and --max-stop is 50 ms"), "{}", usual.report());
    odd.value("1")?;
    odd.apply_with(&["--max-stop", "5s", "--wait", "30s"])?.expect_code(0)?;
    odd.value("2")?;
    let pid = odd.target.pid().to_string();
    run(ulp_apply()?.args(["revert", "fix", "--max-stop", "5s", "--wait", "30s", "--pid", &pid]))?.expect_code(0)?;
    odd.value("1")
}

/// Nobody's processes are nobody else's to patch; the reason names what is missing.
fn no_capability() -> Result<()> {
    let mut odd = Odd::start()?;
    if !nix::unistd::geteuid().is_root() {
        return Err(CannotRun("only root can become somebody else".into()).into());
    }
    // Readable for whoever runs it: the work directory is not.
    let folder = tempfile::Builder::new().prefix("ulp-anyone").tempdir()?;
    let (program, package) = (folder.path().join("ulp-apply"), folder.path().join("fix.ulp"));
    std::fs::copy(ulp_apply()?.get_program(), &program)?;
    std::fs::copy(&odd.package, &package)?;
    for path in [folder.path(), &program, &package] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let pid = odd.target.pid().to_string();
    let mut command = Command::new(&program);
    let ran = run(command.arg(&package).args(["--pid", &pid]).uid(65534).gid(65534))?;
    ran.expect_code(5)?;
    ensure_that!(ran.stderr.contains("CAP_SYS_PTRACE") || ran.stderr.contains("root"), "{}", ran.report());
    odd.is_patched()
}

ulp_tests::main_of_tests![
    seccomp_filters_are_read_before_they_kill,
    seccomp_filters_that_allow_us_are_no_obstacle,
    seccomp_filters_that_say_no,
    seccomp_filter_that_kills_unmapping,
    seccomp_filter_that_kills_resumed_waits,
    strict_seccomp,
    not_dumpable,
    own_namespaces,
    own_process_ids,
    changed_root,
    binary_replaced_by_another_build,
    first_thread_ended,
    another_process_shares_the_memory,
    a_vfork_child_borrows_the_memory,
    a_zombie_is_no_target,
    io_uring_with_threads_of_its_own,
    restartable_sequences_are_aborted_as_by_any_interruption,
    uprobe_at_the_entry_before,
    uprobe_at_the_entry_after,
    i386_process,
    x32_process,
    timer_signals_all_the_while,
    threads_come_and_go_in_a_storm,
    more_threads_than_a_stop_may_take,
    no_capability,
];
