// SPDX-License-Identifier: GPL-2.0-or-later
//! From a request to a [`Built`]: the pristine build under watch, the files it linked, what the fix touches of them, and
//! those units compiled twice with sections of their own. A fix to files that only compilers read needs no second
//! build; anything else gets one, because nobody can say what a changed Makefile or generator does.

pub mod build;
mod classify;
pub mod place;
mod recompile;
mod renamed;
pub mod units;

use crate::capture::{Call, Store, Tool, args};
use crate::identity::{self, Candidate};
use crate::linesync;
use crate::linkmap;
use crate::model::{Built, ChangedFile, Code, FixSource, LinkedElf, Refusal, Request, Stop, Unit};
use crate::package::made_for;
use crate::progress::Progress;
use crate::trees::{self, Change, Difference};
use crate::work::Work;
use anyhow::{Context, Result, anyhow};
use place::Place;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use units::Compiled;

/// A build that is done and was watched.
struct Watched {
    place: Place,
    store: Store,
    calls: Vec<Call>,
    units: Vec<Compiled>,
}

/// A unit to recompile: as the original has it, as the fixed tree has it.
struct Pair<'a> {
    orig: Option<&'a Compiled>,
    fix: Option<&'a Compiled>,
    fixed_link_names: Vec<String>,
}

/// Compiles the fixed side of the unit of this index once more, with these flags too.
pub type Again<'a> = dyn Fn(usize, &[&str]) -> Result<PathBuf> + 'a;

