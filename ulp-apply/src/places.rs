// SPDX-License-Identifier: GPL-2.0-or-later
//! Names code addresses for people: function and source line, from the symbols and debug information of the files on disk that
//! belong to what is loaded. Only reports need it, so whatever cannot be found is left out.

use crate::process::{Module, Process};
use addr2line::Loader;
use std::collections::BTreeMap;
use ulp_arch::RemoteAddr;

/// The files of a process, opened as they are needed.
pub struct Places<'p> {
    process: &'p Process,
    modules: Vec<Module>,
    files: BTreeMap<u64, Vec<Loader>>,
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
        let open = || process.files_of(module).filter_map(|file| Loader::new(file.path).ok()).collect();
        let files = self.files.entry(module.bias.0).or_insert_with(open);
        let symbol = files.iter().find_map(|file| file.find_symbol(link));
        let line = files.iter().find_map(|file| file.find_location(link).ok().flatten());
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
