"""Drives the official code of ICoT-SI (a checkout of da03/Internalize_CoT_Step_by_Step), and writes down
what it computes. Imports nothing of ours, so that an interpreter with other versions can run it.

    python benchmarks/parity/official_driver.py --official CHECKOUT jobs.json recorded.pt

Its own main() runs: its arguments, dataset, collator, removal, schedule, loss and optimiser. The removal
stands inside main() and cannot be called alone, so what goes in and out is caught at run time instead:

    order of the batches   its DataLoader gets a batch sampler with the order of the job
    random offsets         torch.multinomial returns those of the job
    each batch             ImplicitModel.compute_loss is wrapped: ids, labels, position ids, loss
    resets and skips       its prints are read
    left out               evaluate() and save_pretrained(), which train nothing

A job: {"name", "argv", "epochs": row indices [epoch][batch][row], "offsets": [batch][row]}. Each job's
record is a list, one entry a batch: offsets (whether any were drawn), skipped, reset, input_ids, labels,
position_ids, loss, norm.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["TQDM_DISABLE"] = "1"

import torch
import transformers


def load(checkout: Path) -> tuple[Any, list[str]]:
    """Its module `train`, and what had to be put in place for it to run on these versions."""
    shims = []
    if not hasattr(transformers, "AdamW"):
        transformers.AdamW = torch.optim.AdamW
        shims.append("transformers.AdamW (gone; train.py imports it and uses torch's)")
    sys.path.insert(0, str(checkout / "src"))
    train = importlib.import_module("train")
    masking: Any = None
    with contextlib.suppress(ImportError):  # versions of its time have no such module
        masking = importlib.import_module("transformers.masking_utils")
    if hasattr(masking, "find_packed_sequence_indices"):
        _mask_with_positions(train.ImplicitModel)
        shims.append(
            "an attention mask of ones beside position ids (keep_position; without one this transformers "
            "takes position ids that jump for several texts packed into a row)"
        )
    return train, shims


def _mask_with_positions(implicit_model: Any) -> None:
    """Give the base model the mask that older versions of transformers made themselves."""
    build = implicit_model.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        forward = self.base_model.forward

        def masked(input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **more: Any) -> Any:
            if position_ids is not None:
                more.update(position_ids=position_ids, attention_mask=torch.ones_like(input_ids))
            return forward(input_ids=input_ids, **more)

        self.base_model.forward = masked

    implicit_model.__init__ = init


class Recorder:
    """What goes into one run of main(), and what comes out, batch by batch."""

    def __init__(self, train: Any, job: dict[str, Any]) -> None:
        self.job = job
        self.batches: list[dict[str, Any]] = []
        self._loader = train.DataLoader
        self._compute_loss = train.ImplicitModel.compute_loss
        self._clip = torch.nn.utils.clip_grad_norm_
        self._epoch = -1

    # A batch sampler --------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[list[int]]:
        self._epoch += 1
        for indices in self.job["epochs"][self._epoch]:
            self.batches.append({"drawn": False, "skipped": False, "reset": False})
            yield indices

    def __len__(self) -> int:
        return len(self.job["epochs"][0])

    # What stands in for names that main() uses ------------------------------------------------------

    def data_loader(self, dataset: Any, *, shuffle: bool, collate_fn: Any, batch_size: int) -> Any:
        if not shuffle:
            return self._loader(dataset, batch_size=batch_size, collate_fn=collate_fn)
        return self._loader(dataset, batch_sampler=self, collate_fn=collate_fn)

    def multinomial(self, weights: torch.Tensor, number: int, replacement: bool = False) -> torch.Tensor:
        self.batches[-1]["drawn"] = True
        return torch.tensor(self.job["offsets"][len(self.batches) - 1])

    def print(self, *words: Any) -> None:
        text = " ".join(map(str, words))
        if "RESETTING OPTIMIZER" in text:
            self.batches[-1]["reset"] = True
        elif text == "skipped":
            self.batches[-1]["skipped"] = True

    def compute_loss(self, model: Any, input_ids: Any, labels: Any, position_ids: Any = None) -> Any:
        outputs = self._compute_loss(model, input_ids=input_ids, labels=labels, position_ids=position_ids)
        self.batches[-1].update(
            input_ids=input_ids.cpu(),
            labels=labels.cpu(),
            position_ids=None if position_ids is None else position_ids.cpu(),
            loss=outputs.loss.item(),
        )
        return outputs

    def clip(self, parameters: Any, max_norm: float) -> torch.Tensor:
        norm: torch.Tensor = self._clip(parameters, max_norm)
        self.batches[-1]["norm"] = norm.item()
        return norm


def drive(train: Any, job: dict[str, Any]) -> list[dict[str, Any]]:
    """One run of the official main()."""
    recorder = Recorder(train, job)

    def compute_loss(self: Any, **given: Any) -> Any:
        return recorder.compute_loss(self, **given)

    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        patch.object(sys, "argv", ["train.py", *job["argv"], "--save_model", folder]),
        patch.object(train, "DataLoader", recorder.data_loader),
        patch.object(train, "evaluate", lambda *_, **__: (0.0, 0.0, 1.0)),
        patch.object(train, "print", recorder.print, create=True),
        patch.object(train.ImplicitModel, "compute_loss", compute_loss),
        patch.object(train.ImplicitModel, "save_pretrained", lambda *_: None),
        patch.object(torch, "multinomial", recorder.multinomial),
        patch.object(torch.nn.utils, "clip_grad_norm_", recorder.clip),
    ):
        train.main()
    return recorder.batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("recorded", type=Path)
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    train, shims = load(options.official)
    # The distribution of offsets, which the given ones stand in for, is compared by itself.
    distributions = {
        str(smoothing): train.compute_lambda_distribution(smoothing).double()
        for smoothing in (float("inf"), 8.0, 4.0, 1.0, 0.1, 0.01)
    }
    recorded = {}
    for job in json.loads(options.jobs.read_text()):
        builtins.print(f"official: {job['name']}", flush=True)
        recorded[job["name"]] = drive(train, job)
    torch.save(
        {
            "versions": {"torch": str(torch.__version__), "transformers": transformers.__version__},
            "shims": shims,
            "distributions": distributions,
            "jobs": recorded,
        },
        options.recorded,
    )


if __name__ == "__main__":
    main()
