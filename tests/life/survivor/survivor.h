// SPDX-License-Identifier: GPL-2.0-or-later
// What the parts of this program share.
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

int v1(int n), v2(int n), v3(int n), v4(int n), v5(int n);

// Makes a system call while every register holds a known value, and says whether each still holds it afterwards.
long held_call(const long call[7], int *intact);
// Holds known values in all registers and flags for a number of rounds; false when one has changed.
int spin_check(long rounds);

// Changes a register of the thread that gets it.
enum { SPOILS = SIGHUP };

// Starts a thread for each kind of wait but one, and returns that one, which is for the first thread.
int start_waiters(int first);
_Noreturn void wait_for_ever(int kind);
// Has every waiting thread come back from its call and go into it again. The number of threads that did not.
int turn_waiters(void);

// What went wrong so far.
extern atomic_long eintr, other, registers, wrong_errno, mixtures;
// Calls and rounds that were made.
extern atomic_long turns, spins;