/// Does it all, and hands it on. The work directory has to outlive the result, which points into it.
pub fn both_trees<T>(
    request: &Request,
    command: &str,
    work: &Work,
    progress: &Progress,
    then: impl FnOnce(Built, &Again<'_>) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let orig = request.orig.canonicalize().with_context(|| format!("cannot read {}", request.orig.display()))?;
    let mut warnings = Vec::new();

    progress.stage("comparing the trees");
    let fix = match &request.fix {
        FixSource::Tree(tree) => tree.canonicalize().with_context(|| format!("cannot read {}", tree.display()))?,
        FixSource::Patches(patches) => {
            let tree = work.run().join("patched");
            trees::copy(&orig, &tree)?;
            trees::apply_patches(&tree, patches)?;
            tree
        }
    };
    let differences = trees::differences(&orig, &fix)?;
    if differences.files.is_empty() {
        return Err(Stop::NoChange(vec!["the trees are the same".into()]));
    }

    let watched = pristine(request, &orig, command, work, progress, &mut warnings)?;
    let read_otherwise = units::read_for_other_ends(&watched.calls, &watched.units, &watched.place);
    let classes = classify::classify(&differences.files, &watched.units, &read_otherwise, &orig, &fix, |unit| {
        recompile::reads(unit, &watched.place, &work.run().join("reads"))
    })?;

    let again = if classes.build_again.is_empty() {
        None
    } else {
        let why = classes.build_again.first().map(|p| p.display().to_string()).unwrap_or_default();
        progress.stage(&format!("building the fixed tree too: {why} may change the build"));
        Some(second(&watched, &orig, &fix, command, work, &why)?)
    };
    let touched: Vec<Pair<'_>> = match &again {
        None => watched
            .units
            .iter()
            .filter(|unit| !unit.reads.is_disjoint(&classes.recompiled))
            .map(|unit| Pair { orig: Some(unit), fix: Some(unit), fixed_link_names: Vec::new() })
            .collect(),
        Some(again) => renamed::pair_up(pair(&watched, again), &watched.store, &again.store)?,
    };
    if touched.is_empty() {
        let paths: Vec<PathBuf> = differences.files.iter().map(|d| d.path.clone()).collect();
        let units = watched.units.iter().chain(again.iter().flat_map(|a| &a.units));
        let compiled = units.flat_map(|unit| &unit.reads).any(|read| paths.contains(read));
        // A changed Makefile was read, though not by a compiler; a file that is merely new was read by nobody.
        let built =
            differences.files.iter().any(|d| d.change == Change::Modified && classes.build_again.contains(&d.path));
        if let Some(name) = again.as_ref().and_then(|again| escaped(&watched, again)) {
            return Err(Refusal::new(
                Code::NotLinked,
                format!("{name} differs between the two builds, and no compiler or assembler that was seen made it"),
                "let the build call compiler, assembler and linker by their names, not by their paths",
            )
            .about(name)
            .into());
        }
        if compiled || built {
            return Err(Stop::NoChange(vec!["both builds compile to the same objects".into()]));
        }
        return Err(nothing_built(&paths).into());
    }

    progress.stage("proving which binary this is");
    let links = links(request, &watched, &touched, &mut warnings).or_else(|stop| {
        // A clock in the program is the better explanation why it is not what was built.
        if matches!(&stop, Stop::Refused(all) if all.iter().any(|r| r.code == Code::Identity)) {
            refuse_nondeterministic(watched.units.iter(), &watched.place, &[], work.run())?;
        }
        Err(stop)
    })?;
    if let Some(again) = &again {
        warnings.extend(other_link_options(&watched, again, &links));
    }
    let linked = linked_units(&watched, again.as_ref(), &links, touched)?;
    refuse_link_time_optimised(&linked)?;

    progress.count("recompiling", linked.len());
    let flags = section_flags(&links)?;
    let units = match &again {
        None => {
            refuse_nondeterministic(linked.iter().filter_map(|pair| pair.orig), &watched.place, flags, work.run())?;
            let old = compile_all(&linked, Side::Orig, &watched.place, flags, work.run(), request.jobs, progress)?;
            let swap = Swap::begin(&watched.place, work, &differences.files, &classes.recompiled, &orig, &fix)?;
            let new = compile_all(&linked, Side::Fix, &watched.place, flags, work.run(), request.jobs, progress);
            swap.end()?;
            finish(&watched, &linked, old, new?)
        }
        Some(again) => {
            let old = compile_all(&linked, Side::Orig, &watched.place, flags, work.run(), request.jobs, progress)?;
            for Difference { path, .. } in differences.files.iter().filter(|d| d.change == Change::Modified) {
                let to = again.place.real.join(path);
                if classify::is_preprocessed(path) && to.is_file() {
                    write_resynced(path, &orig, &fix, &to)?;
                }
            }
            resync_made(&linked, &differences.files, &watched.place.real, &again.place.real)?;
            let new = compile_all(&linked, Side::Fix, &again.place, flags, work.run(), request.jobs, progress)?;
            finish(&watched, &linked, old, new)
        }
    };
    progress.done();
    let built = Built {
        links,
        units,
        unread: classes.unread,
        changed_files: changed_files(&differences.files, &orig, &fix),
        compiler: compiler(&linked),
        warnings,
    };
    then(built, &|index, more| {
        let unit = linked.get(index).and_then(|pair| pair.fix).context("the unit is gone in the fixed tree")?;
        let flags = [flags, more].concat();
        let name = format!("{index}-again");
        match &again {
            None => {
                let swap = Swap::begin(&watched.place, work, &differences.files, &classes.recompiled, &orig, &fix)?;
                let made = recompile::recompile(unit, &watched.place, &flags, &[], work.run(), &name);
                swap.end()?;
                made
            }
            Some(again) => recompile::recompile(unit, &again.place, &flags, &[], work.run(), &name),
        }
    })
}

/// The flags of the recompile: those of the processor that the program is for, which need not be the one that this runs on.
fn section_flags(links: &[LinkedElf]) -> Result<&'static [&'static str], Stop> {
    let Some(link) = links.first() else { return Ok(&[]) };
    let arch = identity::architecture(&link.rebuilt)?;
    let arch = arch.filter(|arch| arch.supported()).ok_or_else(|| {
        let message = format!("{} is for a processor that is not supported yet", link.production.display());
        Stop::from(Refusal::new(Code::Arch, message, made_for()))
    })?;
    Ok(arch.section_flags())
}

