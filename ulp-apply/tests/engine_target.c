// SPDX-License-Identifier: GPL-2.0-or-later
// A program to be stopped: threads that wait in every way a thread can, threads that run, threads inside functions
// which a test asks about. It counts every wait that ended without a reason and says so when a line arrives on stdin.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static atomic_long eintr, early, wrong, laps, births, alarms;
static int never[2];	/* a pipe that never has anything to read */
static int quiet_socket[2];

static int alone;
static int semaphore;	/* never raised */

/* A semaphore outlives its process, and ours is killed: a child waits for our end and removes it. */
static void make_semaphore(void)
{
	int alive[2];

	semaphore = semget(IPC_PRIVATE, 1, 0600);
	if (semaphore < 0 || pipe(alive))
		exit(2);
	if (!fork()) {
		char byte;

		for (int fd = 0; fd < 64; fd++)
			if (fd != alive[0])
				close(fd);
		while (read(alive[0], &byte, 1) > 0)
			;
		semctl(semaphore, 0, IPC_RMID);
		_exit(0);
	}
	close(alive[0]);
}

static void judge(long result)
{
	/* With nobody to ask us, our end says that a wait has ended. */
	if (alone)
		_exit(errno == EINTR ? 8 : 9);
	if (result < 0 && errno == EINTR)
		eintr++;
	else
		early++;
}

static void wait_somehow(const char *kind)
{
	char byte;

	if (!strcmp(kind, "read")) {
		judge(read(never[0], &byte, 1));
	} else if (!strcmp(kind, "poll")) {
		struct pollfd fd = { never[0], POLLIN, 0 };

		judge(poll(&fd, 1, -1));
	} else if (!strcmp(kind, "epoll")) {
		struct epoll_event event;
		int fd = epoll_create1(0);

		judge(epoll_wait(fd, &event, 1, -1));
	} else if (!strcmp(kind, "recv")) {
		struct timeval limit = { 1000, 0 };

		setsockopt(quiet_socket[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		judge(recv(quiet_socket[0], &byte, 1, 0));
	} else if (!strcmp(kind, "nanosleep")) {
		struct timespec long_time = { 1000, 0 };

		judge(nanosleep(&long_time, NULL));
	} else if (!strcmp(kind, "sigwait")) {
		struct timespec long_time = { 1000, 0 };
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		judge(sigtimedwait(&set, NULL, &long_time));
	} else if (!strcmp(kind, "semop")) {
		struct sembuf op = { 0, -1, 0 };

		judge(semop(semaphore, &op, 1));
	} else {
		sem_t sem;

		sem_init(&sem, 0, 0);
		judge(sem_wait(&sem));
	}
}

static void *waiter(void *kind)
{
	for (;;)
		wait_somehow(kind);
	return NULL;
}

static void *reader(void *unused)
{
	wait_somehow("read");
	return unused;
}

/* Runs all the time, with values in registers that must survive whatever is done to this thread. */
static void *runner(void *unused)
{
	for (;;) {
		unsigned long a = 1, b = 2, c = 3, d = 4, e = 5, f = 6;

		for (int i = 0; i < 1000; i++) {
			a += b; b ^= c; c += d; d ^= e; e += f; f ^= a;
			__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));
		}
		static atomic_ulong expected;
		unsigned long sum = a ^ b ^ c ^ d ^ e ^ f, zero = 0;

		if (!atomic_compare_exchange_strong(&expected, &zero, sum) && zero != sum)
			wrong++;
		laps++;
	}
	return unused;
}

#define IN(name) __attribute__((noinline, section(name)))
extern char __start_asleep_text[], __stop_asleep_text[];
extern char __start_left_text[], __stop_left_text[];
extern char __start_hot_text[], __stop_hot_text[];
extern char __start_handler_text[], __stop_handler_text[];
extern char __start_beneath_text[], __stop_beneath_text[];

