// SPDX-License-Identifier: GPL-2.0-or-later
//! What is written into a process's memory is read from it, and nothing that is impossible is believed.

use super::*;
use crate::memory::test::Pieces;
use proptest::prelude::*;

const AT: u64 = 0x10000;

fn record() -> Record {
    let area = |start, access| {
        let sha256 = (access != Access::Data).then(|| "00".into());
        Area { start: RemoteAddr(start), len: 0x1000, access, sha256, measured: 0 }
    };
    Record {
        name: "fix".into(),
        description: "a fix".into(),
        cves: vec!["CVE-1".into()],
        digest: "00".into(),
        escape: false,
        requires: vec![],
        order: 3,
        commit: None,
        targets: vec![TargetRecord {
            file: "app".into(),
            build_id: "ab".into(),
            bias: LoadBias(0x4000),
            functions: ["f", "g"]
                .into_iter()
                .zip(0u64..)
                .map(|(name, i)| FunctionRecord {
                    name: name.into(),
                    entry: RemoteAddr(0x5000 + 0x100 * i),
                    new: RemoteAddr(AT + 0x1000),
                    old: vec![1, 2, 3],
                    jump: vec![4, 5, 6],
                    gate: None,
                })
                .collect(),
            areas: vec![area(AT, Access::Constants), area(AT + 0x1000, Access::Code), area(AT + 0x2000, Access::Data)],
            frames: Some((RemoteAddr(AT + 0x800), 64)),
        }],
    }
}

fn page(record: &Record) -> Vec<u8> {
    let mut bytes = encode(record, State::Applied, 7).expect("encodes");
    bytes.resize(0x1000, 0);
    bytes
}

fn at(bytes: Vec<u8>) -> Pieces {
    let mut memory = Pieces::default();
    memory.put(AT, bytes);
    memory
}

#[test]
fn what_was_written_is_read() {
    let entry = decode(&at(page(&record())), RemoteAddr(AT)).expect("a sound record").expect("there is one");
    assert_eq!(entry, Entry { at: RemoteAddr(AT), state: State::Applied, generation: 7, record: record() });
    assert!(
        room(&record()).expect("a sound record")
            >= encode(&record(), State::Applied, 7).expect("a sound record").len() as u64
    );
}

#[test]
fn an_image_differs_when_anything_but_the_commit_word_does() {
    let entry = decode(&at(page(&record())), RemoteAddr(AT)).expect("a sound record").expect("there is one");
    let image = Image::of(entry).expect("a sound record");
    let whole = page(&record());
    let is_still = |bytes: Vec<u8>| image.is_still(&at(bytes)).unwrap_or(false);
    assert!(is_still(whole.clone()));
    for byte in 0..image.bytes.len() {
        let mut changed = whole.clone();
        changed[byte] ^= 1;
        assert_eq!(is_still(changed), (40..44).contains(&byte), "byte {byte}");
    }
    assert!(!is_still(vec![0; 4096]));
    // Memory that went away has no record any more, which is a change and no failure.
    assert!(matches!(image.is_still(&Pieces::default()), Ok(false)));
}

#[test]
fn a_state_change_changes_only_the_state() {
    let mut bytes = page(&record());
    let (place, words) = state_change(RemoteAddr(AT), State::Retired, 8);
    let start = (place.0 - AT) as usize;
    bytes[start..start + 16].copy_from_slice(&words);
    let entry = decode(&at(bytes), RemoteAddr(AT)).expect("a sound record").expect("there is one");
    assert_eq!((entry.state, entry.generation), (State::Retired, 8));
    assert_eq!(entry.record, record());
}

#[test]
fn every_flipped_byte_but_those_of_generation_and_commit_is_noticed() {
    let good = page(&record());
    let len = encode(&record(), State::Applied, 7).expect("a sound record").len();
    for i in (0..len).filter(|i| !(32..44).contains(i)) {
        let mut bad = good.clone();
        bad[i] ^= 0x80;
        let read = decode(&at(bad), RemoteAddr(AT));
        assert!(!matches!(read, Ok(Some(_))), "byte {i}");
    }
}

