// The header of a type in use changes, and the type does not (D107).
struct name {
    int length;
    char text[16];
};
#define EXTRA 0
