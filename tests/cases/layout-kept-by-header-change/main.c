#include "ask.h"
#include "name.h"

static struct name name;

NOINLINE int length_of(const struct name *name) { return name->length + EXTRA; }

void answer(const char *question) {
    name.length = strlen(question);
    printf("%d\n", length_of(&name));
}