IN("asleep_text") static long sleep_inside(int fd)
{
	char byte;
	long result = read(fd, &byte, 1);

	__asm__ volatile("" ::: "memory");
	return result + 1;
}

__attribute__((noinline)) static void spill(volatile unsigned long *place)
{
	*place = (unsigned long)__builtin_return_address(0);
}

/* Leaves addresses of itself on the stack and returns. */
IN("left_text") static long leave_traces(void)
{
	volatile unsigned long words[64];

	for (int i = 0; i < 64; i++)
		spill(&words[i]);
	return (long)words[3];
}

/* Sleeps in a frame which has those words in it. */
__attribute__((noinline)) static long sleep_above(int fd)
{
	volatile char untouched[2048];

	__asm__ volatile("" :: "r"(untouched) : "memory");
	return read(fd, (void *)&untouched[2047], 1) + untouched[2047];
}

IN("hot_text") static unsigned long hot(unsigned long n)
{
	unsigned long sum = 0;

	for (unsigned long i = 0; i < n; i++) {
		sum += i * i;
		__asm__ volatile("" : "+r"(sum));
	}
	return sum;
}

/* A signal handler that waits for ever, on an alternate stack. */
IN("handler_text") static void wait_in_handler(int signal)
{
	(void)signal;
	sleep_above(never[0]);
	__asm__ volatile("" ::: "memory");
}

static void *sleeper(void *unused)
{
	sleep_inside(never[0]);
	return unused;
}

static void *tracer_of_old(void *unused)
{
	leave_traces();
	sleep_above(never[0]);
	return unused;
}

static void *hot_thread(void *unused)
{
	for (;;)
		laps += (long)(hot(100000) & 1);
	return unused;
}

static void *handler_thread(void *unused)
{
	stack_t alternate = { .ss_sp = malloc(65536), .ss_size = 65536 };
	struct sigaction action = { .sa_handler = wait_in_handler, .sa_flags = SA_ONSTACK };

	sigaltstack(&alternate, NULL);
	sigaction(SIGUSR1, &action, NULL);
	leave_traces();
	raise(SIGUSR1);
	return unused;
}

/* A signal handler on a stack that is an array in a frame: what it interrupts lies beneath it. */
IN("beneath_text") static long raise_inside(void)
{
	long result = raise(SIGUSR1);

	__asm__ volatile("" ::: "memory");
	return result + 1;
}

static void *thread_with_an_array(void *unused)
{
	char stack[65536] __attribute__((aligned(16)));
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_handler = wait_in_handler, .sa_flags = SA_ONSTACK };

	sigaltstack(&alternate, NULL);
	sigaction(SIGUSR1, &action, NULL);
	raise_inside();
	__asm__ volatile("" :: "r"(stack) : "memory");
	return unused;
}

static void *nothing(void *unused)
{
	births++;
	return unused;
}

static void *breeder(void *unused)
{
	for (;;) {
		pthread_t thread;

		if (!pthread_create(&thread, NULL, nothing, NULL))
			pthread_join(thread, NULL);
	}
	return unused;
}

static void *forker(void *unused)
{
	for (;;) {
		pid_t child = fork();
		int status;

		if (!child)
			_exit(7);
		while (waitpid(child, &status, 0) < 0)
			judge(-1);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
			wrong++;
		births++;
	}
	return unused;
}

static void count_alarm(int signal)
{
	(void)signal;
	alarms++;
}

static __thread volatile long let_in;

static void note(int signal)
{
	(void)signal;
	let_in++;
	alarms++;
}

