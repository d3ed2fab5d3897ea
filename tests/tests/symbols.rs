// SPDX-License-Identifier: GPL-2.0-or-later
//! What a debugger and a profiler see of patches: gdb itself, on a process and on a core dump of it, finds the names of new code and
//! the way through it.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use ulp_tests::case::{Case, Picture};
use ulp_tests::process::Running;
use ulp_tests::tools::{Ran, run, ulp_apply};
use ulp_tests::{CannotRun, ensure_that};

/// A program with two patches, `one` for `inner` and `two` for `outer`, which calls it.
struct Scene {
    case: Case,
    packages: [PathBuf; 2],
    target: Running,
}

impl Scene {
    fn set() -> Result<Self> {
        let case = Case::life("call-chain")?;
        let after = std::fs::read_to_string(case.trees.after.join("main.c"))?;
        let inner = after.split_once("NOINLINE int stay").and_then(|(_, rest)| rest.split_once("NOINLINE int outer"));
        let inner = format!("NOINLINE int stay{}", inner.context("main.c has stay, inner and outer")?.0);
        let old = "__attribute__((noipa)) int inner(int n) { return n + 1; }\n";
        let packages = [case.package_of("one", old, &inner)?, case.package_of("two", "+ 2;", "+ 200;")?];
        let mut target = case.start()?;
        let pid = target.pid().to_string();
        run(ulp_apply()?.args(&packages).args(["--wait", "20s", "--pid", &pid]))?.expect_code(0)?;
        ensure_that!(target.ask("5")? == "305", "not patched");
        Ok(Self { case, packages, target })
    }

    /// A question that is never answered: the thread stays in the patches.
    fn stay_inside(&mut self) -> Result<()> {
        ensure_that!(self.target.ask("-1")? == "inside", "not inside");
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.case.work().join(name)
    }

    fn symbols(&self, arguments: &[&str], packages: &[PathBuf], output: &Path) -> Result<Ran> {
        run(ulp_apply()?.arg("symbols").args(packages).args(arguments).arg("-o").arg(output))
    }

    fn of_process(&self, packages: &[PathBuf]) -> Result<PathBuf> {
        let output = self.file("patches.sym");
        self.symbols(&["--pid", &self.target.pid().to_string()], packages, &output)?.expect_code(0)?;
        Ok(output)
    }
}

/// gdb with nobody's settings; what it is attached to goes on when it ends.
fn gdb(arguments: &[&str], commands: &[String]) -> Result<String> {
    let there = Command::new("gdb").arg("--version").output();
    if there.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Err(CannotRun("gdb is not installed".into()).into());
    }
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex", "set width 0"]).args(arguments);
    for command in commands {
        gdb.arg("-ex").arg(command);
    }
    let ran = run(&mut gdb)?;
    ran.expect_code(0)?;
    Ok(ran.stdout)
}

/// The functions of a backtrace, innermost first.
fn frames(said: &str) -> Vec<&str> {
    said.lines()
        .filter(|line| line.starts_with('#'))
        .filter_map(|line| line.split(" (").next()?.split_whitespace().last())
        .collect()
}

/// `wanted` follow each other in the backtrace, and behind them comes main.
fn goes_through(said: &str, wanted: &[&str]) -> Result<()> {
    let found = frames(said);
    let whole = [wanted, &["answer", "main"]].concat();
    ensure_that!(found.ends_with(&whole), "{whole:?} are not the outermost frames of {found:?}\n{said}");
    Ok(())
}

fn add(file: &Path) -> String {
    format!("add-symbol-file {}", file.display())
}

const INSIDE: [&str; 3] = ["stay@one", "inner@one", "outer@two"];
const INSIDE_UNNAMED: [&str; 3] = ["unnamed.1@one", "inner@one", "outer@two"];

fn gdb_sees_through_the_patches_of_a_process() -> Result<()> {
    let mut scene = Scene::set()?;
    scene.stay_inside()?;
    let old = (Picture::take(&scene.target, &scene.case.production)?, scene.target.lasting_maps()?);
    let pid = scene.target.pid().to_string();
    let blind = gdb(&["-p", &pid], &["backtrace".into()])?;
    ensure_that!(!frames(&blind).contains(&"inner@one"), "the names were there before\n{blind}");
    for (packages, wanted) in [(&scene.packages[..], INSIDE), (&[], INSIDE_UNNAMED)] {
        let file = scene.of_process(packages)?;
        let now = (Picture::take(&scene.target, &scene.case.production)?, scene.target.lasting_maps()?);
        ensure_that!(old == now, "the process was changed");
        let mut commands = vec![add(&file), "backtrace".into()];
        commands.extend(wanted.map(|name| format!("info symbol '{name}'")));
        commands.push("disassemble 'outer@two'".into());
        let said = gdb(&["-p", &pid], &commands)?;
        goes_through(&said, &wanted)?;
        for name in wanted {
            let section = format!("{name} in section .text.{}", name.split('@').next_back().unwrap_or_default());
            ensure_that!(said.contains(&section), "no {section:?}\n{said}");
        }
        ensure_that!(said.contains("assembler code for function outer@two"), "{said}");
        scene.target.check_alive()?;
    }
    Ok(())
}

