"""What a sweep will cost, and how far it is: one line a finished epoch, or a table on a terminal.

Everything is read from the folders of the jobs, so it is the same for every launcher.
"""

import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table

from fracnet.config.checks import check
from fracnet.config.instantiate import build
from fracnet.training.job_process import LOG
from fracnet.training.sweep_plan import JOB_FILE, SweepPlan, read_record
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted

INTERVAL_SECONDS = 1.0
EPOCH_LINE = re.compile(r"epoch +(\d+)/(\d+)")
DONE = ("finished", "diverged", "pruned")
"""How a job has ended for good: started again it would end so again."""
ENDED = (*DONE, "failed", "interrupted", "not run")


def cost(jobs: Sequence[dict[str, Any]]) -> str:
    """Jobs, epochs and images of a sweep in one line. jobs: the config of each."""
    epochs = [int(job["trainer"]["max_epochs"]) for job in jobs]
    text = f"{counted(len(jobs), 'job')}, at most {counted(sum(epochs), 'epoch')}"
    images = _train_images(jobs)
    if None in images:
        return f"{text} (how many images they see is known once the data are in place)"
    total = sum(n * e for n, e in zip(images, epochs, strict=True) if n is not None)
    return f"{text}, {total:,} training images"


def _train_images(jobs: Sequence[dict[str, Any]]) -> list[int | None]:
    """Images in the train split of each job; None for data that are not in place."""
    known: dict[str, int | None] = {}
    counts = []
    for job in jobs:
        key = repr(job["data"])
        if key not in known:
            try:
                dataset = build(check(job).data.plain(), "data")
                known[key] = int((dataset.manifest().table["split"] == "train").sum())
            except UserError:  # each job says what is missing
                known[key] = None
        n = known[key]
        counts.append(None if n is None else round(n * job["data"].get("fraction", 1)))
    return counts


def duration(seconds: float) -> str:
    """A rough length of time: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class _Job:
    """What has been seen of one job.

    waits: it is to run again, and has not started. read: bytes of its log. epochs: finished ones.
    """

    folder: Path
    waits: bool = False
    read: int = 0
    epochs: int = 0
    line: str = ""
    status: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not run any more."""
        return self.status in ENDED and not self.waits


@dataclass
class Progress:
    """Follows the jobs of a sweep in a thread of its own.

    lines: print what the jobs print of their epochs; jobs in this process print it themselves.
    """

    sweep: Path
    plan: SweepPlan
    lines: bool
    _jobs: dict[int, _Job] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _start: float = field(default_factory=time.monotonic)
    _before: int = 0
    _estimated: int = -1

    def start(self) -> None:
        """Watch until `stop`."""
        self._look()  # what a resumed sweep has already is no news
        self._before = sum(job.epochs for job in self._jobs.values())
        for job in self._jobs.values():
            job.waits = job.status not in DONE
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Show what is new since the last look, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _follow(self) -> None:
        table = self.lines and sys.stdout.isatty()
        with Live(self._table(), refresh_per_second=4) if table else nullcontext() as live:
            last = False
            while not last:
                last = self._stop.wait(INTERVAL_SECONDS)
                news = self._look()
                if live is not None:
                    live.update(self._table())
                    continue
                for text in news:
                    print(text, flush=True)

    def _look(self) -> list[str]:
        """Read what is new; the lines that tell it."""
        news: list[str] = []
        for path in self.sweep.glob(f"*/{JOB_FILE}"):
            record = read_record(path)
            number = record.get("job")
            if isinstance(number, int):
                job = self._jobs.setdefault(number, _Job(path.parent))
                news += self._news(number, job, record)
        ended = sum(job.ended for job in self._jobs.values())
        estimate = self._estimate(ended) if ended > self._estimated else ""
        if estimate and not self._stop.is_set():
            self._estimated = ended
            news.append(f"sweep   {estimate}")
        return news

    def _news(self, number: int, job: _Job, record: Mapping[str, Any]) -> list[str]:
        job.epochs = _epochs(job.folder)
        name, news = f"job {number:<3}", []
        if self.lines:
            for line in self._new_lines(job):
                job.line = line
                news.append(f"{name} {line}")
        status = str(record.get("status"))
        if status != job.status:
            job.status, job.waits = status, False
            if status in ENDED and self.lines:
                reason = record.get("reason")
                news.append(f"{name} {status}{f': {reason}' if reason else ''}")
        return news

    def _new_lines(self, job: _Job) -> list[str]:
        """Lines about epochs that the job has printed since the last look."""
        try:
            with (job.folder / LOG).open("rb") as file:
                file.seek(job.read)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        job.read += len(whole)
        lines = whole.decode(errors="replace").splitlines()
        return [line for line in lines if EPOCH_LINE.match(line)]

    def _estimate(self, ended: int) -> str:
        """How many jobs are done and how long the rest takes; "" until that is clear."""
        done = sum(job.epochs for job in self._jobs.values()) - self._before
        planned = len(self.plan.epochs)
        if done < 2 or ended >= planned > 0:
            return ""
        if not planned:
            return f"{counted(ended, 'job')} done"
        left = sum(self._left(number) for number in range(planned))
        rest = (time.monotonic() - self._start) / done * left
        jobs = f"{ended} of {counted(planned, 'job')} done"
        return f"{jobs}; at most {counted(left, 'epoch')} more, about {duration(rest)}"

    def _left(self, number: int) -> int:
        """Epochs that a job may still need."""
        job = self._jobs.get(number)
        if job is not None and job.ended:
            return 0
        return max(0, self.plan.epochs[number] - (job.epochs if job else 0))

    def _table(self) -> Any:
        table = Table("job", "settings", "status", "last epoch", box=None, pad_edge=False)
        shown = sorted(self._jobs)[-30:]  # a table higher than the terminal cannot be updated
        for number in shown:
            job = self._jobs[number]
            settings = " ".join(self._settings(number))
            table.add_row(str(number), settings, job.status, job.line)
        ended = sum(job.ended for job in self._jobs.values())
        return Group(table, self._estimate(ended))

    def _settings(self, number: int) -> list[str]:
        """The overrides in which the jobs differ."""
        if number >= len(self.plan.jobs):
            return []
        common = set.intersection(*map(set, self.plan.jobs)) if len(self.plan.jobs) > 1 else set()
        return [o for o in self.plan.jobs[number] if o not in common]


def _epochs(folder: Path) -> int:
    """Finished epochs of a job, from its curves."""
    try:
        with (folder / "metrics.csv").open("rb") as file:
            return max(0, sum(line.endswith(b"\n") for line in file) - 1)
    except OSError:
        return 0
