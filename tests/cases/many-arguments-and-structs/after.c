// Fixed.
#include "ask.h"
#include <stdarg.h>

struct pair { long a; double b; };
struct big { long a[6]; };

NOCLONE double many(int a, long b, short c, char d, int e, int f, int g, long h, int i, int j, double k, float l,
                    double m, double n, double o, double p, double q, double r, float s, double t) {
    return 1 + a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7 + h * 8 + i * 9 + j * 10 + k + l * 2 + m * 3 + n * 4 +
           o * 5 + p * 6 + q * 7 + r * 8 + s * 9 + t * 10;
}
NOCLONE double vary(int count, ...) {
    va_list list;
    double sum = 0;
    va_start(list, count);
    for (int i = 0; i < count; i++) sum += va_arg(list, int) + va_arg(list, double);
    va_end(list);
    return sum + 1;
}
NOCLONE struct pair two(long n) { return (struct pair){n + 1, n * 0.5 + 1}; }
NOCLONE struct big six(long n) { return (struct big){{n + 1, n + 1, n + 2, n + 3, n + 4, n + 11}}; }
NOCLONE long double precise(long double n) { return n / 3 + 1; }

void answer(const char *question) {
    long n = atol(question);
    struct pair p = two(n);
    struct big b = six(n);
    printf("%g %g %ld %g %ld %ld %.3Lf\n", many(1, n, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
           vary(5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5), p.a, p.b, b.a[0], b.a[5], precise(n));
}
