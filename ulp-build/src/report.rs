// SPDX-License-Identifier: GPL-2.0-or-later
//! What people and programs get to read at the end. Results go to standard output, complaints to standard error; a
//! closed pipe is no error.

use crate::Made;
use crate::diff::DiffReport;
use crate::model::{ChangedFile, Refusal, Request, Stop};
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};
use std::io::Write;

/// Tells how it ended.
pub fn result(request: &Request, result: &Result<Made, Stop>, as_json: bool, verbose: bool) {
    let text = if as_json { format!("{:#}\n", to_json(request, result)) } else { to_text(request, result, verbose) };
    let _ = std::io::stdout().write_all(text.as_bytes());
    let mut complaints = String::new();
    match result {
        Ok(made) => {
            for warning in &made.summary.warnings {
                complaints.push_str(&format!("warning: {warning}\n"));
            }
        }
        Err(Stop::NoChange(_)) => {}
        Err(Stop::Refused(refusals)) => {
            complaints.push_str(&complain(refusals));
        }
        Err(Stop::Failed(error)) => complaints.push_str(&format!("error: {error:#}\n")),
    }
    let _ = std::io::stderr().write_all(complaints.as_bytes());
}

fn to_text(request: &Request, result: &Result<Made, Stop>, verbose: bool) -> String {
    match result {
        Ok(made) => summary(request, made, verbose),
        Err(Stop::NoChange(why)) => format!("no change: {}\n", why.join("; ")),
        Err(_) => String::new(),
    }
}

fn summary(request: &Request, made: &Made, verbose: bool) -> String {
    let mut out = String::new();
    for target in &made.summary.targets {
        out.push_str(&format!("target {} build-id {}\n", target.file, target.build_id));
        for function in &target.functions {
            let reason = function.reason.map(|r| format!(" ({})", serde_json::json!(r).as_str().unwrap_or_default()));
            let (name, source) = (&function.name, function.source.display());
            out.push_str(&format!("changed {name} {source}{}\n", reason.unwrap_or_default()));
        }
        for name in &target.carried {
            out.push_str(&format!("new {name}\n"));
        }
    }
    for name in &made.gone {
        out.push_str(&format!("gone {name}\n"));
    }
    let mut files: Vec<&ChangedFile> = made.built.changed_files.iter().collect();
    files.retain(|file| !made.built.unread.contains(&file.path));
    for file in &files {
        let (added, removed) = lines(file);
        out.push_str(&format!("file {} +{added} -{removed}\n", file.path.display()));
    }
    if verbose {
        for path in &made.built.unread {
            out.push_str(&format!("not part of the build {}\n", path.display()));
        }
        for file in files {
            out.push_str(&source_diff(file));
        }
    }
    out.push_str(&format!("written {}\n", request.output.display()));
    out
}

/// Shows what two objects differ in.
pub fn objects(report: &DiffReport, as_json: bool) {
    let mut out = String::new();
    if as_json {
        out = format!("{:#}\n", json!(report));
    } else {
        for (what, names) in [("changed", &report.changed), ("new", &report.new), ("gone", &report.gone)] {
            for name in names {
                out.push_str(&format!("{what} {name}\n"));
            }
        }
        if out.is_empty() && report.refusals.is_empty() {
            out.push_str("same\n");
        }
    }
    let mut complaints: String = report.warnings.iter().map(|w| format!("warning: {w}\n")).collect();
    complaints.push_str(&complain(&report.refusals));
    let _ = std::io::stderr().write_all(complaints.as_bytes());
    let _ = std::io::stdout().write_all(out.as_bytes());
}

/// All refusals, each with its advice.
fn complain(refusals: &[Refusal]) -> String {
    refusals.iter().map(|r| format!("error[{}]: {}\n  {}\n", r.code, r.message, r.advice)).collect()
}

/// Lines added and removed.
fn lines(file: &ChangedFile) -> (usize, usize) {
    let (old, new) = (file.old.as_deref().unwrap_or_default(), file.new.as_deref().unwrap_or_default());
    let diff = TextDiff::from_lines(old, new);
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    (count(ChangeTag::Insert), count(ChangeTag::Delete))
}

fn source_diff(file: &ChangedFile) -> String {
    let (Some(old), Some(new)) = (&file.old, &file.new) else { return String::new() };
    let name = file.path.display();
    TextDiff::from_lines(old, new).unified_diff().header(&format!("a/{name}"), &format!("b/{name}")).to_string()
}

fn to_json(request: &Request, result: &Result<Made, Stop>) -> Value {
    match result {
        Ok(made) => {
            let files: Vec<Value> = made
                .built
                .changed_files
                .iter()
                .map(|file| {
                    let (added, removed) = lines(file);
                    let built = !made.built.unread.contains(&file.path);
                    json!({"path": file.path, "added": added, "removed": removed, "built": built})
                })
                .collect();
            let units: Vec<_> = made.built.units.iter().map(|unit| &unit.source).collect();
            let targets = &made.summary.targets;
            let changed: Vec<&str> = targets.iter().flat_map(|t| &t.functions).map(|f| f.name.as_str()).collect();
            let new: Vec<&str> = targets.iter().flat_map(|t| &t.carried).map(String::as_str).collect();
            json!({
                "schema": 1, "result": "package", "changed": changed, "new": new, "gone": made.gone, "name": request.name, "output": request.output,
                "files": files, "units": units, "compiler": made.built.compiler, "targets": made.summary.targets, "warnings": made.summary.warnings,
            })
        }
        Err(Stop::NoChange(why)) => {
            json!({"schema": 1, "result": "no-change", "reasons": why, "changed": [], "new": [], "gone": []})
        }
        Err(Stop::Refused(refusals)) => json!({"schema": 1, "result": "refused", "refusals": refusals}),
        Err(Stop::Failed(error)) => json!({"schema": 1, "result": "failed", "message": format!("{error:#}")}),
    }
}
