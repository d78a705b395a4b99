"""`onerec model`: how large each preset is and what a request costs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from onerec.cli.options import Json, fail
from onerec.errors import SettingsError

if TYPE_CHECKING:
    from onerec.model.presets import ModelConfig
    from onerec.model.sizes import Sizes

Preset = Annotated[
    str | None, typer.Argument(help="One preset, or with -lazy its lazy form; all presets when left out.")
]
EXPLANATION = (
    "Active: what generating a token multiplies with (the decoder with the experts that it visits, and the heads) "
    "as a share of all parameters. FLOPs: products and attention of one request with a full history; decoding is "
    "beam search for one session; training is one sample, forward and backward."
)


def model(preset: Preset = None, as_json: Json = False) -> None:
    """Print parameters, active share and FLOPs of the presets."""
    from onerec.model import presets  # noqa: PLC0415 - torch loads only when it is asked for
    from onerec.model.sizes import sizes  # noqa: PLC0415

    try:
        chosen = list(presets.PRESETS.values()) if preset is None else [presets.preset(preset)]
    except ValueError as error:
        raise fail(SettingsError(str(error), "Choose one of these.")) from error
    measured = [(config, sizes(config)) for config in chosen]
    if as_json:
        print(json.dumps({config.name: _row(config, size) for config, size in measured}))
        return
    console = Console()
    console.print(_table(measured))
    console.print(EXPLANATION, style="dim")


def _row(config: ModelConfig, size: Sizes) -> dict[str, Any]:
    return {"config": asdict(config), **asdict(size), "active_share": size.active_share}


def _table(measured: list[tuple[ModelConfig, Sizes]]) -> Table:
    table = Table(title="Presets")
    for column in ("preset", "ids", "session", "history", "layers", "width", "experts"):
        table.add_column(column)
    for column in ("parameters", "active", "share", "encode", "decode (beam)", "train", "reward model"):
        table.add_column(column, justify="right")
    for config, size in measured:
        table.add_row(
            config.name,
            f"{config.levels} x {config.codes}",
            str(config.session_items),
            f"{config.history_items}" + (f" x {config.levels}" if config.history_tokens == "codes" else ""),
            f"{config.encoder_layers}+{config.decoder_layers}",
            str(config.d_model),
            f"{config.active_experts} of {config.experts}",
            _short(size.parameters),
            _short(size.active),
            f"{100 * size.active_share:.1f} %",
            _short(size.encode_flops),
            f"{_short(size.decode_flops)} ({config.beam_width})",
            _short(size.train_flops),
            _short(size.reward_parameters),
        )
    return table


def _short(count: int) -> str:
    """Three digits and a unit: 956 M, 1.12 T."""
    value, units = float(count), ["", " k", " M", " G", " T", " P"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000.0
        units.pop(0)
    return f"{value:.3g}{units[0]}"
