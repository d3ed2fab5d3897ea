// SPDX-License-Identifier: GPL-2.0-or-later
//! Coroutines that wait inside a function: found in memory, told about, and left alone where somebody asks for it. What
//! patches of whole source trees can show is in the case folders.

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
__attribute__((noinline)) void yield(void) { swapcontext(&aside, &home); __asm__ volatile(""); }
/* Overwrites what calls have left on the stack. */
__attribute__((noinline)) void scrub(void) { volatile char room[4096]; for (int i = 0; i < 4096; i++) room[i] = 0; }
__attribute__((noinline)) int work(int n) { yield(); return n + 1; }
static void body(void) { for (;;) { got = work(5); scrub(); yield(); } }
int main(int argc, char **argv)
{
	char line[64];
	size_t size = argc > 1 ? strtoul(argv[1], NULL, 0) << 20 : 0;
	volatile char *much = malloc(size + 1);
	for (size_t i = 0; i < size; i += 4096) much[i] = 1;
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

/// No coroutines, and an address inside of `work` in memory that was given back, in a form that the linker knows nothing of.
const STALE: &str = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
static uintptr_t inside;
__attribute__((noinline)) void remember(void) { inside = ~(uintptr_t)__builtin_return_address(0); }
__attribute__((noinline)) int work(int n) { remember(); return n + 1; }
int main(void)
{
	char line[64];
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	work(0);
	uintptr_t *volatile memory = malloc(1000);
	memory[50] = ~inside;
	free(memory);
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) { printf("%d\n", work(5)); fflush(stdout); }
	return 0;
}
"#;
const STALE_FIX: &str = "void remember(void);\nint work(int n) { remember(); return n + 1000; }\n";

fn coroutine() -> (Target, String) {
    let target = Target::new("coroutine", COROUTINE, Build::Pie);
    let file = Patch::new(&target, "work-fix", WORK_FIX, &["work"]).write();
    (target, file)
}

/// The program, its coroutine put aside in `work`.
fn suspended(target: &Target, arguments: &[&str]) -> Server {
    let mut server = target.start_with(arguments);
    assert_eq!(server.ask(""), "0");
    server
}

/// The fields of the only result.
fn result(json: &str) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    json["results"][0].clone()
}

