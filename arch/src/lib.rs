// SPDX-License-Identifier: GPL-2.0-or-later
//! What differs between processors, for live patching: relocation rows, jumps, the system call stub, register
//! slots, restart rules. Pure data and pure functions: nothing here talks to a kernel or to a file, so every
//! architecture compiles and is tested on every host. The three files read as three columns of one table.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod aarch64;
mod addr;
mod detail;
mod loongarch64;
mod reloc;
mod shortened;
mod thread;
mod x86_64;

pub use addr::{LinkAddr, LoadBias, RemoteAddr};
pub use detail::{AddressUse, InsnDetail, PcRelative};
pub use reloc::{BitPart, Field, Formula, Letter, Pages, Range, RelocError, RelocRow, SeenFrom, SlotKind};
pub use shortened::{CodeReloc, Shortened};
pub use thread::{ShorterField, ShorterWay, ThreadForm, ThreadModel, ThreadSlots};

use core::fmt;

/// The general registers of one thread, as `PTRACE_GETREGSET(NT_PRSTATUS)` gives them: words in the kernel's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Regs {
    /// The words; only the first [`Regs::len`] mean anything.
    pub words: [u64; Regs::MAX],
    /// How many words the architecture has.
    pub len: usize,
}

impl Regs {
    /// The largest set: loongarch64's 45 words.
    pub const MAX: usize = 45;

    /// A set of `len` zero words.
    pub fn zeroed(len: usize) -> Self {
        Self { words: [0; Self::MAX], len: len.min(Self::MAX) }
    }
}

/// System calls that a patch needs to have made inside the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// `mmap(addr, length, prot, flags, fd, offset)`
    Mmap,
    /// `munmap(addr, length)`
    Munmap,
    /// `mprotect(addr, length, prot)`
    Mprotect,
    /// `rt_sigaction(signal, new, old, 8)`
    SignalAction,
    /// `restart_syscall()`, with which the kernel resumes a wait that has a restart block
    Restart,
}

/// A self-restoring system call stub: if the tracer dies, the code in it puts the thread back by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stub {
    /// What to write; it is position independent, and `syscall` is its first instruction.
    pub bytes: Vec<u8>,
}

/// Words of which some bits have one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The bits that matter.
    pub mask: u64,
    /// Their value.
    pub value: u64,
}

impl Mark {
    /// No word at all.
    pub const NEVER: Self = Self { mask: 0, value: 1 };

    /// Whether it is such a word.
    #[inline]
    pub fn is(self, word: u64) -> bool {
        word & self.mask == self.value
    }
}

/// A word of one of a thread's register sets beside the general one, by the set's number (`n_type`, include/uapi/linux/elf.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetWord {
    /// The set.
    pub set: u32,
    /// Which of its words of 8 bytes.
    pub word: usize,
}

/// A thread in a system call, as `/proc/PID/task/TID/syscall` shows it while it sleeps: what some kernels do not tell any
/// more when it has been stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asleep {
    /// The system call's number.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// Stack pointer.
    pub sp: u64,
    /// Program counter: behind the instruction that made the call.
    pub pc: u64,
}

/// Relocation types with which the dynamic loader fills slots and data (`r_type` of `Elf64_Rela`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRelocations {
    /// Filled with a symbol's address when the object is loaded. Where it is [`SlotRelocations::absolute`] as well, only the
    /// place tells a slot from other data.
    pub data: u32,
    /// Filled with a function's address, perhaps only at its first call.
    pub jump: u32,
    /// Filled with what the resolver at the addend returned.
    pub irelative: u32,
    /// Any word, filled with a symbol's address and the addend.
    pub absolute: u32,
    /// Any word, filled with the load bias and the addend.
    pub relative: u32,
    /// Filled with the symbol's data, which is moved here.
    pub copy: u32,
    /// Filled with a thread-local variable's distance from the thread pointer.
    pub thread_offset: u32,
}

