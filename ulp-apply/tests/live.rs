// SPDX-License-Identifier: GPL-2.0-or-later
//! `ulp-apply` itself on real processes: a small C program is built, a package for it is put together by hand from a
//! compiled replacement, and the program's answers on its standard output tell old code from new.

// Other tests use the rest of it.
#[allow(dead_code)]
mod support;

use std::process::Stdio;
use std::time::Duration;
use support::{Build, Patch, Target, ulp_apply};

const SERVER: &str = r#"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <stdlib.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>
static int counter;
__attribute__((noinline)) int answer(int x) { __asm__ volatile(""); return counter++ * 0 + x + 1; }
__attribute__((noinline)) int other(int x) { __asm__ volatile(""); return counter++ * 0 + x + 2; }
__attribute__((noinline)) int nap(int s) { __asm__ volatile(""); printf("napping\n"); fflush(stdout); sleep(s); return s + 1; }
static void *hot(void *p) { volatile int sink = 0; for (;;) sink += answer(sink & 7); return p; }
static void *idle(void *p) { pause(); return p; }
static void *sleeper(void *p) { printf("woke %d\n", nap((int)(long)p)); fflush(stdout); return 0; }
int main(void)
{
	char line[64];
	pthread_t t;
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		int n = atoi(line + 1);
		switch (line[0]) {
		case 'a': printf("%d\n", answer(n)); break;
		case 'o': printf("%d\n", other(n)); break;
		case 'h': while (n--) pthread_create(&t, 0, hot, 0); printf("ok\n"); break;
		case 'i': while (n--) pthread_create(&t, 0, idle, 0); printf("ok\n"); break;
		case 'n': pthread_create(&t, 0, sleeper, (void *)(long)n); continue;
		case 'f': { pid_t c = fork(); if (c) { printf("%d\n", c); fflush(stdout); waitpid(c, 0, 0); } break; }
		default: printf("bye\n"); fflush(stdout); return 0;
		}
		fflush(stdout);
	}
	return 0;
}
"#;

/// New code that uses what old code has (a variable, the library) and brings data of its own.
const FIX: &str = r#"
#include <stdlib.h>
extern int counter;
static int calls = 40;
__attribute__((noinline)) int answer(int x) { calls++; counter++; return abs(-(x + 1000)); }
"#;
const FIX_OTHER: &str = "__attribute__((noinline)) int other(int x) { return x + 2000; }\n";
const FIX_NAP: &str = "__attribute__((noinline)) int nap(int s) { return s + 3000; }\n";

fn fixed(target: &Target) -> Patch {
    Patch::new(target, "answer-fix", FIX, &["answer"])
}

#[test]
fn applied_listed_verified_reverted() {
    for build in [Build::Pie, Build::Fixed, Build::Stripped] {
        let target = Target::new("server", SERVER, build);
        let file = fixed(&target).write();
        let mut server = target.start();
        let pid = server.pid();
        assert_eq!(server.ask("a1"), "2", "{build:?}");
        let before = server.maps();

        let dry = ulp_apply(&["--dry-run", &file, "--pid", &pid]).code(0);
        assert!(dry.out.contains("answer at 0x"), "{dry:?}");
        assert_eq!((server.ask("a1"), server.maps()), ("2".into(), before.clone()), "a dry run changes nothing");

        let applied = ulp_apply(&[&file, "--pid", &pid]).code(0);
        assert_eq!(applied.out.lines().count(), 1, "{applied:?}");
        assert_eq!(server.ask("a1"), "1001", "{build:?}");
        assert!(ulp_apply(&["apply", &file, "--pid", &pid]).code(0).out.contains("already"));
        let list = ulp_apply(&["list", "--pid", &pid, "--json"]).code(0);
        assert!(list.out.contains("\"answer-fix\"") && list.out.contains("\"intact\": true"), "{list:?}");
        ulp_apply(&["verify", "--pid", &pid]).code(0);
        for line in server.maps() {
            assert!(!line.contains("rwx"), "writable and executable: {line}");
        }

        ulp_apply(&["revert", "answer-fix", "--pid", &pid]).code(0);
        assert_eq!(server.ask("a1"), "2", "{build:?}");
        assert_eq!(server.maps(), before, "every mapping is given back");
        assert!(ulp_apply(&["revert", "answer-fix", "--pid", &pid]).code(0).out.contains("nothing to do"));
    }
}

