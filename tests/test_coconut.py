"""Continuous thoughts: rows, passes with a cache against passes without, generation, training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.driven import Driven, same, weights
from tests.small_pretrained import FAMILIES
from tests.tiny import tiny_config
from trainer import config as configuration
from trainer import methods, presets
from trainer.answering.evaluate import questions
from trainer.asking import inspection
from trainer.computing.compute import Compute
from trainer.computing.passes import Passes
from trainer.config import Config, ConfigError, MethodConfig
from trainer.control import CommandError, parse
from trainer.data import tokenizer as vocabulary
from trainer.data.layout import encode_lines, make_line, separator_id
from trainer.events import ChatAnswered, Metrics, RunFinished, StageEntered, decode, encode
from trainer.exporting import export
from trainer.methods import tokens
from trainer.methods.base import Examples, Model
from trainer.methods.coconut import Coconut, LatentBatch
from trainer.methods.cross_entropy import IGNORED
from trainer.models.model import quicken
from trainer.parts import assemble

LINES = [
    make_line("1 2 * 3 4", "1 + 2 = 3\n3 + 4\n5 * ( 6 )", "8 0 4 0"),
    make_line("1 * 3", "7 + 7\n8", "3"),
    make_line("9 9 * 3 4 * 5", "6 + 6", "1 2"),
    make_line("2 * 2 * 2", "2 + 2\n4 + 4\n8\n8 + 0", "8"),
]


class Made:
    """A tiny model of a family with the tokens of a method, and the examples."""

    def __init__(self, folder: Path, family: str, config: MethodConfig) -> None:
        FAMILIES[family](folder, 96)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.add_tokens(tokens.added(config), special_tokens=True)
        torch.manual_seed(0)
        self.model: Model = AutoModelForCausalLM.from_pretrained(folder)
        self.model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        for parameter in self.model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        self.examples: Examples = encode_lines(LINES, self.tokenizer)
        method = methods.build(config, self.tokenizer, self.examples, separator_id(self.tokenizer))
        assert isinstance(method, Coconut)
        self.method = method


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Made]:
    return lambda family="gpt2", **fields: Made(tmp_path, family, MethodConfig(name="coconut", **fields))


def naive(model: Model, batch: LatentBatch) -> Tensor:
    """The loss by whole passes without a cache, one after the other, each row on its own and unpadded."""
    total, count = torch.zeros(()), 0
    width = batch.input_ids_BT.shape[1]
    for row, thoughts in enumerate(batch.thoughts_B.tolist()):
        start = 0 if batch.mask_BT is None else int((batch.mask_BT[row] == 0).sum())
        ids_T = batch.input_ids_BT[row, start : start + int(batch.length_B[row])]
        embeddings_TD = model.get_input_embeddings()(ids_T)
        for number in range(thoughts):
            place = batch.column - start + number
            hidden_TD = model.base_model(inputs_embeds=embeddings_TD[None, :place], use_cache=False)[0][0]
            embeddings_TD = torch.cat([embeddings_TD[:place], hidden_TD[-1:], embeddings_TD[place + 1 :]])
        logits_TV = model(inputs_embeds=embeddings_TD[None], use_cache=False).logits[0]
        labels_T = torch.full((width,), IGNORED)
        labels_T[batch.first + 1 :] = batch.labels_BL[row]
        labels_T = labels_T[start + 1 : start + len(ids_T)]
        total = total + F.cross_entropy(logits_TV[:-1], labels_T, ignore_index=IGNORED, reduction="sum")
        count += int((labels_T != IGNORED).sum())
    return total / count


def gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_cached_passes_are_the_naive_ones(family: str, made: Callable[..., Made]) -> None:
    own = made(family, thoughts_per_step=2, max_latent_stage=3, pad_latent_to_max=False, uniform_prob=0.9)
    model = quicken(own.model).eval()
    chance = torch.Generator().manual_seed(3)
    batch = own.method.rows(own.examples, 2, chance)
    assert len(set(batch.thoughts_B.tolist())) > 2
    assert batch.mask_BT is not None
    one, other = own.method.loss(model, batch).mean, naive(model, batch)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    ours, theirs = gradients(model, one), gradients(model, other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5, msg=name)


def test_rows_of_a_stage(made: Callable[..., Made]) -> None:
    own = made(thoughts_per_step=2, max_latent_stage=2)
    batch = own.method.rows(own.examples, 1, None)
    start, end, latent = own.tokenizer.convert_tokens_to_ids([tokens.START, tokens.END, tokens.LATENT])
    eos = own.tokenizer.eos_token
    for row, line in enumerate(LINES):
        around = batch.input_ids_BT[row, batch.column - 1 : batch.column + 3].tolist()
        assert around == [start, latent, latent, end]
        labels = batch.labels_BL[row]
        spoken = own.tokenizer.decode(labels[labels != IGNORED].tolist())
        rest = " ".join(line.cot.split("\n")[1:])
        assert spoken.split() == f"{rest} {eos} #### {line.answer} {eos}".split()
    last = own.method.rows(own.examples, 9, None)
    assert last.cot_free
    assert last.thoughts_B.tolist() == [4] * len(LINES)
    assert [own.method.describe(stage) for stage in range(4)] == [
        "0 of 4 steps are thoughts",
        "1 of 4 steps are thoughts (2 thoughts)",
        "2 of 4 steps are thoughts (4 thoughts)",
        "all 4 steps are thoughts",
    ]
    without = made(no_thought=True).method
    assert [without.describe(stage) for stage in (1, 4)] == ["1 of 4 steps are gone", "all 4 steps are gone"]
    unpadded = made(max_latent_stage=2, pad_latent_to_max=False).method
    assert unpadded.rows(own.examples, 9, None).thoughts_B.tolist() == [2, 2, 1, 2]
    classified = made(latent_end="classifier").method
    assert classified.rows(own.examples, 3, None).thoughts_B.tolist() == [3, 2, 1, 3]


def test_the_ablations(tmp_path: Path) -> None:
    kinds = {
        "none": MethodConfig(name="coconut", curriculum=False),
        "pauses": MethodConfig(name="pause", thoughts_per_step=2),
        "nothing": MethodConfig(name="coconut", no_thought=True),
    }
    own = {name: Made(tmp_path / name, "gpt2", config) for name, config in kinds.items()}
    assert own["none"].method.stages == 0
    assert own["none"].method.rows(own["none"].examples, 0, None).thoughts_B.tolist() == [4] * 4
    pauses = own["pauses"].method.rows(own["pauses"].examples, 2, None)
    pause = own["pauses"].tokenizer.convert_tokens_to_ids(tokens.PAUSE)
    assert (pauses.input_ids_BT == pause).sum(1).tolist() == [4] * 4
    assert pauses.mask_BT is None
    nothing = own["nothing"].method
    direct = nothing.rows(own["nothing"].examples, nothing.stages, None)
    removed = own["nothing"].examples
    assert direct.length_B.tolist() == (removed.length_N - removed.cot_N).tolist()
    for one in own.values():
        assert bool(torch.isfinite(one.method.loss(one.model, one.method.rows(one.examples, 1, None)).mean))
        assert one.method.positions(one.examples) >= max(
            one.method.rows(one.examples, stage, None).longest for stage in range(6)
        )


@pytest.mark.parametrize("fields", [{}, {"latent_end": "classifier"}, {"curriculum": False}])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_many_at_once_answer_as_one_at_a_time(
    family: str, fields: dict[str, Any], made: Callable[..., Made]
) -> None:
    own = made(family, **fields)
    asked = questions(own.examples)
    model = quicken(own.model)
    together = own.method.generate(model, asked, 3, max_new_tokens=12)
    alone = [own.method.generate(model, [one], 3, max_new_tokens=12) for one in asked]
    assert together.cot == [one.cot[0] for one in alone]
    assert together.tokens == [one.tokens[0] for one in alone]
    thoughts: list[Tensor] = []
    own.method.generate(model, asked[:1], 3, max_new_tokens=2, thoughts=5, on_thought=thoughts.append)
    assert len(thoughts) == 5


def test_what_is_written_is_what_whole_passes_write(made: Callable[..., Made]) -> None:
    own = made()
    model, [question] = own.model.eval(), questions(own.examples[:1])
    written = own.method.generate(model, [question], 2, max_new_tokens=6).cot[0]
    start, end = own.tokenizer.convert_tokens_to_ids([tokens.START, tokens.END])
    embed = model.get_input_embeddings()
    with torch.no_grad():
        inputs = embed(torch.tensor([[*question, start]]))
        for _ in range(2):
            inputs = torch.cat([inputs, model.base_model(inputs_embeds=inputs)[0][:, -1:]], 1)
        inputs = torch.cat([inputs, embed(torch.tensor([[end]]))], 1)
        for token in written:
            assert int(model(inputs_embeds=inputs).logits[0, -1].argmax()) == token
            inputs = torch.cat([inputs, embed(torch.tensor([[token]]))], 1)
    assert written


def test_parts_of_a_batch_and_bf16_give_its_gradient(made: Callable[..., Made]) -> None:
    own = made(uniform_prob=0.9, latent_end="classifier")
    model = quicken(own.model).eval()
    batch = own.method.rows(own.examples, 3, torch.Generator().manual_seed(1))
    found = []
    for compute in (Compute(), Compute(parts=4), Compute(precision="bfloat16")):
        passes = Passes(own.method, model, compute)
        passes.clear()
        loss = passes(batch, 1.0).mean
        found.append((loss, torch.cat([p.grad.flatten() for p in model.parameters()])))
    (whole, gradient), (parted, same), (rough, near) = found
    torch.testing.assert_close(whole, parted, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, same, rtol=0, atol=1e-5)
    assert abs(float(rough - whole)) < 0.05 * float(whole)
    assert float(F.cosine_similarity(gradient, near, 0)) > 0.99


def test_the_classifier_learns_when_to_end(made: Callable[..., Made]) -> None:
    own = made(latent_end="classifier")
    model = quicken(own.model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch = own.method.rows(own.examples, 4, None)
    for _ in range(80):
        own.method.loss(model, batch).mean.backward()
        optimizer.step()
        optimizer.zero_grad()
    decoded = own.method.generate(model, questions(own.examples), 4, max_new_tokens=1)
    assert [count - 1 for count in decoded.tokens] == own.examples.steps.tolist()


# Mistakes


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "coconut", "thoughts_per_step": 0}, "no_thought = true"),
        ({"name": "pause", "no_thought": True}, 'name = "pause" has no no_thought'),
        ({"name": "coconut", "side": "right"}, 'name = "coconut" has no side'),
        ({"unit": "step", "fillers": True}, 'unit = "step" has no fillers'),
        (
            {"name": "coconut", "move_positions": True, "stop_at": 3},
            "here; without them: --set method.move_positions=false --set method.stop_at=none",
        ),
        ({"name": "pause", "unit": "step", "latent_end": "classifier"}, 'name = "pause" has no latent_end'),
        ({"unit": "step", "no_thought": True}, 'name = "stepwise" has no no_thought'),
        (
            {"curriculum": False},
            "no curriculum = false, set here; without it: --set method.curriculum=true",
        ),
        ({"name": "coconut", "no_thought": True, "curriculum": False}, "name = no_cot"),
    ],
)
def test_fields_of_another_method(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        configuration.build({"method": fields})


def coconut(**changes: Any) -> Config:
    return tiny_config(method__name="coconut", **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method__max_latent_stage": 3}, "the longest CoT here has 2 steps"),
        (
            {"method__start_from": 3},
            "the last stage is 2, where all 2 steps are thoughts; it can begin",
        ),
        ({"compute__path": "compiled"}, '"eager" or "auto" is allowed'),
        ({"compute__activation_checkpointing": True}, "a thought needs the cache"),
    ],
)
def test_what_does_not_fit_the_data(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        assemble(coconut(**changes))


def test_examples_without_steps(tmp_path: Path) -> None:
    def config(without: int, **method: Any) -> Config:
        objects = [
            {"question": f"q {i}", "steps": [] if i < without else ["a b.", "c."], "answer": "x"}
            for i in range(40)
        ]
        file = tmp_path / f"{without}.json"
        file.write_text(json.dumps(objects))
        data = {"task": "text", "train_file": str(file), "train": 30, "valid": 4, "test": 4}
        whole = configuration.merge(coconut().model_dump(), {"data": data, "method": method})
        whole["data"] = data
        return configuration.build(whole)

    with pytest.raises(ValueError, match="training examples have no steps"):
        assemble(config(20))
    with pytest.raises(ValueError, match="30 of 30 training examples have no steps"):
        assemble(config(40, max_latent_stage=2))
    for unit in ("token", "step"):
        with pytest.raises(ValueError, match=r"has a CoT, so there is nothing to remove; .*no_cot"):
            assemble(config(40, name="stepwise", unit=unit))
    parts = assemble(config(2))
    assert any("have no steps" in remark.message for remark in parts.remarks)


def test_thoughts_that_do_not_fit_the_positions(tmp_path: Path) -> None:
    init = str(FAMILIES["gpt2"](tmp_path, 40))
    with pytest.raises(ValueError, match=re.escape("has 40 positions")):
        assemble(coconut(model__init=init, model__vocab="full", method__thoughts_per_step=20))


@pytest.mark.parametrize(
    ("left", "said"),
    [(1, "a model of .* positions or more is needed"), (2, "lower method.thoughts_per_step")],
)
def test_fewer_thoughts_are_advised_where_they_help(tmp_path: Path, left: int, said: str) -> None:
    longest = int(assemble(tiny_config()).splits["train"].length_N.max())
    init = str(FAMILIES["gpt2"](tmp_path, longest + left))
    with pytest.raises(ValueError, match=f"has {longest + left} positions.*{said}"):
        assemble(coconut(model__init=init, model__vocab="full", method__thoughts_per_step=9))


def test_a_model_that_takes_no_inputs_embeds(made: Callable[..., Made]) -> None:
    own = made()
    plain = own.model.base_model.forward
    own.model.base_model.forward = lambda input_ids: plain(input_ids)
    with pytest.raises(ValueError, match="takes no inputs_embeds"):
        own.method.check(own.model)


def test_a_tokenizer_that_splits_new_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = str(FAMILIES["gpt2"](tmp_path))
    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.add_tokens", lambda *args, **more: 0)
    with pytest.raises(ValueError, match=re.escape(f"splits {tokens.START}")):
        assemble(coconut(model__init=init, model__vocab="full"))


def test_a_cot_checkpoint_of_another_vocabulary(tmp_path: Path) -> None:
    words = vocabulary.build(["a", "b"])
    folder = FAMILIES["gpt2"](tmp_path)
    words.save_pretrained(folder)
    with pytest.raises(ValueError, match=re.escape("its vocabulary lacks '0'")):
        assemble(coconut(model__init=str(folder), model__vocab="task"))


def test_new_tokens_begin_as_an_annotation(tmp_path: Path) -> None:
    folder = FAMILIES["gpt2"](tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(tokens.ANNOTATION)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    row = model.get_input_embeddings().weight[len(tokenizer) - 1]
    for vocab in ("full", "task"):
        parts = assemble(coconut(model__init=str(folder), model__vocab=vocab))
        table = parts.model.get_input_embeddings().weight
        for token in (tokens.START, tokens.END, tokens.LATENT):
            torch.testing.assert_close(table[parts.tokenizer.convert_tokens_to_ids(token)], row)


# A run


def small_prosqa(folder: Path, **overrides: Any) -> Driven:
    """A run of the preset prosqa-small, with less of all that takes time."""
    less = {
        "data.train": 300, "data.valid": 10, "data.test": 10, "model.layers": 1, "model.width": 16,
        "schedule.steps_per_token": 2, "eval.every": 8, "eval.examples": 10, "stop.steps": 8,
    }  # fmt: skip
    return Driven(presets.resolve("prosqa-small", less | overrides), folder)


@pytest.mark.parametrize("vocab", ["task", "full"])
def test_it_begins_with_a_model_that_learnt_its_cot_from_scratch(tmp_path: Path, vocab: str) -> None:
    first = small_prosqa(tmp_path / "cot", **{"method.name": "explicit_cot"})
    end = first.until(RunFinished).checkpoint
    first.run.close()
    exported = tmp_path / "exported"
    export.export(str(tmp_path / "cot"), exported, id=end, out=tmp_path)
    learnt = {"method.start_from": 1, "model.init": str(exported), "model.vocab": vocab}
    second = small_prosqa(tmp_path / "coconut", **learnt)
    assert second.until(StageEntered).text == "1 of 4 steps are thoughts"
    finished = second.until(RunFinished)
    second.run.close()
    assert finished.at.step == 8 and finished.at.stage > 1
    before, after = weights(tmp_path / "cot", end), weights(tmp_path / "coconut", "b1-s000000-stage1")
    assert torch.equal(before["transformer.wpe.weight"], after["transformer.wpe.weight"])


def test_a_stopped_and_resumed_run_ends_like_one_never_stopped(
    driven: Callable[..., Driven], tmp_path: Path
) -> None:
    settings = {
        "data__digits": 3,
        "data__train": 160,
        "method__name": "coconut",
        "method__uniform_prob": 0.3,
        "method__reset_each_epoch": True,
        "schedule__epochs_per_stage": 1.0,
        "stop__steps": 36,
        "eval__every": 36,
        "log__every": 1,
    }
    whole = driven("whole", **settings)
    end = whole.until(RunFinished).checkpoint
    assert [event.text for event in whole.all(StageEntered)] == [
        "0 of 3 steps are thoughts",
        "1 of 3 steps are thoughts",
        "2 of 3 steps are thoughts",
        "all 3 steps are thoughts",
    ]
    first = driven("parts", **settings)
    first.until(Metrics, lambda e: e.at.step >= 17)
    assert first.do("stop").ok
    first.until(RunFinished)
    first.run.close()
    second = driven("parts", resume=True, **settings)
    assert second.until(RunFinished).checkpoint == end
    assert same(weights(tmp_path / "whole", end), weights(tmp_path / "parts", end))

    assert second.do("ask --thoughts 2 12*34").ok
    [answered] = second.all(ChatAnswered)
    assert len(answered.thoughts) == 2
    for thought in answered.thoughts:
        odds = [candidate.probability for candidate in thought.candidates]
        assert odds == sorted(odds, reverse=True)
        assert 0 < sum(odds) <= 1.0001
    assert decode(encode(answered)) == answered
    with pytest.raises(CommandError, match="'many' thoughts"):
        parse("ask --thoughts many 1*1")
    second.run.close()

    exported = tmp_path / "exported"
    caveats = export.export(str(tmp_path / "parts"), exported, id=None, out=tmp_path)
    assert any("fed back" in caveat for caveat in caveats)
    loaded = inspection.open_checkpoint(str(exported), None, tmp_path)
    ours = inspection.ask(loaded, "123*45")
    assert len(ours.thoughts) == 3
    program = re.search("```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert program is not None
    (tmp_path / "ask.py").write_text(program[1])
    question = loaded.parts.task.understand("123*45").question
    done = subprocess.run(
        [sys.executable, tmp_path / "ask.py", exported, question], capture_output=True, text=True, check=True
    )
    assert f"answer: {''.join(reversed(ours.answer))}" in done.stdout.replace(" ", "").replace(
        "answer:", "answer: "
    )