#[test]
fn a_coroutine_in_the_old_code_is_waited_for() {
    let (target, file) = coroutine();
    let mut server = suspended(&target, &[]);
    let pid = server.pid();
    let busy = ulp_apply(&[&file, "--pid", &pid, "--wait", "200ms", "--json"]).code(4);
    let error = &result(&busy.out)["error"];
    let message = error["message"].as_str().expect("a message");
    assert_eq!(error["class"], "busy");
    for part in ["coroutine", "is in work", "[heap]", "(work of coroutine)"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // It is there, and is the address that was named.
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("an address");
    let words: Vec<&str> = message.split(' ').collect();
    let index = words.iter().position(|w| *w == "at").expect("a place");
    assert_eq!(server.peek(hex(words[index + 1]), 8), hex(words[index - 2]).to_le_bytes());

    let dry = ulp_apply(&[&file, "--pid", &pid, "--dry-run", "--json"]).code(0);
    let blocker = &result(&dry.out)["blockers"][0];
    assert!(blocker["what"].as_str().is_some_and(|what| what.contains("coroutine is in work")), "{blocker}");
    assert_eq!((&blocker["seen"], &blocker["of"]), (&5.into(), &5.into()));

    // It leaves while an ulp-apply waits for it.
    let waiting = std::thread::spawn({
        let (file, pid) = (file.clone(), pid.clone());
        move || ulp_apply(&[&file, "--pid", &pid, "--wait", "30s"])
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!waiting.is_finished());
    assert_eq!(server.ask(""), "6");
    waiting.join().expect("no panic").code(0);
    assert_eq!((server.ask(""), server.ask("")), ("6".into(), "1005".into()));
}

#[test]
fn a_coroutine_in_the_old_code_is_left_there_on_request() {
    let (target, file) = coroutine();
    let mut server = suspended(&target, &[]);
    ulp_apply(&[&file, "--pid", &server.pid(), "--scan-memory", "off"]).code(0);
    let answers = [server.ask(""), server.ask(""), server.ask("")];
    assert_eq!(answers, ["6", "6", "1005"], "first the end of the old code");
}

#[test]
fn a_coroutine_in_the_new_code_is_waited_for_by_a_revert() {
    let (target, file) = coroutine();
    let mut server = target.start();
    let pid = server.pid();
    ulp_apply(&[&file, "--pid", &pid]).code(0);
    assert_eq!(server.ask(""), "0");
    let busy = ulp_apply(&["revert", "work-fix", "--pid", &pid, "--wait", "200ms"]).code(4);
    assert!(busy.err.contains("coroutine is in work of work-fix"), "{busy:?}");
    assert_eq!(server.ask(""), "1005");
    let reverted = ulp_apply(&["revert", "work-fix", "--pid", &pid, "--wait", "200ms"]).code(0);
    assert!(!reverted.out.contains("kept"), "{reverted:?}");
    assert_eq!((server.ask(""), server.ask("")), ("1005".into(), "6".into()));
}

#[test]
fn too_much_memory_is_refused_with_the_number_to_pass() {
    let (target, file) = coroutine();
    let mut server = target.start_with(&["100"]);
    let pid = server.pid();
    let refused = ulp_apply(&[&file, "--pid", &pid, "--max-stop", "2ms", "--json"]).code(5);
    let error = &result(&refused.out)["error"];
    assert_eq!(error["class"], "refused");
    let message = error["message"].as_str().expect("a message");
    let mib = message.split(' ').zip(message.split(' ').skip(1)).find(|(_, unit)| *unit == "MiB").expect("a size").0;
    let mib: u64 = mib.parse().expect("a number");
    assert!((100..120).contains(&mib), "{message}");
    let advice = error["advice"].as_str().expect("advice");
    let number = advice.split(' ').nth(2).expect("pass --max-stop NUMBER");
    assert!(number.ends_with("ms"), "{advice}");
    // A machine that does much else may take longer than it did.
    let number: u64 = number.trim_end_matches("ms").parse().expect("a number");
    ulp_apply(&[&file, "--pid", &pid, "--max-stop", &format!("{}ms", 4 * number)]).code(0);
    assert_eq!((server.ask(""), server.ask("")), ("0".into(), "1005".into()));
}

#[test]
fn memory_is_searched_where_there_may_be_coroutines() {
    let searched = |target: &Target, file: &str, options: &[&str], stale: bool| {
        let mut server = target.start();
        let pid = server.pid();
        let ran = ulp_apply(&[&["apply", file, "--pid", &pid, "--wait", "0", "--verbose"], options].concat());
        let searched = ran.err.contains("searched for coroutines");
        assert_eq!(ran.code, if searched && stale { 4 } else { 0 }, "{ran:?}");
        assert_eq!(server.ask("") == "1005", ran.code == 0);
        searched
    };
    let stale = |build| {
        let target = Target::new("stale", STALE, build);
        let file = Patch::new(&target, "work-fix", STALE_FIX, &["work"]).write();
        (target, file)
    };
    let (target, file) = stale(Build::Pie);
    assert!(!searched(&target, &file, &[], true), "no coroutines");
    assert!(searched(&target, &file, &["--scan-memory", "on"], true));
    for build in [Build::Fixed, Build::Stripped] {
        let (target, file) = stale(build);
        assert!(!searched(&target, &file, &[], true), "{build:?}: no coroutines");
    }
    // A static program is known by its symbols alone.
    let (target, file) = stale(Build::Static);
    assert!(!searched(&target, &file, &[], true), "no coroutines");
    let (target, file) = stale(Build::StaticStripped);
    assert!(searched(&target, &file, &[], true), "unknown");
    // Boost.Context's functions, linked in.
    let boost = STALE.replace("int main(", "void jump_fcontext(void) {}\nint main(");
    let target = Target::new("boost", &boost, Build::Pie);
    let file = Patch::new(&target, "work-fix", STALE_FIX, &["work"]).write();
    assert!(searched(&target, &file, &[], true));
}
