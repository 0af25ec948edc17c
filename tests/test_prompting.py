"""Few-shot prompting: the prompt, the answer in what comes back, a model here, and a model behind HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase
from typer.testing import CliRunner, Result

from stepwise_tui import cli
from tests import small_pretrained
from trainer.asking import prompting
from trainer.asking.endpoint import ATTEMPTS, KEYS, Endpoint, EndpointError
from trainer.asking.prompting import Asked, PromptError, counted, from_lines, from_task, prompt, read_answer
from trainer.config import build
from trainer.data.layout import Line

LINES = [Line(f"{n} * 2", f"{n} + {n}", str(2 * n)) for n in range(1, 9)]
KEY = "sk-very-secret"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def written(folder: Path, lines: Sequence[Line] = LINES) -> Path:
    file = folder / "lines.txt"
    file.write_text("".join(f"{line.question}||{line.cot} #### {line.answer}\n" for line in lines))
    return file


# The prompt and the answer ----------------------------------------------------------------------------------


def test_the_prompt_with_and_without_cot() -> None:
    with_cot = prompt(LINES[:2], "9 * 2", cot=True)
    assert with_cot.endswith(
        "\n\nQuestion: 1 * 2\nAnswer: 1 + 1 #### 2"
        "\n\nQuestion: 2 * 2\nAnswer: 2 + 2 #### 4"
        "\n\nQuestion: 9 * 2\nAnswer:"
    )
    without = prompt(LINES[:2], "9 * 2", cot=False)
    assert "Answer: #### 2\n" in without and "1 + 1" not in without
    assert prompt([Line("a", "", "b")], "c", cot=True).count("Answer: #### b") == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 2 + 2 #### 4", "4"),
        (" 2 + 2 #### 4\n\nQuestion: 5 * 2\nAnswer: 5 + 5 #### 10", "4"),
        ("Let me see.\n2 + 2 is 4.\n#### 1,004 \nThat is it. #### 7", "1004"),
        ("#### 3 #### 4\n", "4"),
        (" 4\n\nQuestion: 5 * 2\nAnswer: #### 10", ""),
        ("4", ""),
        ("", ""),
        ("####", ""),
    ],
)
def test_the_answer_of_whatever_was_written(text: str, answer: str) -> None:
    assert read_answer(text) == answer


@given(st.text(alphabet="#4 \nQuestion:"))
def test_what_counts_is_a_beginning_and_counts_whole(text: str) -> None:
    assert text.startswith(counted(text))
    assert counted(counted(text)) == counted(text)


def test_shown_examples_are_drawn_by_the_seed_and_never_asked() -> None:
    doubled = [*LINES, *LINES[:4]]
    asked = from_lines(doubled, 3, seed=1, limit=None)
    assert len(asked.shown) == 3
    assert not {line.question for line in asked.shown} & {line.question for line in asked.asked}
    assert asked == from_lines(doubled, 3, seed=1, limit=None)
    assert asked.shown != from_lines(doubled, 3, seed=2, limit=None).shown
    assert from_lines(LINES, 3, seed=1, limit=2).asked == from_lines(LINES, 3, seed=1, limit=None).asked[:2]
    with pytest.raises(PromptError, match="the file has 8 examples"):
        from_lines(LINES, 8, seed=0, limit=None)


def test_a_task_shows_training_examples_and_asks_held_out_ones() -> None:
    config = build({"data": {"digits": 2, "train": 300, "valid": 10, "test": 20}})
    asked = from_task(config, "test", 5, seed=0, limit=None)
    assert (len(asked.shown), len(asked.asked)) == (5, 20)
    assert asked.asked != from_task(config, "valid", 5, seed=0, limit=None).asked
    assert not {line.question for line in asked.shown} & {line.question for line in asked.asked}


# A model in this process ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Asked]:
    """A model that knows the answers to four prompts by heart, and goes on with a question after them."""
    folder = tmp_path_factory.mktemp("learnt")
    tokenizer: PreTrainedTokenizerBase = small_pretrained.gpt2_tokenizer(folder)
    asked = Asked(LINES[:1], LINES[3:7])
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=320,
            n_layer=1,
            n_head=2,
            n_embd=48,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            attn_pdrop=0.0,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    texts = [
        prompt(asked.shown, line.question, cot=True)
        + f" {line.cot} #### {line.answer}\n\nQuestion: 1 * 2\nAnswer: 1 + 1 #### 2"
        for line in asked.asked
    ]
    tokenizer.pad_token = tokenizer.eos_token
    rows = tokenizer(texts, padding=True, return_tensors="pt")
    labels = rows.input_ids.masked_fill(rows.attention_mask == 0, -100)
    labels[:, : len(tokenizer.encode(prompt(asked.shown, "4 * 2", cot=True)))] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = model(input_ids=rows.input_ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, asked


def test_a_model_is_prompted_and_stopped_at_the_end_of_its_answer(learnt: tuple[Path, Asked]) -> None:
    folder, asked = learnt
    report = prompting.evaluate(str(folder), asked, cot=True, split=None)
    assert (report.accuracy, report.n, report.few_shot, report.cot) == (1.0, 4, 1, True)
    tokenizer = small_pretrained.gpt2_tokenizer(folder)
    lengths = [len(tokenizer.encode(f" {line.cot} #### {line.answer}\n")) for line in asked.asked]
    assert report.generated_tokens == sum(lengths) / 4, "it stops at the end of the line"
    wrong = Asked(asked.shown, [line._replace(answer="0") for line in asked.asked])
    assert prompting.evaluate(str(folder), wrong, cot=True, split=None).accuracy == 0.0


def test_few_shot_on_the_command_line(learnt: tuple[Path, Asked], tmp_path: Path) -> None:
    file = written(tmp_path)
    result = call("eval", learnt[0], "--few-shot", "1", "--data", file, "--limit", "2", "--json")
    measured = json.loads(result.stdout)
    assert (measured["n"], measured["few_shot"], measured["cot"]) == (2, 1, True)
    assert measured["stage"] is measured["speed"] is measured["token_accuracy"] is None
    plain = call("eval", learnt[0], "--few-shot", "1", "--no-cot", "--data", file, "--limit", "2")
    assert "shown 1 examples without CoT" in plain.stdout


def test_a_prompt_that_does_not_fit_is_told(learnt: tuple[Path, Asked], tmp_path: Path) -> None:
    result = call("eval", learnt[0], "--few-shot", "7", "--data", written(tmp_path))
    assert result.exit_code == 2 and "320 positions" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--no-cot", "--endpoint", "http://x"], "--no-cot and --endpoint: only with --few-shot"),
        (["--few-shot", "2"], "one of --data FILE and --preset NAME"),
        (["--few-shot", "2", "--data", "x", "--preset", "y"], "one of --data FILE and --preset NAME"),
        (["--few-shot", "2", "--preset", "mult2x2", "--explicit"], "--explicit: not with --few-shot"),
        (["--few-shot", "2", "--preset", "mult2x"], "did you mean mult2x2"),
        (["--few-shot", "2", "--data", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--few-shot", "2", "--preset", "mult2x2"], "no local folder"),
        (["--few-shot", "2", "--preset", "mult2x2", "--endpoint", "ftp://x"], "an address such as http://"),
        (["--few-shot", "2", "--preset", "mult2x2", "--endpoint", "http://a:b@x"], "into STEPWISE_API_KEY"),
    ],
)
def test_what_does_not_go_together_is_told(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = call("eval", "no/such-model", *arguments)
    assert result.exit_code == 2 and complaint in " ".join(result.stderr.split()), result.output


# A model behind an endpoint ---------------------------------------------------------------------------------


class Server:
    """A stand-in endpoint. It answers questions of LINES, after what `script` says comes first."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.requests.append(json.loads(body))
                server.keys.append(self.headers["Authorization"])
                step = server.script.pop(0) if server.script else server.answer(server.requests[-1])
                if step == "slow":
                    time.sleep(1.0)
                    return
                status, content, headers = step if isinstance(step, tuple) else (200, step, {})
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @staticmethod
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked = request["messages"][-1]["content"].rpartition("Question: ")[2].partition("\n")[0]
        line = next(line for line in LINES if line.question == asked)
        return completion(f"{line.cot} #### {line.answer}", 7)


