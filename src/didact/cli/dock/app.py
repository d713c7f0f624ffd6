"""The commands of `didact dock` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="A learnware dock: models that describe themselves, found by what your data look like.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--url", "--dock", envvar="DIDACT_DOCK", help="Address of a dock, or a folder: then no server is needed."
    ),
]
Secret = Annotated[
    str | None,
    typer.Option("--token", envvar="DIDACT_DOCK_TOKEN", help="Default: the one that `login` kept for this address."),
]
Folder = Annotated[Path, typer.Option("--folder", help="Where the dock keeps packages, and its database.")]
Database = Annotated[
    str | None, typer.Option("--db", envvar="DIDACT_DOCK_DB", help="SQLAlchemy URL. Default: SQLite in the folder.")
]
Kind = Annotated[
    Literal["Table", "Image", "Text"] | None,
    typer.Option("--kind", help="Default: texts are Text, rows of numbers Table, all else Image."),
]
Target = Annotated[str | None, typer.Option("--target", help="Column (csv, parquet) or array (npz) with the labels.")]
Encoder = Annotated[str | None, typer.Option("--encoder", help="Sentence-transformers model, for texts.")]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="What the columns mean, to find tables with others: `header` for the file's own names, or a JSON file, a "
        "list or an object by number. They are sent.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100)]
Seed = Annotated[int, typer.Option("--seed")]


@app.command()
def serve(
    folder: Folder = Path("dock"),
    db: Database = None,
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8765,
    admin: Annotated[str | None, typer.Option("--admin", help="Make this account an administrator.")] = None,
    gamma: Annotated[float | None, typer.Option("--gamma", help="Kernel width of all specifications.")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Nobody can make an account by themselves.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Nobody can search without an account.")] = False,
    code: Annotated[bool, typer.Option("--code/--no-code", help="Take packages with code of their own.")] = True,
    checker: Annotated[bool, typer.Option("--checker/--no-checker", help="Check uploads in this process.")] = True,
    max_upload: Annotated[float, typer.Option("--max-upload", min=0.001, help="Megabytes of a package.")] = 1024.0,
    requests: Annotated[float, typer.Option("--requests", min=1.0, help="Requests a minute for each user.")] = 600.0,
    ledger: Annotated[
        str | None, typer.Option("--board-ledger", help="Ledger whose results the board shows. Default: your own.")
    ] = None,
    proxy: Annotated[
        str | None, typer.Option("--trust-proxy", help="Addresses of proxies that may say who is asking.")
    ] = None,
    json_: Json = False,
) -> None:
    """Serve a dock over HTTP: API, web pages and the board of methods. Ctrl-C ends it.

    The first line on standard output is the address; with --admin and a new account, the second its password.
    """
    from didact.cli.dock.serve import run_server

    raise typer.Exit(
        run_server(
            folder=folder,
            db=db,
            host=host,
            port=port,
            admin=admin,
            gamma=gamma,
            closed=closed,
            private=private,
            code=code,
            checker=checker,
            max_upload=max_upload,
            requests=requests,
            ledger=ledger,
            proxy=proxy,
            as_json=json_,
        )
    )


@app.command()
def check(
    folder: Folder = Path("dock"),
    db: Database = None,
    once: Annotated[bool, typer.Option("--once", help="End when the queue is empty.")] = False,
    json_: Json = False,
) -> None:
    """Check what waits in the queue, in a process of its own beside `serve --no-checker`."""
    from didact.cli.dock.serve import run_checker

    raise typer.Exit(run_checker(folder, db, once, json_))


@app.command()
def register(
    name: Annotated[str, typer.Argument()],
    email: Annotated[str, typer.Option("--email")],
    password: Annotated[str, typer.Option("--password", envvar="DIDACT_DOCK_PASSWORD", prompt=True, hide_input=True)],
    url: Where = None,
    json_: Json = False,
) -> None:
    """Make an account at a dock, and sign in."""
    from didact.cli.dock.connect import run_register

    raise typer.Exit(run_register(url, name, email, password, json_))


@app.command()
def login(
    name: Annotated[str, typer.Argument()],
    password: Annotated[str, typer.Option("--password", envvar="DIDACT_DOCK_PASSWORD", prompt=True, hide_input=True)],
    url: Where = None,
    json_: Json = False,
) -> None:
    """Sign in, and keep the token for later commands."""
    from didact.cli.dock.connect import run_login

    raise typer.Exit(run_login(url, name, password, json_))


@app.command()
def token(
    label: Annotated[str, typer.Option("--label", help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option("--days", min=0.01, help="Default: what the dock says.")] = None,
    url: Where = None,
    token: Secret = None,
    json_: Json = False,
) -> None:
    """Print a further token, for a machine. It is shown this once."""
    from didact.cli.dock.connect import run_token

    raise typer.Exit(run_token(url, token, label, days, json_))


@app.command()
def pack(
    model: Annotated[Path, typer.Argument(help="Folder of a didact model, .onnx, .skops, or folder of Python code.")],
    semantic: Annotated[Path, typer.Option("--semantic", help="JSON file: name, data, task, library, ...")],
    data: Annotated[Path, typer.Option("--data", help="What it was trained on: only a specification is packed.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The package, a zip file.")],
    class_name: Annotated[str | None, typer.Option("--class", help="Of a folder of code: what to instantiate.")] = None,
    url: Where = None,
    kind: Kind = None,
    target: Target = None,
    encoder: Encoder = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Make a package of a model: its weights, its words, and a specification of its data."""
    from didact.cli.dock.use import run_pack

    raise typer.Exit(run_pack(model, semantic, data, out, class_name, url, kind, target, encoder, seed, json_))


