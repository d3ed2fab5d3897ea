#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Debian's QEMU with a running guest: a fix in the monitor and one in a coroutine (block I/O), applied and reverted again and
# again while the guest (tests/real/qemu/init.c) counts time and works on its disk. The guest must notice nothing: no wrong
# byte, no disk operation that fails, and gaps in its clock like those of a guest that is left alone.
#
#   ULP_QEMU_CYCLES    how often each fix is applied and reverted (20)
#   ULP_QEMU_MAX_STOP  how long one stop may take (50ms, as usual; a machine with other work needs more)
. "$(dirname "$0")/lib.sh"
HERE=$(cd "$(dirname "$0")" && pwd)/qemu
CYCLES=${ULP_QEMU_CYCLES:-20}
MAX_STOP=${ULP_QEMU_MAX_STOP:-50ms}
open_work
need build-essential dpkg-dev python3 python3-venv ninja-build pkg-config libglib2.0-dev libpixman-1-dev zlib1g-dev libfdt-dev \
    cpio patch
open_tools

# The sources of the suite's own version, whether it is installed or not.
version=$(apt-cache policy qemu-system-x86 | awk '/Candidate:/ { print $2 }')
version=${version%+b[0-9]*}
[ -n "$version" ] && [ "$version" != "(none)" ] || skip "apt knows no qemu-system-x86; run apt-get update first"
dir=$WORK/source/qemu
if [ ! -e "$dir/ready" ]; then
    rm -rf "$dir"; mkdir -p "$dir"
    (cd "$dir" && private_apt source "qemu=$version") >>"$LOG" 2>&1 || fail "apt-get source qemu=$version, see $LOG"
    touch "$dir/ready"
fi
SOURCE=$(find "$dir" -mindepth 1 -maxdepth 1 -type d)
say "sources of qemu $version"

BUILD='./configure --target-list=x86_64-softmmu --without-default-features --enable-system --enable-tcg && make -j2'
plain_build "$BUILD"
target=$PLAIN_TREE/build/qemu-system-x86_64

