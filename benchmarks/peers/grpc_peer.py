"""gRPC's blocking face, without a broker: ten threads in the server, one channel in the client."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import Int64Value

from benchmarks.rig import given, measure_handles

ADDRESS = "127.0.0.1:50952"


def add(request, context):
    return Int64Value(value=request.seconds + request.nanos)


def serve():
    handler = grpc.unary_unary_rpc_method_handler(add, Duration.FromString, Int64Value.SerializeToString)
    server = grpc.server(ThreadPoolExecutor(10))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Adder", {"Add": handler}),))
    server.add_insecure_port(ADDRESS)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    _, meter, counts = given()
    channel = grpc.insecure_channel(ADDRESS)
    stub = channel.unary_unary("/bench.Adder/Add", Duration.SerializeToString, Int64Value.FromString)
    send = lambda a, b: stub.future(Duration(seconds=a, nanos=b), wait_for_ready=True)  # noqa: E731
    print(json.dumps(measure_handles(send, lambda future: future.result(60).value, counts, meter)))
