"""DockClient: what leaves, what is tried again, what is refused. Over HTTP, with faults put between."""

import hashlib
import inspect

import httpx
import numpy as np
import pytest
from served import PASSWORD, Background, package, serve, specification, table

from didact.core.errors import BadInput
from didact.reusing.dock.client import DockClient, transfer, wire
from didact.reusing.dock.errors import Conflict, DockError, NotAllowed, NotFound, NotSignedIn, TooMany
from didact.reusing.dock.local import LocalDock
from didact.web.settings import WebSettings


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return serve(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def url(served):
    with Background(served.client.app) as url:
        yield url


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(wire, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.01)


def secret(served, role: str) -> str | None:
    return served.headers[role].get("Authorization", "").removeprefix("Bearer ") or None


class Faulty(httpx.BaseTransport):
    """The network, which loses the answer of the requests that `lose` picks, or breaks before the server hears."""

    def __init__(self, lose=lambda request, n: "") -> None:
        self.network = httpx.HTTPTransport()
        self.lose = lose
        self.seen: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        fault = self.lose(
            request, sum(r.url.path == request.url.path and r.method == request.method for r in self.seen)
        )
        if fault == "before":
            raise httpx.ConnectError("cut", request=request)
        response = self.network.handle_request(request)
        if fault == "after":
            response.read()
            raise httpx.ReadError("cut", request=request)
        return response


@pytest.fixture
def client(served, url):
    with DockClient(url, secret(served, "owner")) as client:
        yield client


def test_from_submitting_to_downloading(served, url, client, tmp_path):
    path = package(tmp_path)
    steps = []
    info = client.submit(path, lambda done, size: steps.append((done, size)))
    assert steps[0] == (0, path.stat().st_size)
    assert steps[-1] == (path.stat().st_size, path.stat().st_size)
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert info.owner == "ann"
    assert client.mine().items[0] == info
    with DockClient(url) as visitor, pytest.raises(NotFound):
        visitor.info(info.id)
    served.judge(info.id)
    assert client.wait(info.id).visible
    assert "judged by a test" in client.log(info.id)
    with DockClient(url) as visitor:
        file = visitor.download(info.id, tmp_path / "there.zip")
        assert file.read_bytes() == path.read_bytes()
        assert visitor.download(info.id, tmp_path).name == f"{info.id}.zip"
    renamed = client.update(info.id, {**info.semantic.to_json(), "name": "another name"})
    assert renamed.semantic.name == "another name"
    client.delete(info.id)
    with pytest.raises(NotFound):
        client.info(info.id)


def test_search_gives_what_the_dock_gives(served, client):
    ids = [served.submit(usable=True, centre=centre).id for centre in (-3.0, 3.0)]
    x, _ = table(200, seed=7, centre=3.0)
    own = client.specify(x)
    assert client.search(x) == client.search(specification=own)
    assert client.search(x).to_json() == served.dock.search(specification=own).to_json()
    found = client.search(x, query={"task": "Classification"}, limit=5)
    assert found.single[0].info.id == ids[1]
    assert len(found.single) <= 5
    assert client.search(query={"text": "nothing is called that, nothing"}).total == 0
    assert client.search(query={"data": "Table"}, mixture=None).searched == "semantic"


def test_what_is_sent_is_counted_and_holds_no_row(served, url):
    transport = Faulty()
    client = DockClient(url, transport=transport)
    x, _ = table(300, seed=3)
    client.search(x)
    sent = b"".join(request.content for request in transport.seen)
    assert client.bytes_sent == len(sent) > 0
    numbers = {f"{value!r}".encode() for value in x.ravel().tolist()}
    assert not [number for number in numbers if number in sent]
    for kind in (np.float32, np.float64):
        assert not [row for row in x.astype(kind) if row.tobytes() in sent]


def test_the_kernel_width_is_the_docks(tmp_path):
    served = serve(tmp_path, gamma=0.5)
    with Background(served.client.app) as url, DockClient(url) as client:
        assert client.specify(table(seed=1)[0]).gamma == 0.5
        assert client.search(table(seed=1)[0]).total == 0


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/uploads/HASH", "/v1/learnwares"])
def test_an_upload_survives_a_broken_connection_at_every_step(served, url, tmp_path, monkeypatch, path, fault):
    monkeypatch.setattr(transfer, "CHUNK", 700)
    file = package(tmp_path)
    route = path.replace("HASH", hashlib.sha256(file.read_bytes()).hexdigest())
    transport = Faulty(lambda request, n: fault if request.url.path == route and n == 1 else "")
    client = DockClient(url, secret(served, "owner"), transport=transport)
    info = client.submit(file)
    assert served.dock.download(info.id, served.users["owner"]).read_bytes() == file.read_bytes()
    assert served.dock.learnwares.with_hash(info.sha256).id == info.id


def test_an_interrupted_upload_goes_on_where_it_ended(served, url, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "CHUNK", 500)
    file = package(tmp_path)
    gone = Faulty(lambda request, n: "before" if request.method == "PUT" and n > 2 else "")
    with pytest.raises(DockError, match="does not answer"):
        DockClient(url, secret(served, "owner"), patience=0.05, transport=gone).submit(file)
    back = Faulty()
    DockClient(url, secret(served, "owner"), transport=back).submit(file)
    first = next(request for request in back.seen if request.method == "PUT")
    assert first.url.params["offset"] == "1000"


def test_a_broken_download_goes_on_where_it_ended(served, url, tmp_path):
    info = served.submit(usable=True)
    served_file = served.dock.download(info.id)

    class Short(httpx.SyncByteStream):
        def __iter__(self):
            yield served_file.read_bytes()[:100]
            raise httpx.ReadError("cut")

    class Cut(Faulty):
        def handle_request(self, request):
            response = super().handle_request(request)
            if request.url.path.endswith("/download") and "Range" not in request.headers:
                return httpx.Response(200, headers=response.headers, stream=Short(), request=request)
            return response

    transport = Cut()
    file = DockClient(url, transport=transport).download(info.id, tmp_path / "x.zip")
    assert file.read_bytes() == served_file.read_bytes()
    assert [r.headers.get("Range") for r in transport.seen if "download" in r.url.path] == [None, "bytes=100-"]


def test_a_download_that_is_not_what_it_should_be_is_not_kept(served, url, tmp_path):
    info = served.submit(usable=True)

    class Other(Faulty):
        def handle_request(self, request):
            response = super().handle_request(request)
            if request.url.path.endswith("/download"):
                return httpx.Response(200, content=b"?" * info.size, request=request)
            return response

    with pytest.raises(DockError) as refused:
        DockClient(url, transport=Other()).download(info.id, tmp_path / "x.zip")
    assert refused.value.code == "wrong-hash"
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_cache_is_not_fetched_again(served, url, tmp_path, monkeypatch):
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path))
    info = served.submit(usable=True)
    transport = Faulty()
    client = DockClient(url, transport=transport)
    first = client.download(info.id)
    assert client.download(info.id) == first
    assert sum("download" in request.url.path for request in transport.seen) == 1
    first.write_bytes(b"damaged")
    assert hashlib.sha256(client.download(info.id).read_bytes()).hexdigest() == info.sha256


