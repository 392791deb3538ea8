"""A backend with a cache that obeys Ringway's hand-off header. What it has not got it asks its previous owner for, once, before the source
of truth; and only an owner out of its own list: the header says where a key was, not whom to trust.

    python3 handoff-backend.py 127.0.0.1:9001 127.0.0.1:9000,127.0.0.1:9001    (own address, all backends' addresses)
"""
import http.client, http.server, sys

own, known, cache = sys.argv[1], set(sys.argv[2].split(",")), {}

def from_truth(path):
    return f"{path} out of the source of truth, by {own}\n".encode()

def from_previous_owner(path, header):
    address = (header.split() + ["", ""])[1]             # `x-ringway-previous-owner: ID ADDRESS`
    if address not in known - {own}:
        return None
    previous = http.client.HTTPConnection(address, timeout=1)
    try:
        previous.request("GET", path, headers={"x-cached-only": "1"})
        response = previous.getresponse()
        return response.read() if response.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):   # It does not answer in time, or not as it should.
        return None
    finally:
        previous.close()

class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, body = self.path, cache.get(self.path)
        if body is None and "x-cached-only" not in self.headers:   # Who asks for another asks no further.
            body = cache[path] = from_previous_owner(path, self.headers.get("x-ringway-previous-owner", "")) or from_truth(path)
        self.send_response(200 if body is not None else 404)
        self.send_header("content-length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

host, port = own.rsplit(":", 1)
http.server.ThreadingHTTPServer((host, int(port)), Backend).serve_forever()
