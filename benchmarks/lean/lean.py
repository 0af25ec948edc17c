"""Schedules on a model that trains several times as fast.

    PYTHONPATH=. python benchmarks/lean/lean.py --seeds 0 1 --schedules linear adaptive

The data, their order and offsets, the updates and the schedules are those of a run (`trainer.pacing`);
forward, backward and AdamW are `gpt2.cpp`, which is compiled first. That needs g++ and a CPU with AMX;
gradients are checked against PyTorch's before anything is trained. A run ends as its preset says.
One line of JSON a run; --log tells every removal and evaluation as well.

Tokens are those trained on, padding not counted; those of probes count, too, at a third, as a pass forward
alone costs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adaptive import SCHEDULES
from trainer import presets
from trainer.config import GATED
from trainer.events import At, StageEntered
from trainer.methods.stepwise import remove
from trainer.pacing import gate, schedule
from trainer.pacing.schedule import Progress
from trainer.parts import assemble
from trainer.seeds import Order, generator

FLAGS = ("-O3", "-march=sapphirerapids", "-ffast-math", "-fno-finite-math-only", "-shared", "-fPIC", "-w")
PARAMETERS = (
    *("ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight"),
    *("attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias"),
    *("mlp.c_proj.weight", "mlp.c_proj.bias"),
)


def compiled(folder: str) -> ctypes.CDLL:
    source, library = Path(__file__).with_name("gpt2.cpp"), Path(folder) / "gpt2.so"
    subprocess.run(["g++", *FLAGS, str(source), "-o", str(library)], check=True)
    lib = ctypes.CDLL(str(library))
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    lib.make.argtypes, lib.make.restype = [integer] * 5 + [pointer], pointer
    lib.size.argtypes, lib.size.restype = [pointer], ctypes.c_int64
    for name in ("weights", "gradients"):
        getattr(lib, name).argtypes, getattr(lib, name).restype = [pointer], ctypes.POINTER(real)
    lib.reset.argtypes, lib.reset.restype = [pointer], None
    lib.step.argtypes = [pointer] * 5 + [integer] + [real] * 3 + [integer, pointer]
    lib.step.restype = real
    return lib


class Lean:
    """A preset's run, without a journal, checkpoints or commands."""

    def __init__(self, lib: ctypes.CDLL, preset: str, settings: list[str], seed: int) -> None:
        self.lib = lib
        self.config = config = presets.configure(preset, settings, seed=seed)
        self.parts = parts = assemble(config)
        self.method: Any = parts.method
        self.order = Order(seed, len(parts.splits["train"]), config.optim.batch)
        state = parts.model.base_model.state_dict()
        layers, width = config.model.layers, config.model.width
        names = ["wte.weight", "wpe.weight"]
        names += [f"h.{layer}.{name}" for layer in range(layers) for name in PARAMETERS]
        names += ["ln_f.weight", "ln_f.bias"]
        offsets = np.zeros(len(names), np.int64)
        vocab, positions = len(state["wte.weight"]), len(state["wpe.weight"])
        fits = width == 16 * config.model.heads and width % 32 == 0 and positions <= 64 and 16 < vocab <= 32
        if not fits or config.model.init != "scratch" or config.model.dropout:
            raise SystemExit(
                f"{preset}: this needs a model from scratch without dropout, heads of 16 channels, at most "
                f"64 positions ({positions}) and 17 to 32 symbols ({vocab})"
            )
        most = max(config.optim.batch, config.eval.examples) * positions
        self.model = lib.make(vocab, positions, width, layers, most, offsets.ctypes.data)
        size = lib.size(self.model)
        weights = np.ctypeslib.as_array(lib.weights(self.model), (size,))
        gradients = np.ctypeslib.as_array(lib.gradients(self.model), (size,))
        self.parameters, self.gradients = {}, {}
        for name, at in zip(names, offsets, strict=True):
            shape, count = state[name].shape, state[name].numel()
            self.parameters[name] = weights[at : at + count].reshape(shape)
            self.gradients[name] = gradients[at : at + count].reshape(shape)
            self.parameters[name][:] = state[name].numpy()
        self.scheduled = self.updates = 0

    def enter(self, scheduled: int) -> None:
        """Positions move with the tokens, as in `trainer.methods.stepwise`, and the optimiser is new."""
        by = self.method.removed(scheduled) - self.method.removed(self.scheduled)
        self.scheduled = scheduled
        if self.method.moved_positions is not None:
            rows = self.parameters["wpe.weight"][self.method.moved_positions]
            rows[:] = np.roll(rows, -by, 0)
        if self.method.reset_optimizer:
            self.lib.reset(self.model)
            self.updates = 0

    def step(self, step: int, pretraining: bool) -> int:
        """One update; the tokens it took."""
        chance = generator(self.config.seed, "offset", 1, step)
        rows = self.parts.splits["train"][self.order.batch(1, step)]
        batch = self.method.rows(rows, self.scheduled, chance, pretraining=pretraining)
        rate = self.config.optim.lr * schedule.warm(self.updates, self.config.optim.warmup)
        self._pass(batch, 2, rate)
        self.updates += 1
        return batch.tokens

    def right(self, split: str, count: int) -> float:
        """As `trainer.answering.probe`, and as greedy decoding where no CoT is left."""
        examples = self.parts.splits[split][:count]
        right = 0
        for start in range(0, len(examples), self.config.eval.examples):
            batch = self.method.rows(
                examples[start : start + self.config.eval.examples], self.scheduled, None
            )
            right += int(self._pass(batch, 0)[1].sum())
        return right / len(examples)

    def _pass(self, batch: Any, mode: int, rate: float = 0.0) -> Any:
        ids_BT, length_B = batch.input_ids_BT.numpy(), batch.length_B.numpy()
        labels_BT = np.full(ids_BT.shape, -1)
        labels_BL = batch.labels_BL.numpy()
        labels_BT[:, batch.first : batch.first + labels_BL.shape[1]] = labels_BL
        columns_T = np.arange(ids_BT.shape[1])
        places_BT = np.broadcast_to(columns_T, ids_BT.shape)
        if batch.position_ids_BT is not None:
            places_BT = batch.position_ids_BT.numpy()
        taken_BT = columns_T < length_B[:, None] - 1  # the last token predicts nothing
        flat = [np.ascontiguousarray(x[taken_BT], np.int32) for x in (ids_BT, places_BT, labels_BT)]
        start = np.concatenate([[0], np.cumsum(length_B - 1)]).astype(np.int32)
        right = np.zeros(len(ids_BT), np.int32)
        optim = self.config.optim
        pointers = [x.ctypes.data for x in (*flat, start)]
        loss = self.lib.step(
            self.model, *pointers, len(ids_BT), rate, optim.weight_decay, optim.clip, mode, right.ctypes.data
        )
        return loss, right

    def check(self) -> float:
        """The least cosine between a gradient here and PyTorch's, of a first batch with three tokens gone."""
        rows = self.parts.splits["train"][: self.config.optim.batch]
        batch = remove(rows, torch.full((len(rows),), 3), "left", self.method.eos_id)
        self.method.loss(self.parts.model, batch).mean.backward()
        self._pass(batch, 1)
        cosines = []
        for name, parameter in self.parts.model.base_model.named_parameters():
            theirs, ours = parameter.grad.numpy().ravel(), self.gradients[name].ravel()
            cosines.append(float(theirs @ ours / np.linalg.norm(theirs) / np.linalg.norm(ours)))
        return min(cosines)


