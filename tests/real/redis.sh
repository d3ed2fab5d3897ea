#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Debian's redis 7.0.15 without and with the fix of CVE-2024-51741, from the corpus of real cases: vulnerable, patched in the
# same process, reverted. The corpus is not part of this repository: ULP_CASES names it, or it stands beside it.
. "$(dirname "$0")/lib.sh"
CASES=${ULP_CASES:-$REPO/../shared/cases}
[ -x "$CASES/run-case.sh" ] || skip "there is no case corpus at $CASES; set ULP_CASES"
CASES=$(cd "$CASES" && pwd)
CASE=${1:-redis-acl-perm}
open_work
need build-essential dpkg-dev python3 curl patch bc procps pkg-config
open_tools

export ULP_BIN ULP_CASE_CACHE=$WORK/cases
T=$ULP_CASE_CACHE/trees/$CASE
result=$("$CASES/run-case.sh" "$CASE" 2>>"$LOG") || fail "$result; see $LOG, $T/ulp-build.log and $T/ulp-apply.log: $(tail -3 "$T/ulp-build.log" 2>/dev/null)"
say "$result"

# The figures that run-case.sh does not give: a plain build, and a second patch with what the first one left.
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$CASES/$CASE/case.json" "$1"; }
BUILD="export SOURCE_DATE_EPOCH=1735689600 LC_ALL=C DEB_BUILD_MAINT_OPTIONS='$(field hardening)'; eval \"\$(dpkg-buildflags --export=sh)\"; $(field build)"
target=$T/live/redis-server
unpack() { rm -rf "${T:?}/$1"; tar -C "$T" -xf "$T/$1.tar"; }
unpack orig
build_in() { (cd "$1" && sh -c "$BUILD"); }
timed PLAIN build_in "$T/orig"
unpack orig; unpack fix
if [ "$CASE" = redis-acl-perm ]; then
    rm -rf "$WORK/ulp-work-redis" "$WORK/redis-second"
    make_patch() { "$ULP_BIN/ulp-build" --orig "$T/orig" --fix "$1" --build "$BUILD" --target "$target" --work "$WORK/ulp-work-redis" -o "$2"; }
    timed FIRST make_patch "$T/fix" "$WORK/redis-first.ulp"
    cp -a "$T/orig" "$WORK/redis-second"
    python3 - "$WORK/redis-second/src/latency.c" <<'PY'
import sys
text = open(sys.argv[1]).read()
old = "I'm sorry, Dave, I can't do that."
assert text.count(old) == 1, text.count(old)
open(sys.argv[1], "w").write(text.replace(old, "I am sorry, Dave, I cannot do that."))
PY
    timed SECOND make_patch "$WORK/redis-second" "$WORK/redis-second.ulp"
    # One more process, for the wall time of ulp-apply alone.
    port=$(free_port)
    "$target" --port "$port" --bind 127.0.0.1 --dir "$WORK" --save '' --appendonly no --io-threads 3 >>"$LOG" 2>&1 &
    pid=$!; STARTED+=("$pid")
    wait_for_port "$port"
    timed_ms APPLY "$ULP_BIN/ulp-apply" apply "$WORK/redis-first.ulp" --pid "$pid"
    timed_ms REVERT "$ULP_BIN/ulp-apply" revert redis-first --pid "$pid"
    figures binary redis-server plain_build_s "$PLAIN" ulp_build_s "$FIRST" second_ulp_build_s "$SECOND" \
        package_bytes "$(stat -c %s "$WORK/redis-first.ulp")" apply_ms "$APPLY" revert_ms "$REVERT"
fi
say passed