#[test]
fn impossible_records_are_refused_though_their_digest_holds() {
    type Spoil = fn(&mut Record);
    let cases: [(&str, Spoil); 15] = [
        ("no target", |r| r.targets.clear()),
        ("not its own memory", |r| r.targets[0].areas[0].start = RemoteAddr(AT + 0x3000)),
        ("overlap", |r| r.targets[0].areas[2].start = RemoteAddr(AT + 0x1000)),
        ("wraps", |r| r.targets[0].areas[2].start = RemoteAddr(!0xfff)),
        ("lengths differ", |r| r.targets[0].functions[0].jump.push(1)),
        ("new code elsewhere", |r| r.targets[0].functions[0].new = RemoteAddr(1)),
        ("odd area", |r| r.targets[0].areas[1].len = 5),
        ("code without a digest", |r| r.targets[0].areas[1].sha256 = None),
        ("larger than any patch", |r| r.targets[0].areas[2].len = 1 << 40),
        ("frames in its data", |r| r.targets[0].frames = Some((RemoteAddr(AT + 0x2000), 64))),
        ("frames without end", |r| r.targets[0].frames = Some((RemoteAddr(AT + 0x800), u64::MAX))),
        ("entries that overlap", |r| r.targets[0].functions[1].entry = RemoteAddr(0x5002)),
        ("an entry that wraps", |r| r.targets[0].functions[0].entry = RemoteAddr(u64::MAX - 1)),
        ("a name that is none", |r| r.name = "a b".into()),
        ("a name of two lines", |r| r.targets[0].functions[0].name = "f\ng".into()),
    ];
    for (name, spoil) in cases {
        let mut bad = record();
        spoil(&mut bad);
        assert!(decode(&at(page(&bad)), RemoteAddr(AT)).is_err(), "{name}");
    }
}

/// The record with gates for both functions, or for the first alone.
fn gated(both: bool) -> Record {
    let mut record = record();
    for f in &mut record.targets[0].functions {
        (f.old, f.jump) = (vec![1, 2, 3, 4, 5], vec![4, 5, 6, 7, 8]);
    }
    for f in record.targets[0].functions.iter_mut().take(if both { 2 } else { 1 }) {
        f.gate = Some(GateRecord { at: RemoteAddr(AT + 0x1800), len: 32, jump: vec![4, 9, 9, 9, 9] });
    }
    let own = CommitRecord { at: commit_word(RemoteAddr(AT)), old: 0 };
    record.commit = Some(if both { own } else { record.targets[0].functions[1].commits().next().expect("differs") });
    record
}

#[test]
fn impossible_gates_and_commit_words_are_refused() {
    type Spoil = fn(&mut Record);
    let cases: [(&str, bool, Spoil); 11] = [
        ("no commit", true, |r| r.commit = None),
        ("commit elsewhere", true, |r| r.commit = Some(CommitRecord { at: RemoteAddr(AT + 0x2000), old: 0 })),
        ("another old value", true, |r| r.commit.as_mut().expect("there is one").old = 1),
        ("two without gates", true, |r| r.targets[0].functions.iter_mut().for_each(|f| f.gate = None)),
        ("an entry no gate is missing at", true, |r| r.commit = r.targets[0].functions[1].commits().next()),
        ("a word and a function without gate", false, |r| {
            r.commit = Some(CommitRecord { at: commit_word(RemoteAddr(AT)), old: 0 });
        }),
        ("an entry that crosses a page", false, |r| {
            r.targets[0].functions[1].entry = RemoteAddr(0x5ffd);
            r.commit = r.targets[0].functions[1].commits().next();
        }),
        ("a gate outside the code", true, |r| {
            r.targets[0].functions[0].gate.as_mut().expect("gated").at = RemoteAddr(AT + 0x2000);
        }),
        ("a gate that ends outside", true, |r| {
            r.targets[0].functions[0].gate.as_mut().expect("gated").len = u64::MAX;
        }),
        ("a gate jump of another length", true, |r| {
            r.targets[0].functions[0].gate.as_mut().expect("gated").jump.push(0);
        }),
        ("a gate jump that is the old code", true, |r| {
            r.targets[0].functions[0].gate.as_mut().expect("gated").jump = vec![1, 2, 3, 4, 5];
        }),
    ];
    for both in [true, false] {
        assert!(matches!(decode(&at(page(&gated(both))), RemoteAddr(AT)), Ok(Some(_))), "{both}");
    }
    for (name, both, spoil) in cases {
        let mut bad = gated(both);
        spoil(&mut bad);
        assert!(decode(&at(page(&bad)), RemoteAddr(AT)).is_err(), "{name}");
    }
}

