import sys, time, grpc, threading, queue
ch = grpc.insecure_channel(sys.argv[1])
u = ch.unary_unary("/t.T/Unary"); ss = ch.unary_stream("/t.T/Server"); cs = ch.stream_unary("/t.T/Client"); bd = ch.stream_stream("/t.T/Bidi")
r, call = u.with_call(b"hi", metadata=(("x-user-id","7"),), timeout=5); assert r == b"echo:hi:7", r; assert ("x-trail","yes") in call.trailing_metadata(), call.trailing_metadata()
big = b"x"*3_000_000; assert u(big, timeout=10)[:8] == b"echo:xxx"
assert [x for x in ss(b"500", timeout=5)] == [b"item-%d"%i for i in range(500)]
assert cs(iter([b"ab"]*1000), timeout=5) == b"2000"
q = queue.Queue(); it = bd(iter(q.get, None), timeout=10)
for i in range(50):
    q.put(b"%d"%i); assert next(it) == b"re:%d"%i
q.put(None); assert list(it) == []
try: u(b"fail", timeout=5); assert 0
except grpc.RpcError as e: assert e.code() == grpc.StatusCode.FAILED_PRECONDITION and e.details() == "no such luck", e
t=time.time()
try: u(b"sleep", timeout=0.5); assert 0
except grpc.RpcError as e: assert e.code() == grpc.StatusCode.DEADLINE_EXCEEDED and time.time()-t < 2, e
# Time for the call to reach the server; cancelled before, it has only shown less.
f = u.future(b"sleep"); time.sleep(.2); f.cancel(); assert f.cancelled()
if len(sys.argv) > 2:
    try: grpc.insecure_channel(sys.argv[2]).unary_unary("/t.T/Unary")(b"x", timeout=5); assert 0
    except grpc.RpcError as e: assert e.code() == grpc.StatusCode.UNAVAILABLE, e; print(e.details())
print("ok")
