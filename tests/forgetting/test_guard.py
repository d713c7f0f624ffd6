"""Guarded generation: the card's worked values, transformers' own ban as oracle, and what happens when beams die."""

import json
import math

import pytest
import torch
from torch.nn.functional import normalize
from transformers import NoBadWordsLogitsProcessor

import didact
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.data.bios import bios
from didact.data.text import TextDataset, TextItem, prompt_ids
from didact.forgetting import ForbiddenPhrases, GenerationGuard
from didact.forgetting.guard import Encoder, GuardedModel, Retriever, forbidden_phrases
from didact.forgetting.guard.forbidden import TokenTexts
from didact.models.generation import left_padded, respond
from didact.models.language import gpt_tiny, text_classifier
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer
from didact.parts.prompts import PromptClassifier

INF = math.inf


class Case:
    """A few people, a small untrained model and a guard around it."""

    def __init__(self, subwords=False):
        made = bios(0, 14)
        split = made.split(3, 2)
        texts = [*made.texts(), "I do not know ."]
        self.tokenizer = bpe_tokenizer(texts, 400) if subwords else word_tokenizer(texts)
        self.forget, self.retain = (
            TextDataset([TextItem.of(qa) for qa in made.qa(people)], self.tokenizer)
            for people in (split.forget, split.retain)
        )
        torch.manual_seed(0)
        self.model = gpt_tiny(len(self.tokenizer), hidden=16, layers=2, heads=2, feedforward=32, positions=256).eval()
        with torch.no_grad():  # at its own scale an untrained model repeats the last token, whatever came before
            for layer in self.model.model.layers:
                for weight in layer.parameters():
                    weight *= 8 if weight.ndim == 2 else 1

    def solve(self, extras=None, **settings):
        method = GenerationGuard(**{"classifier": "names", **settings})
        return method.unlearn(self.model, self.forget, self.retain, extras=extras, objective=CausalLM())

    def ids(self, data, rows=slice(4)):
        prompts = [prompt_ids(self.tokenizer, item.prompt) for item in data.items[rows]]
        return left_padded(prompts, 0)


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(scope="module")
def subword_case():
    return Case(subwords=True)


OPTIONS = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": 2}


# -- forbidden phrases -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words():
    return word_tokenizer(["he works for Orion Works in Rome and orion works there , workshop art artist"])


def scores_after(tokenizer, text, phrases, **options):
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    processor = ForbiddenPhrases(phrases, tokenizer, **options)
    return processor(ids, torch.zeros(1, len(tokenizer)))[0]


def banned(tokenizer, text, phrases, **options):
    found = scores_after(tokenizer, text, phrases, **options)
    return {tokenizer.decode([i]).strip() for i in (found == -INF).nonzero().flatten().tolist()}


def test_only_the_end_of_a_phrase_is_forbidden(words):
    assert banned(words, "he works for", ["orion works"]) == set()
    assert banned(words, "he works for orion", ["orion works"]) == {"works", "Works"}
    assert banned(words, "he works for Orion", ["orion works"]) == {"works", "Works"}  # whatever the case
    assert banned(words, "orion there", ["orion works"]) == set()
    assert banned(words, "he", ["rome"]) == {"Rome"}
    assert banned(words, "he , orion ,", ["orion works"]) == {"works", "Works"}  # a mark between words hides nothing
    assert banned(words, "he", ["art"]) == {"art"}


def test_what_stands_before_the_answer_does_not_count(words):
    ids = torch.tensor([words.encode("he works for orion", add_special_tokens=False)])
    assert not ForbiddenPhrases(["orion works"], words, start=4)(ids, torch.zeros(1, len(words))).any()
    assert ForbiddenPhrases(["orion works"], words, start=3)(ids, torch.zeros(1, len(words))).any()


def test_token_matching_is_that_of_transformers():
    # Words that have no twin in another case, as transformers compares tokens.
    tokenizer = word_tokenizer(["alpha beta gamma delta"])
    beta, gamma, alpha = tokenizer.encode("beta gamma alpha")
    oracle = NoBadWordsLogitsProcessor([[beta, gamma, alpha], [gamma, beta], [alpha]], eos_token_id=2)
    mine = ForbiddenPhrases(["beta gamma alpha", "gamma beta", "alpha"], tokenizer)
    generator = torch.Generator().manual_seed(0)
    counts = set()
    for _ in range(100):
        ids = torch.randint(4, 8, (1, 4), generator=generator)
        scores = torch.randn(1, len(tokenizer), generator=generator)
        expected = oracle(ids, scores.clone())
        assert torch.equal(mine(ids, scores), expected)
        counts.add(int((expected == -INF).sum()))
    assert counts == {1, 2}


