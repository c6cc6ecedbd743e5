"""A Hydra launcher that runs each job in a separate process; Hydra discovers it by its folder."""

import os
import sys
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus


class Forks(BasicLauncher):
    """One after the other; what a job returns, or that it dies, stays with its process."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        ends = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            if (child := os.fork()) == 0:
                super().launch([overrides], number)
                sys.stdout.flush()
                os._exit(0)
            os.waitpid(child, 0)
            ends.append(JobReturn(_return_value=float("nan"), status=JobStatus.COMPLETED))
        return ends
