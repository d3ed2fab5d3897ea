// SPDX-License-Identifier: GPL-2.0-or-later
//! The way from the command line to compiled units, on small trees: exit codes, refusals, and that nothing of the
//! user's is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const MAIN: &str = "#include <stdio.h>\n#include \"k.h\"\nint g(int);\nint main(int c, char **v) {\n    (void)v;\n    printf(\"%d\\n\", g(c) + K);\n    return 0;\n}\n";
const PART: &str = "#include <assert.h>\nint g(int x) {\n    assert(x);\n    return x * 3 + 7;\n}\n";
const MAKEFILE: &str = "CFLAGS = -O2\nprog: main.o part.o\n\t$(CC) $(LDFLAGS) -o $@ $^\nclean:\n\trm -f prog *.o\n";

/// A pair of trees: the original, and the same with some files changed.
struct Trees {
    dir: TempDir,
}

impl Trees {
    fn new(changes: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let trees = Self { dir };
        for tree in ["orig", "fix"] {
            for (path, text) in [("main.c", MAIN), ("part.c", PART), ("k.h", "#define K 1\n"), ("Makefile", MAKEFILE)] {
                trees.write(&format!("{tree}/{path}"), text);
            }
        }
        for (path, text) in changes {
            trees.write(&format!("fix/{path}"), text);
        }
        trees
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn make(&self, tree: &str) {
        let status = Command::new("make").arg("-s").current_dir(self.path(tree)).status().expect("make runs");
        assert!(status.success());
    }

    /// Runs ulp-build on the two trees.
    fn run(&self, more: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_ulp-build"))
            .current_dir(self.dir.path())
            .args(["--orig", "orig", "--json", "-o", "out.ulp"])
            .args(if more.contains(&"--patch") { &[][..] } else { &["--fix", "fix"][..] })
            .args(more)
            .output()
            .expect("ulp-build runs");
        Run(output)
    }
}

struct Run(Output);

impl Run {
    fn code(&self) -> i32 {
        self.0.status.code().expect("an exit status")
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0.stdout).unwrap_or_else(|e| panic!("{e}: {self}"))
    }

    fn refusals(&self) -> Vec<String> {
        let json = self.json();
        let all = json["refusals"].as_array().unwrap_or_else(|| panic!("no refusals: {json}"));
        all.iter().map(|r| r["code"].as_str().expect("a code").to_string()).collect()
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_string()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        write!(f, "{:?}\n{}\n{}", self.0.status, text(&self.0.stdout), text(&self.0.stderr))
    }
}

/// Names and contents of everything below a directory.
fn snapshot(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else {
                all.push((path.clone(), fs::read(&path).expect("a file")));
            }
        }
    }
    all.sort();
    all
}

fn changed_part() -> String {
    PART.replace("+ 7", "+ 8")
}

#[test]
fn the_same_trees_are_no_change() {
    let run = Trees::new(&[]).run(&[]);
    assert_eq!(run.code(), 3, "{run}");
    assert_eq!(run.json()["result"], "no-change");
}

#[test]
fn nothing_of_the_users_is_written() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    trees.write("made-before", "an earlier build's\n");
    let before = snapshot(trees.dir.path());
    let run = trees.run(&[
        "--build",
        "make && touch beside ../beside && echo more >>../made-before && mv ../beside ../made-before",
    ]);
    assert_eq!(run.code(), 0, "{run}");
    let after: Vec<_> = snapshot(trees.dir.path()).into_iter().filter(|(path, _)| !path.ends_with("out.ulp")).collect();
    assert_eq!(before, after);
}

#[test]
fn a_fix_outside_the_build_is_refused() {
    let run = Trees::new(&[("README", "read me\n")]).run(&[]);
    assert_eq!(run.code(), 5, "{run}");
    assert_eq!(run.refusals(), ["E-NOTHING-BUILT"]);
}

#[test]
fn a_unit_that_is_not_linked_is_no_change() {
    let trees = Trees::new(&[]);
    for (tree, text) in [("orig", "int unused(void) { return 1; }\n"), ("fix", "int unused(void) { return 2; }\n")] {
        trees.write(&format!("{tree}/unused.c"), text);
    }
    let build = "make && cc -c unused.c && ar rcs libu.a unused.o && cc -o other main.o part.o libu.a";
    trees.make("orig");
    let run = trees.run(&["--build", build, "--target", "orig/prog"]);
    assert_eq!(run.code(), 3, "{run}");
}

