"""Opens idle connections: KIND COUNT on standard input, "opened" once each has had one response, "closed" once all are closed again."""
import resource, socket, ssl, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
addresses = dict(zip(("plain", "tls", "h2"), sys.argv[1:]))
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
# Preface and empty settings; then the head of GET http://a/, by HPACK's static table.
H2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" + b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a"

def open_one(kind):
    host, port = addresses[kind].rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=60)
    if kind == "tls":
        connection = context.wrap_socket(connection, server_hostname="one.test")
    connection.sendall(H2 if kind == "h2" else REQUEST)
    got = b""
    # Settings, their acknowledgement, head and data of the only stream.
    while b"done" not in got:
        more = connection.recv(65536)
        assert more, got
        got += more
    if kind == "h2":
        connection.sendall(b"\0\0\0\x04\x01\0\0\0\0")
    return connection

for line in sys.stdin:
    kind, count = line.split()
    held = [open_one(kind) for _ in range(int(count))]
    print("opened", flush=True)
    sys.stdin.readline()
    [connection.close() for connection in held]
    held.clear()
    print("closed", flush=True)
