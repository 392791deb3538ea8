"""After `h2client.py`: a backend of HTTP/2 whose bodies have lengths and trailers, and what its clients get of both."""
import threading

BIG = "x" * 1000

def fields_of(path):
    """Head, body, trailers; no trailers: the body ends the stream."""
    big = [("x-big-%d" % index, BIG) for index in range(40)]
    return {
        "/sized": ([("content-length", "5")], b"hello", [("grpc-status", "0"), ("x-end", "yes")]),
        "/late": ([("content-length", "5")], b"hello", [("x-end", "late")]),
        "/announced": ([("content-length", "5"), ("trailer", "x-end")], b"hello", [("x-end", "yes")]),
        "/empty": ([("content-length", "0")], b"", [("x-end", "empty")]),
        "/none": ([("content-length", "5")], b"hello", None),
        "/cut": ([("content-length", "5")], b"hello", "reset"),
        "/big": ([], b"hello", big),
        "/big-sized": ([("content-length", "5")], b"hello", big),
    }[path]

def serve(connection):
    h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    h.initiate_connection()
    connection.sendall(h.data_to_send())
    streams = {}
    while data := connection.recv(65536):
        for event in h.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                streams[event.stream_id] = (dict(event.headers), {})
            elif isinstance(event, h2.events.TrailersReceived):
                streams[event.stream_id][1].update(dict(event.headers))
            elif isinstance(event, h2.events.StreamEnded):
                head, trailers = streams[event.stream_id]
                fields, body, own = fields_of(head[":path"])
                told = "%s %s" % (head.get("content-length"), ",".join(sorted(trailers)))
                h.send_headers(event.stream_id, [(":status", "200"), ("x-seen", told)] + fields)
                h.send_data(event.stream_id, body, end_stream=own is None)
                connection.sendall(h.data_to_send())
                if head[":path"] == "/late":
                    time.sleep(0.3)  # Trailers that come late.
                if own == "reset":
                    h.reset_stream(event.stream_id, 2)
                elif own is not None:
                    h.send_headers(event.stream_id, own, end_stream=True)
        connection.sendall(h.data_to_send())

host, port = sys.argv[1].rsplit(":", 1)
listener = socket.create_server((host, int(port)))
def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()

client = Client(sys.argv[2])
def ask(path, fields=(), body=None, trailers=None, client=client):
    stream = client.request(fields, method="GET" if body is None else "POST", path=path, end=body is None)
    if body is not None:
        client.h.send_data(stream, body, end_stream=trailers is None)
        if trailers is not None:
            client.h.send_headers(stream, trailers, end_stream=True)
        client.flush()
    assert client.pump(lambda: client.over(stream)), path
    return client.streams[stream]

for path in ("/sized", "/late", "/announced", "/empty", "/none", "/big", "/big-sized"):
    answer = ask(path)
    fields, body, trailers = fields_of(path)
    assert answer["ended"] and answer["data"] == len(body), (path, answer)
    assert answer["trailers"] == (None if trailers is None else dict(trailers)), (path, answer)
    assert answer["fields"].get("content-length") == dict(fields).get("content-length"), (path, answer)
cut = ask("/cut")
assert cut["reset"] is not None and not cut["ended"], cut
sums = [("x-sum", "1")] + [("x-long-%d" % index, BIG) for index in range(20)]
names = ",".join(sorted(dict(sums)))
for fields in ([], [("content-length", "3")], [("content-length", "3"), ("trailer", "x-sum")]):
    length = dict(fields).get("content-length")
    answer = ask("/none", fields, b"abc", sums)
    assert answer["fields"]["x-seen"] == f"{length} {names}", (fields, answer["fields"]["x-seen"])
    # What makes no use of it loses nothing either.
    answer = ask("/none", fields, b"abc")
    assert answer["fields"]["x-seen"] == f"{length}", answer
    # What frames or routes a message is no trailer.
    answer = ask("/none", fields, b"abc", [("x-sum", "1"), ("forwarded", "for=1.1.1.1")])
    assert answer["fields"]["x-seen"] == f"{length} x-sum", answer
# To a backend of HTTP/1.1 a request goes in chunks if it says that trailers will come.
http1 = Client(sys.argv[3])
answer = ask("/", [("content-length", "3"), ("trailer", "x-sum")], b"abc", [("x-sum", "1")], client=http1)
assert answer["fields"][":status"] == "200", answer
# And so does an answer to a client of HTTP/1.1.
plain = socket.create_connection((sys.argv[2].rsplit(":", 1)[0], int(sys.argv[2].rsplit(":", 1)[1])))
plain.sendall(b"GET /announced HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
text = b""
while data := plain.recv(65536):
    text += data
head, body = text.split(b"\r\n\r\n", 1)
assert b"content-length" not in head and body == b"5\r\nhello\r\n0\r\nx-end: yes\r\n\r\n", text