#[test]
fn wrong_and_unusable_targets_are_refused() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    trees.make("orig");
    // Another program altogether, as far as anyone can tell.
    let run = trees.run(&["--target", "orig/prog", "--build", "make CFLAGS=-O0"]);
    assert_eq!((run.code(), run.refusals()), (5, vec!["E-IDENTITY".to_string()]), "{run}");
    // Another link of the same objects is proved function by function.
    let run = trees.run(&["--target", "orig/prog", "--build", "make LDFLAGS=-Wl,--build-id=none"]);
    assert_eq!(run.code(), 0, "{run}");
    let run = trees.run(&["--build", "make LDFLAGS=-Wl,--build-id=none"]);
    assert_eq!((run.code(), run.refusals()), (5, vec!["E-NO-BUILD-ID".to_string()]), "{run}");
    let run = trees.run(&["--target", "orig/prog", "--debuginfo", "/proc/self/exe"]);
    assert_eq!((run.code(), run.refusals()), (5, vec!["E-BUILD-ID".to_string()]), "{run}");
}

#[test]
fn a_target_of_another_processor_is_refused() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    trees.make("orig");
    let mut bytes = fs::read(trees.path("orig/prog")).expect("a program");
    bytes[18..20].copy_from_slice(&183u16.to_le_bytes());
    fs::create_dir(trees.path("there")).expect("a directory");
    fs::write(trees.path("there/prog"), bytes).expect("a file");
    let run = trees.run(&["--target", "there/prog"]);
    assert_eq!((run.code(), run.refusals()), (5, vec!["E-ARCH".to_string()]), "{run}");
}

#[test]
fn a_tree_that_is_built_already_is_cleaned_in_the_copy() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    trees.make("orig");
    let before = snapshot(&trees.path("orig"));
    let run = trees.run(&["--target", "orig/prog"]);
    assert_eq!(run.code(), 0, "{run}");
    assert_eq!(before, snapshot(&trees.path("orig")));
}

#[test]
fn builds_that_do_not_work_fail() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    for (build, says) in
        [("false", "the build failed"), ("true", "nothing was compiled"), ("cc -c missing.c", "missing.c")]
    {
        let run = trees.run(&["--build", build]);
        assert_eq!(run.code(), 1, "{run}");
        assert!(run.message().contains(says), "{run}");
    }
    for tree in ["orig", "fix"] {
        fs::remove_file(trees.path(tree).join("Makefile")).expect("a file");
    }
    let run = trees.run(&[]);
    assert!(run.code() == 1 && run.message().contains("--build"), "{run}");
}

#[test]
fn a_fix_that_does_not_compile_fails() {
    let trees = Trees::new(&[("part.c", "int g(int x) { return y; }\n")]);
    let run = trees.run(&[]);
    assert!(run.code() == 1 && run.message().contains("part.c does not compile"), "{run}");
}

#[test]
fn link_time_optimisation_is_refused() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    let run = trees.run(&["--build", "make CFLAGS='-O2 -flto' LDFLAGS=-flto"]);
    assert_eq!((run.code(), run.refusals()), (5, vec!["E-LTO".to_string()]), "{run}");
}

#[test]
fn the_clock_is_refused() {
    let clock = "const char *when(void) { return __TIME__; }\n";
    let trees = Trees::new(&[("part.c", &format!("{}{clock}", changed_part()))]);
    trees.write("orig/part.c", &format!("{PART}{clock}"));
    let run = trees.run(&[]);
    assert_eq!((run.code(), run.refusals()), (5, vec!["E-NONDETERMINISTIC".to_string()]), "{run}");
    assert!(run.json()["refusals"][0]["message"].as_str().expect("a message").contains("__TIME__"));
}

#[test]
fn a_patch_file_in_place_of_a_tree() {
    let trees = Trees::new(&[]);
    let patch = "--- a/part.c\n+++ b/part.c\n@@ -1,5 +1,5 @@\n #include <assert.h>\n int g(int x) {\n     assert(x);\n-    return x * 3 + 7;\n+    return x * 3 + 8;\n }\n";
    trees.write("fix.patch", patch);
    let run = trees.run(&["--patch", "fix.patch"]);
    assert_eq!(run.code(), 0, "{run}");
    assert_eq!(run.json()["files"][0]["path"], "part.c");
    trees.write("fix.patch", &patch.replace("* 3 + 7", "* 4 + 7"));
    let run = trees.run(&["--patch", "fix.patch"]);
    assert!(run.code() == 1 && run.message().contains("does not apply"), "{run}");
}

