// SPDX-License-Identifier: GPL-2.0-or-later
//! Tells which linked file of the build is the production binary: the same build-id, or the same loaded bytes. In both
//! grades the rebuilt file's symbols are the production file's symbols. A file of the same name that is another link of the
//! same objects is the third grade, which is proved function by function later (`proof`).

use crate::model::{Code, Refusal, Stop};
use crate::production::Elf;
use anyhow::{Context, Result, anyhow};
use object::{Object, ObjectSection, SectionFlags, SectionKind};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use ulp_arch::Arch;
use ulp_format::Identity;

/// What identity needs to know of an ELF file.
pub struct Facts {
    pub path: PathBuf,
    pub build_id: Option<String>,
    /// `e_machine`.
    machine: Option<u16>,
    /// Allocated sections in address order.
    sections: Vec<Section>,
}

struct Section {
    name: String,
    address: u64,
    size: u64,
    /// Empty for zero data.
    bytes: Vec<u8>,
}

const ID_NOTE: &str = ".note.gnu.build-id";

/// `e_machine` of a file that may be ELF.
fn machine(path: &Path) -> Result<Option<u16>> {
    let mut header = [0; 20];
    let mut file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let whole = file.read_exact(&mut header).is_ok() && header.starts_with(b"\x7fELF");
    Ok(whole.then(|| u16::from_le_bytes([header[18], header[19]])))
}

/// The processor that an ELF file is for; `None`: none that is known.
pub fn architecture(path: &Path) -> Result<Option<&'static dyn Arch>> {
    Ok(machine(path)?.and_then(ulp_arch::by_machine))
}

/// Whether a linked file is a library, not a program.
pub fn is_library(path: &Path) -> Result<bool> {
    let elf = Elf::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(elf.kind == ulp_format::Kind::SharedLibrary)
}

/// Reads a linked ELF file.
pub fn read(path: &Path) -> Result<Facts> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*bytes).map_err(|e| anyhow!("{} is not an ELF file: {e}", path.display()))?;
    if !matches!(file.kind(), object::ObjectKind::Executable | object::ObjectKind::Dynamic) {
        return Err(anyhow!("{} is neither a program nor a shared library", path.display()));
    }
    let damaged = |e: object::Error| anyhow!("{} is damaged: {e}", path.display());
    let id = file.build_id().map_err(damaged)?;
    let mut sections = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        if !sh_flags.contains(object::elf::SHF_ALLOC) {
            continue;
        }
        let zero = matches!(section.kind(), SectionKind::UninitializedData | SectionKind::UninitializedTls);
        sections.push(Section {
            name: section.name().map_err(damaged)?.to_string(),
            address: section.address(),
            size: section.size(),
            bytes: if zero { Vec::new() } else { section.data().map_err(damaged)?.to_vec() },
        });
    }
    sections.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
    let machine = bytes.get(18..20).map(|m| u16::from_le_bytes([m[0], m[1]]));
    Ok(Facts { machine, path: path.to_owned(), build_id: id.map(ulp_format::hex::encode), sections })
}

/// The first loaded byte in which two files differ, build-id notes apart; `None` when there is none.
pub fn difference(production: &Facts, rebuilt: &Facts) -> Option<String> {
    let of = |facts: &Facts| facts.sections.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    let (a, b) = (of(production), of(rebuilt));
    if a.is_empty() || b.is_empty() {
        return Some("one of them has no sections".into());
    }
    for pair in production.sections.iter().zip(&rebuilt.sections) {
        let (old, new) = pair;
        if old.name != new.name {
            return Some(format!("the one has a section {} where the other has {}", old.name, new.name));
        }
        if old.address != new.address {
            return Some(format!(
                "{} is at {:#x} in the one and at {:#x} in the other",
                old.name, old.address, new.address
            ));
        }
        if old.size != new.size {
            return Some(format!("{} has {} bytes in the one and {} in the other", old.name, old.size, new.size));
        }
        if old.name != ID_NOTE && old.bytes != new.bytes {
            let at = old.bytes.iter().zip(&new.bytes).position(|(a, b)| a != b).unwrap_or(0);
            return Some(format!("{} differs from offset {at:#x} on", old.name));
        }
    }
    (a.len() != b.len()).then(|| format!("the one has {} loaded sections and the other {}", a.len(), b.len()))
}

/// A linked file of the build that may be the production file.
pub struct Candidate {
    /// Where the build put it.
    pub output: PathBuf,
    /// Our copy of it.
    pub kept: PathBuf,
}

