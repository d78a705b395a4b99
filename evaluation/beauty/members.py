"""The generative models of the rows: how each kind is trained, and where it is kept once it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from evaluation.beauty.candidates import Member, candidates
from evaluation.beauty.dataset import Beauty
from evaluation.beauty.embeddings import text_embeddings
from evaluation.beauty.mixture import Mixture, recall
from evaluation.beauty.model import ItemOneRec
from evaluation.beauty.progress import Kept
from evaluation.beauty.protocol import HISTORY_ITEMS, Form, onerec_config, tiger_config
from evaluation.beauty.samples import prefixes
from evaluation.beauty.tokens import FUSED, TEXT, Tokens, View, tokens_of
from evaluation.beauty.training import Recipe, Trained, train
from onerec.model.presets import ModelConfig

Kind = Literal["tiger", "onerec", "backward", "items", "taught"]
OWN_VIEWS: dict[Kind, View] = {"tiger": TEXT}
"""Of the kind that has ids of texts alone."""
SELECTION_BEAM = 32
"""Of the looks at validation, by which the epoch is chosen."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a row is trained with; `folder` keeps ids, weights and results."""

    beauty: Beauty
    form: Form
    seed: int
    folder: Path
    device: torch.device


@dataclass(frozen=True, slots=True)
class Plan:
    """A kind of model."""

    config: ModelConfig
    recipe: Recipe
    with_items: bool = False
    forget: float = 0.0


def plan(kind: Kind, form: Form) -> Plan:
    """How a kind is made; the last three add to `onerec`."""
    if kind == "tiger":
        return Plan(tiger_config(form), form.tiger.recipe, forget=form.tiger.forget)
    base = form.generative
    if kind == "onerec":
        return Plan(onerec_config(form), base)
    if kind == "backward":
        return Plan(onerec_config(form), replace(base, backward_share=form.backward_share))
    taught = form.taught_share if kind == "taught" else 0.0
    recipe = replace(base, item_weight=form.item_weight, taught_share=taught)
    return Plan(onerec_config(form), recipe, with_items=True, forget=form.forget)


def member(at: Context, kind: Kind, view: View | None = None) -> tuple[Member, dict[str, Any]]:
    """A trained model and how its training went: from the folder, or trained now and kept there."""
    view = view or OWN_VIEWS.get(kind, FUSED)
    own, path = plan(kind, at.form), at.folder / f"{kind}-{view.name}.{at.seed}.safetensors"
    tokens = tokens_for(at, view)
    if not path.is_file():
        on_cpu = at.device.type == "cpu"  # on a GPU a model is a matter of minutes
        kept = Kept(path.with_suffix(".epoch") if on_cpu else None)
        found = trained(at, own, view, kept)
        parameters = sum(parameter.numel() for parameter in found.model.parameters())
        history = found.history | {"parameters": parameters, "recipe": asdict(own.recipe)}
        path.with_suffix(".json").write_text(json.dumps(history, indent=2) + "\n")
        weights = {name: tensor.cpu().contiguous() for name, tensor in found.model.state_dict().items()}
        save_file(weights, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        kept.remove()
    model = _model(at, own, tokens).to(at.device)
    model.load_state_dict(load_file(path))
    return Member(model.eval(), tokens.catalogue), json.loads(path.with_suffix(".json").read_text())


def trained(at: Context, own: Plan, view: View, kept: Kept | None = None) -> Trained:
    """A model after this plan, with ids of a view; the epoch is chosen by validation. Goes on from what is `kept`."""
    tokens = tokens_for(at, view)

    def validate(model: ItemOneRec) -> float:
        users = at.beauty.spread_users(at.form.validation_users)
        found = candidates([Member(model, tokens.catalogue)], at.beauty, "validation", SELECTION_BEAM, users=users)
        truth = torch.from_numpy(at.beauty.truth("validation")[users])
        return recall(found, truth, Mixture(vectors=1.0 if own.with_items else 0.0))

    return train(
        lambda: _model(at, own, tokens),
        prefixes(at.beauty, HISTORY_ITEMS),
        tokens.catalogue.trie,
        own.recipe,
        seed=1000 * at.seed + view.seed,
        device=at.device,
        validate=validate,
        kept=kept,
    )


def tokens_for(at: Context, view: View) -> Tokens:
    """The items' ids of a view, kept in the folder."""
    return tokens_of(at.beauty, view, at.form.codes, at.folder)


def _model(at: Context, own: Plan, tokens: Tokens) -> ItemOneRec:
    """Untrained."""
    if not own.with_items:
        return ItemOneRec(own.config, None, own.forget)
    vectors = tokens.embeddings if at.form.content == "ids" else text_embeddings(at.beauty)
    return ItemOneRec(own.config, torch.from_numpy(vectors), own.forget)
