from __future__ import annotations

import email.utils
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from graphmert.errors import CapabilityError, ConfigError, JudgeError
from graphmert.llm import LLM, Answer, Failure, LLMSettings, Prompt
from stub_llm import Reply, Server, answering, completion, serving


class Verdict(Answer):
    verdict: Literal["yes", "no"]


class Other(Answer):
    verdict: str


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def prompts(n: int) -> list[Prompt]:
    return [Prompt("Judge.", f"case {i}") for i in range(n)]


def yes(request: dict[str, Any], number: int) -> Reply:
    return answering({"verdict": "yes"})


def by_parity(request: dict[str, Any], number: int) -> Reply:
    case = int(request["messages"][1]["content"].split()[1])
    # Later cases answer first.
    reply = answering({"verdict": "yes" if case % 2 == 0 else "no"})
    return Reply(reply.body, delay_s=0.02 if case < 3 else 0.0)


def failing_first(n: int, failure: Reply) -> Any:
    return lambda request, number: failure if number < n else yes(request, number)


def test_a_request_holds_prompt_model_and_form() -> None:
    with serving(yes) as server:
        answer = LLM(server.settings(max_tokens=7)).ask(Prompt("Judge.", "naïve 🧬"), Verdict)
    assert answer == Verdict(verdict="yes")
    request = server.requests[0]
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("stub", 7, 0.0)
    assert [one["content"] for one in request["messages"]] == ["Judge.", "naïve 🧬"]
    named = request["response_format"]["json_schema"]
    assert named["strict"] is True
    assert named["schema"] == Verdict.model_json_schema()
    assert named["schema"]["additionalProperties"] is False
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("answer_format", ["json_object", "text"])
def test_servers_without_schemas_get_it_in_the_prompt(answer_format: str) -> None:
    with serving(yes) as server:
        LLM(server.settings(answer_format=answer_format)).ask(Prompt("Judge.", "case 0"), Verdict)
    request = server.requests[0]
    assert (
        json.dumps(Verdict.model_json_schema(), sort_keys=True) in request["messages"][0]["content"]
    )
    kind = request.get("response_format", {}).get("type")
    assert kind == ("json_object" if answer_format == "json_object" else None)


def test_a_fence_is_taken_off_plain_text_only() -> None:
    fenced = completion('```json\n{"verdict": "no"}\n```')
    with serving(lambda request, number: fenced) as server:
        settings = server.settings(answer_format="text", max_retries=0)
        assert LLM(settings).ask(Prompt("", "x"), Verdict).verdict == "no"
        with pytest.raises(JudgeError, match="not the JSON asked for"):
            LLM(server.settings(max_retries=0)).ask(Prompt("", "x"), Verdict)


def test_results_come_in_order_within_the_limit_of_calls() -> None:
    with serving(by_parity) as server:
        llm = LLM(server.settings(n_concurrent=3))
        answers = llm.ask_all(prompts(9), Verdict)
    assert [one.verdict for one in answers if isinstance(one, Verdict)] == [
        "yes" if i % 2 == 0 else "no" for i in range(9)
    ]
    assert 2 <= server.most_at_once <= 3


