"""What must occur in the simulation for it to be worth something: each fault, and each way in which a call may end."""

from __future__ import annotations

from tests.sim.options import FAULTS, NOISE, ON_KAFKA

__all__ = ["OUTCOMES", "WANTED"]

#: What calls end with: errors of PRPC's own by their names, a function's by those of its caller.
OUTCOMES = (
    *("value", "left", "ValueError", "RemoteException", "RuntimeError", "LookupError", "TimeoutError"),
    *("EncodeError", "DecodeError", "BrokerUnavailableError", "ClientTimeOutError", "FunctionNotFoundError"),
    *("BadArgumentsError", "StaleStubError", "WorkerTimeoutError", "WorkerLostError", "DeadlineExceededError"),
    *("CallCancelledError", "QueueFullError", "NoServerError", "ServerShutdownError", "CallError"),
)
#: As `Verdict.counts` has them.
WANTED = (
    *(f"fault {name}" for name in dict.fromkeys((*FAULTS, *ON_KAFKA.values()))),
    *NOISE,
    *(f"outcome {name}" for name in OUTCOMES),
    *("events heard", "events in threads", "events in processes", "middleware of servers", "bars"),
)
