"""Embedding-corrupted prompts: the card's worked values, and that only flagged prompts are ever touched."""

import json

import pytest
import torch

import didact
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.data.bios import bios
from didact.data.text import TextDataset, TextItem, prompt_ids
from didact.forgetting import EmbeddingCorruption
from didact.forgetting.eco import CORRUPTIONS, EmbeddingCorruptedModel, corrupted, search, search_vector
from didact.forgetting.eco.corruptions import FIXED
from didact.forgetting.eco.strength import next_strength
from didact.forgetting.eco.tokens import TokenClassifier, decoded
from didact.forgetting.language.detection import lookalikes
from didact.models.generation import left_padded, respond
from didact.models.language import gpt_tiny, text_classifier
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer
from didact.parts.prompts import PromptClassifier


class Case:
    """A few people, a small untrained model and a guard around it."""

    def __init__(self, subwords=False):
        made = bios(0, 14)
        split = made.split(3, 2)
        texts = [*made.texts(), "I do not know ."]
        self.tokenizer = bpe_tokenizer(texts, 400) if subwords else word_tokenizer(texts)
        self.forget, self.retain, self.unknown = (
            TextDataset([TextItem.of(qa) for qa in made.qa(people)], self.tokenizer)
            for people in (split.forget, split.retain, split.test)
        )
        torch.manual_seed(0)
        self.model = gpt_tiny(len(self.tokenizer), hidden=16, layers=2, heads=2, feedforward=32, positions=256).eval()
        with torch.no_grad():  # at its own scale an untrained model repeats the last token, whatever came before
            for layer in self.model.model.layers:
                for weight in layer.parameters():
                    weight *= 8 if weight.ndim == 2 else 1

    def solve(self, extras=None, **settings):
        method = EmbeddingCorruption(**{"strength": 3.0, **settings})
        return method.unlearn(self.model, self.forget, self.retain, extras=extras, objective=CausalLM())

    def ids(self, data, rows=slice(4)):
        """Left-padded prompts of a data set with their mask."""
        prompts = [prompt_ids(self.tokenizer, item.prompt) for item in data.items[rows]]
        return left_padded(prompts, 0)


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(scope="module")
def subword_case():
    return Case(subwords=True)


# -- the search --------------------------------------------------------------------------------------------------------


def test_one_step_of_the_search():
    strength, gradient = next_strength(0.1, 0.30, 0.50, eps=0.0999, lr=100.0, lowest=0.1)
    assert gradient == pytest.approx(-1.001, abs=1e-4)
    assert strength == pytest.approx(100.20, abs=1e-2)


def test_strength_never_falls_below_the_lowest():
    assert next_strength(0.1, 0.50, 0.30, eps=0.0999, lr=100.0, lowest=0.1)[0] == 0.1


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_search_tries_both_sides(keep):
    asked = []

    def distance(strength):
        asked.append(strength)
        return abs(strength - 2.0)

    found = search(distance, lr=1.0, steps=5, tolerance=0.0, keep=keep)
    assert asked[:2] == pytest.approx([0.1999, 0.0001])
    assert asked[2:4] == pytest.approx([1.1999, 1.0001])  # the gradient is -1: 0.1 + 1 * 1
    # 1.1, 2.1, 1.1, 2.1, 1.1: to and fro around the target.
    assert found.strength == pytest.approx(1.1 if keep == "last" else min(asked, key=lambda s: abs(s - 2.0)))
    assert found.distance == distance(found.strength)
    assert len(found.tried) == 11
    assert len(search(lambda s: 0.0, steps=5).tried) == 2  # at the reference already


def test_the_vector_search_moves_along_its_directions():
    target = torch.tensor([2.0, 0.5])
    found = search_vector(
        lambda s: float((s - target).square().sum()), 2, generator=torch.Generator().manual_seed(0), lr=0.5, steps=60
    )
    assert found.distance < 0.05
    assert found.strength.min() >= 0.1 - 0.0999


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_strength_found_makes_the_model_as_unsure_as_it_says(case, keep):
    objective = CausalLM()
    strong = case.solve(strength=8.0)
    wanted = float(torch.exp(-objective.losses(strong, case.forget)).mean())
    with didact.core.cost.Meter() as meter:
        # The probabilities of an untrained model hardly move: a larger rate.
        found = case.solve(strength="auto", reference=wanted, lr=1e6, steps=5, tolerance=0.0, keep=keep)
    best = min(distance for _, distance in meter.log["tried"])
    assert meter.log["distance"] == (best if keep == "best" else meter.log["tried"][-1][1])
    assert meter.log["reference"] == wanted
    got = float(torch.exp(-objective.losses(found, case.forget)).mean())
    assert abs(got - wanted) == pytest.approx(meter.log["distance"], abs=1e-8)