/// The pristine build: the one in the work directory, or a new one.
fn pristine(
    request: &Request,
    orig: &Path,
    command: &str,
    work: &Work,
    progress: &Progress,
    warnings: &mut Vec<String>,
) -> Result<Watched, Stop> {
    let real = if request.in_place { orig.to_owned() } else { work.copy() };
    let seen = request.build_path.clone().unwrap_or_else(|| orig.to_owned());
    let mut place = Place { seen, real: real.clone(), private: Some(work.private()) };
    if work.is_complete() && !request.in_place {
        Swap::repair(work, &place.real)?;
        progress.note("the original is built already in the work directory");
    } else {
        work.begin()?;
        if !request.in_place {
            progress.stage("copying the original tree");
            trees::copy(orig, &real)?;
        }
    }
    fs::create_dir_all(work.private())?;
    if request.in_place {
        place = Place { seen: real.clone(), private: None, ..place };
    } else if let Err(why) = place.try_out() {
        if request.build_path.is_some() {
            return Err(no_namespace("--build-path needs a mount namespace", &why).into());
        }
        if let Some(file) = trees::mentions(&real, &[orig.to_owned()])? {
            let message = format!(
                "{} names the tree's own path, so that a copy elsewhere would use the original",
                file.display()
            );
            return Err(no_namespace(&message, &why).into());
        }
        log::debug!("no namespaces here: {why:#}");
        place = Place { seen: real.clone(), private: None, ..place };
    }
    let store = work.store();
    if !work.is_complete() {
        let store = Store::create(store.root(), &std::env::current_exe()?)?;
        let log = store.root().join("build.log");
        if let Some(note) = build::clean(&place, command, &log)? {
            progress.note(&note);
        }
        progress.stage(&format!("building the original: {command}"));
        build::run(&place, &store, command, &log)?;
    }
    let calls = store.calls()?;
    if !calls.iter().any(|c| c.tool == Tool::As && c.digest.is_some()) {
        return Err(Stop::Failed(anyhow!(
            "nothing was compiled by `{command}`\n  the build found everything up to date, or it uses another compiler than gcc; \
             give a command that builds everything with --build CMD"
        )));
    }
    if !work.is_complete() && !request.in_place {
        work.complete()?;
    }
    let units = units::of_build(&calls, &place);
    if calls.iter().any(|c| c.tool == Tool::OtherLinker && c.digest.is_some()) {
        warnings.push("some files were linked by another linker than GNU ld; they cannot be patched".into());
    }
    Ok(Watched { place, store, calls, units })
}

fn no_namespace(message: &str, why: &anyhow::Error) -> Refusal {
    Refusal::new(
        Code::NoNamespace,
        format!("{message}, and namespaces cannot be made here ({why:#})"),
        "run as root, allow user namespaces, or use --in-place inside a throw-away container",
    )
}

/// Builds the fixed tree at the original's place.
fn second(watched: &Watched, orig: &Path, fix: &Path, command: &str, work: &Work, why: &str) -> Result<Watched, Stop> {
    if watched.place.private.is_none() {
        return Err(Refusal::new(
            Code::NoNamespace,
            format!(
                "{why} may change the build, which then has to run again at the same path; that needs a mount namespace"
            ),
            "run as root, or allow user namespaces",
        )
        .into());
    }
    let real = work.run().join("fix");
    trees::copy(fix, &real)?;
    // A tree that was configured where it stood would lead the build back to the user's files.
    trees::rewrite_path(&real, fix, orig)?;
    let place = watched.place.with(&real);
    let store = Store::create(&work.run().join("fix-store"), &std::env::current_exe()?)?;
    let log = store.root().join("build.log");
    build::clean(&place, command, &log)?;
    build::run(&place, &store, command, &log)?;
    let calls = store.calls()?;
    let units = units::of_build(&calls, &place);
    Ok(Watched { place, store, calls, units })
}

/// Units of two builds that differ, by source, object name and order.
fn pair<'a>(orig: &'a Watched, fix: &'a Watched) -> Vec<Pair<'a>> {
    let mut by_key: BTreeMap<_, (Vec<&Compiled>, Vec<&Compiled>)> = BTreeMap::new();
    for unit in &orig.units {
        by_key.entry(unit.key()).or_default().0.push(unit);
    }
    for unit in &fix.units {
        by_key.entry(unit.key()).or_default().1.push(unit);
    }
    let mut pairs = Vec::new();
    for (old, new) in by_key.into_values() {
        for i in 0..old.len().max(new.len()) {
            let (old, new) = (old.get(i).copied(), new.get(i).copied());
            if old.map(|u| &u.digest) == new.map(|u| &u.digest) {
                continue;
            }
            pairs.push(Pair { orig: old, fix: new, fixed_link_names: Vec::new() });
        }
    }
    pairs
}

