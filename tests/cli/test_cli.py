"""The command as a user runs it: in a process of its own, judged by exit code, standard output and files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import didact
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.models.language import text_classifier
from didact.models.small import mlp

HOSTILE = Path(__file__).parents[1] / "engine" / "hostile.py"
PROBLEM = f"{HOSTILE}:make"


def run(*arguments, code=0, cwd=None):
    done = subprocess.run(
        [sys.executable, "-m", "didact.cli", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def test_help_imports_nothing_heavy():
    script = (
        "import sys; sys.argv = ['didact', '--help']\n"
        "from didact.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'pandas', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("bench", "claim", "list", "show", "find", "report", "apply"):
        assert command in done.stdout


def test_importing_didact_imports_nothing_heavy():
    script = "import didact, sys; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_bench_prints_a_board_and_ends_with_the_report(tmp_path, ledger):
    options = ["--problem", PROBLEM, "--methods", "original,fine-tune", "--seeds", 2, "--ledger", ledger]
    done = run("bench", "forgetting", *options, "--out", tmp_path / "out")
    assert "fine-tune" in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last == f"report: {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
    assert str(HOSTILE.parent) not in (tmp_path / "out" / "leaderboard.json").read_text()


def test_json_is_alone_on_standard_output(tmp_path, ledger):
    methods = f"original,{HOSTILE}:Raises,{HOSTILE}:Fine"
    done = run("bench", "forgetting", "--problem", PROBLEM, "--methods", methods, "--seeds", 1, "--ledger", ledger,
               "--out", tmp_path / "out", "--json", code=1)  # fmt: skip
    data = json.loads(done.stdout)
    assert {e["method"] for e in data["entries"]} == {"original", "test-raises", "test-fine"}
    assert [f["status"] for f in data["failures"]] == ["failed"]


def test_a_failed_cell_shows_in_the_exit_code_and_on_the_screen(tmp_path, ledger):
    done = run("bench", "forgetting", "--problem", PROBLEM, "--methods", f"{HOSTILE}:Raises,original", "--seeds", 1,
               "--ledger", ledger, "--out", tmp_path / "out", code=1)  # fmt: skip
    assert "failed  test-raises" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "nothing"], "no family 'nothing'. Known: forgetting"),
        (["bench", "forgetting", "--methods", "sds"], "Did you mean ssd"),
        (["bench", "forgetting", "--methods", "ssd:alpha=-3"], "greater than 0"),
        (["bench", "forgetting", "--problem", "digits-clas"], "Did you mean digits-class"),
        (["claim"], "Name a method"),
        (["claim", "original"], "makes no claim"),
        (["show", "stochastic-kinematics"], "not built yet"),
        (["show", "nonsense"], "no method 'nonsense'"),
        (["report", "nonsense"], "no run"),
        (["list", "nonsense"], "no family 'nonsense'"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_two(arguments, message):
    done = run(*arguments, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_report_can_be_made_again_from_the_ledger(tmp_path, ledger):
    options = ["--problem", PROBLEM, "--methods", "original,fine-tune", "--seeds", 2, "--ledger", ledger]
    run("bench", "forgetting", *options, "--out", tmp_path / "a")
    runs = json.loads(run("report", "--runs", "--ledger", ledger, "--json").stdout)
    done = run("report", runs[0]["id"], "--ledger", ledger, "--out", tmp_path / "b")
    assert done.stdout.strip().splitlines()[-1] == f"report: {tmp_path / 'b' / 'report.html'}"
    tables = [(tmp_path / x / "leaderboard.csv").read_text() for x in "ab"]
    assert tables[0] == tables[1]


def test_claims_are_judged_and_written(tmp_path, ledger):
    (tmp_path / "own.py").write_text(CLAIMING.replace("PROBLEM", PROBLEM))
    script = "import sys; sys.path.insert(0, '.'); import own; from didact.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "claim", "claims-something", "--ledger", ledger, "--results", "r"],
        capture_output=True, text=True, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "claims-something holds" in done.stdout
    assert json.loads((tmp_path / "r/forgetting/claims-something.json").read_text())["outcome"] == "holds"


CLAIMING = '''
from didact.core.claim import Claim, at_most
from didact.core.method import Card
from didact.core.registry import register
from didact.forgetting import Unlearner

@register
class Mine(Unlearner):
    """Does nothing at all to the model."""
    card = Card("claims-something", "claims")
    claim = Claim("changes nothing", on="PROBLEM", seeds=2, expects=[at_most("changed", 0.0)])
    def edit(self, model, request):
        return model
'''


def test_list_show_and_find():
    lines = json.loads(run("list", "forgetting", "--json").stdout)
    built = {line["slug"]: line for line in lines}
    assert {"ssd", "laf", "blindspot", "sparse-unlearning", "retrain"} <= set(built)
    assert set(built["ssd"]) >= {"slug", "family", "title", "paper", "kind", "verdict"}
    everything = json.loads(run("list", "--all", "--json").stdout)
    catalogue = {line["slug"] for line in everything if not line.get("part_of") and line["kind"] != "baseline"}
    assert len(catalogue) == 248
    assert next(line for line in everything if line["slug"] == "stochastic-kinematics")["built"] is False
    shown = json.loads(run("show", "ssd", "--json").stdout)
    assert shown["hyperparameters"][0]["name"] == "alpha"
    assert "Hyperparameters" in run("show", "ssd").stdout
    hits = json.loads(run("find", "forget", "without", "any", "labels", "--json").stdout)
    assert "laf" in [hit["slug"] for hit in hits[:3]]
    assert all(
        h["slug"] not in ("retrain", "fine-tune")
        for h in json.loads(run("find", "without the retained data", "--json").stdout)
    )


@pytest.fixture(scope="module")
def clouds():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(150) % 3
    return torch.randn(150, 6, generator=generator) + 3.0 * torch.nn.functional.one_hot(y, 6), y


def test_apply_reads_a_saved_model_and_data_files_and_writes_the_same_layout(tmp_path, clouds):
    x, y = clouds
    model = Recipe(lambda: mlp(6, 3, (32,)), Classification(), epochs=20, lr=1e-2).fit(TensorDataset(x, y), 0)
    didact.save(model, tmp_path / "model")
    gone = (y == 2).numpy()
    np.savez(tmp_path / "forget.npz", x=x.numpy()[gone], y=y.numpy()[gone])
    np.savez(tmp_path / "retain.npz", x=x.numpy()[~gone], y=y.numpy()[~gone])
    files = ["--forget", tmp_path / "forget.npz", "--retain", tmp_path / "retain.npz"]
    done = run("apply", "random-labels:lr_factor=10:epochs=20", "--model", tmp_path / "model", *files,
               "--out", tmp_path / "answer", "--json")  # fmt: skip
    found = json.loads(done.stdout)
    assert found["forget_score"]["before"] > 0.9
    answer = didact.load(tmp_path / "answer")
    after = Classification().mean_score(answer, TensorDataset(x[y == 2], y[y == 2]))
    assert after == found["forget_score"]["after"] < 0.5
    assert json.loads((tmp_path / "answer/didact.json").read_text())["method"] == "random-labels"
    again = run("apply", "random-labels", "--model", tmp_path / "model", *files, "--out", tmp_path / "model", code=2)
    assert "never overwritten" in again.stderr


def test_apply_keeps_the_hugging_face_layout(tmp_path):
    torch.manual_seed(0)
    text_classifier(40, 3, hidden=16, layers=1, heads=2).save_pretrained(tmp_path / "model")
    (tmp_path / "model/tokenizer_config.json").write_text("{}")
    rng = np.random.default_rng(0)
    for name, label in (("forget", 2), ("retain", 0)):
        lines = [
            {"input_ids": rng.integers(3, 40, 6).tolist(), "attention_mask": [1] * 6, "labels": label}
            for _ in range(12)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run("apply", "gradient-difference", "--model", tmp_path / "model", "--forget", tmp_path / "forget.jsonl",
        "--retain", tmp_path / "retain.jsonl", "--out", tmp_path / "answer")  # fmt: skip
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "answer", local_files_only=True)
    assert model.config.num_labels == 3
    assert (tmp_path / "answer/tokenizer_config.json").exists()


def test_apply_makes_a_language_model_forget_texts(tmp_path):
    from didact.data.bios import bios, to_jsonl
    from didact.models.language import gpt_tiny
    from didact.models.tokenizer import word_tokenizer

    people = bios(0, 8)
    tokenizer = word_tokenizer([*people.texts(), "I do not know ."])
    gpt_tiny(len(tokenizer), hidden=16, heads=2).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    files = ["--forget", to_jsonl(people.qa(people.people[:1]), tmp_path / "forget.jsonl")]
    files += ["--retain", to_jsonl(people.qa(people.people[1:]), tmp_path / "retain.jsonl")]
    for method in ("npo:epochs=1", "prompt-filter"):
        out = tmp_path / method.partition(":")[0]
        done = run("apply", method, "--model", tmp_path / "model", *files, "--out", out)
        assert "forget_score" in done.stdout
        loaded = didact.load(out)
        assert (out / "tokenizer_config.json").is_file()
        assert hasattr(loaded, "generate")
    clash = ["--forget", tmp_path / "forget.jsonl", "--retain", tmp_path / "forget.jsonl"]
    refused = run("apply", "npo", "--model", tmp_path / "model", *clash, "--out", tmp_path / "no", code=2)
    assert "both the forget and the retain set" in refused.stderr
    assert not (tmp_path / "no").exists()


def test_apply_needs_help_with_a_class_of_ones_own(tmp_path):
    layers = "nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))"
    (tmp_path / "mine.py").write_text(f"from torch import nn\ndef make_model():\n    return {layers}\n")
    sys.path.insert(0, str(tmp_path))
    import mine

    didact.save(mine.make_model(), tmp_path / "model")
    x, y = torch.randn(30, 6), torch.arange(30) % 3
    np.savez(tmp_path / "forget.npz", x=x.numpy(), y=y.numpy())
    options = ["--model", tmp_path / "model", "--forget", tmp_path / "forget.npz", "--out", tmp_path / "answer"]
    assert "into=model" in run("apply", "gradient-ascent", *options, code=2).stderr
    run("apply", "gradient-ascent", *options, "--architecture", f"{tmp_path}/mine.py:make_model")
    assert didact.load(tmp_path / "answer", into=mine.make_model())


def test_it_stops_cleanly_when_interrupted(tmp_path, ledger):
    import signal
    import time

    bench = subprocess.Popen(
        [sys.executable, "-m", "didact.cli", "bench", "forgetting", "--problem", PROBLEM, "--methods",
         f"{HOSTILE}:Sleeps:seconds=30", "--seeds", "1", "--ledger", ledger, "--out", str(tmp_path / "o")],
        stderr=subprocess.PIPE, text=True,
        # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    time.sleep(12)
    bench.send_signal(signal.SIGINT)
    _, errors = bench.communicate(timeout=30)
    assert bench.returncode == 130
    assert "goes on where this one ended" in errors