def test_the_reference_is_what_the_model_gives_strangers(case):
    with didact.core.cost.Meter() as meter:
        case.solve({"unknown": case.unknown}, strength="auto", steps=1)
    expected = float(torch.exp(-CausalLM().losses(case.model, case.unknown)).mean())
    assert meter.log["reference"] == pytest.approx(expected, rel=1e-5)
    with didact.core.cost.Meter() as meter:
        case.solve(strength="auto", steps=1)
    assert meter.log["reference"] == 0.0  # without strangers it is pushed down


def test_a_vector_of_strengths(case, tmp_path):
    made = case.solve({"unknown": case.unknown}, strength="auto", vector=True, dims=3, steps=2)
    assert made.strength.shape == (3,)
    didact.save(made, tmp_path / "eco")
    assert torch.equal(didact.load(tmp_path / "eco").strength, made.strength)


# -- the corruptions ---------------------------------------------------------------------------------------------------


def rows():
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


def damaged(x, name, dims, strength=1.0, seed=0):
    return corrupted(x, name, dims, strength, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in FIXED and not name.startswith("set")])
def test_no_strength_is_the_identity(name):
    assert torch.equal(damaged(rows(), name, 3, 0.0), rows())


@pytest.mark.parametrize("name", ["flip_sign_top_k", "flip_sign_first_n", "reverse_order"])
def test_twice_is_the_identity(name):
    once = damaged(rows(), name, 3)
    assert not torch.equal(once, rows())
    assert torch.equal(damaged(once, name, 3), rows())


def test_all_dimensions_zeroed():
    assert not damaged(rows(), "zero_out_top_k", 8).any()
    assert not damaged(rows(), "zero_out_first_n", 8).any()


@pytest.mark.parametrize("name", list(CORRUPTIONS))
def test_the_input_is_left_alone_and_the_seed_decides(name):
    x = rows()
    first, second = damaged(x, name, 2), damaged(x, name, 2)
    assert torch.equal(x, rows())
    assert torch.equal(first, second)
    assert first.shape == x.shape


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("rand_noise_first_n", lambda x: [[0, 1]] * 5),
        ("set_rand_noise_first_n", lambda x: [[0, 1]] * 5),
        ("zero_out_first_n", lambda x: [[0, 1]] * 5),
        ("flip_sign_first_n", lambda x: [[0, 1]] * 5),
        ("add_value_first_n", lambda x: [[0, 1]] * 5),
        ("sub_value_first_n", lambda x: [[0, 1]] * 5),
        ("rand_noise_top_k", lambda x: x.abs().argsort(1)[:, -2:].tolist()),
        ("zero_out_top_k", lambda x: x.abs().argsort(1)[:, -2:].tolist()),
        ("flip_sign_top_k", lambda x: x.abs().argsort(1)[:, -2:].tolist()),
        ("sub_value_top_k", lambda x: x.argsort(1)[:, -2:].tolist()),
        ("add_value_least_k", lambda x: x.argsort(1)[:, :2].tolist()),
    ],
)
def test_where_a_corruption_acts(name, places):
    changed = damaged(rows(), name, 2) != rows()
    assert [row.nonzero().flatten().tolist() for row in changed] == [sorted(p) for p in places(rows())]


