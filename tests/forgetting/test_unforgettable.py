"""Forgetting by random labels: the card's exact checks, the study on models that are known, bad input."""

from __future__ import annotations

import copy
import inspect
import json
import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import didact
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.core.recipe import Recipe, seeded
from didact.core.registry import make_method, make_problem
from didact.core.study import Findings
from didact.data.text import TextDataset, TextItem
from didact.forgetting.unforgettable import (
    ForgettingGeneralization,
    LabelTask,
    RandomLabelForgetting,
    TasksSubject,
)
from didact.forgetting.unforgettable.labels import (
    Labelled,
    forget_ratio,
    grip,
    label_probabilities,
    label_states,
    random_label_loss,
)
from didact.forgetting.unforgettable.study import Look, rank_correlation
from didact.forgetting.unforgettable.tasks import yes_no_tasks
from didact.models.language import gpt_tiny
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer

TEXTS = yes_no_tasks(0, half=24, more=0)
#: three tasks that a tiny model learns in a second: is a word of the good ones?
EASY = {
    name: [TextItem(f"{name} {name}{i} ?", "yes" if i % 3 < 2 else "no") for i in range(48)]
    for name in ("kind", "round", "warm")
}
WORDS = word_tokenizer(
    f"{item.prompt} yes no" for items in (*EASY.values(), *(t.items for t in TEXTS)) for item in items
)
OBJECTIVE = CausalLM()
RECIPE = Recipe(
    lambda: gpt_tiny(len(WORDS), hidden=32, layers=1, positions=32), OBJECTIVE, "tiny", epochs=25, lr=1e-2,
    batch_size=16, optimizer="adamw",
)  # fmt: skip


def texts(items) -> TextDataset:
    return TextDataset(items, WORDS)


KNOWN = Labelled(texts(item for items in EASY.values() for item in items))


@pytest.fixture(scope="module")
def subject() -> TasksSubject:
    """A tiny model that knows the easy tasks."""
    tasks = [LabelTask(name, texts(items[:24]), texts(items[24:])) for name, items in EASY.items()]
    return TasksSubject(RECIPE.fit(KNOWN, 0), tasks, RECIPE)


class Constant(nn.Module):
    """Gives every token its fixed logit, whatever it reads."""

    def __init__(self, logits: dict[str, float]) -> None:
        super().__init__()
        row = torch.full((len(WORDS),), -50.0)
        for word, value in logits.items():
            row[WORDS.convert_tokens_to_ids(word)] = value
        self.logits = nn.Parameter(row)

    def forward(self, input_ids, attention_mask=None):
        return self.logits.expand(*input_ids.shape, -1)


# -- the measures ------------------------------------------------------------------------------------------------------


def test_forget_ratio_of_worked_values():
    assert forget_ratio(0.92, 0.55, 0.5) == pytest.approx(0.881, abs=5e-4)
    assert forget_ratio(0.8, 0.8, 0.5) == 0
    assert forget_ratio(0.8, 0.5, 0.5) == 1


def test_the_label_probability_is_among_the_labels_only():
    data = Labelled(texts(TEXTS[0].train))
    found = label_probabilities(OBJECTIVE, Constant({"yes": 1.0, "no": 0.0, "Is": 9.0}), data)
    yes = WORDS.convert_tokens_to_ids("yes")
    assert found[:, data.label_ids.index(yes)].tolist() == pytest.approx([1 / (1 + math.exp(-1))] * len(data))
    known = grip(OBJECTIVE, Constant({"yes": 1.0, "no": 0.0, "Is": 9.0}), data)
    assert known.accuracy == 0.5
    assert known.probability == pytest.approx(0.5)  # as many yes as no
    assert known.confidence == pytest.approx(1 / (1 + math.exp(-1)) - 0.5)


def test_only_the_label_is_a_target_and_the_end_is_cut_off():
    dataset = texts(TEXTS[3].train)
    data = Labelled(dataset)
    for sample, whole in zip((data[i] for i in range(len(data))), (dataset[i] for i in range(len(data))), strict=True):
        assert int((sample["labels"] != -100).sum()) == 1
        assert int(sample["labels"][-1]) in data.label_ids
        assert len(sample["input_ids"]) == len(whole["input_ids"]) - 1
        assert torch.equal(sample["input_ids"], whole["input_ids"][:-1])
    assert {WORDS.decode([i]) for i in data.label_ids} == {"yes", "no"}


