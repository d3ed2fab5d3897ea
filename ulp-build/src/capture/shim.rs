// SPDX-License-Identifier: GPL-2.0-or-later
//! What this program does when a build calls it as `cc1`, `as` or `ld`: find the real tool, run it with the arguments
//! and the environment it would have had, write down what it read and made, end as it ended. It must cost next to
//! nothing, so nothing big is read twice. A call that cannot be recorded fails, and with it the build: a silent gap
//! would be a wrong patch later.

use super::args::{self, Dependencies};
use super::{Call, Digested, STORE_VARIABLE, Store, Tool, digest, tool};
use anyhow::{Context, Result, anyhow, bail};
use object::read::archive::ArchiveFile;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The tool that `argv0` stands for, when a build is being watched.
pub fn called_as(argv0: &OsStr) -> Option<Tool> {
    std::env::var_os(STORE_VARIABLE)?;
    tool(Path::new(argv0).file_name()?.to_str()?)
}

/// Runs the real tool, records the run, and ends this process the way the tool ended.
pub fn run(tool: Tool, argv0: &OsStr, arguments: Vec<OsString>) -> u8 {
    match watch(tool, argv0, arguments) {
        Ok(status) => match status.signal().and_then(|s| nix::sys::signal::Signal::try_from(s).ok()) {
            Some(signal) => {
                // Should the signal be blocked or ignored here, 128 + n says the same, as shells do.
                let _ = nix::sys::signal::raise(signal);
                128u8.saturating_add(signal as u8)
            }
            None => status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1),
        },
        Err(error) => {
            eprintln!("ulp-build: cannot record a call of {}: {error:#}", argv0.to_string_lossy());
            1
        }
    }
}

fn watch(tool: Tool, argv0: &OsStr, arguments: Vec<OsString>) -> Result<ExitStatus> {
    let store = Store::at(Path::new(&std::env::var_os(STORE_VARIABLE).context("no store is named")?));
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let cwd = std::env::current_dir()?;
    let environment = restored_environment(&store);
    let program = real_program(&store, argv0, &environment)?;
    let name = format!("{started}-{}", std::process::id());
    let given: Vec<String> = arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let expanded = args::expand_response_files(given, &cwd);

    let mut real = Command::new(&program);
    real.args(&arguments).env_clear().envs(environment.iter().map(|(k, v)| (k, v)));
    let mut call = Call {
        tool,
        program,
        args: expanded,
        env: environment
            .iter()
            .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
            .collect(),
        started,
        parent: parent(),
        cwd,
        success: false,
        input: None,
        output: None,
        reads: Vec::new(),
        reads_partial: false,
        digest: None,
        inputs: Vec::new(),
        libraries: Vec::new(),
        relocatable: false,
    };
    let status = match tool {
        Tool::Cc1 | Tool::Cc1plus | Tool::Lto1 => compile(&mut call, real, &store.root.join("reads").join(&name))?,
        Tool::As => assemble(&mut call, real, &store, &store.root.join("reads").join(&name))?,
        Tool::Ld | Tool::OtherLinker => link(&mut call, real, &store, &store.root.join("maps").join(&name))?,
    };
    call.success = status.success();
    // Written under another name first: a record is whole or not there.
    let temporary = store.root.join("calls").join(format!("{name}.part"));
    fs::write(&temporary, serde_json::to_vec(&call)?)?;
    fs::rename(&temporary, temporary.with_extension("json"))?;
    Ok(status)
}

fn compile(call: &mut Call, mut real: Command, own: &Path) -> Result<ExitStatus> {
    let inout = args::of_cc1(&call.args);
    let path = |i: Option<usize>| i.and_then(|i| call.args.get(i)).filter(|a| *a != "-").map(|a| call.cwd.join(a));
    call.input = path(inout.input);
    call.output = path(inout.output);
    let asked = |name: &str| call.env.iter().any(|(k, _)| k == name);
    let list = match args::dependencies(&call.args) {
        Dependencies::File { path, user } => {
            call.reads_partial = user;
            Some(call.cwd.join(path))
        }
        Dependencies::None if !asked("DEPENDENCIES_OUTPUT") && !asked("SUNPRO_DEPENDENCIES") => {
            real.env("SUNPRO_DEPENDENCIES", own);
            Some(own.to_owned())
        }
        _ => None,
    };
    let status = real.status()?;
    call.reads_partial |= list.is_none();
    if let Some(list) = list.filter(|_| status.success()) {
        match fs::read(&list) {
            Ok(text) => call.reads = absolute(args::prerequisites(&String::from_utf8_lossy(&text)), &call.cwd),
            Err(_) => call.reads_partial = true,
        }
    }
    let _ = fs::remove_file(own);
    Ok(status)
}

