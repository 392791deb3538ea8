"""`ringway top` in a terminal, ended by a signal or by the key `q`: the terminal is as it was before.

Arguments: the signal's number or `q`, then the command. Where the command does not say which proxy, it is one that says nothing.
"""

import fcntl
import os
import pty
import select
import socket
import subprocess
import sys
import termios

END, COMMAND = sys.argv[1], sys.argv[2:]
SILENCE_SECONDS = 20

master, slave = pty.openpty()
before = termios.tcgetattr(slave)


def own():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


silent = None
if "--admin" not in COMMAND:
    silent = socket.create_server(("127.0.0.1", 0))
    silent.settimeout(SILENCE_SECONDS)
    COMMAND += ["--admin", f"127.0.0.1:{silent.getsockname()[1]}"]
process = subprocess.Popen(COMMAND, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own)
shown = b""
if silent:
    held, _ = silent.accept()
else:
    while b"q quit" not in shown or shown.count(b"\x1b[J") < 2:
        assert select.select([master], [], [], SILENCE_SECONDS)[0], shown
        shown += os.read(master, 65536)
during = termios.tcgetattr(slave)
assert during[3] & (termios.ICANON | termios.ECHO) == 0, "keys are read as they are pressed"
if END == "q":
    os.write(master, b"q")
else:
    process.send_signal(int(END))
while process.poll() is None:
    # What it still writes must not hold it up.
    if select.select([master], [], [], 0.05)[0]:
        shown += os.read(master, 65536)
assert process.returncode == (0 if END == "q" else 128 + int(END)), (process.returncode, shown)
assert termios.tcgetattr(slave) == before, "the terminal is given back"
assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h"), "a cursor that is hidden is shown again"
print("given back")
