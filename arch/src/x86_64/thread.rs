// SPDX-License-Identifier: GPL-2.0-or-later
//! The sequences that find a thread-local variable, and what linkers make of them: psABI, chapter "Thread-Local Storage"; "ELF
//! Handling For Thread-Local Storage", 5.5 (x86-64 linker optimizations); for descriptors, "Thread-Local Storage Descriptors
//! for IA32 and AMD64/EM64T". Every sequence is there with its bytes, and anything else is none.

use crate::{LinkAddr, ShorterField, ShorterWay, ThreadForm, ThreadModel};

const TLSGD: u32 = 19;
const TLSLD: u32 = 20;
const DTPOFF32: u32 = 21;
const GOTTPOFF: u32 = 22;
const TPOFF32: u32 = 23;
const TLSDESC: u32 = 34;

/// `mov %fs:0,%rax`
const POINTER: [u8; 9] = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];
/// The same in as many bytes as the sequence of local-dynamic has, with a direct call and with one through a slot.
const MODULE: [u8; 12] = [0x66, 0x66, 0x66, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];
const MODULE_INDIRECT: [u8; 13] = [0x66, 0x66, 0x66, 0x66, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];
/// `lea x@tpoff(%rax),%rax`, `add x@gottpoff(%rip),%rax` without their fields.
const ADD_OFFSET: [u8; 3] = [0x48, 0x8d, 0x80];
const ADD_SLOT: [u8; 3] = [0x48, 0x03, 0x05];
/// `data16 lea x@tlsgd(%rip),%rdi`, `lea x@tlsld(%rip),%rdi`, `lea x@tlsdesc(%rip),%rax` likewise.
const INDEX: [u8; 4] = [0x66, 0x48, 0x8d, 0x3d];
const LOCAL: [u8; 3] = [0x48, 0x8d, 0x3d];
const DESCRIPTOR: [u8; 3] = [0x48, 0x8d, 0x05];
/// `data16 data16 rex.W call`, `data16 rex.W call *slot(%rip)`.
const INDEX_CALLS: [[u8; 4]; 2] = [[0x66, 0x66, 0x48, 0xe8], [0x66, 0x48, 0xff, 0x15]];
/// `call *(%rax)`, and the nop that it becomes.
const CALL_RESOLVER: [u8; 2] = [0xff, 0x10];
const NOP: [u8; 2] = [0x66, 0x90];
/// `mov $x@tpoff,%rax`, `mov x@gottpoff(%rip),%rax`
const SET_OFFSET: [u8; 3] = [0x48, 0xc7, 0xc0];
const LOAD_SLOT: [u8; 3] = [0x48, 0x8b, 0x05];

/// The bytes from `before` the field on, as many as `with` has, are these.
fn is(code: &[u8], field: usize, before: usize, with: &[u8]) -> bool {
    let start = field.checked_sub(before);
    start.and_then(|start| code.get(start..start.checked_add(with.len())?)) == Some(with)
}

fn number(code: &[u8], at: usize) -> Option<i64> {
    let bytes = code.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(|bytes| i64::from(i32::from_le_bytes(bytes)))
}

/// Whether the field of a call at `field` belonged to a call of `__tls_get_addr` that is no more.
pub(super) fn call_is_gone(code: &[u8], field: usize) -> bool {
    is(code, field, 12, &POINTER) && (is(code, field, 3, &ADD_OFFSET) || is(code, field, 3, &ADD_SLOT))
        || is(code, field, 8, &MODULE)
        || is(code, field, 9, &MODULE_INDIRECT)
}

