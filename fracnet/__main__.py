"""`fracnet COMMAND ...`, the same as `python -m fracnet.COMMAND ...`."""

import difflib
import runpy
import sys
from importlib.metadata import version

from fracnet.config.completion import completion_script

COMMANDS = {
    "train": "train a model, evaluate it and write a report; -m sweeps",
    "sweep": "rebuild the table and the page of a sweep; resume= finishes or extends it",
    "evaluate": "recompute the metrics of a run, or of any table of predictions",
    "compare": "compare runs on the same test images",
    "ensemble": "average several runs into a new run",
    "predict": "predict new images with a run",
    "serve": "predict in the browser, on this machine",
    "node": "predict studies that a PACS sends, and send results back",
    "export": "write a run as one ONNX file that predicts without torch",
    "verify": "check an exported model against its golden cases and its run",
    "explain": "draw heatmaps for a run",
    "audit": "check a dataset for copies, leaks, shortcuts and broken files",
    "dashboard": "build the Weights & Biases workspace of a project",
    "cache": "list or clear the caches of preprocessed images",
}
RENAMED = {"study": "sweep"}


def help_text() -> str:
    """What `fracnet --help` prints."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "Experiments in bone-fracture classification on radiographs. Research use only, not a "
        "medical device.\n\n"
        f"usage: fracnet COMMAND key=value ...\n\n{lines}\n\n"
        "`fracnet COMMAND --help` shows the keys of a command; `fracnet --version` the version.\n"
    )


def main() -> None:
    """Run one command as `python -m` would."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print(help_text(), end="")
    elif script := completion_script(sys.argv[1:3]):
        print(script, end="")
    elif name == "--version":
        print(f"fracnet {version('fracnet')}")
    elif name in COMMANDS:
        del sys.argv[1]
        # Lightning starts the other processes of a run by the name of this module.
        runpy.run_module(f"fracnet.{name}", run_name="__main__", alter_sys=True)
    else:
        close = [RENAMED[name]] if name in RENAMED else difflib.get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        print(
            f"fracnet: error: '{name}' is not a command; allowed: {', '.join(COMMANDS)}.{hint}",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
