"""The compiled kernels: built once from the sources beside this file, found by a digest of what went into them."""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from onerec.compiled import Library
from onerec.errors import DependencyMissingError
from onerec.model.elementwise import Attended, Heads, Normed, NormGradients, Shares

LOG = logging.getLogger(__name__)
AVX2, AVX512_BF16 = ("avx2",), ("avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16")
"""Instructions of the two kinds of kernels: with the second they are wider and multiply bfloat16, so attention is
theirs as a whole."""


def library_for(instructions: Sequence[str]) -> Library:
    """The kernels of one kind, named by the last of its instructions."""
    # No contraction, or which products are fused with additions would be the compiler's choice.
    flags = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
    return Library(
        f"elementwise-{instructions[-1]}",
        Path(__file__).with_name("kernels.cpp"),
        (*(f"-m{name}" for name in instructions), *flags),
        "the training kernels",
        "GCC 10 or Clang 12 will do.",
    )


LIBRARY = library_for(AVX512_BF16 if torch.cpu._is_avx512_bf16_supported() else AVX2)
BLOCKS = 64
"""Into which rows are cut for sums over them, however many threads there are."""
HEAD_UNIT = 32
"""`onerec::PANEL`."""


class Norm(ctypes.Structure):
    """`onerec::Norm`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "width")),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("x", "gain", "inverse")),
    )


class Scores(ctypes.Structure):
    """`onerec::Scores`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "heads", "queries", "keys")),
        ("scale", ctypes.c_float),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bias_batch", "bias_head", "bias_query")),
    )


class Place(ctypes.Structure):
    """`onerec::Heads`."""

    _fields_ = (("data", ctypes.c_void_p), ("row", ctypes.c_int64))

    @classmethod
    def of(cls, heads: Tensor) -> Place:
        """Heads [B, T, H, Dh]; of one position the stride means nothing."""
        return cls(heads.data_ptr(), heads.stride(int(heads.shape[1] > 1)))


class Attention(ctypes.Structure):
    """`onerec::Attention`."""

    _fields_ = (
        ("scores", Scores),
        ("width", ctypes.c_int64),
        *((name, Place) for name in Heads._fields),
        ("kept", ctypes.c_void_p),
    )


class AttentionGradients(ctypes.Structure):
    """`onerec::AttentionGradients`."""

    _fields_ = tuple((name, Place) for name in ("out", *Heads._fields))


