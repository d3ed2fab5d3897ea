// SPDX-License-Identifier: GPL-2.0-or-later
//! The two programs under test: built once, run with everything they print kept.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// The directory of the two programs.
///
/// `ULP_BIN` tests a pair that is there already. Otherwise they are built, into the target directory and with the profile
/// of the running test. Under nextest every case is a process of its own, so asking cargo each time would cost more than
/// the case: a pair younger than every source file is taken as it is.
pub fn programs() -> Result<&'static Path> {
    static PROGRAMS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PROGRAMS.get_or_init(|| find_or_build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

fn find_or_build() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("ULP_BIN") {
        return Ok(dir.into());
    }
    build(None, &["ulp-build", "ulp-apply"])
}

/// Builds these programs, unless they are younger than what they are made from. With a feature they go into a target
/// directory of their own inside the usual one, so that the usual programs never have it.
fn build(feature: Option<&str>, programs: &[&str]) -> Result<PathBuf> {
    // target/PROFILE/deps/cases-0123abcd
    let me = std::env::current_exe()?;
    let dir = me.ancestors().nth(2).context("a test lives two directories below the target directory")?;
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => bail!("cannot tell the profile of {}", me.display()),
    };
    let mut target = dir.parent().context("a profile's directory lies in the target directory")?.to_path_buf();
    target.extend(feature);
    let dir = target.join(dir.file_name().context("a profile has a name")?);
    if up_to_date(&dir, programs)? {
        return Ok(dir);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository()).args(["build", "--quiet", "--profile", profile, "--target-dir"]).arg(&target);
    for program in programs {
        command.args(["-p", program]);
    }
    if let Some(feature) = feature {
        command.args(["--features", feature]);
    }
    let out = command.output().context("cargo")?;
    if !out.status.success() {
        bail!("the programs do not build:\n{}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(dir)
}

/// Whether the programs are younger than every file they are made from.
fn up_to_date(dir: &Path, programs: &[&str]) -> Result<bool> {
    let mut oldest = None;
    for name in programs {
        let Ok(built) = dir.join(name).metadata().and_then(|m| m.modified()) else { return Ok(false) };
        oldest = oldest.into_iter().chain([built]).min();
    }
    let root = repository();
    let mut newest = SystemTime::UNIX_EPOCH;
    for part in ["arch", "ulp-format", "ulp-build", "ulp-apply", "Cargo.toml", "Cargo.lock"] {
        newest = newest.max(newest_below(&root.join(part))?);
    }
    Ok(oldest.is_some_and(|oldest| oldest > newest))
}

fn newest_below(path: &Path) -> Result<SystemTime> {
    let meta = path.symlink_metadata().with_context(|| path.display().to_string())?;
    let mut newest = meta.modified()?;
    if meta.is_dir() {
        for entry in path.read_dir()? {
            newest = newest.max(newest_below(&entry?.path())?);
        }
    }
    Ok(newest)
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").into()
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ran {
    /// Everything, for a failure's report.
    pub fn report(&self) -> String {
        let code = self.code.map_or("a signal".into(), |code| format!("exit {code}"));
        format!("$ {}\n{code}\n--- stdout\n{}--- stderr\n{}", self.command, self.stdout, self.stderr)
    }

    pub fn expect_code(&self, code: i32) -> Result<&Self> {
        if self.code != Some(code) {
            bail!("exit {code} was expected\n{}", self.report());
        }
        Ok(self)
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        let value: serde_json::Value = serde_json::from_str(&self.stdout)
            .with_context(|| format!("stdout is not one JSON value\n{}", self.report()))?;
        if value.get("schema").and_then(serde_json::Value::as_u64).is_none() {
            bail!("the JSON has no `schema` number\n{}", self.report());
        }
        Ok(value)
    }
}

/// Runs a command to its end, with a bound so that a hang becomes a failure.
pub fn run(command: &mut Command) -> Result<Ran> {
    let text = format!("{command:?}");
    let dir = tempfile::tempdir()?;
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(&err)?)
        .spawn()
        .with_context(|| text.clone())?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > Duration::from_secs(180) {
            child.kill()?;
            child.wait()?;
            bail!("no end after 180 s: {text}\n{}", String::from_utf8_lossy(&std::fs::read(&err)?));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let read = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Ran { command: text, code: status.code(), stdout: read(out)?, stderr: read(err)?, took: start.elapsed() })
}

pub fn ulp_build() -> Result<Command> {
    Ok(Command::new(programs()?.join("ulp-build")))
}

pub fn ulp_apply() -> Result<Command> {
    Ok(Command::new(programs()?.join("ulp-apply")))
}

/// `ulp-apply` with its feature `steps`, which the environment tells at which system call to end or to fail.
pub fn ulp_apply_in_steps() -> Result<Command> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| match std::env::var_os("ULP_STEPS_BIN") {
        Some(dir) => Ok(dir.into()),
        None => build(Some("steps"), &["ulp-apply"]).map_err(|error| format!("{error:#}")),
    });
    match program {
        Ok(dir) => Ok(Command::new(dir.join("ulp-apply"))),
        Err(error) => bail!("{error}"),
    }
}