def test_any_segmentation_of_a_subword_tokenizer_is_caught():
    tokenizer = bpe_tokenizer(["orion works in rome", "the orion", "workshop"] * 5, 300)
    target = " orion works"
    caught = 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        # A random way to cut the text into pieces of the vocabulary.
        ids, rest = [], target
        while rest:
            sizes = [n for n in range(1, len(rest) + 1) if len(tokenizer.encode(rest[:n])) == 1]
            size = sizes[int(torch.randint(len(sizes), (1,), generator=generator))]
            ids += tokenizer.encode(rest[:size])
            rest = rest[size:]
        assert tokenizer.decode(ids) == target
        processor = ForbiddenPhrases(["Orion Works"], tokenizer)
        for stop in range(len(ids)):
            found = processor(torch.tensor([ids[:stop]], dtype=torch.long), torch.zeros(1, len(tokenizer)))[0]
            assert (found[ids[stop]] == -INF) == (stop == len(ids) - 1)
        caught += 1
    assert caught == 40


def test_longer_words_stay_possible_in_one_token(words):
    assert "workshop" not in banned(words, "he orion", ["orion works"])
    assert banned(words, "he", ["art"]) == {"art"}


def test_letters_cut_into_bytes_are_caught():
    tokenizer = bpe_tokenizer(["a plain text"], 260)
    ids = tokenizer.encode(" É", add_special_tokens=False)
    assert len(ids) > 1
    found = ForbiddenPhrases(["é"], tokenizer)(torch.tensor([ids[:-1]]), torch.zeros(1, len(tokenizer)))[0]
    assert found[ids[-1]] == -INF


def test_a_list_for_each_prompt_and_its_beams(words):
    orion = words.encode("orion", add_special_tokens=False)
    ids = torch.tensor([orion, orion, orion, orion])
    found = ForbiddenPhrases([["orion works"], ["rome"]], words)(ids, torch.zeros(4, len(words)))
    works, rome = (words.encode(w, add_special_tokens=False)[0] for w in ("works", "Rome"))
    assert (found[:, works] == -INF).tolist() == [True, True, False, False]
    assert (found[:, rome] == -INF).tolist() == [False, False, True, True]


def test_a_soft_penalty_and_wider_scores(words):
    ids = torch.tensor([words.encode("orion", add_special_tokens=False)])
    scores = torch.zeros(1, len(words) + 5)  # a model's vocabulary may be padded
    before = scores.clone()
    found = ForbiddenPhrases(["orion works"], words, penalty=2.5)(ids, scores)
    assert sorted(found.unique().tolist()) == [-2.5, 0.0]
    assert torch.equal(scores, before)


def unit(vectors):
    table = {word: normalize(torch.tensor(v), dim=0) for word, v in vectors.items()}
    return lambda texts: torch.stack([table.get(text, torch.tensor([0.0, 0.0, 1.0])) for text in texts])


def test_a_word_too_close_ends_the_beam(words):
    encode = unit({"Rome": [1.0, 0.0, 0.0], "there": [0.9, 0.3, 0.0], "he": [0.6, 0.8, 0.0]})
    every = len(words)
    assert (scores_after(words, "in there", ["Rome"], encode=encode) == -INF).sum() == every  # cosine .95
    assert banned(words, "in he", ["Rome"], encode=encode) == {"Rome"}  # cosine .6
    assert (scores_after(words, "in he", ["Rome"], encode=encode, delta=0.5) == -INF).sum() == every
    assert banned(words, "in there", ["Rome"], encode=encode, delta=1.01) == {"Rome"}  # above 1: off


def test_words_are_judged_at_their_end():
    tokenizer = bpe_tokenizer(["the re there fore"] * 5, 300)
    encode = unit({"Rome": [1.0, 0.0, 0.0], "there": [1.0, 0.0, 0.0]})
    ids = torch.tensor([tokenizer.encode(" there")])
    found = ForbiddenPhrases(["Rome"], tokenizer, encode=encode)(ids, torch.zeros(1, len(tokenizer)))[0]
    # "therefore" is still possible; a new word, a mark or the end is not.
    assert found[tokenizer.encode("f")[0]] == 0
    assert found[tokenizer.encode(" f")[0]] == -INF
    assert found[tokenizer.encode(".")[0]] == -INF
    assert found[tokenizer.eos_token_id] == -INF