fn assemble(call: &mut Call, mut real: Command, store: &Store, own: &Path) -> Result<ExitStatus> {
    let inout = args::of_as(&call.args);
    let path = |i: Option<usize>| i.and_then(|i| call.args.get(i)).filter(|a| *a != "-").map(|a| call.cwd.join(a));
    call.input = path(inout.input);
    call.output = path(inout.output);
    let list = (inout.output.is_some() && !call.args.iter().any(|a| a == "--MD")).then_some(own);
    if let Some(list) = list {
        real.arg("--MD").arg(list);
    }
    let status = real.status()?;
    if status.success() {
        if let Some(text) = list.and_then(|list| fs::read(list).ok()) {
            call.reads = absolute(args::prerequisites(&String::from_utf8_lossy(&text)), &call.cwd);
        }
        // Only regular files: configure scripts assemble to /dev/null.
        if let Some(output) = call.output.as_deref().filter(|o| o.is_file()) {
            let bytes = fs::read(output).with_context(|| format!("cannot read {}", output.display()))?;
            let sum = digest(&bytes);
            keep(&store.object(&sum), &bytes)?;
            call.digest = Some(sum);
        }
    }
    let _ = fs::remove_file(own);
    Ok(status)
}

fn link(call: &mut Call, mut real: Command, store: &Store, own: &Path) -> Result<ExitStatus> {
    let command = args::of_ld(&call.args);
    call.output = command.output.as_deref().map(|o| call.cwd.join(o));
    call.relocatable = command.relocatable;
    if call.tool == Tool::Ld && !is_gnu_ld(store, &call.program)? {
        call.tool = Tool::OtherLinker;
    }
    let own_map = call.tool == Tool::Ld && call.output.is_some() && command.map.is_none();
    if own_map {
        let mut option = OsString::from("-Map=");
        option.push(own);
        real.arg(option);
    }
    let status = real.status()?;
    let Some(output) = call.output.clone().filter(|o| status.success() && o.is_file()) else {
        let _ = fs::remove_file(own);
        return Ok(status);
    };
    let bytes = fs::read(&output).with_context(|| format!("cannot read {}", output.display()))?;
    let sum = digest(&bytes);
    let kept = store.linked(&sum, &output);
    fs::create_dir_all(kept.parent().context("a linked file has a directory")?)?;
    keep(&kept, &bytes)?;
    if call.tool == Tool::Ld {
        if let Some(map) = command.map.as_deref() {
            fs::copy(call.cwd.join(map), own).with_context(|| format!("cannot read {}", map.display()))?;
        }
        if command.print_map && own_map {
            std::io::copy(&mut fs::File::open(own)?, &mut std::io::stdout())?;
        }
        read_inputs(call, own)?;
        fs::rename(own, store.map(&sum))?;
    }
    call.digest = Some(sum);
    Ok(status)
}

/// Every file that the linker loaded, from the map's `LOAD` lines: they show what `-l` and linker scripts became.
fn read_inputs(call: &mut Call, map: &Path) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for line in BufReader::new(fs::File::open(map)?).split(b'\n') {
        let line = line?;
        let Some(name) = line.strip_prefix(b"LOAD ") else { continue };
        let name = String::from_utf8_lossy(name).into_owned();
        if !seen.insert(name.clone()) {
            continue;
        }
        let path = call.cwd.join(&name);
        // What the system brings was compiled by nobody here, and digesting libc.a at every link would be slow.
        if path.starts_with("/usr/lib") || path.starts_with("/lib") || path.starts_with("/lib64") {
            call.libraries.push(path);
            continue;
        }
        let Ok(bytes) = fs::read(&path) else { continue };
        if bytes.starts_with(b"!<arch>\n") || bytes.starts_with(b"!<thin>\n") {
            let archive = ArchiveFile::parse(&*bytes).map_err(|e| anyhow!("{}: {e}", path.display()))?;
            for member in archive.members() {
                let member = member.map_err(|e| anyhow!("{}: {e}", path.display()))?;
                let member_name = String::from_utf8_lossy(member.name()).into_owned();
                if archive.is_thin() {
                    // The map shows a thin archive's member by the member's own path.
                    let directory = Path::new(&name).parent().unwrap_or(Path::new(""));
                    let shown = directory.join(&member_name);
                    let bytes = fs::read(call.cwd.join(&shown))
                        .with_context(|| format!("cannot read {}, a member of {name}", shown.display()))?;
                    call.inputs.push(Digested { name: shown.to_string_lossy().into_owned(), digest: digest(&bytes) });
                } else {
                    let data = member.data(&*bytes).map_err(|e| anyhow!("{}: {e}", path.display()))?;
                    call.inputs.push(Digested { name: format!("{name}({member_name})"), digest: digest(data) });
                }
            }
        } else if is_shared_library(&bytes) {
            call.libraries.push(path);
        } else {
            call.inputs.push(Digested { name, digest: digest(&bytes) });
        }
    }
    Ok(())
}

