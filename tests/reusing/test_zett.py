"""Tokenizer transfer: byte level, spelling, sampled vocabularies, the hypernetwork, the swap, the baselines."""

import copy

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import didact
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.models.language import gpt_tiny
from didact.models.small import mlp
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer
from didact.reusing import Budget, Task
from didact.reusing.request import fingerprint
from didact.reusing.zett import (
    ByteVocabulary,
    Focus,
    LexicalTransfer,
    MeanTransfer,
    TokenizerSampler,
    TokenizerTransfer,
    TransferNetwork,
    VocabularyTransfer,
    bits_per_byte,
    byte_tokenizer,
    tokenizer_problem,
    unigram_tokenizer,
)
from didact.reusing.zett.baselines import focus_weights, sparsemax
from didact.reusing.zett.bytelevel import matched_specials
from didact.reusing.zett.embeddings import Source, with_embeddings
from didact.reusing.zett.hypernetwork import Rescaler, hypernetwork
from didact.reusing.zett.sampler import as_bytes, unigram
from didact.reusing.zett.surface import NOTHING, Speller, SurfaceForms
from didact.reusing.zett.texts import batch_of, coded_bits
from didact.reusing.zett.training import Plan, lexical_loss, repeat_loss, repeat_source

TEXTS = [
    "the quick brown fox jumps over the lazy dog and the other dog sleeps",
    "return the mean of the values along the given axis, or all of them",
    "a small model reads the same text under another tokenizer: über naïve 東京",
] * 4
SMALL = {"layers": 1, "hidden": 32, "warmup_steps": 30, "steps": 12, "warmup_lr": 3e-3, "lr": 1e-3, "batch_size": 4}


@pytest.fixture(scope="module")
def tokenizer():
    return bpe_tokenizer(TEXTS, 300)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return gpt_tiny(len(tokenizer), hidden=32, layers=1, feedforward=48, positions=160).eval()


@pytest.fixture(scope="module")
def untied(tokenizer):
    """GPT-2's layout, with output embeddings of its own, and more rows than tokens."""
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=len(tokenizer) + 7, n_positions=160, n_embd=32, n_layer=1, n_head=2,
                        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def biased(untied):
    """The same with a bias of the output, as some models have it."""
    made = copy.deepcopy(untied)
    made.lm_head = torch.nn.Linear(32, len(untied.lm_head.weight))
    return made


@pytest.fixture(scope="module")
def target():
    return unigram_tokenizer(TEXTS, 290)


def task(targets):
    return Task(objective=CausalLM(), wants={"tokenizer": targets})


def given(tokenizer):
    return {"source_tokenizer": tokenizer, "texts": TEXTS}


