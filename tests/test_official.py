"""Models without a run: checkpoints of the official code, and plain Hugging Face folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, T5Config
from typer.testing import CliRunner, Result

from stepwise_tui import cli
from tests import small_pretrained
from trainer.answering.evaluate import evaluate
from trainer.asking import inspection
from trainer.data.layout import encode_question
from trainer.models import official
from trainer.models.official import ForeignError

ROOT = Path(__file__).parent.parent
LINES = "2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0\n1 1 * 1 1||1 1 0 + 0 1 1 0 #### 1 2 1 0\n"


def call(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], input=text)


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def official_checkpoint(base: Path, folder: Path, *, positions: int | None = None) -> Path:
    """What the official code saves of a model built on `base`, with the buffers that old versions had."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.3
    if positions is not None:
        old = model.transformer.wpe.weight.detach()
        longer = torch.cat([old, old[-1:].expand(positions - len(old), -1)])
        model.transformer.wpe.weight = torch.nn.Parameter(longer)
    state = {f"base_model.{name}": tensor for name, tensor in model.state_dict().items()}
    if model.config.model_type == "gpt2":
        for layer in range(2):
            name = f"base_model.transformer.h.{layer}.attn"
            state |= {f"{name}.bias": torch.ones(1, 1, 8, 8), f"{name}.masked_bias": torch.tensor(-1e4)}
    else:
        state["base_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    folder.mkdir()
    torch.save(state, folder / "state_dict.bin")
    names = {"base_model": str(base), "tokenizer_name": str(base), "transformers_version": "4.43.3"}
    (folder / "config.json").write_text(json.dumps(names))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return small_pretrained.gpt2(tmp_path / "base")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "lines.txt"
    file.write_text(LINES)
    return file


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "phi3"])
def test_weights_and_tokenizer_are_those_that_were_saved(family: str, tmp_path: Path) -> None:
    base = small_pretrained.FAMILIES[family](tmp_path / "base")
    folder = official_checkpoint(base, tmp_path / "trained")
    model, tokenizer = official.load(folder, None)
    saved = torch.load(folder / "state_dict.bin", weights_only=True)
    assert all(torch.equal(saved[f"base_model.{name}"], value) for name, value in model.state_dict().items())
    assert encode_question("2 1 * 4 3", tokenizer) == encode_question(
        "2 1 * 4 3", AutoTokenizer.from_pretrained(base)
    )


def test_bfloat16_and_a_tied_head_that_was_not_saved(base: Path, tmp_path: Path) -> None:
    folder = official_checkpoint(base, tmp_path / "trained")
    state = torch.load(folder / "state_dict.bin", weights_only=True)
    del state["base_model.lm_head.weight"]
    half = {name: value.bfloat16() for name, value in state.items()}
    torch.save(half, folder / "state_dict.bin", _use_new_zipfile_serialization=False)  # as before torch 1.6
    model, _ = official.load(folder, None)
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.lm_head.weight, half["base_model.transformer.wte.weight"])


def test_it_opens_in_eval_and_chat_with_base_and_preset(base: Path, tmp_path: Path, lines: Path) -> None:
    """Its positions are more than the base's, and its config.json names a base that is nowhere."""
    folder = official_checkpoint(base, tmp_path / "trained", positions=100)
    (folder / "config.json").write_text(json.dumps({"base_model": "elsewhere/gpt2"}))
    measured = json.loads(call("eval", folder, "--base", base, "--data", lines, "--json").stdout)
    assert (measured["n"], measured["split"], measured["checkpoint"]) == (2, None, str(folder))
    assert measured["stage"] is measured["cot_match"] is None and measured["speed"] > 0
    loaded = inspection.open_checkpoint(str(folder), None, tmp_path, base=str(base))
    assert loaded.parts.model.config.max_position_embeddings == 100

    split = call("eval", folder, "--base", base, "--preset", "mult2x2", "--limit", "3", "--json")
    assert (json.loads(split.stdout)["n"], json.loads(split.stdout)["split"]) == (3, "test")
    asked = call("chat", folder, "--base", base, "--preset", "mult2x2", text="12*34\nwhat?\n").stdout
    assert asked.startswith("12 × 34 = ") and "408 is right" in asked and "Ask, for example: 12 * 34" in asked
    typed = call("chat", folder, "--base", base, text="2 1 * 4 3\n").stdout
    assert typed.startswith("2 1 * 4 3 = ") and "is right" not in typed and "✗" not in typed


