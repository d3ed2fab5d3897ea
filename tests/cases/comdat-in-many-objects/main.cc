#include <cstdio>
#include <cstdlib>

int use0(int n);
int use1(int n);
int use2(int n);
int use3(int n);
int use4(int n);
int use5(int n);
extern "C" void answer(const char *question) {
    int n = atoi(question);
    printf("%d %d\n", use0(n), use5(n));
}