/// Why a jump cannot be encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JumpError {
    /// The destination is out of the instruction's reach.
    OutOfReach {
        /// Address of the jump.
        from: RemoteAddr,
        /// Its destination.
        to: RemoteAddr,
    },
    /// Bytes that were displaced are no instructions which can stand elsewhere.
    Displaced,
    /// This architecture's jumps come with a later release.
    Unsupported,
}

impl fmt::Display for JumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfReach { from, to } => write!(f, "a jump from {from} does not reach {to}"),
            Self::Displaced => write!(f, "the displaced bytes are no instructions that can stand elsewhere"),
            Self::Unsupported => write!(f, "jumps of this architecture are not supported yet"),
        }
    }
}

impl std::error::Error for JumpError {}

/// One instruction; offsets are bytes from the start of the code that was decoded, which is a function's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insn {
    /// Its first byte.
    pub start: usize,
    /// One past its last byte: what a PC-relative field counts from on x86_64.
    pub end: usize,
    /// Where it may lead.
    pub flow: Flow,
}

/// Where an instruction may lead, besides to the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Nowhere else (returns are of this kind: they lead out of the function).
    Next,
    /// A direct or indirect call.
    Call {
        /// Offset of the field that holds the destination; `None`: indirect.
        field: Option<usize>,
        /// The destination as an offset from the code's start, as the bytes say: a relocation may say otherwise.
        target: Option<i64>,
    },
    /// A jump, conditional or not, which may stay in the function.
    Jump {
        /// Offset of the field that holds the destination; `None`: indirect.
        field: Option<usize>,
        /// The destination likewise; `None`: computed, so anywhere.
        target: Option<i64>,
    },
    /// A jump through a linkage table slot: a tail call, out of the function.
    TailCall,
}

impl Insn {
    /// Offset of the field with the destination of a direct call or jump: a relocation of it means a place to branch
    /// to, not an address to use.
    pub fn branch_field(&self) -> Option<usize> {
        match self.flow {
            Flow::Call { field, .. } | Flow::Jump { field, .. } => field,
            Flow::Next | Flow::TailCall => None,
        }
    }

    /// The instruction of `insns` (as [`Arch::decode`] gives them) that contains the byte at `offset`.
    pub fn containing(insns: &[Insn], offset: usize) -> Option<&Insn> {
        let after = insns.partition_point(|insn| insn.end <= offset);
        insns.get(after).filter(|insn| insn.start <= offset)
    }
}

/// What a gate asks before it lets a thread through to the old code: the four bytes at `at` are `old` as long as the old
/// functions run. A word of its own (`old` is 0), or the entry of a function that has no gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Where the four bytes are; all of them in one page.
    pub at: RemoteAddr,
    /// Their value, little-endian, while the old functions run.
    pub old: u32,
}

/// A gate: where a function's entry jump leads while several functions switch at once. It asks the commit word, and goes
/// to the new code or through the displaced instructions back into the old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gate<'a> {
    /// Where the gate stands.
    pub at: RemoteAddr,
    /// What it asks.
    pub commit: Commit,
    /// The new code.
    pub new: RemoteAddr,
    /// Where the displaced instructions stood: behind the entry's landing pad.
    pub from: RemoteAddr,
    /// The displaced instructions, as [`Arch::displaceable`] counted them.
    pub displaced: &'a [u8],
}

/// Why instructions cannot be displaced into a gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undisplaceable {
    /// A jump of the function leads into the bytes that the entry jump overwrites.
    JumpedInto,
    /// An instruction there cannot stand anywhere else.
    Instruction,
    /// This architecture has no gates yet.
    Unsupported,
}

