// SPDX-License-Identifier: GPL-2.0-or-later
//! What a record says about code, compared with the process. A record is the process's own word, and a digest proves no good
//! will, so before anything is written by it each entry must lie in the code of the very file it names, and each jump must be the one
//! that this program would have written there. A record that leads elsewhere changes nothing, whatever bytes it names.

use crate::error::{Error, Result};
use crate::memory::{self, Memory};
use crate::process::Module;
use crate::registry::{Entry, FunctionRecord, TargetRecord};
use crate::snapshot::Snapshot;
use ulp_arch::{Arch, RemoteAddr};

/// Proves that every entry of the record is one that a patch can have.
pub fn check(snapshot: &Snapshot<'_>, entry: &Entry) -> Result<()> {
    match impossible(snapshot.process.arch(), &snapshot.modules, entry) {
        None => Ok(()),
        Some(what) => Err(Error::refused(
            format!("the record of {} at {} makes no sense: {what}", entry.record.name, entry.at),
            "nothing was changed; something else wrote to the process's memory, restart it at the next occasion",
        )),
    }
}

/// Whether the file that a part of a patch is for is still where it was: a library may have been unloaded since.
pub fn is_loaded(modules: &[Module], target: &TargetRecord) -> bool {
    module_of(modules, target).is_some()
}

fn module_of<'m>(modules: &'m [Module], target: &TargetRecord) -> Option<&'m Module> {
    modules.iter().find(|m| m.bias == target.bias && m.build_id.as_deref() == Some(target.build_id.as_str()))
}

/// What is wrong with the record's entries, in words. Entries of a file that is not loaded any more are nobody's.
pub fn impossible(arch: &dyn Arch, modules: &[Module], entry: &Entry) -> Option<String> {
    entry.record.targets.iter().filter(|target| is_loaded(modules, target)).find_map(|target| {
        let wrong = |f: &FunctionRecord| Some(format!("{} {}", f.name, possible(arch, modules, target, f).err()?));
        target.functions.iter().find_map(wrong)
    })
}

/// Proves that no entry leads to the record's memory, whatever its state says, before that memory goes.
pub fn nothing_leads_in(memory: &dyn Memory, entry: &Entry) -> Result<()> {
    for f in entry.record.functions() {
        // What cannot be read is not executed either: its file was unloaded meanwhile.
        let read = || memory::bytes(memory, f.entry, f.old.len() as u64);
        let Ok(now) = read().or_else(|_| read()) else { continue };
        if now == f.jump || f.gate.as_ref().is_some_and(|gate| gate.jump == now) {
            return Err(Error::refused(
                format!(
                    "the record of {} says that it is reverted, and {} still jumps to it",
                    entry.record.name, f.name
                ),
                "nothing was changed; something else wrote to the process's memory, restart it at the next occasion",
            ));
        }
    }
    Ok(())
}

fn possible(
    arch: &dyn Arch,
    modules: &[Module],
    target: &TargetRecord,
    f: &FunctionRecord,
) -> std::result::Result<(), &'static str> {
    let module = module_of(modules, target).ok_or("is in a file that is not loaded there")?;
    let last = f.entry.plus((f.old.len() as u64).saturating_sub(1));
    if !module.executes(f.entry) || !module.executes(last) {
        return Err("is no code of its file");
    }
    let pad = arch.landing_pad_len(&f.old);
    let leads = |bytes: &[u8], to: RemoteAddr| {
        let jump = arch.entry_jump(f.entry.plus(pad as u64), to).ok();
        jump.is_some_and(|jump| bytes.get(..pad) == f.old.get(..pad) && bytes.get(pad..) == Some(&jump[..]))
    };
    if !leads(&f.jump, f.new) || !f.gate.as_ref().is_none_or(|gate| leads(&gate.jump, gate.at)) {
        return Err("has bytes that are no jump to its new code");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Role, Segment};
    use crate::registry::GateRecord;
    use ulp_arch::{LinkAddr, LoadBias};

    const BIAS: u64 = 0x40_0000;
    const NEW: u64 = 0x50_0000;
    const GATE: u64 = 0x50_0100;

    fn module() -> Module {
        let segment = |vaddr, write, exec| Segment {
            vaddr: LinkAddr(vaddr),
            file_size: 0x1000,
            mem_size: 0x1000,
            offset: vaddr,
            read: true,
            write,
            exec,
        };
        Module {
            name: "app".into(),
            deleted: false,
            role: Role::Main,
            bias: LoadBias(BIAS),
            range: (RemoteAddr(BIAS), RemoteAddr(BIAS + 0x3000)),
            machine: 62,
            elf_type: 3,
            entry: LinkAddr(0x1000),
            segments: vec![segment(0x1000, false, true), segment(0x2000, true, false)],
            build_id: Some("ab".into()),
            dynamic_section: None,
            dynamic: None,
            eh_frame_hdr: None,
            tls: None,
            headers: (RemoteAddr(BIAS), vec![]),
            note: (RemoteAddr(BIAS), vec![]),
        }
    }

    /// endbr64, push %rbp, mov %rsp,%rbp, and the first byte of what follows.
    const OLD: [u8; 9] = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x53];

    fn target(arch: &dyn Arch, entry: u64) -> TargetRecord {
        let jump = |to| {
            let jump = arch.entry_jump(RemoteAddr(entry + 4), RemoteAddr(to)).expect("in reach");
            [&OLD[..4], &jump].concat()
        };
        TargetRecord {
            file: "app".into(),
            build_id: "ab".into(),
            bias: LoadBias(BIAS),
            functions: vec![FunctionRecord {
                name: "f".into(),
                entry: RemoteAddr(entry),
                new: RemoteAddr(NEW),
                old: OLD.into(),
                jump: jump(NEW),
                gate: Some(GateRecord { at: RemoteAddr(GATE), len: 32, jump: jump(GATE) }),
            }],
            areas: vec![],
            frames: None,
        }
    }

    #[test]
    fn only_jumps_at_code_of_the_file_are_possible() {
        let arch = ulp_arch::by_name("x86_64").expect("it exists");
        type Spoil = fn(&mut TargetRecord);
        let cases: [(&str, u64, Spoil); 11] = [
            ("", BIAS + 0x1000, |_| ()),
            ("", BIAS + 0x1000 + 0x1000 - 9, |_| ()),
            ("not loaded", BIAS + 0x1000, |t| t.bias = LoadBias(BIAS + 0x1000)),
            ("not loaded", BIAS + 0x1000, |t| t.build_id = "ac".into()),
            ("no code", BIAS + 0x2000, |_| ()),
            ("no code", BIAS + 0x1000 + 0x1000 - 8, |_| ()),
            ("no code", BIAS + 0xfff, |_| ()),
            ("no jump", BIAS + 0x1000, |t| t.functions[0].jump[8] ^= 1),
            ("no jump", BIAS + 0x1000, |t| t.functions[0].jump[0] ^= 1),
            ("no jump", BIAS + 0x1000, |t| t.functions[0].new = RemoteAddr(NEW + 1)),
            ("no jump", BIAS + 0x1000, |t| t.functions[0].gate.as_mut().expect("gated").jump[5] ^= 1),
        ];
        for (i, (word, entry, spoil)) in cases.into_iter().enumerate() {
            let mut target = target(arch, entry);
            spoil(&mut target);
            let said = possible(arch, &[module()], &target, &target.functions[0]);
            assert_eq!(said.is_ok(), word.is_empty(), "row {i}: {said:?}");
            assert!(said.err().unwrap_or_default().contains(word), "row {i}");
        }
    }
}