/// Warnings of targets that the fixed tree links with other options: nothing of that reaches a process that is linked already.
fn other_link_options(orig: &Watched, fix: &Watched, links: &[LinkedElf]) -> Vec<String> {
    let options = |watched: &Watched, name: &OsStr| -> BTreeSet<String> {
        let links = watched.calls.iter().filter(|c| c.tool == Tool::Ld && c.digest.is_some());
        let target = links.filter(|c| c.output.as_deref().and_then(Path::file_name) == Some(name));
        // The driver's own plugin options name temporary files, and objects are compared for themselves.
        let words = target.flat_map(|c| &c.args).filter(|a| a.starts_with('-') && !a.starts_with("-plugin"));
        words.cloned().collect()
    };
    let mut warnings = Vec::new();
    for name in links.iter().filter_map(|l| l.rebuilt.file_name()) {
        let (old, new) = (options(orig, name), options(fix, name));
        let changed: Vec<&str> = old.symmetric_difference(&new).map(String::as_str).collect();
        if !new.is_empty() && !changed.is_empty() {
            let name = name.to_string_lossy();
            warnings.push(format!(
                "the fixed tree links {name} with other options ({}); a patch cannot bring that about",
                changed.join(" ")
            ));
        }
    }
    warnings
}

fn nothing_built(unread: &[PathBuf]) -> Refusal {
    let names: Vec<String> = unread.iter().take(5).map(|p| p.display().to_string()).collect();
    let more = if unread.len() > 5 { format!(" and {} more", unread.len() - 5) } else { String::new() };
    Refusal::new(
        Code::NothingBuilt,
        format!("nothing that differs was read by the build: {}{more}", names.join(", ")),
        "check that --build CMD builds the part which the fix is for, and from clean",
    )
}

