// SPDX-License-Identifier: GPL-2.0-or-later
//! The command line: what the user may ask, and the only place that decides about exit codes.

use crate::model::{Code, FixSource, Request, Stop};
use crate::{progress::Progress, report, work};
use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use ulp_format::Accepted;

const AFTER: &str = "\
Examples:
  ulp-build --orig redis-7.0.15 --fix redis-7.0.15-fixed --target /usr/bin/redis-server -o acl.ulp
  ulp-build --orig src --patch CVE-2026-0001.patch --build 'make CFLAGS=-O2' --cve CVE-2026-0001
  ulp-build --orig memcached-1.6.18 --fix fixed --build 'dpkg-buildpackage -b -uc -us' \\
            --target /usr/bin/memcached --work ~/ulp-work

The trees are only read: the build runs in a copy, mounted at the tree's own path where the kernel allows it.
Exit status: 0 package written, 1 failed, 2 usage, 3 the fix changes nothing (no file), 5 refused as not safe.";

/// Makes a live patch from two source trees.
///
/// Builds the original sources while watching compiler and linker, proves that the result is the production binary,
/// recompiles what the fix touches, and writes the functions that changed into a package which ulp-apply puts into the
/// running program.
#[derive(Parser, Debug)]
#[command(name = "ulp-build", version, after_help = AFTER, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    make: Make,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Compares two objects, function by function, as a patch would
    Diff {
        /// Object of the original
        orig: PathBuf,
        /// Object of the fix
        fixed: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct Make {
    /// Source tree of what runs in production
    #[arg(long, value_name = "DIR", required = true)]
    orig: Option<PathBuf>,
    /// Source tree with the fix
    #[arg(long, value_name = "DIR", required_unless_present = "patch", conflicts_with = "patch")]
    fix: Option<PathBuf>,
    /// Patch for the original tree, in place of --fix; several are applied in order
    #[arg(long, value_name = "FILE", num_args = 1..)]
    patch: Vec<PathBuf>,
    /// Command that builds the tree, run by sh at its root; detected when not given
    #[arg(long, value_name = "CMD")]
    build: Option<String>,
    /// Production binary that the patch is for; default: what the build linked from the fixed files
    #[arg(long, value_name = "ELF")]
    target: Vec<PathBuf>,
    /// Separate debug file of a target
    #[arg(long, value_name = "FILE")]
    debuginfo: Vec<PathBuf>,
    /// Path at which production was built; default: the tree's own
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    build_path: Option<PathBuf>,
    /// Build in the original tree itself; for throw-away containers only
    #[arg(long)]
    in_place: bool,
    /// Name of the patch; default: the output's file name without .ulp
    #[arg(long, value_name = "N")]
    name: Option<String>,
    /// One sentence that `ulp-apply list` shows
    #[arg(long, value_name = "T", default_value = "")]
    description: String,
    /// CVE that the patch fixes
    #[arg(long, value_name = "ID")]
    cve: Vec<String>,
    /// Patch that goes in the same stop when this one comes; the fixed tree must have its fix as well
    #[arg(long, value_name = "N", value_parser = patch_name)]
    replaces: Vec<String>,
    /// Patch that must be applied first and stay as long as this one; where both change a function, the fixed tree must
    /// have its fix as well
    #[arg(long, value_name = "N", value_parser = patch_name)]
    requires: Vec<String>,
    /// Overrule a refusal of judgement (E-CTOR, E-DATA-INIT, E-ESCAPED, E-LAYOUT), wholly or for one symbol; it is recorded
    #[arg(long, value_name = "CODE[:SYM]", value_parser = accepted)]
    accept: Vec<Accepted>,
    /// Say how this function compares with what was linked and with production, with both disassemblies where it differs
    #[arg(long, value_name = "FUNCTION")]
    explain: Option<String>,
    /// Directory that keeps the original's build for the next patch
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Compiles at a time; default: the number of processors
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Show stages, notes, and the source diff
    #[arg(short, long)]
    verbose: bool,
    /// Package to write; default: the fix's name with .ulp
    #[arg(short, long, value_name = "OUT.ulp")]
    output: Option<PathBuf>,
}

fn patch_name(text: &str) -> Result<String, String> {
    if ulp_format::is_patch_name(text) { Ok(text.into()) } else { Err("no name of a patch".into()) }
}

fn accepted(text: &str) -> Result<Accepted, String> {
    let (code, symbol) = match text.split_once(':') {
        Some((code, symbol)) => (code, Some(symbol.to_string())),
        None => (text, None),
    };
    let judgement = [Code::Ctor, Code::DataInit, Code::Escaped, Code::Layout];
    if !judgement.iter().any(|c| c.as_str() == code && c.is_judgement()) {
        let all: Vec<&str> = judgement.iter().map(|c| c.as_str()).collect();
        return Err(format!("only refusals of judgement can be accepted: {}", all.join(", ")));
    }
    if symbol.as_deref() == Some("") {
        return Err("a symbol has to follow the colon".into());
    }
    Ok(Accepted { code: code.to_string(), symbol })
}

/// Exit status of a command line that cannot be understood.
const USAGE: u8 = 2;

/// Runs a command line to its exit status.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // --help and --version arrive here as well, and are no error. A closed pipe is none either.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    // `try_init`: a second call in one process, as tests make, is harmless.
    let filter = env_logger::Env::default().default_filter_or("warn");
    let _ = env_logger::Builder::from_env(filter)
        .format(|f, record| writeln!(f, "{}: {}", record.level().as_str().to_lowercase(), record.args()))
        .try_init();
    if let Some(Verb::Diff { orig, fixed, json }) = cli.verb {
        return diff(&orig, &fixed, json);
    }
    let (json, verbose) = (cli.make.json, cli.make.verbose);
    let request = match request(cli.make) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(USAGE);
        }
    };
    work::catch_signals();
    let progress = Progress::new(verbose);
    let result = crate::make(&request, &progress);
    progress.done();
    report::result(&request, &result, json, verbose);
    ExitCode::from(match result {
        Ok(_) => 0,
        Err(Stop::Failed(_)) => 1,
        Err(Stop::NoChange(_)) => 3,
        Err(Stop::Refused(_)) => 5,
    })
}

