"""WebSocket over HTTP/2 (RFC 8441), spoken by the h2 library to a proxy in front of the websockets library's echo server."""
import asyncio, socket, struct, sys, threading
import h2.config, h2.connection, h2.events, websockets.sync.server

def serve(ready):
    def echo(ws):
        for message in ws:
            ws.send(message)
    with websockets.sync.server.serve(echo, "127.0.0.1", int(sys.argv[1])) as server:
        ready.set()
        server.serve_forever()

def frame(payload, mask=b"abcd"):
    head = bytes([0x82]) + (bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0x80 | 126]) + struct.pack(">H", len(payload)))
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))

ready = threading.Event()
threading.Thread(target=serve, args=(ready,), daemon=True).start()
ready.wait()
host, port = sys.argv[2].rsplit(":", 1)
connection = socket.create_connection((host, int(port)))
connection.settimeout(5)
h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, validate_outbound_headers=False))
h.initiate_connection()
connection.sendall(h.data_to_send())
state = {"settings": False, "status": None, "data": b"", "ended": False}
def pump(until):
    while not until():
        data = connection.recv(65536)
        assert data, "the proxy closed"
        for event in h.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                setting = event.changed_settings.get(8)
                state["settings"] |= bool(setting and setting.new_value == 1)
            elif isinstance(event, h2.events.ResponseReceived):
                state["status"] = dict(event.headers).get(b":status") or dict(event.headers).get(":status")
            elif isinstance(event, h2.events.DataReceived):
                state["data"] += event.data
                h.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                state["ended"] = True
        out = h.data_to_send()
        if out:
            connection.sendall(out)
pump(lambda: state["settings"])
h.send_headers(1, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"), (":authority", "ws.test"), ("sec-websocket-version", "13")])
connection.sendall(h.data_to_send())
pump(lambda: state["status"])
assert state["status"] in (b"200", "200"), state
for text in (b"hello", b"x" * 5000):
    state["data"] = b""
    h.send_data(1, frame(text))
    connection.sendall(h.data_to_send())
    want = len(text) + (2 if len(text) < 126 else 4)
    pump(lambda: len(state["data"]) >= want)
    assert state["data"][-len(text):] == text, state["data"][:50]
h.send_data(1, bytes([0x88, 0x82]) + b"abcd" + bytes([3 ^ 97, 0xE8 ^ 98]))
connection.sendall(h.data_to_send())
pump(lambda: state["ended"])
print("ok")
