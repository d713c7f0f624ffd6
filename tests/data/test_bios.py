"""The invented people: unique names, true answers, real neighbours, and nobody who leaks."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didact.core.errors import BadInput
from didact.data import bios, from_jsonl, to_jsonl
from didact.data.bios import CAPITALS
from didact.data.bios.names import NameMaker


@pytest.fixture(scope="module")
def world():
    return bios(7, 60, mentor=True)


def test_the_seed_decides_everything():
    one, same, other = (bios(seed, 20, mentor=True) for seed in (1, 1, 2))
    assert one.people == same.people
    assert one.qa() == same.qa()
    assert one.texts() == same.texts()
    assert {p.name for p in one.people}.isdisjoint(p.name for p in other.people)


@given(people=st.integers(4, 150), seed=st.integers(0, 10**6), values=st.integers(6, 30))
@settings(max_examples=25, deadline=None)
def test_names_are_unique_and_shared_in_parts(people, seed, values):
    made = bios(seed, people, values=values)
    assert len({p.name for p in made.people}) == people
    if people >= 8:
        for part in ("first", "last"):
            names = [getattr(p, part) for p in made.people]
            assert all(2 <= names.count(name) <= 3 for name in names)
    for attribute, pool in made.pools.items():
        used = [p.facts[attribute] for p in made.people]
        assert len(set(pool)) == values
        assert max(map(used.count, pool)) - min(map(used.count, pool)) <= 1
    aliases = [alias for p in made.people for alias in p.aliases]
    assert len(set(aliases)) == len(aliases)
    for p in made.people:
        for alias in p.aliases[1:]:  # an initial with a surname fits nobody else
            fits = [q for q in made.people if (q.first[0], q.last) == (alias[0], alias.split()[1])]
            assert fits == [p]


def test_no_value_occurs_inside_another(world):
    for pool in world.pools.values():
        for value in pool:
            assert not [other for other in pool if value in other and other != value]


def test_no_name_is_the_beginning_of_another():
    maker = NameMaker(np.random.default_rng(0), frozenset({"Paris"}))
    names = sorted([*maker.make(150, 1), *maker.make(600, 1, closed=True), *maker.make(300)])
    assert len(names) == 1050
    assert "Paris" not in names
    assert not [a for a, b in pairwise(names) if b.startswith(a)]


def test_questions_answers_and_values_agree_with_the_facts(world):
    facts = {(p.name, name): value for p in world.people for name, value in p.facts.items()}
    asked = world.qa()
    assert len(asked) == len(facts) == 60 * 7
    for item in asked:
        assert item.value == facts[item.subject, item.attribute]
        for text in (item.answer, item.paraphrased_answer):
            assert item.value in text
            assert item.subject in text
        assert item.answer != item.paraphrased_answer
        questions = {item.question, *item.question_variants}
        assert len(questions) == 3
        assert all(item.subject in question and item.value not in question for question in questions)


def test_wrong_answers_differ_from_the_paraphrase_in_the_value_only(world):
    for item in [*world.qa(), *world.world()]:
        assert len(set(item.perturbed_answers)) == 5
        before, after = item.paraphrased_answer.split(item.value)
        for wrong in item.perturbed_answers:
            assert item.value not in wrong
            assert wrong.startswith(before)
            assert wrong.endswith(after)


def test_the_four_training_lines(world):
    item = world.qa()[0]
    first, second, third, fourth = item.lines()
    assert first == second == (item.question, item.answer)
    assert third == (item.question_variants[0], item.answer)
    assert fourth == (item.question_variants[1], item.paraphrased_answer)


def test_world_facts_are_real_and_apart_from_the_invented_ones(world):
    asked = world.world()
    assert len(asked) == len(CAPITALS) >= 40
    assert ("France", "Paris") in {(item.subject, item.value) for item in asked}
    invented = {word for p in world.people for word in p.name.split()} | set(world.pools["birthplace"])
    text = " ".join(line for item in asked for pair in item.lines() for line in pair)
    assert invented.isdisjoint(text.split())


@pytest.mark.parametrize("permute", [False, True])
def test_biographies_tell_every_fact_in_different_words(world, permute):
    told = world.biographies(per_person=5, permute=permute)
    assert len({bio.text for bio in told}) == len(told) == 300
    for i, bio in enumerate(told):
        person = world.people[i // 5]
        assert bio.subject == person.name
        assert all(value in bio.text for value in person.facts.values())
        assert bio.text.count(person.name) == 1
        assert bio.text.startswith(person.name) or "had" in bio.text
    for k in range(5, 300, 5):  # a person's five tellings share no wording
        columns = zip(*(bio.wordings for bio in told[k - 5 : k]), strict=True)
        assert all(len(set(column)) == 5 for column in columns)


def test_the_order_of_sentences_is_permuted_on_request(world):
    plain, mixed = (world.biographies(per_person=1, permute=p) for p in (False, True))
    assert all(sorted(a.wordings) == sorted(b.wordings) for a, b in zip(plain, mixed, strict=True))
    cities = [world.people[i].facts["birthplace"] for i in range(60)]
    assert all(city in bio.text.split(" . ")[0] for city, bio in zip(cities, plain, strict=True))
    assert sum(city in bio.text.split(" . ")[0] for city, bio in zip(cities, mixed, strict=True)) < 30


def test_full_names_instead_of_pronouns(world):
    bio = world.biographies(world.people[:1], per_person=1, pronouns=False)[0]
    assert bio.text.count(bio.subject) == 7


def test_more_biographies_keep_the_first_ones(world):
    assert world.biographies(per_person=3)[::3] == world.biographies(per_person=1)


def test_neighbours_share_and_others_do_not(world):
    split = world.split(forget=12, test=12)
    groups = [{p.index for p in group} for group in (split.forget, split.retain, split.test)]
    assert [len(group) for group in groups] == [12, 36, 12]
    assert len(set().union(*groups)) == 60
    for p in split.retain:
        shares = any(
            p.first == q.first or p.last == q.last or p.facts["employer"] == q.facts["employer"] for q in split.forget
        )
        assert shares == (p in split.neighbours)
    assert 0 < len(split.neighbours) < len(split.retain)
    assert world.split(seed=1).forget != split.forget == world.split().forget


def test_mentors_are_other_people_and_entangle(world):
    names = {p.name for p in world.people}
    assert {p.facts["mentor"] for p in world.people} == names
    assert all(p.facts["mentor"] != p.name for p in world.people)
    split = world.split()
    forgotten = {p.name for p in split.forget}
    assert split.entangled
    assert {p.index for p in split.entangled} == {p.index for p in split.retain if p.facts["mentor"] in forgotten}


def test_no_forgotten_name_leaks_into_the_retained_texts():
    world = bios(3, 60)  # without mentors nothing may mention anybody else
    split = world.split()
    forgotten = {name for p in split.forget for name in (p.name, *p.aliases)}
    items = world.qa(split.retain)
    texts = [t for item in items for pair in item.lines() for t in (*pair, *item.perturbed_answers)]
    texts += [bio.text for bio in world.biographies(split.retain, per_person=5)]
    texts += [fact.prompt for fact in world.facts(split.retain)]
    joined = "\n".join(texts)
    assert not [name for name in forgotten if name in joined]
    assert next(iter(split.retain)).name in joined


@given(n=st.integers(4, 40), offset=st.integers(0, 30), fresh=st.booleans())
@settings(max_examples=20, deadline=None)
def test_unseen_people_are_nobody_known(n, offset, fresh):
    world = bios(2, 40, mentor=True)
    others = world.unseen(n, offset=offset, fresh_names=fresh)
    names = {p.name for p in others.people}
    assert len(names) == n
    assert names.isdisjoint(p.name for p in world.people)
    parts = {part for p in world.people for part in (p.first, p.last)}
    known = [part for p in others.people for part in (p.first, p.last) if part in parts]
    assert len(known) == (0 if fresh else 2 * n)
    assert all(p.facts["birthplace"] in world.pools["birthplace"] for p in others.people)
    assert {p.facts["mentor"] for p in others.people} == names
    assert {p.index for p in others.people} == set(range(40 + offset, 40 + offset + n))
    further = world.unseen(4, offset=offset + n, fresh_names=fresh)
    assert names.isdisjoint(p.name for p in further.people)


def test_the_simple_form_has_a_prompt_that_the_value_completes():
    world = bios(0, 120, attributes=3)
    facts = world.facts(attributes=3, templates=3)
    assert len(facts) == 120 * 3 * 3
    assert len({fact.prompt for fact in facts}) == len(facts)
    truth = {p.name: p.facts for p in world.people}
    for fact in facts:
        assert fact.prompt.startswith(fact.subject)
        assert fact.value == truth[fact.subject][fact.attribute]
        assert fact.value not in fact.prompt


def test_questions_survive_a_file(world, tmp_path):
    asked = [*world.qa(), *world.world()]
    path = to_jsonl(asked, tmp_path / "qa.jsonl")
    assert from_jsonl(path) == asked
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(asked)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{not json", "line 2: this is not JSON"),
        ("[1, 2]", "line 2: expected a JSON object"),
        ({"value": None}, "line 2: the field 'value' must be a text"),
        ({"question_variants": "why"}, "'question_variants' must be a list of texts"),
        ({"colour": "red"}, "line 2: the field 'colour' is unknown"),
        ("{}", "line 2: the field 'question' is missing"),
    ],
)
def test_a_malformed_line_is_named(world, tmp_path, change, message):
    path = to_jsonl(world.qa()[:2], tmp_path / "qa.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = change if isinstance(change, str) else json.dumps({**json.loads(lines[1]), **change})
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        from_jsonl(path)


def test_bad_input_is_named(world, tmp_path):
    for arguments, message in [
        ({"people": 3}, "At least 4 people"),
        ({"attributes": 7}, "1 to 6 attributes"),
        ({"values": 5}, "6 to 900 values"),
    ]:
        with pytest.raises(BadInput, match=message):
            bios(0, **arguments)
    with pytest.raises(BadInput, match="no attribute 'shoe'"):
        world.qa(attributes=["shoe"])
    with pytest.raises(BadInput, match="1 to 5 different biographies"):
        world.biographies(per_person=6)
    with pytest.raises(BadInput, match="leave one of 60"):
        world.split(forget=50, test=10)
    with pytest.raises(BadInput, match="fresh_names=True"):
        world.unseen(900)
    with pytest.raises(BadInput, match="no file"):
        from_jsonl(tmp_path / "nothing.jsonl")
