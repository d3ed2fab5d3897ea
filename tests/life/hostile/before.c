// A program that maps whatever a test writes for it: registries that no ulp-apply made (A).
// SPDX-License-Identifier: GPL-2.0-or-later
#include "ask.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

NOINLINE int left(int n) { return n + 1; }
NOINLINE int right(int n) { return n + 2; }

// What a false record points at: data, that must stay as it is.
static unsigned char victim[8192] __attribute__((aligned(4096)));

// "map ADDRESS LENGTH rights FILE": fresh private memory with the file's bytes at its start.
static int map(const char *question) {
    unsigned long address, length;
    char rights[4], name[200];
    if (sscanf(question, "%lx %lx %3s %199s", &address, &length, rights, name) != 4) return 0;
    char *at = mmap((void *)address, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (at != (void *)address) return 0;
    int file = open(name, O_RDONLY);
    if (file < 0 || read(file, at, length) < 0) return 0;
    close(file);
    int prot = PROT_READ | (strchr(rights, 'w') ? PROT_WRITE : 0) | (strchr(rights, 'x') ? PROT_EXEC : 0);
    return mprotect(at, length, prot) == 0;
}

void answer(const char *question) {
    if (!strncmp(question, "map ", 4)) {
        puts(map(question + 4) ? "mapped" : "not mapped");
    } else if (!strncmp(question, "unmap ", 6)) {
        unsigned long address, length;
        int two = sscanf(question + 6, "%lx %lx", &address, &length) == 2;
        puts(two && munmap((void *)address, length) == 0 ? "unmapped" : "not unmapped");
    } else if (!strcmp(question, "victim")) {
        memset(victim, 0x5a, sizeof victim);
        printf("%lx\n", (unsigned long)victim);
    } else {
        printf("%d %d\n", left(atoi(question)), right(atoi(question)));
    }
}
