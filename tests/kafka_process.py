"""Apache Kafka as a process, with a second listener that asks for a password and grants nothing."""

from __future__ import annotations

from pathlib import Path

from chaos import kafka_process
from onerec.processes import LOOPBACK, free_port

USER, PASSWORD = "trainer", "right"
"""May log in on the secured listener and then do nothing: no rule grants anything."""
LOGIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'


class KafkaProcess(kafka_process.KafkaProcess):
    """One node: `with KafkaProcess(home, folder) as …`."""

    def __init__(self, home: Path, directory: Path) -> None:
        self.secured_servers = f"{LOOPBACK}:{free_port()}"
        super().__init__(home, directory)

    def _own_properties(self) -> dict[str, str]:
        own, secured = super()._own_properties(), f"SASL_PLAINTEXT://{self.secured_servers}"
        return own | {
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
            "listeners": f"{own['listeners']},{secured}",
            "advertised.listeners": f"{own['advertised.listeners']},{secured}",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": LOGIN,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