#[test]
fn two_patches_on_different_functions() {
    let target = Target::new("server", SERVER, Build::Pie);
    let (one, two) = (fixed(&target).write(), Patch::new(&target, "other-fix", FIX_OTHER, &["other"]).write());
    let mut server = target.start();
    let pid = server.pid();
    ulp_apply(&[&one, &two, "--pid", &pid]).code(0);
    assert_eq!((server.ask("a1"), server.ask("o1")), ("1001".into(), "2001".into()));
    ulp_apply(&["revert", &one, "--pid", &pid]).code(0);
    assert_eq!((server.ask("a1"), server.ask("o1")), ("2".into(), "2001".into()));
    ulp_apply(&["revert", "other-fix", "--pid", &pid]).code(0);
    assert_eq!((server.ask("a1"), server.ask("o1")), ("2".into(), "3".into()));
}

#[test]
fn the_same_function_twice_is_refused() {
    let target = Target::new("server", SERVER, Build::Pie);
    let one = fixed(&target).write();
    let mut server = target.start();
    let pid = server.pid();
    ulp_apply(&[&one, "--pid", &pid]).code(0);
    let rival = Patch::new(&target, "rival", FIX, &["answer"]).write();
    assert!(ulp_apply(&[&rival, "--pid", &pid]).code(5).err.contains("answer-fix"));
    let namesake = Patch::new(&target, "answer-fix", FIX_OTHER, &["other"]).write();
    assert!(ulp_apply(&[&namesake, "--pid", &pid]).code(5).err.contains("another patch named"));
    assert_eq!((server.ask("a1"), server.ask("o1")), ("1001".into(), "3".into()));
}

#[test]
fn many_threads_idle_and_hot() {
    let target = Target::new("server", SERVER, Build::Pie);
    let file = fixed(&target).write();
    let mut server = target.start();
    let pid = server.pid();
    server.ask("i64");
    server.ask("h3");
    ulp_apply(&[&file, "--pid", &pid]).code(0);
    assert_eq!(server.ask("a1"), "1001");
    ulp_apply(&["revert", "answer-fix", "--pid", &pid]).code(0);
    assert_eq!(server.ask("a1"), "2");
}

#[test]
fn a_thread_asleep_inside_is_named_and_waited_for() {
    let target = Target::new("server", SERVER, Build::Pie);
    let file = Patch::new(&target, "nap-fix", FIX_NAP, &["nap"]).write();
    let mut server = target.start();
    let pid = server.pid();
    let before = server.maps();
    assert_eq!(server.ask("n3"), "napping");
    let busy = ulp_apply(&[&file, "--pid", &pid, "--wait", "300ms"]).code(4);
    assert!(busy.err.contains("thread") && busy.err.contains("nap"), "{busy:?}");
    assert_eq!(server.patch_areas(&before), 0, "a failed apply leaves no memory behind");
    ulp_apply(&[&file, "--pid", &pid]).code(0);
    assert_eq!(server.line(), "woke 4", "the old call ended in old code, in its own time");
    server.send("n1");
    assert_eq!(server.line(), "woke 3001");
}

#[test]
fn another_build_is_refused() {
    let target = Target::new("server", SERVER, Build::Pie);
    let changed = Target::new("server", &SERVER.replace("x + 2", "x + 9"), Build::Pie);
    let file = fixed(&changed).write();
    let mut server = target.start();
    let refused = ulp_apply(&[&file, "--pid", &server.pid()]).code(5);
    assert!(refused.err.contains("build-id") && refused.err.contains("--target"), "{refused:?}");
    assert_eq!(server.ask("a1"), "2");
    // Its positive twin, on disk: the package fits the file it was made for.
    ulp_apply(&["verify", &file, "--target", &changed.path()]).code(0);
    ulp_apply(&["verify", &file, "--target", &target.path()]).code(5);
}

