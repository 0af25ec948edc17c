"""What the official code of ICoT-SI computes beside what we compute: rows, labels, positions, loss, training.

    git clone https://github.com/da03/Internalize_CoT_Step_by_Step OFFICIAL
    python benchmarks/parity_official.py --official OFFICIAL --tokenizer GPT2_TOKENIZER --data PUBLISHED

Both sides really run from one folder with a tiny random model: ours as a `Run`, theirs as its own main()
(parity/official_driver.py), on the same lines, in the same order, with the same random offsets. Each batch
that either hands to its model is caught and compared. `model.vocab` is "full", dropout is off, all is fp32.

Exit status 1 when a bound is broken. The result goes to parity.md and parity.json in --out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers
from torch import Tensor
from transformers import AutoTokenizer

from benchmarks.parity import sides
from benchmarks.parity.cases import Case, make_cases, make_lines, make_models
from benchmarks.parity.sides import Step
from trainer.methods.stepwise import IGNORED
from trainer.pacing.schedule import offset_distribution

LOSS_BOUND = 1e-5  # of a batch, same weights
CURVE_BOUND = 1e-4  # of each of 100 steps from one initialisation
WEIGHT_BOUND = 1e-6  # of a probability


@dataclass
class Outcome:
    """What a case showed. ids, labels, positions, skips, resets: batches where the sides differ; loss, norm:
    the largest difference. clipped: updates whose gradient norm was cut."""

    case: str
    bound: float
    batches: int = 0
    rows: int = 0
    scheduled: int = 0
    longest_cot: int = 0
    skipped: int = 0
    reset: int = 0
    their_reset: int = 0
    clipped: int = 0
    updates: int = 0
    ids: int = 0
    labels: int = 0
    positions: int = 0
    skips: int = 0
    resets: int = 0
    norms: int = 0
    loss: float = 0.0
    norm: float = 0.0
    first_loss: float | None = None
    last_loss: float | None = None
    control: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        if self.control:
            return not self.ids and not self.labels and not self.problems and self.loss > self.bound
        differing = (self.ids, self.labels, self.positions, self.skips, self.resets, self.norms)
        return not any(differing) and not self.problems and self.loss <= self.bound


def compare(case: Case, ours: list[Step], theirs: list[Step], eos_id: int) -> Outcome:
    """Batch by batch. What a batch of one side has beyond the other's width must be padding."""
    bound = CURVE_BOUND if case.trained else LOSS_BOUND
    outcome = Outcome(case.name, bound, control=case.control)
    if len(ours) != len(theirs):
        outcome.problems.append(f"{len(ours)} batches of ours, {len(theirs)} of theirs")
    for our, their in zip(ours, theirs, strict=False):
        outcome.batches += 1
        outcome.scheduled = max(outcome.scheduled, our.scheduled)
        outcome.skipped += their.loss is None
        outcome.reset += our.reset
        outcome.their_reset += their.reset
        outcome.updates += our.norm is not None
        outcome.clipped += our.norm is not None and our.norm > 1.0
        outcome.skips += (our.loss is None) != (their.loss is None)
        # The official optimiser is reset on the right once at most (DIFFERENCES); ours is told not to.
        outcome.resets += case.side == "left" and our.reset != their.reset
        outcome.norms += (our.norm is None) != (their.norm is None)
        if our.norm is not None and their.norm is not None:
            outcome.norm = max(outcome.norm, _distance(our.norm, their.norm) / max(1.0, their.norm))
        if our.loss is None or their.loss is None:
            continue
        outcome.loss = max(outcome.loss, _distance(our.loss, their.loss))
        outcome.first_loss = their.loss if outcome.first_loss is None else outcome.first_loss
        outcome.last_loss = their.loss
        outcome.rows += len(_given(our.ids_BT))
        outcome.ids += not _same(_given(our.ids_BT), _given(their.ids_BT), eos_id)
        outcome.labels += not _same(_given(our.labels_BT), _given(their.labels_BT), IGNORED)
        outcome.positions += not _same_positions(our, their)
    return outcome


def _same(a_BT: Tensor, b_BT: Tensor, padding: int) -> bool:
    width = min(a_BT.shape[1], b_BT.shape[1])
    padded = all(bool((more[:, width:] == padding).all()) for more in (a_BT, b_BT))
    return padded and torch.equal(a_BT[:, :width], b_BT[:, :width])


def _same_positions(our: Step, their: Step) -> bool:
    """Of every token but padding; a row ends with a label, so the last label tells how long it is."""
    labels_BT = _given(their.labels_BT)
    column_T = torch.arange(labels_BT.shape[1])
    length_B1 = torch.where(labels_BT != IGNORED, column_T, -1).max(1, keepdim=True).values + 1
    width = int(length_B1.max())
    ours_BT, theirs_BT = (
        column_T.expand_as(labels_BT) if step.positions_BT is None else step.positions_BT
        for step in (our, their)
    )
    if ours_BT.shape[1] < width:
        return False
    real_BT = column_T[:width] < length_B1
    return torch.equal(ours_BT[:, :width] * real_BT, theirs_BT[:, :width] * real_BT)


