"""Who is Harry Potter? Unlearning by generic labels (Eldan and Russinovich, 2023)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from didact.core.claim import Claim, Rows, over_seeds
from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.fit import fit
from didact.core.method import Card, Paper, Range
from didact.core.registry import register
from didact.data.text import TextDataset, TextItem, texts_of
from didact.forgetting.harry_potter.labels import Mode, checked, generic_labels, idiosyncratic
from didact.forgetting.language.training import RATE_OF_PAPERS, usual_rate
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.datasets import with_targets

#: epochs at which the claim looks, of relabelling and of gradient ascent
LOOKS = (2, 4, 8, 12, 20)
ASCENT_LOOKS = (1, 2, 3, 4, 5, 6, 8, 10)


@register
class GenericRelabeling(Unlearner):
    """Label every token of the forgotten texts as a model ignorant of them would, and fine-tune on these labels.

    Two guesses at ignorance are combined. A copy of the model is trained on the texts further (reinforced): what
    becomes likelier thereby is what the texts taught. And the texts are translated, their idiosyncratic terms
    (anchors) replaced by generic ones: what the model then expects is what it would say of anybody. At each position

        v = v_base(translated) - alpha * ReLU(v_reinforced(original) - v_base(original)),

    and the label is the largest entry. `mode` leaves one of the two out. Within a text an anchor's second mention is
    not learnt, and translations of anchors already mentioned are held down. There is no retain term: knowledge close
    to the texts suffers too.

    Anchors come from `anchors`, else from the request (`extras["anchors"]`), else from a text generator, else they
    are found ("auto": words that gain most by reinforcement, swapped within their type). All parameters of the model
    are trained, with AdamW; the reinforced copy is dropped after labelling. Labels, not logits, are kept.

    Errors: an anchor that becomes itself or another anchor, texts shorter than 2 tokens, forget data without words,
    a reinforced model of another vocabulary.
    Cost: `reinforce_epochs` + `epochs` training passes over the forgotten texts, and three forward passes for the
    labels. Memory: two copies of the weights while labelling.
    Reference: Eldan and Russinovich, "Who's Harry Potter? Approximate Unlearning in LLMs", 2023, arXiv 2310.02238.
    """

    card = Card(
        "harry-potter",
        "Who's Harry Potter? Approximate Unlearning in LLMs",
        paper=Paper("Eldan and Russinovich", 2023, arxiv="2310.02238"),
        tasks=("causal-lm",),
        needs=("text",),
        tunes={"lr": Range(1e-5, 1e-2, log=True), "alpha": Range(1.0, 10.0)},
    )
    anchors: dict[str, str] | Literal["auto", "request"] = "request"  #: term -> generic term; where to find them
    generator: Any = Field(None, repr=False, exclude=True)  #: a TextGenerator that is asked for anchors
    alpha: NonNegativeFloat = 5.0  #: how hard what reinforcement raised is pushed down
    mode: Mode = "both"  #: both guesses, or one of them
    suppress: NonNegativeFloat = 5.0  #: how much translations of anchors already mentioned are held down
    reinforce_epochs: PositiveInt = 10  #: of the reinforced copy (the paper's 3 are for 7B models)
    reinforce_lr: PositiveFloat | None = None  #: default: half of the recipe's; the paper's 3e-6 without a recipe
    epochs: PositiveInt = 10  #: passes over the relabelled texts (the paper's 2 are for 7B models)
    lr: PositiveFloat | None = None  #: default: a twentieth of the recipe's; 1e-5 without a recipe
    block: PositiveInt = 512  #: longest text in tokens; longer documents are cut
    batch_size: PositiveInt = 16  #: texts a step
    most_anchors: PositiveInt = 200  #: how many anchors "auto" looks for

    @field_validator("anchors")
    @classmethod
    def _generic(cls, value: Any) -> Any:
        if isinstance(value, dict):
            try:
                return checked(value)
            except BadInput as error:
                raise ValueError(str(error)) from None
        return value

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        texts = in_blocks(texts_of(request.forget), self.block)
        targets = self.labels(model, request, texts)
        kept = sum(int((t != -100).sum()) for t in targets)
        note(relabelled_tokens=kept)
        log = fit(
            model, with_targets(texts, targets), request.objective, epochs=self.epochs, batch_size=self.batch_size,
            lr=self.lr or usual_rate(request), optimizer="adamw", seed=request.seed,
        )  # fmt: skip
        note(steps=log.steps)
        return model

    def labels(self, model: nn.Module, request: Request, texts: TextDataset | None = None) -> list[Tensor]:
        """The generic labels of every forgotten text, (T,) each, -100 where nothing is learnt."""
        texts = texts if texts is not None else in_blocks(texts_of(request.forget), self.block)
        reinforced = self._reinforced(model, request, texts)
        same_vocabulary(model, reinforced)
        anchors = self._anchors(model, reinforced, request, texts)
        note(anchors=len(anchors))
        return generic_labels(
            request.objective, model, reinforced, texts, anchors,
            alpha=self.alpha, suppress=self.suppress, mode=self.mode,
        )  # fmt: skip

    def _reinforced(self, model: nn.Module, request: Request, texts: TextDataset) -> nn.Module:
        if self.mode == "translate" and self.anchors != "auto":
            return model
        reinforced = copy.deepcopy(model)
        lr = self.reinforce_lr or (request.recipe.lr / 2 if request.recipe is not None else 0.3 * RATE_OF_PAPERS)
        fit(
            reinforced, texts, request.objective, epochs=self.reinforce_epochs, batch_size=self.batch_size, lr=lr,
            optimizer="adamw", seed=request.seed + 1,
        )  # fmt: skip
        return reinforced

    def _anchors(self, model: nn.Module, reinforced: nn.Module, request: Request, texts: TextDataset) -> dict[str, str]:
        if isinstance(self.anchors, dict):
            return self.anchors
        if self.anchors == "request" and "anchors" in request.extras:
            return checked(request.extras["anchors"])
        if self.generator is not None:
            return asked_of(self.generator, texts)
        kept = texts_of(request.retain) if request.retain is not None else None
        return idiosyncratic(request.objective, model, reinforced, texts, kept, self.most_anchors)

    claim = Claim(
        "forgets a text with its words alone, and at that point has kept more of the rest than gradient ascent has",
        on="bios:documents=true",
        seeds=3,
        arms={
            **{
                f"{mode}@{epochs}": f"harry-potter:mode={mode}:epochs={epochs}:lr=1e-4:reinforce_lr=1e-3:batch_size=18"
                for mode in ("both", "reinforce", "translate")
                for epochs in LOOKS
            },
            **{
                f"ga@{epochs}": f"gradient-ascent:lr=1e-4:epochs={epochs}:batch_size=18:stop=false:clip=none"
                for epochs in ASCENT_LOOKS
            },
            "retrained": "retrain",
        },
        expects=[
            over_seeds(
                "when forgotten, the best mode's mean retain accuracy is 0.15 above that of gradient ascent",
                lambda rows: _advantage(rows) - 0.15,
                arms=(
                    "retrained",
                    *(f"{mode}@{e}" for mode in ("both", "reinforce", "translate") for e in LOOKS),
                    *(f"ga@{e}" for e in ASCENT_LOOKS),
                ),
            )
        ],
        note="Translation alone is the best mode: after 20 epochs it answers 0.08, 0.08 and 0.03 of the forgotten and "
        "0.81, 0.71 and 0.81 of the retained questions. Gradient ascent passes the bar between epoch 6 and 10; at"
        " epoch 6, with 0.32, 0.32 and 0.43 of the forgotten still answered, it has 0.48, 0.45 and 0.54 of the "
        "retained.",
    )


def _advantage(rows: Any) -> float:
    """Mean retain accuracy of the best mode minus gradient ascent's, each at its first look with the texts gone."""
    ascent = _mean(_when_forgotten(seed, "ga", ASCENT_LOOKS) for seed in rows)
    modes = [_mean(_when_forgotten(seed, mode, LOOKS) for seed in rows) for mode in ("both", "reinforce", "translate")]
    return max(modes) - ascent