def test_what_a_corruption_does():
    x = rows()
    drawn = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(damaged(x, "rand_noise_first_n", 2, 3.0)[:, :2], x[:, :2] + 3 * drawn)
    assert torch.allclose(damaged(x, "set_rand_noise_first_n", 2, 3.0)[:, :2], 3 * drawn)
    assert torch.allclose(damaged(x, "add_value_first_n", 2, 3.0)[:, :2], x[:, :2] + 3)
    assert torch.allclose(damaged(x, "sub_value_first_n", 2, 3.0)[:, :2], x[:, :2] - 3)
    assert torch.equal(damaged(x, "reverse_order", 2), x.flip(0))
    assert sorted(damaged(x, "shuffle", 2)[:, 0].tolist()) == sorted(x[:, 0].tolist())
    touched = (damaged(x, "rand_noise_rand_n", 3) != x).any(0)
    assert touched.sum() == 3
    assert torch.equal((damaged(x, "rand_noise_rand_n", 3) != x).all(0), touched)  # the same for every token


# -- the guarded model -------------------------------------------------------------------------------------------------


def test_unflagged_rows_are_bitwise_the_base_models(case):
    made = case.solve(tokens="all")
    ids, mask = left_padded([prompt_ids(case.tokenizer, d.items[0].prompt) for d in (case.forget, case.retain)], 0)
    plain, guarded = case.model(input_ids=ids, attention_mask=mask).logits, made(ids, mask).logits
    assert torch.equal(plain[1], guarded[1])
    assert not torch.allclose(plain[0], guarded[0])
    ids, mask = case.ids(case.retain)
    assert torch.equal(case.model(input_ids=ids, attention_mask=mask).logits, made(ids, mask).logits)


def test_corruption_is_that_of_the_embeddings_of_all_but_the_last_token(case):
    made = EmbeddingCorruptedModel(case.model, case.tokenizer, dims=2, strength=3.0, seed=5)
    ids = case.ids(case.forget, slice(1))[0]
    embeddings = case.model.get_input_embeddings()(ids).detach().clone()
    seed = made.pattern(ids, torch.ones_like(ids)).seeds[0]
    noise = torch.randn(ids.shape[1] - 1, 2, generator=torch.Generator().manual_seed(seed))
    embeddings[0, :-1, :2] += 3 * noise
    assert torch.allclose(made(ids).logits, case.model(inputs_embeds=embeddings).logits, atol=1e-6)


def test_the_answer_is_never_corrupted(case):
    made = EmbeddingCorruptedModel(case.model, case.tokenizer, dims=2, strength=3.0)
    sample = case.forget[0]
    ids, prompt = sample["input_ids"][None], (sample["labels"] == -100)[None]
    pattern = made.pattern(ids, prompt)
    length = int(prompt.sum())
    assert pattern.mask[0].tolist() == [True] * (length - 1) + [False] * (ids.shape[1] - length + 1)
    other = ids.clone()
    other[0, -2] = 7
    assert torch.equal(made(ids, None, prompt).logits[0, :length], made(other, None, prompt).logits[0, :length])


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_agrees_with_teacher_forced_passes(case, use_cache):
    """One noise for the whole request: prefill with a cache, re-forwarding without, and a later pass agree."""
    made = EmbeddingCorruptedModel(case.model, case.tokenizer, dims=4, strength=3.0)
    ids, mask = case.ids(case.forget)
    whole = made.generate(
        ids, mask, max_new_tokens=6, do_sample=False, use_cache=use_cache, eos_token_id=None, pad_token_id=0
    )
    plain = case.model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False, eos_token_id=None
    )
    assert not torch.equal(whole, plain)
    for row in range(len(ids)):
        sequence = whole[row][mask[row].argmax() :][None]
        prompt = torch.zeros_like(sequence)
        prompt[:, : int(mask[row].sum())] = 1
        predicted = made(sequence, None, prompt).logits.argmax(-1)[0, int(mask[row].sum()) - 1 : -1]
        assert predicted.tolist() == whole[row, ids.shape[1] :].tolist()


def test_beams_see_the_same_noise(case):
    made = EmbeddingCorruptedModel(case.model, case.tokenizer, dims=4, strength=3.0)
    ids, mask = case.ids(case.forget)
    options = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    together = made.generate(ids, mask, **options)
    for row in range(len(ids)):
        alone = made.generate(ids[row : row + 1], mask[row : row + 1], **options)
        assert torch.equal(alone[0], together[row])


