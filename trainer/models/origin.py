"""What an exported folder knows of the run it came from: two small files beside the model.

    stepwise.toml    the run's configuration (or a preset's): the task, and how the model was taught
    stepwise.json    where the run stood (`Origin`)

With them the folder opens without the run, and without its training data.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainer import config as configuration
from trainer import presets
from trainer.config import Config, ConfigError
from trainer.events import At, Longest

CONFIG_FILE = "stepwise.toml"
ORIGIN_FILE = "stepwise.json"


class OriginError(ValueError):
    """A file of an exported folder that cannot be read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """checkpoint: its id in the run. longest_question (with its EOS), longest_cot: tokens, in the run's
    data. room: new tokens that suffice to answer. longest_steps: of a CoT, in the run's data; folders of
    before do not say. The rest as in `events.At`."""

    checkpoint: str
    step: int
    branch: int
    stage: int
    scheduled: int
    removed: int
    longest_question: int
    longest_cot: int
    room: int
    longest_steps: int = 1


def of(checkpoint: str, at: At, longest: Longest) -> Origin:
    """Of a run's checkpoint."""
    return Origin(
        checkpoint=checkpoint,
        step=at.step,
        branch=at.branch,
        stage=at.stage,
        scheduled=at.scheduled,
        removed=at.removed,
        longest_question=longest.question,
        longest_cot=longest.cot,
        room=longest.room,
        longest_steps=longest.steps,
    )


def write(folder: Path, config: Config, origin: Origin | None) -> None:
    """Write both files, or the configuration alone. Of data files the names, and not where they lie here."""
    config = presets.with_files(config, lambda file: Path(file).name)
    (folder / CONFIG_FILE).write_text(configuration.dumps(config), encoding="utf-8")
    if origin is not None:
        text = json.dumps(asdict(origin), indent=1) + "\n"
        (folder / ORIGIN_FILE).write_text(text, encoding="utf-8")


def read(folder: Path) -> tuple[Config | None, Origin | None]:
    """What is there of both. Raises `OriginError`."""
    if not (folder / CONFIG_FILE).is_file():
        return None, None
    try:
        config = configuration.build(configuration.load(folder / CONFIG_FILE))
    except ConfigError as error:
        raise OriginError(f"{folder / CONFIG_FILE}: {error}") from None
    path = folder / ORIGIN_FILE
    if not path.is_file():
        return config, None
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        values = {"longest_steps": 1, **document}
        values = {f.name: values[f.name] for f in fields(Origin)}
        whole = {name: value for name, value in values.items() if name != "checkpoint"}
        if not all(type(value) is int and value >= 0 for value in whole.values()):
            raise ValueError(f"whole numbers are expected, not {whole}")
        return config, Origin(checkpoint=str(values["checkpoint"]), **whole)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OriginError(f"{path} cannot be read: {error}") from None
