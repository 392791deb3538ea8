"""WebSocket over HTTP/1.1: the websockets library's client, and its echo server behind whatever stands between."""
import sys, threading
import websockets.exceptions, websockets.sync.client, websockets.sync.server

def serve(ready):
    def echo(ws):
        for message in ws:
            if message == "bye":
                ws.close(4000, "as you wish")
            ws.send(message)
    select = lambda connection, offered: "chat" if "chat" in offered else None
    with websockets.sync.server.serve(echo, "127.0.0.1", int(sys.argv[1]), select_subprotocol=select) as server:
        ready.set()
        server.serve_forever()

ready = threading.Event()
threading.Thread(target=serve, args=(ready,), daemon=True).start()
ready.wait()
for url in sys.argv[2:]:
    sockets = [websockets.sync.client.connect(url, subprotocols=["chat"]) for _ in range(8)]
    for number, ws in enumerate(sockets):
        assert ws.subprotocol == "chat", ws.subprotocol
        for message in ("hello", b"\0" * 70_000, str(number)):
            ws.send(message)
            assert ws.recv(timeout=10) == message
    for ws in sockets:
        ws.send("bye")
        try:
            ws.recv(timeout=10)
            raise SystemExit("it was not closed")
        except websockets.exceptions.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4000, "as you wish"), closed
print("ok")
