"""`didact dock pack`, `submit`, `search`, `reuse`, `status`, `download` and `delete`: the users' side."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from didact.cli.dock.connect import connect
from didact.cli.dock.data import Kind, read_data
from didact.cli.dock.printing import print_found, print_many, print_one
from didact.core.errors import BadInput
from didact.reusing.dock.client import DockClient
from didact.reusing.dock.local import LocalDock
from didact.reusing.dock.records import LearnwareInfo
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification
from didact.reusing.dock.specification import Specification


@dataclass(frozen=True)
class Words:
    """What a search asks for in words."""

    text: str | None
    task: str | None
    library: str | None
    scenario: tuple[str, ...]
    licence: str | None

    def query(self, kind: Kind | None) -> SemanticQuery | None:
        given = {name: value for name, value in {**asdict(self), "data": kind}.items() if value}
        return SemanticQuery.parse(given) if given else None


def run_submit(packages: Sequence[Path], url: str | None, token: str | None, wait: bool, as_json: bool) -> int:
    dock = connect(url, token, patience=60.0)
    taken = []
    for package in packages:
        info = _submit(dock, package)
        if wait and isinstance(dock, DockClient):
            info = dock.wait(info.id)
        taken.append(info)
        if not as_json:
            print_one(info)
    if as_json:
        print(json.dumps([info.to_json() for info in taken]))
    return 1 if any(info.status == "FAIL" for info in taken) else 0


def _submit(dock: DockClient | LocalDock, package: Path) -> LearnwareInfo:
    if isinstance(dock, LocalDock) or not sys.stderr.isatty():
        return dock.submit(package)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(package.name)
        return dock.submit(package, lambda done, size: bar.update(task, completed=done, total=size))


def run_search(
    file: Path | None,
    words: Words,
    url: str | None,
    token: str | None,
    kind: Kind | None,
    target: str | None,
    encoder: str | None,
    limit: int,
    page: int,
    mixture: Literal["greedy", "auto", "none"],
    columns: str | None,
    across: bool,
    seed: int,
    as_json: bool,
) -> int:
    dock = connect(url, token)
    options: dict[str, Any] = {}
    if file is not None and file.suffix.lower() == ".json":
        options["specification"] = Specification.load(file)
        options |= {"columns": _columns(columns, ()), "across": across}
    elif file is not None:
        data = read_data(file, target)
        kind = kind or data.kind
        options |= {"data": data.inputs, "kind": kind, "encoder": encoder, "seed": seed}
        options |= {"columns": _columns(columns, data.columns), "across": across}
    elif columns is not None or across:
        raise BadInput("Columns belong to a table: give the file with your data, too.")
    query = words.query(kind)
    mix = None if mixture == "none" else mixture
    found = dock.search(query=query, limit=limit, page=page, mixture=mix, **options)
    sent = dock.bytes_sent if isinstance(dock, DockClient) else 0
    if as_json:
        print(json.dumps({**found.to_json(), "bytes_sent": sent}))
        return 0
    print_found(found)
    if file is not None:
        print(f"{sent} bytes were sent, none of them a row of your data" if sent else "nothing was sent")
    return 0


def run_reuse(
    file: Path,
    labelled_file: Path | None,
    out: Path,
    how: str,
    identify: str,
    classes: str | None,
    url: str | None,
    token: str | None,
    kind: Kind | None,
    target: str | None,
    encoder: str | None,
    columns: str | None,
    seed: int,
    as_json: bool,
) -> int:
    dock = connect(url, token)
    data = read_data(file, target)
    labelled = read_data(labelled_file, target, labels=True) if labelled_file else None
    names = tuple(classes.split(",")) if classes else None
    answer = dock.reuse(
        data.inputs,
        (labelled.inputs, _named(labelled.labels, names)) if labelled else None,
        how=how,
        identify=identify,
        kind=kind or data.kind,
        encoder=encoder,
        seed=seed,
        classes=names,
        columns=_columns(columns, data.columns),
    )
    answer.save(out)
    scores = np.asarray(answer.predict(data.inputs))
    named = np.asarray([str(name) for name in getattr(answer.predictor, "classes", ())])
    np.savez_compressed(out / "predictions.npz", scores=scores, classes=named)
    if len(named):
        _write_names(out / "predictions.csv", scores, named.tolist())
    about = {"out": str(out), "weights": dict(answer.weights), "cost": dict(answer.cost)}
    print(json.dumps(about, default=float) if as_json else f"{answer.explain()}\nsaved to {out}")
    return 0


def _write_names(file: Path, scores: Any, names: list[str]) -> None:
    """A line a sample: the class that scores highest, then the score of every class."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["prediction", *names])
        writer.writerows([names[int(row.argmax())], *(f"{value:.6g}" for value in row)] for row in scores)


def run_pack(
    model: Path,
    semantic: Path,
    data_file: Path,
    out: Path,
    class_name: str | None,
    url: str | None,
    kind: Kind | None,
    target: str | None,
    encoder: str | None,
    seed: int,
    as_json: bool,
) -> int:
    from didact.cli.dock.packing import readable_model
    from didact.reusing.dock.package import write_package
    from didact.reusing.dock.specification import specify

    words = SemanticSpecification.parse(_json(semantic))
    data = read_data(data_file, target)
    kind = kind or data.kind
    if url:
        specification = connect(url).specify(data.inputs, kind, encoder=encoder, seed=seed)
    else:
        specification = specify(data.inputs, kind, encoder=encoder, seed=seed)
    shape = () if kind == "Text" else tuple(data.inputs.shape[1:])
    write_package(
        out,
        readable_model(model),
        semantic=words,
        specification=specification,
        input_shape=shape,
        class_name=class_name,
    )
    print(json.dumps({"package": str(out), "bytes": out.stat().st_size}) if as_json else f"package: {out}")
    return 0


def run_status(id: str | None, log: bool, url: str | None, token: str | None, as_json: bool) -> int:
    dock = connect(url, token)
    if id is None:
        found = dock.mine(limit=100) if isinstance(dock, DockClient) else dock.list(limit=100)
        if as_json:
            print(json.dumps([info.to_json() for info in found.items]))
        else:
            print_many(found.items)
        return 0
    info = dock.info(id)
    text = dock.log(id) if log else None
    if as_json:
        print(json.dumps({**info.to_json(), **({"log": text} if log else {})}))
        return 0
    print_one(info)
    if text is not None:
        print(text)
    return 0


def run_download(id: str, to: Path, url: str | None, token: str | None, as_json: bool) -> int:
    path = connect(url, token).download(id, to)
    print(json.dumps({"package": str(path)}) if as_json else f"package: {path}")
    return 0


def run_delete(id: str, url: str | None, token: str | None, as_json: bool) -> int:
    connect(url, token).delete(id)
    print(json.dumps({"deleted": id}) if as_json else f"deleted {id}")
    return 0


def _named(labels: Any, names: Sequence[str] | None) -> Any:
    """Labels as the names of the classes where they are that; 5 to 9 of the classes 5,6,7,8,9 are no places."""
    texts = [str(label) for label in labels]
    return np.asarray(texts) if names and set(texts) <= set(names) else labels


def _columns(given: str | None, header: tuple[str, ...]) -> Any:
    """What `--columns` means: nothing, the names in the file, or those in another."""
    if given != "header":
        return None if given is None else _json(Path(given))
    if not header:
        raise BadInput("Only csv and parquet files have names of columns. Give a JSON file with --columns.")
    return header


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise BadInput(f"{path}: this is not JSON ({error}).") from None
