"""The variants of stepwise internalisation: what they train on is what they are asked with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import small_pretrained
from tests.tiny import tiny_config
from trainer.computing.compute import Compute
from trainer.computing.passes import Passes
from trainer.computing.update import Updater
from trainer.config import ConfigError
from trainer.events import Evaluated, Metrics, StageEntered
from trainer.fitting import FittingError, kept_batches
from trainer.methods import tokens
from trainer.methods.stepwise import IGNORED
from trainer.parts import Parts, assemble
from trainer.record.journal import read
from trainer.run import Run
from trainer.seeds import Order

COT = 9  # tokens of a 2×2 CoT, its last blank among them
QUESTION = 7


def parts_of(**changes: Any) -> Parts:
    return assemble(tiny_config(model__dropout=0.0, method__smoothing=float("inf"), **changes))


class Recorder:
    """In a model's place: says what it was given, and never writes an EOS."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.device = torch.device("cpu")
        self.training = False
        self.config = SimpleNamespace(max_position_embeddings=64)

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...

    def __call__(self, *, input_ids: torch.Tensor, position_ids: torch.Tensor, **_: Any) -> Any:
        self.ids += input_ids[0].tolist()
        self.positions += position_ids[0].tolist()
        return SimpleNamespace(logits=torch.eye(20)[torch.full((1, 1), 3)])


