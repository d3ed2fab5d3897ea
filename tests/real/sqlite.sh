#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The yardstick of precision: Debian's sqlite3 with its own fix of CVE-2025-6965, in one file of 240,000 lines that the build puts
# together. Three functions change; line numbers alone would make it some eighty. The fix widens a member of a structure that lives
# no longer than one statement is being prepared, which is for the packager to accept.
. "$(dirname "$0")/lib.sh"
open_work
need build-essential dpkg-dev debhelper python3 tcl patch libsqlite3-0
unpack_source libsqlite3-0
need_build_of "$SOURCE"
open_tools

patch_file=$SOURCE/debian/patches/42-CVE-2025-6965.patch
[ -e "$patch_file" ] || skip "this version of sqlite3 has no patch of CVE-2025-6965"
orig=$WORK/fix/sqlite-orig
rm -rf "$orig"; mkdir -p "$WORK/fix"; cp -a "$SOURCE" "$orig"
patch -s -R -p1 -d "$orig" <"$patch_file" || fail "the fix does not come out of the sources"

BUILD='./configure --disable-tcl --disable-static && make -j2 libsqlite3.la'
cp -a "$orig" "$WORK/fix/sqlite-program"
program=$WORK/fix/sqlite-program
(cd "$program" && sh -c "$BUILD") >>"$LOG" 2>&1 || fail "the plain build, see $LOG"
target=$(find "$program/.libs" -name 'libsqlite3.so.0.*' -type f)
rm -rf "$WORK/ulp-work-sqlite"
make_patch() {
    "$ULP_BIN/ulp-build" --orig "$orig" --fix "$SOURCE" --build "$BUILD" --target "$target" --accept 'E-LAYOUT:struct AggInfo_col' \
        --work "$WORK/ulp-work-sqlite" --json -o "$WORK/sqlite.ulp" >"$WORK/sqlite.json"
}
timed FIRST make_patch
python3 - "$WORK/sqlite.json" <<'PY' || fail "other functions changed than the fix touches"
import json, sys
made = json.load(open(sys.argv[1]))
print("changed", *made["changed"])
sys.exit(sorted(made["changed"]) != ["analyzeAggregate", "sqlite3ExprCodeTarget", "sqlite3Select"])
PY

cat >"$WORK/sqlite-user.c" <<'C'
#include <stdio.h>
#include <string.h>
typedef struct sqlite3 sqlite3;
int sqlite3_open(const char *, sqlite3 **);
int sqlite3_exec(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
static int row(void *out, int count, char **values, char **names) {
    (void)names;
    for (int i = 0; i < count; i++) strcat(strcat(out, values[i] ? values[i] : "-"), " ");
    return 0;
}
int main(void) {
    sqlite3 *db;
    if (sqlite3_open(":memory:", &db)) return 1;
    sqlite3_exec(db, "create table t(a, b); insert into t values(1, 2), (3, 4), (3, 9)", NULL, NULL, NULL);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    for (char line[256]; fgets(line, sizeof line, stdin);) {
        char out[4096] = "", *error = NULL;
        int status = sqlite3_exec(db, line, row, out, &error);
        printf("%d %s\n", status, error ? error : out);
    }
    return 0;
}
C
gcc -O2 -o "$WORK/sqlite-user" "$WORK/sqlite-user.c" "$target"
coproc USER_PROGRAM { LD_LIBRARY_PATH=$program/.libs exec "$WORK/sqlite-user"; }
pid=$USER_PROGRAM_PID; STARTED+=("$pid")
expect() { # QUESTION ANSWER WHEN
    local answer
    echo "$1" >&"${USER_PROGRAM[1]}"
    read -r -t 20 answer <&"${USER_PROGRAM[0]}" || fail "$3: no answer"
    [ "$answer" = "$2" ] || fail "$3: '$answer' was answered, not '$2'"
    say "$3: $answer"
}
query='select a, sum(b), max(b) from t group by a order by a'
expect "$query" '0 1 2 2 3 13 9' before
born=$(born "$pid")
timed_ms APPLY "$ULP_BIN/ulp-apply" apply "$WORK/sqlite.ulp" --pid "$pid"
expect "$query" '0 1 2 2 3 13 9' patched
"$ULP_BIN/ulp-apply" list --pid "$pid"
timed_ms REVERT "$ULP_BIN/ulp-apply" revert sqlite --pid "$pid"
expect "$query" '0 1 2 2 3 13 9' reverted
[ "$(born "$pid")" = "$born" ] || fail "the process is gone or another one"

figures binary "$(basename "$target")" ulp_build_s "$FIRST" package_bytes "$(stat -c %s "$WORK/sqlite.ulp")" apply_ms "$APPLY" revert_ms "$REVERT"
say passed
