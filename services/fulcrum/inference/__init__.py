"""The inference service: models of many users behind gRPC.

settings        what an administrator can choose
server          the service put together; opened, drained, closed
listening       addresses, sockets, certificates
border          what every call passes: request id, token, room, errors, figures, log
calls           one call at work: its thread, its deadline, its cancellation
servicer        the calls of the contract
steer_session   a slider's session
answering       a request resolved, the engine asked, how the answer came about
limits          how much one request may ask for
images          images sent along or named by their hash
health          a forward that passes, and progress while work waits
metrics         figures for Prometheus
"""
