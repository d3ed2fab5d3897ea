// A caller keeps values in every register that calls may change, as -fipa-ra allows: the way into the patch touches none (A).
#define USED 1
#define OTHER 3
