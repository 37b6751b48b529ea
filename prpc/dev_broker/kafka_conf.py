"""server.properties of a node of a development cluster. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["NodeConf"]

#: The user by whom brokers log in to each other, where clients have to log in.
BROKER_USER, BROKER_PASSWORD = "prpc-broker", "prpc-broker"

FIXED = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "CLIENT",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A group of tests is complete at once, and its sessions are short.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "100",
    # From 4.0 on each commit is held back for 5 ms unless told otherwise, and a call that may run once only waits for one.
    "group.coordinator.append.linger.ms": "0",
    # The cleaner takes 128 MiB of heap at the start unless told otherwise.
    "log.cleaner.dedupe.buffer.size": "2097152",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "1",
    "num.recovery.threads.per.data.dir": "1",
    # A node that was killed may come back once its old registration has run out.
    "broker.heartbeat.interval.ms": "200",
    "broker.session.timeout.ms": "2000",
}


@dataclass(frozen=True, slots=True)
class NodeConf:
    """One node of a cluster."""

    number: int
    port: int
    #: Node -> port of its controller, for all nodes.
    voters: Mapping[int, int]
    directory: Path
    #: Name -> password of clients that have to log in with SASL PLAIN; empty: they must not.
    users: Mapping[str, str] = field(default_factory=dict)
    #: More settings, over all others; one whose name begins with "+" adds to a list.
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def properties(self) -> str:
        """The text of the file."""
        protocol = "SASL_PLAINTEXT" if self.users else "PLAINTEXT"
        copies = str(min(3, len(self.voters)))
        in_sync = str(min(2, len(self.voters)))
        values = {
            **FIXED,
            "node.id": str(self.number),
            "listeners": f"CLIENT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.voters[self.number]}",
            "advertised.listeners": f"CLIENT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": f"CLIENT:{protocol},CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": ",".join(f"{node}@127.0.0.1:{port}" for node, port in self.voters.items()),
            "log.dirs": str(self.data),
            "default.replication.factor": copies,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_sync,
            **(self._login() if self.users else {}),
        }
        for name, value in self.options.items():
            values[name.lstrip("+")] = f"{values[name[1:]]},{value}" if name.startswith("+") else value
        return "".join(f"{name}={value}\n" for name, value in values.items())

    def _login(self) -> dict[str, str]:
        users = {BROKER_USER: BROKER_PASSWORD, **self.users}
        known = " ".join(f'user_{name}="{password}"' for name, password in users.items())
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        return {
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.client.plain.sasl.jaas.config": (
                f'{module} username="{BROKER_USER}" password="{BROKER_PASSWORD}" {known};'
            ),
        }