def test_texts_of_tokens():
    tokenizer = bpe_tokenizer(["Orion works"], 300)
    texts = TokenTexts(tokenizer)
    ids = tokenizer.encode("Orion, works")
    assert texts.text(ids) == "orion works"
    assert texts.text([*ids, tokenizer.eos_token_id]) == "orion works "
    assert texts.text([]) == ""


@pytest.mark.parametrize(
    ("phrases", "message"),
    [([], "no phrases to forbid"), (["?!"], "no phrases to forbid"), (["he", "x"], "every token")],
)
def test_bad_phrases(phrases, message):
    tokenizer = word_tokenizer(["he"])
    with pytest.raises(BadInput, match=message):
        ForbiddenPhrases(phrases, tokenizer)


# -- what is forbidden, and where it is looked up ----------------------------------------------------------------------


def test_words_of_the_answer_that_the_question_lacks():
    item = TextItem("Who employs Kato Quill ?", "Kato Quill works for Orion Works .", value="Orion Works")
    assert forbidden_phrases(item) == ("works", "Orion", "Works")
    assert forbidden_phrases(item, "phrases") == ("works", "Orion Works")
    assert forbidden_phrases(item, "values") == ("Orion Works",)
    assert forbidden_phrases(TextItem("Is Kato here ?", "Kato is here .")) == ()


def test_spans_of_documents():
    item = TextItem("", "a b c d e f g h i j")
    assert forbidden_phrases(item) == ("a b c d e f g h", "b c d e f g h i", "c d e f g h i j")
    assert forbidden_phrases(TextItem("", "a b")) == ("a b",)


def test_the_nearest_wording_of_an_item_counts():
    store = [["Kato Quill birthplace", "Kato Quill born"], ["Kato Quill employer"], ["Mira Stone birthplace"]]
    corpus = [text for texts in store for text in texts] + ["Lena Brandt employer", "Lena Brandt birthplace"]
    retriever = Retriever(store, corpus)
    assert retriever.nearest(["born : Kato Quill"], 2) == [[0, 1]]
    assert retriever.nearest(["employer of Kato Quill"], 1) == [[1]]
    assert retriever.nearest(["Mira Stone"], 9) == [[2, 0, 1]]
    exact = retriever.similarities(["Kato Quill employer"])[0]
    assert exact[1] == pytest.approx(1.0)
    assert exact[2] == 0.0


def test_document_frequencies_are_those_of_all_prompts():
    # Within the store "kato" is everywhere and "born" rare; among all prompts it is the other way round.
    store = [["kato born"], ["kato hobby"]]
    others = [f"person{i} born" for i in range(20)]
    alone, whole = (
        Retriever(store, [t for s in store for t in s]),
        Retriever(store, [*others, "kato born", "kato hobby"]),
    )
    frequencies = [dict(zip(r.terms, r.idf.tolist(), strict=True)) for r in (alone, whole)]
    assert frequencies[0]["born"] > frequencies[0]["kato"]
    assert frequencies[1]["born"] < frequencies[1]["kato"]


def test_vectors_are_normalised(case):
    torch.manual_seed(0)
    bert = text_classifier(len(case.tokenizer), 2, hidden=16, layers=1, heads=2).bert.eval()
    for encoder in (Encoder(bert, case.tokenizer), Encoder(None, case.tokenizer, case.model)):
        vectors = encoder.encode(["Where was born", "the hobby of"])
        assert vectors.norm(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    retriever = Retriever([["Where was born"], ["the hobby of"]], (), Encoder(bert, case.tokenizer))
    assert retriever.nearest(["the hobby of"], 1) == [[1]]


# -- the guarded model -------------------------------------------------------------------------------------------------


def always(model, probabilities):
    """The model with the same next-token distribution everywhere."""

    def forced(module, inputs, output):
        logits = torch.full_like(output, -INF)
        for token, p in probabilities.items():
            logits[..., token] = math.log(p)
        return logits

    return model.get_output_embeddings().register_forward_hook(forced)


def guarded(case, phrases, **settings):
    """Every prompt flagged, the phrases the same for all."""
    return GuardedModel(
        case.model,
        case.tokenizer,
        classifier=PromptClassifier("names", names=["Where"]),
        retriever=Retriever([["Where"]], ["Where born", "Who works"]),
        phrases=[phrases],
        **settings,
    )


def test_the_next_best_token_is_picked_and_scored(case):
    first, second, third = 20, 21, 22
    name = case.tokenizer.decode([first])
    made = guarded(case, [name])
    ids = torch.tensor([[1, *case.tokenizer.encode("Where", add_special_tokens=False)]])
    handle = always(case.model, {first: 0.6, second: 0.3, third: 0.1})
    try:
        answer = made.generate(ids, max_new_tokens=1, pad_token_id=0)
        assert answer[0, -1] == second
        found = case.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, num_beams=3, length_penalty=0.0,
            logits_processor=[made.processor([(name,)], ids.shape[1], INF)], return_dict_in_generate=True,
            output_scores=True, pad_token_id=0,
        )  # fmt: skip
        assert found.sequences_scores.item() == pytest.approx(-1.20397, abs=1e-5)
    finally:
        handle.remove()


