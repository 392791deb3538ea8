"""A backend of HTTP/2, around the h2 library. Each response is the number of its connection. /hold waits for the line "release" on
standard input, /pair for another /pair."""
import socket, sys, threading
import h2.config, h2.connection, h2.events

lock, held, pair = threading.Lock(), [], []

def answer(waiting):
    for h, connection, number, stream in waiting:
        h.send_headers(stream, [(":status", "200")])
        h.send_data(stream, str(number).encode(), end_stream=True)
        connection.sendall(h.data_to_send())
    waiting.clear()

def serve(connection, number):
    h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    h.initiate_connection()
    connection.sendall(h.data_to_send())
    while data := connection.recv(65536):
        with lock:
            for event in h.receive_data(data):
                if not isinstance(event, h2.events.RequestReceived):
                    continue
                request = (h, connection, number, event.stream_id)
                path = dict(event.headers)[":path"]
                if path == "/hold":
                    held.append(request)
                    print(f"held {len(held)}", flush=True)
                elif path == "/pair":
                    pair.append(request)
                    if len(pair) == 2:
                        answer(pair)
                else:
                    answer([request])
            connection.sendall(h.data_to_send())
    connection.close()

def accept():
    number = 0
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], number), daemon=True).start()
        number += 1

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
threading.Thread(target=accept, daemon=True).start()
for line in sys.stdin:
    with lock:
        answer(held)
