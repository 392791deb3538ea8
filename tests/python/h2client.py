"""A client of HTTP/2 for tests, around the h2 library: streams by id, and what has come for each."""
import socket, sys, time
import h2.config, h2.connection, h2.errors, h2.events, h2.exceptions, h2.settings

class Client:
    def __init__(self, address, acknowledges=True, begin=True):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(20)
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8")
        self.h, self.acknowledges, self.streams, self.goaway, self.closed, self.settings = h2.connection.H2Connection(config), acknowledges, {}, None, False, False
        if begin:
            self.h.initiate_connection()
            self.flush()
            self.pump(lambda: self.settings)

    def flush(self):
        data = self.h.data_to_send()
        if data:
            self.socket.sendall(data)

    def request(self, fields=(), method="GET", path="/", authority="a.test", end=True, flush=True):
        stream = self.h.get_next_available_stream_id()
        self.streams[stream] = {"fields": None, "trailers": None, "data": 0, "ended": False, "reset": None}
        pseudo = [(":method", method), (":scheme", "http"), (":path", path)] + ([(":authority", authority)] if authority else [])
        self.h.send_headers(stream, pseudo + list(fields), end_stream=end)
        if flush:
            self.flush()
        return stream

    def status(self, stream):
        fields = self.streams[stream]["fields"]
        return fields and int(fields[":status"])

    def take(self, data):
        for event in self.h.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", None), {})
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settings = True
            elif isinstance(event, h2.events.ResponseReceived):
                stream["fields"] = dict(event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                stream["trailers"] = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                stream["data"] += len(event.data)
                stream["text"] = (stream.get("text", b"") + event.data)[:64]
                if self.acknowledges is True or self.acknowledges and event.stream_id in self.acknowledges:
                    self.h.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream["ended"] = True
            elif isinstance(event, h2.events.StreamReset):
                stream["reset"] = int(event.error_code)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = int(event.error_code)

    def pump(self, until, seconds=20):
        """Reads until that is so; gives whether it came to be."""
        end = time.monotonic() + seconds
        while not until():
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return bool(until())
            except ConnectionError:
                data = b""
            if not data:
                self.closed = True
                return bool(until())
            self.take(data)
            self.flush()
        return True

    def over(self, stream):
        return self.streams[stream]["ended"] or self.streams[stream]["reset"] is not None or self.goaway is not None

