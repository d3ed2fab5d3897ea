// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs a recorded compile again, with sections of their own for every function and with debug information. Only the
//! outputs, the dependency lists and these flags differ from the recorded call: same program, same directory, same
//! environment, same source path.

use super::place::Place;
use super::units::Compiled;
use crate::capture::{Call, args};
use crate::model::Language;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// Compiles a unit into `directory` and returns the object.
pub fn recompile(
    unit: &Compiled,
    place: &Place,
    section_flags: &[&str],
    extra_env: &[(&str, &str)],
    directory: &Path,
    name: &str,
) -> Result<PathBuf> {
    let assembly = directory.join(format!("{name}.s"));
    let object = directory.join(format!("{name}.o"));
    let preprocessed = directory.join(format!("{name}.i"));
    if let Some(preprocessor) = &unit.preprocessor {
        let mut arguments = args::without_dependencies(&preprocessor.args);
        if let Some(output) = args::of_cc1(&arguments).output.and_then(|i| arguments.get_mut(i)) {
            *output = preprocessed.display().to_string();
        }
        run(preprocessor, &arguments, extra_env, place, &unit.source)?;
    }
    if let Some(compiler) = &unit.compiler {
        let mut arguments = compiler_arguments(compiler, unit.language, section_flags, &assembly);
        if unit.preprocessor.is_some()
            && let Some(input) = args::of_cc1(&arguments).input.and_then(|i| arguments.get_mut(i))
        {
            *input = preprocessed.display().to_string();
        }
        run(compiler, &arguments, extra_env, place, &unit.source)?;
    }
    let input = unit.assembler.input.as_deref().filter(|_| unit.compiler.is_none());
    if let Some(input) = input.filter(|input| !place.real(input).exists()) {
        bail!(
            "{} was assembled from {}, and what made that was not seen\n  a compiler that does not stand where it was \
             configured to (an unpacked tool chain) finds its own programs first; install it, or use another one",
            unit.source.display(),
            input.display()
        );
    }
    let made = unit.compiler.is_some().then_some(assembly.as_path());
    let arguments = assembler_arguments(&unit.assembler, made, &object);
    run(&unit.assembler, &arguments, extra_env, place, &unit.source)?;
    let _ = fs::remove_file(assembly);
    let _ = fs::remove_file(preprocessed);
    Ok(object)
}

/// The files that a unit reads, asked from the compiler itself: for calls that left no full list.
pub fn reads(unit: &Compiled, place: &Place, list: &Path) -> Result<Vec<PathBuf>> {
    let Some(compiler) = unit.preprocessor.as_ref().or(unit.compiler.as_ref()) else { return Ok(Vec::new()) };
    let mut arguments = args::without_dependencies(&compiler.args);
    if let Some(output) = args::of_cc1(&arguments).output.and_then(|i| arguments.get_mut(i)) {
        *output = "/dev/null".into();
    }
    arguments.extend(["-E".into(), "-M".into(), "-MF".into(), list.display().to_string()]);
    run(compiler, &arguments, &[], place, &unit.source)?;
    let text = fs::read(list).with_context(|| format!("cannot read {}", list.display()))?;
    Ok(args::prerequisites(&String::from_utf8_lossy(&text)).into_iter().map(|name| compiler.cwd.join(name)).collect())
}

fn compiler_arguments(call: &Call, language: Language, section_flags: &[&str], output: &Path) -> Vec<String> {
    let mut arguments = args::without_dependencies(&call.args);
    match args::of_cc1(&arguments).output.and_then(|i| arguments.get_mut(i)) {
        Some(place) => *place = output.display().to_string(),
        None => arguments.extend(["-o".into(), output.display().to_string()]),
    }
    if language == Language::Assembly {
        return arguments;
    }
    // Debug information has to be in the object itself to be compared.
    arguments.retain(|a| a != "-gsplit-dwarf");
    if !args::debug_info(&arguments) {
        arguments.push("-g".into());
    }
    if !arguments.iter().any(|a| a.starts_with("-frandom-seed=")) {
        // Names made of random numbers would differ between the two compiles.
        arguments.push("-frandom-seed=ulp".into());
    }
    arguments.extend(section_flags.iter().map(|flag| flag.to_string()));
    arguments
}

fn assembler_arguments(call: &Call, input: Option<&Path>, output: &Path) -> Vec<String> {
    let mut arguments = call.args.clone();
    let inout = args::of_as(&arguments);
    if let Some(place) = inout.output.and_then(|i| arguments.get_mut(i)) {
        *place = output.display().to_string();
    }
    if let Some(input) = input {
        match inout.input.and_then(|i| arguments.get_mut(i)) {
            Some(place) => *place = input.display().to_string(),
            None => arguments.push(input.display().to_string()),
        }
    }
    if let Some(i) = arguments.iter().position(|a| a == "--MD") {
        arguments.drain(i..(i + 2).min(arguments.len()));
    }
    arguments
}

fn run(call: &Call, arguments: &[String], extra_env: &[(&str, &str)], place: &Place, source: &Path) -> Result<Output> {
    let mut command = place.command(&call.cwd, call.program.as_os_str())?;
    command.args(arguments.iter().map(OsStr::new)).stdin(Stdio::null());
    command.env_clear().envs(call.env.iter().map(|(k, v)| (k, v))).envs(extra_env.iter().copied());
    let output = command.output().with_context(|| format!("cannot run {}", call.program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.lines().take(20).map(|line| format!("  | {line}\n")).collect();
        bail!(
            "{} does not compile ({})\n{said}  the recorded command was run again; see that the fixed sources compile in the original's configuration",
            source.display(),
            output.status
        );
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        serde_json::from_value(serde_json::json!({
            "tool": "cc1", "program": "/cc1", "args": line.split(' ').collect::<Vec<_>>(), "cwd": "/", "env": [],
            "started": 0, "parent": [1, 1], "success": true, "input": null, "output": null, "reads": [],
            "reads_partial": false, "digest": null, "inputs": [], "libraries": [], "relocatable": false,
        }))
        .expect("a call")
    }

    #[test]
    fn only_outputs_and_our_flags_change() {
        let flags = ["-ffunction-sections"];
        for (line, want) in [
            (
                "-quiet -MMD a.d -MQ a.o a.c -O2 -o /t/1.s",
                "-quiet a.c -O2 -o /w/u.s -g -frandom-seed=ulp -ffunction-sections",
            ),
            ("a.c -g -gsplit-dwarf -frandom-seed=1 -o -", "a.c -g -frandom-seed=1 -o /w/u.s -ffunction-sections"),
        ] {
            let got = compiler_arguments(&call(line), Language::C, &flags, Path::new("/w/u.s")).join(" ");
            assert_eq!(got, want);
        }
        for (line, want) in
            [("--64 -o a.o /t/1.s", "--64 -o /w/u.o /w/u.s"), ("--64 --MD a.d -o a.o", "--64 -o /w/u.o /w/u.s")]
        {
            let got = assembler_arguments(&call(line), Some(Path::new("/w/u.s")), Path::new("/w/u.o")).join(" ");
            assert_eq!(got, want);
        }
    }
}
