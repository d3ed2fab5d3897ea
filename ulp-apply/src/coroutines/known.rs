// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether a program may put stacks aside, told by names: functions of the C library that change the stack and are imported, and
//! functions of coroutine libraries wherever they are defined. A program that does it in code of its own without a name is not
//! recognised; a static program without any names might, and so counts as one that does.

use crate::memory::{self, Memory};
use crate::process::{Disk, Dynamic, Module, Process, Role};
use crate::symbols;
use object::{Object as _, ObjectSection as _};
use ulp_arch::RemoteAddr;

/// The C library's. `getcontext` alone is no sign: profilers and unwinders call it.
const CONTEXTS: [&str; 3] = ["swapcontext", "makecontext", "setcontext"];

/// Functions of coroutine libraries, and of programs that have their own.
const SWITCHES: [&str; 14] = [
    // Boost.Context
    "jump_fcontext",
    "make_fcontext",
    "ontop_fcontext",
    // libco, libcoro, minicoro, libaco, State Threads
    "co_switch",
    "coro_transfer",
    "mco_resume",
    "acosw",
    "st_thread_create",
    // QEMU, however it switches
    "qemu_coroutine_new",
    "qemu_coroutine_switch",
    "qemu_coroutine_yield",
    // Ruby's and PHP's fibers, Python's greenlets
    "rb_fiber_resume",
    "zend_fiber_switch_context",
    "slp_switch",
];

/// OpenSSL has contexts and uses them only for who asks for asynchronous jobs.
const ASYNC: [&str; 3] = ["ASYNC_start_job", "SSL_waiting_for_async", "SSL_get_all_async_fds"];
const OPENSSL: [&str; 2] = ["libcrypto.so", "libssl.so"];

/// Entries of tables longer than this are nonsense.
const LONGEST: u64 = 1 << 20;
const SYMBOL_SIZE: u64 = 24;
const RELA_SIZE: u64 = 24;

/// What tells that the program may put stacks aside.
pub fn sign(process: &Process, modules: &[Module]) -> Option<String> {
    let of = |what: &str, module: &Module| format!("{what} in {}", base_name(module));
    for name in SWITCHES {
        if let Some(found) = symbols::definitions(process, modules, name).first() {
            return Some(of(name, found.module));
        }
    }
    for module in modules.iter().filter(|m| m.role != Role::Vdso) {
        let own = OPENSSL.iter().any(|library| base_name(module).starts_with(library));
        let wanted = |name: &str| !own && (CONTEXTS.contains(&name) || ASYNC.contains(&name));
        if let Some(name) = module.dynamic.as_ref().and_then(|d| imports(process, module, d, wanted)) {
            return Some(of(&name, module));
        }
    }
    modules.iter().filter(|m| m.role != Role::Vdso).find_map(|module| {
        let alone = module.role == Role::Main && module.dynamic.as_ref().is_none_or(|d| d.needed.is_empty());
        let wanted = |name: &str| SWITCHES.contains(&name) || alone && CONTEXTS.contains(&name);
        match named(process, module, wanted) {
            Some(found) => found.map(|name| of(&name, module)),
            None => alone.then(|| of("no symbols", module)),
        }
    })
}

/// Whether the program is QEMU, whose coroutines' stacks are changed by `sigsetjmp` and `siglongjmp` alone.
pub fn is_qemu(process: &Process, modules: &[Module]) -> bool {
    const SWITCH: &str = "qemu_coroutine_switch";
    let main = |module: &&Module| module.role == Role::Main;
    let exported = symbols::definitions(process, modules, SWITCH).iter().any(|d| d.module.role == Role::Main);
    exported
        || modules.iter().find(main).is_some_and(|m| matches!(named(process, m, |name| name == SWITCH), Some(Some(_))))
}

fn base_name(module: &Module) -> &str {
    module.name.rsplit('/').next().unwrap_or_default()
}

