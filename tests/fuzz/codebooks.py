"""Codebook files: header, shapes, codes, checksum."""

from __future__ import annotations

import contextlib

from onerec.errors import OneRecError
from stream.tokenizer.codebook import Codebook
from tests.stream.tokenizer.items import codebook

GOOD = codebook().to_bytes()
SIZE = int.from_bytes(GOOD[:8], "little")
HEADERS = [
    b'{"__metadata__":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"__metadata__":{"format":"1","version":"1e9","settings":"{}","sha256":""}}',
    b"[]",
]
SEEDS = [GOOD, codebook(version=2**40).to_bytes(), GOOD[: 8 + SIZE]]
SEEDS += [len(header).to_bytes(8, "little") + header + GOOD[8 + SIZE :] for header in HEADERS]


def target(data: bytes) -> None:
    """Refused with a sentence, or what it holds comes back from its bytes."""
    with contextlib.suppress(OneRecError):
        read = Codebook.from_bytes(data, "1.safetensors")
        assert Codebook.from_bytes(read.to_bytes(), "1.safetensors").sha256() == read.sha256()
