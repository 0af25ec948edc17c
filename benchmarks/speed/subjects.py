"""Who is timed, each in a process of its own: ours, the official code, a plain Hugging Face `Trainer`.

    python benchmarks/speed/subjects.py '{"who": "ours", …}'        prints a `Timed` as JSON

Each trains on the same kind of lines, with the papers' settings (λ = 4, AdamW, 5e-5, gradients clipped to 1),
and is left as a user finds it. The official main() runs unchanged but for what its age asks for
(parity/official_driver.py) and for a clock around its batches; it saves and evaluates nothing meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed.cells import COT_TOKENS, MODELS, Cell, make_lines

WARM_UP = 2
"""Steps that are not counted."""
ENOUGH = 10**9


@dataclass
class Timed:
    """seconds: of each counted step. tokens, width, labels: of a batch: real tokens, its columns, and those
    that predict something. symbols: size of the vocabulary. memory: peak, bytes of the device, or resident.
    """

    seconds: list[float] = field(default_factory=list)
    tokens: float = 0.0
    width: int = 0
    labels: int = 0
    symbols: int = 0
    memory: int = 0
    note: str = ""


def ours(cell: Cell, job: dict[str, Any], folder: Path) -> Timed:
    """A real run: its own choice of everything, its journal, its saves."""
    from trainer import config as configuration
    from trainer.events import Event, Metrics, Notice, RunCrashed
    from trainer.methods.stepwise import Stepwise
    from trainer.run import Run

    layers, heads, width = MODELS[cell.model]
    sizes = {"layers": layers, "heads": heads, "width": width}
    full = cell.vocab == "full"
    lines = folder / "lines.txt"
    lines.write_text("".join(f"{line}\n" for line in job["lines"]), encoding="utf-8")
    data: dict[str, Any] = {"valid": 100, "test": 100}
    if cell.digits is None:
        data.update(task="text", train_file=str(lines))
    else:
        data.update(digits=cell.digits, train=20_000)
    document = {
        "device": job["device"],
        "data": data,
        "model": {"init": job["init"], "vocab": "full"}
        if full
        else {"init": "scratch", "vocab": "task", **sizes},
        "method": {"start_from": cell.removed, "remove_all_beyond": COT_TOKENS[cell.task]},
        "schedule": {"tokens_per_epoch": None, "steps_per_token": ENOUGH},
        "optim": {"batch": cell.batch},
        "eval": {"every": ENOUGH},
        "log": {"every": job["every"]},
        "stop": {"steps": (job["steps"] + WARM_UP) * job["every"], "epochs": float("inf")},
    }
    timed = Timed()
    rows = Stepwise.rows

    def seen(self: Stepwise, *given: Any, **options: Any) -> Any:
        batch = rows(self, *given, **options)
        height, timed.width = batch.input_ids_BT.shape
        if height == cell.batch:
            timed.tokens, timed.labels = float(batch.tokens), batch.labels_BL.shape[1]
        return batch

    events: list[Event] = []
    with patch.object(Stepwise, "rows", seen):
        run = Run(configuration.build(configuration.merge(document, job["settings"])), folder / "run")
        run.start(on_event=events.append)
        run.wait()
        assert run.loop is not None
        timed.symbols = run.loop.rank.model.get_input_embeddings().num_embeddings
        run.close()
    for event in events:
        if isinstance(event, RunCrashed):
            raise RuntimeError(event.traceback)
    metrics = [event for event in events if isinstance(event, Metrics)]
    timed.seconds = [1 / event.steps_per_second for event in metrics[WARM_UP:]]
    timed.note = next(e.message for e in events if isinstance(e, Notice) and "computed in" in e.message)
    return timed


def official(cell: Cell, job: dict[str, Any], folder: Path) -> Timed:
    """The official main(), between one batch and the next."""
    from benchmarks.parity import official_driver

    train, _ = official_driver.load(Path(job["official"]))
    lines = folder / "lines.txt"
    count = (job["steps"] + WARM_UP + 1) * cell.batch
    lines.write_text("".join(f"{line}\n" for line in job["lines"][:count]), encoding="utf-8")
    timed = Timed()
    times: list[float] = []
    compute_loss = train.ImplicitModel.compute_loss

    def clocked(self: Any, input_ids: Any, labels: Any, position_ids: Any = None) -> Any:
        _settle(job["device"])
        times.append(time.perf_counter())
        timed.width = input_ids.shape[1]
        timed.labels = int((labels >= 0).any(0).sum())
        timed.tokens = float((labels >= 0).sum()) + float(
            (labels < 0)[:, : labels.shape[1] - timed.labels].sum()
        )
        return compute_loss(self, input_ids=input_ids, labels=labels, position_ids=position_ids)

    arguments = [
        "train.py", "--model", job["init"], "--train_path", str(lines), "--val_path", str(lines),
        "--epochs", "1", "--lr", "5e-5", "--batch_size", str(cell.batch), "--remove_per_epoch", "0.0001",
        "--remove_start_from", str(cell.removed), "--removal_smoothing_lambda", "4", "--reset_optimizer",
        "--remove_all_when_remove_beyond", str(COT_TOKENS[cell.task]),
        "--save_model", str(folder),
    ]  # fmt: skip
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        patch.object(sys, "argv", arguments),
        patch.object(train, "evaluate", lambda *_, **__: (0.0, 0.0, 1.0)),
        patch.object(train.ImplicitModel, "compute_loss", clocked),
        patch.object(train.ImplicitModel, "save_pretrained", lambda *_: None),
    ):
        train.main()
    timed.seconds = [after - before for before, after in pairwise(times)][WARM_UP:]
    timed.symbols = 50_257
    return timed


def trainer(cell: Cell, job: dict[str, Any], folder: Path) -> Timed:
    """Hugging Face's `Trainer` as its documentation has it, on rows that had their tokens removed before."""
    import torch
    from torch.utils.data import Dataset
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from trainer import config as configuration
    from trainer.data import layout
    from trainer.methods.stepwise import IGNORED, remove
    from trainer.models.model import build_model
    from trainer.parts import load_task
    from trainer.pretrained import read_tokenizer, silence

    silence()
    layers, heads, width = MODELS[cell.model]
    if cell.vocab == "full":
        tokenizer = read_tokenizer(job["init"], {})
        model = AutoModelForCausalLM.from_pretrained(job["init"])
    else:
        sizes = {"layers": layers, "heads": heads, "width": width}
        data = {"digits": cell.digits or 4, "train": 2_000, "valid": 10, "test": 10}
        config = configuration.build({"data": data, "model": {"init": "scratch", "vocab": "task", **sizes}})
        tokenizer = load_task(config).tokenizer()
        model = build_model(config, tokenizer, 1_024)
    parsed = [layout.parse_line(line) for line in job["lines"]]
    examples = layout.encode_lines(parsed, tokenizer)
    removals_N = torch.full((len(examples),), cell.removed if cell.stage != "all" else ENOUGH)
    batch = remove(examples, removals_N, "left", tokenizer.eos_token_id)
    labels_NT = torch.full_like(batch.input_ids_BT, IGNORED)
    labels_NT[:, batch.first + 1 :] = batch.labels_BL

    class Rows(Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return len(examples)

        def __getitem__(self, i: int) -> dict[str, Any]:
            length = int(batch.length_B[i])
            return {"input_ids": batch.input_ids_BT[i, :length], "labels": labels_NT[i, :length]}

    timed = Timed(symbols=model.get_input_embeddings().num_embeddings)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        def pad(name: str, value: int) -> Any:
            return torch.nn.utils.rnn.pad_sequence([r[name] for r in rows], True, value)

        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        inputs = {"input_ids": pad("input_ids", tokenizer.eos_token_id), "labels": pad("labels", IGNORED)}
        timed.tokens, timed.width = float(lengths.sum()), int(lengths.max())
        timed.labels = int((inputs["labels"] >= 0).any(0).sum())
        mask = torch.arange(timed.width) < lengths[:, None]
        return {**inputs, "attention_mask": mask.long()}

    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            _settle(job["device"])
            times.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=cell.batch, learning_rate=5e-5,
        lr_scheduler_type="constant", max_steps=job["steps"] + WARM_UP + 1, save_strategy="no",
        logging_steps=10, report_to="none", disable_tqdm=True, bf16=job["device"] == "cuda",
        use_cpu=job["device"] == "cpu",
    )  # fmt: skip
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        Trainer(
            model=model, args=arguments, train_dataset=Rows(), data_collator=collate, callbacks=[Clock()]
        ).train()
    timed.seconds = [after - before for before, after in pairwise(times)][WARM_UP:]
    return timed


def _settle(device: str) -> None:
    """A clock on the host must not run ahead of the device."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


WHO = {"ours": ours, "official": official, "trainer": trainer}


def main() -> None:
    job = json.loads(sys.argv[1])
    cell = Cell(**job["cell"])
    steps = job["steps"] + WARM_UP + 2
    gsm8k = Path(job["gsm8k"]) if job["gsm8k"] else None
    job["lines"] = make_lines(cell.task, max(500, steps * cell.batch), gsm8k)
    with tempfile.TemporaryDirectory() as folder:
        timed = WHO[job["who"]](cell, job, Path(folder))
    if job["device"] == "cuda":
        import torch

        timed.memory = torch.cuda.max_memory_allocated()
    else:
        timed.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(asdict(timed)))


if __name__ == "__main__":
    main()
