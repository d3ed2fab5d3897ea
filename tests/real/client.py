#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Talks to memcached: one command, or a load until a file appears.

client.py PORT COMMAND          prints the first line of the answer
client.py PORT --load STOPFILE  sets and gets over four connections; prints the number of requests and of errors
"""
import os
import socket
import sys
import threading


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    return connection, connection.makefile("rb")


def load(port, stop, counts, number):
    requests = errors = 0
    try:
        connection, lines = connect(port)
        while not os.path.exists(stop):
            value = b"%d-%d" % (number, requests)
            connection.sendall(b"set key%d 0 0 %d\r\n%s\r\nget key%d\r\n" % (number, len(value), value, number))
            wanted = [b"STORED\r\n", b"VALUE key%d 0 %d\r\n" % (number, len(value)), value + b"\r\n", b"END\r\n"]
            if [lines.readline() for _ in wanted] != wanted:
                errors += 1
            requests += 2
    except OSError as error:
        print(error, file=sys.stderr)
        errors += 1
    counts[number] = (requests, errors)


def main():
    port = int(sys.argv[1])
    if sys.argv[2] == "--load":
        counts = {}
        threads = [threading.Thread(target=load, args=(port, sys.argv[3], counts, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(*map(sum, zip(*counts.values())))
    else:
        connection, lines = connect(port)
        connection.sendall(sys.argv[2].encode() + b"\r\n")
        print(lines.readline().decode().strip())


main()
