"""A chat server in a thread, whose replies a test writes down."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from graphmert.llm import LLMSettings


@dataclass(frozen=True)
class Reply:
    """One HTTP response."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_at: int | None = None


def completion(
    content: str | None, *, tokens: tuple[int, int] | None = (10, 2), **extra: Any
) -> Reply:
    """A chat completion whose message is `content`."""
    envelope: dict[str, Any] = {
        "choices": [
            {
                "message": {"role": "assistant", "content": content, **extra},
                "finish_reason": "stop",
            }
        ]
    }
    if tokens is not None:
        envelope["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return Reply(json.dumps(envelope).encode())


def answering(value: Any) -> Reply:
    """A chat completion whose message is the value as JSON."""
    return completion(json.dumps(value))


Responder = Callable[[dict[str, Any], int], Reply]


@dataclass
class Server:
    """What the server has seen."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0

    def settings(self, **changes: Any) -> LLMSettings:
        """Settings for this server, without waits between tries."""
        values: dict[str, Any] = {"url": self.url, "model": "stub", "backoff_s": 0.0}
        return LLMSettings(**{**values, **changes})

    def users(self) -> list[str]:
        """The text of every user message that came first in its request."""
        return [request["messages"][1]["content"] for request in self.requests]


@contextlib.contextmanager
def serving(respond: Responder) -> Iterator[Server]:
    """Run a server that answers request number n (from 0) with `respond(request, n)`."""
    lock = threading.Lock()
    n_now = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal n_now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.requests)
                server.requests.append({"path": self.path, **body})
                server.headers.append(dict(self.headers))
                n_now += 1
                server.most_at_once = max(server.most_at_once, n_now)
            reply = respond(body, number)
            time.sleep(reply.delay_s)
            with lock:
                n_now -= 1
            with contextlib.suppress(ConnectionError):
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(reply.body)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body[: reply.cut_at])

        def log_message(self, *parts: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        server = Server(f"http://127.0.0.1:{httpd.server_port}/v1")
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            httpd.shutdown()
            thread.join()
