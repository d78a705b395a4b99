"""`python -m bench.growth`: cost against history, beam, session, experts, batch and catalogue."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from onerec.cli.options import fail
from onerec.errors import CheckFailedError, OneRecError, SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def growth(
    names: Annotated[list[str] | None, typer.Argument(help="Curves; all where none is named.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of growth.json and growth.png.")] = Path("runs/growth"),
    brief: Annotated[bool, typer.Option(help="Three sizes a curve, within three minutes.")] = False,
    document: Annotated[bool, typer.Option(help="Write table and picture of docs/performance.md.")] = False,
) -> None:
    """Measure, print fitted exponents, write JSON and picture. Code 4 where a cost grows faster than it must."""
    import torch  # noqa: PLC0415 - help is quick

    from bench.conditions import conditions  # noqa: PLC0415
    from bench.growth.curves import CURVES, shape  # noqa: PLC0415
    from bench.growth.document import PICTURE, write  # noqa: PLC0415
    from bench.growth.draw import draw  # noqa: PLC0415
    from bench.growth.measure import measured  # noqa: PLC0415
    from inference.engine.search import Engine  # noqa: PLC0415
    from onerec.model.onerec import OneRec  # noqa: PLC0415

    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    known = [curve.name for curve in CURVES]
    try:
        if unknown := sorted(set(names or ()) - set(known)):
            raise SettingsError(f"There is no curve {', '.join(unknown)}.", f"Choose among {', '.join(known)}.")
        out.mkdir(parents=True, exist_ok=True)
        products = str(Engine(OneRec(shape()).eval()).dtype).removeprefix("torch.")
        told: dict[str, Any] = {"curves": [], "conditions": conditions(brief=brief) | {"products": products}}
        for curve in CURVES:
            if names and curve.name not in names:
                continue
            found = measured(curve, brief=brief)
            told["curves"].append(found)
            typer.echo(
                f"{curve.name}: exponent {found['exponent']:.2f} in all, {found['exponent_last']:.2f} in the upper "
                f"half; may be {curve.bound:g}: {curve.why}"
            )
            (out / "growth.json").write_text(json.dumps(told, indent=2) + "\n")
        draw(told["curves"], out / "growth.png")
        if document:
            write(told)
            shutil.copyfile(out / "growth.png", PICTURE)
        if fast := [curve["name"] for curve in told["curves"] if not curve["holds"]]:
            raise CheckFailedError(f"These grow faster than they must: {', '.join(fast)}.", f"See {out}/growth.png.")
    except OneRecError as error:
        raise fail(error) from error


if __name__ == "__main__":
    app(prog_name="python -m bench.growth")
