"""Safety unlearning: the losses by hand, the roles and their checks, over-forgetting, any causal language model."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, Subset

import didact
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.core.recipe import Recipe
from didact.core.registry import get_method, make_problem
from didact.forgetting import GradientDifference
from didact.forgetting.safe_eraser import (
    AnsweredWith,
    Asked,
    OverForgetting,
    PromptDecouple,
    RefusalJudge,
    safety_problem,
)
from didact.forgetting.safe_eraser import problem as problems
from didact.forgetting.safe_eraser.data import HARMFUL, HARMLESS, OBJECTS, Fact, SafetyWorld, ShapesQA, safety_tokenizer
from didact.forgetting.safe_eraser.judging import answers, greedy
from didact.forgetting.safe_eraser.loss import (
    DECOUPLE_WEIGHT,
    base_loss,
    decoupled,
    divergence_from,
    retain_weight_of,
)
from didact.forgetting.safe_eraser.roles import answer_tokens, prompt_tokens
from didact.models.language import gpt_tiny
from didact.models.small import convnet
from didact.models.vision_language import vision_language
from didact.parts.paired import paired_batches, parallel_batches

TINY = {"size": 8, "channels": (4,), "dense": 16, "prefix": 2, "hidden": 16, "layers": 1, "heads": 2, "feedforward": 16}
OBJECTIVE = CausalLM()
QUESTIONS = {"harmful": [5, 6], "reworded": [5, 7], "harmless": [8, 9]}
REFUSAL = [10, 11, 2]


class Answers(Dataset):
    """Questions about noisy pictures of three things, as mappings: [1] question answer [2]."""

    def __init__(self, things, questions, offset, each=4, seed=0):
        centres = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(99))
        generator = torch.Generator().manual_seed(seed)
        self.samples = []
        for thing in things:
            for place, question in enumerate(questions):
                for _ in range(each):
                    picture = centres[thing] + 0.1 * torch.randn(3, 8, 8, generator=generator)
                    prompt = [1, *QUESTIONS[question]]
                    answer = [offset + thing, offset + place, 2][place:]  # answers differ in length
                    labels = torch.tensor([-100] * len(prompt) + answer)
                    tokens = torch.tensor([*prompt, *answer])
                    self.samples.append({"pixel_values": picture, "input_ids": tokens, "labels": labels})

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Untouchable(Dataset):
    def __len__(self):
        raise AssertionError("the decoupling set was read")

    __getitem__ = __len__


def tiny():
    torch.manual_seed(0)
    return vision_language(30, **TINY)


@pytest.fixture(scope="module")
def setting():
    """A tiny model that has learnt its answers, and the data of every role: thing 0 is unsafe, thing 3 kept back."""
    harmful = ["harmful", "reworded"]
    data = {
        "forget": Answers([0], harmful, 12),
        "retain": Answers([0], ["harmless"], 20),
        "decouple": Answers([1, 2], harmful, 16, seed=1),
        "innocent": Answers([3], harmful, 16, seed=2),
        "test": Answers([0, 1, 2], ["harmless"], 20, seed=3),
    }
    data["refusal"] = AnsweredWith(data["forget"], [REFUSAL])
    known = torch.utils.data.ConcatDataset(
        [*(data[k] for k in ("forget", "retain", "decouple", "innocent")), Answers([1, 2], ["harmless"], 20)]
    )
    recipe = Recipe(tiny, OBJECTIVE, "tiny", epochs=40, batch_size=16, lr=1e-2)
    return recipe.fit(known, 0), data


def unlearn(setting, **settings):
    model, data = setting
    extras = {"decouple": data["decouple"], "refusal": data["refusal"]}
    fast = {"steps": 3, "lr": 1e-3, "batch_size": 4, "stop": False, **settings}
    return PromptDecouple(**fast).unlearn(model, data["forget"], data["retain"], extras=extras, target=0.0)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# -- losses ------------------------------------------------------------------------------------------------------------


class Given(CausalLM):
    """An objective whose loss is the batch itself."""

    def loss(self, model, batch):
        return torch.tensor(batch)

    def per_sample_loss(self, model, batch):
        return torch.tensor(batch).reshape(-1)


@pytest.mark.parametrize(
    ("base", "decouple", "expected"),
    [("gd", 0.6, -1.2), ("gd", None, -1.0), ("ga", 0.6, -1.7), ("ga", None, -2.0), ("po", None, 2.0), ("po", 0.6, 2.6)],
)
def test_worked_values(base, decouple, expected):
    batches = {"forget": 2.0, "retain": 1.0, "refusal": [3.0, 2.0]}
    stay = retain_weight_of(base, decouple is not None)
    loss = base_loss(base, None, None, batches, Given(), stay)
    total = decoupled(loss, None if decouple is None else torch.tensor(decouple), DECOUPLE_WEIGHT[base])
    assert float(total) == pytest.approx(expected)


def test_kl_adds_the_divergence_and_the_whole_decouple_loss(setting, monkeypatch):
    monkeypatch.setattr("didact.forgetting.safe_eraser.loss.divergence_from", lambda *a: torch.tensor(0.25))
    loss = base_loss("kl", None, None, {"forget": 2.0, "retain": 1.0}, Given(), 1.0)
    assert float(decoupled(loss, torch.tensor(0.6), DECOUPLE_WEIGHT["kl"])) == pytest.approx(-2 + 0.25 + 0.6)


def test_the_divergence_is_from_the_original_to_the_model_at_every_position_but_padding(setting):
    original, data = setting
    model = copy.deepcopy(original)
    with torch.no_grad():
        model.projector.weight.mul_(0.5)
    samples = [data["forget"][0], data["forget"][-1]]  # of different lengths
    batch = OBJECTIVE.collate(samples)
    rows = []
    for sample in samples:
        inputs = {k: sample[k].unsqueeze(0) for k in ("pixel_values", "input_ids")}
        p, q = (m(**inputs).logits[0].log_softmax(-1) for m in (original, model))
        rows.append((p.exp() * (p - q)).sum(-1))
    found = divergence_from(original, model, batch, OBJECTIVE)
    assert float(found.detach()) == pytest.approx(float(torch.cat(rows).mean().detach()), rel=1e-4)
    assert found.requires_grad
    assert float(divergence_from(original, original, batch, OBJECTIVE).detach()) == pytest.approx(0, abs=1e-6)


# -- training ----------------------------------------------------------------------------------------------------------


def by_hand(setting, base, weight, stay, steps=3):
    """The card's equations in a plain loop: AdamW, norms clipped at 1, cosine after a linear warm-up."""
    original, data = setting
    model = copy.deepcopy(original).train()
    model.vision.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-3, weight_decay=0.01)
    first = "refusal" if base == "po" else "forget"
    sets = [data[first]] if base == "ga" else [data[first], data["retain"]]
    everything = [*sets, *([data["decouple"]] if weight else [])]
    drawn = [  # two steps a pass over the eight forget samples
        batches
        for epoch in range(2)
        for batches in parallel_batches(everything, OBJECTIVE, batch_size=4, steps=2, seed=1000 * epoch)
    ]

    def nll(batch):
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1]
        kept = batch["labels"][:, 1:] != -100
        token = -logits.log_softmax(-1).gather(-1, batch["labels"][:, 1:].clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return (token * kept).sum(-1) / kept.sum(-1)

    for step, batches in enumerate(drawn[:steps]):
        if base == "po":
            loss = torch.cat([nll(batches[0]), nll(batches[1])]).mean()
        else:
            loss = -nll(batches[0]).mean()
        if base == "gd":
            loss = loss + stay * nll(batches[1]).mean()
        if base == "kl":
            loss = loss + stay * divergence_from(original, model, batches[1], OBJECTIVE)
        if weight:
            loss = loss + weight * nll(batches[-1]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + float(torch.cos(torch.tensor(step / steps * torch.pi))))
        optimiser.step()
    return model


@pytest.mark.parametrize(
    ("base", "weight", "stay", "settings"),
    [
        ("ga", 0.0, 1.0, {"weight": 0}),
        ("ga", 0.5, 1.0, {}),
        ("gd", 0.0, 1.0, {"weight": 0}),
        ("gd", 0.5, 0.5, {}),
        ("gd", 0.5, 1.0, {"retain_weight": 1}),
        ("kl", 0.0, 1.0, {"weight": 0}),
        ("kl", 1.0, 1.0, {}),
        ("po", 0.0, 1.0, {"weight": 0}),
        ("po", 1.0, 1.0, {}),
    ],
)
def test_it_equals_a_plain_implementation(setting, base, weight, stay, settings):
    found, expected = unlearn(setting, base=base, **settings), by_hand(setting, base, weight, stay)
    moved = 0.0
    for mine, theirs, before in zip(found.parameters(), expected.parameters(), setting[0].parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-5)
        moved = max(moved, float((mine - before).detach().abs().max()))
    assert moved > 1e-3


def test_without_weight_it_is_gradient_difference_bit_for_bit_and_reads_no_decoupling_set(setting):
    model, data = setting
    plain = {"weight_decay": 0, "schedule": "constant", "warmup": 0, "frozen": ""}
    mine = PromptDecouple(base="gd", weight=0, lr=1e-3, epochs=2, batch_size=4, **plain).unlearn(
        model, data["forget"], data["retain"], extras={"decouple": Untouchable()}, target=-1.0
    )
    theirs = GradientDifference(lr=1e-3, epochs=2, batch_size=4).unlearn(
        model, data["forget"], data["retain"], target=-1.0
    )
    assert same(mine, theirs)
    assert not same(mine, model)
    assert not same(mine, unlearn(setting, base="gd", steps=4, retain_weight=1, **plain))


def test_the_batches_are_those_of_pairs_and_a_further_role_moves_none(setting):
    data = setting[1]
    three = parallel_batches(
        [data["forget"], data["retain"], data["decouple"]], OBJECTIVE, batch_size=3, steps=5, seed=4
    )
    two = paired_batches(data["forget"], data["retain"], OBJECTIVE, batch_size=3, steps=5, seed=4)
    for (a, b, c), (x, y) in zip(three, two, strict=True):
        assert torch.equal(a["input_ids"], x["input_ids"])
        assert torch.equal(b["input_ids"], y["input_ids"])
        assert len(c["input_ids"]) == 3


def test_ascent_stops_at_the_target_and_preference_optimisation_runs_its_course(setting):
    found = {}
    for base, stop in (("gd", True), ("gd", False), ("po", True)):
        with Meter() as meter:
            unlearn(setting, base=base, stop=stop, steps=60, lr=3e-3, schedule="constant", warmup=0)
        found[base, stop] = meter.log["steps"]
    assert found["gd", True] < 60
    assert found["gd", True] % 2 == 0  # looked at after a pass over forget: 8 samples, 4 a step
    assert found["gd", False] == found["po", True] == 60


def test_it_forgets_and_the_decouple_loss_keeps_the_wording_answered(setting):
    model, data = setting
    run = {"base": "po", "steps": 40, "lr": 3e-3, "schedule": "constant", "warmup": 0}
    without, with_pd = unlearn(setting, weight=0, **run), unlearn(setting, **run)
    for edited in (without, with_pd):
        assert OBJECTIVE.mean_score(edited, data["forget"]) == 0
        assert OBJECTIVE.mean_score(edited, data["refusal"]) == 1
    assert OBJECTIVE.mean_score(model, data["decouple"]) == 1
    assert OBJECTIVE.mean_score(with_pd, data["decouple"]) == 1
    assert OBJECTIVE.mean_score(without, data["decouple"]) < 0.5


def test_the_vision_encoder_stays_and_other_modules_can(setting):
    model, _data = setting
    edited = unlearn(setting)
    assert same(edited.vision, model.vision)
    assert not same(edited.projector, model.projector)
    assert all(p.requires_grad for p in edited.parameters())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert same(unlearn(setting, frozen="vision,projector").projector, model.projector)
    assert not same(unlearn(setting, frozen=()).vision, model.vision)
    with pytest.raises(BadInput, match="no layer 'eyes'"):
        unlearn(setting, frozen="eyes")


def test_adapters_change_the_language_models_maps_and_the_projector_and_are_folded_in(setting):
    model, _data = setting
    edited = unlearn(setting, lora_rank=2, steps=4)
    assert type(edited) is type(model)
    assert edited.state_dict().keys() == model.state_dict().keys()
    changed = {
        n for (n, a), b in zip(edited.named_parameters(), model.parameters(), strict=True) if not torch.equal(a, b)
    }
    maps = {f"language_model.model.layers.0.{n}.weight" for n in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    )}  # fmt: skip
    assert changed == maps | {"projector.weight", "projector.bias"}
    difference = (
        edited.language_model.model.layers[0].mlp.up_proj.weight
        - model.language_model.model.layers[0].mlp.up_proj.weight
    )
    assert int(torch.linalg.matrix_rank(difference, atol=1e-6)) == 2


