"""Trains RecBole's SASRec and writes what it scores with. Runs by the Python of an environment that has RecBole.

RecBole (1.2.1) asks for older libraries than the project has, so it cannot be in the project's environment. What this
takes and leaves are files; it imports nothing of the project: `python theirs.py SETTINGS.json`. Where an earlier run
was interrupted it goes on after that run's best epoch, with other random numbers.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # its checkpoints hold its configuration

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_logger, init_seed

NAME = "beauty"
MODEL, SPENT = "sasrec.pth", "spent.json"


def main(settings: dict[str, Any]) -> None:
    """Of `settings`: `sequences` (npz of starts and items), `folder`, `config` (RecBole's own) and `threads`."""
    folder = Path(settings["folder"])
    torch.set_num_threads(settings["threads"])
    _write_interactions(Path(settings["sequences"]), folder / NAME)
    own = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_neg_sample_args": None,
        "topk": [5, 10],
        "metrics": ["Recall", "NDCG"],
        "valid_metric": "Recall@10",
        "show_progress": False,
    }
    config = Config(model="SASRec", dataset=NAME, config_dict=own | settings["config"])
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    train, validation, test = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = SASRec(config, train.dataset).to(config["device"])
    trainer = Trainer(config, model)
    spent = _fit(trainer, train, validation, folder)
    theirs = trainer.evaluate(test, load_best_model=True)
    best = torch.load(folder / MODEL, map_location="cpu")
    tables = {
        part: _states(model.eval(), loader, dataset) for part, loader in (("validation", validation), ("test", test))
    }
    np.savez(folder / "scores.npz", items=_items(model, dataset), **tables)
    said = {
        "test": {str(name): float(value) for name, value in theirs.items()},
        "best_epoch": best["epoch"] + 1,
        "validation": float(best["best_valid_score"]),
        **spent,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    (folder / "said.json").write_text(json.dumps(said, indent=2) + "\n")


def _fit(trainer: Trainer, train: Any, validation: Any, folder: Path) -> dict[str, float]:
    """Train; how many epochs until the end, and how many seconds in all, those of interrupted runs among them."""
    trainer.saved_model_file = str(folder / MODEL)
    spent: dict[str, float] = {"epochs": 0, "seconds": 0.0}
    if (folder / MODEL).is_file():
        trainer.resume_checkpoint(folder / MODEL)
        spent = json.loads((folder / SPENT).read_text()) if (folder / SPENT).is_file() else spent
    before_s, started_s = spent["seconds"], time.monotonic()

    def note(epoch: int, _: float) -> None:
        spent.update(epochs=epoch + 1, seconds=before_s + time.monotonic() - started_s)
        unfinished = folder / f"{SPENT}.part"
        unfinished.write_text(json.dumps(spent))
        unfinished.replace(folder / SPENT)

    if trainer.start_epoch < trainer.epochs:  # it would save once more, as another epoch
        trainer.fit(train, validation, saved=True, show_progress=False, callback_fn=note)
    return spent


def _write_interactions(sequences: Path, folder: Path) -> None:
    """In RecBole's format, a line an interaction; the place in the sequence is the time."""
    with np.load(sequences) as kept:
        starts, items = kept["starts"], kept["items"]
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, (begin, end) in enumerate(itertools.pairwise(starts.tolist())):
        lines += [f"{user}\t{item}\t{place}" for place, item in enumerate(items[begin:end])]
    (folder / f"{NAME}.inter").write_text("\n".join(lines) + "\n")


@torch.no_grad()
def _states(model: Any, loader: Any, dataset: Any) -> Any:
    """[U, d]: what each user's history becomes, in the order of the sequences."""
    found = np.zeros((dataset.user_num - 1, model.hidden_size), np.float32)
    for batch, *_ in loader:
        at = batch.to(model.device)
        states = model.forward(at[model.ITEM_SEQ], at[model.ITEM_SEQ_LEN])
        found[dataset.id2token("user_id", batch["user_id"].cpu().numpy()).astype(int)] = states.cpu().numpy()
    return found


def _items(model: Any, dataset: Any) -> Any:
    """[N, d]: item vectors, in the order of the items' numbers."""
    found = np.zeros((dataset.item_num - 1, model.hidden_size), np.float32)
    tokens = dataset.id2token("item_id", np.arange(1, dataset.item_num)).astype(int)
    found[tokens] = model.item_embedding.weight.detach().cpu().numpy()[1:]
    return found


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
