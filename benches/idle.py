#!/usr/bin/env python3
"""Memory per idle keep-alive connection.

  target/release/ringway demo & benches/idle.py 127.0.0.1:8080 PID [COUNT]

Opens COUNT connections (default 8000), sends one request on each, leaves them idle, and reads the process's resident size
before and after. The connections of the demo's own backends are in the same process: use `ringway run` for a true figure.
"""
import resource
import socket
import sys
import time

host, port = sys.argv[1].rsplit(":", 1)
pid, count = int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 8000
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def resident_kib():
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


before = resident_kib()
connections = []
for index in range(count):
    connection = socket.create_connection((host, int(port)))
    connection.sendall(b"GET / HTTP/1.1\r\nHost: idle\r\nx-user-id: %d\r\n\r\n" % index)
    connection.recv(4096)
    connections.append(connection)
time.sleep(1)
after = resident_kib()
print(f"{count} idle connections: {(after - before) / count:.2f} KiB each ({before} -> {after} KiB resident)")