fn gdb_sees_through_the_patches_of_a_core_dump() -> Result<()> {
    let mut scene = Scene::set()?;
    scene.stay_inside()?;
    let (core, file) = (scene.file("core"), scene.file("core.sym"));
    gdb(&["-p", &scene.target.pid().to_string()], &[format!("gcore {}", core.display())])?;
    let program = scene.case.production.program.clone();
    let live = scene.of_process(&[])?;
    let (core_name, program) = (core.display().to_string(), program.display().to_string());
    for (packages, wanted) in [(&scene.packages[..], INSIDE), (&[], INSIDE_UNNAMED)] {
        scene.symbols(&["--core", &core_name], packages, &file)?.expect_code(0)?;
        let said = gdb(&[&program, &core_name], &[add(&file), "backtrace".into(), "info symbol 'outer@two'".into()])?;
        goes_through(&said, &wanted)?;
        ensure_that!(said.contains("outer@two in section .text.two"), "{said}");
    }
    ensure_that!(std::fs::read(&live)? == std::fs::read(&file)?, "process and core differ");
    // Half a core may have lost a patch.
    let bytes = std::fs::read(&core)?;
    std::fs::write(&core, bytes.get(..bytes.len() / 2).context("bytes")?)?;
    let cut = scene.symbols(&["--core", &core_name], &[], &scene.file("none"))?;
    ensure_that!(cut.expect_code(1)?.stderr.contains("cut short"), "{}", cut.report());
    Ok(())
}

/// The symbols are written while gdb holds the process, so nothing needs to be stopped for them. A breakpoint by the new name
/// stops in the new code, and the patch is whole afterwards.
fn gdb_stops_in_new_code() -> Result<()> {
    let mut scene = Scene::set()?;
    let file = scene.file("held.sym");
    let pid = scene.target.pid().to_string();
    let program = ulp_apply()?.get_program().to_string_lossy().into_owned();
    let set = scene.file("set");
    let commands = [
        format!("shell {program} symbols --pid {pid} -o {}", file.display()),
        add(&file),
        "break 'inner@one'".into(),
        format!("shell touch {}", set.display()),
        "continue".into(),
        "backtrace".into(),
        "info breakpoints".into(),
    ];
    let said = std::thread::scope(|scope| {
        let gdb = scope.spawn(|| gdb(&["-p", &pid], &commands));
        let began = Instant::now();
        while !set.exists() && !gdb.is_finished() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        scene.target.tell("5")?;
        gdb.join().map_err(|_| anyhow::anyhow!("gdb could not be watched"))?
    })?;
    goes_through(&said, &["inner@one", "outer@two"])?;
    ensure_that!(said.contains("breakpoint already hit 1 time"), "{said}");
    ensure_that!(scene.target.line()? == "305", "another answer under the debugger");
    scene.target.check_alive()?;
    run(ulp_apply()?.args(["verify", "--pid", &pid]))?.expect_code(0)?;
    Ok(())
}

fn a_map_for_perf() -> Result<()> {
    let scene = Scene::set()?;
    let output = scene.file("perf.map");
    let pid = scene.target.pid().to_string();
    scene.symbols(&["--perf-map", "--pid", &pid], &scene.packages, &output)?.expect_code(0)?;
    let text = std::fs::read_to_string(&output)?;
    let maps = scene.target.maps()?;
    let mut names = Vec::new();
    for line in text.lines() {
        let [start, size, name] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("not three words: {line}")
        };
        let (start, size) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(size, 16)?);
        let home = maps.iter().find(|m| m.start <= start && start + size <= m.end);
        ensure_that!(home.is_some_and(|m| m.rights == "r-xp"), "{line} is not in code of the process");
        names.push(name);
    }
    for name in INSIDE {
        ensure_that!(names.contains(&name), "{name} is not in the map\n{text}");
    }
    ensure_that!(!Path::new(&format!("/tmp/perf-{pid}.map")).exists(), "written where nobody asked for it");
    Ok(())
}

fn nothing_is_written_where_nothing_is_there() -> Result<()> {
    let scene = Scene::set()?;
    let output = scene.file("none");
    let pid = scene.target.pid().to_string();
    let check = |ran: Ran, code: i32, word: &str| {
        ran.expect_code(code)?;
        ensure_that!(ran.stderr.contains(word), "no word of {word:?}\n{}", ran.report());
        ensure_that!(!output.exists(), "a file was written\n{}", ran.report());
        anyhow::Ok(())
    };
    // The largest number a pid can never have.
    check(scene.symbols(&["--pid", "4194304"], &[], &output)?, 3, "4194304")?;
    let other = scene.case.package_of("three", "+ 2;", "+ 300;")?;
    check(scene.symbols(&["--pid", &pid], &[other], &output)?, 5, "three.ulp")?;
    let program = scene.case.production.program.display().to_string();
    check(scene.symbols(&["--core", &program], &[], &output)?, 1, "not a core dump")?;
    check(scene.symbols(&["--core", &program, "--pid", &pid], &[], &output)?, 2, "--core")?;
    check(scene.symbols(&[], &[], &output)?, 2, "--pid")?;
    let unpatched = scene.case.start()?;
    check(scene.symbols(&["--pid", &unpatched.pid().to_string()], &[], &output)?, 3, "no patch")
}

ulp_tests::main_of_tests![
    gdb_sees_through_the_patches_of_a_process,
    gdb_sees_through_the_patches_of_a_core_dump,
    gdb_stops_in_new_code,
    a_map_for_perf,
    nothing_is_written_where_nothing_is_there,
];
