"""Which requests are sampled, and the id of the pair of each: functions of the request id alone.

So every instance, and the same one after a crash, samples the same requests and names their pairs alike.
"""

from __future__ import annotations

from hashlib import blake2b

_BYTES = 8


def _hash(request_id: int, purpose: bytes) -> int:
    """64 bits that look random and depend on all bits of the id."""
    data = request_id.to_bytes(_BYTES, "little", signed=True)
    return int.from_bytes(blake2b(data, digest_size=_BYTES, person=purpose).digest(), "little")


def is_sampled(request_id: int, share: float) -> bool:
    """Whether the request belongs to the share: the requests of a smaller share are among those of a larger one."""
    return _hash(request_id, b"onerec-sample") < share * 2**64


def pair_id_of(request_id: int) -> int:
    """The id of the pair made for a request: 63 bits, so that it fits a signed integer."""
    return _hash(request_id, b"onerec-pair") >> 1
