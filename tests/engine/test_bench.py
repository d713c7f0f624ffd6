"""The bench: what crashes, hangs, leaks or lies is a row; a run resumes; nothing is computed twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import didact
from didact.core.errors import BadInput, UnknownName
from didact.core.registry import make_method
from didact.engine.ledger import Ledger

HERE = Path(__file__).parent
PROBLEM = f"{HERE / 'hostile.py'}:make"


def reference(name: str) -> str:
    return f"{HERE / 'hostile.py'}:{name}"


def run(methods, ledger, **options):
    options = {"seeds": 1, "quiet": True, "timeout": 20, **options}
    return didact.bench("forgetting", problem=PROBLEM, methods=methods, ledger=ledger, **options)


def statuses(outcome):
    return {row.cell.method: row.status for row in outcome.rows}


def numbers(outcome):
    """All metrics as text: NaN equals NaN there."""
    return [json.dumps(row.metrics) for row in outcome.rows]


def test_every_kind_of_misbehaviour_is_one_row_and_the_run_goes_on(ledger):
    names = ["Raises", "Loops", "Allocates", "NotANumber", "Segfaults", "Exits", "Fine"]
    outcome = run([reference(n) for n in names], ledger, timeout=2, memory=0.5)
    assert statuses(outcome) == {
        "test-raises": "failed",
        "test-loops": "timed-out",
        "test-allocates": "out-of-memory",
        "test-nan": "failed",
        "test-segfaults": "failed",
        "test-exits": "failed",
        "test-fine": "done",
    }
    errors = {row.cell.method: row.error for row in outcome.rows}
    assert "ZeroDivisionError: on purpose" in errors["test-raises"]
    assert "last words" in errors["test-raises"]
    assert "SIGSEGV" in errors["test-segfaults"]
    assert "exit code 3" in errors["test-exits"]
    assert "not finite" in errors["test-nan"]
    assert len(outcome.failed) == 6
    assert len(Ledger(ledger).rows()) == 7


def test_a_method_that_does_not_apply_is_asked_once(ledger, tmp_path):
    """Whether it applies depends on the kind of problem: one seed is asked, all get a row."""
    outcome = run(["npo", reference("Fine")], ledger, seeds=3, jobs=1, out=tmp_path)
    assert [row.status for row in outcome.rows if row.cell.method == "npo"] == ["not-applicable"] * 3
    assert [row.status for row in outcome.rows if row.cell.method == "test-fine"] == ["done"] * 3
    assert sorted(row.cell.seed for row in outcome.rows if row.cell.method == "npo") == [0, 1, 2]
    assert all("works with causal-lm" in row.error for row in outcome.rows if row.cell.method == "npo")


def test_a_second_run_computes_nothing(ledger, tmp_path):
    marker = tmp_path / "marker"
    methods = [reference("Fine"), f"{reference('KilledOnce')}:marker={marker}"]
    first = run(methods, ledger, seeds=2)
    assert {row.status for row in first.rows} == {"done"}
    assert marker.exists()
    second = run(methods, ledger, seeds=2)
    assert [r.created for r in second.rows] == [r.created for r in first.rows]
    third = run(methods, ledger, seeds=2, fresh=True)
    assert all(a.created < b.created for a, b in zip(first.rows, third.rows, strict=True))
    assert numbers(third) == numbers(first)
    assert len(Ledger(ledger).rows()) == 4


def test_a_wider_limit_gives_a_stopped_cell_another_try(ledger):
    method = f"{reference('Sleeps')}:seconds=2"
    assert statuses(run([method], ledger, timeout=0.5)) == {"test-sleeps": "timed-out"}
    assert statuses(run([method], ledger, timeout=0.5)) == {"test-sleeps": "timed-out"}
    assert statuses(run([method], ledger, timeout=20)) == {"test-sleeps": "done"}


def test_metrics_do_not_depend_on_the_number_of_workers(tmp_path):
    one = run(["fine-tune", "gradient-ascent"], str(tmp_path / "a.sqlite"), seeds=2, jobs=1)
    two = run(["fine-tune", "gradient-ascent"], str(tmp_path / "b.sqlite"), seeds=2, jobs=2)
    assert numbers(one) == numbers(two)
    assert [r.cost["passes"] for r in one.rows] == [r.cost["passes"] for r in two.rows]


def test_tables_report_and_best_answer_are_written(ledger, tmp_path):
    out = tmp_path / "out"
    outcome = run(["original", "fine-tune"], ledger, seeds=2, out=out, keep=["fine-tune"])
    names = ["report.html", "leaderboard.md", "leaderboard.csv", "leaderboard.json", "rows.csv", "rows.parquet"]
    assert all((out / name).is_file() for name in names)
    assert json.loads((out / "leaderboard.json").read_text())["entries"]
    kept = sorted(p.name for p in (out / "kept").iterdir())
    assert kept == ["fine-tune-seed0", "fine-tune-seed1"]
    model = didact.load(out / "kept" / "fine-tune-seed0")
    problem = didact.core.registry.make_problem(PROBLEM, seed=0)
    row = next(r for r in outcome.rows if r.cell.method == "fine-tune" and r.cell.seed == 0)
    assert problem.score(model)["test_score"] == row.metrics["test_score"]
    if outcome.leaderboard.best:
        assert outcome.best is not None
        assert not (out / "answers").exists()


def test_an_answer_computed_by_an_earlier_run_is_made_again_when_asked_for(ledger, tmp_path):
    run(["fine-tune"], ledger)
    run(["fine-tune"], ledger, out=tmp_path / "out", keep=["all"])
    assert didact.load(tmp_path / "out" / "kept" / "fine-tune-seed0")


def test_tuning_gives_everyone_the_same_number_of_trials_on_validation_data(ledger):
    methods = [reference("Tunable"), reference("Fine"), "fine-tune", "gradient-ascent", "random-labels", "bad-teacher"]
    outcome = run(methods, ledger, tune_trials=8)
    trials = {}
    for row in outcome.trials:
        trials.setdefault(row.cell.method, []).append(row)
    assert {name: len(rows) for name, rows in trials.items()} == dict.fromkeys(
        ["test-tunable", "fine-tune", "gradient-ascent", "random-labels", "bad-teacher"], 8
    )
    for rows in trials.values():
        assert all(row.cell.role == "validate" and row.cell.seed == 900_001 for row in rows)
        assert all(set(row.metrics) == VALIDATION for row in rows)
        # The first trial is the settings given; the others differ.
        assert rows[0].cell.settings == make_method(rows[0].cell.method).settings
        assert len({json.dumps(row.cell.settings) for row in rows}) == 8
    again = run(methods, ledger, tune_trials=8)
    assert [r.created for r in again.trials] == [r.created for r in outcome.trials]


VALIDATION = {"validation_score", "validation_forget_score", "validation_forget_gap"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"family": "forgeting"}, UnknownName, "Did you mean forgetting"),
        ({"problem": "digits-clas"}, UnknownName, "digits-class"),
        ({"problem": "nowhere.py:make"}, BadInput, "no file"),
        ({"methods": "sds"}, UnknownName, "ssd"),
        ({"methods": "ssd:alpha=-1"}, BadInput, "greater than 0"),
        ({"methods": "ssd:alhpa=1"}, BadInput, "has no hyperparameter 'alhpa'"),
        ({"by": "beauty"}, BadInput, "no metric 'beauty'"),
        ({"seeds": 0}, BadInput, "At least one seed"),
    ],
)
def test_a_wrong_call_fails_at_once_and_says_what_to_do(ledger, options, error, message):
    call = {"family": "forgetting", "problem": PROBLEM, "methods": "original", "ledger": ledger, **options}
    with pytest.raises(error, match=message):
        didact.bench(call.pop("family"), quiet=True, **call)
    assert not Ledger(ledger).runs()


def test_a_problem_that_cannot_be_built_fails_its_cells_with_the_reason(ledger, tmp_path):
    (tmp_path / "broken.py").write_text("def make(seed=0):\n    raise OSError('the disk is gone')\n")
    outcome = didact.bench(
        "forgetting", problem=f"{tmp_path}/broken.py:make", methods="original,ssd", seeds=2, ledger=ledger, quiet=True
    )
    assert {r.status for r in outcome.rows} == {"failed"}
    assert all("the disk is gone" in r.error for r in outcome.rows)
    assert outcome.leaderboard.best is None


def test_a_script_without_a_main_guard_works(tmp_path):
    (tmp_path / "script.py").write_text(
        f"import didact\nfound = didact.bench('forgetting', problem={PROBLEM!r}, methods='original', seeds=2,"
        f" ledger='l.sqlite', quiet=True)\nprint([row.status for row in found.rows])\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "['done', 'done']\n", done.stderr