#[test]
fn live_bytes_decide() {
    let (old, jump): (&[u8], &[u8]) = (&[1, 2, 3], &[4, 5, 6]);
    let live = |f: &[u8], g: &[u8]| {
        let mut memory = Pieces::default();
        memory.put(0x5000, f);
        memory.put(0x5100, g);
        record().live(&memory).expect("a sound record")
    };
    assert_eq!(live(old, old), Live::Old);
    assert_eq!(live(jump, jump), Live::New);
    assert_eq!(live(jump, old), Live::Mixed);
    assert_eq!(live(old, &[0xcc, 2, 3]), Live::Foreign { function: "g".into(), at: RemoteAddr(0x5100) });
}

#[test]
fn scan_looks_at_every_page() {
    let mut bytes = vec![0; 0x1000];
    bytes.extend(page(&record()));
    let mut memory = Pieces::default();
    memory.put(AT - 0x1000, bytes);
    let found = scan(&memory, [AT - 0x1000..AT + 0x1000, 0x900000..0x901000]).expect("a sound record");
    assert_eq!(found.len(), 1);
}

#[test]
fn records_about_the_same_memory_are_refused() {
    let shifted = |at: u64| {
        let mut record = record();
        record.targets[0].areas.iter_mut().for_each(|a| a.start = a.start.plus(at - AT));
        record.targets[0].frames = None;
        record.targets[0].functions.iter_mut().for_each(|f| f.new = f.new.plus(at - AT));
        record
    };
    let scanned = |second: u64, spoil: fn(&mut Record)| {
        let mut memory = at(page(&record()));
        let mut other = shifted(second);
        spoil(&mut other);
        memory.put(second, page(&other));
        scan(&memory, [AT..AT + 0x1000, second..second + 0x1000])
    };
    assert_eq!(scanned(AT + 0x3000, |_| ()).expect("side by side").len(), 2);
    assert!(scanned(AT + 0x2000, |_| ()).is_err(), "in the data of the other");
    let far: fn(&mut Record) = |r| r.targets[0].areas[2].len = (1 << 30) - 0x3000;
    assert!(scanned(AT + 0x3000, far).is_err(), "each within bounds, and together too large");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), flip in 16usize..100) {
        let mut page = MAGIC.to_vec();
        page.extend(VERSION.to_le_bytes());
        page.extend(&bytes);
        let _ = decode(&at(page), RemoteAddr(AT));
        let mut page = self::page(&record());
        for (i, b) in bytes.iter().take(8).enumerate() {
            page[flip + i] ^= b;
        }
        let _ = decode(&at(page), RemoteAddr(AT));
    }
}

/// Memory of a machine whose pages have that size.
struct Paged(Pieces, u64);

impl Memory for Paged {
    fn read(&self, at: RemoteAddr, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read(at, buf)
    }

    fn page(&self) -> u64 {
        self.1
    }
}

#[test]
fn a_registry_is_counted_in_the_pages_of_its_machine() {
    const HOME: u64 = 0x100_0000;
    for size in [4096, 16384, 65536] {
        let spaced = |record: &mut Record, home: u64, by: u64| {
            for (area, n) in record.targets[0].areas.iter_mut().zip(0u64..) {
                (area.start, area.len) = (RemoteAddr(home + n * by), by);
            }
            record.targets[0].frames = Some((RemoteAddr(home + 0x800), 64));
            record.targets[0].functions.iter_mut().for_each(|f| f.new = RemoteAddr(home + by));
        };
        let found = |home: u64, by: u64| {
            let mut record = record();
            spaced(&mut record, home, by);
            let mut pieces = Pieces::default();
            let first = HOME - size;
            let mut bytes = vec![0; (home - first) as usize];
            bytes.extend(encode(&record, State::Applied, 7).expect("encodes"));
            bytes.resize(bytes.len().next_multiple_of(size as usize), 0);
            let mapping = first..first + bytes.len() as u64;
            pieces.put(first, bytes);
            scan(&Paged(pieces, size), [mapping])
        };
        assert_eq!(found(HOME, size).expect("as it was written").len(), 1, "{size}");
        assert_eq!(found(HOME, 4 * size).expect("larger areas").len(), 1, "{size}");
        // Two areas in one page cannot have two kinds of protection.
        assert!(found(HOME, size / 2).is_err(), "{size}");
        assert!(found(HOME, size + size / 2).is_err(), "{size}");
        // No patch's memory begins in the middle of a page.
        assert!(found(HOME + size / 2, size).expect("nothing is there").is_empty(), "{size}");
    }
}