static void *pesterer(void *whom)
{
	struct timespec pause = { 0, 300000 };

	for (;;) {
		syscall(SYS_tgkill, getpid(), (int)(long)whom, SIGUSR1);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void start(void *(*run)(void *), void *arg);

/* Lets a signal in while it waits and at no other time: each handler ends exactly one wait. */
static void *pestered(void *kind)
{
	struct sigaction action = { .sa_handler = note };
	struct epoll_event event;
	struct pollfd fd = { never[0], POLLIN, 0 };
	sigset_t set, open;
	int epoll = epoll_create1(0);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &open);
	sigaction(SIGUSR1, &action, NULL);
	start(pesterer, (void *)syscall(SYS_gettid));
	for (;;) {
		long before = let_in, result;

		if (!strcmp(kind, "let-in-epoll"))
			result = epoll_pwait(epoll, &event, 1, -1, &open);
		else if (!strcmp(kind, "let-in-ppoll"))
			result = ppoll(&fd, 1, NULL, &open);
		else
			result = sigsuspend(&open);
		if (result != -1 || errno != EINTR || let_in == before)
			judge(result);
		else if (let_in != before + 1)
			wrong++;
	}
	return NULL;
}

/* What a handler leaves in the registers is not what its call was given. */
static void note_and_ask(int signal)
{
	(void)signal;
	alarms++;
	syscall(SYS_getpid);
}

static void *hasty_pesterer(void *whom)
{
	for (;;) {
		long before = alarms;

		syscall(SYS_tgkill, getpid(), (int)(long)whom, SIGUSR1);
		while (alarms == before)
			;
	}
	return NULL;
}

/* Waits, and is always in a handler or on its way out of one: each wait ends with EINTR and with nothing else. */
static void *harried(void *unused)
{
	struct sigaction action = { .sa_handler = note_and_ask };
	struct epoll_event event;
	int epoll = dup2(epoll_create1(0), 77);

	sigaction(SIGUSR1, &action, NULL);
	start(hasty_pesterer, (void *)syscall(SYS_gettid));
	for (;;)
		if (epoll_wait(epoll, &event, 1, -1) != -1 || errno != EINTR)
			wrong++;
	return unused;
}

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define STACK (256 * 1024)
#define GUARD 65536	/* a page of any size */

/* Two threads' stacks in one mapping, with nothing but guard pages between them, as the C library makes them. */
static void start_guarded(void *(*lower)(void *), void *(*upper)(void *))
{
	char *room = mmap(NULL, 2 * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *(*run[2])(void *) = { lower, upper };

	for (int i = 0; i < 2; i++) {
		pthread_attr_t attr;
		pthread_t thread;

		/* Kernels that have none are no matter: then the stacks are read through. */
		madvise(room + i * STACK, GUARD, MADV_GUARD_INSTALL);
		pthread_attr_init(&attr);
		pthread_attr_setstack(&attr, room + i * STACK + GUARD, STACK - GUARD);
		if (pthread_create(&thread, &attr, run[i], NULL))
			exit(2);
	}
}

static ucontext_t outer, inner;

static void sleep_in_context(void)
{
	sleep_above(never[0]);
}

/* A coroutine's stack in a frame, with guard pages above it: who called this has its frames beyond them. */
__attribute__((noinline)) static long sleep_in_a_frame(void)
{
	char array[4 * GUARD] __attribute__((aligned(GUARD)));
	long result;

	madvise(array + 2 * GUARD, GUARD, MADV_GUARD_INSTALL);
	getcontext(&inner);
	inner.uc_stack.ss_sp = array;
	inner.uc_stack.ss_size = 2 * GUARD;
	makecontext(&inner, sleep_in_context, 0);
	result = swapcontext(&outer, &inner);
	__asm__ volatile("" :: "r"(array) : "memory");
	return result;
}

/* Some processors keep a return address below the frame's arrays: that into the caller is to be above. */
__attribute__((noinline)) static long sleep_in_the_next_frame(void)
{
	long result = sleep_in_a_frame();

	__asm__ volatile("" ::: "memory");
	return result + 1;
}

IN("beneath_text") static void *on_a_stack_in_a_frame(void *unused)
{
	long result = sleep_in_the_next_frame();

	__asm__ volatile("" :: "r"(result) : "memory");
	return unused;
}

static void filter(unsigned int number, unsigned int answer)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, answer),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		exit(3);
}

