"""GPT-2, Llama, Mistral, Phi-3 and Qwen, tiny and random, through the whole path of a pretrained model.

Loaded from a folder, trimmed or not, lengthened, trained by a `Run`, saved, and read again by plain
transformers; the official large models differ from these in size alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests import small_pretrained
from tests.small_pretrained import FAMILIES
from tests.tiny import tiny_config
from trainer.config import Config
from trainer.events import Event, ExamplesShown, Metrics, RunCrashed, RunFinished
from trainer.methods.decode import split_answer, token_texts
from trainer.parts import assemble
from trainer.run import Run
from trainer.saving import checkpoint

HEADS_OF_THEIR_OWN = {"llama", "mistral", "phi3"}
BOS_FIRST = {"llama", "mistral", "phi3"}


def config(init: Path, **changes: Any) -> Config:
    few: dict[str, Any] = {"data__train": 32, "data__valid": 4, "data__test": 4, "optim__batch": 8}
    often = {"log__every": 1, "eval__every": 1_000, "schedule__steps_per_token": 1}
    few |= {"schedule__pretrain_steps": 0, "stop__steps": 6, "optim__lr": 1e-2, "model__dropout": 0.1}
    return tiny_config(**few | often | {"model__init": str(init)} | changes)


def train(config: Config, folder: Path, *, resume: bool = False) -> tuple[list[Event], Path]:
    """A run to its end: what it told, and its last checkpoint."""
    events: list[Event] = []
    run = Run(config, folder, resume=resume)
    run.start(on_event=events.append)
    run.wait()
    run.close()
    crashes = [event.traceback for event in events if isinstance(event, RunCrashed)]
    assert not crashes, crashes[0]
    id = next(event.checkpoint for event in events if isinstance(event, RunFinished))
    assert id is not None
    return events, folder / checkpoint.FOLDER / id


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.model_folder(path) / "model.safetensors")


@pytest.mark.parametrize("vocab", ["full", "task"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_and_what_plain_transformers_makes_of_it(family: str, vocab: str, tmp_path: Path) -> None:
    init = FAMILIES[family](tmp_path / "pretrained", positions=16)
    chosen = config(init, model__vocab=vocab)
    events, last = train(chosen, tmp_path / "run")

    losses = [event.loss for event in events if isinstance(event, Metrics)]
    assert len(losses) == 6 and losses[-1] < losses[0]

    folder = checkpoint.model_folder(last)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    # AutoTokenizer puts rules of its own into any tokenizer that lies beside a Qwen2.
    as_it_is = family == "qwen2" and vocab == "task"
    tokenizer = (PreTrainedTokenizerFast if as_it_is else AutoTokenizer).from_pretrained(folder)
    before: Any = AutoModelForCausalLM.from_pretrained(init)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert type(model) is type(before)
    assert model.config.vocab_size == len(tokenizer) == (17 if vocab == "task" else before.config.vocab_size)
    assert tied == (family not in HEADS_OF_THEIR_OWN)

    # The run's own greedy answers to the test split, one batch, against plain generation one by one.
    shown = [event for event in events if isinstance(event, ExamplesShown)][-1].examples
    test = assemble(chosen, folder).splits["test"]
    room = model.generation_config.max_new_tokens
    assert int(test.length_N.max()) > 16  # further than the pretrained model's positions went
    for i, example in enumerate(shown):
        text = tokenizer.decode(test.ids_NT[i, : int(test.question_N[i]) - 1])
        ids = tokenizer(text.removeprefix("<s>") + tokenizer.eos_token, return_tensors="pt").input_ids
        assert ids[0].tolist() == test.ids_NT[i, : int(test.question_N[i])].tolist()
        assert (ids[0, 0] == tokenizer.convert_tokens_to_ids("<s>")) == (
            vocab == "full" and family in BOS_FIRST
        )
        written = model.generate(ids, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :].tolist()
        assert len(written) == room
        ends = [place for place, id in enumerate(written) if id == tokenizer.eos_token_id]
        if len(ends) > 1:
            del written[ends[1] + 1 :]
        separator = tokenizer(" ####", add_special_tokens=False).input_ids[-1]
        cot, answer = split_answer(written, tokenizer.eos_token_id, separator)
        assert example.spoken == token_texts(cot, tokenizer)
        assert example.given.split() == tokenizer.decode(answer).replace(",", "").split()


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_it_is_the_run_that_never_stopped(family: str, tmp_path: Path) -> None:
    init = FAMILIES[family](tmp_path / "pretrained", positions=16)
    whole = config(init, model__vocab="full")
    _, never_stopped = train(whole, tmp_path / "whole")
    train(config(init, model__vocab="full", stop__steps=3), tmp_path / "halves")
    _, resumed = train(whole, tmp_path / "halves", resume=True)
    a, b = weights(never_stopped), weights(resumed)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("vocab", ["full", "task"])
def test_every_symbol_learns(vocab: str, tmp_path: Path) -> None:
    """The embedding of a model's `pad_token_id` gets no gradient: with the model's own vocabulary as in the
    official code, but the number must not be taken for one of the task's symbols."""
    init = small_pretrained.phi3(tmp_path)
    parts = assemble(config(init, model__vocab=vocab))
    batch = parts.method.rows(parts.splits["train"], 0, None)
    parts.method.loss(parts.model, batch).mean.backward()
    gradients = parts.model.get_input_embeddings().weight.grad.abs().sum(1)
    met = batch.input_ids_BT.unique()
    frozen = [int(id) for id in met if gradients[id] == 0]
    assert frozen == ([parts.tokenizer.eos_token_id] if vocab == "full" else [])


def test_half_precision_is_that_of_weights_moments_and_what_is_saved(tmp_path: Path) -> None:
    init = FAMILIES["mistral"](tmp_path / "pretrained")
    chosen = config(init, model__dtype="bfloat16", model__vocab="full")
    events, last = train(chosen, tmp_path / "run")
    losses = [event.loss for event in events if isinstance(event, Metrics)]
    assert losses[-1] < losses[0]
    assert {weight.dtype for weight in weights(last).values()} == {torch.bfloat16}
    assert {p.dtype for p in assemble(chosen, checkpoint.model_folder(last)).model.parameters()} == {
        torch.bfloat16
    }
    moments = load_file(last / checkpoint.OPTIMIZER)
    assert {value.dtype for key, value in moments.items() if "exp_avg" in key} == {torch.bfloat16}


@pytest.mark.parametrize("vocab", ["full", "task"])
def test_a_tokenizer_without_eos_is_an_error(vocab: str, tmp_path: Path) -> None:
    init = small_pretrained.llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(init)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(init)
    with pytest.raises(ValueError, match=r"model\.init = .*: its tokenizer has no EOS token"):
        assemble(config(init, model__vocab=vocab))


def test_an_unknown_architecture_is_an_error(tmp_path: Path) -> None:
    small_pretrained.llama(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "martian"}')
    with pytest.raises(ValueError, match=r"model\.init = .*martian"):
        assemble(config(tmp_path))
