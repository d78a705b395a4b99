"""The T5 that stands for what a user would take instead: equal sizes, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from bench.decoding import shapes

PAD, END, START = 0, 1, 2
FIRST_CODE = 3
VOCABULARY = FIRST_CODE + shapes.LEVELS * shapes.CODES
ENCODER_TOKENS = shapes.HISTORY_ITEMS * shapes.LEVELS


def config(**changes: Any) -> T5Config:
    """T5 of the benches' shape."""
    sizes = {
        "vocab_size": VOCABULARY,
        "d_model": shapes.WIDTH,
        "d_kv": shapes.WIDTH // shapes.HEADS,
        "num_heads": shapes.HEADS,
        "d_ff": shapes.T5_HIDDEN,
        "num_layers": shapes.LAYERS,
        "num_decoder_layers": shapes.LAYERS,
        "decoder_start_token_id": START,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "feed_forward_proj": "relu",
        "dropout_rate": 0.0,
    }
    return T5Config(**(sizes | changes))


def model(dtype: torch.dtype) -> Any:
    """With random weights, to be decoded with."""
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config()).to(dtype).eval()


def token(level: int, code: int) -> int:
    """The word of a code."""
    return FIRST_CODE + level * shapes.CODES + code


def inputs(batch: int) -> torch.Tensor:
    """Histories as words [batch, ENCODER_TOKENS]."""
    history = shapes.histories(batch, shapes.item_codes(shapes.ITEMS)).codes
    first = FIRST_CODE + torch.arange(shapes.LEVELS) * shapes.CODES
    return (history + first).flatten(1)


def save(folder: Path) -> None:
    """Model and word-level tokenizer in the form that CTranslate2's converter reads."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415 - only the converter needs them
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = {"<pad>": PAD, "</s>": END, "<s>": START, **{f"w{i}": i for i in range(FIRST_CODE, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))  # noqa: S106 - a word
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    model(torch.float32).save_pretrained(folder)
