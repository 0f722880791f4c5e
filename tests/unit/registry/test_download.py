from __future__ import annotations

import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.helpers.hub_server import HubServer, serve_hub

from headgate.core.clock import ManualClock
from headgate.core.errors import ModelRefused
from headgate.registry.download import Downloader, Reach, Remote, _Redirects

CONTENT = bytes(range(256)) * 20_000  # 5 MB
NOWHERE = Reach(hosts=())


@pytest.fixture
def hub() -> Generator[HubServer]:
    with serve_hub(HubServer(files={"m": CONTENT})) as state:
        yield state


def fetch(hub: HubServer, folder: Path, *, path: str = "/files/m", most: int = 10**9, **known: object) -> Path:
    folder.mkdir(exist_ok=True)
    downloader = Downloader(clock=ManualClock(), wait=lambda _s: None, max_bytes=most, silence_s=5.0)
    return downloader.fetch(Remote(url=hub.url + path, **known), folder, NOWHERE)


def test_a_whole_file(hub: HubServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    (tmp_path / "p").mkdir()
    downloader = Downloader(clock=ManualClock(), wait=lambda _s: None, max_bytes=10**9)
    path = downloader.fetch(
        Remote(url=hub.url + "/files/m"), tmp_path / "p", NOWHERE, lambda _w, d, t: seen.append((d, t))
    )
    assert path.read_bytes() == CONTENT and seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_broken_connection_goes_on_where_it_stopped(hub: HubServer, tmp_path: Path) -> None:
    hub.breaks = [1_000_000, 500_000]
    assert fetch(hub, tmp_path / "p").read_bytes() == CONTENT
    assert [headers.get("Range") for headers in hub.got("/files/m")] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert all("If-Range" in headers for headers in hub.got("/files/m")[1:])


def test_a_later_attempt_goes_on_too(hub: HubServer, tmp_path: Path) -> None:
    hub.breaks = [2_000_000, *[0] * 20]
    with pytest.raises(ModelRefused, match="2000000 bytes have arrived") as caught:
        fetch(hub, tmp_path / "p")
    assert caught.value.code == "source_unavailable"
    hub.breaks.clear()
    assert fetch(hub, tmp_path / "p").read_bytes() == CONTENT
    assert hub.got("/files/m")[-1]["Range"] == "bytes=2000000-"


def test_a_finished_download_asks_nothing(hub: HubServer, tmp_path: Path) -> None:
    fetch(hub, tmp_path / "p")
    count = len(hub.requests)
    assert fetch(hub, tmp_path / "p").read_bytes() == CONTENT and len(hub.requests) == count


def test_a_file_that_changed_meanwhile_starts_anew(hub: HubServer, tmp_path: Path) -> None:
    hub.breaks = [2_000_000, *[0] * 20]
    with pytest.raises(ModelRefused):
        fetch(hub, tmp_path / "p")
    hub.breaks.clear()
    hub.files["m"] = CONTENT[::-1]
    assert fetch(hub, tmp_path / "p").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_mark_only_a_pinned_file_goes_on(hub: HubServer, tmp_path: Path, etag: str) -> None:
    hub.etag = etag
    hub.breaks = [1_000_000]
    assert fetch(hub, tmp_path / "a").read_bytes() == CONTENT
    assert "Range" not in hub.got("/files/m")[1]
    hub.breaks = [1_000_000]
    hub.etag = ""
    assert fetch(hub, tmp_path / "b", sha256="00" * 32).read_bytes() == CONTENT
    assert hub.got("/files/m")[-1]["Range"] == "bytes=1000000-"


def test_a_server_without_ranges(hub: HubServer, tmp_path: Path) -> None:
    hub.ranges = False
    hub.breaks = [1_000_000]
    assert fetch(hub, tmp_path / "p").read_bytes() == CONTENT


def test_garbled_marks_start_anew(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "data").write_bytes(b"x" * 100)
    (folder / "marks.json").write_text("{nope")
    assert fetch(hub, folder).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again(hub: HubServer, tmp_path: Path, status: int) -> None:
    hub.failures = [status, status]
    assert fetch(hub, tmp_path / "p").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "cure"), [(401, "login"), (403, "access"), (404, "check the link"), (410, "gone")])
def test_a_server_that_refuses_is_believed(hub: HubServer, tmp_path: Path, status: int, cure: str) -> None:
    hub.failures = [status]
    with pytest.raises(ModelRefused, match=cure):
        fetch(hub, tmp_path / "p", path="/files/m?token=secret")
    assert len(hub.requests) == 1


def test_too_large(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="max_model_bytes"):
        fetch(hub, tmp_path / "p", most=len(CONTENT) - 1)


def test_nobody_listens(tmp_path: Path) -> None:
    with serve_hub(HubServer()) as hub:
        pass
    with pytest.raises(ModelRefused, match="could not be fetched") as caught:
        fetch(hub, tmp_path / "p", path="/files/m?token=secret")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://other.example/m", "other.example is not named"),
        ("http://named.example/m", "plain http"),
        ("ftp://named.example/m", "malformed"),
        ("file:///etc/passwd", "malformed"),
    ],
)
def test_hosts_must_be_named(tmp_path: Path, url: str, why: str) -> None:
    with pytest.raises(ModelRefused, match=why):
        Reach(hosts=("named.example",)).check(url)
    Reach(hosts=("named.example",)).check("https://named.example/m")


def redirected(start: str, target: str, headers: dict[str, str] | None = None) -> urllib.request.Request | None:
    handler = _Redirects(Reach(hosts=("a.example", "b.example")), start)
    request = urllib.request.Request(start, headers=headers or {})
    return handler.redirect_request(request, None, 302, "Found", {}, target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "target", "why"),
    [
        ("https://a.example/m", "http://a.example/m", "from https to http"),
        ("https://a.example/m", "https://c.example/m", "c.example is not named"),
        ("https://a.example/m", "https://127.0.0.1/m", "this machine itself"),
        ("https://a.example/m", "http://localhost/m", "this machine itself"),
        ("https://a.example/m", "https://user:secret@b.example/m", "user or password"),
        ("http://127.0.0.1:1/m", "http://b.example/m", "plain http"),
    ],
)
def test_redirects_that_are_refused(start: str, target: str, why: str) -> None:
    with pytest.raises(ModelRefused, match=why):
        redirected(start, target)


@pytest.mark.parametrize(
    ("target", "kept"), [("https://b.example/m", False), ("https://a.example/n", True), ("/n", True)]
)
def test_a_secret_goes_to_the_first_host_only(target: str, kept: bool) -> None:
    request = redirected("https://a.example/m", target, {"Authorization": "Bearer x", "Range": "bytes=5-"})
    assert request is not None
    assert request.has_header("Authorization") is kept and request.has_header("Range")


def test_redirects_without_end(hub: HubServer, tmp_path: Path) -> None:
    hub.redirect = hub.url + "/files/moved"
    with pytest.raises(ModelRefused, match="302"):
        fetch(hub, tmp_path / "p", path="/files/moved")


def test_proxies_are_not_asked_for_this_machine(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert fetch(hub, tmp_path / "p").read_bytes() == CONTENT