def train(lean: Lean, tell: Any) -> dict[str, Any]:
    config, stages = lean.config, lean.method.stages
    wanted = config.schedule
    pace = schedule.pace(wanted, lean.order.steps_per_epoch, stages=stages)
    progress, state = Progress(0, 0), gate.Gate()
    step = tokens = probed = held = 0
    gone = None
    while step < (config.stop.steps or 0) and held < config.stop.patience:
        due = schedule.remove_when_due(progress, pace, held=False, early=state.early(wanted))
        if due.scheduled > progress.scheduled and lean.scheduled < stages:
            why = gate.reason(state, progress.counter, wanted) if wanted.kind in GATED else ""
            tell(removed=due.scheduled, step=step, tokens=tokens, why=why)
            lean.enter(min(due.scheduled, stages))
            state = gate.learn(state, StageEntered(text="", cause="schedule"), wanted)
            gone = step if lean.scheduled == stages else None
        progress = schedule.count(due, pace, step=step, held=False)
        tokens += lean.step(step, step < pace.pretrain)
        step += 1
        if wanted.kind in GATED and step % wanted.probe_every == 0 and lean.scheduled < stages:
            n = wanted.probe_examples
            share = lean.right("valid", n)
            state = gate.learn(
                state, gate.told(state, share, wanted, at=At(step=step), n=n, seconds=0.0), wanted
            )
            probed += n * tokens / step / config.optim.batch / 3
        if step % config.eval.every == 0:
            share = lean.right("valid", config.eval.examples)
            tell(step=step, stage=lean.scheduled, accuracy=round(share, 3), tokens=tokens)
            solved = lean.scheduled == stages and share >= (config.stop.accuracy or 2.0)
            held = held + 1 if solved else 0
    test = round(lean.right("test", config.data.test), 3)
    return {"gone": gone, "steps": step, "tokens": round((tokens + probed) / 1e3), "test": test}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="mult2x2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=["linear", "adaptive"])
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--log", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def tell(**what: Any) -> None:
        if options.log:
            print(json.dumps(what), file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        lib = compiled(folder)
        for seed in options.seeds:
            for name in options.schedules:
                lean = Lean(lib, options.preset, [*SCHEDULES[name], *options.more], seed)
                assert lean.check() > 0.999, "the gradients are not PyTorch's"
                started = time.process_time()
                result = {"schedule": name, "seed": seed, **train(lean, tell)}
                print(json.dumps(result | {"seconds": round(time.process_time() - started)}), flush=True)


if __name__ == "__main__":
    main()
