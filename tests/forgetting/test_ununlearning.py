"""Bringing knowledge back in the prompt: the card's exact checks on models whose behaviour is known, bad input."""

from __future__ import annotations

import copy
import inspect
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from didact.core.claim import judge
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.core.registry import make_problem
from didact.data.text import TextDataset, TextItem
from didact.forgetting.request import Request
from didact.forgetting.ununlearning import Fact, InContextReintroduction, Profile, ReadingSubject
from didact.forgetting.ununlearning.arms import Asker, Query
from didact.forgetting.ununlearning.filters import ContentFilter, NearestDocument, make_filter
from didact.forgetting.ununlearning.profiles import words
from didact.forgetting.ununlearning.reading import ReadingWorld
from didact.forgetting.ununlearning.study import Told, chance, contains
from didact.models.language import gpt_tiny
from didact.models.text_generation import CallableGenerator
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer

LAND = ("Norland", "Sudland")


def person(i: int) -> Profile:
    """Somebody with two facts told and one that follows from the city."""
    name = f"First{i} Last{i}"
    homes = (f"{name} lives in City{i} .", f"{name} lives in City{i} now .")
    return Profile(
        name,
        (
            Fact("city", f"City{i}", f"Where does {name} live ?", homes),
            Fact("trade", f"trade{i}", f"What is the trade of {name} ?", (f"{name} works as trade{i} .",)),
            Fact("pet", f"pet{i}", f"Which pet has {name} ?", (f"{name} keeps a pet{i} .",)),
            Fact("land", LAND[i % 2], f"Which country is {name} from ?", premise="city"),
        ),
    )


PEOPLE = [person(i) for i in range(50)]
FORGOTTEN, RETAINED, FRESH = PEOPLE[:6], PEOPLE[6:40], PEOPLE[40:]
PATTERNS = {"live": r"lives in (\w+)", "trade": r"works as (\w+)", "pet": r"keeps a (\w+)"}


