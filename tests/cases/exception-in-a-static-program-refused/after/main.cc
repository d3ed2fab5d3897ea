// Fixed.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

#define NOINLINE __attribute__((noinline))

// Says when it is destroyed, which an exception on its way has to do.
struct Witness {
    std::string *log;
    char mark;
    ~Witness() { log->push_back(mark); }
};

NOINLINE void thrower(int n) {
    if (n < 0) throw std::runtime_error("below " + std::to_string(n));
    if (n == 0) throw 42;
}

NOINLINE void middle(int n, std::string &log) {
    Witness witness{&log, 'm'};
    thrower(n);
}

NOINLINE std::string outer(int n) {
    std::string log;
    try {
        Witness witness{&log, 'o'};
        middle(n, log);
        log += "-returned";
    } catch (const std::exception &e) {
        log += std::string("-caught ") + e.what();
    } catch (int code) {
        log += "-number " + std::to_string(code);
    }
    return log;
}

extern "C" void answer(const char *question) { std::printf("%s\n", outer(std::atoi(question)).c_str()); }
