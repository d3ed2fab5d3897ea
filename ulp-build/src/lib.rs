// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes a live patch from two source trees. A one-way street:
//! request -> trees -> compile -> objects -> diff -> select -> resolve -> check -> package.
#![forbid(unsafe_code)]

pub mod capture;
pub mod check;
pub mod cli;
pub mod compile;
pub mod diff;
pub mod emit;
pub mod entries;
pub mod explain;
pub mod identity;
pub mod indirect;
pub mod linesync;
pub mod linkmap;
pub mod model;
pub mod object;
pub mod package;
pub mod producer;
pub mod production;
pub mod progress;
pub mod proof;
pub mod report;
pub mod reproduce;
pub mod resolve;
pub mod select;
pub mod trees;
pub mod types;
pub mod work;

use anyhow::Context;
use model::{Request, Stop};
use package::Outcome;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

/// What a request came to.
#[derive(Debug)]
pub struct Made {
    pub built: model::Built,
    pub summary: package::Summary,
    /// Functions and data of the recompiled units that the fix takes away.
    pub gone: Vec<String>,
}

/// The whole street.
pub fn make(request: &Request, progress: &progress::Progress) -> Result<Made, Stop> {
    let orig = request.orig.canonicalize()?;
    let command = match &request.build {
        Some(command) => command.clone(),
        None => {
            let found = compile::build::detect(&orig, request.jobs)?;
            progress.note(&format!("found {}: building with `{}`", found.by, found.command));
            found.command
        }
    };
    let seen = request.build_path.as_deref().unwrap_or(&orig);
    let work = work::Work::open(request, &command, seen)?;
    compile::both_trees(request, &command, &work, progress, |built, again| {
        progress.stage("comparing the objects");
        let mut diffs = diff::compare_units(&built.units);
        progress.stage("making the package");
        let mut outcome = package::package(request, &built, &diffs).map_err(anyhow::Error::new)?;
        if let Outcome::Refused(refusals) = &outcome {
            let (flags, apart) = other_ways(&built, refusals)?;
            if let Some(other) = indirect::through_slots(&built.units, &diffs, refusals, &flags, apart, again) {
                let second = package::package(request, &built, &other).map_err(anyhow::Error::new)?;
                // What the first compile was refused for is the better reason.
                if matches!(second, Outcome::Package(..)) {
                    (outcome, diffs) = (second, other);
                }
            }
        }
        if let Some(function) = &request.explain {
            progress.say(explain::explain(&built, &diffs, function).trim_end());
        }
        match outcome {
            Outcome::NoChange(why) => Err(Stop::NoChange(vec![why])),
            Outcome::Refused(refusals) => Err(Stop::Refused(refusals)),
            Outcome::Package(package, summary) => {
                write(&request.output, &package.write().map_err(anyhow::Error::new)?)?;
                let gone: BTreeSet<String> = diffs.iter().flat_map(|d| diff::DiffReport::from(d).gone).collect();
                Ok(Made { built, summary, gone: gone.into_iter().collect() })
            }
        }
    })
}

/// Flags for another compile of each unit's fixed side, with which what was refused may be possible; and whether they take data
/// apart.
fn other_ways(built: &model::Built, refusals: &[model::Refusal]) -> anyhow::Result<(Vec<Vec<&'static str>>, bool)> {
    let none = || (vec![Vec::new(); built.units.len()], false);
    let arch = built.links.first().map(|link| identity::architecture(&link.rebuilt)).transpose()?.flatten();
    let Some(arch) = arch else { return Ok(none()) };
    let apart = !arch.apart_flags().is_empty() && refusals.iter().any(indirect::may_be_apart);
    let unresolved = refusals.iter().any(|r| r.code == model::Code::Unresolved);
    let mut libraries = Vec::new();
    for link in &built.links {
        if identity::is_library(&link.rebuilt)? {
            libraries.push(link);
        }
    }
    // A library's code reaches foreign data through slots anyway, and its own where another file may have it in its stead: what
    // a program is compiled with would take that away.
    let in_library = |unit: &model::Unit| {
        let has = |link: &&model::LinkedElf| {
            let digest = unit.pristine_digest.as_ref();
            let old = digest.is_some_and(|digest| link.inputs.values().any(|input| input == digest));
            old || digest.is_none()
        };
        libraries.iter().any(has)
    };
    let flags_of = |unit| {
        let apart_flags = if apart { arch.apart_flags() } else { &[] };
        let slot_flags = if unresolved && !in_library(unit) { arch.slot_flags() } else { &[] };
        [apart_flags, slot_flags].concat()
    };
    Ok((built.units.iter().map(flags_of).collect(), apart))
}

/// Writes the package, whole or not at all.
fn write(output: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", output.display());
    let directory = output.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .with_context(cannot)?;
    file.write_all(bytes).with_context(cannot)?;
    file.persist(output).with_context(cannot)?;
    Ok(())
}
