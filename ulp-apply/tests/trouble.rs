// SPDX-License-Identifier: GPL-2.0-or-later
//! Processes in odd states: a coroutine put aside inside the new code, a patch that an ulp-apply left half switched,
//! a long record, times that overflow the clock. Whatever happens, the program lives and answers.

// Other tests use the rest of it.
#[allow(dead_code)]
mod support;

use support::{Build, Patch, Server, Target, ulp_apply};

/// `work` hands control back to `main` in its middle, and goes on when it is asked again.
const COROUTINE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <ucontext.h>
static ucontext_t home, aside;
static int got;
void yield(void) { swapcontext(&aside, &home); }
__attribute__((noinline)) int work(int n) { yield(); return n + 1; }
static void body(void) { for (;;) { got = work(5); yield(); } }
int main(void)
{
	char line[64];
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	getcontext(&aside);
	aside.uc_stack.ss_size = 65536;
	aside.uc_stack.ss_sp = malloc(aside.uc_stack.ss_size);
	makecontext(&aside, body, 0);
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) { swapcontext(&home, &aside); printf("%d\n", got); fflush(stdout); }
	return 0;
}
"#;
const WORK_FIX: &str = "void yield(void);\n__attribute__((noinline)) int work(int n) { yield(); return n + 1000; }\n";

/// Two functions on different pages.
const PAIR: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
static int counter;
__attribute__((noinline)) int near(int x) { __asm__ volatile(""); return counter++ * 0 + x + 1; }
__attribute__((noinline, aligned(8192))) int far(int x) { __asm__ volatile(""); return counter++ * 0 + x + 2; }
int main(void)
{
	char line[64];
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) { printf("%d %d\n", near(atoi(line)), far(atoi(line))); fflush(stdout); }
	return 0;
}
"#;
const PAIR_FIX: &str = "int near(int x) { return x + 1000; }\nint far(int x) { return x + 2000; }\n";
const OLD: &str = "6 7";
const NEW: &str = "1005 2005";

fn pair(target: &Target) -> Patch {
    let mut patch = Patch::new(target, "pair-fix", PAIR_FIX, &["near", "far"]);
    patch.package.manifest.atomic = false;
    patch
}

/// Where the entry of a function is, as `list` tells.
fn entry(server: &Server, function: &str) -> u64 {
    let list = ulp_apply(&["list", "--pid", &server.pid(), "--json"]).code(0);
    let json: serde_json::Value = serde_json::from_str(&list.out).expect("JSON");
    let functions = json["processes"][0]["patches"][0]["functions"].as_array().expect("functions").clone();
    let function = functions.iter().find(|f| f["name"] == function).expect("the function");
    let text = function["entry"].as_str().expect("an entry").trim_start_matches("0x");
    u64::from_str_radix(text, 16).expect("an address")
}

/// Where the registry record is.
fn record(server: &Server) -> u64 {
    let starts = server.maps().into_iter().filter(|l| l.ends_with("r--p"));
    let mut starts = starts.filter_map(|l| u64::from_str_radix(l.split('-').next()?, 16).ok());
    starts.find(|at| server.peek(*at, 14) == *b"\x7fulp registry\r").expect("a record")
}

#[test]
fn a_coroutine_put_aside_in_the_new_code_keeps_it() {
    let target = Target::new("coroutine", COROUTINE, Build::Pie);
    let file = Patch::new(&target, "work-fix", WORK_FIX, &["work"]).write();
    let mut server = target.start();
    let pid = server.pid();
    let before = server.maps();
    assert_eq!((server.ask(""), server.ask("")), ("0".into(), "6".into()));
    // What is asked here is what becomes of it without the search that would wait for it.
    ulp_apply(&[&file, "--pid", &pid, "--scan-memory", "off"]).code(0);
    // Until it waits in the middle of the new code.
    assert_eq!((server.ask(""), server.ask(""), server.ask("")), ("6".into(), "1005".into(), "1005".into()));
    server.ask("");
    let reverted = ulp_apply(&["revert", "work-fix", "--pid", &pid, "--scan-memory", "off"]).code(0);
    assert!(reverted.out.contains("kept") && reverted.err.contains("coroutine"), "{reverted:?}");
    let answers: Vec<String> = (0..6).map(|_| server.ask("")).collect();
    assert_eq!(answers.last().map(String::as_str), Some("6"), "{answers:?}");
    assert!(ulp_apply(&["list", "--pid", &pid]).code(0).out.contains("retired"));
    assert!(server.maps().len() > before.len());
}

#[test]
fn a_half_switched_patch_is_taken_back() {
    let target = Target::new("pair", PAIR, Build::Pie);
    let file = pair(&target).write();
    // An ulp-apply died between the two entries: while applying (state 1), while reverting (state 3).
    for state in [1u64, 3] {
        for lost in ["near", "far"] {
            let mut server = target.start();
            let pid = server.pid();
            let before = server.maps();
            ulp_apply(&[&file, "--pid", &pid]).code(0);
            let at = entry(&server, lost);
            ulp_apply(&["revert", "pair-fix", "--pid", &pid]).code(0);
            let old = server.peek(at, 9);
            ulp_apply(&[&file, "--pid", &pid]).code(0);
            server.poke(at, &old);
            server.poke(record(&server) + 24, &state.to_le_bytes());
            let half = server.ask("5");
            assert!(half != OLD && half != NEW, "{half}");
            ulp_apply(&[&file, "--pid", &pid, "--dry-run"]);
            assert_eq!(server.ask("5"), half, "a dry run changes nothing");
            let list = ulp_apply(&["list", "--pid", &pid]).code(0);
            assert!(list.err.contains("died while it worked on it; it is reverted"), "{}", list.err);
            assert_eq!(server.ask("5"), OLD);
            assert_eq!(server.maps(), before, "every mapping is given back");
        }
    }
}

#[test]
fn a_record_longer_than_a_page_is_whole() {
    let target = Target::new("pair", PAIR, Build::Pie);
    let mut patch = pair(&target);
    patch.package.manifest.description = "long ".repeat(3000);
    let file = patch.write();
    let mut server = target.start();
    let pid = server.pid();
    let before = server.maps();
    ulp_apply(&[&file, "--pid", &pid]).code(0);
    ulp_apply(&["verify", "--pid", &pid]).code(0);
    assert_eq!(server.ask("5"), NEW);
    ulp_apply(&["revert", "pair-fix", "--pid", &pid]).code(0);
    assert_eq!((server.ask("5"), server.maps()), (OLD.into(), before));
}

#[test]
fn a_time_beyond_the_clock_is_wrong_usage() {
    let target = Target::new("pair", PAIR, Build::Pie);
    let file = pair(&target).write();
    let mut server = target.start();
    for option in ["--wait", "--max-stop"] {
        ulp_apply(&[&file, "--pid", &server.pid(), option, "1e18s"]).code(2);
    }
    assert_eq!(server.ask("5"), OLD);
}

#[test]
fn a_file_without_an_end_is_no_package() {
    ulp_apply(&["info", "/dev/zero"]).code(7);
}