/// The production files, and what the build linked for each.
fn links(
    request: &Request,
    watched: &Watched,
    touched: &[Pair<'_>],
    warnings: &mut Vec<String>,
) -> Result<Vec<LinkedElf>, Stop> {
    let linked: Vec<(&Call, Candidate)> = watched
        .calls
        .iter()
        .filter(|c| c.tool == Tool::Ld && c.success && !c.relocatable)
        .filter_map(|call| {
            let (digest, output) = (call.digest.as_ref()?, call.output.as_ref()?);
            let kept = watched.store.linked(digest, output);
            Some((call, Candidate { output: output.clone(), kept }))
        })
        .collect();
    let mut chosen: Vec<(&Call, PathBuf, PathBuf, ulp_format::Identity)> = Vec::new();
    if request.targets.is_empty() {
        let digests: BTreeSet<&str> = touched.iter().filter_map(|p| Some(p.orig?.digest.as_str())).collect();
        let mut seen = BTreeSet::new();
        let mut programs = Vec::new();
        for (call, candidate) in &linked {
            let touches = call.inputs.iter().any(|input| digests.contains(input.digest.as_str()));
            // What configure scripts tried out is gone by now.
            let stays = watched.place.real(&candidate.output).exists();
            if !touches || !stays || !seen.insert(call.digest.clone()) {
                continue;
            }
            let facts = identity::read(&candidate.kept)?;
            if facts.build_id.is_none() {
                return Err(identity::no_build_id(&candidate.output).into());
            }
            if !is_library(call) {
                programs.push(candidate.output.display().to_string());
            }
            chosen.push((call, candidate.kept.clone(), candidate.kept.clone(), ulp_format::Identity::SameBuildId));
        }
        if programs.len() > 1 {
            return Err(Stop::Failed(anyhow!(
                "the fix touches {} programs: {}\n  choose the one that runs with --target FILE; a patch is for one program and its libraries",
                programs.len(),
                programs.join(", ")
            )));
        }
    } else {
        identity::check_debuginfo(&request.debuginfo, &request.targets)?;
        let (calls, candidates): (Vec<&Call>, Vec<Candidate>) = linked.into_iter().unzip();
        for target in &request.targets {
            let found = identity::identify(target, &candidates);
            let (candidate, identity) = match found {
                Err(stop) if matches!(&stop, Stop::Refused(_)) && candidates.is_empty() => {
                    return Err(other_linker(watched, target).map_or(stop, Stop::from));
                }
                found => found?,
            };
            let at = candidates.iter().position(|c| std::ptr::eq(c, candidate)).and_then(|i| calls.get(i));
            let call = at.context("a candidate comes from a call")?;
            chosen.push((call, target.clone(), candidate.kept.clone(), identity));
        }
    }
    if chosen.is_empty()
        && let Some(refusal) = other_linker(watched, Path::new("the program"))
    {
        return Err(refusal.into());
    }
    chosen
        .into_iter()
        .map(|(call, production, rebuilt, identity)| {
            let digest = call.digest.as_deref().context("a link has an output")?;
            let mut inputs: BTreeMap<String, String> = BTreeMap::new();
            for input in &call.inputs {
                let old = inputs.insert(input.name.clone(), input.digest.clone());
                if old.is_some_and(|old| old != input.digest) {
                    // Two members of one archive with one name: the link map cannot tell them apart, so neither counts.
                    warnings.push(format!("{} stands for two different objects", input.name));
                    inputs.insert(input.name.clone(), String::new());
                }
            }
            let libraries = call
                .libraries
                .iter()
                .map(|path| watched.place.real(path))
                .filter(|path| matches!(trees::is_binary(path), Ok(Some(trees::Binary::Linked))))
                .collect::<Vec<_>>();
            let partial = take_in_partial_links(watched, &mut inputs);
            let kept = |(name, digest): (&String, &String)| {
                Some((name.clone(), watched.store.object(digest))).filter(|(_, path)| path.exists())
            };
            let objects = inputs.iter().filter_map(kept).collect();
            let map = watched.store.map(digest);
            let debuginfo = identity::debuginfo_of(&request.debuginfo, &production);
            Ok(LinkedElf { production, debuginfo, rebuilt, identity, map, inputs, partial, objects, libraries })
        })
        .collect()
}

/// An object that the links took in, that nothing recorded made, and that the two builds have differently.
fn escaped(watched: &Watched, again: &Watched) -> Option<String> {
    let foreign = |build: &Watched| -> BTreeMap<String, String> {
        let made = |c: &&Call| matches!(c.tool, Tool::As | Tool::Ld);
        let known: BTreeSet<&str> = build.calls.iter().filter(made).filter_map(|c| c.digest.as_deref()).collect();
        let links = build.calls.iter().filter(|c| c.tool == Tool::Ld && c.success);
        let unknown = links.flat_map(|c| &c.inputs).filter(|input| !known.contains(input.digest.as_str()));
        unknown.map(|input| (input.name.clone(), input.digest.clone())).collect()
    };
    let (old, new) = (foreign(watched), foreign(again));
    new.into_iter().find(|(name, digest)| old.get(name) != Some(digest)).map(|(name, _)| name)
}

/// Objects that were themselves linked (`ld -r`) are replaced by what went into them, as deep as it goes; returns which and with what
/// map.
fn take_in_partial_links(watched: &Watched, inputs: &mut BTreeMap<String, String>) -> Vec<(String, PathBuf)> {
    let made: BTreeMap<&str, &Call> = (watched.calls.iter())
        .filter(|c| c.tool == Tool::Ld && c.success && c.relocatable)
        .filter_map(|call| Some((call.digest.as_deref()?, call)))
        .collect();
    let mut partial = Vec::new();
    let mut open: Vec<(String, String)> = inputs.clone().into_iter().collect();
    // An object cannot be part of itself, so this ends.
    while let Some((name, digest)) = open.pop() {
        let Some(call) = made.get(digest.as_str()) else { continue };
        partial.push((name.clone(), watched.store.map(&digest)));
        for input in &call.inputs {
            let inner = linkmap::inner_name(&name, &input.name);
            inputs.insert(inner.clone(), input.digest.clone());
            open.push((inner, input.digest.clone()));
        }
    }
    partial
}

fn is_library(call: &Call) -> bool {
    call.args.iter().any(|a| a == "-shared" || a == "-Bshareable" || a == "--shared")
}

fn other_linker(watched: &Watched, target: &Path) -> Option<Refusal> {
    let call = watched.calls.iter().find(|c| c.tool == Tool::OtherLinker && c.digest.is_some())?;
    Some(
        Refusal::new(
            Code::Linker,
            format!(
                "{} was linked by {}, whose link maps are not understood",
                target.display(),
                call.program.display()
            ),
            "link with GNU ld (-fuse-ld=bfd)",
        )
        .about(target.display().to_string()),
    )
}

/// The touched units that are in the production files. The others do not matter, where it is known where they went.
fn linked_units<'a>(
    watched: &Watched,
    again: Option<&Watched>,
    links: &[LinkedElf],
    touched: Vec<Pair<'a>>,
) -> Result<Vec<Pair<'a>>, Stop> {
    let in_links: BTreeSet<&str> = links.iter().flat_map(|l| l.inputs.values()).map(String::as_str).collect();
    let known: BTreeSet<&str> = watched.units.iter().map(|u| u.digest.as_str()).collect();
    let partial: BTreeSet<&str> = watched
        .calls
        .iter()
        .filter(|c| c.tool == Tool::Ld && c.relocatable)
        .flat_map(|c| &c.inputs)
        .map(|input| input.digest.as_str())
        .collect();
    let (mut kept, mut elsewhere, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for mut pair in touched {
        let Some(orig) = pair.orig else {
            // A new unit belongs to a target when the fixed build links it into the file of that name.
            let names = again.iter().flat_map(|a| &a.calls).filter(|call| {
                let name = call.output.as_deref().and_then(Path::file_name);
                name.is_some() && links.iter().any(|l| l.rebuilt.file_name() == name)
            });
            let new = pair.fix.map(|unit| unit.digest.as_str());
            let names = names.flat_map(|call| &call.inputs).filter(|input| new == Some(input.digest.as_str()));
            let names: BTreeSet<String> = names.map(|input| input.name.clone()).collect();
            if !names.is_empty() {
                pair.fixed_link_names = names.into_iter().collect();
                kept.push(pair);
            }
            continue;
        };
        if in_links.contains(orig.digest.as_str()) {
            kept.push(pair);
            continue;
        }
        let source = orig.source.display().to_string();
        if partial.contains(orig.digest.as_str()) {
            refusals.push(
                Refusal::new(
                    Code::NotLinked,
                    format!("the object of {source} was linked into another object first (ld -r)"),
                    "partial links are not understood yet",
                )
                .about(source),
            );
        } else if let Some(name) =
            links.iter().flat_map(|l| &l.inputs).find(|(_, d)| !known.contains(d.as_str())).map(|(name, _)| name)
        {
            refusals.push(
                Refusal::new(
                    Code::NotLinked,
                    format!("the object of {source} is in no link as it was compiled, and nobody knows what {name} was made of"),
                    "a step between compiler and linker (objcopy, strip) hides the object; leave it out of --build CMD",
                )
                .about(source),
            );
        } else {
            elsewhere.push(source);
        }
    }
    if !refusals.is_empty() {
        return Err(Stop::Refused(refusals));
    }
    if kept.is_empty() {
        elsewhere.sort();
        elsewhere.dedup();
        return Err(Stop::NoChange(vec![format!(
            "the fix touches {}, which is not linked into the target",
            elsewhere.join(", ")
        )]));
    }
    Ok(kept)
}