def test_a_hugging_face_folder_opens_as_it_is(base: Path, tmp_path: Path, lines: Path) -> None:
    loaded = inspection.open_checkpoint(str(base), None, tmp_path)
    examples = inspection.read_examples(lines, loaded.parts)
    result = evaluate(loaded.parts.method, loaded.parts.model, examples, 0, loaded.parts.tokenizer)
    assert result is not None
    measured = json.loads(call("eval", base, "--data", lines, "--json").stdout)
    assert measured["generated_tokens"] == result.generated_tokens
    assert "--data FILE or --preset NAME" in said(call("eval", base))
    greeting = inspection.greeting(loaded)
    assert "gpt2 model" in greeting and "Ask as its training examples do." in greeting


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--base", "gpt2"], "--base is for checkpoints of the official code"),
        (["--checkpoint", "x"], "is one model and no run"),
        (["--preset", "mult9"], "there is no preset 'mult9'"),
        (["--explicit", "--preset", "mult2x2"], "answers one way only"),
    ],
)
def test_options_that_make_no_sense_for_a_folder(base: Path, arguments: list[str], complaint: str) -> None:
    for command in ("eval", "chat"):
        result = call(command, base, *arguments, text="")
        assert result.exit_code == 2 and complaint in said(result)


def coconut_checkpoint(base: Path, file: Path) -> dict[str, torch.Tensor]:
    """What Coconut's code saves of a model built on `base`: one file."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.3
    state = {f"base_causallm.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(state | {"embedding.weight": model.get_input_embeddings().weight}, file)
    return dict(model.state_dict())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_file_of_coconuts_code_is_read(family: str, tmp_path: Path, lines: Path) -> None:
    base = small_pretrained.FAMILIES[family](tmp_path / "base")
    file = tmp_path / "checkpoint_33"
    saved = coconut_checkpoint(base, file)
    model, tokenizer = official.load(file, str(base))
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert (
        tokenizer.convert_tokens_to_ids("<|latent|>")
        == len(tokenizer) - 1
        == len(saved["lm_head.weight"]) - 1
    )
    torch.save(saved, file)  # as its runs without latent thoughts: bare names
    assert torch.equal(official.load(file, str(base))[0].lm_head.weight, saved["lm_head.weight"])


def test_a_file_of_coconuts_code_opens_in_eval_chat_and_export(
    base: Path, tmp_path: Path, lines: Path
) -> None:
    file = tmp_path / "checkpoint_33"
    coconut_checkpoint(base, file)
    measured = call("eval", file, "--base", base, "--data", lines, "--json")
    assert json.loads(measured.stdout)["n"] == 2 and "trained to think in latents" in said(measured)
    asked = call("chat", file, "--base", base, text="2 1 * 4 3\n")
    assert asked.stdout.startswith("2 1 * 4 3 = ") and "trained to think in latents" in said(asked)
    result = call("export", file, tmp_path / "out", "--base", base)
    assert result.exit_code == 0 and "trained to think in latents" in said(result)
    again = call("eval", tmp_path / "out", "--data", lines, "--json")
    one, other = json.loads(measured.stdout), json.loads(again.stdout)
    assert (one["accuracy"], one["generated_tokens"]) == (other["accuracy"], other["generated_tokens"])
    assert "--base MODEL|DIR does, e.g. gpt2" in said(call("chat", file, text=""))
    assert "is not a run but a file" in said(call("chat", lines, text=""))


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "state_dict.bin"
    state = torch.load(file, weights_only=True)
    torch.save(edit(state), file)


class Shell:
    """A pickle that would run a command when it is read."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/was-run",)


