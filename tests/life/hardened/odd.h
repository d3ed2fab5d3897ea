// SPDX-License-Identifier: GPL-2.0-or-later
// The ways in which this program can be unusual. Each does what its word says and returns 0, or an errno.
#include "ask.h"
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

int value(void);
// Puts a filter of this name before the system calls of all threads, or of the calling one alone.
int filter(const char *name, int all_threads);
int odd(const char *name);
void thread(void *(*body)(void *));
