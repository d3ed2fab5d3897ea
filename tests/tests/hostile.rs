// SPDX-License-Identifier: GPL-2.0-or-later
//! A patched process keeps its registry in its own memory, and can write there what it likes. Here it does: every verb must
//! refuse or ignore what is no record of ours, and write nowhere because of it. The records are put together here byte by
//! byte, with no code of `ulp-apply`.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use ulp_format::hex;
use ulp_tests::case::{Case, Picture};
use ulp_tests::process::Running;
use ulp_tests::tools::{Ran, run, ulp_apply};
use ulp_tests::{elf, ensure_that};

const MAGIC: &[u8; 16] = b"\x7fulp registry\r\n\0";
const PAGE: u64 = 4096;
const VICTIM: usize = 8192;
const APPLYING: u64 = 1;
const APPLIED: u64 = 2;
const REVERTING: u64 = 3;
const RETIRED: u64 = 4;
const FREEING: u64 = 5;

/// The bytes of a record: what is not given is as `ulp-apply` would write it.
#[derive(Clone)]
struct Fake {
    version: u32,
    length: Option<u32>,
    state: u64,
    commit: u64,
    digest: bool,
    body: Vec<u8>,
}

impl Fake {
    fn new(state: u64, record: &Value) -> Self {
        Self { version: 2, length: None, state, commit: 0, digest: true, body: record.to_string().into_bytes() }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or(self.body.len() as u32).to_le_bytes();
        let mut sha = Sha256::new();
        for part in [&MAGIC[..], &self.version.to_le_bytes(), &length, &self.body] {
            sha.update(part);
        }
        let mut digest: [u8; 32] = sha.finalize().into();
        digest[0] ^= u8::from(!self.digest);
        let words = [self.state, 1, self.commit].map(u64::to_le_bytes).concat();
        [&MAGIC[..], &self.version.to_le_bytes(), &length, &words, &digest, &self.body].concat()
    }
}

