// SPDX-License-Identifier: GPL-2.0-or-later
//! What the verbs look at before they do anything: a package file that was read, and a process with its modules and its
//! registry as they are at this moment. Nothing is stopped and nothing is changed here.

use crate::error::{Class, Error, Result};
use crate::memory::SMALLEST_PAGE;
use crate::process::{Check, ExtraTable, Lock, Maps, Module, Process, Suspect, Unwinder};
use crate::registry::{self, Access, Entry, Live, State};
use crate::stack;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ulp_arch::RemoteAddr;
use ulp_format::Package;

/// Larger files are no packages.
const LARGEST_FILE: u64 = 256 << 20;

/// A package that was read and found whole.
#[derive(Debug)]
pub struct PackageFile {
    pub path: PathBuf,
    pub package: Package,
    /// SHA-256 that names exactly this package, lower-case hex.
    pub digest: String,
}

impl PackageFile {
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let unreadable = |e: std::io::Error| {
            let class = if e.kind() == std::io::ErrorKind::PermissionDenied { Class::Refused } else { Class::Failed };
            Error::new(class, format!("cannot read {shown}: {e}"), "check the file's name and permissions")
        };
        // Not by the size it claims: a device claims none and has no end.
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST_FILE {
            let message = format!("{shown}: not a .ulp package: it has more than {LARGEST_FILE} bytes");
            return Err(Error::new(Class::BadPackage, message, "give a file that ulp-build wrote"));
        }
        let package = Package::read(&bytes).map_err(|e| Error::from(e).while_trying(shown))?;
        let digest = ulp_format::digest_hex(&bytes).map_err(|e| Error::from(e).while_trying(path.display()))?;
        Ok(Self { path: path.to_owned(), package, digest })
    }

    pub fn name(&self) -> &str {
        &self.package.manifest.name
    }
}

/// A process as it is at this moment.
#[derive(Debug)]
pub struct Snapshot<'p> {
    pub process: &'p Process,
    pub maps: Maps,
    pub modules: Vec<Module>,
    /// The registry, oldest first.
    pub entries: Vec<Entry>,
}

/// The registry of a process, oldest first.
pub fn registry_of(process: &Process, maps: &Maps) -> Result<Vec<Entry>> {
    let candidates = maps.iter().filter(|m| m.read && !m.write && !m.exec && !m.shared && m.inode == 0);
    let candidates = candidates.filter(|m| m.name.is_empty() || m.name.starts_with("[anon:"));
    registry::scan(process, candidates.map(|m| m.start..m.end))
}

impl<'p> Snapshot<'p> {
    pub fn take(process: &'p Process) -> Result<Self> {
        process.refuse_other_pages()?;
        let maps = process.maps()?;
        let modules = process.modules(&maps)?;
        let entries = registry_of(process, &maps)?;
        Ok(Self { process, maps, modules, entries })
    }

    /// The entry of that name which is more than kept memory.
    pub fn active(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.record.name == name && e.state.is_active())
    }

    /// Asks whether a thread is inside any of `suspects`. Every patch's own code can be unwound through.
    pub fn check(&self, suspects: Vec<Suspect>) -> Result<Check> {
        let mut extra = Vec::new();
        for target in self.entries.iter().flat_map(|e| &e.record.targets) {
            let code = target.areas.iter().find(|a| a.access == Access::Code);
            if let (Some(code), Some((at, len))) = (code, target.frames) {
                let text = (code.start, code.start.plus(code.len));
                extra.push(ExtraTable { text, eh_frame: (at, len) });
            }
        }
        Ok(Check::new(suspects, Unwinder::new(self.process, &self.modules, &extra)?))
    }
}

