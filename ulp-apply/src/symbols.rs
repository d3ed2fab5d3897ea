// SPDX-License-Identifier: GPL-2.0-or-later
//! Finds a dynamic symbol in a process as its loader would: in the order of the link map, with the version checked. Only
//! objects that stay for ever are looked at: the program, what was preloaded, everything these need, and what is marked
//! NODELETE. A resolver (`STT_GNU_IFUNC`) is never called; its result is taken from a slot that the loader has filled.

use crate::error::{Error, Result};
use crate::memory::{self, Memory};
use crate::process::{Dynamic, Module, Role};
use std::collections::{BTreeSet, VecDeque};
use ulp_arch::{Arch, LinkAddr, LoadBias, RemoteAddr};

const DF_1_NODELETE: u64 = 8;
const DF_1_NOW: u64 = 1;
const DF_BIND_NOW: u64 = 8;
const DF_SYMBOLIC: u64 = 2;
const STT_TLS: u8 = 6;
const STT_GNU_IFUNC: u8 = 10;
const STB_LOCAL: u8 = 0;
const SHN_UNDEF: u16 = 0;
const SHN_ABS: u16 = 0xfff1;
const SYMBOL_SIZE: u64 = 24;
const RELA_SIZE: u64 = 24;
const VERSION_HIDDEN: u16 = 0x8000;
/// `r_debug.r_state` when the loader is not in the middle of adding or removing something.
const RT_CONSISTENT: u32 = 0;
/// Chains and lists longer than this are loops.
const LONGEST: usize = 1 << 16;

/// One object of the link map.
#[derive(Clone, Copy)]
struct Object<'m> {
    module: &'m Module,
    dynamic: &'m Dynamic,
}

/// What the loader has loaded, in its order.
pub struct Scope<'m> {
    memory: &'m dyn Memory,
    arch: &'static dyn Arch,
    all: Vec<Object<'m>>,
    /// Indices of `all`: objects that stay, in the order in which they are searched.
    staying: Vec<usize>,
}

/// One entry of a dynamic symbol table.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    index: u64,
    kind: u8,
    section: u16,
    value: u64,
    size: u64,
}

fn unresolved(message: String) -> Error {
    Error::refused(message, "rebuild the patch against what this process has loaded").code("E-UNRESOLVED")
}

fn half(memory: &dyn Memory, at: RemoteAddr) -> Result<u16> {
    memory::array(memory, at).map(u16::from_le_bytes)
}

fn int(memory: &dyn Memory, at: RemoteAddr) -> Result<u32> {
    memory::array(memory, at).map(u32::from_le_bytes)
}

/// `DT_GNU_HASH`'s hash of a name.
fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |h: u32, b| h.wrapping_mul(33).wrapping_add(u32::from(*b)))
}

/// `DT_HASH`'s hash of a name.
fn sysv_hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |h: u32, b| {
        let h = (h << 4).wrapping_add(u32::from(*b));
        let high = h & 0xf000_0000;
        (h ^ high >> 24) & !high
    })
}

