"""A collector of traces for tests: reads OTLP over HTTP by OpenTelemetry's own messages, and does what it is told.

`POST /v1/traces` takes spans; `GET /spans` gives all of them; `GET /mode/NAME` says how the next ones are taken: good, hang, slow, 500,
busy (429 once, for a second), partial, garbage, text. Given a certificate and a key, it takes spans by TLS too, each request on a connection
of its own; after `GET /renew` with the certificate and the key that come next."""
import gzip, json, ssl, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

state = {"mode": "good", "posts": 0, "headers": {}, "spans": []}
lock = threading.Lock()

def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}

def spans(body):
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield {"resource": attributes(resource.resource.attributes), "scope": scope.scope.name, "name": span.name,
                       "trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex(),
                       "kind": span.kind, "state": span.trace_state, "status": span.status.code, "flags": span.flags,
                       "nanos": span.end_time_unix_nano - span.start_time_unix_nano, "start": span.start_time_unix_nano,
                       "attributes": attributes(span.attributes)}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", fields=(), form="application/x-protobuf"):
        self.send_response(status)
        for name, value in (("content-type", form), ("content-length", str(len(body))), *fields):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with lock:
            if self.path.startswith("/mode/"):
                state["mode"] = self.path.rsplit("/", 1)[1]
            if self.path == "/renew":
                context.load_cert_chain(*sys.argv[3:5])
            body = json.dumps(state).encode()
        self.answer(200, body, form="application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.close_connection = isinstance(self.connection, ssl.SSLSocket)
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        found = list(spans(body))
        with lock:
            state["posts"] += 1
            state["headers"] = {name.lower(): value for name, value in self.headers.items()} | {"path": self.path}
            mode = state["mode"]
            if mode == "busy":
                state["mode"] = "good"
        if mode == "hang":
            # Says nothing for as long as the test lasts.
            time.sleep(3600)
        if mode == "slow":
            # Takes its time, and the spans.
            time.sleep(1)
        if mode in ("good", "slow", "partial", "text"):
            with lock:
                state["spans"] += found
        response = ExportTraceServiceResponse()
        if mode == "500":
            self.answer(500)
        elif mode == "busy":
            self.answer(429, fields=[("retry-after", "1")])
        elif mode == "partial":
            response.partial_success.rejected_spans, response.partial_success.error_message = 1, "too old"
            self.answer(200, response.SerializeToString())
        elif mode == "garbage":
            self.wfile.write(b"\x00\xff no HTTP at all\r\n\r\n")
            self.close_connection = True
        elif mode == "text":
            self.answer(200, b"ok", form="text/plain")
        else:
            self.answer(200, response.SerializeToString())

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
ports = [server.server_port]
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:3])
    # Who comes back looks at the certificate again.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    class Secure(ThreadingHTTPServer):
        def handle_error(self, *_):
            pass  # Who does not trust it ends the handshake.
    secure = Secure(("127.0.0.1", 0), Handler)
    # In the thread of the connection: one that is slow holds up no other.
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    ports.append(secure.server_port)
print(*ports, flush=True)
server.serve_forever()
