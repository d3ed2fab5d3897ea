// SPDX-License-Identifier: GPL-2.0-or-later
// Registers and flags of aarch64. A system call changes x0 alone, and x8 where the kernel itself resumes a wait with a time
// limit by restart_syscall (Linux, arch/arm64/kernel/signal.c, setup_restart_syscall), as after SIGSTOP and SIGCONT.

enum { VECTORS = 32, VECTOR = 16 };
struct seen {
    unsigned long registers[31], flags;
    unsigned char vectors[VECTORS][VECTOR];
};
__attribute__((used)) static unsigned char pattern[VECTORS][VECTOR];

// All condition flags, which x9 holds as well.
#define FLAGS 0xf0000000UL
// What xN holds.
#define VALUE(n) (0x1100UL + (n) | (0x2200UL + (n)) << 48)
#define PLAIN_REGISTERS "10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30"
#define ALL_VECTORS "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define EACH(numbers, instructions) " .irp n," numbers "\n" instructions "\n .endr\n"
#define SET " mov x\\n, #0x1100+\\n\n movk x\\n, #0x2200+\\n, lsl #48\n"
#define SET_ALL EACH("6,7," PLAIN_REGISTERS, SET) " mov x9, #0xf0000000\n msr nzcv, x9\n"
#define LOAD_VECTORS \
    " adrp x9, pattern\n add x9, x9, :lo12:pattern\n" EACH(ALL_VECTORS, " ldr q\\n, [x9, #16*\\n]")
#define STORE_VECTORS EACH(ALL_VECTORS, " str q\\n, [x9, #16*\\n]")
// The address of what was seen is at 160 afterwards.
#define SAVE \
    " stp x29, x30, [sp, #-176]!\n stp x19, x20, [sp, #16]\n stp x21, x22, [sp, #32]\n stp x23, x24, [sp, #48]\n" \
    " stp x25, x26, [sp, #64]\n stp x27, x28, [sp, #80]\n stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n" \
    " stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n str x1, [sp, #160]\n"
#define RESTORE \
    " ldp x19, x20, [sp, #16]\n ldp x21, x22, [sp, #32]\n ldp x23, x24, [sp, #48]\n ldp x25, x26, [sp, #64]\n" \
    " ldp x27, x28, [sp, #80]\n ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n" \
    " ldp d14, d15, [sp, #144]\n ldp x29, x30, [sp], #176\n"

__asm__(
    ".text\n.globl raw_held_call\n.type raw_held_call,%function\nraw_held_call:\n" SAVE LOAD_VECTORS
    " sub sp, sp, #768\n mov x9, x0\n"
    " ldr x8, [x9]\n ldp x0, x1, [x9, #8]\n ldp x2, x3, [x9, #24]\n ldp x4, x5, [x9, #40]\n" SET_ALL
    " svc #0\n"
    EACH("0,1,2,3,4,5,6,7,8,9," PLAIN_REGISTERS, " str x\\n, [sp, #8*\\n]")
    " mrs x9, nzcv\n str x9, [sp, #248]\n add x9, sp, #256\n" STORE_VECTORS
    " ldr x9, [sp, #928]\n mov x10, #0\n mov x12, sp\n"
    "1: ldr x11, [x12, x10]\n str x11, [x9, x10]\n add x10, x10, #8\n cmp x10, #768\n b.ne 1b\n"
    " add sp, sp, #768\n" RESTORE " ret\n.size raw_held_call,.-raw_held_call\n");
void raw_held_call(const long call[7], struct seen *seen);

#define CHECK " mov x8, #0x1100+\\n\n movk x8, #0x2200+\\n, lsl #48\n cmp x\\n, x8\n b.ne 9f\n"

// The number of rounds is at 168; x8 is for the checks, and 0 to 5 hold something too.
__asm__(
    ".text\n.globl raw_spin\n.type raw_spin,%function\nraw_spin:\n" SAVE " str x0, [sp, #168]\n" LOAD_VECTORS
    EACH("0,1,2,3,4,5", SET)
    SET_ALL
    "1: msr nzcv, x9\n"
    " .rept 64\n nop\n .endr\n"
    " mrs x8, nzcv\n cmp x8, x9\n b.ne 9f\n mov x8, #0xf0000000\n cmp x8, x9\n b.ne 9f\n"
    EACH("0,1,2,3,4,5,6,7," PLAIN_REGISTERS, CHECK)
    " ldr x8, [sp, #168]\n subs x8, x8, #1\n str x8, [sp, #168]\n b.ne 1b\n"
    " mov x0, #1\n b 8f\n9: mov x0, #0\n"
    "8: ldr x9, [sp, #160]\n add x9, x9, #256\n" STORE_VECTORS RESTORE " ret\n.size raw_spin,.-raw_spin\n");
int raw_spin(long rounds, struct seen *seen);

static int vector_bytes(void) { return VECTOR; }
static void prepare_machine(void) {}

// What controls the arithmetic of the floating point unit.
static unsigned long control(void) {
    unsigned long fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
}

static int registers_intact(const long call[7], const struct seen *seen) {
    const unsigned long *r = seen->registers;
    int intact = (r[8] == (unsigned long)call[0] || r[8] == SYS_restart_syscall) && r[9] == FLAGS && seen->flags == FLAGS;
    for (int n = 1; n < 6; n++) intact &= r[n] == (unsigned long)call[n + 1];
    for (int n = 6; n < 31; n++) intact &= n == 8 || n == 9 || r[n] == VALUE(n);
    return intact;
}

// A register that a system call keeps, in a signal handler's context.
static void spoil(ucontext_t *context) { context->uc_mcontext.regs[19] ^= 1; }
