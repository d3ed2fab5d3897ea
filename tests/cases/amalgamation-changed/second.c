NOCLONE int second(int n) {
    assert(n < 1000);
    return n * 5;
}

void answer(const char *question) { printf("%d %d\n", first(atoi(question)), second(atoi(question))); }
