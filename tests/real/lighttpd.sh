#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The third grade of identity: the distributor's stripped /usr/sbin/lighttpd, whose rebuild has shifted addresses, is patched while
# it answers. Every address is proved from production's own bytes.
. "$(dirname "$0")/lib.sh"
open_work
need build-essential dpkg-dev debhelper python3 curl lighttpd
unpack_source lighttpd
need_build_of "$SOURCE"
open_tools

[ -n "${ULP_REAL_CHECK:-}" ] || export DEB_BUILD_OPTIONS=nocheck
BUILD='dpkg-buildpackage -b -uc -us'
TARGET=/usr/sbin/lighttpd

# One fix is seen in every error page; the other is in the middle of the request parser and needs a variable of the program.
first=$WORK/fix/lighttpd-first second=$WORK/fix/lighttpd-second
rm -rf "$first" "$second"; mkdir -p "$WORK/fix"
cp -a "$SOURCE" "$first"; cp -a "$SOURCE" "$second"
python3 - "$first/src/response.c" "$second/src/response.c" <<'PY'
import sys
def edit(path, old, new):
    text = open(path).read()
    assert text.count(old) == 1, f"{path}: {old!r} stands there {text.count(old)} times"
    open(path, "w").write(text.replace(old, new))
edit(sys.argv[1], '"  <title>"));', '"  <title>patched: "));')
edit(sys.argv[2], '"  <h1>"));\n    http_status_append(b, r->http_status);',
     '"  <h1>"));\n    http_status_append(b, r->http_status);\n'
     '    buffer_append_string_len(b, CONST_STR_LEN(" of "));\n    buffer_append_string_len(b, BUF_PTR_LEN(&r->uri.path));')
PY

plain_build "$BUILD"
rm -rf "$WORK/ulp-work-lighttpd"
make_patch() { "$ULP_BIN/ulp-build" --orig "$SOURCE" --fix "$1" --build "$BUILD" --target "$TARGET" --work "$WORK/ulp-work-lighttpd" -o "$2"; }
timed FIRST make_patch "$first" "$WORK/title.ulp"
timed SECOND make_patch "$second" "$WORK/heading.ulp"
"$ULP_BIN/ulp-apply" info "$WORK/title.ulp"
"$ULP_BIN/ulp-apply" info "$WORK/title.ulp" --json | grep -q '"per-function"' || say "note: the identity is not the third grade"

www=$WORK/lighttpd-www port=$(free_port)
mkdir -p "$www"; echo hello >"$www/index.html"
cat >"$WORK/lighttpd.conf" <<C
server.document-root = "$www"
server.port = $port
server.bind = "127.0.0.1"
index-file.names = ( "index.html" )
C
"$TARGET" -D -f "$WORK/lighttpd.conf" >>"$LOG" 2>&1 &
pid=$!; STARTED+=("$pid")
wait_for_port "$port"
born=$(born "$pid")
expect() { # TITLE HEADING WHEN
    local page; page=$(curl -s "http://127.0.0.1:$port/missing")
    case "$page" in
        *"<title>$1</title>"*"<h1>$2</h1>"*) say "$3: $1 / $2" ;;
        *) fail "$3: the page is $page" ;;
    esac
    [ "$(curl -s "http://127.0.0.1:$port/")" = hello ] || fail "$3: the other page is gone"
}
expect '404 Not Found' '404 Not Found' before
timed_ms APPLY "$ULP_BIN/ulp-apply" apply "$WORK/title.ulp" --pid "$pid"
expect 'patched: 404 Not Found' '404 Not Found' patched
timed_ms REVERT "$ULP_BIN/ulp-apply" revert title --pid "$pid"
expect '404 Not Found' '404 Not Found' reverted
"$ULP_BIN/ulp-apply" apply "$WORK/heading.ulp" --pid "$pid" >>"$LOG" 2>&1 || fail "apply of the second patch, see $LOG"
expect '404 Not Found' '404 Not Found of /missing' 'the second patch'
"$ULP_BIN/ulp-apply" revert heading --pid "$pid" >>"$LOG" 2>&1 || fail "revert of the second patch, see $LOG"
expect '404 Not Found' '404 Not Found' reverted
[ "$(born "$pid")" = "$born" ] || fail "the process is gone or another one"

figures binary "$TARGET" plain_build_s "$PLAIN" ulp_build_s "$FIRST" second_ulp_build_s "$SECOND" \
    package_bytes "$(stat -c %s "$WORK/title.ulp")" apply_ms "$APPLY" revert_ms "$REVERT"
say passed
