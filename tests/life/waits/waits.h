// SPDX-License-Identifier: GPL-2.0-or-later
// Threads that wait in every way and count what they see.

// The patched function, which a thread can be sent to sleep in.
int work(int ms);
// Sleeps on, whatever comes.
void doze(int ms);
// Understands `start N`, `inside MS`, `storm`, `calm`, `reset` and `report`; anything else is not for it.
int waits_answer(const char *question);
