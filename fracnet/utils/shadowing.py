"""Says which file of the current folder hides a module of Python's own, where that ends a command.

`python -m` searches the current folder first: a `random.py` there is imported in place of Python's.
For the same reason, this imports only what Python has loaded before.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def report_shadowing(
    kind: type[BaseException], error: BaseException, trace: "TracebackType | None"
) -> None:
    """A `sys.excepthook`: one sentence where such a file was imported, otherwise the traceback."""
    files = set()
    if issubclass(kind, ImportError | AttributeError):  # something lacks a name
        files = {str(getattr(module, "__file__", "")) for module in list(sys.modules.values())}
    step = trace
    while step is not None:  # a module whose own import failed is not among those
        files.add(step.tb_frame.f_code.co_filename)
        step = step.tb_next
    for file in sorted(files):
        path = os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file
        folder, name = os.path.split(os.path.abspath(path))
        module = os.path.splitext(name)[0]
        if folder == os.path.abspath(sys.path[0]) and module in sys.stdlib_module_names:
            print(
                f"fracnet: error: {path} hides Python's own module '{module}', which fracnet needs "
                f"({kind.__name__}: {error}). Rename it, or type `fracnet` in place of "
                "`python -m fracnet.`",
                file=sys.stderr,
            )
            return
    sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # while `python -m` looks for the module that it is to run
    sys.excepthook = report_shadowing
