"""A sampler for a search that is resumed: it chooses again what the jobs that had started were."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.samplers import BaseSampler

from fracnet.training.sweep_plan import JOB_FILE, job_folders, read_record


class RecordedSampler(BaseSampler):
    """Leads a sampler through the search in `sweep` once more, and then lets it choose.

    With the same results it chooses the same jobs. A job that had failed and now has a result
    changes what it would choose next, so the choices on record take precedence. It is asked all the
    same: its random numbers continue where those of the search that was stopped would be.
    """

    def __init__(self, sampler: BaseSampler, sweep: str) -> None:
        self._sampler = sampler
        self._chosen: dict[int, Mapping[str, str]] = {}
        for number, folder in job_folders(Path(sweep)).items():
            record = read_record(folder / JOB_FILE)
            if record.get("status") != "not run":
                pairs = (o.lstrip("+~").partition("=") for o in record.get("overrides") or ())
                self._chosen[number] = {key: value for key, _, value in pairs}

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        """The keys that are chosen together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        """Values of these keys."""
        values = self._sampler.sample_relative(study, trial, search_space)
        return {k: self._recorded(trial, k, search_space[k], v) for k, v in values.items()}

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a key that is chosen by itself."""
        value = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return self._recorded(trial, param_name, param_distribution, value)

    def before_trial(self, study: Any, trial: Any) -> None:
        """Before a job is chosen."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """After the result of a job is known."""
        self._sampler.after_trial(study, trial, state, values)

    def _recorded(self, trial: Any, key: str, distribution: BaseDistribution, value: Any) -> Any:
        """The value that the job had; `value` where it had none."""
        text = self._chosen.get(trial.number, {}).get(key)
        if text is None:
            return value
        if isinstance(distribution, CategoricalDistribution):
            return next((c for c in distribution.choices if str(c) == text), value)
        return float(text) if isinstance(distribution, FloatDistribution) else int(text)