class Compiled:
    """The loaded library, as `onerec.model.elementwise.Kernels`.

    Raises OSError where torch's OpenMP is not the one that it was made for.
    """

    def __init__(self, target: Path) -> None:
        library = ctypes.CDLL(str(target))
        address, number = ctypes.c_void_p, ctypes.c_int64
        for name, arguments in {
            "norm_forward": (address, number, address, address, number, address, number),
            "norm_backward": (address, number, *(address,) * 6, number, number),
            "swiglu_forward": (number, number, number, address, address, number),
            "swiglu_backward": (number, number, number, address, address, address, number),
            "softmax_forward": (address, number, address, address, address, number),
            "softmax_backward": (address, number, address, address, address, number),
            "attention_forward": (address, address, number),
            "attention_backward": (address, address, number),
        }.items():
            if not hasattr(library, f"onerec_{name}"):  # attention of AVX2's
                continue
            function = getattr(library, f"onerec_{name}")
            function.restype, function.argtypes = None, arguments
            setattr(self, f"_{name}", function)
        self.name, self.lanes = target.stem, library.onerec_lanes()
        self.head_unit = HEAD_UNIT if hasattr(self, "_attention_forward") else 0

    _norm_forward: Callable[..., None]
    _norm_backward: Callable[..., None]
    _swiglu_forward: Callable[..., None]
    _swiglu_backward: Callable[..., None]
    _softmax_forward: Callable[..., None]
    _softmax_backward: Callable[..., None]
    _attention_forward: Callable[..., None]
    _attention_backward: Callable[..., None]

    def norm(self, x: Tensor, added: Tensor | None, gain: Tensor, dtype: torch.dtype, epsilon: float) -> Normed:
        """As `Kernels` says."""
        rows, width = x.shape
        normed = Normed(
            x if added is None else torch.empty_like(x), x.new_empty(x.shape, dtype=dtype), x.new_empty(rows)
        )
        structure = Norm(rows, width, epsilon, x.data_ptr(), gain.data_ptr(), normed.inverse.data_ptr())
        self._norm_forward(
            ctypes.byref(structure),
            0 if added is None else _kind(added),
            None if added is None else added.data_ptr(),
            normed.total.data_ptr(),
            _kind(normed.out),
            normed.out.data_ptr(),
            torch.get_num_threads(),
        )
        return normed

    def norm_backward(
        self, grad: Tensor, grad_total: Tensor | None, normed: Normed, gain: Tensor, added_dtype: torch.dtype
    ) -> NormGradients:
        """As `Kernels` says."""
        rows, width = grad.shape
        blocks = min(BLOCKS, rows)
        total = normed.total
        grad_x, grad_gain, partial = torch.empty_like(total), torch.empty_like(gain), total.new_empty(blocks, width)
        grad_added = grad_x if added_dtype == grad_x.dtype else grad_x.new_empty(grad_x.shape, dtype=added_dtype)
        structure = Norm(rows, width, 0.0, total.data_ptr(), gain.data_ptr(), normed.inverse.data_ptr())
        self._norm_backward(
            ctypes.byref(structure),
            _kind(grad),
            grad.data_ptr(),
            None if grad_total is None else grad_total.data_ptr(),
            grad_x.data_ptr(),
            None if grad_added is grad_x else grad_added.data_ptr(),
            grad_gain.data_ptr(),
            partial.data_ptr(),
            blocks,
            torch.get_num_threads(),
        )
        return NormGradients(grad_x, grad_added, grad_gain)

    def swiglu(self, x: Tensor) -> Tensor:
        """As `Kernels` says."""
        rows, hidden = x.shape[0], x.shape[1] // 2
        out = x.new_empty(rows, hidden)
        self._swiglu_forward(_kind(x), rows, hidden, x.data_ptr(), out.data_ptr(), torch.get_num_threads())
        return out

    def swiglu_backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """As `Kernels` says."""
        grad_x = torch.empty_like(x)
        addresses = (x.data_ptr(), grad.data_ptr(), grad_x.data_ptr())
        self._swiglu_backward(_kind(x), *grad.shape, *addresses, torch.get_num_threads())
        return grad_x

    def softmax(self, scores: Tensor, bias: Tensor | None, scale: float) -> Shares:
        """As `Kernels` says. Float32 shares take the place of the scores; of others the scores are kept."""
        low = scores.dtype != torch.float32
        share = torch.empty_like(scores) if low else scores
        kept = torch.empty(math.prod(scores.shape[:-1]), 2) if low else None
        with_bias, structure = _scores(scores.shape, bias, scale)
        self._softmax_forward(
            ctypes.byref(structure),
            _kind(scores),
            scores.data_ptr(),
            share.data_ptr(),
            None if kept is None else kept.data_ptr(),
            torch.get_num_threads(),
        )
        del with_bias  # it had to live until here
        return Shares(share, (share,) if kept is None else (scores, kept))

    def softmax_backward(self, shares: Shares, bias: Tensor | None, scale: float, grad: Tensor) -> Tensor:
        """As `Kernels` says; in place."""
        given, *kept = shares.saved
        with_bias, structure = _scores(given.shape, bias, scale)
        self._softmax_backward(
            ctypes.byref(structure),
            _kind(given),
            given.data_ptr(),
            kept[0].data_ptr() if kept else None,
            grad.data_ptr(),
            torch.get_num_threads(),
        )
        del with_bias
        return grad

    def attention(self, heads: Heads, bias: Tensor | None, scale: float) -> Attended:
        """As `Kernels` says. What is saved are two numbers of each row of scores."""
        batch, queries, count, _ = heads.query.shape
        out, kept = heads.query.new_empty(heads.query.shape), torch.empty(batch * count * queries, 2)
        with_bias, structure = _attention(heads, bias, scale, kept)
        self._attention_forward(ctypes.byref(structure), ctypes.byref(Place.of(out)), torch.get_num_threads())
        del with_bias
        return Attended(out, kept)

    def attention_backward(
        self, heads: Heads, bias: Tensor | None, scale: float, saved: Tensor, grad: Tensor, *, to: Heads
    ) -> None:
        """As `Kernels` says."""
        with_bias, structure = _attention(heads, bias, scale, saved)
        places = AttentionGradients(*map(Place.of, (grad, *to)))
        self._attention_backward(ctypes.byref(structure), ctypes.byref(places), torch.get_num_threads())
        del with_bias


def _kind(tensor: Tensor) -> int:
    return int(tensor.dtype == torch.bfloat16)


def _scores(shape: Sequence[int], bias: Tensor | None, scale: float) -> tuple[Tensor | None, Scores]:
    """How the kernels see scores of this shape, and the bias that they point to."""
    if bias is None:
        return None, Scores(*shape, scale, None, 0, 0, 0)
    wide = bias.float().expand(*shape)
    if wide.stride(-1) != 1 and wide.shape[-1] > 1:  # one number for all keys
        wide = wide.contiguous()
    return wide, Scores(*shape, scale, wide.data_ptr(), *wide.stride()[:3])


def _attention(heads: Heads, bias: Tensor | None, scale: float, kept: Tensor) -> tuple[Tensor | None, Attention]:
    """The same of attention."""
    batch, queries, count, width = heads.query.shape
    with_bias, scores = _scores((batch, count, queries, heads.key.shape[1]), bias, scale)
    return with_bias, Attention(scores, width, *map(Place.of, heads), kept.data_ptr())


def build() -> Path:
    """Compile the library unless it is there. Raises DependencyMissingError where that cannot be done."""
    if not torch.cpu._is_avx2_supported():
        raise DependencyMissingError(
            "There are no training kernels for this processor: it has no AVX2.", "Let torch compute."
        )
    return LIBRARY.build()


@cache
def load() -> Compiled | None:
    """The kernels; None where they have not been built or cannot be loaded."""
    if not torch.cpu._is_avx2_supported() or not LIBRARY.path().exists():
        LOG.info(
            "the compiled training kernels are not there, torch computes, more slowly: `python -m trainer kernels` "
            "makes them"
        )
        return None
    try:
        return Compiled(LIBRARY.path())
    except OSError as error:
        LOG.warning("the compiled training kernels cannot be loaded, torch computes, more slowly: %s", error)
        return None
