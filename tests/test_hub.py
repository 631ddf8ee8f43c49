"""The download, against a server on this machine."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest

from frailt.data.hub import FILES, fetch
from frailt.errors import InputError

PREFIX = "/datasets/roneneldan/TinyStories/resolve/main/"


class Hub(ThreadingHTTPServer):
    """As much of the Hub as a download needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {name: f"A story of {name}.\n<|endoftext|>\n".encode() for both in FILES.values() for name in both}
        self.requests: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        hub = self.server
        assert isinstance(hub, Hub)
        hub.requests.append(f"{self.command} {self.path}")
        content = hub.files.get(self.path.removeprefix(PREFIX))
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{self.path.removeprefix(PREFIX)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_GET = do_HEAD = answer  # noqa: N815 (the names that the base class calls)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_both_files_are_downloaded_once(server: Hub, tmp_path: Path, version: Literal["v1", "v2"]) -> None:
    files = fetch(version, endpoint=server.endpoint, cache=tmp_path)
    for file, name in zip(files, FILES[version], strict=True):
        assert file.name == name
        assert file.read_bytes() == server.files[name]
    downloads = [request for request in server.requests if request.startswith("GET")]
    assert len(downloads) == 2
    assert fetch(version, endpoint=server.endpoint, cache=tmp_path) == files
    assert [request for request in server.requests if request.startswith("GET")] == downloads


def test_the_environment_names_the_server(server: Hub, tmp_path: Path) -> None:
    # In a process of its own: huggingface_hub reads the environment once, at its import.
    environment = {**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path)}
    command = "from frailt.data.hub import fetch; print(*fetch('v2'), sep='\\n')"
    run = [sys.executable, "-c", command]
    done = subprocess.run(run, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    for line, name in zip(done.stdout.splitlines(), FILES["v2"], strict=True):
        assert Path(line).is_relative_to(tmp_path)
        assert Path(line).read_bytes() == server.files[name]


def refused(endpoint: str, cache: Path) -> str:
    with pytest.raises(InputError) as caught:
        fetch("v2", endpoint=endpoint, cache=cache)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("TinyStoriesV2-GPT4-")
    assert message.endswith(
        "get it by hand from the dataset roneneldan/TinyStories and name the files with --text and --valid"
    )
    return message


def test_a_missing_file_says_how_to_go_on(server: Hub, tmp_path: Path) -> None:
    del server.files["TinyStoriesV2-GPT4-valid.txt"]
    message = refused(server.endpoint, tmp_path)
    assert message.startswith("TinyStoriesV2-GPT4-valid.txt could not be downloaded")
    assert "404" in message


def test_no_network_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # Between its attempts.
    assert "refused" in refused("http://127.0.0.1:9", tmp_path).lower()


def test_an_address_that_is_none_says_how_to_go_on(tmp_path: Path) -> None:
    assert "port" in refused("http://x:y", tmp_path)


def test_without_network_the_cache_is_enough(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fetch("v1", endpoint=server.endpoint, cache=tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert fetch("v1", endpoint="http://127.0.0.1:9", cache=tmp_path) == files


def test_errors_of_the_disk_stay_what_they_are(server: Hub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(OSError, match=r"(?i)exists|not a directory"):
        fetch("v2", endpoint=server.endpoint, cache=tmp_path / "cache")
