// SPDX-License-Identifier: GPL-2.0-or-later
// Seccomp filters as services set them: each is one list of the instructions of linux/filter.h.
#include "odd.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOW(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (n))
#define HIGH(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (n) + 4)
// Skips `n` instructions unless the word is `k`.
#define IS(k, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, n)
#define HAS(k, n) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, k, 0, n)
#define SAY(what) BPF_STMT(BPF_RET | BPF_K, what)
#define YES SAY(SECCOMP_RET_ALLOW)
#define KILL SAY(SECCOMP_RET_KILL_PROCESS)
#define NO SAY(SECCOMP_RET_ERRNO | EPERM)

// One call is answered with `what`, every other one is allowed.
#define ONE(number, what) {LOAD(nr), IS(number, 1), SAY(what), YES}

static int set(struct sock_filter *code, size_t count, int flags) {
    struct sock_fprog program = {count, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return result < 0 ? errno : 0;
}
#define SET(...) do { \
        struct sock_filter code[] = __VA_ARGS__; \
        int error = set(code, sizeof code / sizeof *code, flags); \
        if (error) return error; \
    } while (0)

int filter(const char *name, int all_threads) {
    int flags = all_threads ? SECCOMP_FILTER_FLAG_TSYNC : 0;
    struct { const char *name; unsigned what; } one[] = {
        {"kill-mmap", SECCOMP_RET_KILL_PROCESS}, {"kill-thread-mmap", SECCOMP_RET_KILL_THREAD},
        {"trap-mmap", SECCOMP_RET_TRAP}, {"trace-mmap", SECCOMP_RET_TRACE}, {"log-mmap", SECCOMP_RET_LOG},
        {"errno-mmap", SECCOMP_RET_ERRNO | EPERM}, {"unknown-mmap", 0x12340000},
    };
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
        if (!strcmp(name, one[i].name)) {
            SET(ONE(SYS_mmap, one[i].what));
            return 0;
        }
    }
    if (!strcmp(name, "allow")) SET({YES});
    else if (!strcmp(name, "strict")) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) return errno;
    } else if (!strcmp(name, "notify-mmap")) {
        // Nobody listens, so that a call would wait for ever.
        struct sock_filter code[] = ONE(SYS_mmap, SECCOMP_RET_USER_NOTIF);
        struct sock_fprog program = {4, code};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program) < 0) return errno;
    } else if (!strcmp(name, "kill-exec-mmap"))
        SET({LOAD(nr), IS(SYS_mmap, 3), LOW(2), HAS(PROT_EXEC, 1), KILL, YES});
    else if (!strcmp(name, "errno-exec-mmap-and-mprotect"))
        // As systemd does for MemoryDenyWriteExecute.
        SET({LOAD(nr), IS(SYS_mmap, 3), LOW(2), HAS(PROT_EXEC, 1), NO, IS(SYS_mprotect, 3), LOW(2), HAS(PROT_EXEC, 1), NO, YES});
    else if (!strcmp(name, "errno-both")) {
        SET(ONE(SYS_mmap, SECCOMP_RET_ERRNO | EPERM));
        SET(ONE(SYS_munmap, SECCOMP_RET_ERRNO | EPERM));
    } else if (!strcmp(name, "kill-munmap")) SET(ONE(SYS_munmap, SECCOMP_RET_KILL_PROCESS));
    else if (!strcmp(name, "stacked-kill")) {
        SET(ONE(SYS_mmap, SECCOMP_RET_KILL_PROCESS));
        SET({YES});
        SET(ONE(SYS_mmap, SECCOMP_RET_ERRNO | EPERM));
    } else if (!strcmp(name, "stacked-allow")) {
        SET({YES});
        SET({LOAD(arch), IS(AUDIT_ARCH_X86_64, 1), YES, KILL});
        SET(ONE(SYS_mmap, SECCOMP_RET_LOG));
    } else if (!strcmp(name, "arch"))
        SET({LOAD(arch), IS(AUDIT_ARCH_X86_64, 4), LOAD(nr), HAS(0x40000000, 1), KILL, YES, KILL});
    else if (!strcmp(name, "args-allow"))
        // mmap only as private anonymous memory: no descriptor, a short length, nothing writable and executable.
        SET({LOAD(nr), IS(SYS_mmap, 11), HIGH(1), IS(0, 8), LOW(4), IS(0xffffffff, 6), LOW(3), HAS(MAP_ANONYMOUS, 4),
             LOW(2), IS(PROT_READ | PROT_WRITE | PROT_EXEC, 1), KILL, YES, KILL, YES});
    else if (!strcmp(name, "args-kill"))
        // mmap only where the kernel chooses the address.
        SET({LOAD(nr), IS(SYS_mmap, 5), HIGH(0), IS(0, 2), LOW(0),
             BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0), KILL, YES});
    else if (!strcmp(name, "allow-list"))
        SET({LOAD(nr), IS(SYS_read, 1), YES, IS(SYS_write, 1), YES, IS(SYS_exit_group, 1), YES, IS(SYS_mmap, 1), YES,
             IS(SYS_munmap, 1), YES, KILL});
    else if (!strcmp(name, "kill-restart")) SET(ONE(SYS_restart_syscall, SECCOMP_RET_KILL_PROCESS));
    else return EINVAL;
    return 0;
}