def test_equal_prompts_are_asked_once() -> None:
    with serving(by_parity) as server:
        llm = LLM(server.settings())
        answers = llm.ask_all([*prompts(2), *prompts(2)], Verdict)
    assert answers[:2] == answers[2:]
    assert len(server.requests) == 2
    assert (llm.usage.n_prompts, llm.usage.n_answered, llm.usage.n_cached) == (4, 2, 2)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Reply(b"busy", 429), "HTTP 429"),
        (Reply(b'{"error": {"message": "boom"}}', 500), "HTTP 500"),
        (Reply(b"<html>", 503), "HTTP 503"),
        (Reply(b"<html>"), "response is not JSON"),
        (Reply(b"[1]"), "response is not a chat completion"),
        (Reply(b'{"choices": []}'), "response is not a chat completion"),
        (completion("no JSON"), "not the JSON asked for"),
        (completion('{"verdict": "yes"} indeed'), "not the JSON asked for"),
        (completion('{"verdict": "perhaps"}'), "not the JSON asked for"),
        (completion('{"verdict": "yes", "more": 1}'), "not the JSON asked for"),
        (completion("{}"), "not the JSON asked for"),
        (completion(None), "empty answer"),
        (completion("", refusal="I will not"), "the model refused"),
        (Reply(b"x" * 50, cut_at=9), "connection broke"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_fails_once_is_tried_again_and_what_keeps_failing_is_named(
    tmp_path: Path, failure: Reply, reason: str
) -> None:
    with serving(failing_first(2, failure)) as server:
        llm = LLM(server.settings(), cache_dir=tmp_path)
        assert llm.ask(Prompt("", "x"), Verdict).verdict == "yes"
        assert (llm.usage.n_calls, llm.usage.n_retries, llm.usage.n_failed) == (3, 2, 0)
    with serving(lambda request, number: failure) as server:
        llm = LLM(server.settings(max_retries=2), cache_dir=tmp_path)
        answers = llm.ask_all([Prompt("", "y")], Verdict)
        assert isinstance(answers[0], Failure)
        assert answers[0].reason.startswith(reason)
        assert llm.usage.failures == {reason: 1}
        assert len(server.requests) == 3
        with pytest.raises(JudgeError, match=reason):
            llm.ask(Prompt("", "y"), Verdict)
        # A failure is not kept: the same prompt was asked again.
        assert len(server.requests) == 6


def test_a_retry_shows_what_was_wrong() -> None:
    with serving(failing_first(1, completion('{"verdict": "perhaps"}'))) as server:
        LLM(server.settings()).ask(Prompt("", "x"), Verdict)
    again = server.requests[1]["messages"]
    assert again[2] == {"role": "assistant", "content": '{"verdict": "perhaps"}'}
    assert "verdict" in again[3]["content"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_bad_prompt_is_not_repeated(status: int) -> None:
    with serving(failing_first(1, Reply(b"too long", status))) as server:
        answers = LLM(server.settings(n_concurrent=1)).ask_all(prompts(2), Verdict)
    assert answers == [Failure(f"HTTP {status}: too long"), Verdict(verdict="yes")]
    assert len(server.requests) == 2


def test_an_answer_that_is_cut_off_is_not_repeated() -> None:
    envelope = json.loads(completion("{").body)
    envelope["choices"][0]["finish_reason"] = "length"
    reply = Reply(json.dumps(envelope).encode())
    with serving(lambda *_: reply) as server, pytest.raises(JudgeError, match="max_tokens"):
        LLM(server.settings()).ask(Prompt("", "x"), Verdict)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "words"), [(401, "key_env"), (403, "key"), (404, "/v1"), (302, "url")]
)
def test_a_refusal_ends_everything(status: int, words: str) -> None:
    reply = Reply(b'{"error": {"message": "no such thing"}}', status, {"Location": "http://x/"})
    raises = pytest.raises(CapabilityError, match=words)
    with serving(lambda *_: reply) as server, raises as caught:
        LLM(server.settings(n_concurrent=1)).ask_all(prompts(5), Verdict)
    assert f"HTTP {status} no such thing" in str(caught.value)
    assert len(server.requests) <= 2


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = LLMSettings(
        url=f"http://127.0.0.1:{port}/v1", model="m", backoff_s=0.0, max_retries=1
    )
    with pytest.raises(CapabilityError, match="cannot be reached"):
        LLM(settings).ask_all(prompts(3), Verdict)


def test_a_slow_server_is_given_up() -> None:
    slow = Reply(answering({"verdict": "yes"}).body, delay_s=0.5)
    with serving(lambda request, number: slow) as server:
        settings = server.settings(timeout_s=0.05, max_retries=1)
        assert LLM(settings).ask_all(prompts(1), Verdict) == [Failure("no answer in time: 0.05 s")]
    assert len(server.requests) == 2