def test_scores_are_sums_not_means_over_tokens(case):
    first, second = 20, 21
    made = guarded(case, [case.tokenizer.decode([first])])
    ids = torch.tensor([[1, *case.tokenizer.encode("Where", add_special_tokens=False)]])
    handle = always(case.model, {first: 0.2, second: 0.5, case.tokenizer.eos_token_id: 0.3})
    try:
        # Ending at once has log .3; five words have less in sum, but more a token.
        answer = made.generate(ids, max_new_tokens=6, pad_token_id=0, eos_token_id=case.tokenizer.eos_token_id)
        assert answer[0, ids.shape[1]] == case.tokenizer.eos_token_id
    finally:
        handle.remove()


def test_a_refusal_when_every_beam_dies(case):
    first, second = 20, 21
    made = guarded(case, [case.tokenizer.decode([first]), case.tokenizer.decode([second])])
    ids, mask = left_padded(
        [prompt_ids(case.tokenizer, t) for t in ("Where was", "Who", "Where was the birthplace")], 0
    )
    handle = always(case.model, {first: 0.6, second: 0.4})
    try:
        answers = made.generate(ids, mask, max_new_tokens=8, pad_token_id=0, eos_token_id=2)
        texts = case.tokenizer.batch_decode(answers[:, ids.shape[1] :], skip_special_tokens=True)
        assert texts[0] == texts[2] == "I do not know ."
        assert set(answers[1, ids.shape[1] :].tolist()) <= {first, second}  # not flagged: as ever
        assert made.generate(ids[:1], mask[:1], max_new_tokens=2, pad_token_id=0).shape[1] == ids.shape[1] + 2
    finally:
        handle.remove()


def test_unflagged_prompts_get_what_the_model_generates(case):
    made = case.solve()
    ids, mask = case.ids(case.retain)
    for options in ({"num_beams": 5}, {}, {"num_beams": 3, "num_return_sequences": 2}):
        plain = case.model.generate(input_ids=ids, attention_mask=mask, **OPTIONS, **options)
        assert torch.equal(made.generate(ids, mask, **OPTIONS, **options), plain)


def test_mixed_batches_keep_their_order(case):
    made = case.solve()
    prompts = [data.items[i].prompt for i in range(3) for data in (case.forget, case.retain)]
    together = respond(made, case.tokenizer, prompts, max_new_tokens=5)
    alone = [respond(made, case.tokenizer, [prompt], max_new_tokens=5)[0] for prompt in prompts]
    assert together == alone
    ids = case.ids(case.forget, slice(2))[0]
    ids2, mask2 = left_padded([ids[0].tolist(), prompt_ids(case.tokenizer, "Where")], 0)
    found = made.generate(ids2, mask2, **OPTIONS, num_beams=2, num_return_sequences=2)
    assert len(found) == 4
    assert torch.equal(found[:, : ids2.shape[1]], ids2.repeat_interleave(2, 0))


def test_nothing_forbidden_is_said(case):
    made = case.solve(delta=2.0)
    prompts = [item.prompt for item in case.forget.items]
    lists = made.forbidden([prompt_ids(case.tokenizer, p) for p in prompts])
    for text, phrases in zip(respond(made, case.tokenizer, prompts, max_new_tokens=8), lists, strict=True):
        said = f" {' '.join(text.lower().split())} "
        assert phrases
        assert not [p for p in phrases if f" {p.lower()} " in said]


def test_the_phrases_are_those_of_the_nearest_items(case):
    made = case.solve(k=1)
    item = case.forget.items[1]
    assert made.forbidden([prompt_ids(case.tokenizer, item.prompt)]) == [forbidden_phrases(item)]
    assert made.forbidden([prompt_ids(case.tokenizer, case.retain.items[0].prompt), []]) == [None, None]


