"""Checkpoints: save, verify, load. A checkpoint exists if and only if its manifest verifies.

    checkpoints/<id>/model/                  Hugging Face folder: safetensors, config, tokenizer
                     optimizer.safetensors   AdamW's moments; left out where there are none yet
                     optimizer/              the same, spread over ranks (`trainer.saving.shards`)
                     adapters.safetensors    what is trained, where adapters are (`trainer.models.adapters`)
                     state.json              where the run stood (`TrainState`)
                     manifest.json           size and sha256 of every file; written last

What goes into one is copied out of the run first (`copy`), so that training goes on while it is written. It
is written under a temporary name, synced and renamed: a kill leaves it whole or absent. Ids contain the
branch, since steps repeat: `b1-s000600-stage3`. A run with adapters has its base once, in `base/`, written in
the same way.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from trainer.computing.compute import Compute
from trainer.computing.sharding import spread, whole
from trainer.config import OptimConfig
from trainer.events import SaveCause
from trainer.files import replace_text, share, sync_file, sync_folder
from trainer.methods.base import Model
from trainer.models import adapters
from trainer.record.lineage import CheckpointRef
from trainer.saving import shards as sharded
from trainer.saving.shards import Shards, Spread

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
ADAPTERS = "adapters.safetensors"
BASE = "base"
SPARE = 1_000_000  # bytes that a checkpoint leaves free, besides what its small files take


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class TrainState:
    """Where the run stood: all counters the loop needs to go on, and what `lineage` wants to know.

    stream: number of the random stream that order and offsets come from. counter: batches since the last
    removal. updates: steps of this optimiser. cot_free: whether the last batch had no CoT token left.
    seconds: trained so far. seq: events of the journal that came before. during: id of the command that was
    being carried out, "" for none; its effect is in. accuracy: the last on validation. meter: what was
    measured since the last metrics event. evaluation_owed: whether a stop interrupted the one due here. gate:
    what an adaptive schedule goes by. watch: what the watch has seen and does. compute: how steps are
    computed on this machine.
    """

    step: int
    branch: int
    stage: int
    cause: SaveCause
    stream: int
    scheduled: int
    counter: int
    updates: int
    cot_free: bool
    seconds: float
    seq: int
    during: str
    accuracy: float | None
    meter: list[float]
    evaluation_owed: bool
    gate: dict[str, Any]
    watch: dict[str, Any]
    compute: Compute

    def ref(self, id: str, bytes: int) -> CheckpointRef:
        return CheckpointRef(id, self.branch, self.step, self.stage, self.cause, bytes)


def name(state: TrainState) -> str:
    """The id of a checkpoint."""
    base = f"b{state.branch}-s{state.step:06d}-stage{state.stage}"
    return base if state.cause == "stage" else f"{base}-{state.cause}"


def model_folder(path: Path) -> Path:
    return path / "model"


class Tensors(NamedTuple):
    """Copies in the memory of the CPU. weights: by name, tied ones still one tensor, adapters within.
    moments: by `_moments`'s names. trained: what `adapters.trained` names. spread: moments that ranks
    share."""

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    trained: Mapping[str, Tensor]
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a checkpoint will hold. model: for its configuration only. tokenizer: one that nobody uses
    meanwhile."""

    state: TrainState
    model: Model
    tokenizer: PreTrainedTokenizerBase
    tensors: Tensors

    @property
    def id(self) -> str:
        return name(self.state)

    @property
    def finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(weights.isfinite().all()) for weights in self.tensors.weights.values())

    @property
    def bytes(self) -> int:
        """What the tensors take."""
        *kinds, spread = self.tensors
        tensors = (tensor for kind in kinds for tensor in kind.values())
        whole = sum({t.data_ptr(): t.nbytes for t in tensors}.values())
        return whole + (spread.bytes if spread else 0)


def copied(
    model: Model, optimizer: torch.optim.Optimizer, *, keep: bool = True, shards: Shards | None = None
) -> Tensors:
    """Copy weights and moments, so that the run may change them.

    Where the model is spread, all ranks call it together; keep: whether this one keeps what it copies whole.
    shards: where moments are spread.
    """
    return Tensors(
        _copied(adapters.merged(model), _tied(model), keep),
        {} if shards else _copied(_moments(optimizer), {}, keep),
        _copied(adapters.trained(model).items(), {}, keep),
        shards.copy(_moments(optimizer)) if shards else None,
    )


