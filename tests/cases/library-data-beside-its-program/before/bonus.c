#include <stdio.h>
int shared = 1;

int bonus(int n) { return shared * 10 + n; }
void complain(void) { puts("no bonus"); }
