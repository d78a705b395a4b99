"""Settings of the broker and the topics."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator

from onerec.settings.table import Table


class KafkaSettings(Table):
    """How to reach the broker and how topics are laid out."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="Brokers, host:port, comma-separated.")
    topic_prefix: str = Field("", description="Put before every topic name, so that systems can share a broker.")
    partitions: int = Field(4, ge=1, le=10_000, description="Partitions of every topic keyed by user_id.")
    replication_factor: int = Field(1, ge=1, description="Replicas of every topic.")
    min_insync_replicas: int | None = Field(
        None,
        ge=1,
        description="Replicas that have a record before it counts as written; None is one less than there are, so "
        "that one broker may be lost.",
    )
    retention_ms: int = Field(
        -1,
        ge=-1,
        description="Retention of topics that go by time; -1 keeps all. A replayed "
        "log carries the event times of its past: with a week's retention it is deleted at once.",
    )
    max_message_bytes: int = Field(
        2_097_152, ge=65_536, description="Largest record of a topic; dead-letters takes twice that, a record and why."
    )
    group_protocol: str = Field("classic", pattern="^(classic|consumer)$", description="consumer is KIP-848, Kafka 4.")
    group_prefix: str = Field("onerec-", description="Put before every consumer group's name.")
    schema_registry_url: str | None = Field(
        None,
        repr=False,
        description="Confluent wire format with this registry, https://user:password@host where it asks for them; "
        "else Avro single-object encoding.",
    )
    librdkafka: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Further librdkafka properties for every client, security among them.",
    )
    broker_patience_s: float = Field(
        30.0, gt=0, description="A service ends with exit code 3 when no broker has answered for so long."
    )
    sasl_password: SecretStr | None = Field(None, description="sasl.password, kept out of logs.")

    @property
    def in_sync(self) -> int:
        """How many replicas have a record before it counts as written: `min_insync_replicas` or what stands for it."""
        return self.min_insync_replicas or max(1, self.replication_factor - 1)

    @model_validator(mode="after")
    def _enough_replicas(self) -> Self:
        if self.in_sync > self.replication_factor:
            raise ValueError("min_insync_replicas cannot be above replication_factor")
        return self