def write(run: Path, snapshot: Snapshot, before: Callable[[], None] = lambda: None) -> int:
    """Write a checkpoint; its size in bytes. A good one of that id already there is left as it is.

    before: called when everything is on the disk, and before the checkpoint exists.
    Raises OSError, also that of `before`; nothing half-written stays behind.
    """
    id, spread = snapshot.id, snapshot.tensors.spread
    final = run / FOLDER / id
    if final.exists():
        try:
            verify(final)
        except CheckpointError:
            shutil.rmtree(final)
        else:
            sync_folder(final.parent)
            if spread:
                spread.forget()
            return size(final)
    _check_room(run, snapshot.bytes)

    def fill(folder: Path) -> None:
        _save_model(model_folder(folder), snapshot.model, snapshot.tensors.weights, snapshot.tokenizer)
        if snapshot.tensors.moments:
            save_file(dict(snapshot.tensors.moments), folder / OPTIMIZER)
        if snapshot.tensors.trained:
            save_file(dict(snapshot.tensors.trained), folder / ADAPTERS)
        if spread:
            spread.write(folder)
        replace_text(folder / STATE, json.dumps(asdict(snapshot.state), indent=1) + "\n", durable=False)

    _put(final, fill, before)
    if spread:
        spread.forget()
    return size(final)


def base_folder(run: Path) -> Path:
    return run / BASE