#[test]
fn code_that_is_not_as_it_was_is_refused() {
    let target = Target::new("server", SERVER, Build::Pie);
    let mut patch = fixed(&target);
    patch.function("answer").ranges[0].sha256 = "0".repeat(64);
    let file = patch.write();
    let mut server = target.start();
    let refused = ulp_apply(&[&file, "--pid", &server.pid()]).code(5);
    assert!(refused.err.contains("answer"), "{refused:?}");
    assert_eq!(server.ask("a1"), "2");
}

#[test]
fn foreign_bytes_in_the_registry_or_at_an_entry_are_seen() {
    let target = Target::new("server", SERVER, Build::Pie);
    let file = fixed(&target).write();
    let mut server = target.start();
    let pid = server.pid();
    ulp_apply(&[&file, "--pid", &pid]).code(0);
    let entry = server.entry_of("answer-fix");
    let jump = server.peek(entry, 1);
    server.poke(entry, &[0xcc]);
    assert!(ulp_apply(&["verify", "--pid", &pid]).code(1).err.contains("answer"));
    ulp_apply(&["revert", "answer-fix", "--pid", &pid]).code(5);
    server.poke(entry, &jump);
    ulp_apply(&["verify", "--pid", &pid]).code(0);
    assert_eq!(server.ask("a1"), "1001");
}

#[test]
fn a_damaged_package_is_no_package() {
    let target = Target::new("server", SERVER, Build::Pie);
    let path = fixed(&target).write();
    let good = std::fs::read(&path).expect("the package");
    let mut server = target.start();
    let bad = target.dir().join("bad.ulp");
    for (what, bytes) in [
        ("flipped", good.iter().enumerate().map(|(i, b)| if i == good.len() / 2 { b ^ 1 } else { *b }).collect()),
        ("truncated", good[..good.len() / 3].to_vec()),
        ("empty", Vec::new()),
        ("another program", std::fs::read(target.path()).expect("the target")),
    ] {
        std::fs::write(&bad, bytes).expect("written");
        let bad = bad.to_str().expect("a name");
        assert_eq!(ulp_apply(&[bad, "--pid", &server.pid()]).code, 7, "{what}");
        assert_eq!(ulp_apply(&["info", bad]).code, 7, "{what}");
    }
    assert_eq!(server.ask("a1"), "2");
}

#[test]
fn unknown_pid_and_wrong_usage() {
    let target = Target::new("server", SERVER, Build::Pie);
    let file = fixed(&target).write();
    // The largest number a pid can never have.
    ulp_apply(&[&file, "--pid", "4194304"]).code(3);
    ulp_apply(&[&file]).code(2);
    ulp_apply(&[&file, "--pid", "1", "--all"]).code(2);
    ulp_apply(&["--help"]).code(0);
    let info = ulp_apply(&["info", &file]).code(0);
    for word in ["answer-fix", "CVE-2026-0001", "build-id", "answer", "not signed"] {
        assert!(info.out.contains(word), "{word}: {info:?}");
    }
}

#[test]
fn no_permission_is_refused_with_the_reason() {
    let target =
        Target::new("server", &SERVER.replace("PR_SET_PTRACER, PR_SET_PTRACER_ANY", "PR_SET_DUMPABLE, 0"), Build::Pie);
    let file = fixed(&target).write();
    let mut server = target.start();
    let refused = support::as_stranger(&[&file, "--pid", &server.pid()]).code(5);
    assert!(refused.err.contains("may not be traced"), "{refused:?}");
    assert_eq!(server.ask("a1"), "2");
}

#[test]
fn the_program_was_deleted() {
    let target = Target::new("server", SERVER, Build::Pie);
    let file = fixed(&target).write();
    let mut server = target.start();
    std::fs::remove_file(target.path()).expect("removed");
    ulp_apply(&[&file, "--pid", &server.pid()]).code(0);
    assert_eq!(server.ask("a1"), "1001");
}