/// A process, and what it must stay.
struct Bench {
    case: Case,
    target: Running,
    package: PathBuf,
    code: Picture,
    victim: u64,
    bias: u64,
    left: u64,
    /// Where false records go: free, and in reach of the program's code.
    home: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let case = Case::life("hostile")?;
        let package = case.build_package()?;
        let mut target = case.start()?;
        let program = &case.production.program;
        let victim = u64::from_str_radix(&target.ask("victim")?, 16)?;
        let bias = target.load_bias(program)?;
        let functions = elf::functions(program)?;
        let left = functions.get("left").and_then(|all| all.first()).context("the program has left()")?;
        let code = Picture::take(&target, &case.production)?;
        let (left, home) = (bias + left, bias - (64 << 20));
        Ok(Self { case, target, package, code, victim, bias, left, home })
    }

    /// A new process of the same program.
    fn again(&mut self) -> Result<()> {
        self.target = self.case.start()?;
        self.victim = u64::from_str_radix(&self.target.ask("victim")?, 16)?;
        let bias = self.target.load_bias(&self.case.production.program)?;
        self.left = self.left - self.bias + bias;
        (self.bias, self.home) = (bias, bias - (64 << 20));
        self.code = Picture::take(&self.target, &self.case.production)?;
        Ok(())
    }

    fn map(&mut self, at: u64, length: u64, rights: &str, bytes: &[u8]) -> Result<()> {
        let file = self.case.work().join("memory");
        std::fs::write(&file, bytes)?;
        let answer = self.target.ask(&format!("map {at:x} {length:x} {rights} {}", file.display()))?;
        ensure_that!(answer == "mapped", "{at:#x}: {answer}");
        Ok(())
    }

    fn verb(&self, words: &[&str]) -> Result<Ran> {
        run(ulp_apply()?.args(words).args(["--pid", &self.target.pid().to_string()]))
    }

    /// A record whose memory is one page of constants, where it lies itself, one of code and one of data, as a patch's are; all
    /// that matters is mapped, the digests are true.
    fn record(&mut self, at: u64, name: &str) -> Result<Value> {
        let code = vec![0xcc; PAGE as usize];
        self.map(at + PAGE, PAGE, "rx", &code)?;
        self.map(at + 2 * PAGE, PAGE, "rw", &[])?;
        let build_id = elf::build_id(&self.case.production.program)?;
        let sha = |bytes: &[u8]| hex::encode(&Sha256::digest(bytes));
        let entry = self.left;
        let old = self.target.read(entry, self.pad() + 5)?;
        Ok(json!({
            "name": name, "description": "", "cves": [], "digest": "00".repeat(32), "escape": true, "requires": [],
            "order": 1, "commit": null,
            "targets": [{
                "file": "app", "build_id": build_id, "bias": self.bias,
                "functions": [{
                    "name": "left", "entry": entry, "new": at + PAGE,
                    "old": hex::encode(&old), "jump": hex::encode(&self.jump(entry, at + PAGE)?), "gate": null,
                }],
                "areas": [
                    {"start": at, "len": PAGE, "access": "constants", "sha256": sha(&[]), "measured": PAGE},
                    {"start": at + PAGE, "len": PAGE, "access": "code", "sha256": sha(&code), "measured": 0},
                    {"start": at + 2 * PAGE, "len": PAGE, "access": "data", "sha256": null, "measured": 0},
                ],
                "frames": null,
            }],
        }))
    }

    /// Bytes of a landing pad at the function's entry.
    fn pad(&self) -> usize {
        let bytes = self.target.read(self.left, 4).unwrap_or_default();
        if bytes == [0xf3, 0x0f, 0x1e, 0xfa] { 4 } else { 0 }
    }

    /// The landing pad at an entry, and a jump behind it: `e9 rel32`.
    fn jump(&self, entry: u64, to: u64) -> Result<Vec<u8>> {
        let pad = self.pad();
        let mut bytes = self.target.read(entry, pad)?;
        let distance = i32::try_from(to as i64 - (entry as i64 + pad as i64 + 5))?;
        bytes.push(0xe9);
        bytes.extend(distance.to_le_bytes());
        Ok(bytes)
    }

    /// Runs every verb, and looks at the process after each.
    fn every_verb(&mut self, names: &[&str]) -> Result<Vec<(String, Ran)>> {
        let package = self.package.display().to_string();
        let symbols = self.case.work().join("symbols").display().to_string();
        let mut verbs: Vec<Vec<&str>> = vec![
            vec!["symbols", "-o", &symbols],
            vec!["list"],
            vec!["list", "--json"],
            vec!["verify"],
            vec!["apply", &package, "--dry-run"],
        ];
        for name in names {
            verbs.extend([vec!["revert", name, "--wait", "300ms"], vec!["revert", name, "--purge", "--wait", "300ms"]]);
        }
        verbs.extend([
            vec!["apply", &package, "--wait", "300ms"],
            vec!["list"],
            vec!["revert", "fix", "--wait", "300ms"],
        ]);
        let mut all = Vec::new();
        let mut applied = false;
        for words in verbs {
            let ran = self.verb(&words)?;
            match (words[0], ran.code) {
                ("apply", Some(0)) if !words.contains(&"--dry-run") => applied = true,
                ("revert", Some(0)) if words[1] == "fix" => applied = false,
                _ => {}
            }
            self.check(&ran, applied).with_context(|| ran.report())?;
            all.push((words.join(" "), ran));
        }
        Ok(all)
    }

    /// The verb ended as verbs end, the process lives, its data is untouched, and its code is the old one, or all new.
    fn check(&mut self, ran: &Ran, applied: bool) -> Result<()> {
        let code = ran.code.context("killed by a signal")?;
        // A patch that is being given back has no symbols: then there is none.
        let none = code == 3 && ran.stderr.contains("there is no patch");
        ensure_that!(none || matches!(code, 0 | 1 | 4 | 5), "an exit code for something else");
        ensure_that!(!ran.stderr.contains("panicked"), "a panic");
        let harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
        ensure_that!(ran.stdout.chars().chain(ran.stderr.chars()).all(harmless), "control characters");
        ensure_that!(ran.took < std::time::Duration::from_secs(60), "it took {:?}", ran.took);
        self.target.check_alive()?;
        ensure_that!(self.target.read(self.victim, VICTIM)? == [0x5a; VICTIM], "the victim's bytes changed");
        let answer = self.target.ask("5")?;
        if applied {
            ensure_that!(answer == "105 205", "applied, and the answer is {answer:?}");
        } else {
            ensure_that!(answer == "6 7", "the answer is {answer:?}");
            let now = Picture::take(&self.target, &self.case.production)?;
            ensure_that!(self.code == now, "code changed at {:x?}", self.code.changed(&now)?);
        }
        Ok(())
    }
}

/// Puts a record where one belongs, with its areas, and lets every verb at it.
fn judge(bench: &mut Bench, what: &str, make: impl Fn(&mut Bench, u64) -> Result<Fake>) -> Result<Vec<(String, Ran)>> {
    let mut tried = || {
        bench.again()?;
        let home = bench.home;
        let fake = make(bench, home)?.bytes();
        bench.map(home, (fake.len() as u64).next_multiple_of(PAGE), "r", &fake)?;
        bench.every_verb(&["false"])
    };
    tried().with_context(|| what.to_owned())
}

