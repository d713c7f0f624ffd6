"""Side by side: what public unlearning code computes, written anew in plain torch, on the same inputs.

python benchmarks/forgetting_peers.py

GA, GradDiff and NPO follow the equations of TOFU and of the NPO paper; the forget quality is the exact two-sample
Kolmogorov-Smirnov test, counted path by path. Last, the wall time of ssd's importance pass against a plain loop over
the batches, as a ratio within one run.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from didact.core.objective import Classification
from didact.data.digits import digits
from didact.forgetting import GradientAscent, GradientDifference, NegativePreference
from didact.forgetting.language.bios import bios_people
from didact.forgetting.language.metrics import forget_quality
from didact.forgetting.npo import npo_loss
from didact.models.small import convnet
from didact.parts.fisher import fisher_diagonal
from didact.parts.language import reference_nll, sequence_nll
from didact.parts.paired import paired_batches

BETA, STEPS, RATE = 0.4, 12, 3e-4


def main() -> None:
    torch.set_num_threads(1)
    problem = bios_people(0, people=40, forget=4, epochs=6)
    given, model = problem.given, problem.given.model
    batch = next(iter(given.objective.loader(given.forget, 8)))
    before = plain_nll(model, batch).detach() - 1.0  # a reference that is not the model itself

    print("quantity                                  ours        plain       difference")
    ours, _ = npo_loss(sequence_nll(given.objective, model, batch), before, BETA)
    line("NPO loss, mean of 8 samples", ours.mean(), plain_npo(plain_nll(model, batch), before).mean())
    mine, theirs = (
        grad_norms(model, loss) for loss in (ours.mean(), plain_npo(plain_nll(model, batch), before).mean())
    )
    line("NPO gradient, largest difference", mine.abs().max(), theirs.abs().max(), float((mine - theirs).abs().max()))
    line("GA loss", -given.objective.loss(model, batch), -plain_mean_nll(model, batch))
    found = reference_nll(model, given.forget, given.objective)
    line("summed likelihoods of the forget set", found.sum(), sum(plain_nll(model, b).sum() for b in batches(given)))

    for name, method, plain in trained_pairs(given):
        trained, expected = method.solve(given), plain(given)
        gap = max(float((a - b).abs().max()) for a, b in zip(trained.parameters(), expected.parameters(), strict=True))
        norms = [math.sqrt(sum(float(p.square().sum()) for p in m.parameters())) for m in (trained, expected)]
        line(f"{name}, weights after {STEPS} steps", *norms, gap)

    generator = torch.Generator().manual_seed(0)
    for n, m, shift in ((36, 36, 0.5), (6, 6, 2.0), (12, 40, 1.0)):
        a, b = torch.randn(n, generator=generator), torch.randn(m, generator=generator) + shift
        line(
            f"KS forget quality, {n} against {m}",
            forget_quality(a.numpy(), b.numpy()),
            exact_ks(a.tolist(), b.tolist()),
        )
    importance_ratio()


def line(name: str, ours: Any, plain: Any, difference: float | None = None) -> None:
    mine, theirs = (float(x.detach() if isinstance(x, Tensor) else x) for x in (ours, plain))
    gap = abs(mine - theirs) if difference is None else difference
    print(f"{name:<40}{mine:12.6g}{theirs:12.6g}{gap:14.2e}")


def batches(given: Any) -> Any:
    return given.objective.loader(given.forget, 64)


# -- the same equations, without didact --------------------------------------------------------------------------------


def plain_token_nll(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none", ignore_index=-100)


def plain_nll(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return plain_token_nll(model, batch).sum(1)


def plain_mean_nll(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    tokens = (batch["labels"][:, 1:] != -100).sum(1)
    return (plain_nll(model, batch) / tokens).mean()


def plain_npo(nll: Tensor, before: Tensor) -> Tensor:
    return 2 / BETA * torch.log1p(torch.exp(-BETA * (nll - before)))


def grad_norms(model: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def trained_pairs(given: Any) -> list[tuple[str, Any, Any]]:
    """Methods with plain loops over the same batches: GA and GradDiff with Adam, NPO with AdamW."""
    size = 8
    rounds = -(-len(given.forget) // size)
    epochs = STEPS // rounds
    options = {"lr": RATE, "epochs": epochs, "batch_size": size}

    def loop(loss: Any, optimiser: Any, paired: bool) -> Any:
        def run(request: Any) -> nn.Module:
            import copy

            model = copy.deepcopy(request.model).train()
            optim = optimiser(model.parameters())
            loader = request.objective.loader(request.forget, size, shuffle=True, seed=request.seed)
            for epoch in range(epochs):
                pairs = paired_batches(
                    request.forget, request.retain, request.objective, batch_size=size, steps=rounds,
                    seed=request.seed + 1000 * epoch,
                ) if paired else ((batch, None) for batch in loader)  # fmt: skip
                for forget, retain in pairs:
                    optim.zero_grad()
                    loss(model, forget, retain).backward()
                    optim.step()
            return model.eval()

        return run

    def adam(parameters: Any) -> Any:
        return torch.optim.Adam(parameters, RATE)

    samples = [given.forget[i] for i in range(len(given.forget))]
    reference = {
        tuple(sample["input_ids"].tolist()): plain_nll(given.model, {k: v[None] for k, v in sample.items()}).item()
        for sample in samples
    }

    def npo(model: nn.Module, forget: dict[str, Tensor], retain: dict[str, Tensor]) -> Tensor:
        rows = [
            row[mask.bool()].tolist() for row, mask in zip(forget["input_ids"], forget["attention_mask"], strict=True)
        ]
        before = torch.tensor([reference[tuple(row)] for row in rows])
        return plain_npo(plain_nll(model, forget), before).mean() + plain_mean_nll(model, retain)

    return [
        (
            "GA",
            GradientAscent(**options, stop=False, clip=None),
            loop(lambda m, f, r: -plain_mean_nll(m, f), adam, paired=False),
        ),
        (
            "GradDiff",
            GradientDifference(**options, stop=False, clip=None),
            loop(lambda m, f, r: -plain_mean_nll(m, f) + plain_mean_nll(m, r), adam, paired=True),
        ),
        (
            "NPO",
            NegativePreference(**options, beta=BETA, warmup_epochs=0, weight_decay=0.01),
            loop(npo, lambda p: torch.optim.AdamW(p, RATE, weight_decay=0.01), paired=True),
        ),
    ]


def exact_ks(a: list[float], b: list[float]) -> float:
    """P(D >= d) for two samples of one continuous distribution: the share of lattice paths that reach distance d."""
    n, m = len(a), len(b)
    order = sorted([(x, 0) for x in a] + [(x, 1) for x in b])
    i = j = 0
    distance = 0
    for _, side in order:
        i, j = i + (side == 0), j + (side == 1)
        distance = max(distance, abs(i * m - j * n))
    inside = [[0] * (m + 1) for _ in range(n + 1)]
    for i in range(n + 1):
        for j in range(m + 1):
            if abs(i * m - j * n) >= distance:
                continue
            inside[i][j] = 1 if i == j == 0 else (inside[i - 1][j] if i else 0) + (inside[i][j - 1] if j else 0)
    return 1 - inside[n][m] / math.comb(n + m, n)


# -- time --------------------------------------------------------------------------------------------------------------


def importance_ratio(rounds: int = 9) -> None:
    """ssd's importance of 1,000 digits in batches of 64 against the loop one would write by hand, turn by turn."""
    data = digits(0).train
    torch.manual_seed(0)
    model = convnet().eval()
    images = type(data)(*data.tensors[:2])

    def by_hand() -> None:
        total = [torch.zeros_like(p) for p in model.parameters()]
        count = 0
        for x, y in DataLoader(images, 64):
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            for t, p in zip(total, model.parameters(), strict=True):
                t += p.grad.square()
            count += 1
        _ = [t / count for t in total]

    ratios = []
    for _ in range(rounds):
        start = time.perf_counter()
        fisher_diagonal(model, images, Classification(), batch_size=64)
        middle = time.perf_counter()
        by_hand()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    print(
        f"\nssd's importance pass takes {statistics.median(ratios):.2f} times as long as a plain loop with a DataLoader"
        f" (median of {rounds}, from {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