#[test]
fn a_child_forked_after_apply_carries_the_patch() {
    let target = Target::new("server", SERVER, Build::Pie);
    let file = fixed(&target).write();
    let mut server = target.start();
    ulp_apply(&[&file, "--pid", &server.pid()]).code(0);
    let child = server.ask("f");
    assert!(ulp_apply(&["list", "--pid", &child]).code(0).out.contains("answer-fix"));
    ulp_apply(&["revert", "answer-fix", "--pid", &child]).code(0);
    assert_eq!(server.ask("a1"), "2", "the child answers now");
    assert!(ulp_apply(&["list", "--pid", &server.pid()]).code(0).out.contains("answer-fix"), "the parent keeps it");
    assert_eq!(server.ask("q"), "bye");
    assert_eq!(server.ask("a1"), "1001", "the parent answers again");
}

#[test]
fn escaping_patches_keep_their_memory_until_purged() {
    let target = Target::new("server", SERVER, Build::Pie);
    let mut patch = fixed(&target);
    patch.package.manifest.escape = true;
    let file = patch.write();
    let mut server = target.start();
    let pid = server.pid();
    let before = server.maps();
    let mut areas = None;
    for _ in 0..5 {
        ulp_apply(&[&file, "--pid", &pid]).code(0);
        assert_eq!(server.ask("a1"), "1001");
        assert_eq!(*areas.get_or_insert_with(|| server.maps()), server.maps(), "any number of cycles costs one area");
        assert!(ulp_apply(&["revert", "answer-fix", "--pid", &pid]).code(0).out.contains("kept"));
        assert_eq!(server.ask("a1"), "2");
    }
    assert!(ulp_apply(&["list", "--pid", &pid]).code(0).out.contains("retired"));
    ulp_apply(&["revert", "answer-fix", "--pid", &pid, "--purge", "--max-stop", "1s"]).code(0);
    assert_eq!(server.maps(), before);
    assert_eq!(server.ask("a1"), "2");
}

#[test]
fn killed_at_any_time_the_program_lives_and_the_next_run_tidies_up() {
    let target = Target::new("server", SERVER, Build::Pie);
    let file = fixed(&target).write();
    let mut server = target.start();
    let pid = server.pid();
    server.ask("i8");
    server.ask("h1");
    for step in 0..60u64 {
        let verb: &[&str] =
            if step % 2 == 0 { &["apply", &file, "--pid", &pid] } else { &["revert", "answer-fix", "--pid", &pid] };
        let mut applier =
            support::command(verb).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ulp-apply");
        std::thread::sleep(Duration::from_micros(500 + step * 400));
        // It may have ended by itself: then there is nothing to kill.
        let _ = applier.kill();
        applier.wait().expect("ended");
        let answer = server.ask("a1");
        assert!(answer == "2" || answer == "1001", "{answer}");
    }
    ulp_apply(&[&file, "--pid", &pid]).code(0);
    assert_eq!(server.ask("a1"), "1001");
    ulp_apply(&["revert", "answer-fix", "--pid", &pid]).code(0);
    assert_eq!(server.ask("a1"), "2");
}

#[test]
fn every_process_of_a_build() {
    // A build of its own, so that no other test's processes are meant.
    let target = Target::new("server", &SERVER.replace("x + 2", "x + 5"), Build::Pie);
    let file = fixed(&target).write();
    let (mut one, mut two) = (target.start(), target.start());
    let done = ulp_apply(&[&file, "--all", "--json"]).code(0);
    let json: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!((json["schema"].as_u64(), json["results"].as_array().map(Vec::len)), (Some(1), Some(2)), "{done:?}");
    assert_eq!((one.ask("a1"), two.ask("a1")), ("1001".into(), "1001".into()));
    ulp_apply(&["revert", &file, "--all"]).code(0);
    assert_eq!((one.ask("a1"), two.ask("a1")), ("2".into(), "2".into()));
    // One that can be patched and one that does not exist.
    ulp_apply(&[&file, "--pid", &one.pid(), "--pid", "4194304"]).code(6);
    let gone = Target::new("gone", &SERVER.replace("x + 2", "x + 77"), Build::Pie);
    ulp_apply(&[&fixed(&gone).write(), "--all"]).code(3);
}
