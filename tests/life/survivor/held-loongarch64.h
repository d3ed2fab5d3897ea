// SPDX-License-Identifier: GPL-2.0-or-later
// Registers of loongarch64. A system call changes a0 ($r4), and the kernel does not keep t0 to t8 ($r12 to $r20); $r2 and $r3
// are the thread's and the stack's, and $r21 is nobody's.

enum { VECTORS = 32, VECTOR = 8 };
struct seen {
    unsigned long registers[32];
    unsigned char vectors[VECTORS][VECTOR];
};
__attribute__((used)) static unsigned char pattern[VECTORS][VECTOR];

// What $rN holds.
#define VALUE(n) (0x1100UL + (n) | (0x220UL + (n)) << 52)
#define KEPT_REGISTERS "1,10,22,23,24,25,26,27,28,29,30,31"
#define ALL_VECTORS "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define EACH(numbers, instructions) " .irp n," numbers "\n" instructions "\n .endr\n"
#define SET " lu12i.w $r\\n, 1\n ori $r\\n, $r\\n, 0x100+\\n\n lu52i.d $r\\n, $r\\n, 0x220+\\n\n"
#define LOAD_VECTORS " la.local $r12, pattern\n" EACH(ALL_VECTORS, " fld.d $f\\n, $r12, 8*\\n")
#define STORE_VECTORS EACH(ALL_VECTORS, " fst.d $f\\n, $r12, 8*\\n")
// The address of what was seen is at 160 afterwards.
#define SAVE \
    " addi.d $r3, $r3, -176\n st.d $r1, $r3, 0\n" EACH("22,23,24,25,26,27,28,29,30,31", " st.d $r\\n, $r3, 8*\\n-168") \
    EACH("24,25,26,27,28,29,30,31", " fst.d $f\\n, $r3, 8*\\n-104") " st.d $r5, $r3, 160\n"
#define RESTORE \
    " ld.d $r1, $r3, 0\n" EACH("22,23,24,25,26,27,28,29,30,31", " ld.d $r\\n, $r3, 8*\\n-168") \
    EACH("24,25,26,27,28,29,30,31", " fld.d $f\\n, $r3, 8*\\n-104") " addi.d $r3, $r3, 176\n"

__asm__(
    ".text\n.globl raw_held_call\n.type raw_held_call,@function\nraw_held_call:\n" SAVE LOAD_VECTORS
    " move $r12, $r4\n ld.d $r11, $r12, 0\n" EACH("4,5,6,7,8,9", " ld.d $r\\n, $r12, 8*\\n-24") EACH(KEPT_REGISTERS, SET)
    " syscall 0\n"
    " ld.d $r12, $r3, 160\n" EACH("1,4,5,6,7,8,9,10,11,22,23,24,25,26,27,28,29,30,31", " st.d $r\\n, $r12, 8*\\n")
    " addi.d $r12, $r12, 256\n" STORE_VECTORS RESTORE " jr $r1\n.size raw_held_call,.-raw_held_call\n");
void raw_held_call(const long call[7], struct seen *seen);

#define CHECK " lu12i.w $r11, 1\n ori $r11, $r11, 0x100+\\n\n lu52i.d $r11, $r11, 0x220+\\n\n bne $r\\n, $r11, 9f\n"
#define SPUN_REGISTERS "1,4,5,6,7,8,9,10,12,13,14,15,16,17,18,19,20,22,23,24,25,26,27,28,29,30,31"

// The number of rounds is at 168; $r11 is for the checks.
__asm__(
    ".text\n.globl raw_spin\n.type raw_spin,@function\nraw_spin:\n" SAVE " st.d $r4, $r3, 168\n" LOAD_VECTORS
    EACH(SPUN_REGISTERS, SET)
    "1:\n .rept 64\n nop\n .endr\n"
    EACH(SPUN_REGISTERS, CHECK)
    " ld.d $r11, $r3, 168\n addi.d $r11, $r11, -1\n st.d $r11, $r3, 168\n bnez $r11, 1b\n"
    " ori $r4, $r0, 1\n b 8f\n9: move $r4, $r0\n"
    "8: ld.d $r12, $r3, 160\n addi.d $r12, $r12, 256\n" STORE_VECTORS RESTORE " jr $r1\n.size raw_spin,.-raw_spin\n");
int raw_spin(long rounds, struct seen *seen);

static int vector_bytes(void) { return VECTOR; }
static void prepare_machine(void) {}

// What controls the arithmetic of the floating point unit.
static unsigned long control(void) {
    unsigned long fcsr;
    __asm__ volatile("movfcsr2gr %0, $fcsr0" : "=r"(fcsr));
    return fcsr;
}

static int registers_intact(const long call[7], const struct seen *seen) {
    static const int kept[] = { 1, 10, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31 };
    const unsigned long *r = seen->registers;
    int intact = r[11] == (unsigned long)call[0];
    for (int n = 5; n < 10; n++) intact &= r[n] == (unsigned long)call[n - 3];
    for (unsigned i = 0; i < sizeof kept / sizeof *kept; i++) intact &= r[kept[i]] == VALUE(kept[i]);
    return intact;
}

// A register that a system call keeps, in a signal handler's context.
static void spoil(ucontext_t *context) { context->uc_mcontext.__gregs[23] ^= 1; }
