"""Key space detection: refuse where a prompt's key lies in the forgotten skill's box (Li, Sun and Weng, 2025)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from didact.core.claim import Claim, Rows, custom, over_seeds
from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.method import Card, Range
from didact.core.registry import register
from didact.data.text import answer_ids
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.forgetting.skill_unlearning.neuron_adjust import CODE, NARROW, PAPER, probe_texts
from didact.models.wrappers import LanguageWrapper, wrapper
from didact.parts.feedforward import feed_forward_layers, last_of, prompt_keys, reading

#: logit of the token that a refusal says next; the others have 0
CERTAIN = 30.0
SHARES = (3, 10, 30)  #: percents of neurons that the claim compares


@register
class KeySpaceDetection(Unlearner):
    """Refuse when the key of the prompt's last token lies in the box that the forgotten skill's keys span.

    A feed-forward layer's key is what enters its map out. Of the keys of `probes` forgotten prompts, at the last
    prompt token, the mean mu and the sample standard deviation s are taken in each dimension, and

        inside: |x_j - mu_j| <= scale * k * s_j for all j,   k = max over probes and dimensions of |x - mu| / s,

    so that at scale 1 the box just holds all probes. Inside, the answer is a refusal. The released code's bisection
    ends at this k. The paper looks at the last layer; there boxes of different skills may overlap: `layer="auto"`
    takes the layer that flags fewest retained probes, among those that flag 95 % of held-out forgotten ones.

    Nothing is trained; the answer is a wrapper around the model.

    Errors: fewer than 2 probes, a layer that the model lacks, a model whose feed-forward layers have no known names.
    Cost: one forward pass over the probes; one more per prompt when answering. Memory: two numbers a dimension.
    Reference: Li, Sun and Weng, "Effective Skill Unlearning through Intervention and Abstention", NAACL 2025.
    """

    card = Card(
        "skill-unlearning",
        "Effective Skill Unlearning through Intervention and Abstention",
        paper=PAPER,
        kind="method-set",
        tasks=("causal-lm",),
        needs=("retain", "text"),
        code=CODE,
        tunes={"scale": Range(0.5, 3.0, log=True)},
    )
    layer: int | Literal["last", "auto"] = "last"  #: whose keys are looked at; "auto" chooses on held-out probes
    scale: PositiveFloat = 1.0  #: of the box (the paper: 2 for grade-school mathematics, 1.4 for code)
    refusal: str = "I cannot help with that ."  #: what is said inside
    when: Literal["prompt", "step"] = "prompt"  #: look at the prompt's last token, or at every token written as well
    probes: int = Field(200, ge=2)  #: texts of each side that are measured

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        forget, retain = probe_texts(request, self.probes)
        asked, others = forget.questions, retain.questions
        if asked is None or others is None:
            raise BadInput(
                "Key space detection looks at prompts, but the forget or the retain set holds documents only."
            )
        gone, kept = (prompt_keys(request.objective, model, data) for data in (asked, others))
        layer = self._layer(gone, kept)
        mean, std, k = box(gone[:, layer])
        note(layer=layer, k=k, retained_flags=float(inside(kept[:, layer], mean, std, self.scale * k).float().mean()))
        return KeyGuardedModel(model, forget.tokenizer, layer, self.refusal, self.when, mean, self.scale * k * std)

    def _layer(self, gone: Tensor, kept: Tensor) -> int:
        layers = gone.shape[1]
        if isinstance(self.layer, int):
            if not -layers <= self.layer < layers:
                raise BadInput(f"The model has {layers} feed-forward layers, but layer={self.layer} was asked for.")
            return self.layer % layers
        if self.layer == "last":
            return layers - 1
        half = len(gone) // 2
        if half < 2:
            raise BadInput(f"layer='auto' splits the probes in two, but there are only {len(gone)}. Name a layer.")
        found = []
        for layer in range(layers):
            mean, std, k = box(gone[:half, layer])
            recall = float(inside(gone[half:, layer], mean, std, self.scale * k).float().mean())
            false = float(inside(kept[:, layer], mean, std, self.scale * k).float().mean())
            found.append((recall < 0.95, false, -recall, layer))
        return min(found)[-1]

    claim = Claim(
        "without training, one skill is switched off and the others stay: by refusing on its keys, and, more gently "
        "than by pruning, by moving its neurons",
        on=("skills:forget=arithmetic", "skills:forget=lookup", "skills:forget=story"),
        seeds=3,
        arms={
            "self": "skill-unlearning:layer=auto",
            **{f"adjust@{p}": f"neuron-adjust:percent={p}:by=absolute" for p in SHARES},
            **{f"prune@{p}": f"selective-pruning:percent={p}" for p in SHARES},
        },
        expects=[
            over_seeds(
                "key space detection drops the skill by 80 % and no other by more than 10 % on 2 of 3 skills",
                lambda rows: _share_of_successes(rows) - 2 / 3 + 1e-9,
                arms=("self",),
            ),
            custom(
                "neuron adjust at its best share beats pruning at its best by 0.1 (drop of the skill - largest other)",
                lambda rows: _best(rows, "adjust") - _best(rows, "prune") - 0.1,
                arms=(*(f"adjust@{p}" for p in SHARES), *(f"prune@{p}" for p in SHARES)),
            ),
        ],
        note="Key space detection drops each skill by 0.95 or more in all nine runs and costs the others nothing. "
        "Neuron adjust is no better than pruning here: it forgets arithmetic (0.70 to 0.97) and facts (up to 0.95), "
        "but costs another skill up to 0.78, as its random moves also reach tokens of the kept skills; stories it "
        "hardly touches (0.64 at best, with 0.57 lost elsewhere). Pruning loses at most 0.32 of another skill.",
    )


def _share_of_successes(rows: Any) -> float:
    good = [r["self"]["drop_forgotten"] >= 0.8 and r["self"]["drop_others"] <= 0.1 for r in rows]
    return float(sum(good)) / len(good)


def _best(rows: Rows, arm: str) -> float:
    return max(float(rows[f"{arm}@{p}"]["drop_forgotten"] - rows[f"{arm}@{p}"]["drop_others"]) for p in SHARES)


def box(keys: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean (d,), sample standard deviation (d,) and the smallest k whose box holds all keys (N, d)."""
    if len(keys) < 2:
        raise BadInput(f"A box needs at least 2 probe keys, but {len(keys)} were given.")
    mean, std = keys.mean(0), keys.std(0, correction=1)
    if bool((std < NARROW).any()):
        warnings.warn("Some dimensions of the keys never vary; they are widened by 1e-6.", stacklevel=2)
        std = std.clamp(min=NARROW)
    return mean, std, float(((keys - mean).abs() / std).max())


