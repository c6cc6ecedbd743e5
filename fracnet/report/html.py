"""A self-contained HTML page: it loads no script, font or picture from anywhere else.

Follows the system's light or dark mode, prints on A4, works on a phone and by keyboard.
A page is a template in `fracnet/report/templates/` that extends `base.html` and is built of the
macros in `macros.html`. The one script, `page.js`, is inline and the only one that the page's
content security policy allows; without scripts the page still shows everything.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fracnet.report.console import RESEARCH_ONLY
from fracnet.report.plots import SVG_ID
from fracnet.utils.text import without_controls


def page(template: str, content: Mapping[str, Any]) -> str:
    """Render a template from plain values; all text in them is escaped.

    template: a file's name, such as audit.html. content: the names that the template uses; a
    missing one is an error, not an empty place.
    """
    always = {"research_only": RESEARCH_ONLY, "fracnet_version": version("fracnet")}
    html = _environment().get_template(template).render(always | dict(content))
    number = itertools.count()
    html = without_controls(html)  # names come from files and from others
    return re.sub(
        "<svg .*?</svg>", lambda svg: svg[0].replace(SVG_ID, f"c{next(number)}-"), html, flags=re.S
    )


def coded(text: str) -> Markup:
    """A sentence as HTML, with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def thousands(n: int) -> str:
    """`36,808`."""
    return f"{n:,}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fracnet.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (files("fracnet.report") / "templates/page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    environment.globals["script"] = Markup(script)
    environment.globals["script_hash"] = f"sha256-{base64.b64encode(digest).decode()}"
    environment.filters["coded"] = coded
    environment.filters["share"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["thousands"] = thousands
    return environment