impl Object<'_> {
    fn at(&self, addr: LinkAddr) -> RemoteAddr {
        self.module.bias.remote(addr)
    }

    fn text(&self, memory: &dyn Memory, offset: u64) -> Result<Vec<u8>> {
        let (table, size) = self.dynamic.strtab.ok_or_else(|| self.broken("no string table"))?;
        if offset >= size {
            return Err(self.broken("a name outside its string table"));
        }
        memory::string(memory, self.at(table).plus(offset), 4096)
    }

    fn broken(&self, what: &str) -> Error {
        unresolved(format!("{} has {what}", self.module.name))
    }

    fn symbol(&self, memory: &dyn Memory, index: u64, name: &[u8]) -> Result<Option<Symbol>> {
        let Some(table) = self.dynamic.symtab else { return Ok(None) };
        let at = index.checked_mul(SYMBOL_SIZE).ok_or_else(|| self.broken("an impossible symbol"))?;
        // st_name u32, st_info u8, st_other u8, st_shndx u16, st_value u64, st_size u64
        let s: [u8; SYMBOL_SIZE as usize] = memory::array(memory, self.at(table).plus(at))?;
        let [n0, n1, n2, n3, info, _, x0, x1, v0, v1, v2, v3, v4, v5, v6, v7, size @ ..] = s;
        if self.text(memory, u64::from(u32::from_le_bytes([n0, n1, n2, n3])))? != name {
            return Ok(None);
        }
        let symbol = Symbol {
            index,
            kind: info & 15,
            section: u16::from_le_bytes([x0, x1]),
            value: u64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]),
            size: u64::from_le_bytes(size),
        };
        // What a loader would pass over: local, or a name without a value. An undefined function *with* a value is
        // the program's linkage table entry, which is that function's address for everyone.
        let empty = symbol.value == 0 && symbol.section != SHN_ABS && symbol.kind != STT_TLS;
        let undefined_data = symbol.section == SHN_UNDEF && symbol.kind == STT_TLS;
        Ok((info >> 4 != STB_LOCAL && !empty && !undefined_data).then_some(symbol))
    }

    /// All symbols of that name.
    fn named(&self, memory: &dyn Memory, name: &[u8]) -> Result<Vec<Symbol>> {
        if let Some(table) = self.dynamic.gnu_hash {
            return self.gnu_named(memory, self.at(table), name);
        }
        match self.dynamic.hash {
            Some(table) => self.sysv_named(memory, self.at(table), name),
            None => Ok(Vec::new()),
        }
    }

    fn gnu_named(&self, memory: &dyn Memory, table: RemoteAddr, name: &[u8]) -> Result<Vec<Symbol>> {
        // nbuckets, symoffset, bloom_size, bloom_shift; u64 bloom[bloom_size]; u32 buckets[nbuckets]; u32 chain[]
        let (buckets, first, bloom) = (int(memory, table)?, int(memory, table.plus(4))?, int(memory, table.plus(8))?);
        if buckets == 0 {
            return Ok(Vec::new());
        }
        let hash = gnu_hash(name);
        let bucket_table = table.plus(16 + 8 * u64::from(bloom));
        let chain = bucket_table.plus(4 * u64::from(buckets));
        let mut index = int(memory, bucket_table.plus(4 * u64::from(hash % buckets)))?;
        let mut found = Vec::new();
        if index < first {
            return Ok(found);
        }
        for _ in 0..LONGEST {
            let word = int(memory, chain.plus(4 * u64::from(index - first)))?;
            if word | 1 == hash | 1 {
                found.extend(self.symbol(memory, u64::from(index), name)?);
            }
            if word & 1 == 1 {
                return Ok(found);
            }
            index = index.checked_add(1).ok_or_else(|| self.broken("an endless hash chain"))?;
        }
        Err(self.broken("an endless hash chain"))
    }

    fn sysv_named(&self, memory: &dyn Memory, table: RemoteAddr, name: &[u8]) -> Result<Vec<Symbol>> {
        // nbucket, nchain; u32 bucket[nbucket]; u32 chain[nchain]
        let (buckets, chains) = (int(memory, table)?, int(memory, table.plus(4))?);
        let mut found = Vec::new();
        if buckets == 0 {
            return Ok(found);
        }
        let mut index = int(memory, table.plus(8 + 4 * u64::from(sysv_hash(name) % buckets)))?;
        for _ in 0..LONGEST {
            if index == 0 {
                return Ok(found);
            }
            if index >= chains {
                break;
            }
            found.extend(self.symbol(memory, u64::from(index), name)?);
            index = int(memory, table.plus(8 + 4 * (u64::from(buckets) + u64::from(index))))?;
        }
        Err(self.broken("a broken hash chain"))
    }

    /// The version word of a symbol: index and hidden bit. `None`: the object has no versions.
    fn version_word(&self, memory: &dyn Memory, symbol: u64) -> Result<Option<u16>> {
        self.dynamic.versym.map(|table| half(memory, self.at(table).plus(2 * symbol))).transpose()
    }

    /// The name of a version that this object defines.
    fn defined_version(&self, memory: &dyn Memory, wanted: u16) -> Result<Option<Vec<u8>>> {
        let Some((table, count)) = self.dynamic.verdef else { return Ok(None) };
        let mut at = self.at(table);
        for _ in 0..count.min(LONGEST as u64) {
            // vd_version, vd_flags, vd_ndx, vd_cnt: u16; vd_hash, vd_aux, vd_next: u32. vda_name, vda_next: u32.
            if half(memory, at.plus(4))? == wanted {
                let aux = at.plus(u64::from(int(memory, at.plus(12))?));
                return self.text(memory, u64::from(int(memory, aux)?)).map(Some);
            }
            match int(memory, at.plus(16))? {
                0 => break,
                next => at = at.plus(u64::from(next)),
            }
        }
        Ok(None)
    }

    /// The name of a version that this object needs of another.
    fn needed_version(&self, memory: &dyn Memory, wanted: u16) -> Result<Option<Vec<u8>>> {
        let Some((table, count)) = self.dynamic.verneed else { return Ok(None) };
        let mut at = self.at(table);
        for _ in 0..count.min(LONGEST as u64) {
            // vn_version, vn_cnt: u16; vn_file, vn_aux, vn_next: u32.
            // vna_hash: u32; vna_flags, vna_other: u16; vna_name, vna_next: u32.
            let mut aux = at.plus(u64::from(int(memory, at.plus(8))?));
            for _ in 0..half(memory, at.plus(2))? {
                if half(memory, aux.plus(6))? & !VERSION_HIDDEN == wanted {
                    return self.text(memory, u64::from(int(memory, aux.plus(8))?)).map(Some);
                }
                match int(memory, aux.plus(12))? {
                    0 => break,
                    next => aux = aux.plus(u64::from(next)),
                }
            }
            match int(memory, at.plus(12))? {
                0 => break,
                next => at = at.plus(u64::from(next)),
            }
        }
        Ok(None)
    }

    /// The symbol that a reference to `name` with `version` binds to in this object.
    fn find(&self, memory: &dyn Memory, name: &str, version: Option<&str>) -> Result<Option<Symbol>> {
        let mut default = None;
        for symbol in self.named(memory, name.as_bytes())? {
            let Some(word) = self.version_word(memory, symbol.index)? else { return Ok(Some(symbol)) };
            let (hidden, index) = (word & VERSION_HIDDEN != 0, word & !VERSION_HIDDEN);
            match version {
                // Index 1 is "no version": it satisfies every reference.
                Some(_) if index <= 1 && !hidden => default = Some(symbol),
                Some(wanted) => {
                    let name = if symbol.section == SHN_UNDEF {
                        self.needed_version(memory, index)?
                    } else {
                        self.defined_version(memory, index)?
                    };
                    if name.as_deref() == Some(wanted.as_bytes()) {
                        return Ok(Some(symbol));
                    }
                }
                // A reference without a version binds to the base version, or else to the default one.
                None if index <= 2 && !hidden => return Ok(Some(symbol)),
                None if !hidden => default = Some(symbol),
                None => {}
            }
        }
        Ok(default)
    }

    /// Whether this is the object that others call `name` in their list of needs.
    fn is_called(&self, memory: &dyn Memory, name: &[u8], link_name: &[u8]) -> Result<bool> {
        let base = |path: &[u8]| path.rsplit(|b| *b == b'/').next().map(<[u8]>::to_vec);
        let file = base(link_name);
        if link_name == name || file.as_deref() == Some(name) {
            return Ok(true);
        }
        if file.is_some_and(|f| f.starts_with(b"ld-musl-")) && is_part_of_musl(name) {
            return Ok(true);
        }
        match self.dynamic.soname {
            Some(offset) => Ok(self.text(memory, offset)? == name),
            None => Ok(false),
        }
    }
}

