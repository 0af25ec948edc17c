"""The runs of a sweep as jobs of Slurm, by submitit: submitted, and left to the queue.

What has finished or is in the queue is not submitted again. A job that Slurm ends at its time limit, or takes
its place from, saves and goes back into the queue by itself: submitit asks `Job.checkpoint` then.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepwise_tui.output import block
from stepwise_tui.sweeping import held
from trainer.files import replace_text
from trainer.paths import shortest
from trainer.runs import CONFIG_FILE
from trainer.sweep import LOGS, Member, Sweep, SweepError

JOBS_FILE = "jobs.json"
SAVING_SECONDS = 60
"""Before the limit of a job's time, when it is asked to save and go."""


@dataclass
class Job:
    """A member in a job. Called by submitit, there; unpickled there too, so it needs nothing of here.

    folder: of the run. begin, go_on: the arguments of `stepwise` for a run that there is not, and is.
    """

    folder: str
    begin: list[str]
    go_on: list[str]
    _process: Any = field(default=None, repr=False)

    def __call__(self) -> int:
        """Train to the end; 0. Raises RuntimeError when the run broke, so that Slurm tells it as failed."""
        command = self.go_on if (Path(self.folder) / CONFIG_FILE).is_file() else self.begin
        threads = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stepwise_tui", *command],
            env={"OMP_NUM_THREADS": threads, **os.environ},
            preexec_fn=_deaf,
        )
        self._await()
        code = int(self._process.wait())
        if code:
            raise RuntimeError(f"stepwise {shlex.join(command)} ended with {code}")
        return code

    def checkpoint(self) -> Any:
        """Asked by submitit before the time is over: save, and what to put into the queue again."""
        from submitit.helpers import DelayedSubmission

        self._process.terminate()
        self._await()
        return DelayedSubmission(Job(self.folder, self.begin, self.go_on))

    def _await(self) -> None:
        """Until the run's process has ended. `checkpoint` interrupts this very call, so it takes no lock."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


def _deaf() -> None:
    """Slurm sends each signal to all processes of a job. SIGTERM is for the run; this one is submitit's."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def submit(sweep: Sweep) -> None:
    """Put what has not finished into Slurm's queue. Raises `SweepError`."""
    executor = _executor(sweep)
    from submitit.core.utils import FailedJobError

    with held(sweep):
        jobs = _known(sweep)
        queued = _in_queue()
        due = [m for m in sweep.members if sweep.state(m) != "finished" and jobs.get(m.name) not in queued]
        for member in due:
            executor.update_parameters(job_name=member.name)
            try:
                jobs[member.name] = executor.submit(_job(sweep, member)).job_id
            except FailedJobError as error:
                raise SweepError(f"sbatch did not take {member.name}: {error}") from None
            replace_text(sweep.folder / JOBS_FILE, json.dumps(jobs, indent=1), durable=False)
    finished = sum(sweep.state(member) == "finished" for member in sweep.members)
    waits = len(sweep.members) - finished - len(due)
    block(
        f"{len(due)} submitted, {waits} in the queue already, {finished} finished: {shortest(sweep.folder)}\n"
        "squeue --me shows the queue, plain `stepwise` the runs; the same command submits what was stopped"
    )
    if due:
        block(f"jobs {', '.join(jobs[member.name] for member in due)}")


def _job(sweep: Sweep, member: Member) -> Job:
    return Job(str(sweep.run(member)), sweep.begin(member), sweep.resume(member))


def _executor(sweep: Sweep) -> Any:
    try:
        import submitit
    except ImportError:
        raise SweepError("--on slurm needs submitit: pip install 'stepwise-tui[cluster]'") from None
    if shutil.which("sbatch") is None or shutil.which("squeue") is None:
        raise SweepError(
            "--on slurm: there is no sbatch here; submit from a machine of the cluster, or --on local"
        )
    executor = submitit.SlurmExecutor(sweep.folder / LOGS, python=shlex.quote(sys.executable))
    try:
        executor.update_parameters(signal_delay_s=SAVING_SECONDS, **sweep.slurm)
    except (ValueError, TypeError) as error:
        raise SweepError(f"[slurm]: {error}") from None
    return executor


def _known(sweep: Sweep) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((sweep.folder / JOBS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _in_queue() -> set[str]:
    """Numbers of this user's jobs that wait or run. Raises `SweepError` where Slurm does not answer."""
    user = ["--user", str(os.getuid())]
    asked = subprocess.run(["squeue", *user, "-h", "-o", "%A"], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise SweepError(f"squeue: {asked.stderr.strip() or 'no answer'}")
    return set(asked.stdout.split())