def test_other_hooks_stay(case):
    calls = []
    embeddings = case.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda module, inputs, output: calls.append(output))
    made = EmbeddingCorruptedModel(case.model, case.tokenizer, dims=4, strength=3.0)
    ids, mask = case.ids(case.forget)
    made(ids, mask)
    assert torch.equal(calls[0], embeddings.weight[ids])  # the output that others hold is not changed in place
    made.generate(ids, mask, max_new_tokens=2, pad_token_id=0)
    assert list(embeddings._forward_hooks) == [handle.id]
    with pytest.raises(ValueError, match="stop"), made.corrupting(made.pattern(ids, mask)):  # also when a pass fails
        raise ValueError("stop")
    assert list(embeddings._forward_hooks) == [handle.id]
    assert calls
    handle.remove()


def test_the_model_given_is_left_alone(case):
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    case.solve(tokens="all")
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.model.state_dict().items())


# -- which prompts, which tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("subwords", [False, True])
def test_names_are_mapped_to_the_models_tokens(case, subword_case, subwords):
    tokenizer = (subword_case if subwords else case).tokenizer
    item = case.forget.items[0]
    ids = prompt_ids(tokenizer, item.prompt)
    chosen = TokenClassifier([item.subject]).chosen(ids, tokenizer)
    text = tokenizer.decode([i for i, kept in zip(ids, chosen, strict=True) if kept])
    assert text.strip() == item.subject
    assert TokenClassifier(["Nobody Here"]).chosen(ids, tokenizer) == [True] * (len(ids) - 1) + [False]


def test_places_of_tokens_cover_the_text(subword_case):
    ids = prompt_ids(subword_case.tokenizer, "Où est Käto ?")
    text, places = decoded(ids, subword_case.tokenizer)
    assert text == "Où est Käto ?"
    assert places[-1][1] == len(text)


def test_a_token_classifier_marks_what_it_tags(case, tmp_path):
    from transformers import BertForTokenClassification

    torch.manual_seed(0)
    config = text_classifier(len(case.tokenizer), 2, hidden=16, layers=1, heads=2).config
    tagger = BertForTokenClassification(config).eval()
    item = case.forget.items[0]
    first = case.tokenizer.encode(item.subject.split()[0], add_special_tokens=False)[0]
    with torch.no_grad():  # one that tags the first name and nothing else: its embedding alone has a large first number
        tagger.bert.embeddings.word_embeddings.weight.zero_()
        tagger.bert.embeddings.position_embeddings.weight.zero_()
        tagger.bert.embeddings.token_type_embeddings.weight.zero_()
        tagger.bert.embeddings.word_embeddings.weight[first, 0] = 30.0
        tagger.bert.encoder.layer = torch.nn.ModuleList()
        tagger.classifier.weight.zero_()
        tagger.classifier.weight[1, 0], tagger.classifier.bias[0], tagger.classifier.bias[1] = 1.0, 0.5, 0.0
    tagger.config.num_hidden_layers = 0
    tagger.config.id2label = {0: "O", 1: "B-PER"}
    made = case.solve({"token_classifier": (tagger, case.tokenizer)}, tokens="given")
    ids, mask = case.ids(case.forget, slice(1))
    marked = made.pattern(ids, mask).mask[0]
    assert ids[0][marked].tolist() == [first]
    didact.save(made, tmp_path / "eco")
    assert torch.equal(didact.load(tmp_path / "eco")(ids, mask).logits, made(ids, mask).logits)


def test_flag_and_token(case):
    made = case.solve(tokens="names")
    ids, mask = left_padded([prompt_ids(case.tokenizer, d.items[0].prompt) for d in (case.forget, case.retain)], 0)
    pattern = made.pattern(ids, mask)
    assert pattern.mask.sum(1).tolist() == [2, 0]
    assert case.tokenizer.decode(ids[0][pattern.mask[0]]) == case.forget.items[0].subject
    assert not made.pattern(ids, torch.zeros_like(mask)).mask.any()  # no prompt, no corruption


def test_lookalikes_share_parts_with_forgotten_names_and_are_none(case):
    names = list(dict.fromkeys(item.subject for item in case.forget.items))
    made = lookalikes(case.forget.items, names, 0)
    assert made
    for item in made:
        first, last = item.subject.split()
        assert item.subject not in names
        assert first in {n.split()[0] for n in names}
        assert last in {n.split()[1] for n in names}
        assert item.subject in item.prompt


