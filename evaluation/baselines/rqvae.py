"""TIGER's semantic ids: a residual-quantised variational autoencoder (Rajput et al., NeurIPS 2023).

An MLP encodes an item's embedding; level by level the nearest vector of a codebook is taken from what is left; an MLP
decodes the sum of these vectors. Gradients pass the quantiser straight through. Codebooks begin as k-means of what
they quantise. That alone leaves 37 of 256 first codes in use on KuaiRand, as the encoder moves away from where they
began; so codes that no item has had for a while begin anew, where some item is. Items that share all codes are told
apart by one more code.
Letters: N items, f width of embeddings, d width of the latent space, L levels, K codes.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from onerec.errors import CheckFailedError

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
KMEANS_SWEEPS = 20
RESTART_STEPS = 25
"""After so many, codes that nothing had in them are put elsewhere."""
LAST_RESTART = 0.8
"""Share of training after which codes stay where they are."""
TINY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class RQVAESettings:
    """Sizes as TIGER has them; the paper trains for 20,000 epochs, which a table of many rows cannot."""

    hidden: tuple[int, ...] = (512, 256, 128)
    width: int = 32
    levels: int = 3
    codes: int = 256
    commitment: float = 0.25
    steps: int = 2000
    batch: int = 1024
    learning_rate: float = 1e-3
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For results."""
        return asdict(self)


class Quantised(NamedTuple):
    """What the quantiser makes of latents [B, d]."""

    vectors: Tensor  # [B, d]: the sum of the codebooks' vectors
    codes: Tensor  # int64 [B, L]
    loss: Tensor  # scalar: codebooks to residuals, and residuals to codebooks (commitment)


class RQVAE(nn.Module):
    """Encoder, L codebooks [K, d] and decoder."""

    def __init__(self, inputs: int, settings: RQVAESettings) -> None:
        super().__init__()
        self.settings = settings
        widths = (inputs, *settings.hidden, settings.width)
        self.encoder, self.decoder = _mlp(widths), _mlp(widths[::-1])
        self.codebooks = nn.ParameterList(torch.empty(settings.codes, settings.width) for _ in range(settings.levels))
        for codebook in self.codebooks:
            nn.init.normal_(codebook, std=settings.width**-0.5)

    @torch.no_grad()
    def begin_codebooks(self, embeddings: Tensor) -> None:
        """K-means of the latents of embeddings [N, f], then of what each level leaves."""
        residual = self.encoder(embeddings)
        for codebook in self.codebooks:
            codebook.copy_(kmeans(residual, len(codebook)))
            residual = residual - codebook[nearest(residual, codebook)]

    def quantise(self, latents: Tensor) -> Quantised:
        """Latents [B, d] by the nearest vectors, level after level."""
        residual, found, codes = latents, torch.zeros_like(latents), list[Tensor]()
        loss = latents.new_zeros(())
        for codebook in self.codebooks:
            chosen = nearest(residual.detach(), codebook.detach())
            vectors = codebook[chosen]
            loss = loss + _distance(vectors, residual.detach())
            loss = loss + self.settings.commitment * _distance(residual, vectors.detach())
            found, residual = found + vectors, residual - vectors.detach()
            codes.append(chosen)
        return Quantised(found, torch.stack(codes, dim=1), loss)

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of embeddings [B, f]: squared error of the reconstruction, the quantiser's loss, and codes [B, L]."""
        latents = self.encoder(embeddings)
        quantised = self.quantise(latents)
        straight = latents + (quantised.vectors - latents).detach()
        return _distance(self.decoder(straight), embeddings), quantised.loss, quantised.codes

    @torch.no_grad()
    def restart_codes(self, embeddings: Tensor, used: Tensor) -> None:
        """Put codes that are not `used` bool [L, K] on residuals of embeddings [B, f], drawn at random."""
        residual = self.encoder(embeddings)
        for codebook, own in zip(self.codebooks, used, strict=True):
            drawn = residual[torch.randint(len(residual), (len(codebook),), device=residual.device)]
            codebook.copy_(torch.where(own.unsqueeze(1), codebook, drawn))
            residual = residual - codebook[nearest(residual, codebook)]

    @torch.no_grad()
    def codes(self, embeddings: Tensor) -> Tensor:
        """Int64 [N, L] of embeddings [N, f]."""
        return self.quantise(self.encoder(embeddings)).codes


@dataclass(frozen=True, slots=True, eq=False)
class Tokenised:
    """Ids int64 [N, L + 1], all different, and how training went."""

    ids: Longs
    errors: tuple[float, ...]  # of the reconstruction, relative to the variance, in each tenth of training
    used: tuple[int, ...]  # codes by level that some item has
    colliding: int  # items that share all L codes with another


