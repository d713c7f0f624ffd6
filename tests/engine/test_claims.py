"""The claim machinery, from the method's declaration to the file in results/: known to hold, to fail, to stay open."""

import json
from pathlib import Path

import pytest

import didact
from didact.core.claim import Claim, at_least, at_most, better, close
from didact.core.errors import UnknownName
from didact.core.method import Card
from didact.core.registry import make_method, register
from didact.engine import claims
from didact.engine.ledger import Ledger

FILE = Path(__file__).parent / "hostile.py"
PROBLEM = f"{FILE}:make"
make_method(f"{FILE}:Fine")


def declare(slug, *expects, arms=None):
    """A method that does nothing and claims something."""
    fine = type(make_method(f"{FILE}:Fine"))
    made = type(
        "Claims",
        (fine,),
        {
            "__module__": fine.__module__,
            "__doc__": "Claims.",
            "card": Card(slug, slug),
            "claim": Claim(
                "it is so", on=PROBLEM, seeds=3, expects=list(expects), arms={"self": "test-fine", **(arms or {})}
            ),
        },
    )
    return register(made)


@pytest.mark.parametrize(
    ("slug", "expects", "outcome"),
    [
        ("claim-holds", [at_most("changed", 0.0), close("test_score", to="original", within=0.01)], "holds"),
        ("claim-fails", [at_least("changed", 0.5)], "fails"),
        ("claim-mixed", [at_most("changed", 0.0), at_least("changed", 0.5)], "fails"),
        ("claim-open", [better("test_score", than="fine-tune", by=0.0)], "undecided"),
    ],
)
def test_verdicts(slug, expects, outcome, ledger, tmp_path):
    declare(slug, *expects)
    verdict = didact.claim(slug, ledger=ledger, results=tmp_path, quiet=True)
    assert verdict.outcome == outcome, verdict
    stored = json.loads((tmp_path / "forgetting" / f"{slug}.json").read_text())
    assert stored["outcome"] == outcome
    assert len(stored["rows"]) == 3 * len(stored["arms"])
    assert all(row["status"] == "done" and row["numbers"] for row in stored["rows"])
    assert claims.known_verdicts(Ledger(ledger))[slug]["outcome"] == outcome


def test_a_failing_arm_leaves_the_claim_open_and_is_named(ledger):
    declare("claim-broken", at_most("changed", 0.0), better("test_score", than="bad"), arms={"bad": f"{FILE}:Raises"})
    verdict = didact.claim("claim-broken", ledger=ledger, quiet=True)
    assert verdict.outcome == "undecided"
    assert [e.outcome for e in verdict.expectations] == ["holds", "undecided"]
    assert "bad" in verdict.expectations[1].missing
    assert len(verdict.about["failed_cells"]) == 3


def test_claims_share_rows_with_the_bench(ledger):
    declare("claim-shared", close("test_score", to="original", within=1.0))
    didact.bench("forgetting", problem=PROBLEM, methods="original", seeds=3, ledger=ledger, quiet=True)
    before = {row.key: row.created for row in Ledger(ledger).rows()}
    didact.claim("claim-shared", ledger=ledger, quiet=True)
    after = {row.key: row.created for row in Ledger(ledger).rows()}
    assert len(after) == 6
    assert all(after[key] == created for key, created in before.items())


def test_a_method_without_a_claim_says_so(ledger):
    with pytest.raises(UnknownName, match="makes no claim"):
        didact.claim("original", ledger=ledger)