/// All verbs that read the registry say that there is something wrong with it.
fn refused(all: &[(String, Ran)], what: &str) -> Result<()> {
    for (verb, ran) in all {
        ensure_that!(ran.code != Some(0), "{what}: {verb} took no offence\n{}", ran.report());
    }
    Ok(())
}

#[test]
fn headers_that_nobody_wrote() -> Result<()> {
    let mut bench = Bench::new()?;
    type Spoil = fn(&mut Fake);
    let cases: [(&str, Spoil); 16] = [
        ("nothing but zeroes behind the magic", |f| (f.version, f.state, f.body) = (0, 0, vec![])),
        ("version 1", |f| f.version = 1),
        ("a version to come", |f| f.version = u32::MAX),
        ("no length", |f| f.length = Some(0)),
        ("a length beyond the mapping", |f| f.length = Some(1 << 20)),
        ("a length beyond all", |f| f.length = Some(u32::MAX)),
        ("the longest length", |f| f.length = Some(4 << 20)),
        ("no state", |f| f.state = 0),
        ("a sixth state", |f| f.state = 6),
        ("an enormous state", |f| f.state = u64::MAX),
        ("more than a commit word", |f| f.commit = u64::MAX),
        ("another digest", |f| f.digest = false),
        ("no text", |f| f.body = vec![0xff; 500]),
        ("text that is no record", |f| f.body = b"[1, 2, {}]".to_vec()),
        ("text deeper than a stack", |f| f.body = b"[".repeat(1_000_000)),
        ("an empty object", |f| f.body = b"{}".to_vec()),
    ];
    for (what, spoil) in cases {
        let all = judge(&mut bench, what, |bench, home| {
            let mut fake = Fake::new(APPLIED, &bench.record(home + (16 << 20), "false")?);
            spoil(&mut fake);
            Ok(fake)
        })?;
        refused(&all, what)?;
    }
    Ok(())
}

/// Changes a record's text.
type Edit = fn(&mut Value, &Bench, u64);

#[test]
fn records_that_contradict_themselves() -> Result<()> {
    let mut bench = Bench::new()?;
    let cases: &[(&str, Edit)] = &[
        ("no target", |r, _, _| r["targets"] = json!([])),
        ("a target without memory", |r, _, _| r["targets"][0]["areas"] = json!([])),
        ("somewhere else", |r, _, at| r["targets"][0]["areas"][0]["start"] = json!(at + 64 * PAGE)),
        ("an area that wraps", |r, _, _| r["targets"][0]["areas"][2]["start"] = json!(u64::MAX - 4095)),
        ("an area of everything", |r, _, _| r["targets"][0]["areas"][2]["len"] = json!(1u64 << 46)),
        ("an area of nothing", |r, _, _| r["targets"][0]["areas"][2]["len"] = json!(0)),
        ("areas that overlap", |r, _, at| r["targets"][0]["areas"][2]["start"] = json!(at + PAGE)),
        ("half a page", |r, _, _| r["targets"][0]["areas"][1]["len"] = json!(2048)),
        ("code without a digest", |r, _, _| r["targets"][0]["areas"][1]["sha256"] = Value::Null),
        ("new code elsewhere", |r, b, _| r["targets"][0]["functions"][0]["new"] = json!(b.victim)),
        ("bytes of two lengths", |r, _, _| r["targets"][0]["functions"][0]["old"] = json!("90")),
        ("frames anywhere", |r, b, _| r["targets"][0]["frames"] = json!([b.victim, 4096])),
        ("endless frames", |r, _, at| r["targets"][0]["frames"] = json!([at, u64::MAX])),
        ("a name that steers terminals", |r, _, _| r["name"] = json!("\u{1b}[2Jfalse")),
        ("a function's name of two lines", |r, _, _| r["targets"][0]["functions"][0]["name"] = json!("a\nb")),
        ("a commit word for one function", |r, b, _| r["commit"] = json!({"at": b.victim, "old": 0})),
        ("a commit word in data", |r, b, _| {
            let f = r["targets"][0]["functions"][0].clone();
            r["targets"][0]["functions"] = json!([f, f]);
            r["commit"] = json!({"at": b.victim, "old": 0x5a5a_5a5a});
        }),
        ("the same function twice", |r, _, _| {
            let f = r["targets"][0]["functions"][0].clone();
            r["targets"][0]["functions"] = json!([f, f]);
        }),
    ];
    for (what, edit) in cases {
        for state in [APPLYING, APPLIED, REVERTING, RETIRED, FREEING] {
            let all = judge(&mut bench, what, |bench, home| {
                let mut record = bench.record(home, "false")?;
                edit(&mut record, bench, home);
                Ok(Fake::new(state, &record))
            })?;
            refused(&all, what)?;
        }
    }
    Ok(())
}

