# SPDX-License-Identifier: GPL-2.0-or-later
# Sourced by the scripts beside it: a work directory, source packages through a private apt, times, a client, figures.
#
#   ULP_BIN        directory of ulp-build and ulp-apply; without it both are built here, optimised
#   ULP_REAL_WORK  directory that is kept between runs (sources, plain builds); without it a temporary one, removed at the end
set -euo pipefail
export LC_ALL=C TZ=UTC DEBIAN_FRONTEND=noninteractive
NAME=$(basename "$0" .sh)
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STARTED=()

say()  { printf '%s: %s\n' "$NAME" "$*"; }
fail() { printf '%s: FAILED: %s\n' "$NAME" "$*" >&2; exit 1; }

# Exit status 77 says "not run here", so that no caller can take it for a pass.
skip() {
    printf '\n############################################################\n' >&2
    printf '## SKIPPED %s: %s\n' "$NAME" "$*" >&2
    printf '############################################################\n\n' >&2
    exit 77
}

# Only processes that this script started are ended, each by its number.
tidy() {
    local status=$? pid
    for pid in "${STARTED[@]}"; do
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    done
    [ -n "${ULP_REAL_WORK:-}" ] || rm -rf "$WORK"
    exit "$status"
}

open_work() {
    if [ -n "${ULP_REAL_WORK:-}" ]; then
        mkdir -p "$ULP_REAL_WORK"
        WORK=$(cd "$ULP_REAL_WORK" && pwd)
    else
        WORK=$(mktemp -d "${TMPDIR:-/tmp}/ulp-real.XXXXXX")
        # Daemons give up their rights and must still reach what lies here.
        chmod 755 "$WORK"
    fi
    LOG=$WORK/$NAME.log
    : >"$LOG"
    trap tidy EXIT
    trap 'exit 130' INT TERM
}

open_tools() {
    if [ -z "${ULP_BIN:-}" ]; then
        (cd "$REPO" && cargo build --quiet --release -p ulp-build -p ulp-apply) || fail "the tools do not build"
        ULP_BIN=$(cd "$REPO" && cargo metadata --format-version 1 --no-deps |
            python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release
    fi
    [ -x "$ULP_BIN/ulp-build" ] && [ -x "$ULP_BIN/ulp-apply" ] || fail "no ulp-build and ulp-apply in $ULP_BIN"
}

# apt-get with lists and sources of its own: the machine's apt configuration has no deb-src as a rule, and is not ours to
# change. Whatever suites of Debian the machine uses are asked for, binaries and sources.
private_apt() {
    local dir=$WORK/apt
    local options=(-q -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" -o Dir::Etc::sourcelist="$dir/sources.list"
        -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root)
    if [ ! -e "$dir/ready" ]; then
        mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
        local key=/usr/share/keyrings/debian-archive-keyring.gpg signed=""
        [ -e "$key" ] && signed="[signed-by=$key] "
        # shellcheck disable=SC2016  # the dollars are apt's
        apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' | sort -u |
            while read -r line; do printf 'deb %s%s\ndeb-src %s%s\n' "$signed" "$line" "$signed" "$line"; done >"$dir/sources.list"
        [ -s "$dir/sources.list" ] || fail "apt knows no Debian archive; run apt-get update as root first"
        apt-get "${options[@]}" update >>"$LOG" 2>&1 || fail "apt-get update, see $LOG"
        touch "$dir/ready"
    fi
    apt-get "${options[@]}" "$@"
}

# need PACKAGE...: installed already, or installed now by root.
need() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    [ "$(id -u)" = 0 ] || skip "install ${missing[*]} first (only root can)"
    # A policy that says no keeps a fresh package from starting a daemon of its own.
    apt-get -q install -y --no-install-recommends "${missing[@]}" >>"$LOG" 2>&1 || fail "apt-get install ${missing[*]}, see $LOG"
}