/// Finds the linked file that a production file is, by build-id, then by bytes; files of the same name first.
pub fn identify<'a>(production: &Path, candidates: &'a [Candidate]) -> Result<(&'a Candidate, Identity), Stop> {
    let target = read(production)?;
    let made = || candidates.iter().filter_map(|c| machine(&c.kept).ok().flatten());
    let host = ulp_arch::host().map(|arch| arch.machine());
    if !made().any(|m| target.machine == Some(m)) && (made().next().is_some() || target.machine != host) {
        let message = format!("{} is for another processor than what the build makes", production.display());
        let advice = "make the patch on a machine of that kind, or build with a cross compiler for it";
        return Err(Refusal::new(Code::Arch, message, advice).about(production.display().to_string()).into());
    }
    let Some(build_id) = &target.build_id else { return Err(no_build_id(production).into()) };
    let mut order: Vec<&Candidate> = candidates.iter().collect();
    order.sort_by_key(|c| c.output.file_name() != production.file_name());
    let mut nearest: Option<(PathBuf, String)> = None;
    for by_id in [true, false] {
        for candidate in &order {
            // Configure scripts link what is no ELF program too.
            let Ok(rebuilt) = read(&candidate.kept) else { continue };
            let same_id = rebuilt.build_id.as_ref() == Some(build_id);
            if same_id != by_id {
                continue;
            }
            match difference(&target, &rebuilt) {
                None if same_id => return Ok((candidate, Identity::SameBuildId)),
                None => return Ok((candidate, Identity::SameBytes)),
                Some(what) => {
                    if nearest.is_none() {
                        nearest = Some((candidate.output.clone(), what));
                    }
                }
            }
        }
    }
    // Another link of the same objects: to be proved function by function.
    let of_the_name = |c: &&&Candidate| c.output.file_name() == production.file_name() && alike(&target, &c.kept);
    let same_name: Vec<_> = order.iter().filter(of_the_name).collect();
    if let [only] = same_name[..] {
        return Ok((only, Identity::PerFunction));
    }
    let refusal = match nearest {
        None => Refusal::new(
            Code::Identity,
            format!("the build linked nothing that could be {}", production.display()),
            "check that --build CMD builds it, with GNU ld",
        ),
        Some((output, what)) => Refusal::new(
            Code::Identity,
            format!(
                "{} is not what these sources give: compared with {}, {what}",
                production.display(),
                output.display()
            ),
            "build with production's own compiler, flags and path (--build, --build-path)",
        ),
    };
    Err(refusal.about(production.display().to_string()).into())
}

/// Whether a candidate is of the production file's kind, by the loaded sections that both have.
fn alike(production: &Facts, candidate: &Path) -> bool {
    let Ok(rebuilt) = read(candidate) else { return false };
    let code = |f: &Facts| f.sections.iter().any(|s| s.name == ".text");
    let program = |f: &Facts| f.sections.iter().any(|s| s.name == ".interp");
    code(production) && code(&rebuilt) && program(production) == program(&rebuilt)
}

/// The refusal of a file without build-id.
pub fn no_build_id(path: &Path) -> Refusal {
    Refusal::new(
        Code::NoBuildId,
        format!("{} has no GNU build-id, so a patch cannot be bound to it", path.display()),
        "link with -Wl,--build-id",
    )
    .about(path.display().to_string())
}

/// Every `--debuginfo` file has to belong to one of the targets.
pub fn check_debuginfo(debuginfo: &[PathBuf], targets: &[PathBuf]) -> Result<(), Stop> {
    let ids: Vec<Option<String>> = targets.iter().map(|t| Ok(read(t)?.build_id)).collect::<Result<_>>()?;
    for path in debuginfo {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = object::File::parse(&*bytes).map_err(|e| anyhow!("{} is not an ELF file: {e}", path.display()))?;
        let id: Option<String> =
            file.build_id().map_err(|e| anyhow!("{} is damaged: {e}", path.display()))?.map(ulp_format::hex::encode);
        if id.is_none() || !ids.contains(&id) {
            let wanted: Vec<&str> = ids.iter().flatten().map(String::as_str).collect();
            return Err(Refusal::new(
                Code::BuildId,
                format!(
                    "{} has build-id {}, the target has {}",
                    path.display(),
                    id.as_deref().unwrap_or("none"),
                    if wanted.is_empty() { "none".into() } else { wanted.join(", ") }
                ),
                "give the debug file of exactly this build",
            )
            .about(path.display().to_string())
            .into());
        }
    }
    Ok(())
}

/// The debug file that belongs to a production file, by build-id.
pub fn debuginfo_of(debuginfo: &[PathBuf], production: &Path) -> Option<PathBuf> {
    let id = |path: &Path| {
        let bytes = fs::read(path).ok()?;
        object::File::parse(&*bytes).ok()?.build_id().ok()?.map(<[u8]>::to_vec)
    };
    let wanted = id(production)?;
    debuginfo.iter().find(|path| id(path).as_ref() == Some(&wanted)).cloned()
}