/// Records without a contradiction, that claim bytes of the process as their own jump: a revert would write what they
/// call the old bytes. Whatever the state says, nothing may be written.
#[test]
fn records_that_point_a_revert_at_other_memory() -> Result<()> {
    let mut bench = Bench::new()?;
    let cases: &[(&str, Edit)] = &[
        ("data", |r, b, _| {
            let f = &mut r["targets"][0]["functions"][0];
            (f["entry"], f["jump"], f["old"]) = (json!(b.victim), json!("5a5a5a5a5a"), json!("eb5a5a5a5a"));
        }),
        ("data that holds a true jump", |r, b, at| {
            let jump = hex::encode(&b.jump(b.victim + 512, at + PAGE).unwrap_or_default());
            let f = &mut r["targets"][0]["functions"][0];
            (f["entry"], f["old"], f["jump"]) =
                (json!(b.victim + 512), json!("5a".repeat(jump.len() / 2)), json!(jump));
        }),
        ("the very code of the program", |r, b, _| {
            let f = &mut r["targets"][0]["functions"][0];
            let live = b.target.read(b.left, b.pad() + 5).unwrap_or_default();
            (f["jump"], f["old"]) = (json!(hex::encode(&live)), json!("cc".repeat(live.len())));
        }),
        ("code of no file", |r, b, _| r["targets"][0]["bias"] = json!(b.bias + PAGE)),
        ("code of another build", |r, _, _| r["targets"][0]["build_id"] = json!("00".repeat(20))),
        ("its own code", |r, _, at| {
            let f = &mut r["targets"][0]["functions"][0];
            (f["entry"], f["jump"], f["old"]) = (json!(at + PAGE), json!("cccccccccc"), json!("9090909090"));
        }),
        ("nowhere", |r, _, _| r["targets"][0]["functions"][0]["entry"] = json!(8)),
        ("the end of everything", |r, _, _| r["targets"][0]["functions"][0]["entry"] = json!(u64::MAX - 16)),
    ];
    for (what, edit) in cases {
        for state in [APPLYING, APPLIED, REVERTING] {
            let all = judge(&mut bench, what, |bench, home| {
                let mut record = bench.record(home, "false")?;
                edit(&mut record, bench, home);
                Ok(Fake::new(state, &record))
            })?;
            let reverts = all.iter().filter(|(verb, _)| verb.starts_with("revert false"));
            for (verb, ran) in reverts {
                // Entries of a file that is not there are nobody's: such a record can go.
                let nobodys = what.starts_with("code of") && ran.code == Some(0);
                ensure_that!(
                    nobodys || ran.code != Some(0),
                    "{what}, state {state}: {verb} believed it\n{}",
                    ran.report()
                );
            }
        }
    }
    Ok(())
}

/// Memory that a record calls its own, and asks to have unmapped, is the program's.
#[test]
fn records_that_claim_the_memory_of_the_program() -> Result<()> {
    let mut bench = Bench::new()?;
    for state in [APPLYING, APPLIED, REVERTING, RETIRED, FREEING] {
        for escape in [true, false] {
            for far in ["data", "text", "gap"] {
                let what = format!("{far}, state {state}, escape {escape}");
                judge(&mut bench, &what, |bench, home| {
                    let mut record = bench.record(home, "false")?;
                    record["escape"] = json!(escape);
                    let claimed = match far {
                        "data" => {
                            json!({"start": bench.victim, "len": VICTIM, "access": "data", "sha256": null, "measured": 0})
                        }
                        "text" => {
                            let at = bench.left & !(PAGE - 1);
                            let sha = hex::encode(&Sha256::digest(bench.target.read(at, PAGE as usize)?));
                            json!({"start": at, "len": PAGE, "access": "code", "sha256": sha, "measured": 0})
                        }
                        _ => {
                            json!({"start": home + 16 * PAGE, "len": PAGE, "access": "data", "sha256": null, "measured": 0})
                        }
                    };
                    // Something of the program's own, where the record's own data would be expected to go on.
                    if far == "gap" {
                        bench.map(home + 16 * PAGE, PAGE, "rw", b"mine")?;
                    }
                    if let Some(areas) = record["targets"][0]["areas"].as_array_mut() {
                        areas.push(claimed);
                    }
                    Ok(Fake::new(state, &record))
                })?;
                if far == "gap" {
                    let kept = bench.target.read(bench.home + 16 * PAGE, 4).context(what)?;
                    ensure_that!(kept == b"mine", "the program's memory changed");
                }
            }
        }
    }
    Ok(())
}

