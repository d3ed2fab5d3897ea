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
pub mod identity;
pub mod linesync;
pub mod linkmap;
pub mod model;
pub mod object;
pub mod package;
pub mod production;
pub mod progress;
pub mod report;
pub mod reproduce;
pub mod resolve;
pub mod select;
pub mod trees;
pub mod types;
pub mod work;

/// What a request came to.
#[derive(Debug)]
pub struct Made {
    pub built: model::Built,
}

/// The whole street.
pub fn make(request: &model::Request, progress: &progress::Progress) -> Result<Made, model::Stop> {
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
    let built = compile::both_trees(request, &command, &work, progress)?;
    Ok(Made { built })
}