pub(super) fn form(r_type: u32, code: &[u8], field: usize, place: LinkAddr) -> ThreadForm {
    let offset = |at: usize| number(code, at).map_or(ThreadForm::Unknown, ThreadForm::Offset);
    // A slot's distance counts from the end of its field.
    let slot = |at: usize| {
        let distance = number(code, at).zip(i64::try_from(at - field + 4).ok());
        let to = distance.map(|(distance, end)| LinkAddr(place.0.wrapping_add_signed(distance.wrapping_add(end))));
        to.map_or(ThreadForm::Unknown, ThreadForm::Slot)
    };
    match r_type {
        TLSGD if is(code, field, 4, &INDEX) => ThreadForm::AsWritten,
        TLSGD if is(code, field, 4, &POINTER) && is(code, field + 8, 3, &ADD_OFFSET) => offset(field + 8),
        TLSGD if is(code, field, 4, &POINTER) && is(code, field + 8, 3, &ADD_SLOT) => slot(field + 8),
        TLSLD if is(code, field, 3, &LOCAL) => ThreadForm::AsWritten,
        TLSLD if is(code, field, 3, &MODULE) || is(code, field, 3, &MODULE_INDIRECT) => ThreadForm::Gone,
        TLSDESC if is(code, field, 3, &DESCRIPTOR) => ThreadForm::AsWritten,
        TLSDESC if is(code, field, 3, &SET_OFFSET) => offset(field),
        TLSDESC if is(code, field, 3, &LOAD_SLOT) => slot(field),
        GOTTPOFF => match field.checked_sub(2).and_then(|start| code.get(start..field)) {
            // mov and add, slot(%rip),%reg
            Some([0x8b | 0x03, modrm]) if modrm & 0xc7 == 0x05 => ThreadForm::AsWritten,
            // mov and add, $x@tpoff,%reg; lea x@tpoff(%reg),%reg
            Some([0xc7 | 0x81, modrm]) if modrm & 0xf8 == 0xc0 => offset(field),
            Some([0x8d, modrm]) if modrm >> 6 == 2 && modrm >> 3 & 7 == modrm & 7 => offset(field),
            _ => ThreadForm::Unknown,
        },
        _ => ThreadForm::Unknown,
    }
}

pub(super) fn shorten(r_type: u32, code: &mut [u8], field: usize, model: ThreadModel) -> Option<ShorterWay> {
    let (before, new): (usize, Vec<u8>) = match (r_type, model) {
        (TLSGD, model) if is(code, field, 4, &INDEX) => {
            INDEX_CALLS.iter().find(|call| is(code, field + 4, 0, *call))?;
            let add = if model == ThreadModel::Slot { ADD_SLOT } else { ADD_OFFSET };
            (4, [&POINTER[..], &add, &[0; 4]].concat())
        }
        (TLSLD, ThreadModel::Offset) if is(code, field, 3, &LOCAL) => match code.get(field + 4..)? {
            [0xe8, ..] => (3, MODULE.to_vec()),
            [0xff, 0x15, ..] => (3, MODULE_INDIRECT.to_vec()),
            _ => return None,
        },
        (TLSDESC, model) if is(code, field, 3, &DESCRIPTOR) && is(code, field + 4, 0, &CALL_RESOLVER) => {
            let load = if model == ThreadModel::Slot { LOAD_SLOT } else { SET_OFFSET };
            (3, [&load[..], &[0; 4], &NOP].concat())
        }
        // What was counted from the block's start is counted from the thread pointer.
        (DTPOFF32, ThreadModel::Offset) => {
            let range = field..field.checked_add(4).filter(|end| *end <= code.len())?;
            return Some(ShorterWay { range, fields: vec![ShorterField { at: field, r_type: TPOFF32, adjust: 0 }] });
        }
        _ => return None,
    };
    let start = field.checked_sub(before)?;
    let range = start..start.checked_add(new.len())?;
    code.get_mut(range.clone())?.copy_from_slice(&new);
    let at = if r_type == TLSGD { field + 8 } else { field };
    let one = match model {
        ThreadModel::Slot => ShorterField { at, r_type: GOTTPOFF, adjust: -4 },
        ThreadModel::Offset => ShorterField { at, r_type: TPOFF32, adjust: 0 },
    };
    let fields = if r_type == TLSLD { Vec::new() } else { vec![one] };
    Some(ShorterWay { range, fields })
}
