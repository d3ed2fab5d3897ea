#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a sleeping thread takes to answer while patches are applied and reverted beside it.

usage: ulp-apply/benches/wake.py [--runs N] [--threads 1,64,1000] [--bin DIR]

A client pings one thread of the target through a pipe (wake.c) for a second, and then during N applies and reverts.
"""
import argparse, json, os, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"wake.py: {' '.join(words)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--runs", type=int, default=20)
    p.add_argument("--threads", default="1,8,64,256,1000")
    p.add_argument("--bin", default=os.path.join(ROOT, "target", "release"))
    o = p.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for tree, value in (("orig", 1), ("fix", 2)):
            os.mkdir(os.path.join(work, tree))
            with open(os.path.join(HERE, "wake.c")) as source, open(os.path.join(work, tree, "wake.c"), "w") as copy:
                copy.write(source.read().replace("#define TARGET_VALUE 1", f"#define TARGET_VALUE {value}"))
            with open(os.path.join(work, tree, "Makefile"), "w") as makefile:
                makefile.write("wake: wake.c\n\tgcc -O2 -g -pthread wake.c -o wake\n")
        live = os.path.join(work, "live")
        shutil.copytree(os.path.join(work, "orig"), live)
        run("make", "-C", live)
        package = os.path.join(work, "value.ulp")
        run(os.path.join(o.bin, "ulp-build"), "--orig", os.path.join(work, "orig"), "--fix", os.path.join(work, "fix"),
            "--target", os.path.join(live, "wake"), "-o", package)
        ours = os.path.join(o.bin, "ulp-apply")
        cycle = f"{ours} {package} --pid $PID --max-stop 500ms && {ours} revert value --pid $PID --max-stop 500ms"
        command = f"for i in $(seq {o.runs}); do {cycle} || exit 1; sleep 0.02; done >/dev/null 2>&1"
        print("| parked threads | alone us p50 (p99.9, max) | during applies and reverts us p50 (p99.9, max) |\n|---|---|---|")
        for n in o.threads.split(","):
            seen = json.loads(run("./wake", "client", n, command, cwd=live))
            cells = [f"{s['p50']:.0f} ({s['p999']:.0f}, {s['max']:.0f})" for s in (seen["alone"], seen["patched"])]
            print(f"| {n} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