/// All the code of a patch, as suspects: the very first byte counts, because the code may be unmapped.
pub fn own_code(entry: &Entry) -> Vec<Suspect> {
    let mut suspects = Vec::new();
    for target in &entry.record.targets {
        for area in target.areas.iter().filter(|a| a.access == Access::Code) {
            let end = area.start.plus(area.len);
            let mut inside: Vec<_> = target.functions.iter().filter(|f| area.range().contains(&f.new.0)).collect();
            inside.sort_by_key(|f| f.new);
            // Named by the function that begins at or before an address: what stands between the replaced functions
            // are their helpers.
            let mut name = format!("the code of {}", entry.record.name);
            let mut start = area.start;
            for f in inside {
                if start < f.new {
                    suspects.push(Suspect { name, start, end: f.new, at_start: true, at_end: true, for_ever: false });
                }
                (name, start) = (format!("{} of {}", f.name, entry.record.name), f.new);
            }
            suspects.push(Suspect { name, start, end, at_start: true, at_end: true, for_ever: false });
        }
    }
    suspects
}

/// Opens a process and takes its lock, so that no other applier works on it meanwhile.
pub fn lock(process: &Process, wait: Duration) -> Result<Lock<'_>> {
    Ok(process.lock(wait)?)
}

/// What to do when somebody else's hand was seen.
const FOREIGN: &str =
    "; something else changes this process, so find out what, and restart the program at the next occasion";

/// What the entries that are the patch's own look like now. Where later patches have taken all over, they are right.
fn live_of(snapshot: &Snapshot<'_>, entry: &Entry) -> Result<Live> {
    let own = stack::own(&snapshot.entries, entry);
    if own.functions().next().is_none() { Ok(Live::New) } else { own.live(snapshot.process) }
}

/// Whether the entry jumps and the code are as a complete patch leaves them; else what is wrong and what to do, in words.
pub fn damage(snapshot: &Snapshot<'_>, entry: &Entry) -> Result<Option<String>> {
    let (process, modules) = (snapshot.process, &snapshot.modules);
    if entry.state.is_active()
        && let Some(what) = crate::claim::impossible(process.arch(), modules, entry)
    {
        return Ok(Some(format!("its record makes no sense: {what}{FOREIGN}")));
    }
    let unloaded = entry.record.targets.iter().find(|t| !crate::claim::is_loaded(modules, t));
    if let (State::Applied, Some(target)) = (entry.state, unloaded) {
        let file = &target.file;
        return Ok(Some(format!(
            "{file} was unloaded since; revert the patch, and apply it again when {file} is back"
        )));
    }
    let targets = &entry.record.targets;
    let second = |m: &&Module| {
        let mut same = targets.iter().filter(|t| m.build_id.as_deref() == Some(t.build_id.as_str())).peekable();
        same.peek().is_some() && same.all(|t| t.bias != m.bias)
    };
    if let (State::Applied, Some(module)) = (entry.state, modules.iter().find(second)) {
        let file = &module.name;
        return Ok(Some(format!(
            "a second copy of {file} was loaded since; revert the patch, and apply it again to both"
        )));
    }
    match entry.state {
        // What a later patch has taken over is that one's.
        State::Applied => match live_of(snapshot, entry)? {
            Live::New => {}
            Live::Foreign { function, at } => {
                return Ok(Some(format!("the entry of {function} at {at} was changed{FOREIGN}")));
            }
            Live::Gated { .. } => return Ok(Some("some of its entries go through gates".into())),
            Live::Old | Live::Mixed => {
                return Ok(Some("its entry jumps are gone, as after a library was loaded anew; revert the patch, and apply it again".into()));
            }
        },
        // Its entries may belong to a later patch; only what it keeps matters.
        State::Retired => {}
        State::Freeing => {
            return Ok(Some("an ulp-apply died while it gave its memory back; the next one goes on".into()));
        }
        State::Applying | State::Reverting => {
            return Ok(Some("an ulp-apply died while it worked on it; the next one tidies up".into()));
        }
    }
    Ok(entry.record.changed_area(process)?.map(|a| format!("its {} bytes at {} were changed{FOREIGN}", a.len, a.start)))
}

/// Which of the smallest pages holds `addr`. What lies in one of them lies in one page of any machine, and is written at once.
pub fn page_of(addr: RemoteAddr) -> u64 {
    addr.0 / SMALLEST_PAGE
}
