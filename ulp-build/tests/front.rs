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
    let before = snapshot(trees.dir.path());
    let run = trees.run(&["--build", "make && touch beside ../beside"]);
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
    // Another program altogether, and the same one from other flags.
    for (build, code) in [("make CFLAGS=-O0", "E-IDENTITY"), ("make LDFLAGS=-Wl,--build-id=none", "E-IDENTITY")] {
        let run = trees.run(&["--target", "orig/prog", "--build", build]);
        assert_eq!((run.code(), run.refusals()), (5, vec![code.to_string()]), "{run}");
    }
    let run = trees.run(&["--build", "make LDFLAGS=-Wl,--build-id=none"]);
    assert_eq!((run.code(), run.refusals()), (5, vec!["E-NO-BUILD-ID".to_string()]), "{run}");
    let run = trees.run(&["--target", "orig/prog", "--debuginfo", "/proc/self/exe"]);
    assert_eq!((run.code(), run.refusals()), (5, vec!["E-BUILD-ID".to_string()]), "{run}");
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
