from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from tests import small_pretrained
from trainer.config import Config, build
from trainer.data.multiplication import Multiplication
from trainer.models.model import SPARE, build_model, build_tokenizer, resolve_device

TASK = Multiplication(2)
SYMBOLS = [" 0", " 1", " 2", " 3", " 4", " 5", " 6", " 7", " 8", " 9", " *", " +", " (", " )"]


def config(**model: Any) -> Config:
    scratch = {"init": "scratch", "vocab": "task", "layers": 2, "heads": 2, "width": 16}
    return build({"model": scratch | model})


def built(positions: int = 24, **model: Any) -> tuple[Any, Any]:
    chosen = config(**model)
    tokenizer = build_tokenizer(chosen, TASK)
    torch.manual_seed(0)
    return build_model(chosen, tokenizer, positions), tokenizer


def test_from_scratch_has_the_sizes_asked_for() -> None:
    model, tokenizer = built(positions=25, layers=3, heads=4, width=32, dropout=0.2)
    architecture = model.config
    assert (architecture.n_layer, architecture.n_head, architecture.n_embd) == (3, 4, 32)
    assert (architecture.vocab_size, architecture.n_positions) == (len(tokenizer), 25 + SPARE)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.2}
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert architecture._attn_implementation == "sdpa"
    assert architecture.eos_token_id == architecture.pad_token_id == tokenizer.eos_token_id


def test_new_weights_have_the_standard_deviation_asked_for() -> None:
    model, _ = built(initializer_range=0.1)
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and not name.endswith("c_proj.weight"):  # GPT-2 makes those smaller by its depth
            assert float(weight.detach().std()) == pytest.approx(0.1, rel=0.2), name


def test_the_weights_are_a_function_of_the_seed() -> None:
    (first, _), (second, _) = built(), built()
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_spare_positions_leave_all_other_weights_as_they_were() -> None:
    model, tokenizer = built(positions=25)
    torch.manual_seed(0)
    exact = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=len(tokenizer), n_positions=25, n_layer=2, n_head=2, n_embd=16)
    )
    spared = dict(model.named_parameters())
    for name, weight in exact.named_parameters():
        assert torch.equal(spared[name][: len(weight)], weight), name
    spare = model.transformer.wpe.weight.detach()[25:]
    assert float(spare.std()) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("make", [None, small_pretrained.gpt2, small_pretrained.llama])
@pytest.mark.parametrize("more", [0, 40])
def test_saved_it_loads_with_plain_transformers(
    tmp_path: Path, make: Callable[..., Path] | None, more: int
) -> None:
    init = "scratch" if make is None else str(make(tmp_path / "pretrained"))
    model, tokenizer = built(init=init, positions=64 + more)
    model.generation_config.max_new_tokens = 30
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    symbols = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = torch.randint(17, (2, 64 + more))
    model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    # generation must run over both EOS: greedy, a fixed length, no stop token
    question = symbols(" 2 1 * 4 3 <|endoftext|>", return_tensors="pt").input_ids
    written = loaded.generate(question)
    assert written.shape == (1, question.shape[1] + 30)
    assert torch.equal(written, loaded.generate(question))


def test_generation_does_not_stop_at_eos(tmp_path: Path) -> None:
    model, tokenizer = built(positions=40)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight[tokenizer.eos_token_id] = 1.0  # always EOS
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    written = loaded.generate(torch.tensor([[1, 16]]))
    assert written[0].tolist() == [1, 16] + [16] * 7


@pytest.mark.parametrize("make", [small_pretrained.gpt2, small_pretrained.llama])
def test_the_task_vocabulary_has_the_pretrained_rows(tmp_path: Path, make: Callable[..., Path]) -> None:
    folder = make(tmp_path)
    model, tokenizer = built(init=str(folder))
    source = AutoTokenizer.from_pretrained(folder)
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    # the token a symbol ends with: " 5" itself in GPT-2's, "5" after the blank in Llama's
    rows = [source.encode(symbol, add_special_tokens=False)[-1] for symbol in [*SYMBOLS, " ####", " "]]
    rows.append(source.eos_token_id)

    assert model.config.vocab_size == len(tokenizer) == 17
    ids = torch.randint(17, (3, 20))
    with torch.no_grad():
        own = model.eval()(ids).logits
        expected = whole(torch.tensor(rows)[ids]).logits[..., rows]
    assert torch.allclose(own, expected, atol=1e-6)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == model.config.tie_word_embeddings
    assert model.config.bos_token_id == model.config.eos_token_id == 16


def test_the_full_vocabulary_is_left_alone(tmp_path: Path) -> None:
    folder = small_pretrained.gpt2(tmp_path)
    model, tokenizer = built(init=str(folder), vocab="full", dropout=0.3)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert all(map(torch.equal, model.parameters(), whole.parameters()))
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}


def test_learned_positions_go_on_from_the_start_again(tmp_path: Path) -> None:
    folder = small_pretrained.gpt2(tmp_path, positions=16)
    model, _ = built(init=str(folder), positions=40)
    whole: Any = AutoModelForCausalLM.from_pretrained(folder)
    old = whole.transformer.wpe.weight
    assert model.config.n_positions == 40
    assert torch.equal(model.transformer.wpe.weight, old[torch.arange(40) % 16])
    model(torch.randint(17, (1, 40))).logits.sum().backward()
    assert model.transformer.wpe.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("vocab", ["task", "full"])
def test_an_unreachable_name_has_two_ways_out(
    vocab: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ValueError, match=r"model\.init = nobody/nothing") as caught:
        built(init="nobody/nothing", vocab=vocab)
    assert "--set model.init=PATH" in str(caught.value)
    assert "--set model.init=scratch --set model.vocab=task" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_a_model_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model could be read from this folder"):
        built(init=str(tmp_path))


def test_broken_weights_are_said_to_be_broken(tmp_path: Path) -> None:
    folder = small_pretrained.gpt2(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="no model could be read from this folder"):
        built(init=str(folder))


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match=r"device = cuda:99: .*--device auto"):
        resolve_device("cuda:99")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="torch finds no GPU here"):
        resolve_device("cuda")
