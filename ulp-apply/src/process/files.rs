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

/// An ELF file of which little is read, and nothing twice. It stays the one that was opened, whatever its path names later.
pub(crate) struct Disk {
    pub path: PathBuf,
    contents: ReadCache<File>,
}

impl Disk {
    fn open(path: PathBuf) -> Option<Self> {
        // A path is the target's word: what stands there may be a pipe that nobody writes to.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).ok()?;
        file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Self { path, contents: ReadCache::new(file) })
    }

    /// The file at `path`, if it has this build-id.
    fn with_build_id(path: PathBuf, id: &[u8]) -> Option<Self> {
        Self::open(path).filter(|file| file.ask(|elf| Some(elf.build_id().ok()?? == id)) == Some(true))
    }

    /// Asks the file something.
    pub fn ask<R>(&self, what: impl FnOnce(&object::File<'_, &ReadCache<File>>) -> Option<R>) -> Option<R> {
        what(&object::File::parse(&self.contents).ok()?)
    }

    /// The name in `.gnu_debuglink`; one with a folder in it is none.
    fn debug_link(&self) -> Option<String> {
        let name = self.ask(|elf| String::from_utf8(elf.gnu_debuglink().ok()??.0.to_vec()).ok())?;
        (!name.contains('/')).then_some(name)
    }
}

impl Process {
    /// The file that the module was loaded from, if it is still the same.
    pub(crate) fn file_of(&self, module: &Module) -> Option<Disk> {
        let id = ulp_format::hex::decode(module.build_id.as_deref()?)?;
        let own = [
            module.name.starts_with('/').then(|| self.inside(module.name.as_ref())),
            (module.role == Role::Main).then(|| PathBuf::from(format!("/proc/{}/exe", self.pid))),
        ];
        own.into_iter().flatten().find_map(|path| Disk::with_build_id(path, &id))
    }

    /// The file with the debug information of the module whose own file is `own`.
    pub(crate) fn debug_file_of(&self, module: &Module, own: Option<&Disk>) -> Option<Disk> {
        let text = module.build_id.as_deref()?;
        let id = ulp_format::hex::decode(text)?;
        let mut candidates = Vec::new();
        if let Some((first, rest)) = text.split_at_checked(2) {
            let by_id = PathBuf::from(DEBUG).join(".build-id").join(first).join(format!("{rest}.debug"));
            candidates.extend([self.inside(&by_id), by_id]);
        }
        if let (Some(link), Some(folder)) = (own.and_then(Disk::debug_link), Path::new(&module.name).parent()) {
            let installed = Path::new(DEBUG).join(folder.strip_prefix("/").unwrap_or(folder)).join(&link);
            candidates.extend([self.inside(&folder.join(&link)), self.inside(&folder.join(".debug").join(&link))]);
            candidates.extend([self.inside(&installed), installed]);
        }
        let others = candidates.into_iter().filter(|path| own.is_none_or(|own| own.path != *path));
        others.into_iter().find_map(|path| Disk::with_build_id(path, &id))
    }

    /// Both, as far as they are there.
    pub(crate) fn files_of(&self, module: &Module) -> impl Iterator<Item = Disk> {
        let own = self.file_of(module);
        let debug = self.debug_file_of(module, own.as_ref());
        own.into_iter().chain(debug)
    }

    /// What the process knows by this path.
    fn inside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid)).join(path.strip_prefix("/").unwrap_or(path))
    }
}