def test_the_time_limit_is_for_the_whole_answer() -> None:
    """A server that drips a byte now and then does not hold a call for ever."""
    started = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            started.set()
            for _ in range(200):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        settings = LLMSettings(
            url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1",
            model="m", timeout_s=0.2, max_retries=0,
        )  # fmt: skip
        answer = LLM(settings).ask_all(prompts(1), Verdict)[0]
    assert started.is_set()
    assert answer == Failure("no answer in time: 0.2 s")
    thread.join()


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_waited_for_up_to_the_limit(
    monkeypatch: pytest.MonkeyPatch, as_date: bool
) -> None:
    waits: list[float] = []
    value = email.utils.formatdate(time.time() + 50, usegmt=True) if as_date else "50"
    busy = Reply(b"", 429, {"Retry-After": value})
    with serving(failing_first(3, busy)) as server:
        llm = LLM(server.settings(backoff_s=1.0, max_backoff_s=20.0))
        monkeypatch.setattr(llm._stopped, "wait", lambda seconds: waits.append(seconds))
        llm.ask(Prompt("", "x"), Verdict)
    assert waits == [20.0, 20.0, 20.0]


def test_waits_double(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with serving(failing_first(4, Reply(b"", 500))) as server:
        llm = LLM(server.settings(backoff_s=1.0, max_backoff_s=5.0))
        monkeypatch.setattr(llm._stopped, "wait", lambda seconds: waits.append(seconds))
        llm.ask(Prompt("", "x"), Verdict)
    assert waits == [1.0, 2.0, 4.0, 5.0]


def test_too_many_failures_end_a_batch_and_keep_the_answers(tmp_path: Path) -> None:
    def respond(request: dict[str, Any], number: int) -> Reply:
        return yes(request, number) if number < 2 else Reply(b"", 500)

    with serving(respond) as server:
        settings = server.settings(max_retries=0, max_failures=1, n_concurrent=1)
        with pytest.raises(JudgeError, match="2 failures"):
            LLM(settings, cache_dir=tmp_path).ask_all(prompts(9), Verdict)
        n_asked = len(server.requests)
        assert n_asked < 9
    with serving(yes) as server:
        llm = LLM(server.settings(), cache_dir=tmp_path)
        assert len(llm.ask_all(prompts(9), Verdict)) == 9
    assert sorted(server.users()) == [f"case {i}" for i in range(2, 9)]


def test_the_cache_answers_by_prompt_model_and_form(tmp_path: Path) -> None:
    with serving(yes) as server:
        settings = server.settings()
        LLM(settings, cache_dir=tmp_path).ask_all(prompts(2), Verdict)
        again = LLM(settings, cache_dir=tmp_path)
        again.ask_all(prompts(2), Verdict)
        assert (again.usage.n_cached, again.usage.n_calls) == (2, 0)
        assert len(server.requests) == 2
        changes: list[tuple[LLMSettings, Prompt, type[Answer]]] = [
            (server.settings(model="another"), prompts(1)[0], Verdict),
            (server.settings(temperature=0.5), prompts(1)[0], Verdict),
            (settings, Prompt("Judge!", "case 0"), Verdict),
            (settings, prompts(1)[0], Other),
        ]
        for number, (changed, prompt, form) in enumerate(changes, start=3):
            LLM(changed, cache_dir=tmp_path).ask(prompt, form)
            assert len(server.requests) == number
    names = [path.name for path in tmp_path.rglob("*.json")]
    assert len(names) == 6
    assert not any("stub" in path.read_text() and server.url in path.read_text()
                   for path in tmp_path.rglob("*.json"))  # fmt: skip


def test_a_damaged_answer_is_asked_again(tmp_path: Path) -> None:
    with serving(yes) as server:
        llm = LLM(server.settings(), cache_dir=tmp_path)
        llm.ask(Prompt("", "x"), Verdict)
        path = next(tmp_path.rglob("*.json"))
        whole = path.read_text()
        for damage in ("", "{", '{"answer": {"verdict": "maybe"}}'):
            path.write_text(damage)
            llm.ask(Prompt("", "x"), Verdict)
            assert path.read_text() == whole
    assert len(server.requests) == 4


def test_recorded_answers_are_replayed_without_server_or_key(tmp_path: Path) -> None:
    with serving(by_parity) as server:
        recorded = LLM(server.settings(), cache_dir=tmp_path).ask_all(prompts(3), Verdict)
    settings = server.settings(key_env="GRAPHMERT_TEST_NO_SUCH_KEY")
    replay = LLM(settings, cache_dir=tmp_path, cache_only=True)
    assert replay.ask_all(prompts(3), Verdict) == recorded
    with pytest.raises(CapabilityError, match="1 prompts without one"):
        replay.ask_all(prompts(4), Verdict)


def test_tokens_are_counted_also_of_failed_tries() -> None:
    def respond(request: dict[str, Any], number: int) -> Reply:
        if number == 0:
            return completion("nonsense", tokens=(7, 5))
        return completion('{"verdict": "yes"}', tokens=(9, 3) if number == 1 else None)

    with serving(respond) as server:
        llm = LLM(server.settings(prompt_price=2.0, completion_price=10.0))
        llm.ask(Prompt("", "x"), Verdict)
        llm.ask(Prompt("", "y"), Verdict)
    usage = llm.usage.to_dict()
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (16, 8)
    assert (usage["n_calls"], usage["n_calls_without_usage"]) == (3, 1)
    assert llm.cost() == pytest.approx((16 * 2 + 8 * 10) / 1e6)


def test_an_estimate_asks_nothing_and_knows_the_cache(tmp_path: Path) -> None:
    with serving(yes) as server:
        settings = server.settings(max_tokens=100, prompt_price=1.0, completion_price=2.0)
        llm = LLM(settings, cache_dir=tmp_path)
        llm.ask_all(prompts(2), Verdict)
        estimate = llm.estimate([*prompts(5), *prompts(1)], Verdict)
        assert len(server.requests) == 2
    assert (estimate.n_prompts, estimate.n_cached, estimate.n_calls) == (6, 3, 3)
    assert estimate.max_completion_tokens == 300
    body = json.dumps(server.requests[0])
    assert 0.5 < estimate.prompt_tokens / (3 * len(body) / 4) < 1.5
    assert estimate.max_cost == pytest.approx((estimate.prompt_tokens + 600) / 1e6)


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GRAPHMERT_TEST_KEY", "sesame")
    with serving(failing_first(1, Reply(b"", 500))) as server, caplog.at_level("DEBUG"):
        settings = server.settings(key_env="GRAPHMERT_TEST_KEY")
        LLM(settings, cache_dir=tmp_path).ask(Prompt("", "x"), Verdict)
    assert server.headers[1]["Authorization"] == "Bearer sesame"
    assert "sesame" not in caplog.text + settings.model_dump_json()
    assert not any("sesame" in path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"url": "file:///etc/passwd"}, ConfigError, "no usable address"),
        ({"url": ""}, ConfigError, "no usable address"),
        ({"url": "http://user:pass@host/v1"}, ConfigError, "key_env"),
        ({"model": ""}, ConfigError, "no model"),
        ({"key_env": "GRAPHMERT_TEST_NO_SUCH_KEY"}, CapabilityError, "NO_SUCH_KEY"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_said_before_any_call(
    changes: dict[str, str], error: type[Exception], words: str
) -> None:
    values = {"url": "http://127.0.0.1:1/v1", "model": "m", **changes}
    with pytest.raises(error, match=words):
        LLM(LLMSettings(**values))


def test_settings_are_off_until_a_url_is_given() -> None:
    assert not LLMSettings().is_set
    assert Server("http://127.0.0.1:1/v1").settings().is_set
