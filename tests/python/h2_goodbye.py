"""Asks as often as a connection may be used, one request after the other: the last response brings GOAWAY, and the end."""
client, most = Client(sys.argv[1], begin=False), int(sys.argv[2])
take, rest = client.take, b""

def take_frames(data):
    """The library takes nothing more once it has seen GOAWAY, although streams that have begun go on: it does not see it."""
    global rest
    rest += data
    while len(rest) >= 9 and len(rest) >= (size := 9 + int.from_bytes(rest[:3], "big")):
        frame, rest = rest[:size], rest[size:]
        if frame[3] == 7:
            client.goaway = int.from_bytes(frame[13:17], "big")
        else:
            take(frame)

client.take = take_frames
client.h.initiate_connection()
client.flush()
for number in range(1, most + 1):
    assert client.goaway is None, f"GOAWAY before request {number}"
    stream = client.request()
    assert client.pump(lambda: client.streams[stream]["ended"]), f"no response to request {number}"
    assert client.status(stream) == 200, client.streams[stream]
assert client.pump(lambda: client.goaway is not None) and client.goaway == 0, f"GOAWAY: {client.goaway}"
client.pump(lambda: client.closed)
assert client.closed, "the connection stays open"
