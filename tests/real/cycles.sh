#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A real patch goes into a real server and out again, thousands of times, while a benchmark and a client that checks each
# answer have it work all the while: no failed request, and the same mappings, memory, descriptors and threads at the end.
#
#   cycles.sh [redis|nginx]...   both without an argument
#   ULP_CYCLES=N                 how often, 10,000 without it
#
# The patches are two of the corpus of real cases, which is not part of this repository: ULP_CASES names it, or it stands beside it.
. "$(dirname "$0")/lib.sh"
CASES=${ULP_CASES:-$REPO/../shared/cases}
[ -x "$CASES/run-case.sh" ] || skip "there is no case corpus at $CASES; set ULP_CASES"
CASES=$(cd "$CASES" && pwd)
CYCLES=${ULP_CYCLES:-10000}
[ $# -gt 0 ] || set -- redis nginx
open_work
need build-essential dpkg-dev python3 curl patch bc procps pkg-config
open_tools
export ULP_BIN ULP_CASE_CACHE=$WORK/cases

# have CASE: the production program and the patch, built once for each ulp-build; sets T, their directory.
have() {
    T=$ULP_CASE_CACHE/trees/$1
    local stamp=$T/cycles.stamp builder
    builder=$(sha256sum "$ULP_BIN/ulp-build")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$builder" ] || [ ! -s "$T/$1.ulp" ]; then
        local result
        result=$("$CASES/run-case.sh" "$1" 2>>"$LOG") || fail "$result; see $LOG and $T/ulp-build.log"
        echo "$builder" >"$stamp"
    fi
}

# place_for SERVER: sets RUN, an empty directory for its files, and PORT.
place_for() {
    RUN=$WORK/run-$1; PORT=$(free_port)
    rm -rf "$RUN"; mkdir -p "$RUN"
}

cycle() { # KIND PATCH PIDS
    python3 "$REPO/tests/real/cycles.py" --kind "$1" --port "$PORT" --apply "$ULP_BIN/ulp-apply" --package "$T/$2.ulp" \
        --patch "$2" --pids "$3" --cycles "$CYCLES" 2>>"$LOG" || fail "$1: see above and $LOG"
}

redis() {
    need redis-tools
    have redis-errreply; place_for redis
    "$T/live/redis-server" --port "$PORT" --bind 127.0.0.1 --dir "$RUN" --save '' --appendonly no >>"$LOG" 2>&1 &
    local pid=$!; STARTED+=("$pid")
    wait_for_port "$PORT"
    cycle redis redis-errreply "$pid"
}

nginx() {
    need wrk libpcre2-dev libssl-dev zlib1g-dev
    have nginx-rewrite-args; place_for nginx
    sed "s#RUN#$RUN#g; s#PORT#$PORT#" "$CASES/nginx-rewrite-args/nginx.conf" >"$RUN/nginx.conf"
    "$T/live/nginx" -p "$RUN" -c "$RUN/nginx.conf" >>"$LOG" 2>&1 &
    local pid=$! workers; STARTED+=("$pid")
    wait_for_port "$PORT"
    workers=$(cat "/proc/$pid/task/$pid/children")
    [ "$(wc -w <<<"$workers")" = 2 ] || fail "nginx has not two workers but: $workers"
    cycle nginx nginx-rewrite-args "$pid,$(xargs <<<"$workers" | tr ' ' ,)"
}

for kind in "$@"; do
    case $kind in
        redis | nginx) "$kind" ;;
        *) fail "no such server: $kind" ;;
    esac
done
say passed
