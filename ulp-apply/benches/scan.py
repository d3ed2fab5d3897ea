#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the search for suspended coroutines costs: a program with coroutines and much memory, patched and reverted.

usage: ulp-apply/benches/scan.py [--runs N] [--mebibytes 100,4096] [--bin DIR]

The program (scan.c) has filled its heap with words that look like pointers, and has 1000 coroutines put aside on stacks of their
own, none of them in the function that is patched. Prints one row per size, medians and maxima in ms:
  before  the search while the program runs, processor time; it decides whether the stop is made at all
  within  the search under the stop
  hold    from the first interrupt to the last thread let go
  off     the same with --scan-memory off
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MAKEFILE = "scan: scan.c\n\tgcc -std=gnu11 -O2 -g scan.c -o scan\nclean:\n\trm -f scan\n"


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"scan.py: {' '.join(words)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def make_patch(work, bin_dir):
    with open(os.path.join(HERE, "scan.c")) as f:
        text = f.read()
    trees = {}
    for name, source in (("orig", text), ("fix", text.replace("return n + 1;", "return n + 1000;"))):
        trees[name] = os.path.join(work, name)
        os.mkdir(trees[name])
        for file, content in (("scan.c", source), ("Makefile", MAKEFILE)):
            with open(os.path.join(trees[name], file), "w") as f:
                f.write(content)
    live = os.path.join(work, "live")
    shutil.copytree(trees["orig"], live)
    run("make", "-C", live)
    program, package = os.path.join(live, "scan"), os.path.join(work, "fix.ulp")
    run(os.path.join(bin_dir, "ulp-build"), "--orig", trees["orig"], "--fix", trees["fix"], "--target", program, "-o", package)
    return program, package


def figures(done):
    """Milliseconds: before, within, and the hold."""
    before = re.search(r"(\d+) bytes were searched for coroutines .* in (\d+) us", done.stderr)
    within = re.search(r"(\d+) bytes searched under the stop in (\d+) us", done.stderr)
    result = json.loads(done.stdout)["results"][0]
    searched = [int(m[2]) / 1000 if m else 0.0 for m in (before, within)]
    return int(within[1]) if within else 0, [*searched, result["stop"]["hold_us"] / 1000]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=10)
    options.add_argument("--mebibytes", default="100,4096")
    options.add_argument("--bin", default=os.path.join(ROOT, "target", "release"))
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as work:
        program, package = make_patch(work, options.bin)
        apply = os.path.join(options.bin, "ulp-apply")
        print("MiB    searched   before          within          hold            off")
        for size in options.mebibytes.split(","):
            target = subprocess.Popen([program, size], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                assert target.stdout.readline() == "ready\n"
                pid = str(target.pid)
                rows, off, searched = [], [], 0
                for _ in range(options.runs):
                    for scan, into in (("on", rows), ("off", off)):
                        common = ("--json", "--verbose", "--max-stop", "60s", "--scan-memory", scan, "--pid", pid)
                        for words in (("apply", package), ("revert", "fix")):
                            nbytes, row = figures(run(apply, *words, *common))
                            searched = max(searched, nbytes)
                            into.append(row)
                            target.stdin.write("\n")
                            target.stdin.flush()
                            answer = target.stdout.readline().strip()
                            if answer != ("1005" if words[0] == "apply" else "6"):
                                sys.exit(f"scan.py: the program answered {answer!r}")
                columns = [*zip(*rows), [row[2] for row in off]]
                both = " ".join(f"{statistics.median(c):7.1f} {max(c):7.1f}" for c in columns)
                print(f"{size:>5}  {searched >> 20:>8}  {both}", flush=True)
            finally:
                target.kill()
                target.wait()


if __name__ == "__main__":
    main()