/// `ulp-build diff`: 0 the objects differ in what can be patched, 3 they do not differ, 5 they differ in what cannot.
fn diff(orig: &Path, fixed: &Path, json: bool) -> ExitCode {
    match crate::diff::diff_objects(orig, fixed) {
        Ok(found) => {
            report::objects(&found, json);
            let same = found.changed.is_empty() && found.new.is_empty() && found.gone.is_empty();
            ExitCode::from(match (found.refusals.is_empty(), same) {
                (false, _) => 5,
                (true, true) => 3,
                (true, false) => 0,
            })
        }
        Err(error) => {
            eprintln!("error: cannot compare {} and {}: {error}", orig.display(), fixed.display());
            ExitCode::from(1)
        }
    }
}

/// Checks the command line against the file system and fills in the defaults.
fn request(make: Make) -> Result<Request> {
    let orig = make.orig.context("--orig DIR is missing")?;
    if !orig.is_dir() {
        return Err(anyhow!("--orig {} is not a directory", orig.display()));
    }
    let fix = match make.fix {
        Some(tree) if !tree.is_dir() => return Err(anyhow!("--fix {} is not a directory", tree.display())),
        Some(tree) => FixSource::Tree(tree),
        None => FixSource::Patches(make.patch),
    };
    let files = make.target.iter().chain(&make.debuginfo).chain(match &fix {
        FixSource::Patches(patches) => patches.as_slice(),
        FixSource::Tree(_) => &[],
    });
    for file in files {
        if !file.is_file() {
            return Err(anyhow!("there is no file {}", file.display()));
        }
    }
    let output = match make.output {
        Some(output) => output,
        None => {
            let name = match &fix {
                FixSource::Tree(tree) => tree.canonicalize()?.file_name().map(OsString::from),
                FixSource::Patches(patches) => patches.last().and_then(|p| p.file_stem()).map(OsString::from),
            };
            let mut name = name.context("the output needs a name: give one with -o OUT.ulp")?;
            name.push(".ulp");
            PathBuf::from(name)
        }
    };
    let name = match make.name {
        Some(name) => name,
        None => {
            let stem = output.file_stem().context("the output needs a name: give one with -o OUT.ulp")?;
            stem.to_str().context("the output's name is not UTF-8: give one with --name")?.to_string()
        }
    };
    if make.replaces.iter().chain(&make.requires).any(|other| *other == name) {
        return Err(anyhow!(
            "the patch {name} can neither replace nor require itself: give it another name with --name"
        ));
    }
    let build_path = make.build_path.map(std::path::absolute).transpose()?;
    if let Some(work) = &make.work {
        let inside = std::path::absolute(work)?;
        if inside.starts_with(orig.canonicalize()?) {
            return Err(anyhow!("--work {} is inside of the original tree", work.display()));
        }
        if inside.to_string_lossy().contains(char::is_whitespace) {
            return Err(anyhow!("--work {}: compilers need a path without blanks", work.display()));
        }
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Request {
        orig,
        fix,
        build: make.build,
        targets: make.target,
        debuginfo: make.debuginfo,
        build_path,
        in_place: make.in_place,
        name,
        description: make.description,
        cves: make.cve,
        replaces: make.replaces,
        requires: make.requires,
        accept: make.accept,
        explain: make.explain,
        work: make.work,
        jobs: make.jobs.map_or(processors, usize::from),
        output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines() {
        for (line, good) in [
            ("--orig a --fix b", true),
            ("--orig a --patch p --patch q -o x.ulp", true),
            ("--orig a", false),
            ("--fix b", false),
            ("--orig a --fix b --patch p", false),
            ("diff a.o b.o --json", true),
            ("diff a.o", false),
            ("--orig a --fix b --accept E-LAYOUT:struct.x", true),
            ("--orig a --fix b --accept E-AMBIGUOUS", false),
            ("--orig a --fix b -j 0", false),
        ] {
            let words = std::iter::once("ulp-build").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).is_ok(), good, "{line}");
        }
    }
}
