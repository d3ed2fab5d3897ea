// A library that comes and goes, and one that is there twice (A).
// SPDX-License-Identifier: GPL-2.0-or-later
int price(int n) { return n * 7 - 5; }
