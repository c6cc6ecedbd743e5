"""A page of HTML that stands alone: no script, no font, no picture from elsewhere.

Light and dark as the reader's system has it, A4 on paper, readable on a telephone and by keyboard.
A page is a template in `fracnet/report/templates/` that extends `base.html`.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fracnet.report.console import RESEARCH_ONLY

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def page(template: str, content: Mapping[str, Any]) -> str:
    """The page that a template makes of plain values; all text in them is escaped.

    template: a file's name, such as audit.html. content: what the template names; a name that it
    lacks is an error, not an empty place.
    """
    always = {"research_only": RESEARCH_ONLY, "fracnet_version": version("fracnet")}
    return _environment().get_template(template).render(always | dict(content))


def coded(text: str) -> "Markup":
    """A sentence as HTML, with what stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fracnet.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = coded
    environment.filters["share"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["thousands"] = lambda value: f"{value:,}".replace(",", "\u202f")
    return environment