def fallback_tokenizer():
    """In SentencePiece's manner: pieces with a mark for spaces, bytes by fallback."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    pieces = [*special, *(f"<0x{b:02X}>" for b in range(256)), "▁", "▁the", "t", "h", "e", "▁t", "he"]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    made = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
                                   unk_token="<unk>")  # fmt: skip


# -- byte level --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram", "bytes", "fallback"])
def test_tokens_are_the_bytes_of_the_text(kind, tokenizer, target):
    chosen = {"bpe": tokenizer, "unigram": target, "bytes": byte_tokenizer(), "fallback": fallback_tokenizer()}[kind]
    vocabulary = ByteVocabulary.of(chosen)
    for text in (*TEXTS[:3], "tab\tline\n  indented", "the the"):
        joined = b"".join(vocabulary.tokens[i] for i in vocabulary.encode(text))
        assert joined == text.encode()
    for data in (b"the", b" the mean", bytes(range(256)), "東".encode()[:2], b"x"):
        assert b"".join(vocabulary.tokens[i] for i in vocabulary.spell(data)) == data
    assert vocabulary.spell(b"") == []
    assert [vocabulary.tokens[i] for i in range(4)] == [None] * 4


def test_spelling_ignores_the_pretokenizer(tokenizer):
    vocabulary = ByteVocabulary.of(tokenizer)
    # With its pretokenizer the text is cut before " dog"; the bare model may use any of its merges.
    speller = Speller(vocabulary, 3)
    forms = speller([b" the", b"q\x00z\xffk", b"the the"])
    assert forms.ids.shape == (3, 3)
    assert forms.single.tolist() == [True, False, False]
    assert forms.truncated == 2 - (len(vocabulary.spell(b"the the")) <= 3)
    assert forms.ids[0].tolist() == [vocabulary.ids[b" the"], NOTHING, NOTHING]


def test_special_tokens_match_by_role_or_text(tokenizer, target):
    source, other = ByteVocabulary.of(tokenizer), ByteVocabulary.of(target)
    assert matched_specials(source, other) == {0: 0, 1: 1, 2: 2, 3: 3}
    renamed = Tokenizer.from_str(byte_tokenizer().backend_tokenizer.to_str())
    roles = PreTrainedTokenizerFast(tokenizer_object=renamed, bos_token="<eos>", eos_token="<bos>", pad_token="<pad>")
    assert matched_specials(source, ByteVocabulary.of(roles))[2] == 1  # its start token is called <eos>
    strange = copy.deepcopy(target)
    strange.add_special_tokens({"additional_special_tokens": ["<image>"]})
    with pytest.raises(BadInput, match="<image>"):
        matched_specials(source, ByteVocabulary.of(strange))


def test_tokenizers_that_cannot_write_everything_are_refused(tokenizer):
    with pytest.raises(BadInput, match="no byte fallback"):
        ByteVocabulary.of(word_tokenizer(TEXTS))
    few = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    few.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(BadInput, match="Only 2 of the 256 bytes"):
        ByteVocabulary.of(PreTrainedTokenizerFast(tokenizer_object=few))
    empty = Tokenizer(models.BPE({}, []))
    empty.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(BadInput, match="empty"):
        ByteVocabulary.of(PreTrainedTokenizerFast(tokenizer_object=empty))
    with pytest.raises(BadInput, match="fast"):
        ByteVocabulary.of("gpt2")
    with pytest.raises(BadInput, match="at least 260"):
        unigram_tokenizer(TEXTS, 100)


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_a_unigram_of_bytes_writes_any_string():
    pieces = TokenizerSampler()
    pieces.push(["x"])
    bare = unigram(pieces.sample(256, np.random.default_rng(0)))
    strange = "plain, ünï, 東京, \x00\x07 \U0001f600\n"
    encoded = bare.encode(strange)
    assert len(encoded.ids) == len(strange.encode())
    assert bare.decode(encoded.ids) == strange


def test_scores_are_lengths_times_counts():
    sampler = TokenizerSampler(queue=2)
    sampler.push(["abab", "ab"])
    # abab: a2 b2 ab2 ba1 aba1 bab1 abab1; ab: a1 b1 ab1. Lengths times counts: 3+3+(2*3)+2+3+3+4 = 24.
    expected = {"ab": 6, "ba": 2, "aba": 3, "bab": 3, "abab": 4}
    assert sampler.scores() == pytest.approx({name: value / 24 for name, value in expected.items()})
    sampler.push(["cd"])  # the first text leaves the queue of two
    assert sampler.scores() == pytest.approx({"ab": 2 / 8, "cd": 2 / 8})
    longest = TokenizerSampler()
    longest.push(["abcdefghijklmnopqrstuvwxyz"])
    assert max(map(len, longest.scores())) == 15


def test_a_sample_holds_all_bytes_and_the_best_substrings():
    sampler = TokenizerSampler()
    sampler.push(TEXTS)
    rng = np.random.default_rng(0)
    draws = [sampler.sample(300, rng) for _ in range(30)]
    for pieces in draws:
        names = [name for name, _ in pieces]
        assert len(set(names)) == len(names) <= 300
        assert {as_bytes(name) for name in names[:256]} == {bytes([b]) for b in range(256)}
        assert all(np.isfinite(score) and score < 0 for _, score in pieces)
        ordered = [score for _, score in pieces[256:]]
        assert ordered == sorted(ordered, reverse=True)
    assert len({tuple(name for name, _ in pieces) for pieces in draws}) > 10  # the noise makes them differ
    counts = sampler.scores()
    quiet = min(draws, key=lambda d: sum(abs(np.exp(s) - counts[n]) for n, s in d[256:]))
    assert quiet[256][0] == max(counts, key=counts.get)
    with pytest.raises(BadInput, match="256 bytes"):
        sampler.sample(100, rng)
    with pytest.raises(BadInput, match="No text"):
        TokenizerSampler().sample(300, rng)


# -- the hypernetwork --------------------------------------------------------------------------------------------------


def test_the_rescaler_of_the_card():
    scale = Rescaler(2).fit(torch.tensor([[0.0, 2.0], [2.0, 6.0]]), 0.02, 0.0)
    assert scale.weight.tolist() == pytest.approx([0.02, 0.01], abs=1e-6)
    assert scale.bias.tolist() == pytest.approx([-0.02, -0.04], abs=1e-6)


def test_at_the_start_predictions_have_the_moments_of_the_real_embeddings():
    torch.manual_seed(0)
    source = torch.randn(50, 12) * 3 + 1
    network = hypernetwork(12, [8, 4], hidden=16, layers=1, length=4, attention_heads=1)
    network.fit_scales(source, [source[:, :8], source[:, 8:]])
    forms = torch.full((50, 4), NOTHING)
    forms[:, 0] = torch.arange(50)
    for made, true in zip(network(forms, source), (source[:, :8], source[:, 8:]), strict=True):
        assert torch.allclose(made.mean(0), true.mean(0), atol=1e-3)
        assert torch.allclose(made.std(0, correction=0), true.std(0, correction=0), atol=1e-3)
    assert torch.allclose(network.scale_in(source).std(0, correction=0), torch.full((12,), 0.02), atol=1e-5)


def test_empty_places_and_other_rows_change_nothing():
    torch.manual_seed(0)
    source = torch.randn(20, 6)
    network = hypernetwork(6, [6], hidden=16, layers=2, length=5, attention_heads=2).eval()
    forms = torch.tensor([[3, 4, NOTHING, NOTHING, NOTHING], [1, 2, 5, 6, 7], [NOTHING] * 5])
    together = network(forms, source)[0]
    alone = network(forms[:1], source)[0]
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert torch.isfinite(together).all()
    orders = network(torch.tensor([[3, 4, 5, NOTHING, NOTHING], [3, 5, 4, NOTHING, NOTHING]]), source)[0]
    assert not torch.allclose(orders[0], orders[1], atol=1e-5)  # also of the ids behind the first


def test_losses_are_those_of_the_equations():
    predicted = [torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]])]
    columns = [torch.tensor([[1.0, 1.0], [0.0, 0.0], [3.0, 4.0]])]
    # Rows 0 and 1 are single source ids 0 and 2: squared distances 1 and 9 + 4; lengths sqrt 2 and 5.
    forms = SurfaceForms(torch.tensor([[0, NOTHING], [2, NOTHING], [1, 2]]), 0)
    expected = ((1 + 13) / 2) / ((2**0.5 + 5) / 2)
    assert float(lexical_loss(predicted, forms, columns)) == pytest.approx(expected)
    assert float(repeat_loss(predicted, [torch.zeros(3, 2)])) == pytest.approx((1 + 4 + 50) / 3)
    two = repeat_loss(predicted * 2, [torch.zeros(3, 2), predicted[0]])
    assert float(two) == pytest.approx((1 + 4 + 50) / 3 / 2)
    nothing = SurfaceForms(torch.tensor([[0, 1], [2, 1], [1, 2]]), 0)
    assert float(lexical_loss(predicted, nothing, columns)) == 0.0


def test_the_first_phase_reproduces_the_model_with_its_own_tokenizer(tokenizer, model):
    source = Source.of(model, tokenizer)
    torch.manual_seed(0)
    network = hypernetwork(32, [32], hidden=64, layers=1, length=7, attention_heads=2)
    network.fit_scales(source.table, source.columns)
    losses = []
    for steps, lr in ((400, 3e-3), (250, 3e-4)):  # the second run is there for the last digit
        plan = Plan(steps, 0, lr, 1e-3, 4, (300, 300), 64, 64, 0.5, 0.0, 0.1)
        losses += repeat_source(network, source, plan, np.random.default_rng(0))
    assert losses[-1] < 1e-3 * losses[0]
    made = TransferNetwork(network, source)
    forms = made.forms([token for token in source.vocabulary.tokens if token is not None])
    assert forms.single.all()
    copy_ = made.model_for(tokenizer)
    ids, mask = batch_of([source.vocabulary.encode(text) for text in TEXTS[:3]], 1, 0, 160)
    kept = mask.bool()
    with torch.no_grad():
        expected, found = (m(input_ids=ids, attention_mask=mask).logits[kept] for m in (model, copy_))
    assert float((expected - found).abs().max()) < 1e-2


# -- the swap ----------------------------------------------------------------------------------------------------------


def test_with_its_own_embeddings_nothing_changes(tokenizer, model, untied, biased):
    ids, mask = batch_of([ByteVocabulary.of(tokenizer).encode(text) for text in TEXTS[:3]], 1, 0, 160)
    for m in (model, untied, biased):
        source = Source.of(m, tokenizer)
        rows = len(tokenizer)
        with torch.no_grad():
            expected = m(input_ids=ids, attention_mask=mask).logits[..., :rows][mask.bool()]
            assert torch.allclose(source.logits(source.columns, ids, mask)[mask.bool()], expected, atol=1e-5)
            swapped = with_embeddings(m, source.vocabulary, source.columns)
            assert torch.allclose(swapped(input_ids=ids, attention_mask=mask).logits[mask.bool()], expected, atol=1e-5)
        assert swapped.config.vocab_size == rows
    assert len(Source.of(model, tokenizer).columns) == 1
    assert [c.shape[1] for c in Source.of(biased, tokenizer).columns] == [32, 32, 1]


def test_gradients_reach_the_embeddings_and_not_the_model(tokenizer, model):
    source = Source.of(model, tokenizer)
    columns = [column.clone().requires_grad_() for column in source.columns]
    ids, mask = batch_of([[5, 6, 7]], 1, 0, 10)
    with Meter() as meter:
        source.logits(columns, ids, mask).sum().backward()
    assert float(columns[0].grad.abs().sum()) > 0
    assert all(p.grad is None for p in model.parameters())
    assert (meter.forward, meter.backward) == (1, 1)


@pytest.mark.parametrize("kind", ["model", "untied", "biased"])
def test_transfer_from_end_to_end(kind, request, tokenizer, target, tmp_path):
    m = request.getfixturevalue(kind)
    before = fingerprint(m)
    method = TokenizerTransfer(**SMALL)
    with Meter() as meter:
        answer = method.reuse([m], task(target), extras=given(tokenizer), seed=3)
    assert fingerprint(m) == before
    assert meter.forward > 0
    assert meter.backward > 0
    assert answer.cost["training_steps"] == 42
    assert answer.module.config.vocab_size == len(target)
    assert answer.module.get_input_embeddings().weight.shape == (len(target), 32)
    special = answer.module.get_input_embeddings().weight[:4]
    assert torch.equal(special, m.get_input_embeddings().weight[:4])
    again = method.reuse([m], task(target), extras=given(tokenizer), seed=3)
    assert fingerprint(again.module) == fingerprint(answer.module)
    if kind != "biased":  # which is no class of transformers
        answer.save(tmp_path / "answer")
        loaded = type(answer).open(tmp_path / "answer").module
        read = AutoTokenizer.from_pretrained(tmp_path / "answer" / "tokenizer")
        assert bits_per_byte(loaded, read, TEXTS) == pytest.approx(bits_per_byte(answer.module, target, TEXTS))
    transfer = answer.extras["transfer"]
    transfer.save(tmp_path / "transfer")
    opened = TransferNetwork.open(tmp_path / "transfer", m)
    for mine, theirs in zip(opened.embeddings(["dog", b"\xff"]), transfer.embeddings(["dog", b"\xff"]), strict=True):
        assert torch.equal(mine, theirs)
    assert fingerprint(opened.model_for(target)) == fingerprint(answer.module)
    assert not list(tmp_path.rglob("*.bin"))
    with pytest.raises(BadInput, match="other weights"):
        TransferNetwork.open(tmp_path / "transfer", mlp(2, 2))
    with pytest.raises(BadInput, match="no transfer network"):
        TransferNetwork.open(tmp_path, m)


def test_training_lowers_the_loss_and_beats_its_start(tokenizer, model, target):
    long = TokenizerTransfer(**{**SMALL, "steps": 60, "warmup_steps": 60, "lexical_weight": 0.0, "lr": 5e-3})
    network = long.fit(model, tokenizer, TEXTS, seed=0)
    assert np.mean(network.losses[-10:]) < np.mean(network.losses[:10]) - 0.1
    assert network.warmup_losses[-1] < 0.7 * network.warmup_losses[0]
    short = TokenizerTransfer(**{**SMALL, "steps": 1, "warmup_steps": 0}).fit(model, tokenizer, TEXTS, seed=0)
    bits = [bits_per_byte(n.model_for(target), target, TEXTS) for n in (network, short)]
    assert bits[0] < bits[1]


def test_a_variant_takes_the_embeddings_of_its_base(tokenizer, model, target):
    variant = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in variant.named_parameters():
            if "mlp" in name:
                parameter += 0.1
    method = VocabularyTransfer(continue_steps=3, continue_lr=1e-2, body_shift=0.5)
    extras = given(tokenizer)
    swapped = method.reuse([model], task(target), extras=extras, budget=Budget(batch_size=4)).module
    moved = method.reuse([variant], task(target), base=model, extras=extras, budget=Budget(batch_size=4)).module
    before, after, own = (dict(m.named_parameters()) for m in (model, swapped, variant))
    for name, parameter in moved.named_parameters():
        if "embed" in name:
            assert torch.equal(parameter, after[name])
        else:
            assert torch.allclose(parameter, own[name] + 0.5 * (after[name] - before[name]), atol=1e-6)
    assert any(not torch.equal(after[n], before[n]) for n in before if "mlp" in n)


def test_several_tokenizers_at_once_and_the_problem(tokenizer, model, target, tmp_path):
    problem = tokenizer_problem(
        model, tokenizer, {"unigram": target, "bytes": byte_tokenizer()}, TEXTS, TEXTS[:3], validation=TEXTS[3:5]
    )
    answer = VocabularyTransfer().solve(problem.given)
    found = problem.score(answer)
    assert answer.module is None
    assert found["bits_per_byte"] == pytest.approx((found["bits_per_byte_unigram"] + found["bits_per_byte_bytes"]) / 2)
    assert found["test_score"] == -found["bits_per_byte"]
    assert found["bits_per_byte_unigram"] == pytest.approx(bits_per_byte(answer.produce("unigram"), target, TEXTS[:3]))
    assert found["original_bits_per_byte"] == pytest.approx(bits_per_byte(model, tokenizer, TEXTS[:3]))
    assert problem.validate(answer)["validation_score"] < 0
    problem.keep(answer, tmp_path)
    loaded = didact.load(tmp_path / "bytes" / "model")
    assert bits_per_byte(loaded, byte_tokenizer(), TEXTS[:3]) == pytest.approx(found["bits_per_byte_bytes"])
    assert problem.lacks(("texts", "tokenizer", "source_tokenizer"), ("causal-lm",)) is None
    assert "labelled" in problem.lacks(("labelled",), ())


# -- bits per byte -----------------------------------------------------------------------------------------------------


def test_a_uniform_model_over_bytes_needs_eight_bits():
    bare = byte_tokenizer()
    kept = PreTrainedTokenizerFast(tokenizer_object=without_specials(bare))
    torch.manual_seed(0)
    model = gpt_tiny(256, hidden=16, layers=1, positions=64)
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()  # tied: all logits are 0
    assert bits_per_byte(model, kept, TEXTS) == pytest.approx(8.0, abs=1e-5)


def test_bits_a_byte_do_not_depend_on_the_cut(tokenizer, target):
    """A token that costs 8 bits for each of its bytes gives 8 under every tokenizer, however texts are cut."""
    for chosen in (tokenizer, target, byte_tokenizer()):
        vocabulary = ByteVocabulary.of(chosen)
        spent = lambda batch, v=vocabulary: sum(len(v.tokens[i]) * np.log(256) for ids in batch for i in ids)  # noqa: E731
        for longest in (5, 1000):
            assert coded_bits(vocabulary, TEXTS, spent, longest, 4) == pytest.approx(8.0)


def test_long_texts_go_on_in_new_windows(tokenizer, model):
    text = " ".join(TEXTS)
    assert len(ByteVocabulary.of(tokenizer).encode(text)) > 160
    assert np.isfinite(bits_per_byte(model, tokenizer, [text]))


def without_specials(tokenizer):
    bare = Tokenizer(models.BPE({t: i - 4 for t, i in tokenizer.get_vocab().items() if i >= 4}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return bare


# -- the baselines -----------------------------------------------------------------------------------------------------


def test_baselines_fill_their_rows_as_they_say(tokenizer, model, target):
    source, vocabulary = Source.of(model, tokenizer), ByteVocabulary.of(target)
    own = source.columns[0]
    shared = [i for i, t in enumerate(vocabulary.tokens) if t in source.vocabulary.ids]
    new = [i for i, t in enumerate(vocabulary.tokens) if t is not None and t not in source.vocabulary.ids]
    assert new
    made = {}
    for method in (VocabularyTransfer(), LexicalTransfer(), MeanTransfer(), Focus(width=8)):
        module = method.reuse([model], task(target), extras=given(tokenizer)).module
        rows = made[method.card.slug] = module.get_input_embeddings().weight.detach()
        for i in shared:
            assert torch.allclose(rows[i], own[source.vocabulary.ids[vocabulary.tokens[i]]], atol=1e-6)
    for i in new:
        spelt = source.vocabulary.spell(vocabulary.tokens[i])
        assert torch.allclose(made["fvt"][i], own[spelt].mean(0), atol=1e-6)
        assert torch.allclose(made["mean-transfer"][i], own.mean(0), atol=1e-6)
    assert not torch.allclose(made["lexical-transfer"][new[0]], made["lexical-transfer"][new[-1]])
    assert not torch.allclose(made["focus"][new], made["mean-transfer"][new], atol=1e-4)


def test_sparsemax_is_the_projection_onto_the_simplex():
    assert sparsemax(np.array([[0.5, 0.5, -3.0], [2.0, 0.0, 0.0], [0.1, 0.0, 0.3]])) == pytest.approx(
        np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.3, 0.2, 0.5]])
    )
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.0, 0.0]])
    weights = focus_weights(vectors, [0, 1, 3])
    assert weights.sum(1) == pytest.approx(1.0)
    assert weights[2, 0] > 0.9  # nearest to the first
    assert weights[0, 2] == 0.0  # a shared token without a vector lends nothing
    assert weights[3] == pytest.approx(1 / 3)  # a token without a vector takes the mean


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_bad_input_is_refused(tokenizer, model, target):
    method = TokenizerTransfer(**SMALL)
    with pytest.raises(NotApplicable, match="source_tokenizer"):
        method.reuse([model], task(target))
    with pytest.raises(NotApplicable, match="tokenizer"):
        method.reuse([model], Task(), extras=given(tokenizer))
    with pytest.raises(NotApplicable, match="texts"):
        method.reuse([model], task(target), extras={"source_tokenizer": tokenizer})
    with pytest.raises(BadInput, match="No text"):
        method.reuse([model], task(target), extras={"source_tokenizer": tokenizer, "texts": [""]})
    with pytest.raises(NotApplicable, match="embeddings"):
        method.reuse([mlp(2, 2)], task(target), extras=given(tokenizer))
    with pytest.raises(BadInput, match="own tokenizer"):
        method.reuse([gpt_tiny(100)], task(target), extras=given(tokenizer))
    with pytest.raises(BadInput, match="mapping"):
        method.reuse([model], task({}), extras=given(tokenizer))
    with pytest.raises(BadInput, match="no byte fallback"):
        method.reuse([model], task(word_tokenizer(TEXTS)), extras=given(tokenizer))
    for wrong in ({"vocab_sizes": (100, 300)}, {"vocab_sizes": (500, 300)}, {"layers": 0}, {"lexical_weight": -1}):
        with pytest.raises(BadInput, match="zett"):
            TokenizerTransfer(**wrong)


def test_cut_spellings_are_reported(tokenizer, model):
    with Meter() as meter:
        TokenizerTransfer(**{**SMALL, "max_surface": 1}).fit(model, tokenizer, TEXTS)
    assert 0 < meter.log["truncated_surface_forms"] < meter.log["surface_forms"]
