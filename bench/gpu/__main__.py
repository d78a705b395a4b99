"""`python -m bench.gpu`: decoding and training on a GPU, printed as JSON with what it was measured on."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.conditions import conditions
from bench.decoding import shapes
from bench.gpu import sides
from onerec.cli.options import fail
from onerec.device import device_of
from onerec.errors import OneRecError
from onerec.model.presets import PRESETS, ModelConfig
from trainer.ranks import CUBLAS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
PEAK_TFLOPS = {"NVIDIA H100 80GB HBM3": 989.0, "NVIDIA H200": 989.0}
"""Dense bfloat16 by the datasheet."""
Measure = Callable[[], dict[str, Any]]


@app.command()
def gpu(
    names: Annotated[list[str] | None, typer.Argument(help="Parts of names; all where none is given.")] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:1, or cpu to try the command.")] = "cuda",
    seconds: Annotated[float, typer.Option(help="For the repetitions of one figure.")] = 1.0,
    brief: Annotated[bool, typer.Option(help="Tiny shapes: whether the command works.")] = False,
    out: Annotated[Path | None, typer.Option(help="The JSON, written after each figure.")] = None,
) -> None:
    """Measure what is named, one after the other; what fails is told and the others go on."""
    try:
        place = device_of(device, "--device")
    except OneRecError as error:
        raise fail(error) from error
    os.environ.setdefault(CUBLAS, ":4096:8")  # before the first product, so that those of training repeat their bits
    told: dict[str, Any] = {"conditions": conditions(brief=brief) | _device(place), "figures": {}}
    limit = sides.gemm(place, 256 if brief else 8192, seconds)
    told["gemm_flops_per_s"] = limit
    for name, measure in _measures(place, seconds, brief=brief).items():
        if names and not any(part in name for part in names):
            continue
        started_s = time.perf_counter()
        told["figures"][name] = _shares(_tried(measure), limit, told["conditions"].get("peak_flops_per_s"))
        typer.echo(f"{time.perf_counter() - started_s:5.1f} s  {name}: {told['figures'][name]}", err=True)
        if out is not None:
            out.write_text(json.dumps(told, indent=1) + "\n")
        gc.collect()
        if place.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(place)
    json.dump(told, sys.stdout, indent=1)


def _measures(device: torch.device, seconds: float, *, brief: bool) -> dict[str, Measure]:
    if brief:
        tiny = PRESETS["tiny"]
        return {
            "decode_tiny": partial(sides.decode, tiny, device, beam=8, batch=2, items=300, seconds=seconds),
            "train_tiny": partial(sides.train, tiny, device, batch=4, items=300, seconds=seconds),
            "step_tiny": partial(sides.step, tiny, device, batch=4, items=300, seconds=seconds),
        }
    small, large = PRESETS["small"], PRESETS["1b"]
    dense = shapes.config(bf16=True)
    experts = shapes.config(experts=shapes.EXPERTS, bf16=True)
    low = dataclasses.replace(small, bf16=True)
    decode, train, step = (
        partial(one, device=device, seconds=seconds) for one in (sides.decode, sides.train, sides.step)
    )
    items, many = shapes.ITEMS, 200_000
    peer = partial(sides.peer, device, seconds=seconds)
    return {
        "decode_dense_beam32_batch8": partial(decode, dense, beam=32, batch=8, items=items),
        "decode_dense_beam128_batch8": partial(decode, dense, beam=128, batch=8, items=items),
        "peer_beam32_batch8": partial(peer, beam=32, batch=8),
        "decode_1b_beam128_batch8": partial(decode, large, beam=128, batch=8, items=many),
        "train_1b_batch64": partial(train, large, batch=64, items=many),
        "train_dense_batch64": partial(train, dense, batch=64, items=items),
        "decode_small_beam32_batch8": partial(decode, small, beam=32, batch=8, items=items),
        "decode_dense_beam32_batch8_without_graphs": partial(
            decode, dense, beam=32, batch=8, items=items, graphs=False
        ),
        "decode_dense_beam32_batch64": partial(decode, dense, beam=32, batch=64, items=items),
        "decode_dense_beam128_batch64": partial(decode, dense, beam=128, batch=64, items=items),
        "decode_1b_beam128_batch32": partial(decode, large, beam=128, batch=32, items=many),
        "train_1b_batch128": partial(train, large, batch=128, items=many),
        "train_1b_batch128_any_kernels": partial(train, large, batch=128, items=many, repeatable=False),
        "peer_beam128_batch8": partial(peer, beam=128, batch=8),
        "decode_small_beam32_batch64": partial(decode, small, beam=32, batch=64, items=items),
        "train_small_batch64": partial(train, low, batch=64, items=items),
        "step_1b_batch64": partial(step, large, batch=64, items=many),
        "train_dense_batch512": partial(train, dense, batch=512, items=items),
        "decode_experts_beam32_batch8": partial(decode, experts, beam=32, batch=8, items=items),
        "train_experts_batch64": partial(train, experts, batch=64, items=items),
        **_steps(step, {"dense": dense, "experts": experts, "small": low, "base": PRESETS["base"]}, items),
        "peer_beam32_batch64": partial(peer, beam=32, batch=64),
        "decode_dense_beam32_batch256": partial(decode, dense, beam=32, batch=256, items=items),
    }


def _steps(step: Callable[..., dict[str, Any]], configs: dict[str, ModelConfig], items: int) -> dict[str, Measure]:
    """The trainer's step with and without CUDA graphs, of each configuration."""
    return {
        f"step_{name}_batch64{'' if graphs else '_without_graphs'}": partial(
            step, config, batch=64, items=items, graphs=graphs
        )
        for name, config in configs.items()
        for graphs in (True, False)
    }


def _tried(measure: Measure) -> dict[str, Any]:
    try:
        return measure()
    except Exception as error:  # one figure is no reason to lose the others
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


def _shares(figure: dict[str, Any], limit: float, peak: float | None) -> dict[str, Any]:
    rate = figure.get("flops_per_s")
    if rate is None:
        return figure
    shares = {"share_of_gemm": round(rate / limit, 4)} | ({"mfu": round(rate / peak, 4)} if peak else {})
    return figure | shares


def _device(device: torch.device) -> dict[str, Any]:
    if device.type == "cpu":
        return {"device": "cpu"}
    name = torch.cuda.get_device_name(device)
    peak = {"peak_flops_per_s": PEAK_TFLOPS[name] * 1e12} if name in PEAK_TFLOPS else {}
    return {"device": name, "cuda": torch.version.cuda} | peak


if __name__ == "__main__":
    app(prog_name="python -m bench.gpu")
