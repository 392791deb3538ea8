"""`ringway top` in a terminal that is ended from elsewhere: the terminal is as it was before. Arguments: the command, the signal's number."""

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios

NUMBER, COMMAND = int(sys.argv[1]), sys.argv[2:]
SILENCE_SECONDS = 20

master, slave = pty.openpty()
before = termios.tcgetattr(slave)


def own():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


process = subprocess.Popen(COMMAND, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own)
shown = b""
while b"q quit" not in shown or shown.count(b"\x1b[J") < 2:
    assert select.select([master], [], [], SILENCE_SECONDS)[0], shown
    shown += os.read(master, 65536)
during = termios.tcgetattr(slave)
assert during[3] & (termios.ICANON | termios.ECHO) == 0, "keys are read as they are pressed"
process.send_signal(NUMBER)
while process.poll() is None:
    # What it still writes must not hold it up.
    if select.select([master], [], [], 0.05)[0]:
        shown += os.read(master, 65536)
assert process.returncode == 128 + NUMBER, process.returncode
assert termios.tcgetattr(slave) == before, "the terminal is given back"
assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h"), "a cursor that is hidden is shown again"
print("given back")
