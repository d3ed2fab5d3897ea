#include <stdio.h>
int shared = 1;

int bonus(int n) { return stderr ? shared * 100 + n : 0; }
void complain(void) { puts("no bonus"); }
