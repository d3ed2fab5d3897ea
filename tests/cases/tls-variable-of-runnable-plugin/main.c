#include <dlfcn.h>
#include "ask.h"

static int (*step)(int);

void answer(const char *question) {
    if (!step) {
        void *library = dlopen("libcount.so", RTLD_NOW);
        step = (int (*)(int))(library ? dlsym(library, "step") : 0);
        puts(step ? "loaded" : "not loaded");
        return;
    }
    printf("%d\n", step(atoi(question)));
}
