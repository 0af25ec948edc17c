"""Coconut's official code beside ours: loss and gradients of one batch, the time of a step and of an answer.

    git clone https://github.com/facebookresearch/coconut OFFICIAL
    python benchmarks/coconut_official.py --official OFFICIAL --tokenizer GPT2 --data prosqa_valid.json

Both sides compute the same rows from the same weights (random, of GPT-2's shape, with its whole vocabulary):
a batch of ProsQA at `--stage`, in our layout. First without dropout, in fp32: loss, gradients and the tokens
that each side writes are compared. Then with dropout, as in training: forward, backward and AdamW, in turn,
so that a busy machine slows all; and greedy answers of a fixed number of tokens.

The official code runs as it is but for its cache: it hands the keys and values of a pass to the next as a
list of pairs, and current transformers take and give a `Cache` only. `_Cached` stands between: pairs in,
pairs out. Nothing of the checkout is changed.

Exit status 1 where loss or gradients differ by more than the bounds, or a written token does.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config, GPT2Tokenizer

from trainer import methods
from trainer.answering.evaluate import questions
from trainer.computing.compute import Compute, Precision
from trainer.computing.passes import Passes
from trainer.computing.update import Updater
from trainer.config import MethodConfig, OptimConfig
from trainer.data.files import read
from trainer.data.layout import encode_lines, separator_id
from trainer.methods import tokens
from trainer.methods.coconut import Coconut, LatentBatch
from trainer.methods.cross_entropy import IGNORED
from trainer.methods.decode import greedy
from trainer.methods.thinking import Thinker
from trainer.models.model import quicken

BOUND = 1e-5
NEVER = -1
"""No token's id: nothing that is written ends an answer."""
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


