// SPDX-License-Identifier: GPL-2.0-or-later
//! How long the comparison of objects takes: reading both sides and diffing them, in this process.
//!
//! `cargo bench -p ulp-build --bench objects -- ORIG FIX` compares two objects, or all objects of two trees that have the same path.
//! Without arguments it makes some: 1,250, 2,500 and 5,000 of them, one of which changed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use ulp_build::diff::{DiffReport, Input, compare_units, diff_inputs};
use ulp_build::model::{Language, Unit};

const RUNS: usize = 11;

fn main() {
    let given: Vec<PathBuf> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    println!("| what | objects | bytes | median ms | best ms | peak MB | changed |\n|---|---|---|---|---|---|---|");
    match given.as_slice() {
        [orig, fix] if orig.is_file() => pair(orig, fix),
        [orig, fix] => {
            let mut files = Vec::new();
            objects(orig, orig, &mut files);
            let pairs =
                files.iter().map(|f| (orig.join(f), fix.join(f))).filter(|(_, f)| f.exists()).collect::<Vec<_>>();
            many(&orig.display().to_string(), &pairs);
        }
        _ => generated(),
    }
}

/// Peak memory of this process so far, in MB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1024
}

fn row(what: &str, objects: usize, bytes: u64, mut times: Vec<Duration>, changed: usize) {
    times.sort();
    let ms = |t: Duration| t.as_secs_f64() * 1000.0;
    let (median, best) = (ms(times[times.len() / 2]), ms(times[0]));
    println!("| {what} | {objects} | {bytes} | {median:.1} | {best:.1} | {} | {changed} |", peak());
}

/// Without types, as an object is compared that was compiled without -g; then as it is.
fn pair(orig: &Path, fix: &Path) {
    let mut times = Vec::new();
    let (mut changed, mut bytes) = (0, 0);
    for _ in 0..RUNS {
        let start = Instant::now();
        let (old, new) = (std::fs::read(orig).expect("an object"), std::fs::read(fix).expect("an object"));
        let report = diff_inputs(Input { path: orig, bytes: &old }, Input { path: fix, bytes: &new });
        times.push(start.elapsed());
        (changed, bytes) = (report.changed.len(), (old.len() + new.len()) as u64);
    }
    row(&orig.file_name().unwrap_or_default().to_string_lossy(), 1, bytes, times, changed);
}

fn many(what: &str, pairs: &[(PathBuf, PathBuf)]) {
    let unit = |(orig, fix): &(PathBuf, PathBuf)| Unit {
        source: orig.clone(),
        language: Language::C,
        exceptions: false,
        pristine: None,
        pristine_digest: None,
        orig: Some(orig.clone()),
        fix: Some(fix.clone()),
        fixed_link_names: Vec::new(),
    };
    let units: Vec<Unit> = pairs.iter().map(unit).collect();
    let size = |path: &Path| path.metadata().map_or(0, |m| m.len());
    let bytes = pairs.iter().map(|(a, b)| size(a) + size(b)).sum();
    let (mut times, mut changed) = (Vec::new(), 0);
    for _ in 0..RUNS {
        let start = Instant::now();
        let diffs = compare_units(&units);
        times.push(start.elapsed());
        changed = diffs.iter().map(|d| DiffReport::from(d).changed.len()).sum();
    }
    row(what, pairs.len(), bytes, times, changed);
}

fn objects(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            objects(root, &path, found);
        } else if path.extension().is_some_and(|e| e == "o") {
            found.extend(path.strip_prefix(root).map(Path::to_path_buf));
        }
    }
}

fn generated() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = |k: usize| {
        let function = |i: usize| format!("int f{i}(int x) {{ static int n; return n += x * {i} + {k}; }}\n");
        (0..40).map(function).collect::<String>()
    };
    let make = |name: &str, k: usize| {
        let (source, object) = (dir.path().join(format!("{name}.c")), dir.path().join(format!("{name}.o")));
        std::fs::write(&source, text(k)).expect("a source");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-g", "-ffunction-sections", "-fdata-sections", "-c"]).arg(&source).arg("-o").arg(&object);
        assert!(gcc.status().expect("gcc").success());
        object
    };
    let (before, after) = (make("before", 3), make("after", 4));
    for count in [1250, 2500, 5000] {
        let copies = dir.path().join(count.to_string());
        std::fs::create_dir(&copies).expect("a directory");
        let pairs: Vec<(PathBuf, PathBuf)> = (0..count)
            .map(|i| {
                let (a, b) = (copies.join(format!("{i}a.o")), copies.join(format!("{i}b.o")));
                std::fs::copy(&before, &a).expect("a copy");
                std::fs::copy(if i == count / 2 { &after } else { &before }, &b).expect("a copy");
                (a, b)
            })
            .collect();
        many("generated, one changed", &pairs);
    }
}