/// Several records at once: of the same memory, of the same name, each the other's condition, and very many.
#[test]
fn crowds_of_records() -> Result<()> {
    let mut bench = Bench::new()?;
    let two = |bench: &mut Bench, first: &dyn Fn(&mut Value), second: &dyn Fn(&mut Value, u64)| {
        bench.again()?;
        let (a, b) = (bench.home, bench.home + (1 << 20));
        let (mut one, mut other) = (bench.record(a, "false")?, bench.record(b, "other")?);
        first(&mut one);
        second(&mut other, a);
        bench.map(a, PAGE, "r", &Fake::new(RETIRED, &one).bytes())?;
        bench.map(b, PAGE, "r", &Fake::new(RETIRED, &other).bytes())?;
        bench.every_verb(&["false", "other"])
    };
    let shared = two(&mut bench, &|_| (), &|r, a| r["targets"][0]["areas"][2]["start"] = json!(a + 2 * PAGE))?;
    refused(&shared, "two records with the same data")?;
    let same = two(&mut bench, &|_| (), &|r, _| r["name"] = json!("false"))?;
    ensure_that!(same.iter().any(|(_, ran)| ran.code == Some(0)), "two retired records of one name block everything");
    two(&mut bench, &|r| r["requires"] = json!(["other"]), &|r, _| r["requires"] = json!(["false"]))?;

    // As many as fit, each in a page of its own mapping.
    bench.again()?;
    let mut pages = Vec::new();
    for _ in 0..2000 {
        pages.extend(MAGIC);
        pages.resize(pages.len().next_multiple_of(PAGE as usize), 0);
    }
    let home = bench.home;
    bench.map(home, pages.len() as u64, "r", &pages)?;
    refused(&bench.every_verb(&["false"])?, "two thousand beginnings of records")
}

/// A true record whose changing words, which no digest covers, are overwritten.
#[test]
fn words_of_a_true_record_overwritten() -> Result<()> {
    let mut bench = Bench::new()?;
    let package = bench.package.display().to_string();
    for (what, offset, word) in [
        ("commit word of garbage", 40, 0x1234_5678u32),
        ("commit word that says old", 40, 0),
        ("no state", 24, 0),
        ("a state of garbage", 24, 77),
        ("a state that says applying", 24, 1),
        ("a state that says reverting", 24, 3),
        ("a state that says retired", 24, 4),
        ("a state that says freeing", 24, 5),
        ("another generation", 32, 0xffff_ffff),
        ("its digest", 48, 0),
        ("its text", 80, 0),
    ] {
        for entries_new in [true, false] {
            bench.again()?;
            bench.verb(&["apply", &package, "--wait", "5s"])?.expect_code(0)?;
            let pid = bench.target.pid();
            let record = find_record(&bench.target)?.context("there is a record")?;
            let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
            memory.write_all_at(&word.to_le_bytes(), record + offset)?;
            if !entries_new {
                // And somebody took the entries back.
                for (at, bytes) in bench.code.0.iter() {
                    memory.write_all_at(bytes, *at)?;
                }
            }
            for words in [
                vec!["list"],
                vec!["verify"],
                vec!["revert", "fix", "--wait", "300ms"],
                vec!["revert", "fix", "--purge", "--wait", "300ms"],
                vec!["apply", &package, "--wait", "300ms"],
                vec!["list"],
                vec!["revert", "fix", "--wait", "300ms"],
            ] {
                let ran = bench.verb(&words)?;
                let told = || format!("{what}, entries new: {entries_new}\n{}", ran.report());
                let code = ran.code.with_context(told)?;
                ensure_that!(matches!(code, 0 | 1 | 4 | 5) && !ran.stderr.contains("panicked"), "{}", told());
                bench.target.check_alive().with_context(told)?;
                let answer = bench.target.ask("5").with_context(told)?;
                ensure_that!(answer == "6 7" || answer == "105 205", "a mixture: {answer:?}\n{}", told());
            }
        }
    }
    Ok(())
}

fn find_record(target: &Running) -> Result<Option<u64>> {
    for mapping in target.maps()?.into_iter().filter(|m| m.rights == "r--p" && m.path.is_empty()) {
        if target.read(mapping.start, 16)? == MAGIC {
            return Ok(Some(mapping.start));
        }
    }
    Ok(None)
}
