"""Asks for answers of many lengths over TLS, lets each wait, and then reads it: some of them end where the kernel's buffer does."""
import concurrent.futures, socket, ssl, sys, time

host, port = sys.argv[1].rsplit(":", 1)
context = ssl.create_default_context(cafile=sys.argv[2])

def ask(length):
    tcp = socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    tcp.settimeout(30)
    tcp.connect((host, int(port)))
    connection = context.wrap_socket(tcp, server_hostname="one.test")
    connection.sendall(f"GET /{length} HTTP/1.1\r\nHost: one.test\r\n\r\n".encode())
    time.sleep(1.2)  # It lets the answer wait: that is what is tested.
    count, data = 0, b""
    while not data.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return f"no head of {length}"
        data += byte
    while count < length:
        try:
            read = len(connection.recv(min(65536, length - count)))
        except OSError as error:
            return f"{count} of {length}: {error}"
        if read == 0:
            return f"{count} of {length}"
        count += read

with concurrent.futures.ThreadPoolExecutor(40) as pool:
    short = [fault for fault in pool.map(ask, range(200_000, 6_500_000, 56_000)) if fault]
assert not short, short
