// SPDX-License-Identifier: GPL-2.0-or-later
//! The files on disk that belong to what a process has loaded: the one that it was loaded from, and the one with its debug
//! information. A path may name another file by now, so a file counts only when it has the build-id that is in memory.

use super::Process;
use super::module::{Module, Role};
use object::{Object as _, ReadCache};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Where distributions install debug information.
const DEBUG: &str = "/usr/lib/debug";

impl Process {
    /// The module's own file, if it is still the same, and then the file with its debug information, where there is one.
    pub fn files_of(&self, module: &Module) -> Vec<PathBuf> {
        let Some(id) = module.build_id.as_deref() else { return Vec::new() };
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        let own = [
            module.name.starts_with('/').then(|| inside(module.name.as_ref())),
            (module.role == Role::Main).then(|| PathBuf::from(format!("/proc/{}/exe", self.pid))),
        ];
        let own = own.into_iter().flatten().find(|path| has_build_id(path, id));
        let mut candidates = Vec::new();
        if let Some((first, rest)) = id.split_at_checked(2) {
            let by_id = PathBuf::from(DEBUG).join(".build-id").join(first).join(format!("{rest}.debug"));
            candidates.extend([inside(&by_id), by_id]);
        }
        if let (Some(link), Some(folder)) = (own.as_deref().and_then(debug_link), Path::new(&module.name).parent()) {
            let installed = Path::new(DEBUG).join(folder.strip_prefix("/").unwrap_or(folder)).join(&link);
            candidates.extend([inside(&folder.join(&link)), inside(&folder.join(".debug").join(&link))]);
            candidates.extend([inside(&installed), installed]);
        }
        let debug = candidates.into_iter().find(|path| Some(path) != own.as_ref() && has_build_id(path, id));
        own.into_iter().chain(debug).collect()
    }
}

fn has_build_id(path: &Path, wanted: &str) -> bool {
    with_elf(path, |elf| Some(elf.build_id().ok()?? == ulp_format::hex::decode(wanted)?)) == Some(true)
}

/// The name in `.gnu_debuglink`; one with a folder in it is none.
fn debug_link(path: &Path) -> Option<String> {
    let name = with_elf(path, |elf| String::from_utf8(elf.gnu_debuglink().ok()??.0.to_vec()).ok())?;
    (!name.contains('/')).then_some(name)
}

/// Asks an ELF file of which little is read.
pub(crate) fn with_elf<R>(
    path: &Path,
    ask: impl FnOnce(&object::File<'_, &ReadCache<File>>) -> Option<R>,
) -> Option<R> {
    // A path is the target's word: what stands there may be a pipe that nobody writes to.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).ok()?;
    ask(&elf)
}