def test_a_calibrated_threshold(case):
    with didact.core.cost.Meter() as meter:
        case.solve(alpha=0.1)
    assert meter.log["threshold"] != 0.5


# -- saving, and data of one's own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("classifier", ["tfidf", "hidden", "names", "given"])
def test_it_saves_and_loads(case, classifier, tmp_path):
    extras = {}
    if classifier == "given":
        torch.manual_seed(0)
        bert = text_classifier(len(case.tokenizer), 2, hidden=16, layers=1, heads=2).eval()
        own = PromptClassifier("sequence", model=bert, tokenizer=case.tokenizer, threshold=0.0)
        extras = {"classifier": own}
    made = case.solve(extras, classifier=classifier, dims=4)
    didact.save(made, tmp_path / "eco")
    loaded = didact.load(tmp_path / "eco")
    for data in (case.forget, case.retain):
        ids, mask = case.ids(data)
        assert torch.equal(loaded(ids, mask).logits, made(ids, mask).logits)
        options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(loaded.generate(ids, mask, **options), made.generate(ids, mask, **options))
    files = {path.suffix for path in (tmp_path / "eco").rglob("*") if path.is_file()}
    assert files <= {".json", ".safetensors", ".jinja"}
    json.loads((tmp_path / "eco" / "config.json").read_text())


def test_subword_tokens_end_to_end(subword_case):
    made = subword_case.solve(dims=4, strength=5.0)
    prompts = [item.prompt for item in (*subword_case.forget.items[:3], *subword_case.retain.items[:3])]
    before = respond(subword_case.model, subword_case.tokenizer, prompts, max_new_tokens=5)
    after = respond(made, subword_case.tokenizer, prompts, max_new_tokens=5)
    assert after[3:] == before[3:]
    assert after[:3] != before[:3]


def test_it_is_deterministic(case):
    first, second = (case.solve({"unknown": case.unknown}, strength="auto", steps=2) for _ in range(2))
    assert torch.equal(first.strength, second.strength)
    ids, mask = case.ids(case.forget)
    assert torch.equal(first(ids, mask).logits, second(ids, mask).logits)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_settings():
    with pytest.raises(BadInput, match="eps must be below lowest"):
        EmbeddingCorruption(eps=0.1)
    with pytest.raises(BadInput, match="corruption"):
        EmbeddingCorruption(corruption="nonsense")
    with pytest.raises(BadInput, match="dims"):
        EmbeddingCorruption(dims=0)


def test_more_dimensions_than_an_embedding_has(case):
    with pytest.raises(BadInput, match="dims=17 exceeds the 16 numbers"):
        case.solve(dims=17)


def test_a_classifier_needs_both_kinds(case):
    with pytest.raises(NotApplicable, match="pass retain="):
        EmbeddingCorruption(strength=1.0).unlearn(case.model, case.forget, objective=CausalLM())
    with pytest.raises(BadInput, match="must be a fitted"):
        case.solve({"classifier": "no"}, classifier="given")


def test_documents_alone_have_no_prompt(case):
    documents = TextDataset([TextItem("", "Kato lives here .")], case.tokenizer)
    with pytest.raises(BadInput, match="acts on prompts"):
        EmbeddingCorruption(strength=1.0).unlearn(case.model, documents, case.retain, objective=CausalLM())


def test_tokens_alone_have_no_text(case):
    rows = [case.forget[i] for i in range(3)]
    with pytest.raises(NotApplicable, match="TextDataset"):
        EmbeddingCorruption(strength=1.0).unlearn(case.model, rows, case.retain, objective=CausalLM())


def test_names_that_nobody_told(case):
    bare = TextDataset([TextItem(i.prompt, i.answer) for i in case.forget.items], case.tokenizer)
    with pytest.raises(NotApplicable, match="needs to know the names"):
        EmbeddingCorruption(strength=1.0, tokens="names").unlearn(case.model, bare, case.retain, objective=CausalLM())
    made = EmbeddingCorruption(strength=1.0).unlearn(case.model, bare, case.retain, objective=CausalLM())
    assert made.tokens.names == ()