def inside(keys: Tensor, mean: Tensor, std: Tensor, width: float) -> Tensor:
    """(N,) which keys lie in the box of half-width `width` * std."""
    # A hair of slack: the farthest probe lies on the wall itself.
    return ((keys - mean).abs() <= width * std * (1 + 1e-6)).all(-1)


@wrapper("key-space-detection")
class KeyGuardedModel(LanguageWrapper):
    """A model that refuses inside a box of keys: `centre` and `reach` (d,), its half-widths."""

    extra_forwards = 0.0
    centre: Tensor
    reach: Tensor

    def __init__(
        self, base: Any, tokenizer: Any, layer: int, refusal: str, when: str, centre: Tensor, reach: Tensor
    ) -> None:
        super().__init__(base, tokenizer)
        self.layer, self.refusal, self.when = layer, refusal, when
        self.register_buffer("centre", centre)
        self.register_buffer("reach", reach)

    def logits(self, input_ids: Tensor, attention_mask: Tensor, prompt_mask: Tensor) -> Tensor:
        caught: list[Tensor] = []
        with reading([feed_forward_layers(self.base)[self.layer]], keys=lambda _, key: caught.append(key)):
            found: Tensor = self.base(input_ids=input_ids, attention_mask=attention_mask).logits
        flagged = self._inside(last_of(caught[-1], prompt_mask))
        if flagged.any():
            found = found.clone()
            for row in torch.nonzero(flagged)[:, 0].tolist():
                found[row] = self._refusing(found[row], int(torch.nonzero(prompt_mask[row])[-1]))
        return found

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        flags: list[Tensor] = []

        def look(_: int, key: Tensor) -> None:
            if self.when == "step" or not flags:
                beams = len(key) // len(mask)
                kept = mask.bool().repeat_interleave(beams, 0)
                flags.append(self._inside(key[:, -1] if flags else last_of(key, kept)).view(len(mask), beams).any(1))

        with reading([feed_forward_layers(self.base)[self.layer]], keys=look):
            made = super().generate(input_ids, mask, **options)
        flagged = torch.stack(flags).any(0)
        most = int(options.get("max_new_tokens") or 0)
        return self._answered(made, input_ids.shape[1], flagged, most) if flagged.any() else made

    def options(self) -> dict[str, Any]:
        return {"layer": self.layer, "refusal": self.refusal, "when": self.when, "width": len(self.centre)}

    @classmethod
    def assemble(cls, parts: Mapping[str, nn.Module], options: Mapping[str, Any], tokenizer: Any) -> LanguageWrapper:
        blank = torch.zeros(options["width"])
        return cls(
            parts["base"], tokenizer, options["layer"], options["refusal"], options["when"], blank, blank.clone()
        )

    def _inside(self, keys: Tensor) -> Tensor:
        return ((keys - self.centre).abs() <= self.reach * (1 + 1e-6)).all(-1)

    def _refusing(self, logits: Tensor, last: int) -> Tensor:
        """(T, V) logits that say the refusal after the prompt, whose last token is at `last`."""
        said = answer_ids(self.tokenizer, self.refusal)
        logits = logits.clone()
        for t in range(last, len(logits)):
            logits[t] = 0.0
            logits[t, said[min(t - last, len(said) - 1)]] = CERTAIN
        return logits

    def _answered(self, made: Tensor, start: int, flagged: Tensor, most: int) -> Tensor:
        """The refusal in the place of what flagged rows said; `most` new tokens at most, 0 for no limit."""
        said = answer_ids(self.tokenizer, self.refusal)
        said = said[:most] if most else said
        room = max(made.shape[1] - start, len(said))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else said[-1]
        found = made.new_full((len(made), start + room), pad)
        found[:, : made.shape[1]] = made
        found[flagged, start:] = torch.tensor(said + [pad] * (room - len(said)), device=made.device)
        return found