/// How a relocated field of linked code is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkedForm {
    /// As its relocation row says.
    AsWritten,
    /// The slot was left out: a PC-relative field that leads to the symbol itself, this many bytes before the relocation's.
    Direct {
        /// 0, or how far the field moved towards the start.
        before: usize,
    },
    /// The slot was left out: the symbol's address is an operand, without addend.
    Immediate,
    /// Nothing is left of it: the instruction depends on no symbol any more, and a neighbour does its work too.
    Elided,
    /// Another instruction stands there, of which this says nothing.
    Rewritten,
}

/// Everything generic code may ask about a processor. Ask for a property, never for a name.
pub trait Arch: Sync + fmt::Debug {
    /// The kernel's name: `x86_64`, `aarch64`, `loongarch64`.
    fn name(&self) -> &'static str;
    /// `e_machine`.
    fn machine(&self) -> u16;
    /// `e_flags` of a relocatable file: the ABI it was compiled for.
    fn elf_flags(&self) -> u32 {
        0
    }
    /// Whether patches can be made.
    fn supported(&self) -> bool;
    /// Whether running processes can be worked on.
    fn can_apply(&self) -> bool {
        self.supported()
    }
    /// Whether all tests of that have been seen to pass. Without, only what is built for tests works on a process.
    fn proven(&self) -> bool {
        false
    }
    /// The sizes of pages with which they have. Kernels of one architecture may have several.
    fn pages(&self) -> &'static [u64] {
        &[]
    }

    // ---- building ----
    /// Compiler flags which give every function (and datum, where that does not change code) its own section.
    fn section_flags(&self) -> &'static [&'static str];
    /// Compiler flags which make a program's code reach data of other files through slots only; none where that is not
    /// understood.
    fn slot_flags(&self) -> &'static [&'static str] {
        &[]
    }
    /// Compiler flags which make code reach every datum by an address of its own; none where code does so without them. Without
    /// such flags code may reach data through the address of another one of its section (section anchors).
    fn apart_flags(&self) -> &'static [&'static str] {
        &[]
    }
    /// The row of a relocation type, `None` when the psABI has no such number.
    fn relocation(&self, r_type: u32) -> Option<&'static RelocRow>;
    /// The row of a relocation of the instruction at `at` of `code`, where the field depends on the instruction.
    fn relocation_at(&self, r_type: u32, _code: &[u8], _at: usize) -> Option<&'static RelocRow> {
        self.relocation(r_type)
    }
    /// The type of relocation which, 8 bytes behind one of type `r_type`, says that both are parts of a distance of 64 bits: the
    /// first one's range is no limit then.
    fn widened_by(&self, _r_type: u32) -> Option<u32> {
        None
    }
    /// The row of data that holds what `formula` says in so many bytes.
    fn data_relocation(&self, formula: Formula, bytes: u8) -> Option<&'static RelocRow> {
        self.relocations().iter().find(|row| row.formula == formula && row.field == Field::Bytes(bytes))
    }
    /// Where a program's own block of thread-local storage begins, seen from the thread pointer: the block is `size` bytes
    /// long and aligned to `align`, a power of two. `None`: it would lie outside of all memory.
    fn thread_block(&self, size: u64, align: u64) -> Option<i64>;
    /// All rows, for tests and for documentation.
    fn relocations(&self) -> &'static [RelocRow];
    /// The instructions of `code` from its first byte on, in order and without a hole. Ends early where bytes are no
    /// instruction: whoever finds no instruction at a place that matters must refuse.
    fn decode(&self, code: &[u8]) -> Vec<Insn>;
    /// The offset that a PC-relative field of `insn` counts from, as the processor sees it.
    fn counts_from(&self, insn: &Insn) -> usize {
        insn.end
    }
    /// Whether the relocated field at `offset` of `code` is the destination of a direct call or jump, so that its symbol is
    /// branched to and not used as an address. For many fields of one function ask [`Arch::decode`] once.
    fn is_branch_field(&self, code: &[u8], offset: usize) -> bool {
        Insn::containing(&self.decode(code), offset).and_then(Insn::branch_field) == Some(offset)
    }
    /// Whether a thread that stands on the first byte of the function `code` may have been inside it already: a jump may
    /// lead back to the entry. True too where that cannot be seen. Children (`.cold`) are code of their own: look at
    /// their instructions' [`Insn::flow`].
    fn loops_to_entry(&self, code: &[u8]) -> bool {
        let insns = self.decode(code);
        let whole = insns.last().map_or(0, |last| last.end) == code.len();
        !whole || insns.iter().any(|insn| matches!(insn.flow, Flow::Jump { target: Some(0) | None, .. }))
    }

    /// What `code` does with the address of data that the relocated field at `field` stands for.
    fn address_use(&self, _code: &[u8], _field: usize) -> AddressUse {
        AddressUse::Handed
    }

    /// The instructions of `code` for people, with their offsets; none where they cannot be told apart yet.
    fn disassemble(&self, _code: &[u8]) -> Vec<(usize, String)> {
        Vec::new()
    }
    /// The instruction at `at` of `code`; `None` when it is not one, or instructions cannot be told apart yet.
    fn detail(&self, _code: &[u8], _at: usize) -> Option<InsnDetail> {
        None
    }
    /// The length of the instruction at `at` of `code`, when it is one with which assemblers and linkers fill gaps.
    fn padding(&self, code: &[u8], at: usize) -> Option<usize> {
        self.detail(code, at).filter(|insn| insn.nop).map(|insn| insn.len)
    }
    /// How many bytes before the start and behind the end of a relocation's field the linker may rewrite when it finds a
    /// shorter way to the symbol.
    fn relaxed_around(&self, _r_type: u32) -> (usize, usize) {
        (0, 0)
    }

    /// The relocation type that the assembler would have written for a distance that it resolved itself, when so many bytes of
    /// the instruction are the field and what follows it; `None`: the field cannot hold any distance.
    fn assembled(&self, _bytes: usize) -> Option<u32> {
        None
    }
    /// Likewise for the field at `field` of the instruction `insn` of `code`.
    fn assembled_in(&self, _code: &[u8], insn: &Insn, field: usize) -> Option<u32> {
        self.assembled(insn.end - field)
    }
    /// Whether `code` has a way out: a return, or a jump to somewhere else. True too where that cannot be seen.
    fn returns(&self, _code: &[u8]) -> bool {
        true
    }
    /// Whether control may run over the end of `code` into what stands behind it. True too where that cannot be seen.
    fn runs_over_end(&self, _code: &[u8]) -> bool {
        true
    }
    /// What the linker made of the field of relocation `r_type` at `field` of linked code: it may have found a shorter way
    /// to the symbol than through a slot.
    fn linked_form(&self, _r_type: u32, _code: &[u8], _field: usize) -> LinkedForm {
        LinkedForm::AsWritten
    }

    /// What the linker made of the field of relocation `r_type` at `field` of linked code, which takes part in finding a
    /// thread-local variable; `place` is where that field stands.
    fn thread_form(&self, _r_type: u32, _code: &[u8], _field: usize, _place: LinkAddr) -> ThreadForm {
        ThreadForm::Unknown
    }
    /// Rewrites the instructions around the field of relocation `r_type` at `field` of `code`, which call for a thread-local
    /// variable's place, as linkers do it where the variable can be reached in the way of `model`. `None`, and `code` as it
    /// was: they are not exactly a sequence that is known.
    fn relax_thread_access(
        &self,
        _r_type: u32,
        _code: &mut [u8],
        _field: usize,
        _model: ThreadModel,
    ) -> Option<ShorterWay> {
        None
    }

    /// The bits that a linker may change where a relocation of this row stands and [`Arch::linked_form`] is as written.
    fn linked_mask(&self, row: &RelocRow) -> Vec<u8> {
        row.mask()
    }
    /// Likewise where the linker has put the value itself into the instruction ([`LinkedForm::Immediate`]): all of it where the
    /// instruction is the linker's.
    fn immediate_mask(&self, row: &RelocRow) -> Vec<u8> {
        vec![0xff; row.field.size()]
    }
    /// Whether a relocation of this type says that a linker may take bytes out of the code around it.
    fn allows_relaxation(&self, _r_type: u32) -> bool {
        false
    }
    /// What the linker made of a section's `code` before it filled in the fields: `linked` is what stands at `place` of the linked
    /// file, and `relocs` are in the order of their offsets. `None`: what is linked is not made of that code, or in another way.
    fn relaxed(&self, _code: &[u8], _relocs: &[CodeReloc], _linked: &[u8], _place: LinkAddr) -> Option<Shortened> {
        None
    }
    /// The page that the instruction at the start of `code`, which stands at `place`, puts into a register, for another one to add
    /// what is below it.
    fn page_taken(&self, _code: &[u8], _place: LinkAddr) -> Option<LinkAddr> {
        None
    }
    /// Where [`Arch::linked_form`] says [`LinkedForm::Immediate`] of an instruction that holds but a part of the value: that part.
    fn immediate_part(&self, _r_type: u32, _code: &[u8]) -> Option<i64> {
        None
    }
    /// The slot through which the linkage table entry that begins at the start of `code`, which stands at `place`, jumps.
    fn linkage_slot(&self, code: &[u8], place: LinkAddr) -> Option<LinkAddr> {
        let mut at = 0;
        while let Some(insn) = self.detail(code, at) {
            if let Some(operand) = insn.pc_relative.filter(|o| !o.taken) {
                return Some(LinkAddr(place.0.wrapping_add_signed(operand.target)));
            }
            at += insn.len;
        }
        None
    }

    /// Where the code at the start of `code`, which stands at `place`, leads, if it is a linker's veneer between a branch and what is
    /// beyond the branch's reach, and nothing else.
    fn veneer(&self, _code: &[u8], _place: LinkAddr) -> Option<LinkAddr> {
        None
    }
    /// Where the instruction at the start of `code` may have been moved by a linker that works around an erratum: the place to
    /// which a branch leads that stands in its stead.
    fn moved_to(&self, _code: &[u8], _place: LinkAddr) -> Option<LinkAddr> {
        None
    }
    /// Bytes of a moved instruction with the branch back behind it.
    fn moved_len(&self) -> usize {
        0
    }
    /// The instruction at the start of `code`, which stands at `at`, if it is one that was moved there from `place`: it does the same
    /// in both places, and behind it a branch leads back to what follows `place`.
    fn moved<'c>(&self, _code: &'c [u8], _at: LinkAddr, _place: LinkAddr) -> Option<&'c [u8]> {
        None
    }

    // ---- entry jumps ----
    /// Bytes of a landing pad (`endbr64`, `bti c`) at the start of `code`, which stay in place.
    fn landing_pad_len(&self, code: &[u8]) -> usize;
    /// Bytes that an entry jump needs after the landing pad.
    fn entry_jump_len(&self) -> usize;
    /// The jump written at a function's entry (behind its landing pad).
    fn entry_jump(&self, from: RemoteAddr, to: RemoteAddr) -> Result<Vec<u8>, JumpError>;
    /// Farthest distance at which code of a patch may lie from the target's code, in bytes: what one jump at an entry reaches.
    fn reach(&self) -> u64;
    /// Farthest distance at which a patch may lie from the target's data, in bytes: what instructions of the small code models and
    /// distances of 32 bits in data reach.
    fn data_reach(&self) -> u64 {
        1 << 31
    }
    /// Types of the loader's relocations that leave an address in a slot.
    fn slot_relocations(&self) -> SlotRelocations;
    /// Types of the loader's relocations that fill the two words which are behind calls for thread-local variables.
    fn thread_slots(&self) -> Option<ThreadSlots> {
        None
    }
    /// Whether the landing pad at the start of `code`, which stays and runs, has an effect that the new code's own entry does
    /// not expect (a signed return address). The entry jump must lead to a hop then.
    fn pad_acts(&self, _code: &[u8]) -> bool {
        false
    }
    /// Upper bound of the length of a hop.
    fn hop_len(&self) -> usize {
        0
    }
    /// A hop at `at`: code between an entry jump behind the landing pad `pad` and the entry of other code at `to`, where that
    /// is out of the jump's reach or the pad's effect has to be undone. It changes nothing that a linker's veneer may not.
    fn hop(&self, _at: RemoteAddr, _pad: &[u8], _to: RemoteAddr) -> Result<Vec<u8>, JumpError> {
        Err(JumpError::Unsupported)
    }
    /// Bytes of one own linkage table entry.
    fn plt_entry_len(&self) -> usize;
    /// An own linkage table entry at `at` which jumps to the address held in `slot`.
    fn plt_entry(&self, at: RemoteAddr, slot: RemoteAddr) -> Result<Vec<u8>, JumpError>;

    /// How many bytes of `code`, a whole function, an entry jump at `at` displaces: the whole instructions that it
    /// touches, fewer where the function ends before. It looks at direct jumps and at the addresses in instructions: that
    /// no table leads a computed jump into these bytes is for whoever knows the tables.
    fn displaceable(&self, _code: &[u8], _at: usize) -> Result<usize, Undisplaceable> {
        Err(Undisplaceable::Unsupported)
    }
    /// Upper bound of the length of a gate with these displaced instructions.
    fn gate_len(&self, _displaced: &[u8]) -> usize {
        0
    }
    /// The code of a gate, at most [`Arch::gate_len`] bytes. It changes no register that may hold something at a function's
    /// entry, and nothing on the stack.
    fn gate(&self, _gate: &Gate<'_>) -> Result<Vec<u8>, JumpError> {
        Err(JumpError::Unsupported)
    }
    /// Code to stand in front of `_Unwind_Find_FDE(pc, bases)` of libgcc, which it answers for the code in a list at
    /// `list`; for everything else it runs on past its own end. The list is read-only for it: a 64-bit number of rows, and
    /// from byte 32 on the rows, four words each: start and end of a patch's code, address and number of its functions. A
    /// row whose end is 0 is none. A function is three words: start, end, address of its frame description entry.
    fn unwind_hook(&self, _list: RemoteAddr) -> Option<Vec<u8>> {
        None
    }

    /// Likewise behind the landing pad `pad` of that function, which has run.
    fn unwind_hook_behind(&self, _pad: &[u8], list: RemoteAddr) -> Option<Vec<u8>> {
        self.unwind_hook(list)
    }

    // ---- registers ----
    /// Number of words of NT_PRSTATUS's register part.
    fn regs_len(&self) -> usize;
    /// Program counter.
    fn pc(&self, regs: &Regs) -> u64;
    /// Stack pointer.
    fn sp(&self, regs: &Regs) -> u64;
    /// Thread pointer, where it is part of the general registers.
    fn thread_pointer(&self, regs: &Regs) -> Option<u64>;
    /// Thread pointer, where it is not.
    fn thread_pointer_in(&self) -> Option<SetWord> {
        None
    }
    /// By how many bits glibc rotates a pointer to the left after it has disguised it with its guard.
    fn pointer_rotation(&self) -> u32 {
        0
    }
    /// Bytes below the stack pointer that belong to the running function.
    fn red_zone(&self) -> u64;
    /// The general register word that holds DWARF register `reg`, `None` when it has no slot.
    fn dwarf_slot(&self, reg: u16) -> Option<usize>;
    /// DWARF number of the stack pointer.
    fn dwarf_sp(&self) -> u16;
    /// DWARF number of the return address column.
    fn dwarf_ra(&self) -> u16;
    /// Whether that is a register: a function that has not saved it has no rule for it, and may have a frame of no bytes.
    fn returns_by_register(&self) -> bool {
        false
    }
    /// Where the kernel tells which bits of a saved return address may be its signature. A thread without this word has none.
    fn signature_in(&self) -> Option<SetWord> {
        None
    }
    /// The address that a saved return address stands for, when the bits of `mask` may be its signature: those that
    /// NT_ARM_PAC_MASK names for code, 0 where there is no such thing.
    fn code_address(&self, word: u64, _mask: u64) -> u64 {
        word
    }

    // ---- signal handlers ----
    /// The *mark*: a word by which a context is recognised that the kernel saved for a signal handler.
    fn signal_mark(&self) -> Mark {
        Mark::NEVER
    }
    /// Whether what stands around the mark at `at` can be such a context, where the mark alone does not say so. `word` is asked for
    /// words at so many bytes from the mark; what it does not know speaks for a context.
    fn may_be_context(&self, _at: u64, _word: &dyn Fn(i64) -> Option<u64>) -> bool {
        true
    }
    /// Bytes from the mark to the saved value of DWARF register `dwarf`.
    fn saved_by_signal(&self, _dwarf: u16) -> Option<i64> {
        None
    }
    /// Bytes from the mark to the program counter at which the thread was interrupted.
    fn interrupted_at(&self) -> Option<i64> {
        None
    }
    /// When `code` is what a handler returns to in order to end: bytes from the stack pointer there to the mark.
    fn signal_trampoline(&self, _code: &[u8]) -> Option<u64> {
        None
    }

    // ---- system calls in the target ----
    /// The number of a system call.
    fn call_number(&self, call: Call) -> u64;
    /// Upper bound of the stub's size, in bytes.
    fn stub_len(&self) -> usize;
    /// The stub for a thread with these registers: it makes the call that the registers ask for, then goes on
    /// where the thread was. `None` where the architecture has none yet.
    fn stub(&self, saved: &Regs) -> Option<Stub>;
    /// Whether a stub finds the way back from anywhere.
    fn stub_comes_from_anywhere(&self) -> bool {
        true
    }
    /// Likewise for a stub at `at`; `None` too where no way leads back from there.
    fn stub_at(&self, saved: &Regs, _at: RemoteAddr) -> Option<Stub> {
        self.stub(saved)
    }
    /// Two stubs that differ in everything which depends on the thread and the place: by the rest a stub is known that was
    /// left behind.
    fn stub_shapes(&self) -> Option<[Vec<u8>; 2]> {
        let shape = |word: u64| {
            let mut regs = Regs::zeroed(self.regs_len());
            regs.words = [word; Regs::MAX];
            Some(self.stub(&regs)?.bytes)
        };
        Some([shape(0)?, shape(u64::MAX >> 1)?])
    }
    /// Registers beside the general ones that every system call loses (the upper parts of vectors): words of sets which are there
    /// only where the processor has such registers, and what such a word is when the thread has something in them. A thread
    /// that was in no call makes none for us then.
    fn lost_by_calls(&self) -> &'static [(SetWord, Mark)] {
        &[]
    }
    /// The registers with which `saved`'s thread makes `call` at `pc` (the stub), out of any interrupted call.
    fn call_regs(&self, saved: &Regs, pc: RemoteAddr, call: Call, args: [u64; 6]) -> Regs;
    /// The result of the call: negative errno or value.
    fn call_result(&self, regs: &Regs) -> i64;
    /// Whether the thread was stopped inside a system call that waits with a restart block (its timeout would start over).
    fn in_restart_block(&self, regs: &Regs) -> bool;
    /// Whether the thread was stopped inside a system call at all.
    fn in_system_call(&self, regs: &Regs) -> bool;
    /// The EINTR cure: when our stop made a listed call return EINTR, changes the registers so that the kernel restarts
    /// it (unless a signal handler runs first) and returns true. Else leaves them alone.
    fn cure_eintr(&self, regs: &mut Regs) -> bool;
    /// Makes a wait with a restart block begin anew in place of being resumed, unless a signal handler runs first.
    fn begin_anew(&self, regs: &mut Regs);

    // ---- the same, where the kernel has decided before the stop what becomes of the call ----
    /// Whether the kernel has, so that what [`Arch::in_system_call`] and its neighbours want to know has to be looked up: while the
    /// thread sleeps, or as [`Arch::call_number_in`] says.
    fn needs_asleep(&self) -> bool {
        false
    }
    /// The register set that is the number of the thread's system call, 32 bits. Where the kernel has forgotten that there was one,
    /// `/proc/PID/task/TID/syscall` shows the call's arguments again as long as its number stands here.
    fn call_number_in(&self) -> Option<u32> {
        None
    }
    /// The instruction that makes a system call.
    fn call_instruction(&self) -> &'static [u8] {
        &[]
    }
    /// The number of the listed call which [`Arch::cure_eintr_of`] would cure if it was made by the instruction in front of the program
    /// counter.
    fn may_be_cured(&self, _regs: &Regs) -> Option<u64> {
        None
    }
    /// The number of the call which the thread may resume by `restart_syscall`, if the instruction at the program counter makes calls.
    fn may_be_resumed(&self, _regs: &Regs) -> Option<u64> {
        None
    }
    /// Puts a call's number to where a later stop of the thread looks for it, as if the thread had made this call itself.
    fn set_call_number(&self, _regs: &mut Regs, _number: u64) {}
    /// The registers of a thread that would go on with `restart_syscall`, if the instruction at the program counter makes calls, with
    /// the wait ended by EINTR in its place.
    fn resuming_ended(&self, _regs: &Regs) -> Option<Regs> {
        None
    }
    /// [`Arch::in_restart_block`] for a thread that slept as `asleep` says.
    fn in_restart_block_of(&self, regs: &Regs, _asleep: &Asleep) -> bool {
        self.in_restart_block(regs)
    }
    /// [`Arch::in_system_call`] likewise.
    fn in_system_call_of(&self, regs: &Regs, _asleep: &Asleep) -> bool {
        self.in_system_call(regs)
    }
    /// [`Arch::cure_eintr`] likewise. The registers themselves send the thread back into the call (the kernel does not know of it), so a
    /// handler that runs before the thread is in there would end nothing: whoever cures lets it go on with PTRACE_SYSCALL,
    /// takes the cure back at the stop of a signal that has a handler, and detaches where the thread enters the call.
    fn cure_eintr_of(&self, regs: &mut Regs, _asleep: &Asleep) -> bool {
        self.cure_eintr(regs)
    }
    /// The registers to give back to `saved`'s thread after it has made calls for us, where the kernel has forgotten its own.
    fn resumed(&self, saved: &Regs, _asleep: &Asleep) -> Regs {
        *saved
    }
    /// Likewise when it is given back with a signal that has a handler; `restart`: the handler was set with SA_RESTART.
    fn interrupted(&self, saved: &Regs, _asleep: &Asleep, _restart: bool) -> Regs {
        *saved
    }
}

/// All architectures, in the order of design.md.
pub const ALL: [&dyn Arch; 3] = [&x86_64::X86_64, &aarch64::Aarch64, &loongarch64::LoongArch64];

/// The architecture of an ELF file's `e_machine`.
pub fn by_machine(e_machine: u16) -> Option<&'static dyn Arch> {
    ALL.into_iter().find(|a| a.machine() == e_machine)
}

/// The architecture with this name.
pub fn by_name(name: &str) -> Option<&'static dyn Arch> {
    ALL.into_iter().find(|a| a.name() == name)
}

/// The architecture this program was compiled for.
pub fn host() -> Option<&'static dyn Arch> {
    by_name(std::env::consts::ARCH)
}
