"""A judge on this machine: as much of the protocol of chat completions as is needed, and what can go wrong in it."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler"], None]
"""Answers one request."""

GRADES = {"assessment": "It is short and clear.", "grammar": 7, "creativity": 6, "consistency": 5, "plot": 4}


class JudgeServer(ThreadingHTTPServer):
    """Does the acts of ``script`` one after the other, and then ``usual`` for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Act] = []
        self.usual: Act = grade()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def texts(self) -> list[str]:
        """What was asked, in the order of arrival."""
        return [request["messages"][0]["content"] for request in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no error here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    judge: JudgeServer
    request_json: dict[str, Any]

    def do_POST(self) -> None:
        assert isinstance(self.server, JudgeServer)
        self.judge = self.server
        self.request_json = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.judge.lock:
            self.judge.requests.append(self.request_json)
            self.judge.keys.append(self.headers.get("Authorization", ""))
            act = self.judge.script.pop(0) if self.judge.script else self.judge.usual
        assert self.path == "/v1/chat/completions"
        act(self)

    def send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def completion(*calls: tuple[str, Any], text: str | None = None, tokens: tuple[int, int] = (300, 40)) -> bytes:
    """The body of a chat completion that calls functions."""
    tool_calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if tool_calls:
        message["tool_calls"] = tool_calls
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "judge",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if tool_calls else "stop"}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
    }
    return json.dumps(body).encode()


def arguments(values: Any) -> Act:
    """Call whatever function is asked for with these arguments."""
    said = values if isinstance(values, str) else json.dumps(values)
    return lambda handler: handler.send(completion((handler.request_json["tool_choice"]["function"]["name"], said)))


def grade(**changes: Any) -> Act:
    """Good grades, but for the changes."""
    return arguments(GRADES | changes)


def body(content: bytes, status: int = 200, **headers: str) -> Act:
    """Send these bytes."""
    return lambda handler: handler.send(content, status, {k.replace("_", "-"): v for k, v in headers.items()})


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Act:
    """Fail as the protocol says."""
    return body(json.dumps({"error": {"message": message, "code": code}}).encode(), status, **headers)


def cut(handler: Handler) -> None:
    """Promise a body, send half of it and hang up."""
    full = completion()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(full)))
    handler.end_headers()
    handler.wfile.write(full[: len(full) // 2])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    """Say nothing at all."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def hang(handler: Handler) -> None:
    """Say nothing until the test is over."""
    handler.judge.ended.wait(60)
    handler.close_connection = True


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    """A server in a thread."""
    with JudgeServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