fn refuse_link_time_optimised(pairs: &[Pair<'_>]) -> Result<(), Stop> {
    let refusals: Vec<Refusal> = pairs
        .iter()
        .filter_map(|pair| pair.orig.or(pair.fix))
        .filter(|unit| unit.compiler.as_ref().is_some_and(|c| args::link_time_optimised(&c.args)))
        .map(|unit| {
            let source = unit.source.display().to_string();
            Refusal::new(
                Code::Lto,
                format!("{source} is compiled with -flto"),
                "link-time optimisation is not supported yet; production would have to be built with -fno-lto",
            )
            .about(source)
        })
        .collect();
    if refusals.is_empty() { Ok(()) } else { Err(Stop::Refused(refusals)) }
}

/// The clock as it gets into objects. With a fixed clock in the environment (`SOURCE_DATE_EPOCH`) it is no trouble.
fn refuse_nondeterministic<'a>(
    units: impl Iterator<Item = &'a Compiled>,
    place: &Place,
    flags: &[&str],
    run: &Path,
) -> Result<(), Stop> {
    let suspects = units.filter(|unit| {
        let fixed = |call: &Call| call.env.iter().any(|(k, _)| k == "SOURCE_DATE_EPOCH");
        unit.compiler.as_ref().is_some_and(|c| !fixed(c))
    });
    let mut refusals = Vec::new();
    for unit in suspects {
        let found = unit.reads.iter().find_map(|path| {
            let bytes = fs::read(place.real.join(path)).ok()?;
            let word = ["__DATE__", "__TIME__"].into_iter().find(|w| trees::find(&bytes, w.as_bytes()).is_some())?;
            Some((word, path.clone()))
        });
        let Some((word, path)) = found else { continue };
        // Two clocks, one source: a comment that mentions the word is harmless.
        let one = recompile::recompile(unit, place, flags, &[("SOURCE_DATE_EPOCH", "86400")], run, "clock-1")?;
        let two = recompile::recompile(unit, place, flags, &[("SOURCE_DATE_EPOCH", "987654321")], run, "clock-2")?;
        if fs::read(&one)? != fs::read(&two)? {
            refusals.push(
                Refusal::new(
                    Code::Nondeterministic,
                    format!(
                        "{} has {word} from {} in it, so that every compile differs",
                        unit.source.display(),
                        path.display()
                    ),
                    "build production and patch with SOURCE_DATE_EPOCH set, or take the clock out of the source",
                )
                .about(unit.source.display().to_string()),
            );
        }
    }
    if refusals.is_empty() { Ok(()) } else { Err(Stop::Refused(refusals)) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Orig,
    Fix,
}

/// Recompiles one side of all pairs, `jobs` at a time.
fn compile_all(
    pairs: &[Pair<'_>],
    side: Side,
    place: &Place,
    flags: &[&str],
    run: &Path,
    jobs: usize,
    progress: &Progress,
) -> Result<Vec<Option<PathBuf>>, Stop> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs.max(1)).build().context("cannot start threads")?;
    let made: Result<Vec<_>> = pool.install(|| {
        pairs
            .par_iter()
            .enumerate()
            .map(|(i, pair)| {
                let (unit, name) = match side {
                    Side::Orig => (pair.orig, format!("{i}-orig")),
                    Side::Fix => (pair.fix, format!("{i}-fix")),
                };
                let object = unit.map(|unit| recompile::recompile(unit, place, flags, &[], run, &name)).transpose()?;
                progress.step();
                Ok(object)
            })
            .collect()
    });
    Ok(made?)
}

