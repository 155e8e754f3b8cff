"""One request to a chat server: what comes back, or why not and whether to try again."""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from graphmert.errors import CapabilityError, ConfigError
from graphmert.llm.forms import LLMSettings

MAX_RESPONSE_BYTES = 16_000_000

_WAIT_AND_RETRY = frozenset({408, 409, 425, 429})
_ENDS_ALL = frozenset({401, 403, 404, 405})
_CHUNK_BYTES = 65_536


class AgainError(Exception):
    """This try failed; another may not.

    Args:
        reason: a few words, the same for the same kind of failure.
        detail: what exactly happened.
        wait_s: how long the server asked to wait.
        answer: the text that was not a valid answer, to be shown to the model.
        is_unreachable: no server was there.
        is_final: another try of the same prompt would fail too.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        wait_s: float = 0.0,
        answer: str | None = None,
        is_unreachable: bool = False,
        is_final: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.wait_s, self.answer = reason, detail, wait_s, answer
        self.is_unreachable, self.is_final = is_unreachable, is_final


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


class Connection:
    """The address of a chat server and the key for it.

    Raises:
        ConfigError: no model name, or a URL that is not http or https.
        CapabilityError: the key's environment variable is not set.
    """

    def __init__(self, settings: LLMSettings, *, needs_key: bool = True) -> None:
        self.url = _endpoint(settings)
        self.timeout_s = settings.timeout_s
        self._key = _read_key(settings) if needs_key else ""
        self._opener = urllib.request.build_opener(_NoRedirect())

    def post(self, body: bytes) -> bytes:
        """Send one request and return the body of the response.

        Raises:
            AgainError: another try may succeed, unless it is final.
            CapabilityError: the server refuses every request like this.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, body, headers, method="POST")
        timeout_s = self.timeout_s
        try:
            deadline = time.monotonic() + timeout_s
            with self._opener.open(request, timeout=timeout_s) as response:
                return _read_all(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise AgainError("no answer in time", f"{timeout_s:g} s") from error
            gone = isinstance(error.reason, ConnectionRefusedError | socket.gaierror)
            raise AgainError("connection failed", str(error.reason), is_unreachable=gone) from error
        except TimeoutError as error:
            raise AgainError("no answer in time", f"{timeout_s:g} s") from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise AgainError("connection broke", type(error).__name__) from error

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """Return what to raise for an HTTP status: try again, leave this prompt, or end all."""
        told = _first_line(error)
        if error.code in _ENDS_ALL or 300 <= error.code < 400:
            fixes = {
                401: "Set the environment variable named by key_env to a valid key.",
                403: "Use a key that may ask this model.",
                404: "Correct url (it usually ends in /v1) or the model's name.",
            }
            return CapabilityError(
                "the language model's server refuses the request",
                where=self.url,
                got=f"HTTP {error.code} {told}".strip(),
                fix=fixes.get(error.code, "Correct url: it must be the address itself."),
            )
        is_passing = error.code in _WAIT_AND_RETRY or error.code >= 500
        return AgainError(
            f"HTTP {error.code}",
            told,
            wait_s=_retry_after(error.headers.get("Retry-After")),
            is_final=not is_passing,
        )


def _endpoint(settings: LLMSettings) -> str:
    parts = urllib.parse.urlsplit(settings.url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(
            "no usable address of a language model",
            where="llm.url",
            got=repr(settings.url),
            expected="a URL such as http://127.0.0.1:8080/v1",
        )
    if parts.username is not None:
        raise ConfigError(
            "the address holds a user name or a key, which would end up in run files",
            where="llm.url",
            fix="Put the key into an environment variable and name it in key_env.",
        )
    if not settings.model:
        raise ConfigError(
            "no model is named", where="llm.model", fix="Give a name the server knows."
        )
    return settings.url.rstrip("/") + "/chat/completions"


def _read_key(settings: LLMSettings) -> str:
    if not settings.key_env:
        return ""
    key = os.environ.get(settings.key_env, "").strip()
    if not key:
        raise CapabilityError(
            "the key of the language model is not set",
            where="llm.key_env",
            got=f"no environment variable {settings.key_env}",
            fix="Set it, or leave key_env empty for a server without keys.",
        )
    return key


def _read_all(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Read a body; the deadline holds for all of it, not for each piece."""
    parts: list[bytes] = []
    size = 0
    while piece := response.read1(_CHUNK_BYTES):
        parts.append(piece)
        size += len(piece)
        if size > MAX_RESPONSE_BYTES:
            raise AgainError("answer too large", f"over {MAX_RESPONSE_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(parts)


def _first_line(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(4_096).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    try:
        told = json.loads(text)["error"]
        text = told["message"] if isinstance(told, dict) else str(told)
    except (ValueError, KeyError, TypeError):
        pass
    return text.splitlines()[0][:200] if text else ""


def _retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header, given as a number or as a date."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        parsed = email.utils.parsedate_to_datetime(value) if _is_date(value) else None
        seconds = 0.0 if parsed is None else parsed.timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _is_date(value: str) -> bool:
    return email.utils.parsedate(value) is not None


def read_envelope(data: bytes) -> dict[str, Any]:
    """Return the JSON object of a response, or raise AgainError."""
    try:
        envelope = json.loads(data)
    except ValueError as error:
        raise AgainError("response is not JSON", repr(data[:60])) from error
    if not isinstance(envelope, dict):
        raise AgainError("response is not a chat completion", repr(data[:60]))
    return envelope


def read_content(envelope: dict[str, Any]) -> str:
    """Return the whole text of the answer, or raise AgainError."""
    try:
        choice = envelope["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise AgainError("response is not a chat completion", f"keys {sorted(envelope)}") from error
    if refusal:
        raise AgainError("the model refused", str(refusal)[:120])
    if not isinstance(content, str) or not content.strip():
        raise AgainError("empty answer")
    if finish == "length":
        raise AgainError("answer cut off at max_tokens", is_final=True)
    return content.strip()


def without_fence(text: str) -> str:
    """Return the inside of a text that is one fenced block."""
    lines = text.splitlines()
    if len(lines) >= 3 and lines[0] in ("```", "```json") and lines[-1] == "```":
        return "\n".join(lines[1:-1])
    return text
