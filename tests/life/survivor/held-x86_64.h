// SPDX-License-Identifier: GPL-2.0-or-later
// Registers, flags and the red zone of x86_64.

enum { VECTORS = 16, VECTOR = 32 };
struct seen {
    unsigned long registers[13], red_zone[2], flags;
    unsigned char vectors[VECTORS][VECTOR];
};
__attribute__((used)) static unsigned char pattern[VECTORS][VECTOR];

__attribute__((used)) static int has_avx;
// The arithmetic flags set, and what is always set for a program.
#define FLAGS 0xad7

#define EACH_VECTOR(instruction) \
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n" instruction "\n.endr\n"
#define LOAD_VECTORS \
    " lea pattern(%rip), %rcx\n cmpl $0, has_avx(%rip)\n je 2f\n" \
    EACH_VECTOR(" vmovdqu 32*\\n(%rcx), %ymm\\n") " jmp 3f\n2:\n" \
    EACH_VECTOR(" movdqu 32*\\n(%rcx), %xmm\\n") "3:\n"
// At 128(%r11).
#define STORE_VECTORS \
    " cmpl $0, has_avx(%rip)\n je 4f\n" \
    EACH_VECTOR(" vmovdqu %ymm\\n, 128+32*\\n(%r11)") " vzeroupper\n jmp 5f\n4:\n" \
    EACH_VECTOR(" movdqu %xmm\\n, 128+32*\\n(%r11)") "5:\n"
#define SAVE " push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
#define RESTORE " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
#define STRING(x) #x
#define TEXT(x) STRING(x)

__asm__(
    ".text\n.globl raw_held_call\n.type raw_held_call,@function\nraw_held_call:\n" SAVE
    " push %rsi\n mov %rdi, %r11\n" LOAD_VECTORS
    " mov 0(%r11), %rax\n mov 8(%r11), %rdi\n mov 16(%r11), %rsi\n mov 24(%r11), %rdx\n"
    " mov 32(%r11), %r10\n mov 40(%r11), %r8\n mov 48(%r11), %r9\n"
    " movabs $0x1212121212121212, %rbx\n movabs $0x1616161616161616, %rbp\n"
    " movabs $0x2222222222222222, %r12\n movabs $0x2323232323232323, %r13\n"
    " movabs $0x2424242424242424, %r14\n movabs $0x2525252525252525, %r15\n"
    " mov %rbx, -16(%rsp)\n mov %r15, -128(%rsp)\n"
    " pushq $" TEXT(FLAGS) "\n popfq\n"
    " syscall\n"
    " pushfq\n pop %rcx\n mov (%rsp), %r11\n mov %rcx, 120(%r11)\n"
    " mov %rax, 0(%r11)\n mov %rbx, 8(%r11)\n mov %rdx, 16(%r11)\n mov %rsi, 24(%r11)\n"
    " mov %rdi, 32(%r11)\n mov %rbp, 40(%r11)\n mov %r8, 48(%r11)\n mov %r9, 56(%r11)\n"
    " mov %r10, 64(%r11)\n mov %r12, 72(%r11)\n mov %r13, 80(%r11)\n mov %r14, 88(%r11)\n mov %r15, 96(%r11)\n"
    " mov -16(%rsp), %rcx\n mov %rcx, 104(%r11)\n mov -128(%rsp), %rcx\n mov %rcx, 112(%r11)\n"
    STORE_VECTORS " pop %rsi\n" RESTORE " ret\n.size raw_held_call,.-raw_held_call\n");
void raw_held_call(const long call[7], struct seen *seen);

#define CHECK(register, value) " cmp $" #value ", %" #register "\n jne 9f\n"
#define SET(register, value) " mov $" #value ", %" #register "\n"
#define ALL(what) \
    what(rax, 0x11111111) what(rbx, 0x12121212) what(rcx, 0x13131313) what(rdx, 0x14141414) what(rsi, 0x15151515) \
    what(rdi, -0x15151516) what(rbp, 0x16161616) what(r8, 0x17171717) what(r9, 0x18181818) what(r10, 0x19191919) \
    what(r11, 0x21212121) what(r12, 0x22222222) what(r13, -0x23232323) what(r14, 0x24242424) what(r15, 0x25252525)

// The number of rounds is at -24(%rsp), in the red zone like two values that are checked.
__asm__(
    ".text\n.globl raw_spin\n.type raw_spin,@function\nraw_spin:\n" SAVE
    " push %rsi\n mov %rdi, -24(%rsp)\n" LOAD_VECTORS ALL(SET)
    " mov %r12, -16(%rsp)\n mov %r15, -128(%rsp)\n"
    "1: pushq $" TEXT(FLAGS) "\n popfq\n"
    " .rept 64\n nop\n .endr\n"
    " pushfq\n cmpq $" TEXT(FLAGS) ", (%rsp)\n lea 8(%rsp), %rsp\n jne 9f\n"
    ALL(CHECK)
    " cmp %r12, -16(%rsp)\n jne 9f\n cmp %r15, -128(%rsp)\n jne 9f\n"
    " decq -24(%rsp)\n jnz 1b\n"
    " mov $1, %eax\n jmp 8f\n9: xor %eax, %eax\n"
    "8: mov (%rsp), %r11\n" STORE_VECTORS " pop %rsi\n" RESTORE " ret\n.size raw_spin,.-raw_spin\n");
int raw_spin(long rounds, struct seen *seen);

static int vector_bytes(void) { return has_avx ? 32 : 16; }
static void prepare_machine(void) { has_avx = __builtin_cpu_supports("avx") != 0; }

// What controls the arithmetic of the vector unit and of the old floating point unit.
static unsigned long control(void) {
    unsigned mxcsr;
    unsigned short word;
    __asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(mxcsr), "=m"(word));
    return (unsigned long)mxcsr << 16 | word;
}

static int registers_intact(const long call[7], const struct seen *seen) {
    const unsigned long wanted[] = { 0x1212121212121212, call[3], call[2], call[1], 0x1616161616161616, call[5], call[6],
        call[4], 0x2222222222222222, 0x2323232323232323, 0x2424242424242424, 0x2525252525252525 };
    return !memcmp(wanted, seen->registers + 1, sizeof wanted) && seen->red_zone[0] == wanted[0] &&
        seen->red_zone[1] == wanted[11] && seen->flags == FLAGS;
}

// A register that a system call keeps, in a signal handler's context.
static void spoil(ucontext_t *context) { context->uc_mcontext.gregs[REG_R12] ^= 1; }
