import sys, time, grpc
from concurrent import futures
# Behind the port: the status of all calls.
broken = getattr(grpc.StatusCode, sys.argv[2]) if len(sys.argv) > 2 else None
def unary(request, context):
    if broken: context.abort(broken, "broken")
    md = dict(context.invocation_metadata())
    if request == b"sleep": time.sleep(3)  # Longer than the client waits.
    if request == b"fail": context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such luck")
    context.set_trailing_metadata((("x-trail", "yes"),))
    return b"echo:" + request + b":" + md.get("x-user-id", "-").encode()
def server_stream(request, context):
    for i in range(int(request)):
        if not context.is_active(): return
        yield b"item-%d" % i
def client_stream(requests, context): return b"%d" % sum(len(r) for r in requests)
def bidi(requests, context):
    for r in requests: yield b"re:" + r
class H(grpc.GenericRpcHandler):
    def service(self, d):
        return {"/t.T/Unary": grpc.unary_unary_rpc_method_handler(unary), "/t.T/Server": grpc.unary_stream_rpc_method_handler(server_stream),
          "/t.T/Client": grpc.stream_unary_rpc_method_handler(client_stream), "/t.T/Bidi": grpc.stream_stream_rpc_method_handler(bidi)}.get(d.method)
s = grpc.server(futures.ThreadPoolExecutor(32)); s.add_generic_rpc_handlers((H(),))
port = s.add_insecure_port("127.0.0.1:%s" % sys.argv[1]); s.start(); print(port, flush=True); s.wait_for_termination()
