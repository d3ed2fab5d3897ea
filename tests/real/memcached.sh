#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The distributor's own binary: stock, stripped /usr/bin/memcached, started as installed, is patched under load from the
# package's sources and nothing else: no debug information, no build of ours in production.
. "$(dirname "$0")/lib.sh"
open_work
need build-essential dpkg-dev debhelper python3 memcached
unpack_source memcached
need_build_of "$SOURCE"
open_tools

# The distributor's test suite sleeps for eight minutes and compiles nothing. ULP_REAL_CHECK=1 runs it all the same.
[ -n "${ULP_REAL_CHECK:-}" ] || export DEB_BUILD_OPTIONS=nocheck
BUILD='dpkg-buildpackage -b -uc -us'
TARGET=/usr/bin/memcached

# Two fixes of the ordinary kind: a level that was silently cut off is an error now; an answer says more.
first=$WORK/fix/memcached-first second=$WORK/fix/memcached-second
rm -rf "$first" "$second"; mkdir -p "$WORK/fix"
cp -a "$SOURCE" "$first"; cp -a "$SOURCE" "$second"
python3 - "$first/proto_text.c" "$second/proto_text.c" <<'PY'
import sys
def edit(path, old, new):
    text = open(path).read()
    assert text.count(old) == 1, f"{path}: {old!r} stands there {text.count(old)} times"
    open(path, "w").write(text.replace(old, new))
edit(sys.argv[1], "    settings.verbose = level > MAX_VERBOSITY_LEVEL ? MAX_VERBOSITY_LEVEL : level;\n    out_string(c, \"OK\");",
     "    if (level > MAX_VERBOSITY_LEVEL) {\n        out_string(c, \"CLIENT_ERROR no such verbosity level\");\n        return;\n    }\n"
     "    settings.verbose = level;\n    out_string(c, \"OK\");")
edit(sys.argv[2], 'out_string(c, "VERSION " VERSION);', 'out_string(c, "VERSION " VERSION " (patched)");')
PY

plain_build "$BUILD"
rm -rf "$WORK/ulp-work-memcached"
make_patch() { "$ULP_BIN/ulp-build" --orig "$SOURCE" --fix "$1" --build "$BUILD" --target "$TARGET" --work "$WORK/ulp-work-memcached" -o "$2"; }
timed FIRST make_patch "$first" "$WORK/verbosity.ulp"
timed SECOND make_patch "$second" "$WORK/version.ulp"
[ -s "$WORK/verbosity.ulp" ] || fail "ulp-build said yes and wrote no package"
"$ULP_BIN/ulp-apply" info "$WORK/verbosity.ulp"

user=nobody; id memcache >/dev/null 2>&1 && user=memcache
as_user=(); [ "$(id -u)" = 0 ] && as_user=(-u "$user")
port=$(free_port)
"$TARGET" -m 64 -l 127.0.0.1 -p "$port" "${as_user[@]}" >>"$LOG" 2>&1 &
pid=$!; STARTED+=("$pid")
wait_for_port "$port"
born=$(born "$pid")
ask() { python3 "$REPO/tests/real/client.py" "$port" "$1"; }
expect() { # QUESTION ANSWER WHEN
    local answer; answer=$(ask "$1")
    [ "$answer" = "$2" ] || fail "$3: '$1' was answered '$answer', not '$2'"
    say "$3: $1 -> $answer"
}
version=$(ask version)

stop=$WORK/memcached-stop; rm -f "$stop"
python3 "$REPO/tests/real/client.py" "$port" --load "$stop" >"$WORK/memcached-load" 2>>"$LOG" &
load=$!; STARTED+=("$load")
apply() { "$ULP_BIN/ulp-apply" apply "$1" --pid "$pid" --wait 30s; }
revert() { "$ULP_BIN/ulp-apply" revert "$1" --pid "$pid" --wait 30s; }

expect 'verbosity 99' OK before
ask 'verbosity 0' >/dev/null
timed_ms APPLY "$ULP_BIN/ulp-apply" apply "$WORK/verbosity.ulp" --pid "$pid" --wait 30s
expect 'verbosity 99' 'CLIENT_ERROR no such verbosity level' patched
expect 'verbosity 0' OK patched
timed_ms REVERT "$ULP_BIN/ulp-apply" revert verbosity --pid "$pid" --wait 30s
expect 'verbosity 99' OK reverted
ask 'verbosity 0' >/dev/null
apply "$WORK/version.ulp" >>"$LOG" 2>&1 || fail "apply of the second patch, see $LOG"
expect version "$version (patched)" 'second patch'
revert version >>"$LOG" 2>&1 || fail "revert of the second patch, see $LOG"
expect version "$version" reverted
for _ in $(seq 10); do
    apply "$WORK/verbosity.ulp" >>"$LOG" 2>&1 && revert verbosity >>"$LOG" 2>&1 || fail "a cycle under load, see $LOG"
done
touch "$stop"; wait "$load"
read -r requests errors <"$WORK/memcached-load"
[ "$errors" = 0 ] || fail "$errors of $requests requests went wrong"
[ "$requests" -gt 100 ] || fail "there was no load: $requests requests"
[ "$(born "$pid")" = "$born" ] || fail "the process is gone or another one"

figures binary "$TARGET" plain_build_s "$PLAIN" ulp_build_s "$FIRST" second_ulp_build_s "$SECOND" \
    package_bytes "$(stat -c %s "$WORK/verbosity.ulp")" apply_ms "$APPLY" revert_ms "$REVERT" requests "$requests" errors "$errors" \
    "$([ -n "${ULP_REAL_CHECK:-}" ] && echo with_test_suite || echo without_test_suite)" true
say passed