static void start_with(void *(*run)(void *), void *arg, size_t stack)
{
	pthread_t thread;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, stack);
	if (pthread_create(&thread, &attr, run, arg))
		exit(2);
}

static void start(void *(*run)(void *), void *arg)
{
	start_with(run, arg, STACK);
}

static void *answer(void *unused)
{
	char line[16];

	while (read(0, line, sizeof(line)) > 0) {
		printf("eintr=%ld early=%ld wrong=%ld laps=%ld births=%ld alarms=%ld\n",
		       eintr, early, wrong, laps, births, alarms);
		fflush(stdout);
	}
	_exit(0);
	return unused;
}

/* Each argument is a thread: a way to wait, or one of the words below. `only KIND` waits in the first thread, alone. */
int main(int argc, char **argv)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (pipe(never) || socketpair(AF_UNIX, SOCK_DGRAM, 0, quiet_socket))
		return 2;
	for (int i = 1; i < argc && !semaphore; i++)
		if (!strcmp(argv[i], "semop"))
			make_semaphore();
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "run"))
			start(runner, NULL);
		else if (!strcmp(argv[i], "asleep"))
			start(sleeper, NULL);
		else if (!strcmp(argv[i], "left"))
			start(tracer_of_old, NULL);
		else if (!strcmp(argv[i], "hot"))
			start(hot_thread, NULL);
		else if (!strcmp(argv[i], "handler"))
			start(handler_thread, NULL);
		else if (!strcmp(argv[i], "beneath"))
			start(thread_with_an_array, NULL);
		else if (!strcmp(argv[i], "breed"))
			start(breeder, NULL);
		else if (!strcmp(argv[i], "fork"))
			start(forker, NULL);
		else if (!strcmp(argv[i], "seccomp-kill"))
			filter(SYS_mmap, SECCOMP_RET_KILL_PROCESS);
		else if (!strcmp(argv[i], "seccomp-errno"))
			filter(SYS_mmap, SECCOMP_RET_ERRNO | EPERM);
		else if (!strcmp(argv[i], "seccomp-resume"))
			filter(SYS_restart_syscall, SECCOMP_RET_KILL_PROCESS);
		else if (!strcmp(argv[i], "harried"))
			start(harried, NULL);
		else if (!strcmp(argv[i], "guarded"))
			start_guarded(reader, sleeper);
		else if (!strcmp(argv[i], "guarded-frame"))
			start_with(on_a_stack_in_a_frame, NULL, 16 * GUARD);
		else if (!strncmp(argv[i], "let-in-", 7))
			start(pestered, argv[i]);
		else if (!strcmp(argv[i], "alarms")) {
			struct sigaction action = { .sa_handler = count_alarm, .sa_flags = SA_RESTART };
			struct itimerval often = { { 0, 500 }, { 0, 500 } };

			sigaction(SIGALRM, &action, NULL);
			setitimer(ITIMER_REAL, &often, NULL);
		} else if (!strcmp(argv[i], "only") || !strcmp(argv[i], "leave"))
			break;
		else
			start(waiter, argv[i]);
	}
	printf("asleep %p %p left %p %p hot %p %p handler %p %p beneath %p %p\n", (void *)__start_asleep_text,
	       (void *)__stop_asleep_text, (void *)__start_left_text, (void *)__stop_left_text, (void *)__start_hot_text,
	       (void *)__stop_hot_text, (void *)__start_handler_text, (void *)__stop_handler_text,
	       (void *)__start_beneath_text, (void *)__stop_beneath_text);
	fflush(stdout);
	if (argc > 2 && !strcmp(argv[argc - 2], "only")) {
		alone = 1;
		if (!strcmp(argv[argc - 1], "guarded-frame")) {
			start(answer, NULL);
			on_a_stack_in_a_frame(NULL);
		}
		waiter(argv[argc - 1]);
	}
	if (argc > 1 && !strcmp(argv[argc - 1], "leave")) {
		start(answer, NULL);
		pthread_exit(NULL);
	}
	answer(NULL);
}
