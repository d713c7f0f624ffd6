"""Objective: what methods need to know about a kind of model, so that one method serves them all.

An objective says how a batch meets a model: loss, predictions, score, features, per-sample gradients. It counts the
passes it makes. Batches are what the dataset yields, collated: a pair (input, target), or a mapping as Hugging Face
models take it (with `labels`; language models mark positions that are no target by -100).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, Dataset

from didact.core.batches import TensorBatches, as_tensors, default_collate
from didact.core.cost import backward_counter, count_backward, count_forward
from didact.core.errors import BadInput

Batch = Any
Resampling = Literal["other", "uniform", "gaussian"]

IGNORED = -100  #: label of a position that is no target (the convention of PyTorch and Hugging Face)


class Objective(ABC):
    """How a kind of model is fed, judged and looked into. Stateless but for its options."""

    task: ClassVar[str]

    # -- batches ---------------------------------------------------------------------------------------------------

    def loader(
        self, dataset: Dataset[Any], batch_size: int, shuffle: bool = False, seed: int = 0
    ) -> DataLoader[Any] | TensorBatches:
        """Batches of a dataset; in-memory tensors are sliced directly, which is many times faster than collating."""
        size = len(dataset)  # type: ignore[arg-type]
        if size == 0:
            raise BadInput("The dataset is empty. Give at least one sample.")
        tensors = as_tensors(dataset)
        if tensors is not None:
            return TensorBatches(tensors, batch_size, shuffle, seed)
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(dataset, batch_size, shuffle=shuffle, generator=generator, collate_fn=self.collate)

    def collate(self, samples: list[Any]) -> Batch:
        return default_collate(samples)

    def inputs(self, batch: Batch) -> Any:
        if isinstance(batch, Mapping):
            return {key: value for key, value in batch.items() if key != "labels"}
        return batch[0]

    def targets(self, batch: Batch) -> Tensor:
        try:
            return batch["labels"] if isinstance(batch, Mapping) else batch[1]
        except (KeyError, IndexError):
            raise BadInput(
                "A labelled batch was expected: a pair (input, target) or a mapping with 'labels'."
            ) from None

    def with_targets(self, batch: Batch, targets: Tensor) -> Batch:
        """The same inputs with other targets. The batch given is not changed."""
        if isinstance(batch, Mapping):
            return {**batch, "labels": targets}
        return (batch[0], targets, *batch[2:])

    def size(self, batch: Batch) -> int:
        """Number of samples in a batch."""
        if isinstance(batch, Mapping):
            return len(next(iter(batch.values())))
        return len(batch[0])

    def to(self, batch: Batch, device: torch.device | str) -> Batch:
        if isinstance(batch, Mapping):
            return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        return tuple(v.to(device) if isinstance(v, Tensor) else v for v in batch)

    # -- passes ----------------------------------------------------------------------------------------------------

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The model's raw output for a batch, (B, ...). Counts the pass, and the backward pass should one follow."""
        inputs = self.inputs(self.to(batch, device_of(model)))
        output = output_tensor(model(**inputs) if isinstance(inputs, Mapping) else model(inputs))
        samples = self.size(batch)
        count_forward(samples)
        if output.requires_grad:
            output.register_hook(backward_counter(samples))
        return output

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, a scalar."""
        return self.per_sample_loss(model, batch).mean()

    def per_sample_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B,) losses."""
        output = self.forward(model, batch)
        return self.loss_of(output, self.targets(batch).to(output.device))

    @abstractmethod
    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        """(B,) losses from the model's raw output and the targets."""

    @abstractmethod
    def predictions_of(self, output: Tensor) -> Tensor:
        """Predictions from the model's raw output, shaped like the targets."""

    @abstractmethod
    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        """(B,) scores, larger is better: 1 or 0 for a classifier, minus the absolute error for a regressor."""

    @abstractmethod
    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        """Mean divergence of the output's distribution from a reference output's (a scalar; the teacher's second)."""

    def predictions(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.predictions_of(self.forward(model, batch))

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        output = self.forward(model, batch)
        return self.score_of(output, self.targets(batch).to(output.device))

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        """Wrong targets in place of true ones; `pool` holds the targets of the training data."""
        raise BadInput(f"Targets of a {self.task} objective cannot be resampled.")

    # -- inside ----------------------------------------------------------------------------------------------------

    def features(self, model: nn.Module, batch: Batch, layer: str | None = None) -> Tensor:
        """(B, d) features: the output of a named layer or, by default, what enters the model's last linear layer.

        Maps are flattened; a sequence (B, T, d) is averaged over the positions that the attention mask keeps.
        """
        caught: list[Tensor] = []
        if layer is None:
            module = model.get_submodule(head_name(model))
            handle = module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        else:
            module = submodule(model, layer)
            handle = module.register_forward_hook(lambda _, __, out: caught.append(output_tensor(out)))
        try:
            self.forward(model, batch)
        finally:
            handle.remove()
        if not caught:
            raise BadInput(f"The layer {layer!r} was not used in the forward pass, so it has no features.")
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        found = pool(caught[-1], self.size(batch), mask)
        if found.requires_grad:  # this gradient does not come through the model's output
            found.register_hook(backward_counter(self.size(batch)))
        return found

    def per_sample_gradients(self, model: nn.Module, batch: Batch, names: set[str] | None = None) -> dict[str, Tensor]:
        """Gradient of each sample's loss: parameter name -> (B, *shape).

        Memory: batch size times the size of the chosen parameters. Vectorised by `torch.func`; a model that it
        cannot trace is done sample by sample.
        """
        batch = self.to(batch, device_of(model))
        parameters = {
            n: p.detach() for n, p in model.named_parameters() if p.requires_grad and (not names or n in names)
        }
        if not parameters:
            raise BadInput("No parameter of the model requires a gradient. Unfreeze the parts to be examined.")
        frozen = {n: t.detach() for n, t in (*model.named_parameters(), *model.named_buffers())}
        samples = self.size(batch)
        count_forward(samples)
        count_backward(samples)

        def loss(chosen: dict[str, Tensor], single: Batch) -> Tensor:
            one = _map(single, lambda value: value.unsqueeze(0))
            inputs = self.inputs(one)
            arguments = ((), inputs) if isinstance(inputs, Mapping) else ((inputs,), {})
            output = output_tensor(functional_call(model, {**frozen, **chosen}, *arguments))
            return self.loss_of(output, self.targets(one)).sum()

        tensors = _map(batch, lambda value: value)
        try:
            return vmap(grad(loss), in_dims=(None, 0))(parameters, tensors)
        except (RuntimeError, ValueError, NotImplementedError):
            singles = [grad(loss)(parameters, _map(tensors, lambda value, i=i: value[i])) for i in range(samples)]
            return {name: torch.stack([single[name] for single in singles]) for name in parameters}

    # -- whole datasets --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def outputs(
        self, model: nn.Module, dataset: Dataset[Any], batch_size: int = 256
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(output, targets) of each batch in evaluation mode, in the dataset's order."""
        with evaluating(model):
            for batch in self.loader(dataset, batch_size):
                output = self.forward(model, batch)
                yield output, self.targets(batch).to(output.device)

    def scores(self, model: nn.Module, dataset: Dataset[Any]) -> Tensor:
        """(N,) scores over a dataset."""
        return torch.cat([self.score_of(o, t) for o, t in self.outputs(model, dataset)])

    def losses(self, model: nn.Module, dataset: Dataset[Any]) -> Tensor:
        """(N,) losses over a dataset."""
        return torch.cat([self.loss_of(o, t) for o, t in self.outputs(model, dataset)])

    def mean_score(self, model: nn.Module, dataset: Dataset[Any]) -> float:
        return float(self.scores(model, dataset).float().mean())


class Classification(Objective):
    """Cross-entropy; output (B, C) logits, targets (B,) class indices."""

    task = "classification"

    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        if output.ndim != 2 or targets.shape != output.shape[:1]:
            raise BadInput(
                f"A classifier's output must be (batch, classes) and its targets (batch,), but they are "
                f"{tuple(output.shape)} and {tuple(targets.shape)}."
            )
        return F.cross_entropy(output, targets.long(), reduction="none")

    def predictions_of(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        return (output.argmax(-1) == targets).float()

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        return F.kl_div(output.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="batchmean")

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        classes = pool.unique()
        if how == "gaussian" or len(classes) < 2:
            raise BadInput("Class labels can be resampled as 'other' or 'uniform', among at least two classes.")
        if how == "uniform":
            return classes[torch.randint(len(classes), targets.shape, generator=generator)]
        # Draw among the classes without the true one: an index at or above the true one's moves up by one.
        places = torch.searchsorted(classes, targets)
        known = (places < len(classes)) & (classes[places.clamp(max=len(classes) - 1)] == targets)
        others = torch.randint(len(classes) - 1, targets.shape, generator=generator)
        any_class = torch.randint(len(classes), targets.shape, generator=generator)
        return classes[torch.where(known, others + (others >= places).long(), any_class)]


class Regression(Objective):
    """Squared (default) or absolute error; output (B,), (B, 1) or (B, K), targets of the same number of values."""

    task = "regression"

    def __init__(self, loss: Literal["l1", "l2"] = "l2") -> None:
        self.kind = loss

    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        output, targets = self._match(output, targets)
        error = output - targets
        return error.abs().mean(-1) if self.kind == "l1" else error.square().mean(-1)

    def predictions_of(self, output: Tensor) -> Tensor:
        return output.squeeze(-1) if output.ndim == 2 and output.shape[1] == 1 else output

    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        output, targets = self._match(output, targets)
        return -(output - targets).abs().mean(-1)

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        return (output - reference).abs().mean() if self.kind == "l1" else (output - reference).square().mean()

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        if how == "uniform":
            return pool[torch.randint(len(pool), targets.shape[:1], generator=generator)]
        # A number has no "other class": the Gaussian of all training targets serves for both.
        mean, spread = pool.float().mean(0), pool.float().std(0)
        return mean + spread * torch.randn(targets.shape, generator=generator)

    def _match(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if not targets.is_floating_point():
            raise BadInput(
                f"Regression targets must be floating-point numbers, but they are {targets.dtype}. "
                "Convert them with .float(), or use a classification objective."
            )
        if len(output) != len(targets) or output.numel() != targets.numel():
            raise BadInput(
                f"A regressor's output {tuple(output.shape)} and its targets {tuple(targets.shape)} must hold "
                "the same number of values."
            )
        return output.reshape(len(output), -1), targets.reshape(len(targets), -1)


class CausalLM(Objective):
    """Next-token prediction on the positions whose label is not -100; output (B, T, V) logits.

    `per_sample_loss` is the mean over a sample's target tokens, or their sum with `reduction="sum"`.
    A sample's score is 1 when every target token is the most probable one (exact match, teacher-forced).
    """

    task = "causal-lm"

    def __init__(self, reduction: Literal["mean", "sum"] = "mean", pad_id: int = 0) -> None:
        self.reduction = reduction
        self.pad_id = pad_id

    def collate(self, samples: list[Any]) -> Batch:
        return pad_tokens(samples, self.pad_id)

    def targets(self, batch: Batch) -> Tensor:
        if not isinstance(batch, Mapping) or "input_ids" not in batch:
            raise BadInput("A language-model batch is a mapping with 'input_ids', 'attention_mask' and 'labels'.")
        if "labels" in batch:
            return batch["labels"]
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        return batch["input_ids"].masked_fill(mask == 0, IGNORED)

    def align(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the tokens they predict: position t predicts token t+1."""
        return output[:, :-1], targets[:, 1:]

    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        nll, kept = self.token_nll(output, targets)
        total = (nll * kept).sum(-1)
        return total if self.reduction == "sum" else total / kept.sum(-1).clamp(min=1)

    def token_nll(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T') negative log-likelihoods and the mask of the positions that are targets."""
        logits, tokens = self.align(output, targets)
        nll = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none", ignore_index=IGNORED)
        return nll.view(tokens.shape), tokens != IGNORED

    def predictions_of(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        logits, tokens = self.align(output, targets)
        return ((logits.argmax(-1) == tokens) | (tokens == IGNORED)).all(-1).float()

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        terms = F.kl_div(output.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="none")
        return terms.sum(-1).mean()

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        tokens = pool[pool != IGNORED].unique()
        drawn = tokens[torch.randint(len(tokens), targets.shape, generator=generator)]
        return torch.where(targets == IGNORED, targets, drawn)


class MaskedLM(CausalLM):
    """Prediction of masked tokens: labels are -100 except where the input is masked; output (B, T, V) logits."""

    task = "masked-lm"

    def targets(self, batch: Batch) -> Tensor:
        if not isinstance(batch, Mapping) or "labels" not in batch:
            raise BadInput("A masked-language-model batch needs 'labels' that are -100 except at masked positions.")
        return batch["labels"]

    def align(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return output, targets


def guess_objective(model: nn.Module, dataset: Dataset[Any] | None = None) -> Objective:
    """The objective of a plain classifier, regressor or Hugging Face model, read from the model and one sample.

    Raises:
        BadInput: when neither says it; pass `objective=` then.
    """
    name = type(model).__name__
    config = getattr(model, "config", None)
    if name.endswith("ForCausalLM") or name.endswith("LMHeadModel"):
        return CausalLM(pad_id=getattr(config, "pad_token_id", None) or 0)
    if name.endswith("ForMaskedLM"):
        return MaskedLM(pad_id=getattr(config, "pad_token_id", None) or 0)
    if getattr(config, "problem_type", None) == "regression" or getattr(config, "num_labels", None) == 1:
        return Regression()
    if "Classification" in name:
        return Classification()
    if dataset is not None and len(dataset) > 0:  # type: ignore[arg-type]
        sample = dataset[0]
        target = sample.get("labels") if isinstance(sample, Mapping) else sample[1] if len(sample) > 1 else None
        if target is not None:
            target = torch.as_tensor(target)
            if target.is_floating_point():
                return Regression()
            if target.ndim == 0:
                return Classification()
    raise BadInput(
        f"It is not clear what {name} is trained for. Pass objective=Classification(), Regression(), CausalLM() or "
        "MaskedLM(), or one of your own."
    )


# -- models ------------------------------------------------------------------------------------------------------------


def device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return tensor.device if tensor is not None else torch.device("cpu")


def output_tensor(output: Any) -> Tensor:
    """The tensor that matters in what a module returns: the logits of a Hugging Face output, the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    if getattr(output, "logits", None) is not None:
        return output.logits
    if isinstance(output, (tuple, list)) and isinstance(output[0], Tensor):
        return output[0]
    raise BadInput(f"The model returned {type(output).__name__}; a tensor or an output with .logits was expected.")


def head_name(model: nn.Module) -> str:
    """Name of the last linear layer, the head of most models."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise BadInput(f"{type(model).__name__} has no linear layer to take as its head. Name the feature layer.")
    return names[-1]


def submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = ", ".join(n for n, _ in model.named_modules() if n)
        raise BadInput(f"The model has no layer {name!r}. Its layers: {known}.") from None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode; every submodule's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def pool(features: Tensor, samples: int, mask: Tensor | None = None) -> Tensor:
    """(B, d) from (B, d), (B, C, H, W) or (B, T, d); sequences are averaged over the kept positions."""
    if features.ndim == 3:
        if mask is None:
            return features.mean(1)
        weights = mask.to(features).unsqueeze(-1)
        return (features * weights).sum(1) / weights.sum(1).clamp(min=1)
    return features.reshape(samples, -1)


def pad_tokens(samples: list[Any], pad_id: int) -> Batch:
    """Pad token sequences to the longest: `pad_id` for input ids, 0 for masks, -100 for labels."""
    if not all(isinstance(sample, Mapping) and "input_ids" in sample for sample in samples):
        raise BadInput("A language-model dataset yields mappings with 'input_ids' (and 'attention_mask', 'labels').")
    rows = [{k: torch.as_tensor(v) for k, v in sample.items() if not isinstance(v, str)} for sample in samples]
    for row in rows:
        row.setdefault("attention_mask", torch.ones_like(row["input_ids"]))
    fill = {"input_ids": pad_id, "labels": IGNORED}
    return {
        key: torch.nn.utils.rnn.pad_sequence([r[key] for r in rows], batch_first=True, padding_value=fill.get(key, 0))
        if rows[0][key].ndim
        else torch.stack([r[key] for r in rows])
        for key in rows[0]
    }


def _map(batch: Batch, change: Callable[..., Tensor]) -> Batch:
    if isinstance(batch, Mapping):
        return {k: change(v) for k, v in batch.items() if isinstance(v, Tensor)}
    return tuple(change(v) for v in batch)
