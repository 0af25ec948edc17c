"""GSM8K from the Hugging Face hub, split as the published files of ICoT-SI are.

The hub has 7,473 training and 1,319 test examples. The published validation file is the first 500 of the
training examples after Python's `random.seed(1234); random.shuffle`, in that order, and the published
training file the other 6,973 in theirs: found by comparing, and so on all lines. (The paper's Table 1 trains
on 378,000, most of them augmented; they are not on the hub, and need `data.train_file`.)
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from trainer import hub
from trainer.data import files
from trainer.data.files import Contents, DataError

DATASET, PART = "openai/gsm8k", "main"
SEED, VALID = 1234, 500


def fetch() -> dict[str, Contents]:
    """The three splits, from the hub or from what was fetched before. Raises `DataError`."""
    reached = hub.answers()
    import datasets  # seconds, and nothing else needs it

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        with contextlib.nullcontext() if reached else hub.only_cached():
            loaded = datasets.load_dataset(DATASET, PART)
    except Exception as error:  # of the hub's client, of datasets or of pyarrow
        reason = str(error).splitlines()[0] if reached and str(error) else "it does not answer"
        raise DataError(
            f"{DATASET} could not be fetched from the Hugging Face hub ({reason}); give a local file of "
            "question||CoT #### answer lines or of GSM8K's own JSON lines (--set data.train_file=PATH), or "
            "the cache of a machine that has fetched it (HF_HOME=PATH)"
        ) from error
    rows = loaded["train"].to_list()
    order = list(range(len(rows)))
    random.Random(SEED).shuffle(order)
    valid, train = order[:VALID], sorted(order[VALID:])
    splits = {
        "train": [rows[i] for i in train],
        "valid": [rows[i] for i in valid],
        "test": loaded["test"].to_list(),
    }
    return {name: files.from_objects(Path(DATASET) / name, objects) for name, objects in splits.items()}