def completion(text: str | None, tokens: int | None = None) -> dict[str, Any]:
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return {"choices": [{"message": {"role": "assistant", "content": text}}], **usage}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def ask(server: Server, *script: Any, patience: float = 5.0) -> tuple[Any, list[float]]:
    """One question after the server has done what `script` says; the reply, and the waits between."""
    server.script[:] = script
    waits: list[float] = []
    endpoint = Endpoint(server.url, "m", patience=patience, sleep=waits.append)
    return endpoint.ask("Question: 3 * 2\nAnswer:", max_tokens=50), waits


def test_an_endpoint_on_the_command_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("STEPWISE_API_KEY", f"{KEY}\n")
    file = written(tmp_path)
    result = call("eval", "some-model", "--few-shot", "3", "--data", file, "--endpoint", server.url, "--json")
    measured = json.loads(result.stdout)
    assert (measured["accuracy"], measured["n"], measured["generated_tokens"]) == (1.0, 5, 7.0)
    assert measured["examples_per_second"] is None and measured["examples_per_second_batch1"] > 0
    assert measured["checkpoint"] == "some-model"
    assert len(server.requests) == 5
    request = server.requests[0]
    assert (request["model"], request["temperature"]) == ("some-model", 0)
    assert request["messages"][0]["content"].count("Question: ") == 4
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_answers_that_cannot_be_read_are_counted(server: Server, tmp_path: Path) -> None:
    arguments = (
        "eval",
        "m",
        "--few-shot",
        "1",
        "--data",
        written(tmp_path),
        "--endpoint",
        server.url,
        "--json",
    )
    server.script[:] = [completion("It is 4."), completion(""), *[completion(None)] * 3]
    result = call(*arguments)
    measured = json.loads(result.stdout)
    assert (measured["n"], measured["unread"], measured["empty"]) == (7, 5, 4)
    assert measured["accuracy"] == 2 / 7
    assert "5 of 7 answers have no ####, 4 of them no text at all; they count as wrong" in result.stderr
    assert call(*arguments).stderr == ""


