"""Settings: the TOML file, and tables of the environment."""

from __future__ import annotations

import contextlib
import os
import tempfile
from functools import cache
from pathlib import Path

from onerec.errors import OneRecError
from onerec.settings import CONFIG_VARIABLE, load_settings

TABLES = ("ONEREC_KAFKA__LIBRDKAFKA", "ONEREC_STREAM__JOINER", "ONEREC_TRAINER__LEARNING_RATE")
TOML = b"""[kafka]
bootstrap_servers = "127.0.0.1:9092"
partitions = 4
[kafka.librdkafka]
"security.protocol" = "ssl"
[store]
uri = "s3://key:secret@host/versions"
[trainer]
learning_rate = 1e-3
[inference.worker]
deadline_ms = 500
pin_version = 3
"""
ODD = (b"x = " + b"[" * 5000, b"x = " + b"9" * 10_000, b"\xff\xfe", b"[kafka.kafka.kafka]", b"[[kafka]]", b"a.b = 1")
SEEDS = [b"\x00" + TOML, *(b"\x00" + odd for odd in ODD), *(b"\x00" + TOML + odd for odd in ODD)]
SEEDS += [b'\x01{"ssl.ca.location": "ca.pem"}', b'\x02{"session_items": 5}', b"\x031e-3", b"\x02" + b"[" * 5000]


@cache
def file() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-")) / "onerec.toml"


def target(data: bytes) -> None:
    """The first byte chooses the file or a variable; refused with a sentence, or read."""
    choice, text = data[0] % (1 + len(TABLES)) if data else 0, data[1:]
    before = dict(os.environ)
    try:
        with contextlib.suppress(OneRecError):
            if choice == 0:
                file().write_bytes(text)
                load_settings(file())
            else:
                os.environ[TABLES[choice - 1]] = os.fsdecode(text.replace(b"\0", b""))
                load_settings()
    finally:
        os.environ.pop(CONFIG_VARIABLE, None)
        for name in TABLES:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if name.startswith("ONEREC_")})
