// SPDX-License-Identifier: GPL-2.0-or-later
/* The only program of the guest that tests/real/qemu.sh boots: it counts time, reads and writes its disk, and says every
   tenth of a second how it fares: rounds, disk operations, wrong bytes, and the largest gap between two looks at its clock. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *const modules[] = {"virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev",
                                      "virtio_pci", "virtio_blk"};

static long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

int main(void) {
    char path[64];
    /* They need each other in an order that kernels change; what is loaded already fails and does no harm. */
    for (unsigned pass = 0; pass < 3; pass++)
        for (unsigned i = 0; i < sizeof modules / sizeof *modules; i++) {
            snprintf(path, sizeof path, "/%s.ko", modules[i]);
            int fd = open(path, O_RDONLY);
            syscall(SYS_finit_module, fd, "", 0);
            close(fd);
        }
    mkdir("/dev", 0755);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    int disk = -1;
    for (int i = 0; i < 100 && disk < 0; i++) {
        disk = open("/dev/vda", O_RDWR | O_DIRECT);
        if (disk < 0) usleep(50000);
    }
    if (disk < 0) printf("guest: no disk\n");
    char *block = aligned_alloc(4096, 4096), *back = aligned_alloc(4096, 4096);
    long said = now_us(), last = said, gap = 0, rounds = 0, operations = 0, wrong = 0;
    for (;; rounds++) {
        if (rounds % 64 == 0 && disk >= 0) {
            off_t at = operations % 256 * 4096;
            memset(block, (int)(operations & 0xff), 4096);
            if (pwrite(disk, block, 4096, at) != 4096 || pread(disk, back, 4096, at) != 4096 || memcmp(block, back, 4096))
                wrong++;
            operations++;
            last = now_us(); /* a disk takes its time; only the clock's own gaps count */
        }
        for (volatile int i = 0; i < 200; i = i + 1) {}
        long now = now_us();
        if (now - last > gap) gap = now - last;
        last = now;
        if (now - said >= 100000) {
            printf("guest: rounds %ld operations %ld wrong %ld gap %ld\n", rounds, operations, wrong, gap);
            fflush(stdout);
            said = last = now_us();
            gap = 0;
        }
    }
}
