"""Apache Kafka with a listener by TLS and SCRAM, on which users may do what access rules grant them.

The plain listener is the operator's back door: whoever comes by it is a super user.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from chaos import kafka_process
from onerec.kafka.rights import Operation, Resource, Right
from onerec.processes import LOOPBACK, free_port
from onerec.settings import KafkaSettings

TIMEOUT_S = 60.0
RESOURCES = {
    Resource.TOPIC: ResourceType.TOPIC,
    Resource.GROUP: ResourceType.GROUP,
    Resource.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}
OPERATIONS = {
    Operation.READ: AclOperation.READ,
    Operation.WRITE: AclOperation.WRITE,
    Operation.DESCRIBE: AclOperation.DESCRIBE,
    Operation.DESCRIBE_CONFIGS: AclOperation.DESCRIBE_CONFIGS,
    Operation.CREATE: AclOperation.CREATE,
}


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for loopback, made by Java's keytool: for the broker, and for those who trust it."""

    keystore: Path
    certificate: Path
    password: str = "keystore-password"

    @classmethod
    def make(cls, directory: Path, name: str) -> Self:
        """Make one in `directory`."""
        made = cls(directory / f"{name}.p12", directory / f"{name}.pem")
        key: list[str | Path] = [
            "-keystore",
            made.keystore,
            "-storetype",
            "PKCS12",
            "-storepass",
            made.password,
            "-alias",
            "broker",
        ]
        generate: list[str | Path] = [
            "-genkeypair",
            "-keyalg",
            "EC",
            "-dname",
            f"CN={name}",
            "-ext",
            f"SAN=IP:{LOOPBACK}",
        ]
        export: list[str | Path] = ["-exportcert", "-rfc", "-file", made.certificate]
        for command in (generate, export):
            subprocess.run(["keytool", *command, *key], check=True, capture_output=True)
        return made


def password_of(user: str) -> str:
    """A user's password, which no output may hold."""
    return f"canary-of-{user}"


class SecuredKafka(kafka_process.KafkaProcess):
    """One node, with users who have no rights at first."""

    def __init__(self, home: Path, directory: Path, users: Iterable[str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = Certificate.make(directory, "broker")
        self.stranger = Certificate.make(directory, "stranger")
        self.tls_servers = f"{LOOPBACK}:{free_port()}"
        self._users = tuple(users)
        super().__init__(home, directory)

    @property
    def admin(self) -> KafkaSettings:
        """Everything is allowed."""
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers, topic_prefix="t-", group_prefix="g-")

    def settings(self, user: str, *, password: str | None = None, **changes: Any) -> KafkaSettings:
        """Of a user who comes by TLS and SCRAM; `changes` are further librdkafka properties, `a_b` for `a.b`."""
        security = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "ssl.ca.location": str(self.certificate.certificate),
        }
        return KafkaSettings.model_validate(
            {
                "bootstrap_servers": self.tls_servers,
                "topic_prefix": self.admin.topic_prefix,
                "group_prefix": self.admin.group_prefix,
                "partitions": 2,
                "librdkafka": security | {name.replace("_", "."): value for name, value in changes.items()},
                "sasl_password": password or password_of(user),
            }
        )

    def _own_properties(self) -> dict[str, str]:
        own, secured, tls = super()._own_properties(), f"SASL_SSL://{self.tls_servers}", "listener.name.sasl_ssl"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return own | {
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
            "listeners": f"{own['listeners']},{secured}",
            "advertised.listeners": f"{own['advertised.listeners']},{secured}",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{tls}.scram-sha-512.sasl.jaas.config": scram,
            f"{tls}.ssl.keystore.type": "PKCS12",
            f"{tls}.ssl.keystore.location": str(self.certificate.keystore),
            f"{tls}.ssl.keystore.password": self.certificate.password,
            f"{tls}.ssl.truststore.type": "PEM",
            f"{tls}.ssl.truststore.location": str(self.certificate.certificate),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def _format_options(self) -> list[str]:
        options: list[str] = []
        for user in self._users:
            options += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password_of(user)},iterations=4096]"]
        return options


class AccessRules:
    """The broker's access rules, given and taken by the super user."""

    def __init__(self, kafka: SecuredKafka) -> None:
        self._client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})

    def grant(self, rights: Iterable[Right]) -> None:
        """Add a rule for each operation of each right."""
        bindings = [binding for right in rights for binding in bindings_of(right)]
        for made in self._client.create_acls(bindings).values():
            made.result(TIMEOUT_S)

    def revoke(self, rights: Iterable[Right]) -> None:
        """Take these rules away again."""
        wanted = [
            AclBindingFilter(
                one.restype, one.name, one.resource_pattern_type, one.principal, one.host, one.operation,
                one.permission_type,
            )
            for right in rights
            for one in bindings_of(right)
        ]  # fmt: skip
        for removed in self._client.delete_acls(wanted).values():
            assert removed.result(TIMEOUT_S)

    @contextmanager
    def without(self, right: Right) -> Iterator[None]:
        """Without one right, for a while."""
        self.revoke([right])
        try:
            yield
        finally:
            self.grant([right])

    def of(self, user: str) -> set[AclBinding]:
        """All rules for a user."""
        anything = AclBindingFilter(  # the stubs do not know that None is anything
            ResourceType.ANY, None, ResourcePatternType.ANY, f"User:{user}", None, AclOperation.ANY,  # type: ignore[arg-type]
            AclPermissionType.ANY,
        )  # fmt: skip
        return set(self._client.describe_acls(anything).result(TIMEOUT_S))


def bindings_of(right: Right) -> list[AclBinding]:
    """The rules that grant a right."""
    pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
    return [
        AclBinding(
            RESOURCES[right.resource], right.name, pattern, f"User:{right.user}", "*", OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for operation in right.operations
    ]  # fmt: skip


def environment_of(kafka: KafkaSettings) -> Mapping[str, str]:
    """The settings as environment variables of a service; the password too, as an operator would give it."""
    import json

    password = kafka.sasl_password
    found = {
        "ONEREC_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "ONEREC_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "ONEREC_KAFKA__GROUP_PREFIX": kafka.group_prefix,
        "ONEREC_KAFKA__PARTITIONS": str(kafka.partitions),
        "ONEREC_KAFKA__LIBRDKAFKA": json.dumps(kafka.librdkafka),
    }
    return found | ({"ONEREC_KAFKA__SASL_PASSWORD": password.get_secret_value()} if password else {})
