"""Reports and sweeps without their charts, for tests that look at none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup

from fracnet.report import plots


def draw_nothing(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Leave the charts out of pages, and write blank figures; `replace` sets an attribute."""

    @contextmanager
    def blank(_: plots.Figure) -> Iterator[Any]:
        with plots.canvas(1, 1) as canvas:
            yield canvas

    replace(plots, "compose", blank)
    replace(plots.Chart, "svg", Markup('<svg class="chart"></svg>'))
    replace(plots, "_mark", lambda look, area: Markup('<svg class="key"></svg>'))