/// musl's loader and its C library are one file, which stands for each of these whatever follows the dot.
fn is_part_of_musl(name: &[u8]) -> bool {
    const PARTS: [&[u8]; 7] = [b"libc.", b"libpthread.", b"librt.", b"libm.", b"libdl.", b"libutil.", b"libxnet."];
    PARTS.iter().any(|part| name.starts_with(part))
}

/// A function that a module defines.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'m> {
    pub module: &'m Module,
    pub addr: LinkAddr,
    pub size: u64,
}

/// All modules' functions of that name, whatever binds to them. A module whose symbols cannot be read has none.
pub fn definitions<'m>(memory: &dyn Memory, modules: &'m [Module], name: &str) -> Vec<Definition<'m>> {
    const STT_FUNC: u8 = 2;
    let of = |module: &'m Module| -> Option<Definition<'m>> {
        let object = Object { module, dynamic: module.dynamic.as_ref()? };
        let symbols = object.named(memory, name.as_bytes()).ok()?;
        let symbol = symbols.iter().find(|s| s.section != SHN_UNDEF && s.kind == STT_FUNC)?;
        Some(Definition { module, addr: LinkAddr(symbol.value), size: symbol.size })
    };
    modules.iter().filter(|m| m.role != Role::Vdso).filter_map(of).collect()
}