class _Cached(nn.Module):
    """A model as the official code knows one: its cache is a list of pairs of tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def forward(self, *, past_key_values: Any = None, **given: Any) -> Any:
        cache = DynamicCache(config=self.model.config)
        for layer, (key, value) in enumerate(past_key_values or ()):
            cache.update(key, value, layer)
        output = self.model(past_key_values=cache, use_cache=True, **given)
        output.past_key_values = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
        return output


def official(path: Path, model: Any, method: Coconut, eos_id: int) -> Any:
    """Their `Coconut` around a model."""
    spec = importlib.util.spec_from_file_location("official_coconut", path / "coconut.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Coconut(_Cached(model), method.thought_id, method.start_id, method.end_id, eos_id)


def given(batch: LatentBatch) -> dict[str, Tensor]:
    """A batch as their collator makes it: a mask of all real tokens, a label for each column."""
    width = batch.input_ids_BT.shape[1]
    mask_BT = torch.ones_like(batch.input_ids_BT) if batch.mask_BT is None else batch.mask_BT
    end_B = mask_BT.argmax(1) + batch.length_B
    labels_BT = torch.full_like(batch.input_ids_BT, IGNORED)
    labels_BT[:, batch.first + 1 :] = batch.labels_BL
    places_BT = torch.arange(width).expand_as(mask_BT)
    positions_BT = places_BT if batch.position_ids_BT is None else batch.position_ids_BT
    return {
        "input_ids": batch.input_ids_BT,
        "attention_mask": mask_BT * (places_BT < end_B[:, None]),
        "labels": labels_BT,
        "position_ids": positions_BT,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stage", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--written", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--asked", type=int, default=8, help="questions that are answered at once")
    options = parser.parse_args()

    config = MethodConfig(name="coconut")
    tokenizer = GPT2Tokenizer.from_pretrained(options.tokenizer)
    tokenizer.add_tokens(tokens.added(config), special_tokens=True)
    examples = encode_lines(read(options.data).lines, tokenizer)
    method = methods.build(config, tokenizer, examples, separator_id(tokenizer))
    assert isinstance(method, Coconut)
    torch.manual_seed(0)
    architecture = GPT2Config(
        vocab_size=len(tokenizer), n_layer=options.layers, n_embd=options.width, n_head=options.width // 64
    )
    model = AutoModelForCausalLM.from_config(architecture)
    ours, theirs = quicken(copy.deepcopy(model)), official(options.official, model, method, NEVER)
    batch = method.rows(examples[: options.batch], options.stage, None)

    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "shape": f"{options.layers} layers, width {options.width}, vocabulary {len(tokenizer):,}",
        "batch": f"{options.batch} rows of {batch.input_ids_BT.shape[1]}, {batch.most} thoughts",
        **parity(method, ours, theirs, model, batch),
    }
    asked = questions(examples[: options.asked])
    result |= answers(method, ours, theirs, asked, options)
    print(json.dumps(result, indent=1), flush=True)
    result["seconds_a_step"] = steps(method, ours, theirs, model, batch, options.rounds)
    text = json.dumps(result, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    agrees = result["loss_differs"] <= BOUND and result["gradient_differs"] <= BOUND
    return 0 if agrees and result["same_tokens"] else 1


def parity(method: Coconut, ours: Any, theirs: Any, model: Any, batch: LatentBatch) -> dict[str, float]:
    """Loss of one batch, and the largest difference of any gradient."""
    ours.eval()
    theirs.eval()
    loss = method.loss(ours, batch).mean
    loss.backward()
    their_loss = theirs(**given(batch)).loss
    their_loss.backward()
    pairs = zip(ours.parameters(), model.parameters(), strict=True)
    apart = max(float((one.grad - other.grad).abs().max()) for one, other in pairs)
    for one in (ours, model):
        one.zero_grad()
    return {"loss": loss.item(), "loss_differs": abs((loss - their_loss).item()), "gradient_differs": apart}


def steps(
    method: Coconut, ours: Any, theirs: Any, model: Any, batch: LatentBatch, rounds: int
) -> dict[str, Any]:
    """Seconds of a training step: the median, and all of them."""
    ours.train()
    theirs.train()
    model.train()
    threads = torch.get_num_threads()
    updater = Updater(ours, OptimConfig(lr=1e-4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

    def their_step() -> None:
        theirs(**given(batch)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    sides: dict[str, Callable[[], Any]] = {"official": their_step}
    for precision in PRECISIONS:
        passes = Passes(method, ours, Compute("eager", precision, threads))
        sides[f"ours, {precision}"] = partial(updater.step, passes, [batch], 1.0)
    return _timed(sides, rounds)


def answers(method: Coconut, ours: Any, theirs: Any, asked: list[list[int]], options: Any) -> dict[str, Any]:
    """Whether both write the same, and the seconds an answer takes, one at a time and many at once."""
    ours.eval()
    theirs.eval()
    assert method.start_id is not None and method.end_id is not None
    thoughts, start = options.stage, method.start_id
    thinker = Thinker(thoughts, method.end_id)

    def our_answers(questions: list[list[int]]) -> list[list[int]]:
        return greedy(
            ours,
            [[*question, start] for question in questions],
            eos_id=NEVER,
            separator_id=NEVER,
            pad_id=method.eos_id,
            max_new_tokens=options.written,
            thinker=thinker,
        ).cot

    def their_answer(question: list[int]) -> list[int]:
        ids = [*question, start, *[method.thought_id] * thoughts, method.end_id]
        with torch.no_grad():
            written = theirs.generate(torch.tensor([ids]), None, max_new_tokens=options.written)
        return written[0, len(ids) :].tolist()

    one = asked[:1]
    same = our_answers(one)[0] == their_answer(one[0])
    sides: dict[str, Callable[[], Any]] = {"official": lambda: their_answer(one[0])}
    for precision in PRECISIONS:

        def timed(questions: list[list[int]], precision: Precision = precision) -> None:
            with Compute("eager", precision, torch.get_num_threads()).answering(ours):
                our_answers(questions)

        sides[f"ours, {precision}"] = partial(timed, one)
        sides[f"ours, {precision}, {len(asked)} at once"] = partial(timed, asked)
    seconds = _timed(sides, options.rounds)
    for side, found in seconds.items():
        if side.endswith("at once"):
            found["median"] /= len(asked)
    return {"same_tokens": same, "seconds_an_answer": seconds}


def _timed(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Each side in turn, so many rounds after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            if number:
                taken[name].append(round(time.perf_counter() - started, 3))
    return {name: {"median": statistics.median(times), "all": times} for name, times in taken.items()}


if __name__ == "__main__":
    sys.exit(main())