need_build_of() {
    (cd "$1" && dpkg-checkbuilddeps 2>/dev/null) && return 0
    [ "$(id -u)" = 0 ] || skip "install the build dependencies of $(basename "$1") first (only root can)"
    private_apt build-dep -y --no-install-recommends "$1" >>"$LOG" 2>&1 || fail "build dependencies of $1, see $LOG"
}

# unpack_source BINARY-PACKAGE: the sources of the installed version, unpacked and patched once; sets SOURCE.
unpack_source() {
    local name version dir
    name=$(dpkg-query -W -f '${source:Package}' "$1")
    version=$(dpkg-query -W -f '${source:Version}' "$1")
    dir=$WORK/source/$name
    if [ ! -e "$dir/ready" ]; then
        rm -rf "$dir"; mkdir -p "$dir"
        (cd "$dir" && private_apt source "$name=$version") >>"$LOG" 2>&1 || fail "apt-get source $name=$version, see $LOG"
        touch "$dir/ready"
    fi
    SOURCE=$(find "$dir" -mindepth 1 -maxdepth 1 -type d)
    say "sources of $name $version"
}

now() { date +%s%3N; }
seconds() { python3 -c "print(f'{($2 - $1) / 1000:.1f}')"; }

# plain_build COMMAND: how long the distributor's own build takes on a fresh copy; sets PLAIN (seconds) and PLAIN_TREE.
plain_build() {
    PLAIN_TREE=$WORK/plain/$NAME/$(basename "$SOURCE")
    if [ ! -e "$WORK/plain/$NAME/seconds" ]; then
        rm -rf "$WORK/plain/$NAME"; mkdir -p "$WORK/plain/$NAME"
        cp -a "$SOURCE" "$PLAIN_TREE"
        local t0; t0=$(now)
        (cd "$PLAIN_TREE" && sh -c "$1") >>"$LOG" 2>&1 || fail "the plain build, see $LOG"
        seconds "$t0" "$(now)" >"$WORK/plain/$NAME/seconds"
    fi
    PLAIN=$(cat "$WORK/plain/$NAME/seconds")
    say "plain build: $PLAIN s"
}

# timed VARIABLE COMMAND...: runs it, its output into the log, its wall time in seconds into VARIABLE.
timed() {
    local variable=$1 t0 t1; shift
    t0=$(now)
    "$@" >>"$LOG" 2>&1 || fail "exit $?: $*; see $LOG: $(tail -2 "$LOG" | tr '\n' ' ')"
    t1=$(now)
    printf -v "$variable" '%s' "$(seconds "$t0" "$t1")"
    say "$(printf '%q ' "${@##*/}" | cut -c1-60): $(seconds "$t0" "$t1") s"
}

# timed_ms VARIABLE COMMAND...: the same in milliseconds, for ulp-apply.
timed_ms() {
    local variable=$1; shift
    local ms
    ms=$(python3 - "$LOG" "$@" <<'PY'
import subprocess, sys, time
with open(sys.argv[1], "ab") as log:
    start = time.monotonic()
    status = subprocess.run(sys.argv[2:], stdout=log, stderr=log).returncode
    print(f"{(time.monotonic() - start) * 1000:.1f}")
sys.exit(status)
PY
    ) || fail "exit $?: $*; see $LOG: $(tail -2 "$LOG" | tr '\n' ' ')"
    printf -v "$variable" '%s' "$ms"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

wait_for_port() {
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return 0
        sleep 0.05
    done
    fail "nothing answers on port $1"
}

born() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null || echo gone; }

# figures KEY VALUE...: one line of JSON, and the same for people.
figures() {
    python3 - "$NAME" "$@" <<'PY'
import json, sys
name, rest = sys.argv[1], sys.argv[2:]
out = {"case": name}
for key, value in zip(rest[::2], rest[1::2]):
    try: out[key] = json.loads(value)
    except ValueError: out[key] = value
print(json.dumps(out))
for key, value in out.items():
    print(f"  {key:<22} {value}")
PY
}
