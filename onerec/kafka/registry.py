"""Codecs for the topics, with a Confluent schema registry where the settings name one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from onerec.errors import CheckFailedError, DependencyMissingError
from onerec.settings import KafkaSettings
from schemas.codec import Codec
from schemas.topics import Topic

NOT_FOUND = 404
CONFLICT = 409
UNPROCESSABLE = 422
FORGET_UNKNOWN_S = 30.0
TIMEOUT_S = 10.0


def codec(kafka: KafkaSettings, topic: Topic) -> Codec:
    """The codec of a topic under these settings; made once a process."""
    return _codec(kafka.schema_registry_url, kafka.topic_prefix, topic)


@cache
def _codec(url: str | None, prefix: str, topic: Topic) -> Codec:
    return Codec(topic, registry=_registry(url, prefix) if url else None)


@cache
def _registry(url: str, prefix: str) -> Registry:
    # Loaded only where it is used: it takes half a second of a service's start.
    from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415

    client = SchemaRegistryClient.new_client({"url": url, "timeout": TIMEOUT_S, "max.retries": 2})
    return Registry(client, topic_prefix=prefix)


class Registry:
    """A schema registry by Confluent's client; subjects are `<topic>-value`, as the other clients name them."""

    def __init__(self, client: Any, *, topic_prefix: str = "") -> None:
        """`client`: a SchemaRegistryClient."""
        self._client = client
        self._prefix = topic_prefix
        self._unknown_until_s: dict[int, float] = {}

    def id_of(self, topic: Topic, schema: Mapping[str, Any]) -> int:
        """The id of `schema` under the topic's subject; registers it where it is not.

        Raises CheckFailedError where the registry finds it incompatible, DependencyMissingError where it fails.
        """
        from confluent_kafka.schema_registry import Schema, SchemaRegistryError  # noqa: PLC0415

        subject = f"{self._prefix}{topic.name}-value"
        try:
            return int(self._client.register_schema(subject, Schema(json.dumps(schema), "AVRO")))
        except SchemaRegistryError as error:
            if error.http_status_code in (CONFLICT, UNPROCESSABLE):
                raise CheckFailedError(
                    f"The schema registry refuses the schema of {subject}: {error.error_message}.",
                    "Another system uses this subject, or the schema changed incompatibly: see schemas/previous.",
                ) from error
            raise self._failed(error) from error
        except Exception as error:  # the client lets errors of its HTTP library through
            raise self._failed(error) from error

    def schema_of(self, schema_id: int) -> Mapping[str, Any] | None:
        """The Avro record schema with this id; None where there is none. Raises DependencyMissingError where it fails.

        That an id is unknown is remembered for half a minute, so that bad input does not become load here.
        """
        from confluent_kafka.schema_registry import SchemaRegistryError  # noqa: PLC0415

        if self._unknown_until_s.get(schema_id, 0.0) > time.monotonic():
            return None
        try:
            found = self._client.get_schema(schema_id)
        except SchemaRegistryError as error:
            if error.http_status_code != NOT_FOUND:
                raise self._failed(error) from error
            self._remember_unknown(schema_id)
            return None
        except Exception as error:  # the client lets errors of its HTTP library through
            raise self._failed(error) from error
        if found.schema_type not in (None, "AVRO"):
            self._remember_unknown(schema_id)
            return None
        try:
            schema = json.loads(found.schema_str)
        except (ValueError, TypeError, RecursionError):  # no JSON, or nested beyond what a parser takes
            schema = None
        if not isinstance(schema, dict):  # a bare type is no record of ours
            self._remember_unknown(schema_id)
            return None
        return schema

    def _remember_unknown(self, schema_id: int) -> None:
        now_s = time.monotonic()
        self._unknown_until_s = {known: until for known, until in self._unknown_until_s.items() if until > now_s}
        self._unknown_until_s[schema_id] = now_s + FORGET_UNKNOWN_S

    def _failed(self, error: Exception) -> DependencyMissingError:
        return DependencyMissingError(
            f"The schema registry does not answer as it should: {error}.",
            "Start it, or mend kafka.schema_registry_url (its user and password stand in the URL).",
        )
