// SPDX-License-Identifier: GPL-2.0-or-later
//! What the new code leaves behind in the program: a string, a callback, a timer, a handler that only the kernel knows. The patch is
//! reverted, and then the program uses it. Its memory must still be there, and must stay until nothing can lead to it.

use anyhow::{Context, Result};
use ulp_tests::case::Case;
use ulp_tests::ensure_that;
use ulp_tests::process::{Mapping, Running};
use ulp_tests::tools::{Ran, run, ulp_apply};

const OLD: &str = "NOINLINE int work(int n) { return n + 1; }";

/// A fix of `work` that leaves something behind, the question that uses it, and the answer.
struct Legacy {
    name: &'static str,
    fix: &'static str,
    question: &'static str,
    answer: &'static str,
}

const LEGACIES: &[Legacy] = &[
    Legacy {
        name: "string",
        fix: r#"NOINLINE int work(int n) { text = "of the new code"; return n + 2; }"#,
        question: "text",
        answer: "of the new code",
    },
    Legacy {
        name: "string-of-a-table",
        fix: r#"static const char *const names[] = {"zero of the new code", "one of the new code"};
                NOINLINE int work(int n) { text = names[n & 1]; return n + 2; }"#,
        question: "text",
        answer: "one of the new code",
    },
    Legacy {
        name: "callback",
        fix: "static NOINLINE int fresh(int n) { return n * 7; }
              NOINLINE int work(int n) { callback = fresh; return n + 2; }",
        question: "callback",
        answer: "35",
    },
    Legacy {
        name: "variable",
        fix: "static int seen[4] = {41, 41, 41, 41};
              NOINLINE int work(int n) { number = &seen[n & 3]; return n + 2; }",
        question: "number",
        answer: "42",
    },
    Legacy {
        name: "sealed",
        fix: r#"void seal(const char *what);
                NOINLINE int work(int n) { seal("of the new code"); return n + 2; }"#,
        question: "sealed",
        answer: "of the new code",
    },
    Legacy {
        name: "handler",
        fix: "static void fresh(int n) { rung = n * 0 + 77; }
              NOINLINE int work(int n) {
                  struct sigaction action = {.sa_handler = fresh};
                  sigaction(SIGALRM, &action, NULL);
                  return n + 2;
              }",
        question: "alarm",
        answer: "77",
    },
    Legacy {
        name: "timer-callback",
        fix: "static void fresh(union sigval value) { rung += 1 + value.sival_int; }
              NOINLINE int work(int n) {
                  struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = fresh};
                  timed = timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
                  return n + 2;
              }",
        question: "timer",
        answer: "1",
    },
    Legacy {
        name: "timer-value",
        fix: r#"NOINLINE int work(int n) {
                  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
                  event.sigev_value.sival_ptr = "of the new code";
                  timed = timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
                  return n + 2;
              }"#,
        question: "value",
        answer: "of the new code",
    },
    Legacy {
        name: "epoll-data",
        fix: r#"NOINLINE int work(int n) {
                  struct epoll_event event = {.events = EPOLLIN, .data.ptr = "of the new code"};
                  epoll_ctl(poller, EPOLL_CTL_ADD, ready, &event);
                  return n + 2;
              }"#,
        question: "epoll",
        answer: "of the new code",
    },
];

fn apply(package: &std::path::Path, target: &Running) -> Result<Ran> {
    run(ulp_apply()?.arg(package).args(["--wait", "20s", "--pid"]).arg(target.pid().to_string()))
}

fn revert(name: &str, target: &Running, more: &[&str]) -> Result<Ran> {
    // The search for pointers happens under the stop, and this is no release build.
    let limits = ["--wait", "2s", "--max-stop", "10s", "--pid"];
    run(ulp_apply()?.args(["revert", name]).args(limits).arg(target.pid().to_string()).args(more))
}

fn answers(target: &mut Running, question: &str, wanted: &str) -> Result<()> {
    let answer = target.ask(question)?;
    ensure_that!(answer == wanted, "{question:?} was answered {answer:?}, not {wanted:?}");
    target.check_alive()
}

/// What a patch has mapped: executable memory of no file.
fn patch_code(target: &Running) -> Result<Vec<Mapping>> {
    let of_no_file = |m: &Mapping| m.path.is_empty() && m.rights == "r-xp";
    Ok(target.maps()?.into_iter().filter(of_no_file).collect())
}