EMBEDDINGS = "base_model.transformer.wte.weight"
HEAD = "base_model.lm_head.weight"


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda s: {**s, "x": Shell()}, "holds more than weights: reading it would call posix.system"),
        (lambda s: list(s), "holds no state dict"),
        (lambda s: dict.fromkeys(s, 1.0), "holds no state dict"),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "these weights are missing: transformer.wte"),
        (lambda s: {}, "these weights are missing: transformer.wte.weight"),
        (
            lambda s: {k: v for k, v in s.items() if "ln_f.weight" not in k},
            "these weights are missing: transformer.ln_f.weight",
        ),
        (lambda s: s | {"base_model.extra": torch.ones(1)}, "these weights have no place there: extra"),
        (
            lambda s: s | {EMBEDDINGS: torch.ones(50257, 16), HEAD: torch.ones(50257, 16)},
            "has a vocabulary of 50,257 tokens and",
        ),
        (lambda s: {k: torch.ones(3, 3) for k in s}, "transformer.wte.weight is 3×3, there 274×16, and"),
    ],
)
def test_weights_that_are_not_what_they_should_be(
    base: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], Any], complaint: str
) -> None:
    folder = official_checkpoint(base, tmp_path / "trained")
    change(folder, edit)
    with pytest.raises(ForeignError) as raised:
        official.load(folder, None)
    assert complaint in str(raised.value) and str(folder) in str(raised.value)
    assert not Path("/tmp/was-run").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04K\x01.", None])
def test_a_file_that_is_no_pickle_of_torch(base: Path, tmp_path: Path, content: bytes | None) -> None:
    folder = official_checkpoint(base, tmp_path / "trained")
    file = folder / "state_dict.bin"
    file.write_bytes(file.read_bytes()[:2000] if content is None else content)
    with pytest.raises(
        ForeignError, match=r"is damaged, or no file that torch has saved|holds no state dict"
    ):
        official.load(folder, None)


def test_a_base_that_cannot_be_had(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = official_checkpoint(base, tmp_path / "trained")
    (folder / "config.json").write_text(json.dumps({"base_model": "elsewhere/gpt2"}))
    with pytest.raises(ForeignError, match=r"is built on elsewhere/gpt2: .*; --base DIR takes"):
        official.load(folder, None)
    with pytest.raises(ForeignError, match=r"--base elsewhere/gpt2: its architecture could not be fetched"):
        official.load(folder, "elsewhere/gpt2")
    for content in ("{}", "no JSON", '{"base_model": 3}', "[]"):
        (folder / "config.json").write_text(content)
        with pytest.raises(ForeignError, match="names no base_model; --base"):
            official.load(folder, None)


def set_model_type(base: Path, name: str) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": name}))


def test_an_unknown_architecture(base: Path) -> None:
    set_model_type(base, "hyena9")
    result = call("chat", base, text="")
    assert result.exit_code == 2 and "model type `hyena9`" in said(result)
    T5Config().save_pretrained(base)
    assert "no model could be read from this folder" in said(call("chat", base, text=""))


def test_nor_does_a_run_begin_with_one(base: Path, tmp_path: Path) -> None:
    set_model_type(base, "hyena9")
    options = ("--set", f"model.init={base}", "--set", "model.vocab=task", "--out", tmp_path / "runs")
    result = call("run", "preset", "mult2x2", "--plain", *options)
    assert result.exit_code == 2 and "model type `hyena9`" in said(result)
    assert "begin from scratch" in said(result)


def test_a_model_that_brings_code(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "code.Mine", "AutoModelForCausalLM": "code.Mine"},
    }
    (base / "config.json").write_text(json.dumps(config))
    (base / "code.py").write_text("raise SystemExit('it ran')")
    result = call("chat", base, text="")
    assert result.exit_code == 2 and "needs code of its own, and none is run here" in said(result)


def test_a_tokenizer_that_does_not_belong_to_the_model(base: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "more")
    tokenizer.add_tokens([f"word{n}" for n in range(9)])
    tokenizer.save_pretrained(base)
    with pytest.raises(ForeignError, match=r"knows 274 tokens, and the tokenizer of .* has 283"):
        official.load(base, None)


def test_a_tokenizer_without_eos_and_one_without_files(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(base)
    with pytest.raises(ForeignError, match="has no EOS token"):
        official.load(base, None)
    for file in base.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    with pytest.raises(ForeignError, match="no tokenizer could be read"):
        official.load(base, None)


def test_pickles_are_read_here_and_nowhere_else() -> None:
    sources = [*ROOT.glob("trainer/**/*.py"), *ROOT.glob("stepwise_tui/**/*.py")]
    readers = [p.name for p in sources if "torch.load(" in p.read_text(encoding="utf-8")]
    assert readers == ["official.py"]
    assert "weights_only=True" in (ROOT / "trainer/models/official.py").read_text(encoding="utf-8")