def tokenise(embeddings: Floats, settings: RQVAESettings, device: torch.device | None = None) -> Tokenised:
    """Train on embeddings [N, f] of all items and tokenise these; on CPU deterministic by the seed.

    Raises CheckFailedError where more than K items share all L codes: then training has not told items apart.
    """
    own = device or torch.device("cpu")
    inputs = torch.from_numpy(standardised(embeddings)).to(own)
    with torch.random.fork_rng(devices=[own] if own.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        model = RQVAE(inputs.shape[1], settings).to(own)
        model.begin_codebooks(inputs)
        errors = _train(model, inputs)
    codes = model.codes(inputs).cpu().numpy()
    ids = with_collision_codes(codes, settings.codes)
    _, shared = np.unique(codes, axis=0, return_counts=True)
    used = tuple(len(np.unique(codes[:, level])) for level in range(settings.levels))
    return Tokenised(ids, errors, used, int(shared[shared > 1].sum()))


def with_collision_codes(codes: Longs, code_count: int) -> Longs:
    """Codes [N, L] and one more that counts the items that share them, in the order of the rows: [N, L + 1].

    Raises CheckFailedError where more than `code_count` items share them.
    """
    _, group = np.unique(codes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    if sizes.max() > code_count:
        raise CheckFailedError(
            f"{sizes.max()} items share all codes of the RQ-VAE; the collision code tells {code_count} apart.",
            "Train it for more steps, or see whether items have equal embeddings.",
        )
    place = np.empty(len(codes), np.int64)
    place[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.column_stack([codes, place])


def standardised(embeddings: Floats) -> Floats:
    """Rows around their mean with a variance of 1 over all columns together: their proportions stay."""
    centred = embeddings - embeddings.mean(axis=0)
    scaled: Floats = (centred / max(float(centred.std()), TINY)).astype(np.float32)
    return scaled


@torch.no_grad()
def kmeans(points: Tensor, clusters: int) -> Tensor:
    """Centroids [K, d] of points [N, d] by Lloyd's sweeps from random points; one that loses all its points stays."""
    order = torch.randperm(len(points), device=points.device)
    centroids = points[order[torch.arange(clusters, device=points.device) % len(points)]].clone()
    for _ in range(KMEANS_SWEEPS):
        chosen = functional.one_hot(nearest(points, centroids), clusters).to(points.dtype)
        counts = chosen.sum(0).unsqueeze(1)
        centroids = torch.where(counts > 0, chosen.t() @ points / counts.clamp(min=1), centroids)
    return centroids


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid [K, d] of each point [N, d]: int64 [N]."""
    return (centroids.square().sum(1) - 2.0 * points @ centroids.t()).argmin(dim=1)


def _train(model: RQVAE, inputs: Tensor) -> tuple[float, ...]:
    settings = model.settings
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    variance = _distance(inputs, inputs.mean(0, keepdim=True))
    errors, used = [], _nothing_used(model)
    batches = itertools.islice(_batches(len(inputs), settings.batch, inputs.device), settings.steps)
    for step, batch in enumerate(batches, start=1):
        error, quantiser, codes = model(inputs[batch])
        optimizer.zero_grad()
        (error + quantiser).backward()
        optimizer.step()
        errors.append(error.detach() / variance)
        used.scatter_(1, codes.t(), True)
        if step % RESTART_STEPS == 0 and step <= LAST_RESTART * settings.steps:
            model.restart_codes(inputs[batch], used)
            used = _nothing_used(model)
    tenths = np.array_split(torch.stack(errors).cpu().numpy(), min(10, len(errors)))
    return tuple(float(part.mean()) for part in tenths)


def _nothing_used(model: RQVAE) -> Tensor:
    """Bool [L, K], False."""
    settings = model.settings
    return torch.zeros(settings.levels, settings.codes, dtype=torch.bool, device=model.codebooks[0].device)


def _batches(count: int, size: int, device: torch.device) -> itertools.chain[Tensor]:
    """Rows in random order, epoch after epoch."""
    orders = (torch.randperm(count, device=device) for _ in itertools.count())
    return itertools.chain.from_iterable(torch.split(order, size) for order in orders)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Squared, mean over the rows."""
    return (one - other).square().sum(1).mean()


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """ReLU between the layers."""
    layers = [nn.Linear(one, other) for one, other in itertools.pairwise(widths)]
    between = [layer for each in layers[:-1] for layer in (each, nn.ReLU())]
    return nn.Sequential(*between, layers[-1])
