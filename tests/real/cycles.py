#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Applies and reverts a patch in a server that is kept busy, and compares the server with what it was before.

A benchmark (redis-benchmark, wrk) runs from the first cycle to the last; beside it two clients check every answer byte by byte.
The only two answers that the patched request may have are the old one and the new one, and both have to be seen.
Failed requests, another number of mappings, threads or descriptors, and memory that has grown end this with status 1.
"""
import argparse
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

# What private memory may have grown by from the first cycles to the last, in KiB: the servers' own heaps breathe. Two pages
# lost in each of 200 cycles are more.
GROWTH = 512
WARM_CYCLES = 10


def redis_requests(number):
    """A request, and every answer that is right."""
    value = b"value-%d" % number
    command = lambda *words: b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
    return [
        (command(b"SET", b"checked-%d" % number, value), [b"+OK\r\n"]),
        (command(b"GET", b"checked-%d" % number), [b"$%d\r\n%s\r\n" % (len(value), value)]),
        # A status that a script returns goes through luaReplyToRedisReply.
        (command(b"EVAL", b'return {ok="a-b"}', b"0"), [b"+a-b\r\n"]),
        # The error quotes the line ends of its request, or with the fix spaces in their place.
        (command(b"FUNCTION", b"LIST", b"ab\r\ncd"),
         [b"-ERR Unknown argument ab\r\ncd\r\n", b"-ERR Unknown argument ab  cd\r\n"]),
    ]


def nginx_requests(number):
    def request(path, *bodies):
        head = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path
        return head, [b"%s\n" % body for body in bodies]
    return [
        request(b"/", b"up"),
        request(b"/r/ab%d" % number, b"got=ab%d" % number),
        # The old code escapes the plus sign into a buffer that is measured for the plain text, and cuts it short.
        request(b"/r/a+b", b"got=a%2", b"got=a+b"),
    ]


class Redis:
    requests = staticmethod(redis_requests)
    processes = "redis-server"
    each = 20000

    @staticmethod
    def load(port):
        return ["redis-benchmark", "-p", str(port), "-c", "20", "-n", str(Redis.each), "-d", "64", "-t", "ping_inline,set,get,incr",
                "--csv"]

    @staticmethod
    def figures(text):
        """Requests per second and latencies in ms of each test; an error is a failed request."""
        rows = [line.strip('"').split('","') for line in text.splitlines() if line.startswith('"')]
        rows = [row for row in rows if len(row) == 8 and row[0] != "test"]
        failed = len(re.findall(r"error", text, re.IGNORECASE))
        requests = Redis.each * len(rows)
        return requests, failed, [(float(row[4]), float(row[6]), float(row[7])) for row in rows]

    @staticmethod
    def answer(connection, wanted):
        """Reads on until it is one of those, or cannot become one any more."""
        got = b""
        while got not in wanted and any(w.startswith(got) for w in wanted):
            more = connection.recv(65536)
            if not more:
                break
            got += more
        return got, True


class Nginx:
    requests = staticmethod(nginx_requests)
    processes = "nginx"

    @staticmethod
    def load(port):
        return ["wrk", "-t", "1", "-c", "16", "-d", "4s", "--latency", f"http://127.0.0.1:{port}/r/abc"]

    @staticmethod
    def figures(text):
        requests = int(re.search(r"(\d+) requests in", text).group(1))
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        failed = sum(map(int, errors.groups())) if errors else 0
        failed += int(refused.group(1)) if refused else 0

        def ms(pattern):
            number, unit = re.search(pattern + r"\s+([\d.]+)(us|ms|s)", text).groups()
            return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
        longest = re.search(r"Latency\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", text).groups()
        return requests, failed, [(ms(r"50%"), ms(r"99%"), float(longest[0]) * {"us": 0.001, "ms": 1, "s": 1000}[longest[1]])]

    @staticmethod
    def answer(connection, _wanted):
        got = b""
        while b"\r\n\r\n" not in got:
            more = connection.recv(65536)
            if not more:
                return got, False
            got += more
        head, body = got.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"Content-Length: (\d+)", head).group(1))
        while len(body) < length:
            more = connection.recv(65536)
            if not more:
                break
            body += more
        # The server closes a connection after 1000 requests, and says so.
        return (body if b" 200 OK" in head else head), b"Connection: close" not in head


class Load(threading.Thread):
    """The benchmark, again and again."""

    def __init__(self, server, port):
        super().__init__(daemon=True)
        self.server, self.command, self.stop = server, server.load(port), False
        self.runs = self.requests = self.failed = 0
        self.latencies, self.trouble = [], []

    def run(self):
        while not self.stop:
            done = subprocess.run(self.command, capture_output=True, text=True, check=False)
            try:
                requests, failed, latencies = self.server.figures(done.stdout + done.stderr)
            except AttributeError:
                requests, failed, latencies = 0, 1, []
            if done.returncode != 0 or failed:
                self.trouble.append(f"{self.command[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}")
            self.runs += 1
            self.requests += requests
            self.failed += failed + (done.returncode != 0)
            self.latencies += latencies


class Checker(threading.Thread):
    """A client that knows what the answer has to be."""

    def __init__(self, server, port, number):
        super().__init__(daemon=True)
        self.server, self.port, self.wanted, self.stop = server, port, server.requests(number), False
        self.requests = self.failed = 0
        self.seen, self.times, self.trouble = {}, [], []

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def run(self):
        connection = self.connect()
        while not self.stop:
            for request, answers in self.wanted:
                began = time.monotonic()
                try:
                    connection.sendall(request)
                    got, stays = self.server.answer(connection, answers)
                except OSError as error:
                    got, stays = repr(error).encode(), False
                self.times.append(time.monotonic() - began)
                self.requests += 1
                if got in answers:
                    if len(answers) > 1:
                        self.seen[got] = self.seen.get(got, 0) + 1
                else:
                    self.failed += 1
                    self.trouble.append(f"{request!r} was answered {got!r}")
                if not stays:
                    connection.close()
                    connection = self.connect()
            time.sleep(0.001)
        connection.close()


def part(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else 0.0


def picture(pid):
    """What a process has: mappings, threads, descriptors, memory in KiB."""
    read = lambda name: open(f"/proc/{pid}/{name}", encoding="ascii", errors="replace").read()
    number = lambda text, name: int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE).group(1))
    status, rollup = read("status"), read("smaps_rollup")
    return {"maps": len(read("maps").splitlines()), "threads": number(status, "Threads"), "fds": len(os.listdir(f"/proc/{pid}/fd")),
            "VmSize": number(status, "VmSize"), "VmRSS": number(status, "VmRSS"), "dirty": number(rollup, "Private_Dirty")}


def settled(pids):
    """The picture when the clients are gone: descriptors of closed connections go a moment later."""
    last = None
    for _ in range(50):
        now = {pid: picture(pid) for pid in pids}
        if now == last:
            break
        last = now
        time.sleep(0.3)
    return last


class Cycles:
    def __init__(self, arguments):
        self.a, self.pids = arguments, [int(pid) for pid in arguments.pids.split(",")]
        self.gaps, self.holds, self.attempts, self.walls, self.kept = [], [], [], [], 0

    def run(self, verb, *more):
        which = [word for pid in self.pids for word in ("--pid", str(pid))]
        what = [self.a.package] if verb == "apply" else [self.a.patch]
        began = time.monotonic()
        done = subprocess.run([self.a.apply, verb, *what, *which, "--json", *more], capture_output=True, text=True, check=False)
        self.walls.append(time.monotonic() - began)
        if done.returncode != 0:
            sys.exit(f"cycles.py: {verb} ended with {done.returncode}: {done.stdout}{done.stderr}")
        results = json.loads(done.stdout)["results"]
        states = {"apply": {"applied"}, "revert": {"reverted", "retired", "purged"}}[verb]
        if len(results) != len(self.pids) or not {r["status"] for r in results} <= states:
            sys.exit(f"cycles.py: {verb} says {done.stdout}")
        self.kept = sum(r["status"] == "retired" for r in results)
        for stop in (r["stop"] for r in results):
            self.gaps.append(stop["gap_us"])
            self.holds.append(stop["hold_us"])
            self.attempts.append(stop["attempts"])

    def cycle(self, count):
        for _ in range(count):
            self.run("apply")
            self.run("revert")


def under_load(server, port, work):
    """Does something while the benchmark and the clients run; returns all of them."""
    threads = [Load(server, port), Checker(server, port, 1), Checker(server, port, 2)]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        for thread in threads:
            thread.stop = True
        for thread in threads:
            thread.join(120)
    if any(thread.is_alive() for thread in threads):
        sys.exit("cycles.py: a client waits for two minutes")
    return threads


def line(when, threads):
    load, *checkers = threads
    times = [t * 1000 for c in checkers for t in c.times]
    benchmark = [(part([row[i] for row in load.latencies], 0.5), max((row[i] for row in load.latencies), default=0)) for i in range(3)]
    return (f"  {when}: {load.requests} requests of {load.command[0]} in {load.runs} runs, p50 {benchmark[0][0]:.2f} ms, p99 {benchmark[1][0]:.2f} ms, "
            f"longest {benchmark[2][1]:.1f} ms, {load.failed} failed; {sum(c.requests for c in checkers)} checked answers, "
            f"p50 {part(times, 0.5):.2f} ms, p99 {part(times, 0.99):.2f} ms, longest {max(times):.1f} ms, {sum(c.failed for c in checkers)} wrong")


def main():
    parser = argparse.ArgumentParser()
    for name in ("kind", "apply", "package", "patch", "pids"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("port", "cycles"):
        parser.add_argument(f"--{name}", required=True, type=int)
    arguments = parser.parse_args()
    server = {"redis": Redis, "nginx": Nginx}[arguments.kind]
    cycles = Cycles(arguments)
    born = {pid: open(f"/proc/{pid}/stat", encoding="ascii").read().split()[21] for pid in cycles.pids}

    # The server's own caches and buffers grow at first, and the pages of patched code become private once.
    quiet = under_load(server, arguments.port, lambda: time.sleep(min(20, 2 + arguments.cycles / 50)))
    start = settled(cycles.pids)
    warm = under_load(server, arguments.port, lambda: cycles.cycle(WARM_CYCLES))
    before = settled(cycles.pids)
    cycles.gaps, cycles.holds, cycles.attempts, cycles.walls = [], [], [], []
    began = time.monotonic()
    busy = under_load(server, arguments.port, lambda: cycles.cycle(arguments.cycles))
    took = time.monotonic() - began
    walls, gaps, holds, attempts = map(list, (cycles.walls, cycles.gaps, cycles.holds, cycles.attempts))
    after, kept = settled(cycles.pids), cycles.kept
    if kept:
        cycles.run("revert", "--purge")
    end = settled(cycles.pids)

    print(f"{server.processes}: {arguments.cycles} cycles of apply and revert in {len(cycles.pids)} process(es), {took:.0f} s"
          + (", memory kept between them" if kept else ""))
    running = [gap for gap in gaps if gap > 0]
    print(f"  stops {len(holds)}: from first interrupt to last release median {part(holds, 0.5)} us, p99 {part(holds, 0.99)} us, max {max(holds)} us, "
          f"longer than 10 ms {sum(h > 10000 for h in holds)}, than 50 ms {sum(h > 50000 for h in holds)}; "
          f"of a running thread ({len(running)}) median {part(running, 0.5)} us, max {max(running, default=0)} us; "
          f"more than one attempt {sum(a > 1 for a in attempts)}, most {max(attempts)}")
    print(f"  ulp-apply: median {part(walls, 0.5) * 1000:.1f} ms, p99 {part(walls, 0.99) * 1000:.1f} ms, max {max(walls) * 1000:.0f} ms")
    print(line("without cycles", quiet))
    print(line("with cycles   ", busy))
    wrong = []
    for pid in cycles.pids:
        for when, all_of_them in (("at the start     ", start), (f"after {WARM_CYCLES} cycles  ", before), ("after all cycles ", after),
                                  ("purged           ", end)):
            if kept or all_of_them is not end:
                print(f"  process {pid} {when} {all_of_them[pid]}")
        wrong += [f"{key} of {pid} was {start[pid][key]} at the start and is {end[pid][key]}"
                  for key in ("maps", "threads", "fds", "VmSize") if start[pid][key] != end[pid][key] and key != "VmSize"
                  or end[pid][key] > start[pid][key] + GROWTH]
        wrong += [f"{key} of {pid} was {before[pid][key]} and is {after[pid][key]}"
                  for key in ("maps", "threads", "fds") if before[pid][key] != after[pid][key]]
        wrong += [f"{key} of {pid} has grown from {before[pid][key]} to {after[pid][key]} KiB"
                  for key in ("VmSize", "VmRSS", "dirty") if after[pid][key] > before[pid][key] + GROWTH]
        if open(f"/proc/{pid}/stat", encoding="ascii").read().split()[21] != born[pid]:
            wrong.append(f"{pid} is another process")
    seen = {}
    for checker in busy[1:]:
        for answer, count in checker.seen.items():
            seen[answer] = seen.get(answer, 0) + count
    print(f"  answers of old and new code: {seen}")
    if len(seen) != 2:
        wrong.append(f"only one kind of answer was seen: {seen}")
    for thread in [*warm, *quiet, *busy]:
        if thread.failed or not thread.requests:
            wrong.append(f"{thread.failed} of {thread.requests} requests failed: " + "\n".join(thread.trouble[:3]))
    for text in wrong:
        print(f"cycles.py: FAILED: {text}")
    sys.exit(1 if wrong else 0)


main()
