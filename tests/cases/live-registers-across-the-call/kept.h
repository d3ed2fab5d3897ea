// What a caller that knows all that `used` does may do: every register that calls may change holds a value across the call, but
// those that a linker's veneer may change. Answers what the call has answered, or -1.
static int kept(void) {
    long bad;
    int result;
#if defined(__x86_64__)
    __asm__ volatile("sub $128, %%rsp\n"
                     "mov $11, %%rcx\nmov $12, %%rdx\nmov $13, %%rsi\nmov $14, %%rdi\n"
                     "mov $15, %%r8\nmov $16, %%r9\nmov $17, %%r10\nmov $18, %%r11\n"
                     "movq %%rcx, %%xmm0\nmovq %%rdx, %%xmm7\nmovq %%r8, %%xmm15\n"
                     "call used\n"
                     "mov %%eax, %1\n"
                     "sub $11, %%rcx\nsub $12, %%rdx\nsub $13, %%rsi\nsub $14, %%rdi\n"
                     "sub $15, %%r8\nsub $16, %%r9\nsub $17, %%r10\nsub $18, %%r11\n"
                     "or %%rdx, %%rcx\nor %%rsi, %%rcx\nor %%rdi, %%rcx\nor %%r8, %%rcx\n"
                     "or %%r9, %%rcx\nor %%r10, %%rcx\nor %%r11, %%rcx\n"
                     "movq %%xmm0, %%rax\nsub $11, %%rax\nor %%rax, %%rcx\n"
                     "movq %%xmm7, %%rax\nsub $12, %%rax\nor %%rax, %%rcx\n"
                     "movq %%xmm15, %%rax\nsub $15, %%rax\nor %%rax, %%rcx\n"
                     "add $128, %%rsp\n"
                     "mov %%rcx, %0\n"
                     : "=&r"(bad), "=&r"(result)
                     :
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm7", "xmm15", "memory", "cc");
#elif defined(__aarch64__)
    // AAPCS64: x0 to x15 and v0 to v31; x16 and x17 belong to veneers, x18 to the platform.
    __asm__ volatile("mov x1, #11\nmov x2, #12\nmov x3, #13\nmov x4, #14\nmov x5, #15\nmov x6, #16\nmov x7, #17\nmov x8, #18\n"
                     "mov x9, #19\nmov x10, #20\nmov x11, #21\nmov x12, #22\nmov x13, #23\nmov x14, #24\nmov x15, #25\n"
                     "fmov d0, x1\nfmov d7, x2\nfmov d16, x3\nfmov d31, x4\n"
                     "bl used\n"
                     "mov %w1, w0\n"
                     "sub x1, x1, #11\nsub x2, x2, #12\nsub x3, x3, #13\nsub x4, x4, #14\nsub x5, x5, #15\n"
                     "sub x6, x6, #16\nsub x7, x7, #17\nsub x8, x8, #18\nsub x9, x9, #19\nsub x10, x10, #20\n"
                     "sub x11, x11, #21\nsub x12, x12, #22\nsub x13, x13, #23\nsub x14, x14, #24\nsub x15, x15, #25\n"
                     "orr x1, x1, x2\norr x1, x1, x3\norr x1, x1, x4\norr x1, x1, x5\norr x1, x1, x6\norr x1, x1, x7\n"
                     "orr x1, x1, x8\norr x1, x1, x9\norr x1, x1, x10\norr x1, x1, x11\norr x1, x1, x12\norr x1, x1, x13\n"
                     "orr x1, x1, x14\norr x1, x1, x15\n"
                     "fmov x2, d0\nsub x2, x2, #11\norr x1, x1, x2\nfmov x2, d7\nsub x2, x2, #12\norr x1, x1, x2\n"
                     "fmov x2, d16\nsub x2, x2, #13\norr x1, x1, x2\nfmov x2, d31\nsub x2, x2, #14\norr x1, x1, x2\n"
                     "mov %0, x1\n"
                     : "=&r"(bad), "=&r"(result)
                     :
                     : "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
                       "x16", "x17", "x30", "v0", "v7", "v16", "v31", "memory", "cc");
#elif defined(__loongarch64)
    // LoongArch psABI: r4 to r20 and f0 to f23; r21 belongs to the platform.
    __asm__ volatile("li.d $r5, 11\nli.d $r6, 12\nli.d $r7, 13\nli.d $r8, 14\nli.d $r9, 15\nli.d $r10, 16\nli.d $r11, 17\n"
                     "li.d $r12, 18\nli.d $r13, 19\nli.d $r14, 20\nli.d $r15, 21\nli.d $r16, 22\nli.d $r17, 23\n"
                     "li.d $r18, 24\nli.d $r19, 25\nli.d $r20, 26\n"
                     "movgr2fr.d $f0, $r5\nmovgr2fr.d $f7, $r6\nmovgr2fr.d $f23, $r7\n"
                     "bl used\n"
                     "move %1, $r4\n"
                     "addi.d $r5, $r5, -11\naddi.d $r6, $r6, -12\naddi.d $r7, $r7, -13\naddi.d $r8, $r8, -14\n"
                     "addi.d $r9, $r9, -15\naddi.d $r10, $r10, -16\naddi.d $r11, $r11, -17\naddi.d $r12, $r12, -18\n"
                     "addi.d $r13, $r13, -19\naddi.d $r14, $r14, -20\naddi.d $r15, $r15, -21\naddi.d $r16, $r16, -22\n"
                     "addi.d $r17, $r17, -23\naddi.d $r18, $r18, -24\naddi.d $r19, $r19, -25\naddi.d $r20, $r20, -26\n"
                     "or $r5, $r5, $r6\nor $r5, $r5, $r7\nor $r5, $r5, $r8\nor $r5, $r5, $r9\nor $r5, $r5, $r10\n"
                     "or $r5, $r5, $r11\nor $r5, $r5, $r12\nor $r5, $r5, $r13\nor $r5, $r5, $r14\nor $r5, $r5, $r15\n"
                     "or $r5, $r5, $r16\nor $r5, $r5, $r17\nor $r5, $r5, $r18\nor $r5, $r5, $r19\nor $r5, $r5, $r20\n"
                     "movfr2gr.d $r6, $f0\naddi.d $r6, $r6, -11\nor $r5, $r5, $r6\n"
                     "movfr2gr.d $r6, $f7\naddi.d $r6, $r6, -12\nor $r5, $r5, $r6\n"
                     "movfr2gr.d $r6, $f23\naddi.d $r6, $r6, -13\nor $r5, $r5, $r6\n"
                     "move %0, $r5\n"
                     : "=&r"(bad), "=&r"(result)
                     :
                     : "$r1", "$r4", "$r5", "$r6", "$r7", "$r8", "$r9", "$r10", "$r11", "$r12", "$r13", "$r14", "$r15", "$r16",
                       "$r17", "$r18", "$r19", "$r20", "$f0", "$f7", "$f23", "memory");
#endif
    return bad ? -1 : result;
}
