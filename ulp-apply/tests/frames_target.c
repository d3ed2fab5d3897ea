// SPDX-License-Identifier: GPL-2.0-or-later
// A program whose first thread falls asleep in a frame of the kind that its argument names. It says first where the two
// functions are that a test asks about: `inside`, which is on the stack, and `left`, of which only words are.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef HAS_COROUTINES
#include <ucontext.h>
#endif

#define NOINLINE __attribute__((noinline))
#define IN(name) __attribute__((noinline, section(name)))
#define STACK 65536

extern char __start_inside_text[], __stop_inside_text[], __start_left_text[], __stop_left_text[];

#ifdef OWN_RESTORER
/* What handlers return to, without a table, as some C libraries have it. */
__asm__(".text\n\tnop\nown_restorer:\n\tmov $15, %eax\n\tsyscall\n");
void own_restorer(void);
#endif

static int never[2]; /* a pipe that never has anything to read */
static volatile int handled;

static void announce(void)
{
	printf("inside %p %p left %p %p\n", (void *)__start_inside_text, (void *)__stop_inside_text,
	       (void *)__start_left_text, (void *)__stop_left_text);
	fflush(stdout);
}

NOINLINE long sleep_for_ever(void)
{
	char byte;

	announce();
	return read(never[0], &byte, 1);
}

/* Sleeps in a frame of which most is not written to. */
NOINLINE static long sleep_above(void)
{
	volatile char untouched[4096];

	__asm__ volatile("" ::"r"(untouched) : "memory");
	return sleep_for_ever() + untouched[4095];
}

NOINLINE static void spill(volatile unsigned long *place)
{
	*place = (unsigned long)__builtin_return_address(0);
}

/* Leaves addresses of itself on the stack and returns. */
IN("left_text") static long leave_traces(void)
{
	volatile unsigned long words[192];

	for (int i = 0; i < 192; i++)
		spill(&words[i]);
	return words[3] != 0;
}

static void wait_in_handler(int signal)
{
	(void)signal;
	sleep_for_ever();
}

static void return_from_handler(int signal)
{
	handled += signal == SIGUSR1;
}

static void handle_on(char *stack, void (*handler)(int))
{
	stack_t alternate = { .ss_sp = stack, .ss_size = STACK };
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_ONSTACK };

	if (sigaltstack(&alternate, NULL) || sigaction(SIGUSR1, &action, NULL))
		exit(2);
#ifdef OWN_RESTORER
	struct { void (*handler)(int); unsigned long flags; void (*restorer)(void); unsigned long mask; } own = {
		handler, SA_ONSTACK | 0x04000000 /* SA_RESTORER */, own_restorer, 0
	};

	if (syscall(SYS_rt_sigaction, SIGUSR1, &own, NULL, sizeof own.mask))
		exit(2);
#endif
}

/* The signal comes while the thread is in here. */
IN("inside_text") static int interrupted(void)
{
	int failed = raise(SIGUSR1);

	__asm__ volatile("" ::: "memory");
	return failed + 1;
}

/* The handler's stack is an array in this frame, above the frame that it interrupts. */
NOINLINE static int stack_in_a_frame(void)
{
	char stack[STACK];

	handle_on(stack, wait_in_handler);
	return interrupted() + stack[1];
}

NOINLINE static int deep(int levels)
{
	volatile char frame[1024];

	frame[levels] = 1;
	return levels ? deep(levels - 1) + frame[levels] : interrupted() + (int)leave_traces();
}

/* A handler was there and has returned: the context that the kernel saved for it is still in this frame. */
NOINLINE static long handler_has_returned(void)
{
	char stack[STACK];

	handle_on(stack, return_from_handler);
	return deep(20) + stack[1] + sleep_for_ever();
}

/* Sleeps beneath more words that look like frames of `inside` than anybody would want to look at one by one. */
IN("inside_text") static long sleep_below_words(int again);

NOINLINE static long among_words(void)
{
	volatile unsigned long words[6000];

	for (int i = 0; i < 6000; i++)
		words[i] = (unsigned long)sleep_below_words + 4;
	return sleep_for_ever() + (long)words[4711];
}

IN("inside_text") static long sleep_below_words(int again)
{
	return (again ? among_words() : 0) + 1;
}

NOINLINE static long sleep_far_below(void)
{
	volatile char untouched[16384];

	__asm__ volatile("" ::"r"(untouched) : "memory");
	return sleep_for_ever() + untouched[4095];
}

/* The stack consists of three mappings, and this frame is in the middle one. */
IN("inside_text") static long with_a_locked_key(void)
{
	char key[8192] = { 0 };

	if (mlock(key, sizeof key))
		exit(2);
	return sleep_far_below() + key[1];
}

#ifdef HAS_COROUTINES
static ucontext_t outer, coroutine;

static void in_coroutine(void)
{
	interrupted();
}

IN("inside_text") static int put_aside(void)
{
	int failed = swapcontext(&coroutine, &outer);

	__asm__ volatile("" ::: "memory");
	return failed + 1;
}

static void waits_in_coroutine(void)
{
	put_aside();
}

/* A coroutine waits, and its stack is an array in this frame. */
NOINLINE static long coroutine_in_a_frame(void)
{
	char stack[STACK];

	getcontext(&coroutine);
	coroutine.uc_stack.ss_sp = stack;
	coroutine.uc_stack.ss_size = sizeof stack;
	coroutine.uc_link = &outer;
	makecontext(&coroutine, waits_in_coroutine, 0);
	swapcontext(&outer, &coroutine);
	return sleep_for_ever() + stack[1];
}

/* The handler interrupts a coroutine: three stacks. */
NOINLINE static int handler_upon_a_coroutine(void)
{
	handle_on(malloc(STACK), wait_in_handler);
	getcontext(&coroutine);
	coroutine.uc_stack.ss_sp = malloc(STACK);
	coroutine.uc_stack.ss_size = STACK;
	coroutine.uc_link = &outer;
	makecontext(&coroutine, in_coroutine, 0);
	return swapcontext(&outer, &coroutine);
}
#endif

#ifdef HAS_ASSEMBLY
long sleep_in_assembly(void);

/* What was left behind lies in the frame of a function that was written in assembly. */
NOINLINE static long above_assembly(void)
{
	return leave_traces() + sleep_in_assembly();
}
#endif

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pipe(never))
		return 2;
	if (!strcmp(what, "stack-in-a-frame"))
		return stack_in_a_frame();
	if (!strcmp(what, "handler-has-returned"))
		return (int)handler_has_returned();
	if (!strcmp(what, "many-words"))
		return (int)sleep_below_words(argc);
	if (!strcmp(what, "locked-key"))
		return (int)with_a_locked_key();
	if (!strcmp(what, "traces"))
		return (int)(leave_traces() + sleep_above());
#ifdef HAS_COROUTINES
	if (!strcmp(what, "handler-upon-a-coroutine"))
		return handler_upon_a_coroutine();
	if (!strcmp(what, "coroutine-in-a-frame"))
		return (int)coroutine_in_a_frame();
#endif
#ifdef HAS_ASSEMBLY
	if (!strcmp(what, "above-assembly"))
		return (int)above_assembly();
#endif
	return 2;
}