fn state(target: &Running, name: &str) -> Result<Option<String>> {
    let json =
        run(ulp_apply()?.args(["list", "--json", "--pid"]).arg(target.pid().to_string()))?.expect_code(0)?.json()?;
    let patches = json["processes"][0]["patches"].as_array().context("patches")?;
    let found = patches.iter().find(|p| p["name"] == name);
    Ok(found.and_then(|p| p["state"].as_str()).map(str::to_owned))
}

#[test]
fn what_the_new_code_left_behind_works_after_the_revert() -> Result<()> {
    let case = Case::life("keeper")?;
    for legacy in LEGACIES {
        one_legacy(&case, legacy).with_context(|| legacy.name)?;
    }
    Ok(())
}

fn one_legacy(case: &Case, legacy: &Legacy) -> Result<()> {
    let Legacy { name, question, answer, .. } = legacy;
    let package = case.package_of(name, OLD, legacy.fix)?;
    let mut target = case.start()?;
    answers(&mut target, "5", "6")?;
    apply(&package, &target)?.expect_code(0)?;
    answers(&mut target, "5", "7")?;
    let code = patch_code(&target)?;
    ensure_that!(code.len() == 1, "the patch has one mapping of code: {code:x?}");

    let reverted = revert(name, &target, &[])?;
    reverted.expect_code(0)?;
    ensure_that!(reverted.stdout.contains("kept"), "nothing says that memory is kept\n{}", reverted.report());
    ensure_that!(patch_code(&target)? == code, "the patch's memory is gone");
    ensure_that!(state(&target, name)?.as_deref() == Some("retired"), "list does not show it as retired");
    answers(&mut target, question, answer)?;

    // As long as something leads there it is not given back, however often it is asked for.
    for _ in 0..2 {
        let purged = revert(name, &target, &["--purge"])?;
        ensure_that!(purged.code == Some(4), "it was not refused as busy\n{}", purged.report());
        ensure_that!(patch_code(&target)? == code, "refused, and yet the memory is gone");
    }
    let expected = if *question == "number" { "43" } else { answer };
    answers(&mut target, question, expected)?;

    // Applied again it is the same memory, with its data as it was; reverted again, it is kept again.
    apply(&package, &target)?.expect_code(0)?;
    ensure_that!(patch_code(&target)? == code, "kept memory is used again");
    revert(name, &target, &[])?.expect_code(0)?;
    ensure_that!(patch_code(&target)? == code, "kept memory is kept again");

    answers(&mut target, "forget", "forgotten")?;
    answers(&mut target, "5", "6")?;
    let purged = revert(name, &target, &["--purge"])?;
    if *question == "timer" && purged.code == Some(4) {
        // The C library's helper thread has freed memory that still says so: nobody can tell it from memory in use.
        ensure_that!(patch_code(&target)? == code, "refused, and yet the memory is gone");
        return answers(&mut target, "5", "6");
    }
    purged.expect_code(0)?;
    ensure_that!(patch_code(&target)?.is_empty(), "purged, and the memory is still there\n{}", purged.report());
    ensure_that!(state(&target, name)?.is_none(), "list still shows it");
    // A signal without a handler ends the program, and a timer that was deleted does not ring.
    if !matches!(*question, "alarm" | "timer" | "value") {
        answers(&mut target, question, if answer.contains("code") { "nothing" } else { "-1" })?;
    }
    answers(&mut target, "5", "6")
}

/// glibc keeps functions to be called at the exit disguised: a search that knows only plain pointers finds nothing.
#[test]
fn a_function_to_be_called_at_the_exit_is_still_called() -> Result<()> {
    let case = Case::life("keeper")?;
    let fix = r#"static void goodbye(int code, void *text) { puts((char *)text + code); }
                 NOINLINE int work(int n) { on_exit(goodbye, "goodbye of the new code"); return n + 2; }"#;
    let package = case.package_of("goodbye", OLD, fix)?;
    let mut target = case.start()?;
    apply(&package, &target)?.expect_code(0)?;
    answers(&mut target, "5", "7")?;
    revert("goodbye", &target, &[])?.expect_code(0)?;
    let purged = revert("goodbye", &target, &["--purge"])?;
    ensure_that!(purged.code == Some(4), "it was not refused as busy\n{}", purged.report());
    let said = target.ask("exit")?;
    ensure_that!(said == "goodbye of the new code", "at its exit it said {said:?}");
    Ok(())
}