def test_an_endpoint_that_answers_nothing_is_not_asked_on(server: Server, tmp_path: Path) -> None:
    server.script[:] = [completion("2 + 2 #### 4"), *[completion(" ")] * 6]
    result = call("eval", "m", "--few-shot", "1", "--data", written(tmp_path), "--endpoint", server.url)
    assert result.exit_code == 1 and "5 answers in a row are empty" in result.stderr
    assert "m may think before it writes" in result.stderr and len(server.requests) == 6


def test_trouble_that_passes_is_waited_for(server: Server) -> None:
    reply, waits = ask(
        server,
        (500, {"error": "oh"}, {}),
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "7"}),
        b"{not json",
    )
    assert reply.text == "3 + 3 #### 6" and reply.tokens == 7
    assert waits == [1.0, 7.0, 4.0] and len(server.requests) == 4


def test_silence_is_given_up_and_asked_again(server: Server) -> None:
    reply, waits = ask(server, "slow", patience=0.2)
    assert reply.text == "3 + 3 #### 6" and len(waits) == 1


def test_trouble_that_stays_is_told(server: Server) -> None:
    with pytest.raises(EndpointError, match=rf"503: busy; it was asked {ATTEMPTS} times"):
        ask(server, *[(503, {"error": {"message": "busy"}}, {})] * ATTEMPTS)
    assert len(server.requests) == ATTEMPTS


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (
            (401, {"error": {"message": f"bad key {KEY}"}}, {}),
            "refuses the key of the environment .401: bad key …",
        ),
        ((404, {"error": {"message": "no model m"}}, {}), "knows no model 'm' .404: no model m"),
        ((400, b"<html>what?</html>", {}), "refuses the request .400: <html>what"),
        ((302, b"", {"Location": "http://elsewhere/"}), "says to go to http://elsewhere/"),
        ({"choices": []}, "is no chat completion"),
        (["nonsense"], "is no chat completion"),
    ],
)
def test_what_cannot_pass_is_told_at_once_without_the_key(
    server: Server, step: Any, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPWISE_API_KEY", KEY)
    with pytest.raises(EndpointError, match=complaint) as raised:
        ask(server, step)
    assert KEY not in str(raised.value)
    assert len(server.requests) == 1


def test_a_request_without_a_key_says_where_one_goes(server: Server) -> None:
    with pytest.raises(EndpointError, match=r"a request without a key .*STEPWISE_API_KEY or OPENAI_API_KEY"):
        ask(server, (401, {}, {}))


def test_a_key_that_no_header_can_carry(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWISE_API_KEY", f"{KEY}\u2026")
    with pytest.raises(ValueError, match="STEPWISE_API_KEY holds no key") as raised:
        ask(server)
    assert KEY not in str(raised.value)


def test_nobody_there() -> None:
    with pytest.raises(EndpointError, match="cannot be reached"):
        Endpoint("http://127.0.0.1:9/v1", "m", sleep=lambda _: None).ask("?", max_tokens=1)


def test_an_answer_may_be_empty_and_usage_unknown(server: Server) -> None:
    reply, _ = ask(server, completion(None))
    assert (reply.text, reply.tokens) == ("", None)


def test_the_address_may_be_the_whole_one() -> None:
    for url in ("https://x/v1", "https://x/v1/", "https://x/v1/chat/completions"):
        assert Endpoint(url, "m").url == "https://x/v1/chat/completions"
