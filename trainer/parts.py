"""What a run trains with, put together from its configuration: task, data, tokenizer, model, method."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from trainer import fitting, memory, methods
from trainer.answering.evaluate import answer_room
from trainer.computing import moments
from trainer.config import Config
from trainer.data import Task, load_task, sources
from trainer.data.files import DataError
from trainer.data.layout import separator_id
from trainer.data.task import Remark
from trainer.events import Longest, Source
from trainer.methods.base import Examples, Method, Model
from trainer.models import adapters
from trainer.models.model import (
    build_model,
    build_tokenizer,
    dtype,
    forget_activations,
    own_memory,
    quicken,
    resolve_device,
)
from trainer.pretrained import read_tokenizer
from trainer.seeds import derive


@dataclass(frozen=True, slots=True)
class Parts:
    """splits: train, valid and test. room: new tokens that suffice to answer. remarks: what a person should
    know of the data. changed: how they are not those that the run began with, "" where they are."""

    device: torch.device
    task: Task
    tokenizer: PreTrainedTokenizerBase
    splits: dict[str, Examples]
    model: Model
    method: Method
    room: int
    remarks: tuple[Remark, ...] = ()
    changed: str = ""

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def longest(self) -> Longest:
        train = self.splits["train"]
        return Longest(
            question=max(int(split.question_N.max()) for split in self.splits.values()),
            cot=int(train.cot_N.max()),
            steps=int(train.steps.max()),
            room=self.room,
        )

    def marks(self) -> dict[str, str]:
        """By what is named, what tells in a few characters whether two processes have the same of it.

        Of a weight it is the sum of its bits, taken as whole numbers where it lies: exact, in any order.
        """
        rows = [getattr(split, f.name) for split in self.splits.values() for f in fields(split)]
        weights = [p.detach().flatten().view(torch.int16).sum() for p in self.model.parameters()]
        return {
            "data": _mark(*(tensor.contiguous().numpy() for tensor in rows if tensor is not None)),
            "tokens": _mark(repr(sorted(self.tokenizer.get_vocab().items())).encode()),
            "weights": _mark(torch.stack(weights).cpu().numpy()),
        }


def _mark(*said: Any) -> str:
    digest = hashlib.sha256()
    for bytes in said:
        digest.update(bytes)
    return digest.hexdigest()


def assemble(
    config: Config,
    saved_model: Path | None = None,
    began_with: Sequence[Source] = (),
    *,
    training: bool = True,
) -> Parts:
    """Everything, with a new model, or with the weights and tokenizer of a checkpoint's `model/`.

    began_with: what the run read when it began, if that is known. training: False for a checkpoint's model
    that is only asked, where adapters are within the weights; to train on, `saved_model` is a run's base.

    Raises ValueError with a sentence when the device, the data or the model cannot be had.
    """
    device = resolve_device(config.device)
    task = load_task(config)
    tokenizer = build_tokenizer(config, task) if saved_model is None else read_tokenizer(str(saved_model), {})
    sizes = {"train": config.data.train, "valid": config.data.valid, "test": config.data.test}
    changed = sources.changed(began_with, task.sources)
    try:
        splits = task.splits(sizes, config.seed, tokenizer)
    except ValueError as error:
        if not changed:
            raise
        raise DataError(f"{changed}: {error}") from None
    method = methods.build(config.method, tokenizer, splits["train"], separator_id(tokenizer))
    remarks = [*task.remarks]
    longest = max(method.positions(split) for split in splits.values())
    room = answer_room(splits["train"])
    if saved_model is None:
        remarks += fitting.check(config, method, splits["train"], tokenizer)
        torch.manual_seed(derive(config.seed, "weights"))
        rows = max(int(split.length_N.max()) for split in splits.values())
        model = build_model(config, tokenizer, longest, lambda text: remarks.append(Remark(text)), rows=rows)
        model.generation_config.max_new_tokens = room
    else:
        model = AutoModelForCausalLM.from_pretrained(saved_model, dtype=dtype(config))
    try:
        method.check(model)
    except ValueError as error:
        raise ValueError(f"model.init = {config.model.init}: {error}") from None
    if config.model.lora_rank and training:
        remarks.append(Remark(adapters.put_in(model, config)))
    if config.compute.activation_checkpointing:
        forget_activations(model)
    if training:
        moments.check(config.optim)
        memory.check(model, config, device)
    if device.type == "cpu":  # elsewhere they are copied anyway
        own_memory(model)
    return Parts(
        device=device,
        task=task,
        tokenizer=tokenizer,
        splits=splits,
        model=quicken(model).to(device).train(),
        method=method,
        room=room,
        remarks=tuple(remarks),
        changed=changed,
    )
