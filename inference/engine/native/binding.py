"""The compiled kernels: built once from the sources beside this file, found by a digest of what went into them."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from onerec.errors import DependencyMissingError

LOG = logging.getLogger(__name__)
SOURCES = Path(__file__).parent
MAIN = SOURCES / "kernels.cpp"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-w")  # -w: GCC warns of its own intrinsics
INSTRUCTIONS = {
    "avx512_bf16": ("-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16"),
    "avx2_int16": ("-mfma", "-mavx2", "-DONEREC_INT16"),
    "avx2": ("-mfma", "-mavx2"),
}
DTYPES = {"avx512_bf16": torch.bfloat16, "avx2_int16": torch.int16, "avx2": torch.float32}
"""What products multiply."""
COMPILERS = ("c++", "g++", "clang++")
COMPILE_TIMEOUT_S = 300
COUNTS = ("onerec_lanes", "onerec_element_bytes", "onerec_packed_elements", "onerec_piece")
"""Functions that return a number."""


class Block(ctypes.Structure):
    """`onerec::Block` of model.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("qkv", "out", "cross_q", "cross_kv", "cross_out")),
        *((name, ctypes.c_void_p) for name in ("router", "w_in", "w_out", "expert_bias")),
        ("hidden", ctypes.c_int64),
    )


class Model(ctypes.Structure):
    """`onerec::Model`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("width", "heads", "experts", "active", "codes")),
        *((name, ctypes.c_int64) for name in ("encoder_blocks", "decoder_blocks")),
        ("floor", ctypes.c_float),
        *((name, ctypes.POINTER(Block)) for name in ("encoder", "decoder")),
        *((name, ctypes.c_void_p) for name in ("embeddings", "positions", "first_rows", "first_qkv")),
    )


class State(ctypes.Structure):
    """`onerec::State`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("max_rows", "max_tokens")),
        *((name, ctypes.c_void_p) for name in ("lengths", "memory", "cache")),
    )


class Chosen(ctypes.Structure):
    """`onerec::Chosen`."""

    _fields_ = (("rows", ctypes.c_void_p), ("ends", ctypes.c_void_p))


class Step(ctypes.Structure):
    """`onerec::Step`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("fed", "start")),
        *((name, Chosen) for name in ("live", "asked")),
        *((name, ctypes.c_void_p) for name in ("codes", "ancestors", "head")),
        ("head_columns", ctypes.c_int64),
        ("logits", ctypes.c_void_p),
    )


def kinds() -> tuple[str, ...]:
    """The kernels of `INSTRUCTIONS` that this processor can run, the fastest first; none without AVX2."""
    if torch.cpu._is_avx512_bf16_supported():
        return ("avx512_bf16",)
    return ("avx2_int16", "avx2") if torch.cpu._is_avx2_supported() else ()


def path(kind: str) -> Path:
    """Where the library of this kind lies, or would lie, for these sources and flags."""
    digest = hashlib.sha256(" ".join((*FLAGS, *INSTRUCTIONS[kind])).encode())
    for source in (*sorted(SOURCES.glob("*.h")), MAIN):
        digest.update(source.read_bytes())
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cached / "onerec-stream" / f"kernels-{kind}-{digest.hexdigest()[:16]}.so"


def build() -> list[Path]:
    """Compile the libraries of this processor that are not there; returns their paths.

    Raises DependencyMissingError without AVX2 or without a compiler that knows the instructions.
    """
    if not kinds():
        raise DependencyMissingError(
            "There are no decode kernels for this processor: it has no AVX2.", "Let torch decode."
        )
    return [_built(kind) for kind in kinds()]


def _built(kind: str) -> Path:
    target = path(kind)
    if target.exists():
        return target
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise DependencyMissingError("There is no C++ compiler for the decode kernels.", "Install g++ or clang++.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        made = Path(aside) / target.name
        command = [compiler, *FLAGS, *INSTRUCTIONS[kind], "-o", str(made), str(MAIN)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
        if done.returncode:
            raise DependencyMissingError(
                f"{compiler} cannot compile the decode kernels: {done.stderr.strip()[:500]}",
                "AVX-512 with bfloat16 needs GCC 10 or Clang 9, or newer.",
            )
        made.replace(target)  # several may build at once: each renames a whole file
    return target


class Kernels:
    """The loaded library."""

    def __init__(self, kind: str, target: Path) -> None:
        self._library = ctypes.CDLL(str(target))
        address, number = ctypes.c_void_p, ctypes.c_int64
        for name, arguments in {
            "onerec_lanes": (),
            "onerec_element_bytes": (),
            "onerec_packed_elements": (number, number),
            "onerec_piece": (number, number),
            "onerec_pack": (address, number, number, address),
            "onerec_product": (address, number, address, number, number, address),
            "onerec_encode": (address, address, address, number, number, number),
            "onerec_advance": (address, address, address, number, number),
        }.items():
            function = getattr(self._library, name)
            function.argtypes = arguments
            function.restype = number if name in COUNTS else None
            setattr(self, name.removeprefix("onerec_"), function)
        self.gated: int = self._library.onerec_lanes()
        """Gates that lie together in a packed matrix, before as many values."""
        self.dtype = DTYPES[kind]
        """Of what products multiply."""
        self.kept = torch.float32 if self.dtype == torch.int16 else self.dtype
        """Of activations between products and of cached keys and values."""
        if self._library.onerec_element_bytes() != self.dtype.itemsize:
            raise ValueError(f"{target} does not hold the kernels of kind {kind}.")

    packed_elements: Callable[[int, int], int]
    piece: Callable[[int, int], int]
    pack: Callable[..., None]
    product: Callable[..., None]
    encode: Callable[..., None]
    advance: Callable[..., None]


@cache
def load(kind: str) -> Kernels | None:
    """The kernels of a kind that this processor can run; None where they have not been built."""
    target = path(kind)
    if not target.exists():
        LOG.info("the compiled decode kernels are not there, torch decodes: `python -m inference kernels` makes them")
        return None
    return Kernels(kind, target)