def test_fresh_random_labels_cost_log_2_at_the_least():
    data = Labelled(texts(TEXTS[0].train))
    drawn = data.relabelled(torch.randint(2, (len(data),), generator=torch.Generator().manual_seed(0)))
    even = OBJECTIVE.losses(Constant({"yes": 0.0, "no": 0.0}), drawn)
    assert even.tolist() == pytest.approx([math.log(2)] * len(data), abs=1e-6)
    for p in (0.3, 0.45, 0.5, 0.6, 0.99):
        loss = float(random_label_loss(torch.tensor([[p, 1 - p]]).expand(8, 2)))
        assert loss == pytest.approx(-(math.log(p) + math.log(1 - p)) / 2, rel=1e-5)
        assert loss >= math.log(2) - 1e-7
    assert float(random_label_loss(torch.full((3, 4), 0.25))) == pytest.approx(math.log(4))


def test_hidden_states_are_those_of_the_last_prompt_token(subject):
    task = subject.tasks[0]
    states = label_states(subject.model, task.learnt, batch_size=5)
    assert len(states) == 2  # the embeddings and one layer
    sample = task.learnt[7]
    prompt = sample["input_ids"][:-1]
    with torch.no_grad():
        alone = subject.model(input_ids=prompt[None], output_hidden_states=True).hidden_states
    for state, own in zip(states, alone, strict=True):
        assert torch.allclose(state[7], own[0, -1], atol=1e-5)
    with pytest.raises(NotApplicable, match="no hidden states"):
        label_states(NoStates(), task.learnt)


class NoStates(Constant):
    def __init__(self) -> None:
        super().__init__({"yes": 1.0})

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
        return self.logits.expand(*input_ids.shape, -1)


def test_rank_correlation():
    assert rank_correlation([1, 2, 5], [3, 4, 9]) == 1
    assert rank_correlation([1, 2, 5], [9, 4, 3]) == -1
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


# -- the method --------------------------------------------------------------------------------------------------------


def forgetting(subject, task, seed=0, **options):
    return RandomLabelForgetting(**options).unlearn(
        subject.model, task.train, objective=OBJECTIVE, recipe=RECIPE, seed=seed
    )


@pytest.mark.parametrize("labels", ["fresh", "fixed", "flipped"])
def test_it_ends_near_chance_and_leaves_the_model_given_alone(subject, labels):
    task = subject.tasks[0]
    before = copy.deepcopy(subject.model.state_dict())
    with Meter() as meter:
        model = forgetting(subject, task, labels=labels, epochs=60, lr=2e-3, batch_size=8)
    assert grip(OBJECTIVE, subject.model, task.learnt).probability > 0.9
    assert abs(meter.log["probability"] - 0.5) < 0.25
    assert meter.log["epochs"] < 60
    assert meter.backward > 0
    assert model is not subject.model
    assert all(torch.equal(before[name], tensor) for name, tensor in subject.model.state_dict().items())


