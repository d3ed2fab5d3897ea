#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a patch stops a process: ulp-apply beside the smallest possible patcher, in one run.

usage: ulp-apply/benches/pause.py [--runs N] [--threads 1,1000] [--functions 1,64] [--bin DIR] [--tools DIR]

Needs the measuring programs pausemeter and floor (their sources: --tools, default ../shared/tools) and root, for the
real-time priorities that keep the scheduler out of the figures. Prints one row per target and thread count, with packages
of so many functions, which switch at once:
  floor  phased: sleeping threads first, as ulp-apply does; batch: all at once, the shortest hold
  gap    the longest time during which the running thread of the target did not run, over apply or revert, in us
  hold   from the first interrupt to the last resumed thread, as the patcher itself measured it, in us
  EINTR  calls that returned early or with EINTR in any parked thread, added up over all runs: must be 0
"""
import argparse, json, os, shutil, signal, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

MAKEFILE = """pausemeter: pausemeter.c
\tgcc -std=gnu11 -O2 -g -pthread {flags} pausemeter.c -o pausemeter
clean:
\trm -f pausemeter
"""


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"pause.py: {' '.join(words)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def functions(count, value):
    """So many functions for a package to change beside the one that is called."""
    return "".join(f"__attribute__((noinline)) long beside_{i}(long n) {{ return n * {i + 3} + {value}; }}\n" for i in range(count))


def make_patch(work, tools, bin_dir, flags, count):
    """Two trees that differ in what target_fn() returns, and in further functions; gives the built program and the package."""
    orig, fix = os.path.join(work, "orig"), os.path.join(work, "fix")
    for tree in (orig, fix):
        shutil.rmtree(tree, ignore_errors=True)
        os.mkdir(tree)
        shutil.copy(os.path.join(tools, "pausemeter.c"), tree)
        with open(os.path.join(tree, "pausemeter.c"), "a") as f:
            f.write(functions(count - 1, 5 if tree == orig else 6))
        with open(os.path.join(tree, "Makefile"), "w") as f:
            f.write(MAKEFILE.format(flags=flags))
    source = os.path.join(fix, "pausemeter.c")
    with open(source) as f:
        text = f.read()
    changed = text.replace("return TARGET_VALUE;", "return TARGET_VALUE + 1;")
    if changed == text:
        sys.exit("pause.py: pausemeter.c has no 'return TARGET_VALUE;' any more")
    with open(source, "w") as f:
        f.write(changed)
    live = os.path.join(work, "live")
    shutil.rmtree(live, ignore_errors=True)
    shutil.copytree(orig, live)
    run("make", "-C", live)
    package = os.path.join(work, "value.ulp")
    run(os.path.join(bin_dir, "ulp-build"), "--orig", orig, "--fix", fix, "--target", os.path.join(live, "pausemeter"), "-o", package)
    return os.path.join(live, "pausemeter"), package


class Target:
    """A pausemeter with one spinning worker on CPU 1 and parked threads."""

    def __init__(self, program, threads):
        self.process = subprocess.Popen(
            [program, "--threads", "1", "--blocked", str(threads), "--fifo", "10", "--pin-cpu", "1", "--interval-ms", "0",
             "--kinds", "futex,poll,read,epoll,sigwait"], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def reset(self):
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.005)

    def figures(self):
        time.sleep(0.002)
        self.process.send_signal(signal.SIGUSR2)
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.terminate()
        self.process.wait()


def measure(program, threads, runs, commands, hold):
    """Runs the commands by turns against one target; gives gaps, holds, spurious returns and wall times."""
    target, gaps, holds, walls, spoilt = Target(program, threads), [], [], [], 0
    try:
        for i in range(runs):
            target.reset()
            words = [w.replace("PID", str(target.process.pid)) for w in commands[i % len(commands)]]
            start = time.monotonic()
            out = run("chrt", "-f", "11", "taskset", "-c", "0", *words)
            walls.append((time.monotonic() - start) * 1e3)
            seen = target.figures()
            gaps.append(seen["max_gap_us"])
            holds.append(hold(json.loads(out)))
            spoilt += seen["eintr"] + seen["early"] + seen["other"]
    finally:
        target.end()
    return gaps, holds, spoilt, walls


def row(label, threads, figures):
    gaps, holds, spoilt, walls = figures
    print(f"| {label} | {threads} | {statistics.median(gaps):.0f} ({min(gaps):.0f}-{max(gaps):.0f}) | {statistics.median(holds):.0f} "
          f"| {spoilt} | {statistics.median(walls):.1f} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--runs", type=int, default=20)
    p.add_argument("--threads", default="1,1000")
    p.add_argument("--functions", default="1")
    p.add_argument("--bin", default=os.path.join(ROOT, "target", "release"))
    p.add_argument("--tools", default=os.path.join(ROOT, "..", "shared", "tools"))
    o = p.parse_args()
    if not os.path.exists(os.path.join(o.tools, "floor.c")):
        sys.exit(f"pause.py: no measuring programs in {o.tools}; name their folder with --tools")
    with tempfile.TemporaryDirectory() as work:
        run("make", "-C", o.tools, f"OUT={work}/tools", "CC=gcc")
        floor = [os.path.join(work, "tools", "floor"), "--stacks", "batch", "--fix-eintr", "--pid", "PID", "--stop"]
        print("| patcher, target | parked threads | gap us (min-max) | hold us | EINTR | wall ms |\n|---|---|---|---|---|---|")
        targets = [(kind, flags, int(count)) for count in o.functions.split(",")
                   for kind, flags in (("PIE", "-fPIE -pie"), ("non-PIE", "-fno-pie -no-pie"))]
        for kind, flags, count in targets:
            program, package = make_patch(work, o.tools, o.bin, flags, count)
            label = kind if count == 1 else f"{kind}, {count} functions"
            ours = os.path.join(o.bin, "ulp-apply")
            verbs = [[ours, "apply", package, "--pid", "PID", "--json", "--max-stop", "500ms"],
                     [ours, "revert", package, "--pid", "PID", "--json", "--max-stop", "500ms"]]
            for n in [int(x) for x in o.threads.split(",")]:
                for stop in ("phased", "batch"):
                    figures = measure(program, n, o.runs, [floor + [stop]], lambda r: r["pause_us"])
                    row(f"floor {stop}, {kind}", n, figures)
                row(f"ulp-apply, {label}", n, measure(program, n, o.runs, verbs, lambda r: r["results"][0]["stop"]["hold_us"]))


if __name__ == "__main__":
    main()