impl<'m> Scope<'m> {
    /// Reads the link map. An error when the process has none (static programs) or the loader is at work.
    pub fn read(memory: &'m dyn Memory, arch: &'static dyn Arch, modules: &'m [Module]) -> Result<Self> {
        let main = modules.iter().find(|m| m.role == Role::Main);
        let debug = main.and_then(|m| m.dynamic.as_ref()?.debug).ok_or_else(|| {
            unresolved("the program has no list of loaded libraries, so a new symbol cannot be looked up".into())
        })?;
        // struct r_debug: int r_version; link_map *r_map; r_brk; int r_state
        if int(memory, debug.plus(24))? != RT_CONSISTENT {
            return Err(Error::busy("the process is loading or unloading a library", "try again"));
        }
        let mut all = Vec::new();
        let mut names = Vec::new();
        let mut at = memory::word(memory, debug.plus(8))?;
        for _ in 0..LONGEST {
            if at == 0 {
                let staying = Self::staying(memory, &all, &names)?;
                return Ok(Self { memory, arch, all, staying });
            }
            // struct link_map: l_addr, l_name, l_ld, l_next
            let field = |i: u64| memory::word(memory, RemoteAddr(at).plus(8 * i));
            let (bias, dynamic) = (LoadBias(field(0)?), RemoteAddr(field(2)?));
            let module = modules.iter().find(|m| {
                m.bias == bias && m.dynamic_section.is_some_and(|(section, _)| m.bias.remote(section) == dynamic)
            });
            // The kernel's own code stands in the list too; nothing is looked up there.
            if let Some(module) = module.filter(|m| m.role != Role::Vdso)
                && let Some(dynamic) = &module.dynamic
            {
                all.push(Object { module, dynamic });
                names.push(memory::string(memory, RemoteAddr(field(1)?), 4096)?);
            }
            at = field(3)?;
        }
        Err(unresolved("the list of loaded libraries does not end".into()))
    }

    /// The program, what was preloaded and everything they need, in the order of loading; then what is marked NODELETE.
    fn staying(memory: &dyn Memory, all: &[Object<'_>], names: &[Vec<u8>]) -> Result<Vec<usize>> {
        let needs = |object: &Object<'_>| -> Result<Vec<usize>> {
            let mut found = Vec::new();
            for &offset in &object.dynamic.needed {
                let name = object.text(memory, offset)?;
                let mut called = None;
                for (i, (other, link_name)) in all.iter().zip(names).enumerate() {
                    if other.is_called(memory, &name, link_name)? {
                        called = Some(i);
                        break;
                    }
                }
                // Without one branch of the scope nobody knows which definition comes first.
                found.push(called.ok_or_else(|| {
                    let name = String::from_utf8_lossy(&name);
                    unresolved(format!("{} needs {name}, which is not loaded under that name", object.module.name))
                })?);
            }
            Ok(found)
        };
        let Some(main) = all.first() else { return Ok(Vec::new()) };
        // The loader puts what is preloaded between the program and the first thing the program needs.
        let first_need = needs(main)?.into_iter().min().unwrap_or(all.len());
        let mut closure: BTreeSet<usize> = (0..first_need.min(all.len())).collect();
        let mut queue: VecDeque<usize> = closure.iter().copied().collect();
        while let Some(index) = queue.pop_front() {
            for need in all.get(index).map(&needs).transpose()?.unwrap_or_default() {
                if closure.insert(need) {
                    queue.push_back(need);
                }
            }
        }
        let mut staying: Vec<usize> = closure.iter().copied().collect();
        let kept = all.iter().enumerate().filter(|(_, o)| o.dynamic.flags_1 & DF_1_NODELETE != 0).map(|(i, _)| i);
        staying.extend(kept.filter(|i| !closure.contains(i)));
        Ok(staying)
    }

    /// The address of a symbol, as a reference from the object at `from` would get it.
    pub fn address(&self, from: LoadBias, name: &str, version: Option<&str>) -> Result<RemoteAddr> {
        let own = self.all.iter().find(|o| o.module.bias == from && o.dynamic.flags & DF_SYMBOLIC != 0);
        let staying = self.staying.iter().filter_map(|i| self.all.get(*i));
        for object in own.into_iter().chain(staying) {
            let Some(symbol) = object.find(self.memory, name, version)? else { continue };
            let value = match symbol.section {
                SHN_ABS => RemoteAddr(symbol.value),
                _ => object.at(LinkAddr(symbol.value)),
            };
            return match symbol.kind {
                STT_TLS => Err(unresolved(format!("{name} is thread-local and not an address"))),
                STT_GNU_IFUNC => self.bound(object, symbol, name, version),
                _ => Ok(value),
            };
        }
        let version = version.map(|v| format!("@{v}")).unwrap_or_default();
        Err(unresolved(format!("no library that stays loaded defines {name}{version}")))
    }