fn is_shared_library(bytes: &[u8]) -> bool {
    // e_type stands in the two bytes after e_ident: ET_DYN is 3 in either byte order.
    bytes.starts_with(b"\x7fELF") && matches!(bytes.get(16..18), Some([3, 0] | [0, 3]))
}

/// Puts a file into the store, whole or not at all; calls run beside each other. It is a copy: a link would change when the build strips the file in place.
fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(path.parent().context("the store has a directory")?)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

fn absolute(names: Vec<String>, cwd: &Path) -> Vec<PathBuf> {
    names.into_iter().map(|name| cwd.join(name)).collect()
}

/// The environment without us in it.
fn restored_environment(store: &Store) -> Vec<(OsString, OsString)> {
    let bin = store.bin();
    std::env::vars_os()
        .filter(|(name, _)| name != STORE_VARIABLE)
        .filter_map(|(name, value)| {
            if name != "PATH" && name != "COMPILER_PATH" {
                return Some((name, value));
            }
            let kept: Vec<PathBuf> = std::env::split_paths(&value).filter(|p| *p != bin).collect();
            let kept = std::env::join_paths(kept).ok()?;
            (!kept.is_empty()).then_some((name, kept))
        })
        .collect()
}

/// The program that would have run: what the driver names, else what the search path has. Asked once per driver and
/// name, then remembered in the store.
fn real_program(store: &Store, argv0: &OsStr, environment: &[(OsString, OsString)]) -> Result<PathBuf> {
    let name = Path::new(argv0).file_name().context("a program has a name")?;
    let parent = nix::unistd::getppid();
    let exe = fs::read_link(format!("/proc/{parent}/exe")).unwrap_or_default();
    // collect2 and lto-wrapper are not drivers; they say in COLLECT_GCC who called them.
    let exe_name = exe.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned();
    let helper = exe_name == "collect2" || exe_name == "lto-wrapper";
    // A tool chain that brings its own C library has its programs run by name through that library's loader.
    let loader = exe_name.starts_with("ld-linux");
    let is_driver = ["gcc", "g++", "cpp", "c++", "clang"].iter().any(|d| exe_name.contains(d));
    let driver = match environment.iter().find(|(k, _)| k == "COLLECT_GCC") {
        Some((_, driver)) if helper || loader => Some(PathBuf::from(driver)),
        _ if is_driver => Some(exe),
        _ => None,
    };
    let key = digest(format!("{driver:?} {name:?} {:?}", std::env::var_os("PATH")).as_bytes());
    let remembered = store.root.join("tools").join(key);
    if let Ok(path) = fs::read_to_string(&remembered) {
        return Ok(PathBuf::from(path));
    }
    let mut found = PathBuf::from(name);
    if let Some(driver) = driver {
        let mut option = OsString::from("-print-prog-name=");
        option.push(name);
        let answer = Command::new(&driver)
            .arg(option)
            .env_clear()
            .envs(environment.iter().filter(|(k, _)| k != "COMPILER_PATH").map(|(k, v)| (k, v)))
            .output()
            .with_context(|| format!("cannot ask {} for {}", driver.display(), name.display()))?;
        let answer = String::from_utf8_lossy(&answer.stdout).trim().to_string();
        if !answer.is_empty() {
            found = PathBuf::from(answer);
        }
    }
    if !found.is_absolute() {
        let path = environment.iter().find(|(k, _)| k == "PATH").map(|(_, v)| v.clone()).unwrap_or_default();
        found = std::env::split_paths(&path)
            .map(|dir| dir.join(&found))
            .find(|candidate| candidate.is_file())
            .with_context(|| format!("there is no {} in PATH", found.display()))?;
    }
    if found.starts_with(store.bin()) {
        bail!("{} is ulp-build itself", found.display());
    }
    keep(&remembered, found.to_string_lossy().as_bytes())?;
    Ok(found)
}

/// Whether a linker called `ld` is GNU ld, whose maps we read. Asked once, then remembered in the store.
fn is_gnu_ld(store: &Store, program: &Path) -> Result<bool> {
    let remembered = store.root.join("tools").join(digest(format!("gnu {program:?}").as_bytes()));
    if let Ok(answer) = fs::read(&remembered) {
        return Ok(answer == b"yes");
    }
    let output = Command::new(program).arg("--version").output()?;
    let gnu = output.stdout.starts_with(b"GNU ld");
    keep(&remembered, if gnu { b"yes" } else { b"no" })?;
    Ok(gnu)
}

/// The calling process and its start time, which together name it even when numbers are used again.
fn parent() -> (i32, u64) {
    let pid = nix::unistd::getppid().as_raw();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the start time is the 20th field behind it.
    let start = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok());
    (pid, start.unwrap_or(0))
}