/// A symbol's name in the module's file, of the program also in the one with its debug information. `None`: neither is there, or
/// has names.
fn named(process: &Process, module: &Module, wanted: impl Fn(&str) -> bool) -> Option<Option<String>> {
    let in_file = |file: &Disk| {
        file.ask(|elf| {
            // All names at once: symbol by symbol, their reading would take most of the time of an apply.
            let names = elf.section_by_name(".strtab")?.data().ok().filter(|names| names.len() > 1)?;
            let names = names.split(|b| *b == 0).filter_map(|name| std::str::from_utf8(name).ok());
            let mut names = names.map(|name| name.split_once('@').map_or(name, |(name, _)| name));
            Some(names.find(|name| wanted(name)).map(str::to_owned))
        })
    };
    let own = process.file_of(module);
    own.as_ref().and_then(in_file).or_else(|| {
        let of_program = module.role == Role::Main;
        of_program.then(|| process.debug_file_of(module, own.as_ref()))?.as_ref().and_then(in_file)
    })
}

/// A name that the module needs of others.
fn imports(memory: &dyn Memory, module: &Module, dynamic: &Dynamic, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let remote = |link| module.bias.remote(link);
    let (table, (names, size)) = (remote(dynamic.symtab?), dynamic.strtab?);
    let count = undefined(memory, module, dynamic)?;
    let symbols = memory::bytes(memory, table, count * SYMBOL_SIZE).ok()?;
    let names = memory::bytes(memory, remote(names), size).ok()?;
    // st_name u32, st_info u8, st_other u8, st_shndx u16, ...
    let named = |symbol: &[u8]| {
        let (name, section) = (symbol.first_chunk()?, symbol.get(6..8)?);
        let name = names.get(usize::try_from(u32::from_le_bytes(*name)).ok()?..)?;
        let name = std::str::from_utf8(name.split(|b| *b == 0).next()?).ok()?;
        (section == [0, 0] && wanted(name)).then(|| name.to_owned())
    };
    symbols.chunks_exact(SYMBOL_SIZE as usize).find_map(named)
}

/// How many entries of the dynamic symbol table hold all the undefined ones.
fn undefined(memory: &dyn Memory, module: &Module, dynamic: &Dynamic) -> Option<u64> {
    let int = |at: RemoteAddr| memory::array(memory, at).map(u32::from_le_bytes).ok();
    if let Some(hash) = dynamic.hash {
        // nbucket, nchain: one for each symbol.
        return int(module.bias.remote(hash).plus(4)).map(u64::from).filter(|n| *n <= LONGEST);
    }
    if let Some(hash) = dynamic.gnu_hash {
        // nbuckets, symoffset, bloom_size, bloom_shift; u64 bloom[]; u32 buckets[]: what is hashed begins at symoffset.
        let at = module.bias.remote(hash);
        let (buckets, first, bloom) = (int(at)?, int(at.plus(4))?, int(at.plus(8))?);
        let heads = memory::bytes(memory, at.plus(16 + 8 * u64::from(bloom)), 4 * u64::from(buckets)).ok()?;
        // Linkers write anything there when nothing is hashed.
        if heads.iter().any(|b| *b != 0) {
            return Some(u64::from(first)).filter(|n| *n <= LONGEST);
        }
    }
    // What is imported is asked for by a relocation: r_offset u64, r_info u64 (the symbol in its upper half), r_addend i64.
    let tables = [dynamic.jmprel, dynamic.rela].into_iter().flatten();
    let highest = tables.filter_map(|(table, len)| {
        let entries = memory::bytes(memory, module.bias.remote(table), len).ok()?;
        let symbol = |entry: &[u8]| entry.get(12..16)?.first_chunk().map(|b| u32::from_le_bytes(*b));
        entries.chunks_exact(RELA_SIZE as usize).filter_map(symbol).max()
    });
    highest.max().map(|n| u64::from(n) + 1).filter(|n| *n <= LONGEST)
}