@app.command()
def submit(
    packages: Annotated[list[Path], typer.Argument(help="Packages that `pack` or write_package made.")],
    url: Where = None,
    token: Secret = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when they have been checked.")] = True,
    json_: Json = False,
) -> None:
    """Submit packages. Exit code 0 when all are usable (or, with --no-wait, were taken), 1 when one is not."""
    from didact.cli.dock.use import run_submit

    raise typer.Exit(run_submit(packages, url, token, wait, json_))


@app.command()
def search(
    data: Annotated[Path | None, typer.Argument(help="npz, csv, parquet or jsonl file, or a specification.")] = None,
    text: Annotated[str | None, typer.Option("--text", "-t", help="Words in name or description.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Such as Classification.")] = None,
    library: Annotated[str | None, typer.Option("--library", help="Such as PyTorch.")] = None,
    scenario: Annotated[list[str] | None, typer.Option("--scenario", help="A tag; may be repeated.")] = None,
    licence: Annotated[str | None, typer.Option("--licence")] = None,
    url: Where = None,
    token: Secret = None,
    kind: Kind = None,
    target: Target = None,
    encoder: Encoder = None,
    limit: Limit = 20,
    page: Annotated[int, typer.Option("--page", min=1)] = 1,
    mixture: Annotated[Literal["greedy", "auto", "none"], typer.Option("--mixture")] = "greedy",
    columns: Columns = None,
    across: Annotated[
        bool, typer.Option("--across", help="Search tables with other columns even where some have as many.")
    ] = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Find learnwares for your data, by words, or both. Only a specification of the data is sent."""
    from didact.cli.dock.use import Words, run_search

    words = Words(text, task, library, tuple(scenario or ()), licence)
    raise typer.Exit(
        run_search(data, words, url, token, kind, target, encoder, limit, page, mixture, columns, across, seed, json_)
    )


@app.command()
def reuse(
    data: Annotated[Path, typer.Argument(help="Your data: npz, csv, parquet or jsonl.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the predictor and the predictions.")],
    labelled: Annotated[Path | None, typer.Option("--labelled", help="A few samples with labels.")] = None,
    how: Annotated[
        str,
        typer.Option(
            help="auto, top1, averaging, job-selector, feature-augmentation, ensemble-pruning or feature-alignment."
        ),
    ] = "auto",
    identify: Annotated[
        str, typer.Option("--identify", help="single, mixture, auto, or a method that ranks by labels, such as tmi.")
    ] = "mixture",
    classes: Annotated[str | None, typer.Option("--classes", help="What the labels mean, in order: a,b,c.")] = None,
    url: Where = None,
    token: Secret = None,
    kind: Kind = None,
    target: Target = None,
    encoder: Encoder = None,
    columns: Columns = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Find learnwares for your data and make one predictor of them."""
    from didact.cli.dock.use import run_reuse

    raise typer.Exit(
        run_reuse(data, labelled, out, how, identify, classes, url, token, kind, target, encoder, columns, seed, json_)
    )


@app.command()
def status(
    id: Annotated[str | None, typer.Argument(help="A learnware. Default: all of your own.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Also what its check wrote.")] = False,
    url: Where = None,
    token: Secret = None,
    json_: Json = False,
) -> None:
    """How far the checks are."""
    from didact.cli.dock.use import run_status

    raise typer.Exit(run_status(id, log, url, token, json_))


@app.command()
def download(
    id: Annotated[str, typer.Argument()],
    to: Annotated[Path, typer.Option("--to", help="File or folder.")] = Path(),
    url: Where = None,
    token: Secret = None,
    json_: Json = False,
) -> None:
    """Fetch the package of a learnware; its hash is checked."""
    from didact.cli.dock.use import run_download

    raise typer.Exit(run_download(id, to, url, token, json_))


@app.command()
def delete(
    id: Annotated[str, typer.Argument()],
    url: Where = None,
    token: Secret = None,
    json_: Json = False,
) -> None:
    """Remove one of your learnwares for good."""
    from didact.cli.dock.use import run_delete

    raise typer.Exit(run_delete(id, url, token, json_))


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Option("--folder", help="Default: a scratch folder.")] = None,
    models: Annotated[int, typer.Option("--models", min=1, max=20, help="How many learnwares are submitted.")] = 20,
    how: Annotated[str, typer.Option("--how", help="As for reuse.")] = "auto",
    labelled: Annotated[bool, typer.Option("--labelled/--unlabelled", help="Whether the user has labels.")] = True,
    stay: Annotated[bool, typer.Option("--stay", help="Keep serving, for a look with a browser.")] = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """A dock in a minute or two: serve, submit a hub's models, search and reuse as a user."""
    from didact.cli.dock.serve import run_demo

    raise typer.Exit(run_demo(folder, models, how, labelled, stay, seed, json_))


@app.command()
def digest(
    folder: Folder = Path("dock"),
    db: Database = None,
    ledger: Annotated[str | None, typer.Option("--board-ledger", help="As for serve.")] = None,
    json_: Json = False,
) -> None:
    """Send the e-mail digest to whoever is due. For a timer, such as cron, every hour or so.

    Nothing is sent unless DIDACT_SMTP_HOST and its like are set. Exit code 1 when letters could not be sent.
    """
    from didact.cli.dock.serve import run_digest

    raise typer.Exit(run_digest(folder, db, ledger, json_))
