"""Label-agnostic forgetting (Shen et al., 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from didact.core.claim import Claim, Rows, at_most, custom, no_worse
from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.fit import Diverged, Hooks, fit
from didact.core.method import Card, Choice, Paper, Range
from didact.core.objective import Batch, Objective, Regression, evaluating, head_name
from didact.core.registry import register
from didact.forgetting.laf.autoencoder import Autoencoder, mean_error, reconstruction_error, vae_loss
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.datasets import in_memory, take
from didact.parts.paired import index_pairs

#: a reconstruction error above this leaves phi flat: the embeddings are then brought to unit spread
SATURATED = 10.0
#: fewer forget samples than this say nothing about a distribution
FEWEST = 8
#: the baselines that the claim compares with
LABEL_USING: tuple[str, ...] = ("fine-tune", "gradient-ascent", "random-labels")


@register
class LabelAgnosticForgetting(Unlearner):
    """Push the embeddings of the forget data off where they were, hold the others in place; no label is ever
    read.

    Two variational autoencoders learn where the embeddings of all training inputs and of the forget
    inputs lie. Then two losses take turns, each with an Adam of its own: L_UE keeps retained embeddings
    where the first autoencoder reconstructs them and drives forget embeddings to where the second does
    not; L_RA ties retained embeddings to the original ones by their angle and turns the forget embeddings
    away. Use it when labels are missing, wrong or dear.

    An embedding, (batch, d), is what enters the last linear layer, or the output of `feature_layer`. All
    layers before it are trained; what comes after it, the head, stays bit for bit. `repair_labels`
    (LAF+R) afterwards trains the head alone on that many labelled retained samples. The model runs in
    evaluation mode throughout, as in the authors' code: dropout would be taken for drift from the
    original embeddings.

    Progress depends on the number of steps, not of epochs: forget sets are small, and few steps do
    nothing. Without L_UE the method may forget as well, as the forget term of L_RA also pushes; without
    L_RA the rest breaks.

    Errors: fewer than 8 forget samples, no retained inputs, a tau that is not positive, a model without a
    linear layer (name the `feature_layer`), an unknown feature layer, or one with nothing to train before
    it.
    Cost: one forward pass over all data, then four forward and up to four backward passes of `batch_size`
    samples a step; the autoencoders are small. Memory: the model and the embeddings of all data, samples
    x d numbers.
    Reference: Shen, Zhang, Zhao, Bialkowski, Chen and Xu, "Label-Agnostic Forgetting: A Supervision-Free
    Unlearning in Deep Models", ICLR 2024, arXiv 2404.00506.
    """

    card = Card(
        "laf",
        "Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models",
        paper=Paper("Shen, Zhang, Zhao, Bialkowski, Chen and Xu", 2024, arxiv="2404.00506", venue="ICLR"),
        needs=("retain",),
        code="ShaofeiShen768/LAF",
        licence="MIT",
        tunes={
            "lr_ue": Range(1e-5, 1e-3, log=True),
            "lr_ra": Range(1e-5, 2e-3, log=True),
            "tau": Choice((5.0, 20.0)),
            "steps": Range(200, 2000, integer=True),
        },
    )
    z: PositiveInt = 8  #: size of the autoencoders' latent code (16 in the paper for larger images)
    steps: NonNegativeInt = 1000  #: rounds of L_UE and L_RA, each on one retain and one forget batch
    lr_ue: PositiveFloat = 2e-4  #: Adam's rate for L_UE
    lr_ra: PositiveFloat = 4e-4  #: Adam's rate for L_RA
    tau: PositiveFloat = 20.0  #: temperature of the forget term of L_RA; small: the farthest counts most
    kl_weight: NonNegativeFloat = 0.025  #: weight of the autoencoders' KL term beside the squared error
    vae_epochs: PositiveInt = 10  #: passes of each autoencoder over its embeddings, Adam at 1e-3
    batch_size: PositiveInt = 32  #: samples of each of the two batches of a step
    feature_layer: str | None = None  #: layer whose output is the embedding; None: what enters the last linear
    decoder: Literal["linear", "sigmoid"] = "linear"  #: output of the autoencoders (the authors': sigmoid)
    repair_labels: NonNegativeInt = 0  #: labelled retained samples that the head is trained on at the end
    repair_epochs: PositiveInt = 5  #: passes of the repair over them, with Adam at the recipe's rate
    use_ue: bool = True  #: take the steps of L_UE (False: ablation)
    use_ra: bool = True  #: take the steps of L_RA (False: ablation)

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        objective = request.objective
        retain, forget = in_memory(request.need_retain()), in_memory(request.forget)
        if len(forget) < FEWEST:  # type: ignore[arg-type]
            raise BadInput(
                f"laf models the distribution of the forget embeddings from at least {FEWEST} samples, "
                f"but {len(forget)} were given."  # type: ignore[arg-type]
            )
        model.eval()
        head = self._head(model, take(forget, [0], objective), objective)
        encoder = [p for p in model.parameters() if p.requires_grad and not any(p is other for other in head)]
        # One pass of the original serves the autoencoders and every step of L_RA.
        old = [self._old_embeddings(model, data, objective) for data in (retain, forget)]
        of_all, of_forget, scale = self._autoencoders(torch.cat(old), old[1], request.seed)

        adams = torch.optim.Adam(encoder, self.lr_ue), torch.optim.Adam(encoder, self.lr_ra)
        last = {"loss_ue": 0.0, "loss_ra": 0.0}
        for kept, gone in index_pairs(len(old[0]), len(old[1]), self.batch_size, self.steps, request.seed):
            r, f = take(retain, kept.tolist(), objective), take(forget, gone.tolist(), objective)
            if self.use_ue:
                new_r, new_f = (self._embed(model, batch, objective) / scale for batch in (r, f))
                last["loss_ue"] = descend(adams[0], extraction_loss(of_all, of_forget, new_r, new_f))
            if self.use_ra:  # a new forward pass: the model has moved
                new_r, new_f = (self._embed(model, batch, objective) for batch in (r, f))
                drift = cosine_distance(new_r, old[0][kept]), cosine_distance(new_f, old[1][gone])
                last["loss_ra"] = descend(adams[1], alignment_loss(*drift, self.tau))
        note(**last)
        return self._repaired(model, head, request) if self.repair_labels else model

    def _embed(self, model: nn.Module, batch: Batch, objective: Objective) -> Tensor:
        """(B, d) embeddings."""
        return objective.features(model, batch, self.feature_layer).float()

    @torch.no_grad()
    def _old_embeddings(self, model: nn.Module, dataset: Dataset[Any], objective: Objective) -> Tensor:
        """(N, d) embeddings of a dataset, in its order."""
        return torch.cat([self._embed(model, batch, objective) for batch in objective.loader(dataset, 256)])

    def _head(self, model: nn.Module, batch: Batch, objective: Objective) -> list[nn.Parameter]:
        """The parameters behind the embedding; both losses must leave them alone."""
        with torch.enable_grad():
            embedding = objective.features(model, batch, self.feature_layer)
        if not embedding.requires_grad:
            raise BadInput(
                "laf trains the layers before the embedding, but there is nothing to train before "
                f"{self.feature_layer or head_name(model)!r}. Name a later feature_layer, or unfreeze layers."
            )
        if self.feature_layer is None:  # also where the head shares its weights (tied embeddings)
            return list(model.get_submodule(head_name(model)).parameters())
        trained = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(embedding.sum(), trained, allow_unused=True)
        return [p for p, gradient in zip(trained, gradients, strict=True) if gradient is None]

    def _autoencoders(self, of_all: Tensor, of_forget: Tensor, seed: int) -> tuple[Autoencoder, Autoencoder, float]:
        """The autoencoders of all and of the forget embeddings, and what embeddings are to be divided by.

        phi is flat where the reconstruction error is far above 1: an embedding there would hardly be pulled
        or pushed, however wrong it lies. Only then are they divided by their standard deviation.
        """
        scale = 1.0
        first = self._autoencoder(of_all, seed)
        error = mean_error(first, of_all)
        if error > SATURATED:
            scale = float(of_all.std().clamp(min=1e-12))
            first = self._autoencoder(of_all / scale, seed)
            error = mean_error(first, of_all / scale)
        second = self._autoencoder(of_forget / scale, seed)
        note(embedding_scale=scale, error_all=error, error_forget=mean_error(second, of_forget / scale))
        return first, second, scale

    def _autoencoder(self, embeddings: Tensor, seed: int) -> Autoencoder:
        """A variational autoencoder fitted to (N, d) embeddings, frozen."""
        vae = Autoencoder(embeddings.shape[1], self.z, self.decoder)
        fit(
            vae,
            TensorDataset(embeddings),
            Regression(),  # only for its batches
            epochs=self.vae_epochs,
            batch_size=self.batch_size,
            lr=1e-3,
            seed=seed,
            hooks=Hooks(loss=lambda model, batch, step: vae_loss(model, batch[0], self.kl_weight)),
        )
        return vae.to(embeddings.device).eval().requires_grad_(False)

    def _repaired(self, model: nn.Module, head: list[nn.Parameter], request: Request) -> nn.Module:
        """LAF+R: the head alone, trained on a few labelled retained samples."""
        retain, objective = request.need_retain(), request.objective
        order = torch.randperm(len(retain))[: self.repair_labels].tolist()  # type: ignore[arg-type]

        def loss(m: nn.Module, batch: Batch, step: int) -> Tensor:
            with evaluating(m):  # else running statistics of the encoder would move
                return objective.loss(m, batch)

        fit(
            model,
            Subset(retain, order),
            objective,
            epochs=self.repair_epochs,
            batch_size=self.batch_size,
            lr=request.need_recipe().lr,
            parameters=head,
            seed=request.seed,
            hooks=Hooks(loss=loss),
        )
        return model

    claim = Claim(
        "forgets a class without any label about as well as baselines with labels; L_RA keeps the rest",
        on="digits-class:forget=3:width=16:dense=64",
        seeds=5,
        arms={
            "without-ra": "laf:use_ra=false",
            "without-ue": "laf:use_ue=false",
            "bad-teacher": "bad-teacher",
        },
        expects=[
            at_most("forget_score", 0.10),
            no_worse("test_score", than="original", by=0.05),
            custom(
                "avg_gap at most 0.05 above that of the best baseline that uses labels",
                lambda rows: 0.05 + least_gap(rows) - rows["self"]["avg_gap"],
                arms=("self", *LABEL_USING),
            ),
            custom(
                "without L_RA at least 15 points of test accuracy are lost",
                lambda rows: rows["original"]["test_score"] - rows["without-ra"]["test_score"] - 0.15,
                arms=("original", "without-ra"),
            ),
        ],
    )


def least_gap(rows: Rows) -> float:
    return min(rows[arm]["avg_gap"] for arm in LABEL_USING)


def phi(error: Tensor) -> Tensor:
    """Reconstruction errors from 0 to infinity, squeezed to [1, e)."""
    return torch.exp(error / (1 + error))


def extraction_loss(of_all: nn.Module, of_forget: nn.Module, retain: Tensor, forget: Tensor) -> Tensor:
    """L_UE: retained embeddings stay where `of_all` rebuilds them, forget ones leave `of_forget`'s range."""
    kept = phi(reconstruction_error(of_all, retain)).sum()
    return kept - phi(reconstruction_error(of_forget, forget)).sum()


def cosine_distance(new: Tensor, old: Tensor) -> Tensor:
    """(B,) 1 - cosine of the angle between new and old embeddings."""
    return 1 - F.cosine_similarity(new, old, dim=1)


def alignment_loss(retain: Tensor, forget: Tensor, tau: float) -> Tensor:
    """L_RA from the cosine distances of retained (R,) and forget (F,) embeddings to the original ones."""
    return (retain - torch.logsumexp(forget / tau, 0)).sum()


def descend(adam: torch.optim.Optimizer, loss: Tensor) -> float:
    """One step down a loss; returns it."""
    if not torch.isfinite(loss):
        raise Diverged(f"A loss of laf is {float(loss.detach())}. Try smaller learning rates.")
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()
    return float(loss.detach())