def asked(
    parts: Parts, scheduled: int, *, explicit: bool = False, monkeypatch: pytest.MonkeyPatch
) -> Recorder:
    monkeypatch.setattr("trainer.methods.decode.DynamicCache", lambda config: None)
    model, example = Recorder(), parts.splits["valid"][:1]
    question = example.ids_NT[0, :QUESTION].tolist()
    parts.method.generate(model, [question], scheduled, max_new_tokens=12, explicit=explicit)
    return model


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("scheduled", [0, 1, 5, COT, COT + 3])
def test_kept_positions_are_the_same_in_training_and_in_decoding(
    side: str, scheduled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(method__keep_positions=True, method__side=side)
    trained = parts.method.rows(parts.splits["valid"][:1], scheduled, None)
    assert trained.position_ids_BT is not None
    wanted = trained.position_ids_BT[0].tolist()
    used = asked(parts, scheduled, monkeypatch=monkeypatch).positions
    n = min(len(used), len(wanted))
    assert n > QUESTION + 3
    assert used[:n] == wanted[:n]
    # The last token stands where it stood before anything was removed.
    assert wanted[-1] == int(parts.splits["valid"].length_N[0]) - 1


def test_kept_positions_need_cots_of_one_length() -> None:
    parts = parts_of()
    train = parts.splits["train"]
    uneven = type(train)(train.ids_NT, train.question_N, train.cot_N.clone(), train.length_N)
    uneven.cot_N[0] = 3
    with pytest.raises(ValueError, match=r"keep_positions needs CoTs of one length.*3 to 9"):
        type(parts.method)(
            tiny_config(method__keep_positions=True).method, parts.tokenizer, uneven, separator_id=14
        )


@pytest.mark.parametrize("scheduled", [0, 1, 5, COT])
def test_fillers_stand_where_tokens_were_and_are_given_not_learnt(
    scheduled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(method__fillers=True)
    filler = parts.tokenizer.get_vocab()[tokens.FILLER]
    example = parts.splits["valid"][:1]
    batch = parts.method.rows(example, scheduled, None)
    row, before = batch.input_ids_BT[0], example.ids_NT[0].long()
    gone = slice(QUESTION, QUESTION + scheduled)
    assert row[gone].tolist() == [filler] * scheduled
    kept = torch.ones(len(row), dtype=torch.bool)
    kept[gone] = False
    assert torch.equal(row[kept], before[kept])
    labels = batch.labels_BL[0][batch.labels_BL[0] != IGNORED]
    assert labels.tolist() == before[QUESTION + scheduled :].tolist()
    prompt = asked(parts, scheduled, monkeypatch=monkeypatch).ids
    assert prompt[: QUESTION + scheduled] == row[: QUESTION + scheduled].tolist()


def test_a_short_cot_gets_as_many_fillers_as_a_long_one() -> None:
    """While decoding nobody knows how long the CoT would have been."""
    parts = parts_of(method__fillers=True)
    example = parts.splits["valid"][:1]
    short = type(example)(
        torch.cat([example.ids_NT[:, :QUESTION], example.ids_NT[:, QUESTION + 4 :]], dim=1),
        example.question_N,
        example.cot_N - 4,
        example.length_N - 4,
    )
    for scheduled in range(COT + 1):
        row = parts.method.rows(short, scheduled, None).input_ids_BT[0].tolist()
        assert row.count(parts.tokenizer.get_vocab()[tokens.FILLER]) == scheduled
        assert len(row) <= parts.method.positions(short)


def test_one_model_for_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(method__explicit_share=0.5)
    vocabulary = parts.tokenizer.get_vocab()
    direct, explicit = vocabulary[tokens.DIRECT], vocabulary[tokens.EXPLICIT]
    examples = parts.splits["train"][:64]
    batch = parts.method.rows(examples, COT, torch.Generator().manual_seed(0))
    marks = batch.input_ids_BT[:, QUESTION - 1].tolist()
    assert set(marks) == {direct, explicit}
    for row, mark, whole in zip(batch.input_ids_BT.tolist(), marks, examples.ids_NT.tolist(), strict=True):
        rest = whole[QUESTION - 1 :] if mark == explicit else [16, *whole[QUESTION + COT :]]
        assert row[: QUESTION - 1] == whole[: QUESTION - 1]
        assert row[QUESTION : QUESTION + len(rest)] == rest
    for way, mark in ((False, direct), (True, explicit)):
        prompt = asked(parts, COT, explicit=way, monkeypatch=monkeypatch).ids
        assert prompt[QUESTION - 1 : QUESTION + 1] == [mark, 16]


def test_partial_internalisation_ends_where_it_is_told() -> None:
    method = parts_of(method__stop_at=4).method
    assert method.stages == 4
    assert [method.removed(s) for s in (0, 3, 4, 50)] == [0, 3, 4, 4]
    assert method.describe(4) == "4 of 9 CoT tokens removed"


def test_beyond_a_number_all_goes_at_once() -> None:
    method = parts_of(method__remove_all_beyond=3).method
    assert method.stages == 3
    assert [method.removed(s) for s in (0, 2, 3, 50)] == [0, 2, 9, 9]
    assert method.describe(3) == "all 9 CoT tokens removed"


def run_of(folder: Path, **changes: Any) -> list[Any]:
    run = Run(tiny_config(**changes), folder)
    run.start()
    assert run.wait(120)
    run.close()
    assert run.state == "finished"
    return list(read(folder))


def test_a_run_begins_at_the_stage_it_is_told(tmp_path: Path) -> None:
    events = run_of(tmp_path / "run", method__start_from=6, stop__steps=20)
    stages = [e.at.stage for e in events if isinstance(e, StageEntered)]
    assert stages == [6, 7, 8]


def test_parts_of_a_batch_give_the_gradient_of_the_whole() -> None:
    """All rows have as many labels here, so the mean of the parts' means is the mean of all."""
    weights = []
    for accumulate in (1, 4):
        config = tiny_config(optim__accumulate=accumulate)
        parts = parts_of()
        updater = Updater(parts.model, config.optim)
        rows = parts.splits["train"][:16]
        chunks = [
            parts.method.rows(rows[i : i + 16 // accumulate], 2, None) for i in range(0, 16, 16 // accumulate)
        ]
        for _ in range(3):
            applied = updater.step(Passes(parts.method, parts.model, Compute()), chunks, 1 / len(chunks))
        assert bool(applied.finite)
        weights.append(torch.cat([p.detach().flatten() for p in parts.model.parameters()]))
    assert torch.allclose(*weights, atol=1e-5)


def test_batches_that_are_too_long_are_left_out_and_counted(tmp_path: Path) -> None:
    """One row in five is three tokens too long until three are gone; the schedule counts all the same."""
    changes = {
        **text_of(tmp_path, 400, lambda i: "and 1 and 1" if i % 5 == 0 else "and"),
        "data__max_len_train": 12,
        "schedule__pretrain_steps": 0,
    }
    parts = parts_of(**changes)
    length_N, cot_N = parts.splits["train"].length_N, parts.splits["train"].cot_N
    assert set(length_N.tolist()) == {12, 15}
    order = Order(0, len(length_N), 16)
    wanted = [
        bool((length_N[rows] - cot_N[rows].clamp(max=step // 5) > 12).any())
        for step, rows in ((step, order.batch(1, step)) for step in range(60))
    ]
    assert 12 < sum(wanted) <= 15
    unsmoothed = {"method__smoothing": float("inf")}
    metrics = [
        e for e in run_of(tmp_path / "run", **changes, **unsmoothed, log__every=1) if isinstance(e, Metrics)
    ]
    assert [e.left_out for e in metrics] == wanted
    assert [e.steps for e in metrics] == [not left_out for left_out in wanted]
    assert all(e.loss > 0 for e in metrics if e.steps)


def text_of(folder: Path, n: int, cot: Callable[[int], str]) -> dict[str, Any]:
    """The settings of a text task of n examples with these CoTs, all else being equally long."""
    file = folder / "examples.txt"
    file.write_text("".join(f"{i % 20} plus {i // 20}||{cot(i)} #### {i % 7}\n" for i in range(n)))
    return {"data__task": "text", "data__train_file": str(file), "data__valid": 8, "data__test": 8}


def test_a_run_without_a_batch_that_fits_does_not_begin(tmp_path: Path) -> None:
    text = text_of(tmp_path, 200, lambda i: "and 1 and 1" if i % 2 else "and")
    with pytest.raises(FittingError, match=r"0 of 184 training examples fit; they have 12 to 15 .*=none"):
        parts_of(**text, data__max_len_train=10)
    with pytest.raises(FittingError, match=r"of 184 training examples fit; .* leaves out the 16 of its"):
        parts_of(**text, data__max_len_train=13)
    assert parts_of(**text, data__max_len_train=13, method__name="no_cot").remarks == parts_of(**text).remarks


def test_a_run_without_most_of_its_batches_says_so(tmp_path: Path) -> None:
    text = text_of(tmp_path, 400, lambda i: "and 1 and 1" if i % 10 == 0 else "and")
    [*_, remark] = parts_of(**text, data__max_len_train=12).remarks
    assert remark.level == "warning" and "so that 8" in remark.message, remark.message  # 1 − .9¹⁶ = .81
    parts = parts_of(**text, data__max_len_train=12, optim__accumulate=4)
    assert "of 384" not in parts.remarks[-1].message  # 1 − .9⁴ = .34, and that is not most


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 10))
def test_kept_batches_are_those_that_drawing_gives(examples: int, fit: int, rows: int) -> None:
    fit, rows = min(fit, examples), min(rows, examples)
    ways = math.comb(fit, rows) / math.comb(examples, rows)
    assert math.isclose(kept_batches(examples, fit, rows), ways, abs_tol=1e-12)


def test_removals_beyond_the_longest_cot() -> None:
    with pytest.raises(FittingError, match=r"stop_at = 10: the longest CoT here has 9 tokens.*=none"):
        parts_of(method__stop_at=10)
    assert parts_of(method__stop_at=9, method__start_from=9).remarks == ()
    parts = parts_of(method__start_from=1_000)
    assert (parts.method.start, parts.method.removed(parts.method.start)) == (9, 9)
    assert [r.message for r in parts.remarks] == [
        "method.start_from = 1000: it begins at the last stage, all 9 CoT tokens removed"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"method__keep_positions": True, "method__side": "right"},
        {"method__fillers": True},
        {"method__explicit_share": 0.3},
        {"method__explicit_share": 0.3, "method__keep_positions": True},
        {"method__explicit_share": 0.3, "method__fillers": True},
        {"method__smoothing": float("inf"), "method__reset_optimizer": False},
        {"schedule__kind": "geometric", "optim__accumulate": 2},
        {"schedule__kind": "table", "schedule__steps": (2, 9, 1)},
        {"model__dtype": "bfloat16"},
        {"method__name": "no_cot", "method__fillers": True},
    ],
)
def test_every_variant_trains_evaluates_and_comes_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    events = run_of(tmp_path / "run", **changes, stop__steps=30)
    evaluations = [e for e in events if isinstance(e, Evaluated)]
    assert [e.split for e in evaluations].count("test") == 1
    again = Run(tiny_config(**changes, stop__steps=30), tmp_path / "run", resume=True)
    again.start()
    assert again.wait(60)
    again.close()
    assert again.state == "finished"


@pytest.mark.parametrize(
    "changes",
    [
        {"method__fillers": True, "method__side": "right"},
        {"method__move_positions": True, "method__keep_positions": True},
        {"method__stop_at": 3, "method__remove_all_beyond": 5},
        {"method__stop_at": 3, "method__start_from": 4},
        {"optim__accumulate": 3},
        {"schedule__kind": "table"},
        {"schedule__steps": (3,)},
    ],
)
def test_what_cannot_go_together_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        tiny_config(**changes)


def test_a_model_that_is_lengthened_says_so(tmp_path: Path) -> None:
    short = small_pretrained.gpt2(tmp_path / "short", positions=16)
    [told] = parts_of(model__init=str(short), model__vocab="full").remarks
    assert told.level == "warning" and "has 16 positions, and the longest example takes " in told.message
    long = small_pretrained.gpt2(tmp_path / "long", positions=64)
    assert parts_of(model__init=str(long), model__vocab="full").remarks == ()
