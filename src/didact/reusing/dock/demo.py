"""The dock in a minute: a server, models of a hub submitted over HTTP, and a user who finds and reuses them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from didact.reusing.dock.client import DockClient
    from didact.reusing.dock.records import LearnwareInfo, SearchResult
    from didact.reusing.request import ModelRecord
    from didact.reusing.result import ReuseResult

Say = Callable[[str], None]


@dataclass
class Demo:
    """What happened."""

    url: str  #: where the dock was
    submitted: int = 0  #: models sent
    usable: int = 0  #: those that passed the check
    bytes_sent: int = 0  #: bytes that left the user
    accuracy: float = 0.0  #: of the answer on the user's test samples
    scratch: float = 0.0  #: of training from scratch on the user's labels
    used: dict[str, float] = field(default_factory=dict)  #: names of the models in the answer, and their shares
    answer: Path = Path()  #: folder of the answer


def run(
    folder: str | Path | None = None,
    *,
    models: int = 20,
    seed: int = 0,
    how: str = "auto",
    labelled: bool = True,
    stay: bool = False,
    say: Say = print,
) -> Demo:
    """Start a dock, submit the hub's models through a client, search and reuse as a user of six kinds of digits.

    Args:
        folder: where the dock, the packages and the answer are put; left out, a scratch folder that is removed.
        models: of the hub's, at most 20; each takes some seconds to be checked.
        labelled: whether the user has labels for 18 samples, or none.
        stay: keep serving afterwards, for a look with a browser, until interrupted.
        say: is given each line of the story.

    Cost: about 5 seconds a model on one core.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="didact-dock-demo-") as scratch:
            return run(scratch, models=models, seed=seed, how=how, labelled=labelled, stay=stay, say=say)
    from didact.reusing.dock.client import DockClient
    from didact.reusing.hub import hub
    from didact.reusing.learnware_dock.over_http import served, submitted

    problem = hub(seed, models=models)
    folder = Path(folder)
    with served(folder / "dock") as url:
        say(f"A dock is served at {url}")
        packages = [_pack(record, folder / "packages") for record in problem.given.models]
        say(f"A developer submits {len(packages)} models; the dock checks each in a sandbox ...")
        infos = submitted(url, packages)
        _tell_checks(infos, say)
        demo = Demo(url, len(infos), sum(info.usable == 1 for info in infos), answer=folder / "answer")
        with DockClient(url) as client:
            answer = _use(client, problem, how, labelled, seed, say)
            demo.bytes_sent = client.bytes_sent
        names = {info.id: info.semantic.name for info in infos}
        demo.used = {names[id]: float(share) for id, share in answer.weights.items()}
        answer.save(demo.answer)
        demo.accuracy, demo.scratch = _compare(problem, answer)
        _tell_end(demo, say)
        if stay:
            _wait(url, say)
    return demo


def described(record: ModelRecord) -> Any:
    """The words of a hub's model, for a dock."""
    from didact.reusing.dock.semantics import Input, Output, SemanticSpecification

    picture = len(record.input_shape) > 1
    return SemanticSpecification(
        name=record.id,
        description=f"Tells apart: {', '.join(record.classes)}.",
        data="Image" if picture else "Table",
        task="Classification",
        library="PyTorch",
        scenario=("Education",),
        licence="Apache-2.0",
        input=None if picture else Input(dimension=record.input_shape[0]),
        output=Output(dimension=len(record.classes), description=dict(enumerate(record.classes))),
    )


def _pack(record: ModelRecord, folder: Path) -> Path:
    from didact.reusing.learnware_dock.over_http import packed

    return packed(replace(record, semantic=described(record)), folder / f"{record.id}.zip")


def _use(client: DockClient, problem: Any, how: str, labelled: bool, seed: int, say: Say) -> ReuseResult:
    """The user's side: search, then reuse."""
    task = problem.given.task
    x = task.data.tensors[0].numpy()
    say(f"A user has {len(x)} pictures of {', '.join(task.classes)}, and sends only a summary of them.")
    asked = client.specify(x, "Image", seed=seed)
    _tell_search(client.search(specification=asked, limit=5), say)
    few = tuple(part.numpy() for part in task.labelled.tensors) if labelled else None
    return client.reuse(x, few, how=how, classes=task.classes, kind="Image", seed=seed)


def _compare(problem: Any, answer: ReuseResult) -> tuple[float, float]:
    from didact.reusing.baselines import Scratch

    reached = problem.score(answer)["test_score"]
    return reached, problem.score(Scratch().solve(problem.given))["test_score"]


def _tell_checks(infos: Sequence[LearnwareInfo], say: Say) -> None:
    for info in infos:
        verdict = "usable" if info.usable == 1 else f"refused: {info.reason}"
        say(f"  {info.semantic.name:18} {info.status:8} {verdict}")


def _tell_search(result: SearchResult, say: Say) -> None:
    say("The dock answers with")
    for hit in result.single:
        say(f"  {hit.score:.2f}  {hit.info.semantic.name:18} {hit.info.semantic.description}")
    if result.mixture is not None:
        parts = zip(result.mixture.weights, result.mixture.learnwares, strict=True)
        say("  or a mixture: " + " + ".join(f"{share:.2f} {info.semantic.name}" for share, info in parts))


def _tell_end(demo: Demo, say: Say) -> None:
    shares = ", ".join(f"{name} ({share:.2f})" for name, share in demo.used.items())
    say(f"Reused: {shares}")
    say(f"Accuracy {demo.accuracy:.3f}; training from scratch on the same labels reaches {demo.scratch:.3f}.")
    say(f"{demo.bytes_sent:,} bytes left the user, no picture among them. The answer is in {demo.answer}.")


def _wait(url: str, say: Say) -> None:
    say(f"The dock stays at {url}; Ctrl-C ends it.")
    try:
        while True:
            time.sleep(1.0)
    except KeyboardInterrupt:
        say("bye")
