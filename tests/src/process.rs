// SPDX-License-Identifier: GPL-2.0-or-later
//! A program under test: started, asked, looked at from outside, and ended whatever happens.

use crate::CannotRun;
use crate::store::Store;
use crate::tools::run;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Long enough for a machine that does much else; a healthy answer takes microseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program that answers each line on stdin with one line on stdout.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    born: String,
}

/// A line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub rights: String,
    pub offset: u64,
    pub path: String,
}

impl Running {
    pub fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let dir = program.parent().context("a program lies in a directory")?;
        Self::spawn(Command::new(program).args(arguments).current_dir(dir))
    }

    /// Starts a command and waits for its first line, `ready`.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        if Store::is_making() {
            bail!(CannotRun("its programs are made for another machine".into()));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().context("stdout is a pipe")?);
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let mut running = Self { child, stdin, lines, born: String::new() };
        let first = running.line()?;
        if first != "ready" {
            bail!("the program said {first:?} in place of \"ready\"");
        }
        running.born = running.start_time()?;
        Ok(running)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line and returns the one that comes back.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        self.tell(question)?;
        self.line().with_context(|| format!("asking {question:?}"))
    }

    /// Sends a line, whose answer is for [`Running::line`] or [`Running::line_within`].
    pub fn tell(&mut self, question: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is open")?;
        writeln!(stdin, "{question}").and_then(|()| stdin.flush()).with_context(|| format!("asking {question:?}"))
    }

    /// The next line, if it comes in time.
    pub fn line_within(&mut self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok()
    }

    /// Sends it SIGKILL and does not wait: a tracer may have to see its end first.
    pub fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Ends it and waits until its number is free.
    pub fn end(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The next line.
    pub fn line(&mut self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).map_err(|_| match self.child.try_wait() {
            Ok(Some(status)) => anyhow::anyhow!("the program ended: {status}"),
            _ => anyhow::anyhow!("no answer after {PATIENCE:?}; state {:?}", self.state().unwrap_or('?')),
        })
    }

    /// Says so unless it is the very process that was started, running or asleep.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the target is dead: {status}");
        }
        if self.start_time()? != self.born {
            bail!("the target is another process now");
        }
        match self.held()? {
            Some(held) => bail!("{held}"),
            None => Ok(()),
        }
    }

    /// A thread that is stopped or traced, in words.
    fn held(&self) -> Result<Option<String>> {
        for task in self.task_directories()? {
            let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
            let field =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim).to_string();
            if field("State:").starts_with(['t', 'T']) {
                return Ok(Some(format!("a thread of the target was left stopped: {}", task.display())));
            }
            if !matches!(field("TracerPid:").as_str(), "" | "0") {
                return Ok(Some(format!("a thread of the target is still traced: {}", task.display())));
            }
        }
        Ok(None)
    }

    /// A thread that stays stopped or traced although its tracer is gone, in words. An error when the process has ended.
    pub fn settled(&mut self) -> Result<Option<String>> {
        let mut held = None;
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait()? {
                bail!("the target is dead: {status}");
            }
            held = self.held()?;
            if held.is_none() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(held)
    }

    fn task_directories(&self) -> Result<Vec<PathBuf>> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()))?;
        tasks.map(|entry| Ok(entry?.path())).collect()
    }

    pub fn threads(&self) -> Result<usize> {
        Ok(self.task_directories()?.len())
    }

    fn stat(&self) -> Result<Vec<String>> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name in parentheses may hold anything, so fields are counted from its end.
        let (_, rest) = stat.rsplit_once(')').context("stat has a name")?;
        Ok(rest.split_whitespace().map(str::to_string).collect())
    }

    fn start_time(&self) -> Result<String> {
        self.stat()?.get(19).cloned().context("stat has a start time")
    }

    fn state(&self) -> Result<char> {
        self.stat()?.first().and_then(|field| field.chars().next()).context("stat has a state")
    }

    pub fn maps(&self) -> Result<Vec<Mapping>> {
        maps_of(self.pid())
    }

    /// The mappings that a patch could add to or change. Heap and stacks grow by themselves.
    pub fn lasting_maps(&self) -> Result<BTreeSet<Mapping>> {
        let moving = |mapping: &Mapping| mapping.path.starts_with("[heap") || mapping.path.starts_with("[stack");
        Ok(self.maps()?.into_iter().filter(|mapping| !moving(mapping)).collect())
    }

    pub fn read(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        read_memory(self.pid(), address, length)
    }

    /// Everything executable that comes from this file: address and bytes. Only what the file itself fills: the rest of the
    /// last page holds nothing of the program.
    pub fn code_of(&self, file: &Path) -> Result<Vec<(u64, Vec<u8>)>> {
        let image = std::fs::read(file)?;
        let segments = crate::elf::executable_segments(&image)?;
        let bias = self.load_bias(file)?;
        segments
            .iter()
            .map(|&(address, size)| {
                let start = bias.wrapping_add(address);
                Ok((start, self.read(start, usize::try_from(size)?)?))
            })
            .collect()
    }

    /// What to add to a link address of this file.
    pub fn load_bias(&self, file: &Path) -> Result<u64> {
        let image = std::fs::read(file)?;
        let (offset, address) = crate::elf::first_segment(&image)?;
        let name = file.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        let mapping = self
            .maps()?
            .into_iter()
            .find(|m| {
                let path = m.path.trim_end_matches(" (deleted)");
                Path::new(path).file_name().is_some_and(|n| n.to_string_lossy() == name) && m.offset == offset & !0xfff
            })
            .with_context(|| format!("{name} is not mapped"))?;
        Ok(mapping.start.wrapping_sub(address & !0xfff))
    }
}

impl Drop for Running {
    /// The process is ours and has not been waited for, so its number cannot belong to anyone else.
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn maps_of(pid: u32) -> Result<Vec<Mapping>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut word = || words.next().with_context(|| format!("maps line {line:?}"));
            let (start, end) = word()?.split_once('-').context("a range")?;
            let (rights, offset) = (word()?.to_string(), u64::from_str_radix(word()?, 16)?);
            let (_device, _inode) = (word()?, word()?);
            let path = words.collect::<Vec<_>>().join(" ");
            Ok(Mapping {
                start: u64::from_str_radix(start, 16)?,
                end: u64::from_str_radix(end, 16)?,
                rights,
                offset,
                path,
            })
        })
        .collect()
}

pub fn read_memory(pid: u32, address: u64, length: usize) -> Result<Vec<u8>> {
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    memory.seek(SeekFrom::Start(address))?;
    let mut bytes = vec![0; length];
    memory.read_exact(&mut bytes).with_context(|| format!("memory of {pid} at {address:#x}"))?;
    Ok(bytes)
}

/// Whether this user may make a user and mount namespace here.
pub fn user_namespaces_work() -> bool {
    run(Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]))
        .is_ok_and(|ran| ran.code == Some(0))
        || run(Command::new("unshare").args(["--mount", "true"])).is_ok_and(|ran| ran.code == Some(0))
}