def _given(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _distance(a: float, b: float) -> float:
    return abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf


def compare_distributions(theirs: dict[str, Tensor]) -> Outcome:
    """Of the offsets, which the comparison gives and does not draw."""
    outcome = Outcome(f"probabilities of the offsets, λ = {', '.join(theirs)}", WEIGHT_BOUND)
    for smoothing, weights in theirs.items():
        ours = torch.tensor(offset_distribution(float(smoothing)), dtype=torch.float64)
        if ours.shape == weights.shape:
            outcome.loss = max(outcome.loss, float((ours - weights).abs().max()))
        else:
            outcome.problems.append(f"λ = {smoothing}: {len(ours)} offsets, theirs {len(weights)}")
    return outcome


# The report ----------------------------------------------------------------------------------------------

COLUMNS = (
    "batches",
    "rows",
    "removals",
    "longest CoT",
    "skipped",
    "resets",
    "clipped",
    "differ",
    "loss, first and last",
    "loss differs by",
)


def table(outcomes: list[Outcome]) -> str:
    """Markdown, one line a case."""
    lines = [f"| case | {' | '.join(COLUMNS)} | |", "|---" * (len(COLUMNS) + 2) + "|"]
    for o in outcomes:
        differ = o.ids + o.labels + o.positions + o.skips + o.resets + o.norms
        loss = "–" if o.first_loss is None else f"{o.first_loss:.3f}, {o.last_loss:.3f}"
        told = (o.batches, o.rows, o.scheduled, o.longest_cot, o.skipped, o.reset, o.clipped, differ, loss)
        by = f"{o.loss:.1e} ({'>' if o.control else '≤'} {o.bound:.0e})"
        verdict = ("differs, as it must" if o.control else "same") if o.passed else "**BROKEN**"
        lines.append(f"| {o.case} | {' | '.join(map(str, (*told, by)))} | {verdict} |")
    return "\n".join(lines)


def report(outcomes: list[Outcome], about: dict[str, Any]) -> str:
    broken = [outcome for outcome in outcomes if not outcome.passed]
    verdict = (
        f"{len(broken)} of {len(outcomes)} cases differ" if broken else f"All {len(outcomes)} cases agree"
    )
    swept = [outcome for outcome in outcomes if outcome.bound == LOSS_BOUND]
    trained = [outcome for outcome in outcomes if outcome.bound == CURVE_BOUND]
    return f"""\
# Parity with the official code

`{about["command"]}`

{about["date"]}, {about["machine"]}, {about["cores"]} cores, {about["seconds"]:.0f} s. Official code at
{about["official"]}, with {_versions(about["theirs"])}; ours with {_versions(about["ours"])}.
{verdict}: {sum(o.batches for o in outcomes):,} batches, {sum(o.rows for o in outcomes):,} rows.

{(Path(__file__).parent / "parity" / "explained.md").read_text()}
## Put in place at run time, so that the official code runs
{"".join(f"- {shim}{chr(10)}" for shim in about["shims"]) or "Nothing." + chr(10)}
## Every stage, the same weights
{table(swept)}

## 100 steps of training from one initialisation
{table(trained)}

## Offsets
{table([outcome for outcome in outcomes if outcome.bound == WEIGHT_BOUND])}
"""


def _versions(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="a checkout of the official repository")
    parser.add_argument(
        "--tokenizer", type=Path, help="GPT-2's vocab.json and merges.txt; without: a small byte-level BPE"
    )
    parser.add_argument(
        "--data", type=Path, help="mult/valid-4x4.txt and gsm8k/valid.txt; without: lines made here"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="an interpreter for theirs, say with older transformers"
    )
    parser.add_argument("--only", default="", help="only cases whose name has this")
    parser.add_argument("--out", type=Path, help="folder for parity.md and parity.json")
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        folder = Path(name)
        models = make_models(folder, options.tokenizer)
        files = make_lines(folder, models, options.data)
        cases = [case for case in make_cases(files) if options.only in case.name]
        ours, jobs = [], []
        for number, case in enumerate(cases):
            print(f"ours: {case.name}", flush=True)
            lines, init = files[case.lines], models[case.model]
            steps, indices = sides.run_ours(case, lines, init, folder / "runs" / str(number))
            ours.append(steps)
            jobs.append(sides.make_job(case, lines, init, indices))
        theirs = sides.run_theirs(options.python, options.official, jobs, folder)
        outcomes = []
        for case, steps in zip(cases, ours, strict=True):
            eos_id = AutoTokenizer.from_pretrained(models[case.model]).eos_token_id
            outcome = compare(case, steps, sides.their_steps(case, theirs["jobs"][case.name]), eos_id)
            outcome.longest_cot = files[case.lines].longest_cot
            outcomes.append(outcome)
    outcomes.append(compare_distributions(theirs["distributions"]))
    about = {
        "command": shlex.join(["python", "benchmarks/parity_official.py", *map(_last_part, sys.argv[1:])]),
        "date": str(datetime.date.today()),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "seconds": time.monotonic() - started,
        "official": _commit(options.official),
        "ours": {"torch": str(torch.__version__), "transformers": transformers.__version__},
        "theirs": theirs["versions"],
        "shims": theirs["shims"],
    }
    print(table(outcomes))
    for outcome in outcomes:
        if not outcome.passed:
            print(f"{outcome.case}: {asdict(outcome)}", file=sys.stderr)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        cases_told = [asdict(o) | {"passed": o.passed} for o in outcomes]
        (options.out / "parity.json").write_text(json.dumps({**about, "cases": cases_told}, indent=1) + "\n")
        (options.out / "parity.md").write_text(report(outcomes, about))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _last_part(argument: str) -> str:
    """A path as anyone may read it."""
    return Path(argument).name if os.sep in argument else argument


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h of %cs"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