def test_it_is_deterministic_in_its_seed(subject):
    task = subject.tasks[1]
    one, two, other = (forgetting(subject, task, seed, epochs=2) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_fresh_labels_change_every_epoch_and_flipped_ones_are_wrong(subject):
    data = subject.tasks[0].learnt
    flipped = RandomLabelForgetting(labels="flipped")._draw(data, torch.Generator().manual_seed(0))
    assert bool((flipped == 1 - data.truth).all())
    drawn = {kind: labels_seen(kind, subject) for kind in ("fresh", "fixed")}
    assert len({tuple(labels) for labels in drawn["fresh"]}) == 4
    assert len({tuple(labels) for labels in drawn["fixed"]}) == 1
    assert 0.2 < sum(drawn["fixed"][0]) / len(drawn["fixed"][0]) < 0.8


def labels_seen(kind: str, subject: TasksSubject) -> list[list[int]]:
    """The labels of each epoch, in the order of the prompts."""
    seen: list[list[int]] = []

    class Recording(CausalLM):
        def loader(self, dataset, batch_size, shuffle=False, seed=0):
            if shuffle and isinstance(dataset, Labelled):
                seen.append(dataset.truth.tolist())
            return super().loader(dataset, batch_size, shuffle, seed)

    method = RandomLabelForgetting(labels=kind, epochs=4, lr=1e-7, put_aside=0.0)
    method.unlearn(subject.model, subject.tasks[0].train, objective=Recording())
    return seen[1:]  # the first is the loader that counts the steps


def test_training_on_true_labels_gives_no_positive_ratio(subject):
    task = subject.tasks[0]
    halfway = RECIPE.fit(KNOWN, 0, epochs=6)
    more = RECIPE.fit(task.learnt, 0, init=halfway, epochs=25)
    before, after = (grip(OBJECTIVE, m, task.learnt).probability for m in (halfway, more))
    assert before > 0.5
    assert forget_ratio(before, after, 0.5) <= 0


def test_it_saves_and_loads_and_scores_the_same(subject, tmp_path):
    task = subject.tasks[0]
    model = forgetting(subject, task, epochs=2)
    didact.save(model, tmp_path / "m")
    loaded = didact.load(tmp_path / "m")
    assert torch.equal(*(label_probabilities(OBJECTIVE, m, task.unseen) for m in (model, loaded)))
    assert not [*tmp_path.rglob("*.bin"), *tmp_path.rglob("*.pt")]


def test_data_without_texts_and_subword_tokenizers_do_as_well():
    tokenizer = bpe_tokenizer([f"{item.prompt} yes no yes no" for task in TEXTS for item in task.items], 600)
    dataset = TextDataset(TEXTS[5].train, tokenizer)
    model = gpt_tiny(len(tokenizer), hidden=16, layers=1, positions=64)
    tokens = [dataset[i] for i in range(len(dataset))]
    one, two = (RandomLabelForgetting(epochs=1).unlearn(model, data) for data in (dataset, tokens))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_bad_input_to_the_method(subject):
    model = subject.model
    with pytest.raises(BadInput, match="All samples have the same label"):
        RandomLabelForgetting().unlearn(model, texts(TextItem(i.prompt, "yes") for i in TEXTS[0].train))
    with pytest.raises(NotApplicable, match="one token each"):
        RandomLabelForgetting().unlearn(
            model, texts(TextItem(i.prompt, f"{i.answer} {i.answer}") for i in TEXTS[0].train)
        )
    with pytest.raises(BadInput, match="mappings"):
        Labelled(TensorDataset(torch.zeros(2, 1), torch.zeros(2)))
    for wrong in ({"lr": -1}, {"epochs": 0}, {"put_aside": 1.0}, {"labels": "none"}, {"near": -0.1}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            RandomLabelForgetting(**wrong)


# -- the tasks ---------------------------------------------------------------------------------------------------------


def test_tasks_are_balanced_seeded_and_their_halves_are_disjoint():
    made = yes_no_tasks(1, half=180, more=20)
    assert made == yes_no_tasks(1, half=180, more=20)
    assert made != yes_no_tasks(2, half=180, more=20)
    assert [task.name for task in made] == ["home", "trade", "word-class", "greater", "ends", "contains"]
    for task in made:
        prompts = [item.prompt for item in task.items]
        assert len(set(prompts)) == len(prompts)
        for part in (task.train, task.held):
            assert len(part) == 180
            assert sum(item.answer == "yes" for item in part) == 90


def test_answers_to_the_rules_are_right():
    greater, ends, contains = yes_no_tasks(3, half=40, more=20)[3:]
    for item in greater.items:
        _, a, _, _, b, _ = item.prompt.split()
        assert (item.answer == "yes") == (int(a) > int(b))
    for item in ends.items:
        letters = item.prompt.split()[1:5]
        assert (item.answer == "yes") == (letters[0] == letters[-1])
    for item in contains.items:
        _, asked, _, *others = item.prompt.removesuffix(" ?").split()
        assert (item.answer == "yes") == (asked in others)
        assert len(others) == 4


def test_a_fact_has_one_truth():
    home, trade, words = yes_no_tasks(0, half=60)[:3]
    for task in (home, trade, words):
        yes = {item.prompt for item in task.items if item.answer == "yes"}
        no = {item.prompt for item in task.items if item.answer == "no"}
        assert len(yes) == len(no) == 60
        assert not yes & no
    assert any(i.prompt == "Is the word class of apple noun ?" and i.answer == "yes" for i in words.items)


@pytest.mark.parametrize("half", [2, 7, 182])
def test_a_half_of_another_size_is_refused(half):
    with pytest.raises(BadInput, match="4 to 180"):
        yes_no_tasks(0, half=half)


# -- the study ---------------------------------------------------------------------------------------------------------


def test_without_forgetting_every_ratio_is_zero_and_the_probes_are_equal(subject):
    found = ForgettingGeneralization(by="original").run(subject)
    assert found.numbers["fr_train"] == found.numbers["fr_held"] == 0
    assert found.numbers["spill_max"] == found.numbers["spill_min"] == 0
    assert found.numbers["probe_ratio"] == 1
    assert all(row["probe_before"] == row["probe_after"] for row in found.tables["depth"])


def test_findings_of_random_labels(subject, tmp_path):
    before = copy.deepcopy(subject.model.state_dict())
    study = ForgettingGeneralization(by="random-label-forgetting:epochs=30:lr=2e-3:batch_size=8")
    found = study.run(subject, seed=0)
    numbers = found.numbers
    assert numbers["tasks"] == 3
    assert numbers["fr_train"] > 0.5
    own = [numbers[f"fr_held_{task.name}"] for task in subject.tasks]
    assert numbers["fr_held_max"] == max(own)
    assert numbers["fr_held_range"] == pytest.approx(max(own) - min(own))
    assert numbers["train_minus_held"] == pytest.approx(numbers["fr_train"] - sum(own) / 3)
    matrix = found.tables["matrix"]
    assert len(matrix) == 3 * 3 * 2
    held = {r["asked"]: r["forget_ratio"] for r in matrix if r["half"] == "held" and r["forgotten"] == r["asked"]}
    assert [held[task.name] for task in subject.tasks] == own
    others = [r["forget_ratio"] for r in matrix if r["half"] == "held" and r["forgotten"] != r["asked"]]
    assert (numbers["spill_min"], numbers["spill_max"]) == (min(others), max(others))
    for row in matrix:
        expected = forget_ratio(row["probability_before"], row["probability_after"], 0.5)
        assert row["forget_ratio"] == pytest.approx(expected)
    depth = [r for r in found.tables["depth"] if r["task"] == subject.tasks[0].name]
    assert len(depth) == 2
    assert found.numbers == study.run(subject, seed=0).numbers
    assert all(torch.equal(before[name], tensor) for name, tensor in subject.model.state_dict().items())
    found.save(tmp_path)
    assert json.loads((tmp_path / "findings.json").read_text())["numbers"]["tasks"] == 3


def test_a_model_that_says_half_everywhere_has_forgotten_exactly(subject, monkeypatch):
    """The ratio of a model whose label probabilities are all one half is 1, on every task."""

    class Blank(type(make_method("original"))):
        def edit(self, model, request):
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "norm" in name:
                        parameter.zero_()  # the last norm: every logit is zero
            return model

    monkeypatch.setattr("didact.forgetting.unforgettable.study.registry.make_method", lambda reference: Blank())
    found = ForgettingGeneralization().run(subject)
    assert found.numbers["fr_held_min"] == pytest.approx(1.0, abs=1e-6)
    assert found.numbers["spill_min"] == pytest.approx(1.0, abs=1e-6)


def test_the_probe_finds_what_the_head_no_longer_says(subject):
    look = Look.at(subject.model, subject.tasks[0])
    assert len(look.probes) == 2
    assert look.variability > 0


@pytest.mark.parametrize("by", ["fixed", "flipped", "gradient-ascent", "npo"])
def test_the_other_ways_to_forget_run(subject, by):
    found = ForgettingGeneralization(by=by).run(subject)
    assert math.isfinite(found.numbers["fr_held"])


def test_it_is_made_for_its_problem_and_the_problem_for_it():
    problem = make_problem("yes-no-tasks:half=4:layers=1:epochs=1")
    assert problem.lacks(ForgettingGeneralization.card.needs, ()) is None
    assert problem.lacks(RandomLabelForgetting.card.needs, RandomLabelForgetting.card.tasks)
    with pytest.raises(NotApplicable, match="At least two tasks that the model knows"):
        ForgettingGeneralization().solve(problem.given)
    assert problem.score(Findings({"fr_held": 0.5})) == {"fr_held": 0.5}


def test_bad_input_to_the_study(subject):
    train, held = TEXTS[0].train, TEXTS[0].held
    with pytest.raises(BadInput, match="same label"):
        LabelTask("one", texts(i for i in train if i.answer == "yes"), texts(held))
    with pytest.raises(BadInput, match=r"share 24 prompts"):
        LabelTask("same", texts(train), texts(train))
    with pytest.raises(BadInput, match="splits the answers"):
        LabelTask("split", texts(TextItem(i.prompt, f"{i.answer} {i.answer}") for i in train), texts(held))
    with pytest.raises(BadInput, match="none of the task's"):
        LabelTask("other", texts(train), texts(TextItem(i.prompt, "Is") for i in held))
    with pytest.raises(BadInput, match="TasksSubject"):
        ForgettingGeneralization().run("a model")
    with pytest.raises(BadInput, match="no method that unlearns"):
        ForgettingGeneralization(by="unforgettable").run(subject)


@pytest.mark.parametrize("cls", [RandomLabelForgetting, ForgettingGeneralization])
def test_they_are_documented(cls):
    doc = inspect.cleandoc(cls.__doc__)
    assert all(word in doc for word in ("Errors:", "Cost:", "Reference:"))
    assert [p.name for p in cls.hyperparameters() if not p.doc] == []
    assert cls(**json.loads(json.dumps(cls().settings))) == cls()


def test_seeds_do_not_leak(subject):
    with seeded(5):
        first = torch.rand(1)
    with seeded(5):
        ForgettingGeneralization(by="original").run(subject)
        assert torch.equal(torch.rand(1), first)
