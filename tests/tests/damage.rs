// SPDX-License-Identifier: GPL-2.0-or-later
//! Damaged packages through the reader: a real package, made by `ulp-build`, with every byte flipped, cut and lengthened
//! everywhere, and mutated with and without a digest that holds. `ULP_LONG=1` makes a million mutations.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use ulp_format::{Package, ReadError};
use ulp_tests::case::Case;
use ulp_tests::ensure_that;
use ulp_tests::mutate::{Random, Specimen, how_many};

/// Packages that have between them gates, constants, tables with relocations, new variables, slots, imports and thread-local variables.
const CASES: [&str; 5] = [
    "two-functions-in-one-fix",
    "static-const-function-table-changed",
    "initialised-statics-added",
    "import-never-used-before",
    "tls-variable-of-library-read",
];

/// No single read takes as long, however slow the machine; a longer one is a hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn specimens() -> Result<&'static [Specimen]> {
    static MADE: OnceLock<Result<Vec<Specimen>, String>> = OnceLock::new();
    let make = |name: &&str| -> Result<Specimen> {
        let case = Case::named(name)?;
        Specimen::new(std::fs::read(case.build_package()?)?).context(name.to_string())
    };
    let all = MADE.get_or_init(|| CASES.iter().map(make).collect::<Result<_>>().map_err(|e| format!("{e:#}")));
    all.as_deref().map_err(|e| anyhow::anyhow!("{e}"))
}

#[test]
fn every_flipped_byte_of_a_real_package_is_refused() -> Result<()> {
    for (name, specimen) in CASES.iter().zip(specimens()?) {
        let mut file = specimen.bytes.clone();
        Package::read(&file).with_context(|| format!("{name} itself"))?;
        for at in 0..file.len() {
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                file[at] ^= flip;
                ensure_that!(Package::read(&file).is_err(), "{name}: byte {at:#x} ^ {flip:#x} was not noticed");
                file[at] ^= flip;
            }
        }
        ensure_that!(file == specimen.bytes, "every flip was undone");
        println!("{name}: {} bytes, 9 flips each, all refused", file.len());
    }
    Ok(())
}

#[test]
fn every_truncation_and_extension_of_a_real_package_is_refused() -> Result<()> {
    for (name, specimen) in CASES.iter().zip(specimens()?) {
        let file = &specimen.bytes;
        for len in 0..file.len() {
            ensure_that!(Package::read(&file[..len]).is_err(), "{name}: its first {len} bytes were enough");
        }
        for more in 1..=256 {
            let zeroes = [&file[..], &vec![0; more]].concat();
            ensure_that!(Package::read(&zeroes).is_err(), "{name}: {more} zeroes at its end were not noticed");
            let own = [&file[..], &file[..more]].concat();
            ensure_that!(Package::read(&own).is_err(), "{name}: {more} bytes of its own at its end were not noticed");
            let before = [&file[..more], &file[..]].concat();
            ensure_that!(Package::read(&before).is_err(), "{name}: {more} bytes before it were not noticed");
        }
        ensure_that!(Package::read(&[&file[..], &file[..]].concat()).is_err(), "{name} twice is not {name}");
    }
    Ok(())
}

/// The fuzz target begins with real packages. They are kept in the repository, so that it needs no compiler for them;
/// `ULP_RENEW_SEEDS=1` writes them anew when the format has changed.
#[test]
fn the_seeds_of_the_fuzz_target_are_packages_of_today() -> Result<()> {
    let seeds = ulp_tests::tools::repository().join("ulp-format/fuzz/seeds");
    if std::env::var_os("ULP_RENEW_SEEDS").is_some_and(|v| v == "1") {
        for (name, specimen) in CASES.iter().zip(specimens()?) {
            std::fs::write(seeds.join(name).with_extension("ulp"), &specimen.bytes)?;
        }
    }
    for name in CASES {
        let seed = seeds.join(name).with_extension("ulp");
        let bytes = std::fs::read(&seed).with_context(|| seed.display().to_string())?;
        let package = Package::read(&bytes).with_context(|| format!("{name}; ULP_RENEW_SEEDS=1 makes it anew"))?;
        ensure_that!(
            package.write()? == bytes,
            "{name} is not what would be written today; ULP_RENEW_SEEDS=1 makes it anew"
        );
    }
    Ok(())
}

/// What became of a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Read {
    Refused,
    /// The file differs where the reader does not look, and the package is the same.
    Same,
    /// Another text, or another judgement of the packager; the code and where it goes are the same.
    OtherWords,
    /// Another patch, that keeps every rule: whoever can write a true digest could have built it. What it says about
    /// the process is for `ulp-apply` to compare.
    OtherPatch,
}

