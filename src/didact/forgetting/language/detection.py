"""What guards share: reading prompts out of batches, and a classifier that knows a prompt about the forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.errors import BadInput
from didact.data.text import TextDataset, TextItem, has_texts, prompt_ids, texts_of
from didact.forgetting.request import Request
from didact.parts.prompts import PromptClassifier

Detector = Literal["tfidf", "hidden", "names", "given"]

#: words of a document that stand for a prompt that begins it
OPENING = 8


def detector(
    model: nn.Module,
    request: Request,
    kind: Detector,
    threshold: float | None = None,
    alpha: float | None = None,
    **options: Any,
) -> PromptClassifier:
    """A classifier of prompts fitted on a request: about the forgotten or not.

    Positives are the prompts of the forget data in all their wordings, negatives those of the retained data, of the
    general facts the request offers (`extras["world"]`), and `lookalikes`: without them half a forgotten name is
    enough to be flagged. Documents count with their whole text and its opening.

    Args:
        model: the language model that the kind `hidden` looks into; the classifier keeps it.
        kind: a backend of `PromptClassifier`, or "given": `extras["classifier"]`. "names" looks for the subjects.
        threshold: a prompt is flagged above it; default: the classifier's own, 0.5 for one fitted here.
        alpha: set the threshold by split-conformal calibration instead: a quarter of the retained subjects is not
            learned from, and at most this share of their prompts may be flagged.
    """
    if kind == "given":
        found = request.need("classifier")
        if not isinstance(found, PromptClassifier):
            raise BadInput("extras['classifier'] must be a fitted didact.parts.prompts.PromptClassifier.")
    elif kind == "names":
        found = PromptClassifier("names", names=(*subjects_of(request), *aliases_of(request)))
    else:
        found = _fitted(model, request, kind, alpha, options)
    if threshold is not None:
        found.threshold = threshold
    note(threshold=found.threshold)
    return found


def _fitted(
    model: nn.Module, request: Request, kind: Detector, alpha: float | None, options: dict[str, Any]
) -> PromptClassifier:
    forget, retain = texts_of(request.forget), texts_of(request.need_retain())
    tokenizer = forget.tokenizer
    made = PromptClassifier(kind, model=model, tokenizer=tokenizer, **options)  # type: ignore[arg-type]
    kept, held_out = (retain.items, ()) if alpha is None else _apart(retain.items, request.seed)
    world = request.extras.get("world")
    if world is not None and has_texts(world):
        kept = (*kept, *texts_of(world).items)
    negatives = (*kept, *lookalikes(forget.items, subjects_of(request), request.seed))
    made.fit(prompts_of(forget.items, tokenizer), prompts_of(negatives, tokenizer), request.seed)
    if alpha is not None:
        made.calibrate(prompts_of(held_out, tokenizer), alpha)
    return made


def lookalikes(items: Iterable[TextItem], subjects: Sequence[str], seed: int, each: int = 3) -> list[TextItem]:
    """The items as they would be about somebody else whose name is put together from parts of forgotten names.

    A part takes the place it has in its own name; `each` items an item, fewer where a name comes out that is itself to
    be forgotten. Names of one word have no parts.
    """
    known = {name.casefold() for name in subjects}
    by_length: dict[int, list[list[str]]] = {}
    for name in subjects:
        by_length.setdefault(len(name.split()), []).append(name.split())
    generator = torch.Generator().manual_seed(seed + 43)
    made = []
    for item in items:
        names = by_length.get(len(item.subject.split()), [])
        if len(item.subject.split()) < 2 or not names:
            continue
        for _ in range(each):
            drawn = torch.randint(len(names), (len(names[0]),), generator=generator).tolist()
            name = " ".join(names[i][place] for place, i in enumerate(drawn))
            if name.casefold() not in known:
                made.append(_about(item, name))
    return made


def prompts_of(items: Iterable[TextItem], tokenizer: Any) -> list[str]:
    """All prompts of some items as a guard reads them: decoded from the tokens that the model would get."""
    texts: list[str] = []
    for item in items:
        if item.is_document:
            texts += [item.answer, " ".join(item.answer.split()[:OPENING])]
        else:
            texts += [item.prompt, *item.variants]
    return [tokenizer.decode(prompt_ids(tokenizer, text), skip_special_tokens=True) for text in texts]


def subjects_of(request: Request) -> tuple[str, ...]:
    """The names to forget: `extras["subjects"]`, else those of the forgotten items."""
    given = request.extras.get("subjects")
    if given is None:
        given = [item.subject for item in texts_of(request.forget).items if item.subject]
    return tuple(dict.fromkeys(given))


def aliases_of(request: Request) -> tuple[str, ...]:
    """Other names of the subjects: `extras["aliases"]`, a mapping of names to their aliases."""
    named = request.extras.get("aliases", {})
    return tuple(alias for subject in subjects_of(request) for alias in named.get(subject, ()))


def prompt_rows(input_ids: Tensor, prompt_mask: Tensor) -> list[list[int]]:
    """The token ids of each row's prompt, without padding."""
    return [ids[mask].tolist() for ids, mask in zip(input_ids, prompt_mask.bool(), strict=True)]


def asked_questions(data: TextDataset, method: str) -> TextDataset:
    """The items with a prompt: a guard acts on prompts, and a document has none."""
    found = data.questions
    if found is None:
        raise BadInput(f"{method} acts on prompts, but the forget set holds documents only. Add questions about them.")
    return found


def _about(item: TextItem, name: str) -> TextItem:
    """The item with another name in the place of its subject's."""

    def other(text: str) -> str:
        return text.replace(item.subject, name)

    return TextItem(other(item.prompt), other(item.answer), subject=name, variants=tuple(map(other, item.variants)))


def _apart(items: tuple[TextItem, ...], seed: int) -> tuple[tuple[TextItem, ...], tuple[TextItem, ...]]:
    """Items to learn from and a quarter to calibrate on, split by subject: one subject's prompts are alike."""
    groups = list(dict.fromkeys(item.subject or item.prompt or item.answer for item in items))
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed + 41)).tolist()
    held = {groups[i] for i in order[: max(1, len(groups) // 4)]}
    apart = np.array([(item.subject or item.prompt or item.answer) in held for item in items])
    return (
        tuple(item for item, out in zip(items, apart, strict=True) if not out),
        tuple(item for item, out in zip(items, apart, strict=True) if out),
    )
