"""`ringway top` in a terminal, before a proxy that hangs, goes on, ends and comes back.

Arguments: the binary, a proxy's file, its admin address.
"""

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

RINGWAY, FILE, ADMIN = sys.argv[1:4]
PATIENCE = 60.0
STALE = b"not live for "

master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
started = []


def begun(command, **more):
    started.append(subprocess.Popen(command, **more))
    return started[-1]


def proxy():
    process = begun([RINGWAY, "run", FILE], stderr=subprocess.DEVNULL)
    host, port = ADMIN.rsplit(":", 1)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
            return process
        except OSError:
            assert process.poll() is None and time.monotonic() < end, "the proxy does not listen"
            # Until it listens.
            time.sleep(0.05)


def own():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def screen(what, wanted):
    """The next whole screen that is wanted, of those that are drawn from now on."""
    shown, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            shown += os.read(master, 65536)
        assert top.poll() is None, f"{what}: it has ended: {shown!r}"
        *whole, shown = shown.split(b"\x1b[J")
        for one in whole:
            if wanted(one):
                return one
    raise AssertionError(f"{what}: {shown!r}")


is_old = lambda one: STALE in one
is_live = lambda one: STALE not in one and b"generation" in one
try:
    carrier = proxy()
    top = begun([RINGWAY, "top", "--admin", ADMIN], stdin=slave, stdout=slave, stderr=slave, preexec_fn=own)
    screen("what is live", is_live)
    carrier.send_signal(signal.SIGSTOP)
    old = screen("that nothing comes", is_old)
    assert b"nothing has come" in old and b"generation" in old, old
    # Longer than a stream may be silent: it is asked again, and says so.
    screen("that it was tried again", lambda one: is_old(one) and b"nothing has come" not in one)
    carrier.send_signal(signal.SIGCONT)
    screen("what is live again", is_live)
    carrier.terminate()
    carrier.wait(PATIENCE)
    screen("that the proxy has gone", is_old)
    carrier = proxy()
    screen("what is live of the next", is_live)
    os.write(master, b"q")
    end = time.monotonic() + PATIENCE
    while top.poll() is None:
        assert time.monotonic() < end, "it does not end"
        # What it still writes must not hold it up.
        if select.select([master], [], [], 0.05)[0]:
            os.read(master, 65536)
    assert top.returncode == 0, top.returncode
finally:
    for process in started:
        process.kill()
print("went on")
