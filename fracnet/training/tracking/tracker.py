"""A run as W&B gets to know it: started, told of each epoch and of the results, closed."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from fracnet.config import Config
from fracnet.data.datamodule import RadiographData
from fracnet.training.run_folder import RunFolder
from fracnet.training.tracking import results
from fracnet.training.tracking.client import Client
from fracnet.training.tracking.opening import Identity, opening
from fracnet.training.tracking.worker import last_epoch

EXIT_CODES = {"finished": 0, "interrupted": 130}  # any other way to end: 1
GRACE = 2.0  # seconds beyond wandb's own limit before its process is killed


class Tracker:
    """Passes a run on to W&B, from the first of its processes and unless the mode is `disabled`.

    Nothing here raises for the sake of W&B, and nothing waits for it but `finish`.
    """

    def __init__(self, config: Config, plain: Mapping[str, Any], folder: RunFolder) -> None:
        self._mode = config.logger.mode
        self._client: Client | None = None
        self._folder = folder
        self._timeout = config.logger.timeout
        self._opened: dict[str, Any] = {}
        self._warned = False
        self._pictures = False
        if self._mode == "disabled" or getattr(rank_zero_only, "rank", 0) != 0:
            return
        wanted = config.logger.images
        self._images = self._mode == "offline" if wanted is None else wanted
        identity = Identity.of(folder)
        self._salt, self._in_sweep = identity.salt, identity.in_sweep
        # Contract: in a sweep the test figures of all jobs are shown only to those who ask.
        hidden = identity.in_sweep and config.show_test != "all"
        self._splits = ("val",) if hidden else ("val", "test")
        self._told = last_epoch(folder.path / "wandb")
        try:
            (folder.path / "wandb").mkdir(parents=True, exist_ok=True)
            self._client = Client(folder.path / "wandb")
        except OSError as error:
            self._warn("could not be started", str(error))
            return
        self._client.send("start", opening(config, plain, folder, identity))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Tell of one epoch: the row of metrics.csv, unless it is known already.

        A run that was cut off after an epoch and before its checkpoint trains that epoch again.
        """
        if self._client is not None:
            if row["epoch"] > self._told:
                self._client.send("epoch", dict(row))
            self._listen(self._client.replies())

    def results(self, table: pd.DataFrame, data: RadiographData) -> None:
        """Tell how it ended; metrics.json is there already.

        table: predictions for val and test at the selected checkpoint.
        """
        if self._client is None:
            return
        metrics = json.loads(self._folder.metrics.read_text(encoding="utf-8"))
        content: dict[str, Any] = {"tables": {}, "images": {}}
        content["summary"] = results.summary(metrics, self._splits)
        if "test" in self._splits:
            content["summary"] |= results.external(self._folder.evaluations)
        for split in self._splits:
            rows = table[table["split"] == split]
            content["tables"] |= results.tables(split, metrics[split], rows)
        shown = self._splits[-1]
        tables, images = results.examples(shown, table, data, self._salt, self._images)
        content["tables"] |= tables
        content["images"] |= images
        content["figures"] = results.figures(self._folder.figures, self._splits)
        self._pictures = bool(images)
        self._client.send("results", content)

    def finish(self, status: str) -> None:
        """Close the run and print where to see it; `status` as in provenance.json."""
        client, self._client = self._client, None
        if client is None:
            return
        client.send("finish", EXIT_CODES.get(status, 1))
        ended, said = client.close(self._timeout + GRACE)
        self._listen(said)
        complete = any(reply["event"] == "finished" for reply in said)
        if not ended:
            self._warn(f"did not end within logger.timeout={self._timeout:g} seconds", "stopped")
        elif not complete:
            self._warn("ended unexpectedly", "its process is gone")
        if self._opened:
            self._print_where(complete)

    def _listen(self, replies: Any) -> None:
        for reply in replies:
            if reply["event"] == "started":
                self._opened = reply
                if reply["url"]:
                    Tqdm.write(f"W&B     {reply['url']}")
            elif reply["event"] == "trouble":
                self._warn(f"failed {reply['doing']}", reply["error"])

    def _warn(self, what: str, why: str) -> None:
        """One line for a run: what follows from the first fault is no news."""
        if self._warned:
            return
        goes_on = "metrics.csv and the run folder have everything"
        if what == "failed to go online":
            goes_on = "the run is kept offline"
        else:
            self._warned = True
        Tqdm.write(f"fracnet: warning: W&B {what} ({why}); {goes_on}.", file=sys.stderr)

    def _print_where(self, complete: bool) -> None:
        place = shlex.quote(shortened(Path(self._opened["folder"])))
        if self._opened["mode"] == "online" and complete:
            print(f"W&B: {self._opened['url']}")
            return
        if self._in_sweep:  # the same two commands for each of its jobs would be noise
            pixels = "; a sync uploads its example images" if self._pictures else ""
            print(f"W&B, offline{pixels}: {place}", flush=True)
            return
        pixels = ", with its example images" if self._pictures else ""
        print(f"W&B, offline:\n  wandb leet {place}  shows it here")
        print(f"  wandb sync {place}  uploads it{pixels}", flush=True)


def shortened(path: Path) -> str:
    """The path as seen from the current folder, where it lies inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
