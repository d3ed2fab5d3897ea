#include "ask.h"
#include "name.h"

struct name *make_name(const char *text) {
    static struct name *name;
    if (!name) name = malloc(20);
    name->length = strlen(text);
    strncpy(name->text, text, 15);
    return name;
}
