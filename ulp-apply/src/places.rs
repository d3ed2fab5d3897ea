// SPDX-License-Identifier: GPL-2.0-or-later
//! Names code addresses for people: function and source line, from the symbols and debug information of the file on disk,
//! when that is the one that is loaded. Only reports need it, so whatever cannot be found is left out.

use crate::process::{Module, Process};
use addr2line::Loader;
use object::{Object as _, ReadCache};
use std::collections::BTreeMap;
use std::path::PathBuf;
use ulp_arch::RemoteAddr;

/// The files of a process, opened as they are needed.
pub struct Places<'p> {
    process: &'p Process,
    modules: Vec<Module>,
    files: BTreeMap<u64, Option<Loader>>,
}

impl<'p> Places<'p> {
    pub fn new(process: &'p Process) -> Self {
        let modules = process.maps().and_then(|maps| process.modules(&maps)).unwrap_or_default();
        Self { process, modules, files: BTreeMap::new() }
    }

    /// `function at file.c:12`, or as much of it as can be found; with `before` the place of the call that returns there.
    pub fn name(&mut self, address: RemoteAddr, before: bool) -> Option<String> {
        let probe = RemoteAddr(address.0.checked_sub(u64::from(before))?);
        let module = self.modules.iter().find(|m| m.range.0 <= probe && probe < m.range.1)?;
        let link = module.bias.link(probe).0;
        let process = self.process;
        let file = self.files.entry(module.bias.0).or_insert_with(|| open(process, module)).as_ref();
        let symbol = file.and_then(|file| file.find_symbol(link));
        let line = file.and_then(|file| file.find_location(link).ok().flatten());
        let line = line.and_then(|l| Some(format!("{}:{}", l.file?.rsplit('/').next()?, l.line?)));
        let inside = module.name.rsplit('/').next().unwrap_or("?");
        Some(match (symbol, line) {
            (Some(symbol), Some(line)) => format!("{symbol} at {line}"),
            (Some(symbol), None) => format!("{symbol} of {inside}"),
            (None, Some(line)) => format!("{line} of {inside}"),
            (None, None) => format!("{inside}+{link:#x}"),
        })
    }
}

fn open(process: &Process, module: &Module) -> Option<Loader> {
    Loader::new(file_of(process, module)?).ok()
}

/// The file that a module was loaded from, if it is still the same.
pub fn file_of(process: &Process, module: &Module) -> Option<PathBuf> {
    let pid = process.pid();
    let root = PathBuf::from(format!("/proc/{pid}/root{}", module.name));
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    let same = |path: &PathBuf| {
        let file = std::fs::File::open(path).ok()?;
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache).ok()?;
        let build_id = elf.build_id().ok().flatten().map(ulp_format::hex::encode);
        (build_id.is_some() && build_id == module.build_id).then_some(())
    };
    [root, exe].into_iter().find(|path| same(path).is_some())
}
