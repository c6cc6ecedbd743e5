"""Stops a job of a sweep that can no longer win: `pruning=median`, `pruning=asha`.

Each job reports its validation metric after every epoch to an Optuna study in the sweep's folder,
where the pruner compares it with the other jobs. The study is a journal file, which several
processes, also of several machines on a shared disk, may write at once; it knows nothing of the
launcher or of what chose the jobs. Needs the extra `fracnet[optuna]`.
"""

import math
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from fracnet.config.checks import mode_of
from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.training.sweep_plan import JobRecord
from fracnet.utils.errors import Pruned

JOURNAL = "pruning.journal"
STUDY = "pruning"
JOB = "job"
"""The attribute of a trial that holds the number of its job."""


def open_study(sweep: Path, pruner: Any = None, mode: str = "max") -> optuna.Study:
    """The study of a sweep's folder, which is created where there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=STUDY,
        storage=JournalStorage(JournalFileBackend(str(sweep / JOURNAL))),
        pruner=pruner,
        direction="minimize" if mode == "min" else "maximize",
        load_if_exists=True,
    )


class Pruning(Callback):
    """Reports each epoch, and ends the job before the next one if the pruner says so.

    By then its checkpoints are written. A job that has no further epoch is never pruned. sweep,
    job: their folders.
    """

    def __init__(self, config: Config, sweep: Path, job: Path) -> None:
        assert config.pruning is not None
        self.metric, self.mode = config.objective, mode_of(config, config.objective)
        self._pruner = build(config.pruning.plain(), "pruning")
        self._sweep, self._job = sweep, int(JobRecord.of(job).content["job"])
        self._trial: optuna.Trial | None = None
        self._hopeless = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the study: its trial of this job, if the job is resumed, or a new one."""
        if not trainer.is_global_zero:
            return
        study = open_study(self._sweep, self._pruner, self.mode)
        trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        own = [trial for trial in trials if trial.user_attrs.get(JOB) == self._job]
        self._trial = optuna.Trial(study, own[0]._trial_id) if own else study.ask()
        self._trial.set_user_attr(JOB, self._job)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch's validation metric, where there is one."""
        hopeless = False
        value = float(trainer.callback_metrics.get(f"val/{self.metric}", math.nan))
        if self._trial is not None and math.isfinite(value):
            if trainer.current_epoch not in self._reported():
                self._trial.report(value, trainer.current_epoch)
            hopeless = self._trial.should_prune()
        self._hopeless = bool(trainer.strategy.broadcast(hopeless))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a job that the epoch before has shown to be hopeless."""
        if not self._hopeless:
            return
        best = self._tell(TrialState.PRUNED)
        raise Pruned(
            f"after epoch {trainer.current_epoch} of {trainer.max_epochs}, by "
            f"{type(self._pruner).__name__}; its best validation {self.metric} was {best:.3f}",
            best,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the study that the job has trained to its end."""
        self._tell(TrialState.COMPLETE)

    def _tell(self, state: TrialState) -> float:
        """Close the trial; its best reported value, NaN without one."""
        values = self._reported().values()
        best = math.nan if not values else (min if self.mode == "min" else max)(values)
        if self._trial is not None:
            complete = state == TrialState.COMPLETE
            state = TrialState.FAIL if complete and math.isnan(best) else state
            value = best if state == TrialState.COMPLETE else None
            self._trial.study.tell(self._trial.number, value, state)
            self._trial = None
        return best

    def _reported(self) -> dict[int, float]:
        """Validation metric by epoch, counted from 0."""
        if self._trial is None:
            return {}
        study = self._trial.study
        trials = study.get_trials(deepcopy=False)
        return dict(trials[self._trial.number].intermediate_values)