#[test]
fn the_second_patch_builds_nothing_again() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    let build = "echo built >> \"$LOG\" && make";
    trees.write("log", "");
    // A file by its descriptor's own path: the build may not write beside its tree.
    let log = tempfile::NamedTempFile::new().expect("a file");
    let build = build.replace("$LOG", log.path().to_str().expect("utf-8"));
    for (k, times) in [("8", 1), ("9", 1)] {
        trees.write("fix/part.c", &PART.replace("+ 7", &format!("+ {k}")));
        let run = trees.run(&["--build", &build, "--work", "work"]);
        assert_eq!(run.code(), 0, "{run}");
        assert_eq!(fs::read_to_string(log.path()).expect("a log").lines().count(), times);
    }
    trees.write("orig/main.c", &MAIN.replace("return 0", "return 1"));
    trees.write("fix/main.c", &MAIN.replace("return 0", "return 1"));
    let run = trees.run(&["--build", &build, "--work", "work"]);
    assert_eq!(run.code(), 0, "{run}");
    assert_eq!(fs::read_to_string(log.path()).expect("a log").lines().count(), 2);
}

/// Sources that were recompiled, as `-v` without `--json` lists them.
fn recompiled(trees: &Trees, more: &[&str]) -> Vec<String> {
    let run = trees.run(more);
    assert_eq!(run.code(), 0, "{run}");
    let json = run.json();
    let units = json["units"].as_array().unwrap_or_else(|| panic!("no units: {json}"));
    let mut names: Vec<String> = units.iter().map(|u| u.as_str().expect("a name").to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_header_reaches_every_unit_that_read_it() {
    let trees = Trees::new(&[("k.h", "#define K 2\n")]);
    assert_eq!(recompiled(&trees, &[]), ["main.c"]);
    // Dependency lists that the build itself asked for, and removes, serve as well.
    let build =
        "cc -O2 -MMD -MP -c main.c && cc -O2 -pipe -MD -MF d -c part.c && cc -o prog main.o part.o && rm -f d *.d";
    assert_eq!(recompiled(&trees, &["--build", build]), ["main.c"]);
    // Headers taken for the system's are missing in those lists.
    let build = "cc -O2 -MMD -isystem . -c main.c && cc -O2 -c part.c && cc -o prog main.o part.o";
    trees.write("orig/main.c", &MAIN.replace("\"k.h\"", "<k.h>"));
    trees.write("fix/main.c", &MAIN.replace("\"k.h\"", "<k.h>"));
    assert_eq!(recompiled(&trees, &["--build", build]), ["main.c"]);
}

#[test]
fn a_changed_makefile_builds_the_fixed_tree_too() {
    let makefile = MAKEFILE.replace("part.o\n", "part.o more.o\n");
    let part = PART.replace("x * 3", "more(x)").replace("int g", "int more(int x);\nint g");
    let trees =
        Trees::new(&[("Makefile", &makefile), ("more.c", "int more(int x) { return x * 4; }\n"), ("part.c", &part)]);
    trees.make("orig");
    let before = snapshot(&trees.path("fix"));
    assert_eq!(recompiled(&trees, &["--target", "orig/prog"]), ["more.c", "part.c"]);
    assert_eq!(before, snapshot(&trees.path("fix")));
    // A Makefile that changes nothing.
    let trees = Trees::new(&[("Makefile", &MAKEFILE.replace("CFLAGS", "# a comment\nCFLAGS"))]);
    let run = trees.run(&[]);
    assert_eq!(run.code(), 3, "{run}");
}

#[test]
fn other_link_options_are_warned_of() {
    let makefile = MAKEFILE.replace("$(LDFLAGS) -o", "-Wl,--defsym=other=1 -o");
    assert_ne!(makefile, MAKEFILE);
    let trees = Trees::new(&[("Makefile", &makefile), ("part.c", &changed_part())]);
    let run = trees.run(&[]);
    assert_eq!(run.code(), 0, "{run}");
    assert!(run.to_string().contains("links prog with other options (--defsym=other=1)"), "{run}");
}

#[test]
fn one_command_that_compiles_and_links() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    for build in [
        "gcc -O2 main.c part.c -o prog",
        "gcc -O2 -pipe main.c part.c -o prog",
        "gcc -O2 -g -save-temps main.c part.c -o prog",
    ] {
        assert_eq!(recompiled(&trees, &["--build", build]), ["part.c"], "{build}");
    }
}

#[test]
fn in_place_builds_in_the_tree_and_puts_the_sources_back() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    assert_eq!(recompiled(&trees, &["--in-place"]), ["part.c"]);
    assert!(trees.path("orig/prog").exists());
    assert_eq!(fs::read_to_string(trees.path("orig/part.c")).expect("a source"), PART);
}

