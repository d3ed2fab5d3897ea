// SPDX-License-Identifier: GPL-2.0-or-later
// A ring of functions, each of which asks the next one for its version. A thread inside one of them keeps all of them from
// being switched, so two versions met in one call are a mixture, and nothing else.
#include "ask.h"
#include <stdatomic.h>

typedef int link_fn(int ask);
extern _Atomic long mixtures;

// The padding keeps every function on lines of its own; NEXT is reached through a pointer, as a plug-in's functions are.
#define LINK(NAME, NEXT) \
    NOCLONE int NAME(int ask) { \
        if (!ask) return VERSION; \
        if (NEXT(0) != VERSION) mixtures++; \
        return ask + VERSION; \
    }