    /// What the loader got from a resolver, out of any slot that it has certainly filled.
    fn bound(&self, home: &Object<'_>, symbol: Symbol, name: &str, version: Option<&str>) -> Result<RemoteAddr> {
        let kinds = self.arch.slot_relocations();
        for object in &self.all {
            let own = object.module.bias == home.module.bias;
            let at_once = object.dynamic.flags & DF_BIND_NOW != 0 || object.dynamic.flags_1 & DF_1_NOW != 0;
            for (table, size) in [object.dynamic.rela, object.dynamic.jmprel].into_iter().flatten() {
                let bytes = memory::bytes(self.memory, object.at(table), size)?;
                let (rows, _) = bytes.as_chunks::<{ RELA_SIZE as usize }>();
                for row in rows {
                    let word =
                        |i: usize| row.get(i..i + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
                    let (slot, kind, index, addend) =
                        (object.at(LinkAddr(word(0))), word(8) as u32, word(8) >> 32, word(16));
                    let named = || object.refers_to(self.memory, index, name, version);
                    let ours = if kind == kinds.irelative {
                        own && addend == symbol.value
                    } else if kind == kinds.data {
                        addend == 0 && named()?
                    } else if kind == kinds.jump {
                        // A lazy slot that is not bound yet leads back into its own object.
                        (at_once || !own) && named()?
                    } else {
                        false
                    };
                    let value = if ours { RemoteAddr(memory::word(self.memory, slot)?) } else { continue };
                    if home.module.executes(value) && value != home.at(LinkAddr(symbol.value)) {
                        return Ok(value);
                    }
                }
            }
        }
        Err(Error::refused(
            format!("{name} is chosen at run time by the library, and nothing in the process has used it yet"),
            "apply again once the program has called it, or avoid the new call in the fix",
        )
        .code("E-IFUNC-UNBOUND"))
    }
}

impl Object<'_> {
    /// Whether the dynamic symbol `index`, undefined here, is a reference to `name` with `version`.
    fn refers_to(&self, memory: &dyn Memory, index: u64, name: &str, version: Option<&str>) -> Result<bool> {
        let (Some(table), Some((_, size))) = (self.dynamic.symtab, self.dynamic.strtab) else { return Ok(false) };
        if index == 0 {
            return Ok(false);
        }
        let offset = u64::from(int(memory, self.at(table).plus(index.wrapping_mul(SYMBOL_SIZE)))?);
        if offset >= size || self.text(memory, offset)? != name.as_bytes() {
            return Ok(false);
        }
        let Some(word) = self.version_word(memory, index)? else { return Ok(true) };
        let theirs = self.needed_version(memory, word & !VERSION_HIDDEN)?;
        Ok(match (theirs, version) {
            (Some(theirs), Some(ours)) => theirs == ours.as_bytes(),
            // One side knows no version: the loader would have bound it to the default.
            (None, None) => true,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specifications() {
        // Published examples: the GNU hash of "" is 5381, of "printf" 0x156b2bb8; the System V hash of "printf" is 0x77905a6.
        assert_eq!(gnu_hash(b""), 0x1505);
        assert_eq!(gnu_hash(b"printf"), 0x156b_2bb8);
        assert_eq!(sysv_hash(b"printf"), 0x0779_05a6);
    }

    fn own_process() -> (crate::process::Process, Vec<Module>) {
        let process =
            crate::process::Process::open(i32::try_from(std::process::id()).expect("a pid")).expect("ourselves");
        let modules = process.modules(&process.maps().expect("our maps")).expect("our modules");
        (process, modules)
    }

    /// Our own loader has an opinion about every symbol: it must be ours.
    #[test]
    fn the_loader_agrees() {
        let (process, modules) = own_process();
        let scope = Scope::read(&process, process.arch(), &modules).expect("a link map");
        let getpid = libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64;
        let malloc = libc::malloc as unsafe extern "C" fn(usize) -> *mut libc::c_void as usize as u64;
        let strlen = libc::strlen as unsafe extern "C" fn(*const libc::c_char) -> usize as usize as u64;
        for (name, expected) in [("getpid", getpid), ("malloc", malloc), ("strlen", strlen)] {
            let found = scope.address(LoadBias(0), name, None).expect(name);
            assert_eq!(found, RemoteAddr(expected), "{name}");
        }
        assert!(scope.address(LoadBias(0), "no_such_function_anywhere", None).is_err());
        let wrong = scope.address(LoadBias(0), "getpid", Some("GLIBC_99")).expect_err("no such version");
        assert_eq!(wrong.code, Some("E-UNRESOLVED"));
    }
}
