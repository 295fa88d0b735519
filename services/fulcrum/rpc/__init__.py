"""The only home of protobuf: the contract of the inference service, and both of its callers.

v1               generated from `proto/` by `proto/generate.py`, committed
requests         what each call takes, as one value
answers          what streams bring
convert          domain values <-> messages; `fields` and `tensors` do the work
errors           domain errors <-> google.rpc.Status, the one table
images           bytes, or the hash of an artifact
metadata         user, request id, token
channels         addresses, limits, keepalive, TLS
replicas         which of several is asked, and when another one is
client           RemoteEngine, the `InferenceEngine` behind gRPC
async_client     AsyncRemoteEngine, each answer with its provenance
session          slider moves in, newest answer out
"""