/// Reads a mutation; what was accepted must keep every rule, and come back through the writer.
fn read(original: &Package, bytes: &[u8]) -> Result<Read> {
    let package = match Package::read(bytes) {
        Ok(package) => package,
        Err(ReadError::NotAPackage(_) | ReadError::Damaged(_) | ReadError::Newer { .. }) => return Ok(Read::Refused),
    };
    let again = package.write().context("what was read keeps the rules of writing")?;
    ensure_that!(Package::read(&again)? == package, "what was written again reads as something else");
    if package == *original {
        return Ok(Read::Same);
    }
    Ok(if words_of(&package, original) == *original { Read::OtherWords } else { Read::OtherPatch })
}

/// The package with the texts and judgements of another one, which do not decide what code runs.
fn words_of(package: &Package, other: &Package) -> Package {
    let (mut package, m) = (package.clone(), &other.manifest);
    let own = &mut package.manifest;
    own.name.clone_from(&m.name);
    own.description.clone_from(&m.description);
    own.cves.clone_from(&m.cves);
    own.tool.clone_from(&m.tool);
    own.compiler.clone_from(&m.compiler);
    own.accepted.clone_from(&m.accepted);
    own.warnings.clone_from(&m.warnings);
    for (own, other) in own.targets.iter_mut().zip(&m.targets) {
        own.file.clone_from(&other.file);
        own.identity = other.identity;
        for (own, other) in own.functions.iter_mut().zip(&other.functions) {
            own.name.clone_from(&other.name);
            own.source.clone_from(&other.source);
            own.ranges.iter_mut().zip(&other.ranges).for_each(|(own, other)| own.name.clone_from(&other.name));
        }
    }
    package
}

/// The most memory this process has asked for so far, in bytes.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).context("VmPeak")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Makes `count` mutations and reads them all; a read that does not end, panics or takes much memory fails.
fn mutate(
    count: usize,
    mutation: impl Fn(&Specimen, &mut Random) -> (Vec<u8>, Vec<String>) + Send + 'static,
) -> Result<BTreeMap<Read, usize>> {
    const MUCH: u64 = 512 << 20;
    let specimens = specimens()?;
    let originals = specimens.iter().map(|s| Ok(Package::read(&s.bytes)?)).collect::<Result<Vec<_>>>()?;
    let (sender, results) = channel();
    let reader = std::thread::spawn(move || -> Result<()> {
        let before = peak()?;
        for number in 0..count {
            let (specimen, original) = (&specimens[number % specimens.len()], &originals[number % originals.len()]);
            let (bytes, done) = mutation(specimen, &mut Random::new(number as u64));
            let what = || format!("mutation {number} of {}: {done:?}", CASES[number % CASES.len()]);
            let read = read(original, &bytes).with_context(what)?;
            if number % 64 == 0 {
                let grown = peak()?.saturating_sub(before);
                ensure_that!(grown < MUCH, "{grown} more bytes of memory after {}", what());
            }
            if sender.send((read, done)).is_err() {
                break;
            }
        }
        Ok(())
    });
    let mut tally = BTreeMap::new();
    let mut shown = BTreeMap::<Read, usize>::new();
    loop {
        match results.recv_timeout(PATIENCE) {
            Ok((read, done)) => {
                *tally.entry(read).or_default() += 1;
                let examples = shown.entry(read).or_default();
                if read != Read::Refused && *examples < 12 {
                    *examples += 1;
                    println!("{read:?}: {}", done.join(", "));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                anyhow::bail!("a read does not end: number {}", tally.values().sum::<usize>())
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked: number {}", tally.values().sum::<usize>()))??;
    ensure_that!(tally.values().sum::<usize>() == count, "only {tally:?} of {count}");
    println!("{count} mutations: {tally:?}");
    Ok(tally)
}

#[test]
fn mutations_that_the_digest_guards_are_all_refused() -> Result<()> {
    let tally = mutate(how_many(20_000, 1_000_000), |specimen, random| (specimen.damaged(random), vec![]))?;
    ensure_that!(
        tally.keys().all(|read| *read == Read::Refused),
        "accepted under a digest that does not hold: {tally:?}"
    );
    Ok(())
}

#[test]
fn mutations_under_a_true_digest_keep_every_rule_or_are_refused() -> Result<()> {
    let tally = mutate(how_many(20_000, 1_000_000), |specimen, random| {
        let forged = specimen.forged(random);
        (forged.bytes, forged.done)
    })?;
    // Both sides must have been reached, or the mutations say nothing about the rules behind the digest.
    for read in [Read::Refused, Read::OtherWords, Read::OtherPatch] {
        ensure_that!(tally.contains_key(&read), "no mutation was {read:?}: {tally:?}");
    }
    Ok(())
}