fn finish(watched: &Watched, pairs: &[Pair<'_>], orig: Vec<Option<PathBuf>>, fix: Vec<Option<PathBuf>>) -> Vec<Unit> {
    pairs
        .iter()
        .zip(orig.into_iter().zip(fix))
        .filter_map(|(pair, (orig, fix))| {
            let any = pair.orig.or(pair.fix)?;
            Some(Unit {
                source: any.source.clone(),
                language: any.language,
                exceptions: pair.fix.or(pair.orig).is_some_and(Compiled::exceptions),
                pristine: pair.orig.map(|unit| watched.store.object(&unit.digest)),
                pristine_digest: pair.orig.map(|unit| unit.digest.clone()),
                orig,
                fix,
                fixed_link_names: pair.fixed_link_names.clone(),
            })
        })
        .collect()
}

/// Fixed files in the place of original ones, for as long as the fixed side is compiled. The originals wait in the work
/// directory, so that a run that is cut short is repaired by the next.
struct Swap {
    kept: PathBuf,
    real: PathBuf,
}

impl Swap {
    fn begin(
        place: &Place,
        work: &Work,
        files: &[Difference],
        recompiled: &BTreeSet<PathBuf>,
        orig: &Path,
        fix: &Path,
    ) -> Result<Self> {
        let swap = Self { kept: work.swapped(), real: place.real.clone() };
        let changed: Vec<&Path> = files
            .iter()
            .filter(|d| d.change == Change::Modified && recompiled.contains(&d.path))
            .map(|d| d.path.as_path())
            .collect();
        for path in &changed {
            let kept = swap.kept.join(path);
            fs::create_dir_all(kept.parent().context("a kept file has a folder")?)?;
            trees::copy_file(&swap.real.join(path), &kept)?;
        }
        for path in changed {
            write_resynced(path, orig, fix, &swap.real.join(path))?;
        }
        Ok(swap)
    }

    fn end(self) -> Result<()> {
        Self::restore(&self.kept, &self.real)
    }

    /// Puts back what an earlier run left swapped.
    fn repair(work: &Work, real: &Path) -> Result<()> {
        Self::restore(&work.swapped(), real)
    }

    fn restore(kept: &Path, real: &Path) -> Result<()> {
        if !kept.exists() {
            return Ok(());
        }
        for (path, entry) in trees::entries(kept)? {
            if matches!(entry, trees::Entry::File { .. }) {
                trees::copy_file(&kept.join(&path), &real.join(&path))?;
            }
        }
        fs::remove_dir_all(kept).with_context(|| format!("cannot remove {}", kept.display()))
    }
}

/// Sources that both builds made (amalgamations, parsers) keep their line numbers as well.
fn resync_made(pairs: &[Pair<'_>], differences: &[Difference], orig: &Path, fix: &Path) -> Result<()> {
    let given: BTreeSet<&Path> = differences.iter().map(|d| d.path.as_path()).collect();
    let units = pairs.iter().filter_map(|pair| pair.fix.filter(|_| pair.orig.is_some()));
    let made: BTreeSet<&Path> = units
        .flat_map(|unit| unit.reads.iter().chain([&unit.source]))
        .map(PathBuf::as_path)
        .filter(|path| path.is_relative() && !given.contains(path) && classify::is_preprocessed(path))
        .filter(|path| orig.join(path).is_file() && fix.join(path).is_file())
        .collect();
    for path in made {
        if fs::read(orig.join(path))? != fs::read(fix.join(path))? {
            write_resynced(path, orig, fix, &fix.join(path))?;
        }
    }
    Ok(())
}

/// Writes a fixed file whose unchanged lines have the numbers of the original. The time of what stood there stays:
/// `__TIMESTAMP__` is no change.
fn write_resynced(path: &Path, orig: &Path, fix: &Path, to: &Path) -> Result<()> {
    let (old, new) = (fs::read(orig.join(path))?, fs::read(fix.join(path))?);
    // Only what a preprocessor reads may get directives: an included table may be data to an assembler.
    let resynced = match (str::from_utf8(&old), str::from_utf8(&new)) {
        (Ok(old), Ok(new)) if classify::is_preprocessed(path) => linesync::resync(old, new).map(String::into_bytes),
        _ => None,
    };
    let time = fs::metadata(to)?.modified()?;
    fs::write(to, resynced.unwrap_or(new)).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(fs::File::options().write(true).open(to)?.set_modified(time)?)
}

fn changed_files(files: &[Difference], orig: &Path, fix: &Path) -> Vec<ChangedFile> {
    let text = |root: &Path, path: &Path| String::from_utf8(fs::read(root.join(path)).ok()?).ok();
    files
        .iter()
        .map(|d| ChangedFile { path: d.path.clone(), old: text(orig, &d.path), new: text(fix, &d.path) })
        .collect()
}

/// How the compiler names itself.
fn compiler(pairs: &[Pair<'_>]) -> String {
    let call = pairs.iter().filter_map(|p| p.orig.or(p.fix)).find_map(|unit| unit.compiler.as_ref());
    let Some(call) = call else { return String::new() };
    // cc1 says `GNU C17 (Debian 12.2.0-14) version 12.2.0 (x86_64-linux-gnu)` on standard error.
    let mut command = std::process::Command::new(&call.program);
    command.args(["-version", "-quiet", "-o", "/dev/null", "/dev/null"]).stdin(std::process::Stdio::null());
    let said = command.output().map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
    let line = said.lines().next().unwrap_or_default();
    match (line.split_once('('), line.split_once(" version ")) {
        (Some((_, rest)), Some((_, version))) => {
            let vendor = rest.split(')').next().unwrap_or_default();
            let version = version.split(' ').next().unwrap_or_default();
            format!("gcc ({vendor}) {version}")
        }
        _ => line.to_string(),
    }
}