class Copycat:
    """Answers with the value that its context names for what is asked; knows in which land a city is."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def respond(self, prompts, max_new_tokens):
        self.asked += prompts
        return [self.one(prompt) for prompt in prompts]

    def one(self, prompt: str) -> str:
        *context, question = re.split(r"(?<= \.) ", prompt)
        told = " ".join(context)
        if "country" in question:
            city = re.search(PATTERNS["live"], told)
            return f"from {LAND[int(city[1].removeprefix('City')) % 2]} ." if city else "I do not know ."
        found = next((re.search(p, told) for word, p in PATTERNS.items() if word in question), None)
        return f"it is {found[1]} ." if found else "I do not know ."


class Knows(Copycat):
    """Besides reading, knows everything by heart."""

    def one(self, prompt: str) -> str:
        found = super().one(prompt)
        if "not know" not in found:
            return found
        return next(f"it is {f.value} ." for p in PEOPLE for f in p.facts if f.question == prompt)


def subject(**changes) -> ReadingSubject:
    made = ReadingSubject(Copycat(), FORGOTTEN, RETAINED, FRESH)
    return replace(made, **changes)


def study(**options) -> InContextReintroduction:
    return InContextReintroduction(**{"approximate": (), "statements": 2, **options})


# -- the experiment ----------------------------------------------------------------------------------------------------


def test_a_model_that_copies_scores_1_with_and_0_without_context():
    numbers = study().run(subject()).numbers
    assert numbers["accuracy_full"] == numbers["accuracy_alias"] == numbers["reading"] == 1
    assert numbers["accuracy_none"] == numbers["accuracy_irrelevant"] == numbers["chance"] == 0
    assert numbers["accuracy_theorem"] == 1
    assert numbers["accuracy_theorem_none"] == 0
    assert numbers["accuracy_retained"] == 0
    assert judge("ununlearning", InContextReintroduction.claim, [{"self": numbers}] * 3, 3).outcome == "holds"


def test_text_generators_are_asked_like_any_model():
    generator = CallableGenerator(lambda messages: Copycat().one(messages[-1]["content"]), "copycat")
    with Meter() as meter:
        numbers = study().run(subject(model=generator)).numbers
    assert numbers == study().run(subject()).numbers
    assert (meter.log["backend"], meter.log["evidence"]) == ("copycat", "orchestration check")


def test_a_model_that_was_not_unlearned_breaks_the_claim():
    numbers = study().run(subject(model=Knows())).numbers
    assert numbers["accuracy_none"] == numbers["accuracy_retained"] == 1
    assert numbers["chance"] == pytest.approx(1 / len(PEOPLE))  # every value belongs to one person
    assert judge("ununlearning", InContextReintroduction.claim, [{"self": numbers}] * 3, 3).outcome == "fails"


def test_leak_rates_are_what_is_right_and_not_blocked():
    numbers = study().run(subject()).numbers
    # The prompt names the person in the full arm and does not under the alias.
    assert numbers["block_full_prompt_name"] == 1
    assert numbers["leak_full_prompt_name"] == 0
    assert numbers["block_alias_prompt_name"] == 0
    assert numbers["leak_alias_prompt_name"] == 1
    # The answers never name anybody, and always the value.
    assert numbers["block_full_answer_name"] == 0
    assert numbers["leak_full_answer_name"] == 1
    assert numbers["block_alias_answer_value"] == 1
    assert numbers["leak_alias_answer_value"] == 0
    assert numbers["false_block_prompt_name"] == numbers["false_block_answer_value"] == 0
    assert numbers["false_block_semantic"] <= 0.2


def test_a_filter_that_blocks_everything_leaks_nothing(monkeypatch):
    class All(ContentFilter):
        def blocks(self, prompts, answers):
            return np.ones(len(prompts), dtype=bool)

    monkeypatch.setattr("didact.forgetting.ununlearning.study.make_filter", lambda *arguments: All())
    numbers = study(filters=("semantic",)).run(subject()).numbers
    assert numbers["leak_full_semantic"] == numbers["leak_alias_semantic"] == 0
    assert numbers["block_full_semantic"] == numbers["false_block_semantic"] == 1


def test_a_model_that_cannot_read_is_not_judged():
    class Deaf:
        def respond(self, prompts, max_new_tokens):
            return ["I do not know ."] * len(prompts)

    with pytest.raises(NotApplicable, match=r"cannot read: .* 0% "):
        study().run(subject(model=Deaf()))
    assert study(reads=0).run(subject(model=Deaf())).numbers["accuracy_full"] == 0


def test_it_is_deterministic_and_findings_are_saved(tmp_path):
    first, second, other = (study().run(subject(), seed=seed) for seed in (0, 0, 1))
    assert (first.numbers, first.tables) == (second.numbers, second.tables)
    assert first.tables["examples"] != other.tables["examples"]
    first.save(tmp_path)
    saved = json.loads((tmp_path / "findings.json").read_text())
    arms = {row["arm"]: row for row in saved["tables"]["arms"]}
    assert arms["alias"]["leaked past prompt_name"] == 1
    assert arms["retained"]["blocked by prompt_name"] == 0


# -- the arms ----------------------------------------------------------------------------------------------------------


def asker(statements: int = 2, shots: int = 0, seed: int = 0) -> Asker:
    return Asker(FRESH, "profile : {statements} {question}", statements, shots, seed)


def test_contexts_hold_what_their_arm_says():
    for query in asker().ask("full", FORGOTTEN):
        assert query.prompt.startswith("profile : ")
        assert query.prompt.count(" . ") == 2
        assert query.value in query.prompt
    for query in asker().ask("none", FORGOTTEN):
        assert query.prompt.endswith("?")
        assert "profile" not in query.prompt
    for query in asker().ask("irrelevant", FORGOTTEN):
        assert not contains(query.value, query.prompt)
        assert query.subject in query.prompt
        assert any(p.name in query.prompt for p in FRESH)
    theorem = asker().ask("theorem", FORGOTTEN)
    assert len(theorem) == len(FORGOTTEN)
    for query in theorem:
        assert query.value in LAND
        assert query.value not in query.prompt
        assert query.subject in query.prompt
        assert "lives in" in query.prompt


def test_the_asked_fact_stands_at_any_place():
    first = [query.value in query.prompt.split(" . ")[0] for query in asker(3).ask("full", PEOPLE)]
    assert 0.2 < sum(first) / len(first) < 0.47


def test_an_alias_has_no_word_of_a_forgotten_name():
    forbidden = set().union(*(words(p.name) for p in FORGOTTEN))
    queries = asker().ask("alias", FORGOTTEN)
    assert len(queries) == 3 * len(FORGOTTEN)
    for query in queries:
        assert not words(query.prompt) & forbidden
        assert query.value in query.prompt
    with pytest.raises(BadInput, match="there is no alias"):
        Asker([Profile("First0 Last43", FRESH[0].facts)] * 4, "{statements} {question}", 2, 0, 0).ask(
            "alias", FORGOTTEN
        )


def test_renaming_refuses_what_would_give_the_name_away():
    kato = Profile(
        "Kato Quill", (Fact("city", "Velmere", "Where was Kato Quill born ?", ("Quill hails from Velmere .",)),)
    )
    with pytest.raises(BadInput, match="apart from the full name"):
        kato.renamed("Bram Stole")
    with pytest.raises(BadInput, match="shares quill"):
        kato.renamed("Bram Quill")
    plain = Profile(
        "Kato Quill", (Fact("city", "Velmere", "Where was kato  Quill born ?", ("He hails from Velmere .",)),)
    )
    assert plain.renamed("Bram Stole").facts[0].question == "Where was Bram Stole born ?"


def test_worked_examples_come_first():
    for query in asker(shots=2).ask("full", FORGOTTEN):
        assert query.prompt.count("profile :") == 3
        assert query.prompt.endswith("?")
        assert all(p.name not in query.prompt.split("profile :")[1] for p in FORGOTTEN)
    for query in asker(shots=3).ask("full", FRESH):
        assert query.subject not in query.prompt[: query.prompt.rindex("profile :")]


# -- filters and measures ----------------------------------------------------------------------------------------------


def test_values_count_as_whole_words():
    assert contains("Velmere", "Kato was born in velmere .")
    assert not contains("Velmere", "Kato was born in Velmeres .")
    assert contains("Roabo Lines", "works for Roabo  Lines.")


def test_chance_is_the_mean_share_of_people_an_answer_fits():
    queries = [Query("?", "City0", "city", "x"), Query("?", "Norland", "land", "x")]
    assert chance(Told(queries, ["in City3 .", "from Norland ."]), PEOPLE) == pytest.approx((1 / 50 + 25 / 50) / 2)


def test_the_semantic_threshold_keeps_its_share():
    documents = [s for p in FORGOTTEN for f in p.facts for s in f.statements]
    harmless = [(f.question, f"it is {f.value} .") for p in RETAINED for f in p.facts]
    order = np.random.default_rng(0).permutation(len(harmless)).tolist()
    harmless = [harmless[i] for i in order]
    known, new = harmless[:82], harmless[82:]
    made = NearestDocument(documents, known, alpha=0.1)
    assert made.blocks(*zip(*new, strict=True)).mean() <= 0.3
    # The threshold is the k-th smallest nearness of n = 41 harmless exchanges, k = 0.9 (n + 1) rounded up.
    nearness = np.sort(made.nearness([f"{prompt} {answer}" for prompt, answer in known[41:]]))
    assert made.threshold == nearness[37]
    asked = [(q.prompt, "") for q in asker().ask("full", FORGOTTEN)]
    near = made.nearness([f"{prompt} {answer}" for prompt, answer in asked])
    assert (made.blocks(*zip(*asked, strict=True)) == (near > made.threshold)).all()
    assert near.max() < 0.999
    assert made.blocks(*zip(*asked, strict=True)).any()
    texts = [(s, "") for s in documents]
    assert made.blocks(*zip(*texts, strict=True)).all()
    assert made.nearness(documents).tolist() == pytest.approx([1.0] * len(documents))
    with pytest.raises(BadInput, match="needs documents"):
        NearestDocument([], harmless)


def test_name_filters_look_where_they_should():
    on_prompt, on_answer = (make_filter(n, FORGOTTEN, [], [], 0.05) for n in ("prompt_name", "answer_name"))
    name = FORGOTTEN[0].name
    assert on_prompt.blocks([f"Who is {name} ?", "Who ?"], ["nobody", name]).tolist() == [True, False]
    assert on_answer.blocks([f"Who is {name} ?", "Who ?"], ["nobody", name.upper()]).tolist() == [False, True]


# -- models of any make ------------------------------------------------------------------------------------------------


def tokens_of(tokenizer_maker):
    texts = ["profile :"]
    for p in PEOPLE:
        for f in p.facts:
            texts += [f.question, f.value, *f.statements]
    return tokenizer_maker(texts)


@pytest.mark.parametrize("maker", [word_tokenizer, lambda texts: bpe_tokenizer(texts, 500)])
def test_hugging_face_models_with_any_tokenizer(maker):
    tokenizer = tokens_of(maker)
    model = gpt_tiny(len(tokenizer), hidden=16, layers=1, positions=256)
    before = copy.deepcopy(model.state_dict())
    asked = {"arms": ("none", "full"), "filters": ("prompt_name",), "max_new_tokens": 2}
    numbers = study(**asked, reads=0).run(subject(model=model, tokenizer=tokenizer)).numbers
    assert set(numbers) >= {"accuracy_none", "accuracy_full", "chance", "leak_full_prompt_name"}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(BadInput, match=r"positions, but the model has 256"):
        study(**asked, reads=0, shots=30).run(subject(model=model, tokenizer=tokenizer))


def test_approximate_methods_run_on_the_request():
    tokenizer = tokens_of(word_tokenizer)
    model = gpt_tiny(len(tokenizer), hidden=16, layers=1)
    forget, retain = (
        TextDataset((TextItem(f.question, f.value, f.value, p.name) for p in people for f in p.stated), tokenizer)
        for people in (FORGOTTEN, RETAINED)
    )
    request = Request(model, forget, retain, CausalLM(), extras={"text": tokenizer})
    own = subject(model=model, tokenizer=tokenizer, request=request)
    found = study(reads=0, approximate=("npo:epochs=1", "eco:steps=1"), arms=("none", "full"), max_new_tokens=2).run(
        own
    )
    assert [row["model"] for row in found.tables["models"]] == ["original", "npo", "eco"]
    assert "accuracy_full_eco" in found.numbers
    with pytest.raises(BadInput, match="no method that unlearns"):
        study(reads=0, approximate=("ununlearning",), max_new_tokens=2).run(own)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_forgotten_people_in_training_are_found():
    clean = [s for p in RETAINED for f in p.facts for s in f.statements]
    assert study().run(subject(training=clean)).numbers["accuracy_none"] == 0
    leak = [*clean, f"As {FORGOTTEN[2].name.lower()} said ."]
    with pytest.raises(BadInput, match=r"trained on a text about 'first2 last2'"):
        study().run(subject(training=leak))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forgotten": []}, "no forgotten people"),
        ({"retained": [Profile("A B", ())]}, "no retained people"),
        ({"fresh": FRESH[:3]}, "At least 4 fresh"),
        ({"template": "{question}"}, "must hold"),
        ({"model": object()}, "tokenizer"),
        ({"retained": [*RETAINED, FORGOTTEN[0]]}, "at the same time"),
    ],
)
def test_subjects_that_show_nothing_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        study().run(subject(**changes))


def test_bad_hyperparameters_are_refused():
    for wrong in ({"statements": 0}, {"arms": ("everything",)}, {"filters": ("none",)}, {"reads": 2}, {"alpha": 0}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            InContextReintroduction(**wrong)
    with pytest.raises(BadInput, match="ReadingSubject"):
        InContextReintroduction().run("a model")


# -- the embedded workpiece --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> ReadingWorld:
    return ReadingWorld.make(0, people=28, forget=4)


def full_names(world: ReadingWorld) -> set[tuple[int, ...]]:
    encode = world.setting.tokenizer.encode
    return {tuple(encode(name, add_special_tokens=False)) for name in world.forgotten_names}


def has(name: tuple[int, ...], ids: list[int]) -> bool:
    return any(tuple(ids[i : i + len(name)]) == name for i in range(len(ids)))


def test_the_training_stream_holds_no_forgotten_full_name(world):
    names = full_names(world)
    assert all(len(name) == 2 for name in names)  # first name and surname are words of the tokenizer
    stream = [world.lines(world.retained), *(world.reading(300, epoch) for epoch in range(3))]
    rows = [sample["input_ids"].tolist() for part in stream for sample in (part[i] for i in range(len(part)))]
    assert not any(has(name, row) for name in names for row in rows)
    everything = world.lines(world.setting.bios.people)
    rows = [everything[i]["input_ids"].tolist() for i in range(len(everything))]
    assert all(any(has(name, row) for row in rows) for name in names)  # so the scan would have found one


def test_reading_examples_are_redrawn_and_answered_by_their_context(world):
    first, again, next_epoch = world.reading(200, 0), world.reading(200, 0), world.reading(200, 1)
    assert first.items == again.items
    assert len({i.prompt for i in first.items} & {i.prompt for i in next_epoch.items}) == 0
    pools = world.setting.bios.pools
    fresh = {person.name for person in world.fresh.people}
    unknown = world.setting.tokenizer.unk_token_id
    for item, sample in zip(first.items, (first[i] for i in range(200)), strict=True):
        told = [value for pool in pools.values() for value in pool if contains(value, item.prompt)]
        assert len(told) == 3
        lands = [world.country[value] for value in told if value in world.country]
        assert sum(contains(value, item.answer) for value in (*told, *lands)) == 1
        assert not any(name in item.prompt for name in fresh)
        assert unknown not in sample["input_ids"]


def test_the_problem_is_cached_seeded_and_refused_when_it_cannot_read():
    options = "bios-reading:people=28:forget=4:layers=1:epochs=1"
    first, again = (make_problem(options, seed=0) for _ in range(2))
    one, two = (p.given.subject for p in (first, again))
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    assert first.lacks(InContextReintroduction.card.needs, ()) is None
    assert len(one.forgotten) == 4
    assert len(one.retained) == 24
    one.check()
    with pytest.raises(NotApplicable, match="cannot read"):
        InContextReintroduction().solve(first.given)


def test_it_is_documented():
    doc = inspect.cleandoc(InContextReintroduction.__doc__)
    assert all(word in doc for word in ("Errors:", "Cost:", "Reference:"))
    assert [p.name for p in InContextReintroduction.hyperparameters() if not p.doc] == []
    method = InContextReintroduction()
    assert InContextReintroduction(**json.loads(json.dumps(method.settings))) == method
