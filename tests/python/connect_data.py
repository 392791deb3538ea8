address = sys.argv[1]
client = Client(address)
assert client.h.remote_settings.enable_connect_protocol
smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
for path in ("/ok", "/denied", "/forged", "/made", "/none"):
    stream = client.request([(":protocol", "websocket"), ("sec-websocket-version", "13")], "CONNECT", path, end=False, flush=False)
    client.h.send_data(stream, smuggled * 3)
    client.flush()
    assert client.pump(lambda: client.over(stream)), path
    status = client.status(stream)
    assert status == {"/ok": 502, "/denied": 403, "/forged": 502, "/made": 502, "/none": 404}[path], (path, status)
    # More of it, once the answer is there.
    try:
        client.h.send_data(stream, smuggled)
        client.flush()
    except h2.exceptions.ProtocolError:
        pass
# A protocol that is no word is none: its lines would be fields.
for protocol in ("websocket\r\nx-injected: 1", "web socket", "", "irc/\u00e9"):
    stream = client.request([(":protocol", protocol)], "CONNECT", "/injected", end=False)
    assert client.pump(lambda: client.over(stream)), protocol
    assert client.streams[stream]["reset"] == 1 and client.goaway is None, (protocol, client.streams[stream], client.goaway)
# One that is a word opens no tunnel either: nothing of it reaches the backend.
for protocol in ("connect-udp", "webtransport", "h2c"):
    stream = client.request([(":protocol", protocol)], "CONNECT", "/injected", end=False)
    assert client.pump(lambda: client.over(stream)), protocol
    assert client.status(stream) == 501, (protocol, client.streams[stream])
# However it is spelled.
stream = client.request([(":protocol", "WebSocket"), ("sec-websocket-version", "13")], "CONNECT", "/denied", end=False)
assert client.pump(lambda: client.over(stream)) and client.status(stream) == 403
stream = client.request(path="/ok")
assert client.pump(lambda: client.over(stream)) and client.status(stream) == 200