def write_base(run: Path, model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write what adapters are put into, before they have been trained. Raises OSError."""
    weights = _copied(adapters.merged(model), _tied(model), keep=True)
    shutil.rmtree(base_folder(run), ignore_errors=True)  # the run was killed before its first checkpoint
    _check_room(run, sum(tensor.nbytes for tensor in weights.values()))
    _put(base_folder(run), lambda folder: _save_model(folder, model, weights, tokenizer), lambda: None)


def _save_model(
    folder: Path, model: Model, weights: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerBase
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, state_dict=dict(weights))
    tokenizer.save_pretrained(folder)


def _put(final: Path, fill: Callable[[Path], None], before: Callable[[], None]) -> None:
    """Let a folder exist with what `fill` writes into it, and its manifest; whole or not at all.

    before: as in `write`. Raises OSError.
    """
    temporary = final.parent / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        share(temporary)
        files = sorted(p for p in temporary.rglob("*") if p.is_file())
        for file in files:
            sync_file(file)
        manifest = {
            str(p.relative_to(temporary)): {"size": p.stat().st_size, "sha256": _sha256(p)} for p in files
        }
        replace_text(temporary / MANIFEST, json.dumps(manifest, indent=1) + "\n", durable=True)
        for folder in {file.parent for file in files}:
            sync_folder(folder)
        before()
        temporary.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise error if isinstance(error, OSError) else OSError(f"{temporary}: {error}") from None
    sync_folder(final.parent)


def _check_room(run: Path, wanted: int) -> None:
    """Fail before the disk is full to the last byte: the journal needs some of it to say so."""
    free = shutil.disk_usage(run).free
    if free < wanted + SPARE:
        reason = f"{os.strerror(errno.ENOSPC)}, {wanted / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} free"
        raise OSError(errno.ENOSPC, reason)


def exists(run: Path, id: str) -> bool:
    """Whether a checkpoint was finished, and nobody has deleted it since."""
    return (run / FOLDER / id / MANIFEST).exists()


def verify(path: Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises `CheckpointError` naming the first file that is missing, changed, or of another size.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        entries = [
            (path / file, int(entry["size"]), str(entry["sha256"])) for file, entry in manifest.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path}: {MANIFEST} is missing or cannot be read; it was never finished"
        ) from None
    for file, size, digest in entries:
        if not file.is_file():
            raise CheckpointError(f"{path}: {file.name} is missing")
        if file.stat().st_size != size or _sha256(file) != digest:
            raise CheckpointError(f"{path}: {file.name} is damaged (it is not what was saved)")


def load_state(path: Path) -> TrainState:
    """The counters of a checkpoint. Raises `CheckpointError`."""
    try:
        document: Any = json.loads((path / STATE).read_text(encoding="utf-8"))
        known = {f.name: document[f.name] for f in fields(TrainState)}
        return TrainState(**known | {"compute": Compute(**known["compute"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: {STATE} cannot be read: {error}") from None


def read_weights(path: Path, model: Model) -> Mapping[str, Tensor]:
    """The saved weights, to be put into `model`.

    Of a model with adapters what is trained; the rest is its base. Raises `CheckpointError` where others, or
    none, are saved.
    """
    own: Mapping[str, Tensor] = adapters.trained(model)
    saved = load_file(path / ADAPTERS) if (path / ADAPTERS).exists() else {}
    if {name: tensor.shape for name, tensor in own.items()} != {n: t.shape for n, t in saved.items()}:
        raise CheckpointError(f"{path}: it was trained with other adapters than model.lora_rank says")
    if own:
        return saved
    whole: dict[str, Tensor] = AutoModelForCausalLM.from_pretrained(model_folder(path)).state_dict()
    return whole


def put_weights(saved: Mapping[str, Tensor], model: Model) -> None:
    """Put what `read_weights` gave into `model`, in place: an optimiser over its parameters stays good.

    Where the model is spread, all ranks call it together.
    """
    with torch.no_grad():
        for name, tensor in (adapters.trained(model) or model.state_dict()).items():
            tensor.copy_(spread(saved[name], tensor))


def check_moments(path: Path, config: OptimConfig) -> None:
    """Raises `CheckpointError` where saved moments are not of the kind that is asked for."""
    names: list[str] = []
    if (path / OPTIMIZER).exists():
        with safe_open(path / OPTIMIZER, "pt") as file:
            names = file.keys()
    elif (path / sharded.FOLDER).exists():
        names = sharded.names(path)
    full = any(name.endswith(".exp_avg") for name in names)  # bitsandbytes has other names
    if names and full != (config.moments == "full"):
        raise CheckpointError(f"{path}: its moments are not of the kind that optim.moments says")


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put the saved moments into a fresh optimiser over the same parameters; without a file, nothing.

    They are of its kind (`check_moments`). Where they are spread, all ranks call it together.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if (path / OPTIMIZER).exists():
        saved = {
            name: spread(value, parameters[int(name.partition(".")[0])]) if value.ndim else value
            for name, value in load_file(path / OPTIMIZER).items()
        }
    elif (path / sharded.FOLDER).exists():
        saved = sharded.read(path, {str(index): parameter for index, parameter in enumerate(parameters)})
    else:
        return
    state: dict[int, dict[str, Tensor | int]] = {}
    for name, value in saved.items():
        index, _, slot = name.partition(".")
        counts = value.dtype == torch.long  # bitsandbytes does in numbers, torch in tensors
        state.setdefault(int(index), {})[slot] = int(value) if counts else value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def list_checkpoints(run: Path) -> list[CheckpointRef]:
    """The checkpoints of a run that were finished, in the order of its story. They are not verified."""
    refs = []
    for path in (run / FOLDER).glob("b*"):
        try:
            written, state = (path / MANIFEST).stat().st_mtime_ns, load_state(path)
        except (OSError, CheckpointError):
            continue
        refs.append(((state.seq, state.branch, state.step, written), state.ref(path.name, size(path))))
    return [ref for _, ref in sorted(refs, key=lambda pair: pair[0])]


def tidy(run: Path) -> None:
    """Take away what a killed process left half-written or half-removed."""
    for path in (run / FOLDER).glob("*"):
        if path.name.startswith(".b") or not (path / MANIFEST).exists():
            shutil.rmtree(path, ignore_errors=True)


def remove(run: Path, ids: Iterable[str]) -> None:
    """Delete checkpoints. Each loses its manifest first: from then on it does not exist.

    One that the disk does not let go is left; it will be found when the run is taken up again.
    """
    for id in ids:
        path = run / FOLDER / id
        with contextlib.suppress(OSError):
            (path / MANIFEST).unlink(missing_ok=True)
            sync_folder(path)
            shutil.rmtree(path)


def _tied(model: Model) -> dict[str, str]:
    """For each name what tells that others are of the same tensor."""
    return {name: str(id(parameter)) for name, parameter in model.named_parameters(remove_duplicate=False)}


def _copied(tensors: Iterable[tuple[str, Tensor]], tied: Mapping[str, str], keep: bool) -> dict[str, Tensor]:
    """Whole copies in the CPU's memory, if kept. tied: what tells that two names are of one tensor."""
    copies: dict[str, Tensor] = {}
    result = {}
    for name, tensor in tensors:
        owner = tied.get(name, name)
        if owner not in copies:
            full = whole(tensor.detach())
            copies[owner] = _on_cpu(full) if keep else torch.empty(0)
        result[name] = copies[owner]
    return result


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)


def _moments(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """By the number of the parameter and the slot's name; numbers as whole tensors."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        for slot, value in optimizer.state.get(parameter, {}).items():
            yield f"{index}.{slot}", value if isinstance(value, Tensor) else torch.tensor(value)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(path: Path) -> int:
    """Of all its files, in bytes."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
