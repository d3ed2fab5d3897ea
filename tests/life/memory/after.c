// Fixed.
// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "ask.h"
#include <dlfcn.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

NOINLINE int used(int n) { return n + 100; }

static long address_space(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld", &pages) != 1) pages = 0;
    if (file) fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

// Reserves every free page that a 32-bit displacement reaches from the text.
static long fill(void) {
    long taken = 0;
    uintptr_t text = (uintptr_t)used & ~0xfffful;
    for (size_t size = 1ul << 30; size >= 4096; size /= 2)
        for (uintptr_t at = text > 0x90000000 ? text - 0x90000000 : 0x10000; at < text + 0x90000000; at += size) {
            void *got = mmap((void *)(at & ~(size - 1)), size, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
            taken += got != MAP_FAILED;
        }
    return taken;
}

void answer(const char *question) {
    struct rlimit limit;
    int failed = 0;
    if (!strcmp(question, "address space")) {
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = address_space();
        failed = setrlimit(RLIMIT_AS, &limit);
    }
    if (!strcmp(question, "no limit")) {
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = limit.rlim_max;
        failed = setrlimit(RLIMIT_AS, &limit);
    }
    if (!strcmp(question, "no new code")) failed = prctl(65 /* PR_SET_MDWE */, 1 /* PR_MDWE_REFUSE_EXEC_GAIN */, 0, 0, 0);
    if (!strcmp(question, "locked")) failed = mlockall(MCL_CURRENT | MCL_FUTURE);
    if (!strcmp(question, "nothing near")) failed = fill() == 0;
    if (failed) puts("failed");
    else printf("%d\n", used(1));
}