def test_teacher_forced_passes_take_the_same_penalties_as_numbers(case):
    made = case.solve(k=1, delta=2.0)
    item = case.forget.items[1]
    sample = case.forget[1]
    prompt = sample["labels"] == -100
    found = made(sample["input_ids"][None], None, prompt[None]).logits[0]
    plain = case.model(input_ids=sample["input_ids"][None]).logits[0]
    assert torch.isfinite(found).all()
    last_of_prompt = int(prompt.sum()) - 1
    assert torch.equal(found[:last_of_prompt], plain[:last_of_prompt])
    first_words = {case.tokenizer.encode(p, add_special_tokens=False)[0] for p in forbidden_phrases(item)}
    lowered = (plain - found)[last_of_prompt] > 9999
    assert first_words <= set(lowered.nonzero().flatten().tolist())
    assert len(lowered.nonzero()) < 10
    kept = case.retain[0]
    unflagged = made(kept["input_ids"][None], None, (kept["labels"] == -100)[None]).logits
    assert torch.equal(unflagged, case.model(input_ids=kept["input_ids"][None]).logits)


@pytest.mark.parametrize(
    "settings",
    [
        {"classifier": "hidden"},
        {"classifier": "tfidf", "retriever": "dense", "delta": 0.9, "penalty": 5.0},
        {"encoder": "given", "retriever": "dense"},
        {"extract": "phrases", "delta": 2.0},
    ],
)
def test_it_saves_and_loads(case, settings, tmp_path):
    torch.manual_seed(0)
    bert = text_classifier(len(case.tokenizer), 2, hidden=16, layers=1, heads=2).bert.eval()
    made = case.solve({"encoder": (bert, case.tokenizer)}, **settings)
    didact.save(made, tmp_path / "guard")
    loaded = didact.load(tmp_path / "guard")
    for data in (case.forget, case.retain):
        ids, mask = case.ids(data)
        assert torch.equal(loaded(ids, mask).logits, made(ids, mask).logits)
        assert torch.equal(loaded.generate(ids, mask, **OPTIONS), made.generate(ids, mask, **OPTIONS))
    files = {path.suffix for path in (tmp_path / "guard").rglob("*") if path.is_file()}
    assert files <= {".json", ".safetensors", ".jinja"}
    assert json.loads((tmp_path / "guard" / "config.json").read_text())["options"]["phrases"]


def test_subword_tokens_end_to_end(subword_case):
    made = subword_case.solve(classifier="tfidf")
    items = [*subword_case.forget.items[:4], *subword_case.retain.items[:2]]
    prompts = [item.prompt for item in items]
    after = respond(made, subword_case.tokenizer, prompts, max_new_tokens=8)
    before = respond(subword_case.model, subword_case.tokenizer, prompts, max_new_tokens=8)
    assert after[4:] == before[4:]


def test_documents_are_guarded_by_their_spans(case):
    document = TextItem("", case.forget.items[0].answer + " " + case.forget.items[1].answer)
    forget = case.forget.of([*case.forget.items[:3], document])
    made = GenerationGuard(classifier="tfidf").unlearn(case.model, forget, case.retain, objective=CausalLM())
    assert all(len(phrase.split()) == 8 for phrase in made.phrases[3])


def test_the_model_given_is_left_alone_and_answers_repeat(case):
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    first, second = (case.solve(classifier="hidden") for _ in range(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.model.state_dict().items())
    ids, mask = case.ids(case.forget)
    assert torch.equal(first.generate(ids, mask, **OPTIONS), second.generate(ids, mask, **OPTIONS))


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_settings():
    for settings in ({"k": 0}, {"width": 1}, {"delta": 0}, {"extract": "x"}, {"penalty": -1}):
        with pytest.raises(BadInput, match=next(iter(settings))):
            GenerationGuard(**settings)
    assert json.loads(json.dumps(GenerationGuard().settings))["penalty"] == "inf"
    assert GenerationGuard(**GenerationGuard().settings) == GenerationGuard()


def test_an_empty_store(case):
    bare = case.forget.of([TextItem("Is Kato here ?", "Kato is here .")])
    with pytest.raises(BadInput, match="has a word to forbid"):
        GenerationGuard(classifier="tfidf").unlearn(case.model, bare, case.retain, objective=CausalLM())


def test_a_refusal_that_cannot_be_said(case):
    with pytest.raises(BadInput, match="does not know all words of the refusal"):
        case.solve(refusal="Klaatu barada nikto")


def test_a_dictionary_of_outputs_is_refused(case):
    made = case.solve()
    ids, mask = case.ids(case.forget)
    with pytest.raises(BadInput, match="returns tokens only"):
        made.generate(ids, mask, return_dict_in_generate=True, **OPTIONS)


def test_retained_prompts_are_needed(case):
    with pytest.raises(NotApplicable, match="pass retain="):
        GenerationGuard().unlearn(case.model, case.forget, objective=CausalLM())
