"""Training the hypernetwork: first to repeat the source embeddings, then on texts under sampled tokenizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.fit import Diverged
from didact.core.objective.models import evaluating
from didact.reusing.zett.embeddings import Source
from didact.reusing.zett.hypernetwork import Hypernetwork
from didact.reusing.zett.sampler import TokenizerSampler, as_bytes, unigram
from didact.reusing.zett.surface import NOTHING, Speller, SurfaceForms
from didact.reusing.zett.texts import batch_of, next_token_loss, start_of, windows

SUBSET = 4096  #: source tokens a step of the first phase at most


@dataclass(frozen=True)
class Plan:
    """Settings of both phases; `TokenizerTransfer` documents them."""

    warmup_steps: int
    steps: int
    warmup_lr: float
    lr: float
    batch_size: int
    vocab_sizes: tuple[int, int]
    queue: int
    max_length: int
    lexical_weight: float
    weight_decay: float
    clip: float


def repeat_source(network: Hypernetwork, source: Source, plan: Plan, rng: np.random.Generator) -> list[float]:
    """First phase: predict every source token's own embeddings from its single id. Losses, a step each."""
    table, columns = source.table, source.columns
    ordinary = np.array([i for i, token in enumerate(source.vocabulary.tokens) if token is not None])

    def loss(_: int) -> Tensor:
        few = len(ordinary) <= SUBSET
        ids = torch.from_numpy(ordinary if few else rng.choice(ordinary, SUBSET, replace=False))
        forms = torch.full((len(ids), network.length), NOTHING)
        forms[:, 0] = ids
        return repeat_loss(network(forms, table), [column[ids] for column in columns])

    return optimise(network, loss, plan.warmup_steps, plan.warmup_lr, plan)


def repeat_loss(predicted: Sequence[Tensor], true: Sequence[Tensor]) -> Tensor:
    """Mean over tokens of the squared distance, averaged over the columns."""
    return torch.stack([(p - t).square().sum(1).mean() for p, t in zip(predicted, true, strict=True)]).mean()


def lexical_loss(predicted: Sequence[Tensor], forms: SurfaceForms, columns: Sequence[Tensor]) -> Tensor:
    """Squared distance of tokens that the source has too from their embeddings there, over the mean length of these."""
    shared = forms.single.to(predicted[0].device)
    if not shared.any():
        return predicted[0].new_zeros(())
    ids = forms.ids.to(shared.device)[shared, 0]
    parts = [
        (p[shared] - own[ids]).square().sum(1).mean() / own[ids].norm(dim=1).mean().clamp(min=1e-12)
        for p, own in zip(predicted, columns, strict=True)
    ]
    return torch.stack(parts).mean()


def train_on_texts(
    network: Hypernetwork, source: Source, texts: Sequence[str], plan: Plan, rng: np.random.Generator
) -> list[float]:
    """Second phase: every step another tokenizer, under which the frozen model must predict the batch well."""
    if plan.vocab_sizes[0] < 256:
        raise BadInput(f"Sampled vocabularies hold at least the 256 bytes, but vocab_sizes is {plan.vocab_sizes}.")
    table, columns = source.table, source.columns
    special = [i for i, token in enumerate(source.vocabulary.tokens) if token is None]
    first = start_of(source.vocabulary)
    start = special.index(first) if first is not None else None
    speller, sampler = Speller(source.vocabulary, network.length), TokenizerSampler(plan.queue)
    pieces_of = windows(texts, 8 * plan.max_length)  # no token is longer than 15 letters, few longer than 8
    cut = {"tokens": 0, "truncated": 0}

    def loss(_: int) -> Tensor:
        chosen = [pieces_of[i] for i in rng.integers(len(pieces_of), size=plan.batch_size)]
        sampler.push(chosen)
        pieces = sampler.sample(int(rng.integers(plan.vocab_sizes[0], plan.vocab_sizes[1] + 1)), rng)
        forms = speller(as_bytes(piece) for piece, _ in pieces)
        cut["tokens"], cut["truncated"] = cut["tokens"] + len(pieces), cut["truncated"] + forms.truncated
        encoded = unigram(pieces).encode_batch(chosen)
        shifted = [[i + len(special) for i in e.ids] for e in encoded]
        ids, mask = (t.to(table.device) for t in batch_of(shifted, start, 0, plan.max_length))
        predicted = network(forms.ids, table)
        whole = [torch.cat([own[special], p]) for own, p in zip(columns, predicted, strict=True)]
        main = next_token_loss(source.logits(whole, ids, mask), ids, mask)
        return main + plan.lexical_weight * lexical_loss(predicted, forms, columns)

    with evaluating(source.model):
        losses = optimise(network, loss, plan.steps, plan.lr, plan)
    note(surface_forms=cut["tokens"], truncated_surface_forms=cut["truncated"])
    return losses


def optimise(
    network: nn.Module, loss: Callable[[int], Tensor], steps: int, lr: float, plan: Plan, rise: float = 0.05
) -> list[float]:
    """AdamW with a short linear rise and a cosine decay to a tenth of the rate. Returns the losses."""
    optimiser = torch.optim.AdamW(network.parameters(), lr, betas=(0.9, 0.95), weight_decay=plan.weight_decay)
    ramp = max(1, int(rise * steps))

    def rate(step: int) -> float:
        if step < ramp:
            return (step + 1) / ramp
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    losses = []
    network.train()
    for step in range(steps):
        optimiser.zero_grad()
        found = loss(step)
        found.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), plan.clip)
        optimiser.step()
        schedule.step()
        losses.append(float(found.detach()))
        if not math.isfinite(losses[-1]):
            raise Diverged(f"The loss is {losses[-1]} after {step + 1} steps. Try a smaller learning rate.")
    network.eval()
    return losses