def test_it_is_deterministic_leaves_the_input_alone_and_its_answer_loads(setting, tmp_path):
    model, data = setting
    before = copy.deepcopy(model.state_dict())
    first, second = (unlearn(setting, base="kl") for _ in range(2))
    assert same(first, second)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    didact.save(first, tmp_path / "answer")
    loaded = didact.load(tmp_path / "answer")
    assert torch.equal(OBJECTIVE.losses(loaded, data["test"]), OBJECTIVE.losses(first, data["test"]))
    assert not list(tmp_path.rglob("*.bin"))


# -- text only ---------------------------------------------------------------------------------------------------------


def text_pairs(contexts, question, answer, each=4):
    samples = []
    for context in contexts:
        prompt = [1, context, *question]
        labels = torch.tensor([-100] * len(prompt) + answer)
        samples += each * [{"input_ids": torch.tensor([*prompt, *answer]), "labels": labels}]
    return Asked(Listed(samples), [str(question)] * len(samples))


class Listed(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_contexts_in_words_serve_as_well_as_pictures():
    torch.manual_seed(0)
    model = gpt_tiny(40, hidden=16, layers=1, heads=2, feedforward=16)
    forget = text_pairs([30], [5, 6], [12, 2])
    retain = text_pairs([30], [8, 9], [13, 2])
    decouple = text_pairs([31, 32], [5, 6], [14, 2])
    extras = {"decouple": decouple, "refusal": AnsweredWith(forget, [REFUSAL])}
    for base in ("ga", "gd", "kl", "po"):
        edited = PromptDecouple(base=base, steps=2, batch_size=4).unlearn(model, forget, retain, extras=extras)
        assert not same(edited, model)
    # Without the wording beside it, another context is another question.
    bare = {"decouple": decouple.dataset, "refusal": extras["refusal"]}
    with pytest.raises(BadInput, match="2 of the 2 questions of the decoupling set are asked nowhere"):
        PromptDecouple().unlearn(model, forget.dataset, retain.dataset, extras=bare)


# -- what is measured --------------------------------------------------------------------------------------------------


def test_seven_of_twenty_not_normal():
    judge = RefusalJudge(["sorry , i cannot"])
    expected = [f"paint the {i}" for i in range(20)]
    told = [*expected[:13], *["Sorry, I cannot help"] * 4, "paint", "", "paint the window"]
    assert judge.safe_answer_refusal_rate(told, expected) == 0.35
    assert judge.safe_answer_refusal_rate(["(sorry: I  cannot do that)"] * 20, expected) == 1
    assert judge.safe_answer_refusal_rate(expected, expected) == 0
    assert judge.safe_answer_refusal_rate([f" Paint  {e[6:]}" for e in expected], expected) == 0
    assert not RefusalJudge(["no"]).refuses("I know a nobler one")
    lenient = RefusalJudge(["sorry"], normal=lambda answer, expected: "paint" in answer)
    assert lenient.safe_answer_refusal_rate(["paint !", "sorry , paint", "no"], ["x", "y", "z"]) == pytest.approx(2 / 3)


def test_a_judge_needs_phrases_and_as_many_answers_as_expected_ones():
    for phrases in ([], [" "], "sorry"):
        with pytest.raises(BadInput, match="phrases that mark a refusal"):
            RefusalJudge(phrases)
    with pytest.raises(BadInput, match="1 answers cannot be judged by 2"):
        RefusalJudge(["no"]).safe_answer_refusal_rate(["a"], ["a", "b"])


class Words:
    """The least of a tokenizer: token ids are words."""

    eos_token_id, pad_token_id = 2, 0

    def batch_decode(self, rows, skip_special_tokens=True):
        return [" ".join(str(int(i)) for i in row if int(i) != 2) for row in rows]


def tiny_problem(setting, **changes):
    model, data = setting
    parts = {
        "model": model, "forget": data["forget"], "retain": data["retain"], "decouple": data["decouple"],
        "test": data["test"], "innocent": data["innocent"], "refusal": data["refusal"], "tokenizer": Words(),
        "judge": RefusalJudge(["10 11"]), "reference": model,
        "recipe": Recipe(tiny, OBJECTIVE, "tiny", epochs=2, batch_size=16, lr=1e-2), **changes,
    }  # fmt: skip
    return safety_problem(**parts)


class Refuses(torch.nn.Module):
    """Says 10 11 <end> to everything."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values, input_ids, attention_mask=None):
        following = {10: 11, 11: 2}
        best = torch.tensor([[following.get(int(token), 10) for token in row] for row in input_ids])
        return F.one_hot(best, 30).float() + self.weight


def test_over_forgetting_of_models_that_refuse_all_and_nothing(setting):
    problem = tiny_problem(setting)
    assert OverForgetting(problem).sarr(setting[0]) == 0
    assert OverForgetting(problem).sarr(Refuses()) == 1
    scores = problem.score(Refuses())
    assert scores["refusal_rate"] == scores["sarr"] == 1
    assert scores["decouple_score"] == 0
    assert scores["attack_success"] == scores["forget_score"] == scores["test_score"] == scores["rouge"] == 0
    assert scores["forget_gap"] == scores["collapsed"] == 1
    original = problem.score(setting[0])
    assert original["attack_success"] == original["forget_score"] == original["test_score"] == 1
    assert original["refusal_rate"] == original["sarr"] == original["forget_gap"] == original["changed"] == 0
    assert original["harmless_accuracy"] == original["rouge"] == original["decouple_score"] == 1


def test_another_harmful_answer_is_a_successful_attack_too(setting):
    data = setting[1]
    mixed = Listed([{**s, "labels": s["labels"]} for s in data["forget"]])
    # The two wordings' answers, told crosswise: no exact answer, yet harmful ones.
    problem = tiny_problem(setting, attacks=mixed)
    told, expected = answers(setting[0], mixed, OBJECTIVE, Words())
    assert told == expected
    assert len(set(expected)) == 2
    crossed = [{**a, "pixel_values": a["pixel_values"]} for a in data["forget"]]
    swapped = AnsweredWith(Listed(crossed[:4]), [answer_tokens(data["forget"][-1]).tolist()])
    both = torch.utils.data.ConcatDataset([swapped, Subset(data["forget"], range(4))])
    crosswise = tiny_problem(setting, attacks=both).score(setting[0])
    assert crosswise["attack_success"] == 1
    assert problem.score(setting[0])["attack_success"] == 1


def test_greedy_answers_are_those_that_teacher_forcing_calls_right(setting):
    _, data = setting
    model = unlearn(setting, base="ga", steps=2, weight=0)  # right on some, wrong on others
    everything = torch.utils.data.ConcatDataset([data["forget"], data["decouple"], data["retain"], data["test"]])
    told, expected = answers(model, everything, OBJECTIVE, Words())
    right = [t == e for t, e in zip(told, expected, strict=True)]
    assert right == OBJECTIVE.scores(model, everything).bool().tolist()
    samples = [everything[i] for i in range(5)]
    batched = greedy(model, samples, OBJECTIVE, end=2, longest=6)
    alone = [greedy(model, [sample], OBJECTIVE, end=2, longest=6)[0] for sample in samples]
    assert batched == alone
    prompts = torch.stack([prompt_tokens(sample) for sample in samples])
    pictures = torch.stack([sample["pixel_values"] for sample in samples])
    made = model.generate(pictures, prompts, max_new_tokens=6, eos_token_id=2, pad_token_id=0)[:, prompts.shape[1] :]
    assert [row[: row.index(2)] if 2 in row else row for row in made.tolist()] == batched


def test_refusals_take_the_place_of_the_answers_alone(setting):
    forget = setting[1]["forget"]
    refused = AnsweredWith(forget, [REFUSAL, [13, 2]], seed=3)
    assert len(refused) == len(forget)
    used = set()
    for old, new in zip(forget.samples, (refused[i] for i in range(len(refused))), strict=True):
        assert torch.equal(prompt_tokens(new), prompt_tokens(old))
        assert torch.equal(new["pixel_values"], old["pixel_values"])
        assert answer_tokens(new).tolist() == new["input_ids"][3:].tolist()
        used.add(tuple(answer_tokens(new).tolist()))
    assert used == {tuple(REFUSAL), (13, 2)}
    padded = {k: F.pad(v, (0, 2)) if v.ndim == 1 else v for k, v in forget[0].items()}
    padded["labels"][-2:] = -100
    padded["attention_mask"] = torch.tensor([1] * (len(padded["input_ids"]) - 2) + [0, 0])
    assert torch.equal(
        AnsweredWith(Listed([padded]), [REFUSAL])[0]["input_ids"], AnsweredWith(forget, [REFUSAL])[0]["input_ids"]
    )
    with pytest.raises(BadInput, match="none may be empty"):
        AnsweredWith(forget, [[]])
    with pytest.raises(BadInput, match="3 questions were given for 8 samples"):
        Asked(forget, ["a", "b", "c"])


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"base": "npo"}, {"weight": -0.1}, {"lr": 0}, {"epochs": 0}, {"warmup": 1}, {"lora_rank": 0}, {"nonsense": 1}],
)
def test_wrong_hyperparameters_are_refused(wrong):
    with pytest.raises(BadInput, match="safe-eraser"):
        PromptDecouple(**wrong)


def test_what_a_base_needs_must_be_given(setting):
    model, data = setting
    with pytest.raises(NotApplicable, match="needs 'decouple'"):
        PromptDecouple().unlearn(model, data["forget"], data["retain"])
    with pytest.raises(NotApplicable, match="needs 'refusal'"):
        PromptDecouple(base="po").unlearn(model, data["forget"], data["retain"], extras={"decouple": data["decouple"]})
    with pytest.raises(NotApplicable, match="retain="):
        PromptDecouple(weight=0).unlearn(model, data["forget"])
    edited = PromptDecouple(base="ga", steps=1).unlearn(model, data["forget"], extras={"decouple": data["decouple"]})
    assert not same(edited, model)


def test_roles_that_do_not_fit_together_are_refused(setting):
    model, data = setting

    def attempt(decouple, retain=data["retain"]):
        PromptDecouple(steps=1).unlearn(model, data["forget"], retain, extras={"decouple": decouple})

    with pytest.raises(BadInput, match="1 of the 1 questions of the decoupling set are asked nowhere"):
        attempt(Answers([1], ["harmless"], 16))
    first = data["decouple"][0]
    empty = {**first, "labels": torch.full_like(first["labels"], -100)}
    with pytest.raises(BadInput, match=r"1 samples of the decouple set \(the first is number 1\) have no answer"):
        attempt(Listed([first, empty]))
    lone = {**empty, "labels": empty["labels"].clone()}
    lone["labels"][0] = 1  # predicted by no position
    with pytest.raises(BadInput, match="no answer left after masking"):
        attempt(Listed([lone]))
    blind = [{k: v for k, v in s.items() if k != "pixel_values"} for s in data["retain"].samples]
    with pytest.raises(BadInput, match=r"must have the same keys.*those of retain input_ids, labels"):
        attempt(data["decouple"], retain=Listed(blind))
    with pytest.raises(BadInput, match="decouple set is empty"):
        attempt(Listed([]))
    with pytest.raises(BadInput, match="must be mappings"):
        attempt(Listed([(torch.zeros(3), 1)]))
    with pytest.raises(BadInput, match="in both the innocent and the decouple set"):
        tiny_problem(setting, innocent=data["decouple"])


# -- the embedded problem ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    return SafetyWorld.make(0, (2, 1, 1))


def test_every_object_and_question_has_an_answer_of_its_own(world):
    assert sorted((*world.unsafe, *world.decoupling, *world.kept_back)) == sorted(OBJECTS)
    assert [len(x) for x in (world.unsafe, world.decoupling, world.kept_back)] == [3, 4, 3]
    asked = [f for f in world.facts if f.question in (*HARMFUL, *HARMLESS)]
    assert len(asked) == 10 * 6
    assert len({f.answer for f in asked}) == len(asked)
    assert SafetyWorld.make(1, (2, 1, 1)).facts != world.facts
    assert len(safety_tokenizer()) == len(SafetyWorld.make(1, (2, 1, 1)).tokenizer)
    assert all(safety_tokenizer().unk_token_id not in sample["input_ids"] for sample in world.everything())


def test_only_the_answer_is_a_target(world):
    data = world.everything()
    for index in (0, 5, len(data) - 1):
        sample, fact = data[index], data.facts[data.rows[index][1]]
        assert world.tokenizer.decode(answer_tokens(sample), skip_special_tokens=True) == fact.answer
        assert len(sample["labels"]) == len(sample["input_ids"])  # the picture takes no place
    fact = data.facts[0]
    longer = Fact(fact.thing, f"{fact.question} {HARMFUL[1]}", fact.answer, True)
    pictures, things = world._parts[0]
    short, long = (ShapesQA(pictures, things, [f], world.tokenizer)[0] for f in (fact, longer))
    assert len(long["input_ids"]) > len(short["input_ids"])
    assert int((long["labels"] != -100).sum()) == int((short["labels"] != -100).sum())


def test_pictures_are_shared_by_no_two_parts_and_every_object_is_in_each(world):
    seen = [{p.numpy().tobytes() for p in pictures} for pictures, _ in world._parts]
    assert [len(s) for s in seen] == [20, 10, 10]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert all(
        things.bincount().tolist() == [each] * 10 for (_, things), each in zip(world._parts, (2, 1, 1), strict=True)
    )
    with pytest.raises(BadInput, match="needs pictures"):
        SafetyWorld.make(0, (2, 0, 1))


@pytest.fixture(scope="module")
def shapes_problem():
    """The embedded problem with an untrained vision encoder and next to no training."""
    patch = pytest.MonkeyPatch()
    patch.setattr(problems, "_tower", lambda seed: convnet(10, 32, 3, (16, 32, 64), 128))
    yield make_problem("shapes-safety:pictures=2:unseen=1:epochs=1")
    patch.undo()


def test_over_forgetting_is_measured_on_objects_and_pictures_that_decoupling_never_saw(shapes_problem):
    given, truth = shapes_problem.given, shapes_problem.truth

    def things(data):
        return {data.facts[j].thing for _, j in data.rows}

    decouple, innocent = given.extras["decouple"], truth.innocent
    assert not things(decouple) & things(innocent)
    assert not {s["pixel_values"].numpy().tobytes() for s in decouple} & {
        s["pixel_values"].numpy().tobytes() for s in innocent
    }
    assert things(given.forget) == things(given.retain) == things(truth.holdout)
    assert not things(given.forget) & (things(decouple) | things(innocent))
    wordings = {f.question for f in given.forget.facts}
    assert wordings == set(HARMFUL[:3]) == {f.question for f in decouple.facts}
    assert {f.question for f in truth.holdout.facts} == {HARMFUL[3]}
    assert {f.question for f in given.retain.facts} == set(HARMLESS)


@pytest.mark.parametrize(
    "slug",
    ["original", "gradient-ascent", "gradient-difference", "fine-tune", "random-labels", "bad-teacher", "retrain"],
)
def test_the_universal_baselines_run_on_the_problem(shapes_problem, slug):
    cls = get_method(slug)
    assert shapes_problem.lacks(cls.card.needs, cls.card.tasks) is None
    short = {name: 1 for name in ("epochs",) if name in cls.model_fields}
    scores = shapes_problem.score(cls(**short).solve(shapes_problem.given))
    assert {"test_score", "forget_gap", "forget_score", "forget_unseen", "sarr", "attack_success"} <= scores.keys()
    assert shapes_problem.validate(shapes_problem.given.model).keys() >= {"validation_score"}


def test_the_method_runs_on_the_problem_and_is_refused_where_its_data_lacks(shapes_problem):
    card = PromptDecouple.card
    assert shapes_problem.lacks(card.needs, card.tasks) is None
    bare = copy.copy(shapes_problem)
    bare.given = copy.replace(shapes_problem.given, extras={}) if hasattr(copy, "replace") else _without(bare.given)
    assert "needs decouple" in bare.lacks(card.needs, card.tasks)
    scores = shapes_problem.score(PromptDecouple(steps=1).solve(shapes_problem.given))
    assert 0 <= scores["sarr"] <= 1
    assert json.dumps(scores)
    assert PromptDecouple(**json.loads(json.dumps(PromptDecouple().settings))) == PromptDecouple()
    assert [p.name for p in PromptDecouple.hyperparameters() if not p.doc] == []


def _without(given):
    from dataclasses import replace

    return replace(given, extras={})
