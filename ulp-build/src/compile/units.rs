// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes compiled units out of recorded calls: which `as` made which object, out of what, and which files were read on
//! the way.

use super::place::Place;
use crate::capture::{Call, Tool, args};
use crate::model::Language;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// One object as a build made it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The source relative to the tree, or its full path when it is elsewhere.
    pub source: PathBuf,
    /// The object as the build named it, likewise; temporary names do not count as names.
    pub object: PathBuf,
    pub language: Language,
    /// A preprocessor run on its own (`-save-temps`, ccache's way), whose output the compiler read.
    pub preprocessor: Option<Call>,
    /// What made the assembly. `None`: the source is assembly.
    pub compiler: Option<Call>,
    pub assembler: Call,
    pub digest: String,
    /// All files of the tree that were read.
    pub reads: BTreeSet<PathBuf>,
    /// Files may be missing from `reads`.
    pub reads_partial: bool,
}

impl Compiled {
    /// What pairs it with the same unit of another build: its source, its object's name, its place among equals.
    pub fn key(&self) -> (PathBuf, PathBuf) {
        // A name that a driver made up means nothing.
        let temporary = self.object.is_absolute();
        (self.source.clone(), if temporary { PathBuf::new() } else { self.object.clone() })
    }

    pub fn exceptions(&self) -> bool {
        let Some(compiler) = &self.compiler else { return false };
        let last = compiler.args.iter().rfind(|a| *a == "-fexceptions" || *a == "-fno-exceptions");
        last.map_or(compiler.tool == Tool::Cc1plus, |a| a == "-fexceptions")
    }
}

/// All units of a build, in the order in which they were assembled.
pub fn of_build(calls: &[Call], place: &Place) -> Vec<Compiled> {
    let compilers: Vec<&Call> =
        calls.iter().filter(|c| matches!(c.tool, Tool::Cc1 | Tool::Cc1plus) && c.success).collect();
    // How many compilers, and assemblers, of one driver were joined by a pipe so far.
    let mut piped: BTreeMap<(i32, u64), usize> = BTreeMap::new();
    let mut units = Vec::new();
    for assembler in calls.iter().filter(|c| c.tool == Tool::As && c.success) {
        let (Some(digest), Some(output)) = (&assembler.digest, &assembler.output) else { continue };
        let compiler = match &assembler.input {
            Some(input) => {
                let wrote = |c: &&&Call| c.output.as_ref() == Some(input) && c.started < assembler.started;
                // Temporary names come again; the same driver is the better witness.
                let same = compilers.iter().rev().filter(|c| c.parent == assembler.parent).find(wrote);
                same.or_else(|| compilers.iter().rev().find(wrote)).copied()
            }
            None => {
                let n = piped.entry(assembler.parent).or_default();
                let of_driver = compilers.iter().filter(|c| {
                    c.parent == assembler.parent && c.output.is_none() && !args::preprocesses_only(&c.args)
                });
                *n += 1;
                of_driver.copied().nth(*n - 1)
            }
        };
        let preprocessor = compiler.and_then(|compiler| {
            let input = compiler.input.as_ref()?;
            let wrote = |c: &&&Call| c.output.as_ref() == Some(input) && c.started < compiler.started;
            compilers.iter().rev().filter(|c| args::preprocesses_only(&c.args)).find(wrote).copied()
        });
        let first = preprocessor.or(compiler).unwrap_or(assembler);
        let Some(input) = &first.input else { continue };
        let inside = |path: &PathBuf| place.relative(path).unwrap_or_else(|| path.clone());
        let source = inside(input);
        let assembly =
            compiler.is_none_or(|c| args::preprocesses_only(&c.args) || c.args.iter().any(|a| a == "-lang-asm"));
        let language = match compiler {
            _ if assembly => Language::Assembly,
            Some(c) if c.tool == Tool::Cc1plus => Language::Cxx,
            _ => Language::C,
        };
        // What a preprocessed file's line markers name was not read by the compiler, whatever its list says.
        let own = compiler.filter(|c| preprocessor.is_some() || !is_preprocessed(c));
        let read = own.into_iter().chain(preprocessor).flat_map(|c| &c.reads).chain(&assembler.reads).chain([input]);
        units.push(Compiled {
            source,
            object: inside(output),
            language,
            preprocessor: preprocessor.cloned(),
            compiler: compiler.cloned(),
            assembler: assembler.clone(),
            digest: digest.clone(),
            reads: read.filter_map(|path| place.relative(path)).collect(),
            reads_partial: preprocessor.or(compiler).is_some_and(|c| c.reads_partial && looks_elsewhere(c)),
        });
    }
    units
}

fn is_preprocessed(call: &Call) -> bool {
    let suffix = call.input.as_deref().and_then(|i| i.extension());
    call.args.iter().any(|a| a == "-fpreprocessed") || suffix.is_some_and(|s| s == "i" || s == "ii")
}

/// Files of the tree that a compiler read for something else than an object: what it made of them may have become part
/// of the build in ways that nobody saw. Dependency lists alone are harmless.
pub fn read_for_other_ends(calls: &[Call], units: &[Compiled], place: &Place) -> BTreeSet<PathBuf> {
    let used: BTreeSet<u128> =
        units.iter().flat_map(|u| u.preprocessor.iter().chain(&u.compiler)).map(|call| call.started).collect();
    let lists = |call: &Call| call.args.iter().any(|a| a == "-M" || a == "-MM");
    calls
        .iter()
        .filter(|c| matches!(c.tool, Tool::Cc1 | Tool::Cc1plus) && c.success && !used.contains(&c.started) && !lists(c))
        .flat_map(|call| call.reads.iter().chain(&call.input))
        .filter_map(|path| place.relative(path))
        .collect()
}

/// `-MMD` leaves out what the compiler takes for system headers: only options and variables make a tree's own headers
/// such.
fn looks_elsewhere(call: &Call) -> bool {
    // -imultiarch and -isysroot are about the real system.
    let options = ["-isystem", "-idirafter", "-cxx-isystem"];
    let variables = ["CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"];
    args::dependencies(&call.args) == args::Dependencies::Other
        || call.args.iter().any(|a| options.iter().any(|o| a.starts_with(o)))
        || call.env.iter().any(|(k, v)| variables.contains(&k.as_str()) && !v.is_empty())
}