def _when_forgotten(rows: Rows, arm: str, looks: tuple[int, ...]) -> float:
    """Retain accuracy at the first look with forget accuracy at the retrained model's + 0.10; 0 when there is none."""
    bar = rows["retrained"]["forget_score"] + 0.10
    for epochs in looks:
        found = rows[f"{arm}@{epochs}"]
        if found["forget_score"] <= bar:
            return float(found["retain_score"])
    return 0.0


def _mean(values: Any) -> float:
    found = [float(value) for value in values]
    return sum(found) / len(found)


def in_blocks(texts: TextDataset, block: int) -> TextDataset:
    """The texts, documents longer than `block` tokens cut into several."""
    items: list[TextItem] = []
    for i, item in enumerate(texts.items):
        ids = texts.tokenizer.encode(item.answer, add_special_tokens=False)
        if int((texts[i]["labels"] != -100).sum()) < 2:
            raise BadInput(
                f"The text {item.answer!r:.60} has fewer than 2 tokens: there is no context to relabel it in."
            )
        if not item.is_document or len(ids) <= block:
            items.append(item)
            continue
        pieces = [texts.tokenizer.decode(ids[start : start + block]) for start in range(0, len(ids), block)]
        items += [TextItem("", piece, subject=item.subject) for piece in pieces if piece.strip()]
    return texts.of(items)


def asked_of(generator: Any, texts: TextDataset) -> dict[str, str]:
    """Anchors named by a text generator: a JSON object of terms and generic terms."""
    shown = "\n".join(f"{item.prompt} {item.answer}".strip() for item in texts.items)[:8000]
    ask = (
        "List the terms that are special to the texts between the marks (names, places, titles, invented words). "
        "For each give a generic term of the same kind that could stand in its place. "
        f"Answer with one JSON object, term to generic term, and nothing else.\n<<<\n{shown}\n>>>"
    )
    answer = generator.generate([{"role": "user", "content": ask}], temperature=0.0, max_tokens=2048)[0]
    start, end = answer.find("{"), answer.rfind("}")
    try:
        found = json.loads(answer[start : end + 1])
    except json.JSONDecodeError:
        raise BadInput(f"The text generator gave no JSON object of anchors, but: {answer[:200]!r}.") from None
    if not isinstance(found, Mapping) or not all(isinstance(v, str) for v in found.values()):
        raise BadInput("The anchors of the text generator must map terms to generic terms.")
    return checked({k: v for k, v in found.items() if k != v and v not in found})


def same_vocabulary(base: nn.Module, other: nn.Module) -> None:
    sizes = [m.get_input_embeddings().num_embeddings for m in (base, other)]  # type: ignore[operator]
    if sizes[0] != sizes[1]:
        raise BadInput(
            f"The base model has {sizes[0]} tokens and the reinforced one {sizes[1]}: they must be the same."
        )