/// New code that hands nothing on leaves nothing behind: its memory goes with the revert, and there is nothing to purge.
#[test]
fn without_an_escape_nothing_is_kept() -> Result<()> {
    let case = Case::life("keeper")?;
    let package = case.build_package()?;
    let mut target = case.start()?;
    answers(&mut target, "5", "6")?;
    let before = target.lasting_maps()?;
    for more in [&[][..], &["--purge"]] {
        apply(&package, &target)?.expect_code(0)?;
        answers(&mut target, "5", "7")?;
        let reverted = revert("fix", &target, more)?;
        reverted.expect_code(0)?;
        ensure_that!(!reverted.stdout.contains("kept"), "memory is kept\n{}", reverted.report());
        let left: Vec<_> = target.lasting_maps()?.symmetric_difference(&before).cloned().collect();
        ensure_that!(left.is_empty(), "memory maps differ: {left:x?}");
        answers(&mut target, "5", "6")?;
    }
    Ok(())
}

/// Kept memory is used again by its own patch and by no other, and counts once however often that happens.
#[test]
fn kept_memory_is_used_again_by_its_own_patch() -> Result<()> {
    let case = Case::life("keeper")?;
    let counter = "static int calls = 100;
                   NOINLINE int work(int n) { number = &calls; return calls += n; }";
    let package = case.package_of("counter", OLD, counter)?;
    let other = case.build_package()?;
    let mut target = case.start()?;
    apply(&package, &target)?.expect_code(0)?;
    let code = patch_code(&target)?;
    answers(&mut target, "5", "105")?;
    for cycle in 1..20 {
        revert("counter", &target, &[])?.expect_code(0)?;
        answers(&mut target, "5", "6")?;
        // Another patch of the same function comes and goes meanwhile, in memory of its own.
        apply(&other, &target)?.expect_code(0)?;
        answers(&mut target, "5", "7")?;
        ensure_that!(patch_code(&target)?.len() == 2, "two patches, and not two areas");
        revert("fix", &target, &[])?.expect_code(0)?;
        apply(&package, &target)?.expect_code(0)?;
        ensure_that!(patch_code(&target)? == code, "cycle {cycle}: another area");
        // Its data is as the last call left it.
        answers(&mut target, "5", &(105 + 5 * cycle).to_string())?;
    }
    // A patch that is applied is not purged; it is reverted first.
    let purged = revert("counter", &target, &["--purge"])?;
    ensure_that!(purged.code == Some(4), "the program points into it\n{}", purged.report());
    ensure_that!(state(&target, "counter")?.as_deref() == Some("retired"), "reverted, but not purged");
    answers(&mut target, "5", "6")?;
    answers(&mut target, "number", "201")
}

/// Kept memory of which the program has unmapped or changed a part is left alone: the patch gets a new place.
#[test]
fn kept_memory_that_was_tampered_with_is_not_used_again() -> Result<()> {
    let case = Case::life("hostile")?;
    let fix = "static int calls = 100;\nNOINLINE int left(int n) { calls += n; return calls; }";
    let package = case.package_of("counter", "NOINLINE int left(int n) { return n + 1; }", fix)?;
    for rights in ["rw-p", "r--p"] {
        let mut target = case.start()?;
        let before = target.lasting_maps()?;
        apply(&package, &target)?.expect_code(0)?;
        answers(&mut target, "5", "105 7")?;
        let mut ours = target.lasting_maps()?.into_iter().filter(|m| !before.contains(m) && m.path.is_empty());
        let area = ours.find(|m| m.rights == rights).context("an area of the patch")?;
        revert("counter", &target, &[])?.expect_code(0)?;
        let unmapped = target.ask(&format!("unmap {:x} {:x}", area.start, area.end - area.start))?;
        ensure_that!(unmapped == "unmapped", "{area:x?}: {unmapped}");
        apply(&package, &target)?.expect_code(0)?;
        answers(&mut target, "5", "105 7")?;
        revert("counter", &target, &[])?.expect_code(0)?;
        answers(&mut target, "5", "6 7")?;
    }
    Ok(())
}