def test_what_must_not_happen_twice_is_not_repeated(served, url):
    transport = Faulty(lambda request, n: "after" if request.url.path == "/v1/users" else "")
    client = DockClient(url, transport=transport)
    with pytest.raises(DockError, match="does not answer"):
        client.register("once-only", "o@example.org", PASSWORD)
    assert len(transport.seen) == 1


def test_signing_in(served, url):
    client = DockClient(url)
    assert client.register("dora", "d@example.org", PASSWORD).name == "dora"
    with pytest.raises(NotSignedIn) as refused:
        client.login("dora", "guess")
    assert refused.value.code == "wrong-password"
    token = client.login("dora", PASSWORD)
    assert client.me().name == "dora"
    assert DockClient(url, token).me().name == "dora"
    assert DockClient(url, client.issue_token("machine", days=1)).me().name == "dora"
    with pytest.raises(Conflict) as taken:
        client.register("dora", "d@example.org", PASSWORD)
    assert taken.value.code == "name-taken"


def test_refusals_are_the_docks_own_errors(served, url, client, tmp_path):
    file = package(tmp_path)
    client.submit(file)
    with pytest.raises(Conflict) as twice:
        client.submit(file)
    assert twice.value.code == "duplicate"
    no_zip = tmp_path / "no.zip"
    no_zip.write_bytes(b"no zip")
    with pytest.raises(DockError) as broken:
        client.submit(no_zip)
    assert broken.value.code == "not-a-zip"
    with pytest.raises(NotSignedIn):
        DockClient(url, secret(served, "expired")).submit(package(tmp_path))
    usable = served.submit(usable=True)
    with pytest.raises(NotAllowed):
        DockClient(url, secret(served, "foreign")).delete(usable.id)
    with pytest.raises(BadInput, match="no file"):
        client.submit(tmp_path / "nothing.zip")
    with pytest.raises(BadInput, match="not with both"):
        client.search(table()[0], specification=specification())
    with pytest.raises(BadInput, match="http"):
        DockClient("ftp://there")


def test_a_dock_behind_an_address_is_used_like_one_in_a_folder():
    def face(method) -> list[tuple]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]

    for name, method in inspect.getmembers(LocalDock, inspect.isfunction):
        if not name.startswith("_"):
            assert face(getattr(DockClient, name)) == face(method), name


def test_patience_ends(tmp_path):
    with pytest.raises(DockError) as nobody:
        DockClient("http://127.0.0.1:9", patience=0.05).info("x")
    assert nobody.value.code == "unreachable"
    served = serve(tmp_path, WebSettings(checker=False, requests_per_minute=60, burst=1))
    with Background(served.client.app) as url:
        hasty = DockClient(url, patience=0.1)
        hasty.semantics()
        with pytest.raises(TooMany):
            hasty.semantics()
        patient = DockClient(url, patience=10.0)  # told to wait a second, it does
        assert patient.semantics()["data"]


def test_waiting_ends(served, client, tmp_path):
    info = client.submit(package(tmp_path))
    with pytest.raises(DockError) as late:
        client.wait(info.id, timeout=0.2)
    assert late.value.code == "timeout"


def test_something_else_at_the_address():
    def page(request):
        return httpx.Response(404, text="<html>")

    with pytest.raises(NotFound, match="Is this a dock"):
        DockClient("http://there", transport=httpx.MockTransport(page)).info("x")