#[test]
fn another_build_path() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    let path = trees.path("nowhere/deep/tree");
    let build = "pwd > where && make";
    let run = trees.run(&["--build-path", path.to_str().expect("utf-8"), "--build", build, "--work", "work"]);
    assert_eq!(run.code(), 0, "{run}");
    let wrote = snapshot(&trees.path("work")).into_iter().find(|(path, _)| path.ends_with("where")).expect("it ran").1;
    assert_eq!(String::from_utf8(wrote).expect("utf-8").trim(), path.to_str().expect("utf-8"));
    assert!(!trees.path("nowhere").exists());
}

#[test]
fn without_namespaces() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    let run = |more: &str| {
        let script = format!(
            "echo 0 >/proc/sys/user/max_mnt_namespaces && echo 0 >/proc/sys/user/max_user_namespaces && \
             exec {} --orig orig --fix fix --json -o out.ulp {more}",
            env!("CARGO_BIN_EXE_ulp-build")
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", &script]).current_dir(trees.dir.path());
        command.output().map(Run)
    };
    match run("--help") {
        Ok(tried) if tried.code() == 0 => {}
        _ => {
            eprintln!("skipped: namespaces cannot be limited here, so their absence cannot be tested");
            return;
        }
    }
    let good = run("").expect("it ran");
    assert_eq!(good.code(), 0, "{good}");
    trees.write("orig/config.mk", &format!("TOP = {}\n", trees.path("orig").canonicalize().expect("a path").display()));
    let refused = run("").expect("it ran");
    assert_eq!((refused.code(), refused.refusals()), (5, vec!["E-NO-NAMESPACE".to_string()]), "{refused}");
}

#[test]
fn an_interrupt_ends_the_build_and_leaves_nothing() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let trees = Trees::new(&[("part.c", &changed_part())]);
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let told = tempfile::NamedTempFile::new().expect("a file");
    let build = format!("echo $$ > {} && exec sleep 600", told.path().display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_ulp-build"))
        .current_dir(trees.dir.path())
        .env("TMPDIR", temporary.path())
        .args(["--orig", "orig", "--fix", "fix", "--build", &build])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("ulp-build runs");
    let number = loop {
        let text = fs::read_to_string(told.path()).expect("a file");
        if let Some(line) = text.strip_suffix('\n') {
            break line.parse::<i32>().expect("a process number");
        }
        assert!(child.try_wait().expect("a child").is_none(), "it ended too early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let me = i32::try_from(child.id()).expect("a process number");
    kill(Pid::from_raw(me), Signal::SIGINT).expect("a signal");
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    assert_eq!(fs::read_dir(temporary.path()).expect("a directory").count(), 0);
    // The build got the signal before its directory went.
    let gone = || fs::read_to_string(format!("/proc/{number}/stat")).map_or(true, |s| s.contains(") Z"));
    for _ in 0..200 {
        if gone() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
    panic!("the build went on");
}

#[test]
fn a_run_cut_short_is_repaired_by_the_next() {
    let trees = Trees::new(&[("part.c", &changed_part())]);
    assert_eq!(recompiled(&trees, &["--work", "work"]), ["part.c"]);
    let find = |name: &str| snapshot(&trees.path("work")).into_iter().map(|(p, _)| p).find(|p| p.ends_with(name));
    let complete = find("complete").expect("a mark");
    let root = complete.parent().expect("a folder").to_owned();
    // Killed while the fixed file stood in the copy: the original waits in `swapped`.
    fs::create_dir_all(root.join("swapped")).expect("a folder");
    fs::rename(root.join("orig/part.c"), root.join("swapped/part.c")).expect("a file");
    fs::write(root.join("orig/part.c"), "int g(int x) { return half a file").expect("a file");
    assert_eq!(recompiled(&trees, &["--work", "work"]), ["part.c"]);
    assert_eq!(fs::read_to_string(root.join("orig/part.c")).expect("a source"), PART);
    // Killed while it built: no mark, so it is built again.
    fs::remove_file(complete).expect("a mark");
    fs::write(root.join("orig/part.c"), "half a copy").expect("a file");
    assert_eq!(recompiled(&trees, &["--work", "work"]), ["part.c"]);
}
