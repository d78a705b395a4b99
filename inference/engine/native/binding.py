"""The compiled kernels: built once from the sources beside this file, found by a digest of what went into them."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from onerec.compiled import Library
from onerec.errors import DependencyMissingError
from onerec.machine import machine

LOG = logging.getLogger(__name__)
FLAGS = ("-fno-math-errno", "-w")  # -w: GCC warns of its own intrinsics
AVX512 = ("-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16")
INSTRUCTIONS = {
    "amx_bf16": (*AVX512, "-mamx-tile", "-mamx-bf16"),
    "avx512_bf16": AVX512,
    "avx512_int8": (*AVX512, "-mavx512vnni", "-DONEREC_INT8"),
    "avx2_int16": ("-mfma", "-mavx2", "-DONEREC_INT16"),
    "avx2": ("-mfma", "-mavx2"),
}
DTYPES = {
    "amx_bf16": torch.bfloat16,
    "avx512_bf16": torch.bfloat16,
    "avx512_int8": torch.int8,
    "avx2_int16": torch.int16,
    "avx2": torch.float32,
}
"""What products with weights multiply."""
KEPT = {torch.int8: torch.bfloat16, torch.int16: torch.float32}
"""Of activations between products and of cached keys and values, where products multiply integers."""
RECALLED = {torch.int8: torch.bfloat16}
"""Of encoded histories, where they are not what products with weights multiply."""
COARSE = ("avx512_int8",)
"""Kinds that decode only where the setting names them: what they round changes what is recommended."""
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
        ("codes", ctypes.c_void_p),
        ("rows_each", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("past", "parents", "ancestors", "head")),
        ("head_columns", ctypes.c_int64),
        ("logits", ctypes.c_void_p),
    )


class Integers(ctypes.Structure):
    """`onerec::Integers` of search.h."""

    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_int64))


class Tree(ctypes.Structure):
    """`onerec::Tree`."""

    _fields_ = (
        ("levels", ctypes.c_int64),
        *((name, ctypes.POINTER(Integers)) for name in ("starts", "codes", "parents", "bounds")),
        *((name, Integers) for name in ("last_edges", "leaf_of_edge")),
    )


class Limits(ctypes.Structure):
    """`onerec::Limits`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("excluded", "below")),
        *((name, ctypes.c_int64) for name in ("count", "stride")),
        ("allowed", Integers),
        ("allowed_stride", ctypes.c_int64),
    )


class Head(ctypes.Structure):
    """`onerec::Head` of session.h."""

    _fields_ = (("packed", ctypes.c_void_p), ("columns", ctypes.c_int64))


class Plan(ctypes.Structure):
    """`onerec::Plan`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("slots", "most")),
        *((name, ctypes.POINTER(ctypes.c_int64)) for name in ("begin", "widths")),
        ("own", ctypes.c_void_p),
        *((name, ctypes.POINTER(ctypes.c_int64)) for name in ("binds", "decided", "branches")),
        ("supply", ctypes.c_void_p),
        ("limits", ctypes.POINTER(Limits)),
        ("heads", ctypes.POINTER(Head)),
    )


class Sessions(ctypes.Structure):
    """`onerec::Sessions`, in the order of `inference.engine.generated.Generated`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("items", "log_probs", "item_log_probs", "first", "first_log_probs")),
        ("decoded", ctypes.c_void_p),
    )


def kinds() -> tuple[str, ...]:
    """Of `INSTRUCTIONS` what this processor can run, the preferred first and COARSE last; none without AVX2."""
    if torch.cpu._is_avx512_bf16_supported():
        exact = ("amx_bf16", "avx512_bf16") if _has_amx() else ("avx512_bf16",)
        return (*exact, "avx512_int8") if torch.cpu._is_vnni_supported() else exact
    return ("avx2_int16", "avx2") if torch.cpu._is_avx2_supported() else ()


@cache
def _has_amx() -> bool:
    """Whether this process may use AMX for bfloat16: the kernel grants it on request, to all threads at once."""
    return "amx_bf16" in str(machine()["features"]) and bool(torch.cpu._init_amx())


def library(kind: str) -> Library:
    """The library of this kind."""
    return Library(
        name=f"kernels-{kind}",
        main=Path(__file__).with_name("kernels.cpp"),
        flags=(*FLAGS, *INSTRUCTIONS[kind]),
        what="the decode kernels",
        hint="AVX-512 with bfloat16 needs GCC 10 or Clang 9, AMX GCC 11 or Clang 12, or newer.",
    )


def path(kind: str) -> Path:
    """Where the library of this kind lies, or would lie, for these sources and flags."""
    return library(kind).path()


def build() -> list[Path]:
    """Compile the libraries of this processor that are not there; returns the paths of those that are there then.

    Raises DependencyMissingError without AVX2 or without a compiler that knows any of the instructions.
    """
    built, failed = (
        list[Path](),
        DependencyMissingError("There are no decode kernels for this processor: it has no AVX2.", "Let torch decode."),
    )
    for kind in kinds():
        try:
            built.append(library(kind).build())
        except DependencyMissingError as error:
            LOG.info("%s", error)
            failed = error
    if not built:
        raise failed
    return built


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
            "onerec_generate": (address, address, address, address, address, number, number),
            "onerec_search": (address, address, number, number),
        }.items():
            function = getattr(self._library, name)
            function.argtypes = arguments
            function.restype = number if name in COUNTS else None
            setattr(self, name.removeprefix("onerec_"), function)
        self.gated: int = self._library.onerec_lanes()
        """Gates that lie together in a packed matrix, before as many values."""
        self.kind = kind
        """Of `INSTRUCTIONS`."""
        self.dtype = DTYPES[kind]
        """Of what products with weights multiply."""
        self.kept = KEPT.get(self.dtype, self.dtype)
        """Of activations between products and of cached keys and values."""
        self.recalled = RECALLED.get(self.dtype, self.dtype)
        """Of encoded histories."""
        if self._library.onerec_element_bytes() != self.dtype.itemsize:
            raise ValueError(f"{target} does not hold the kernels of kind {kind}.")

    packed_elements: Callable[[int, int], int]
    piece: Callable[[int, int], int]
    pack: Callable[..., None]
    product: Callable[..., None]
    encode: Callable[..., None]
    advance: Callable[..., None]
    generate: Callable[..., None]
    search: Callable[..., None]


@cache
def load(kind: str) -> Kernels | None:
    """The kernels of a kind that this processor can run; None where they have not been built."""
    target = path(kind)
    if not target.exists():
        LOG.info("the compiled decode kernels are not there, torch decodes: `python -m inference kernels` makes them")
        return None
    try:
        return Kernels(kind, target)
    except OSError as error:
        LOG.warning("the compiled decode kernels cannot be loaded, torch decodes: %s", error)
        return None
