// SPDX-License-Identifier: GPL-2.0-or-later
// Much memory and many coroutines, for scan.py: fills the given number of MiB, puts 1000 coroutines aside, and then answers
// each line with what the function under test returns.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>

enum { COROUTINES = 1000, STACK = 65536, GUARD = 4096 };

static ucontext_t home, aside[COROUTINES];
static int current;

__attribute__((noinline)) int work(int n)
{
	static volatile int calls;

	calls++;
	return n + 1;
}

static void coroutine(void)
{
	for (;;)
		swapcontext(&aside[current], &home);
}

int main(int argc, char **argv)
{
	size_t words = (argc > 1 ? strtoul(argv[1], NULL, 0) : 1) << 17;
	uintptr_t *memory = malloc(words * sizeof *memory);
	char line[64];

	if (!memory)
		return 1;
	/* A quarter pointers into the heap, a quarter small numbers, the rest anything. */
	for (size_t i = 0, anything = 1; i < words; i++) {
		anything = anything * 6364136223846793005u + 1442695040888963407u;
		memory[i] = i % 4 == 0 ? (uintptr_t)&memory[anything % words] : i % 4 == 1 ? i : anything;
	}
	for (current = 0; current < COROUTINES; current++) {
		char *stack = mmap(NULL, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (stack == MAP_FAILED || mprotect(stack, GUARD, PROT_NONE))
			return 1;
		getcontext(&aside[current]);
		aside[current].uc_stack.ss_sp = stack + GUARD;
		aside[current].uc_stack.ss_size = STACK;
		makecontext(&aside[current], coroutine, 0);
		swapcontext(&home, &aside[current]);
	}
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		printf("%d\n", work(5));
		fflush(stdout);
	}
	return 0;
}