# A guest: the suite's kernel and firmware, unpacked and not installed, and one program.
GUEST=$WORK/guest
if [ ! -e "$GUEST/ready" ]; then
    rm -rf "$GUEST"; mkdir -p "$GUEST/root/dev"
    kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
    # Where the compiler has no 32-bit libgcc, the build makes no option ROMs; the suite's are the same sources.
    (cd "$GUEST" && private_apt download "$kernel" seabios "qemu-system-data=$version") >>"$LOG" 2>&1 ||
        fail "apt-get download $kernel seabios qemu-system-data=$version, see $LOG"
    for package in "$GUEST"/*.deb; do dpkg -x "$package" "$GUEST/files"; done
    rm "$GUEST"/*.deb
    for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
        find "$GUEST/files" -name "$module.ko*" -exec cp {} "$GUEST/root/" \;
    done
    touch "$GUEST/ready"
fi
gcc -O2 -static -o "$GUEST/root/init" "$HERE/init.c"
(cd "$GUEST/root" && find . | cpio -o -H newc 2>/dev/null | gzip) >"$GUEST/initrd.gz"

# Two fixes; the second one finds the build that the first one left.
rm -rf "$WORK/ulp-work-qemu"
make_patch() {
    "$ULP_BIN/ulp-build" --orig "$SOURCE" --patch "$HERE/$1.patch" --build "$BUILD" --build-path "$PLAIN_TREE" --target "$target" \
        --work "$WORK/ulp-work-qemu" -o "$WORK/$1.ulp"
}
timed FIRST make_patch monitor
timed SECOND make_patch coroutine

truncate -s 16M "$GUEST/disk.raw"
rm -f "$GUEST/serial.log" "$GUEST/monitor" "$GUEST/stderr.log"
vmlinuz=$(find "$GUEST/files/boot" -name 'vmlinuz-*')
"$target" -M pc -m 192 -nodefaults -display none -vga none -no-reboot -L "$GUEST/files/usr/share/seabios" \
    -L "$GUEST/files/usr/share/qemu" -kernel "$vmlinuz" -initrd "$GUEST/initrd.gz" -append 'console=ttyS0 quiet panic=-1' \
    -serial "file:$GUEST/serial.log" -monitor "unix:$GUEST/monitor,server,nowait" \
    -drive "file=$GUEST/disk.raw,format=raw,if=virtio" >>"$LOG" 2>"$GUEST/stderr.log" &
pid=$!; STARTED+=("$pid")

python3 - "$ULP_BIN/ulp-apply" "$pid" "$GUEST" "$WORK" "$CYCLES" "$MAX_STOP" >"$WORK/qemu-live.json" <<'PY' 2>>"$LOG" || fail "$(tail -n 3 "$WORK/qemu-live.json" "$LOG")"
import json, re, socket, subprocess, sys, time
apply, pid, guest, work, cycles = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
max_stop = sys.argv[6]
LINE = re.compile(r"guest: rounds (\d+) operations (\d+) wrong (\d+) gap (\d+)")

def lines():
    with open(f"{guest}/serial.log", errors="replace") as f:
        return [tuple(map(int, m.groups())) for m in map(LINE.search, f) if m]

def check(what, ok):
    if not ok:
        print(what)
        sys.exit(1)

def monitor(command):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(f"{guest}/monitor")
        text = b""
        while b"(qemu)" not in text:
            text += s.recv(4096)
        s.sendall(command.encode() + b"\n")
        text = b""
        # The line that was typed comes back letter by letter; then the answer, and a prompt on a line of its own.
        while b"(qemu)" not in text.rpartition(b"\n")[2] or b"\n" not in text:
            text += s.recv(4096)
    return text.decode(errors="replace")

def answer(command):
    return monitor(command).split("\n", 1)[-1]

def ulp(*words):
    start = time.monotonic()
    done = subprocess.run([apply, *words, "--json", "--max-stop", max_stop, "--pid", pid], capture_output=True, text=True)
    check(f"{words}: exit {done.returncode}: {done.stderr}", done.returncode == 0)
    stop = json.loads(done.stdout)["results"][0]["stop"]
    return (time.monotonic() - start) * 1000, stop

def anonymous():
    with open(f"/proc/{pid}/maps") as f:
        return sum(len(line.split()) == 5 and line.split()[1] in ("r-xp", "r--p") for line in f)

def reads():
    with open(f"{guest}/stderr.log") as f:
        return sum("the first block was read" in line for line in f)

deadline = time.monotonic() + 180
while len(lines()) < 50:
    check("the guest does not boot; see serial.log", time.monotonic() < deadline)
    time.sleep(0.5)
check("the guest has no disk", lines()[-1][1] > 0)

# A while alone, and then as long with patches coming and going.
before = len(lines())
maps = anonymous()
start = time.monotonic()
time.sleep(10)
alone = [line[3] for line in lines()[before:]]
check("the version is fixed before there is a patch", "fixed " not in answer("info version"))
first = len(lines())
holds, gaps, times, attempts = [], [], [], []
for cycle in range(cycles):
    for name, visible in (("monitor", lambda: "fixed " in answer("info version")), ("coroutine", None)):
        ms, stop = ulp("apply", f"{work}/{name}.ulp")
        times.append(ms); holds.append(stop["hold_us"]); gaps.append(stop["gap_us"]); attempts.append(stop["attempts"])
        if visible:
            check("the monitor is not fixed", visible())
        else:
            seen, end = reads(), time.monotonic() + 10
            while reads() == seen:
                check("the fixed read is not run", time.monotonic() < end)
                time.sleep(0.02)
        ms, stop = ulp("revert", name)
        holds.append(stop["hold_us"]); gaps.append(stop["gap_us"]); attempts.append(stop["attempts"])
        if visible:
            check("the monitor is still fixed", not visible())
    if cycle == 0:
        maps_first = anonymous()
check("memory grows with every cycle", anonymous() == maps_first)
busy = [line[3] for line in lines()[first:]]
last = lines()[-1]
time.sleep(1)
check("the guest stands still", lines()[-1][0] > last[0] and lines()[-1][1] > last[1])
check(f"wrong disk operations: {last[2]}", last[2] == 0)
listing = json.loads(subprocess.run([apply, "list", "--json", "--pid", pid], capture_output=True, text=True).stdout)
kept = [p["name"] for process in listing["processes"] for p in process["patches"]]
middle = lambda values: sorted(values)[len(values) // 2]
print(json.dumps({
    "cycles": cycles, "apply_ms": round(middle(times), 1), "stopped_us": middle(gaps), "stopped_max_us": max(gaps),
    "hold_us": middle(holds), "hold_max_us": max(holds), "attempts_max": max(attempts),
    "guest_gap_alone_us": [middle(alone), max(alone)], "guest_gap_patched_us": [middle(busy), max(busy)],
    "guest_disk_operations": last[1], "guest_wrong": last[2], "maps_before": maps, "maps_after": anonymous(), "kept": kept,
}))
PY
kill -0 "$pid" || fail "qemu has ended"
say "$(cat "$WORK/qemu-live.json")"
figures version "\"$version\"" plain_build_s "$PLAIN" ulp_build_s "$FIRST" second_ulp_build_s "$SECOND" \
    package_bytes "$(stat -c %s "$WORK/coroutine.ulp")"
say passed
