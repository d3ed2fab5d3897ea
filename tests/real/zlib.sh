#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A shared library of the distributor inside a running program. The rebuild's build-id differs, because debug information
# knows the build directory, and every loaded byte is the same: the second grade of identity.
. "$(dirname "$0")/lib.sh"
open_work
need build-essential dpkg-dev debhelper python3 zlib1g
unpack_source zlib1g
need_build_of "$SOURCE"
open_tools

[ -n "${ULP_REAL_CHECK:-}" ] || export DEB_BUILD_OPTIONS=nocheck
BUILD='dpkg-buildpackage -b -uc -us'
TARGET=$(dpkg -L zlib1g | grep '/libz\.so\.1$')

# A more generous bound, and another text for an error: visible to any program, harmful to none.
first=$WORK/fix/zlib-first second=$WORK/fix/zlib-second
rm -rf "$first" "$second"; mkdir -p "$WORK/fix"
cp -a "$SOURCE" "$first"; cp -a "$SOURCE" "$second"
python3 - "$first/compress.c" "$second/adler32.c" <<'PY'
import sys
def edit(path, old, new):
    text = open(path).read()
    assert text.count(old) == 1, f"{path}: {old!r} stands there {text.count(old)} times"
    open(path, "w").write(text.replace(old, new))
edit(sys.argv[1], "(sourceLen >> 25) + 13;", "(sourceLen >> 25) + 64;")
edit(sys.argv[2], "    if (len2 < 0)\n        return 0xffffffffUL;", "    if (len2 < 0)\n        return 0xfffffffeUL;")
PY

plain_build "$BUILD"
rm -rf "$WORK/ulp-work-zlib"
make_patch() { "$ULP_BIN/ulp-build" --orig "$SOURCE" --fix "$1" --build "$BUILD" --target "$TARGET" --work "$WORK/ulp-work-zlib" -o "$2"; }
timed FIRST make_patch "$first" "$WORK/bound.ulp"
timed SECOND make_patch "$second" "$WORK/combine.ulp"
[ -s "$WORK/bound.ulp" ] || fail "ulp-build said yes and wrote no package"
"$ULP_BIN/ulp-apply" info "$WORK/bound.ulp"
"$ULP_BIN/ulp-apply" info "$WORK/bound.ulp" --json | grep -q '"same-bytes"' || say "note: the identity is not the second grade"

cat >"$WORK/zlib-user.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
unsigned long compressBound(unsigned long);
unsigned long adler32_combine(unsigned long, unsigned long, long);
int compress(unsigned char *, unsigned long *, const unsigned char *, unsigned long);
int uncompress(unsigned char *, unsigned long *, const unsigned char *, unsigned long);

static const char *trip(void) {
    static unsigned char in[5000], out[5000], packed[6000];
    unsigned long out_size = sizeof out, packed_size = sizeof packed;
    for (int i = 0; i < 5000; i++) in[i] = i * i >> 3;
    if (compress(packed, &packed_size, in, sizeof in) || uncompress(out, &out_size, packed, packed_size)) return "error";
    return out_size == sizeof in && !memcmp(in, out, sizeof in) ? "same" : "different";
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    for (char line[64]; fgets(line, sizeof line, stdin);)
        printf("%lu %lx %s\n", compressBound(1000), adler32_combine(1, 1, -1), trip());
    return 0;
}
C
gcc -O2 -o "$WORK/zlib-user" "$WORK/zlib-user.c" "$TARGET"
coproc USER_PROGRAM { exec "$WORK/zlib-user"; }
pid=$USER_PROGRAM_PID; STARTED+=("$pid")
expect() { # ANSWER WHEN
    local answer
    echo go >&"${USER_PROGRAM[1]}"
    read -r -t 20 answer <&"${USER_PROGRAM[0]}" || fail "$2: no answer"
    [ "$answer" = "$1" ] || fail "$2: '$answer' was answered, not '$1'"
    say "$2: $answer"
}
expect '1013 ffffffff same' before
born=$(born "$pid")
timed_ms APPLY "$ULP_BIN/ulp-apply" apply "$WORK/bound.ulp" --pid "$pid"
expect '1064 ffffffff same' patched
"$ULP_BIN/ulp-apply" apply "$WORK/combine.ulp" --pid "$pid" >>"$LOG" 2>&1 || fail "apply of the second patch, see $LOG"
expect '1064 fffffffe same' 'both patches'
timed_ms REVERT "$ULP_BIN/ulp-apply" revert bound --pid "$pid"
expect '1013 fffffffe same' 'first reverted'
"$ULP_BIN/ulp-apply" revert combine --pid "$pid" >>"$LOG" 2>&1 || fail "revert of the second patch, see $LOG"
expect '1013 ffffffff same' reverted
[ "$(born "$pid")" = "$born" ] || fail "the process is gone or another one"

figures binary "$TARGET" plain_build_s "$PLAIN" ulp_build_s "$FIRST" second_ulp_build_s "$SECOND" \
    package_bytes "$(stat -c %s "$WORK/bound.ulp")" apply_ms "$APPLY" revert_ms "$REVERT"
say passed
