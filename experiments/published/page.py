"""The page of all claims, from the results that are there: results/README.md.

python -m experiments.published.page
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.published.claims import ALL, EPOCHS, LEAK, Claim
from fracnet.evaluation.comparison import BETTER, WORSE
from fracnet.utils.text import counted

RESULTS = Path(__file__).with_name("results")
MEASURED = Path(__file__).with_name("measured")
ACCURACY = 0.89  # of ResNet-18 on the 83 test images, as published
LEAKAGE = Path(__file__).parents[1] / "leakage" / "results.json"
PHANTOMS = "Phantoms: says nothing about the real figure."
NOT_RUN = "not yet run"

Result = Mapping[str, Any]


def interval(row: Mapping[str, Any], key: str = "value") -> str:
    """`+0.031 (-0.012 to 0.074)`; without an interval, the value alone."""
    value = f"{row[key]:+.3f}"
    return value if row["low"] is None else f"{value} ({row['low']:.3f} to {row['high']:.3f})"


def sentence(claim: Claim, result: Result) -> str:
    """What holds, from the figures of a result."""
    if claim is EPOCHS:
        parts = [_of_epochs(result["epochs"])]
    else:
        parts = [_of_arms(claim, block, result["phantoms"]) for block in result["metrics"]]
    if result["phantoms"]:
        parts.append(PHANTOMS)
    return " ".join(parts)


def metric_name(block: Mapping[str, Any]) -> str:
    """`accuracy`, `sensitivity for wrist`."""
    return block["metric"] + (f" for {block['class_name']}" if block["class_name"] else "")


def _of_arms(claim: Claim, block: Mapping[str, Any], phantoms: bool) -> str:
    rows = block["differences"]
    reference, metric = rows[0]["reference"], metric_name(block)
    ahead = [row["name"] for row in rows if row["verdict"] == BETTER]
    behind = [row["name"] for row in rows if row["verdict"] == WORSE]
    unclear = [row["name"] for row in rows if row["verdict"] not in (BETTER, WORSE)]
    parts = []
    for names, what in ((ahead, "higher than"), (behind, "lower than")):
        if names:
            parts.append(f"{', '.join(names)} {what} {reference}")
    if unclear:
        parts.append(f"no difference to {reference} is shown for {', '.join(unclear)}")
    text = f"{metric[0].upper()}{metric[1:]}: {'; '.join(parts)}."
    if claim.published is not None and not phantoms:
        row = rows[0]
        inside = row["low"] is not None and row["low"] <= claim.published <= row["high"]
        side = "inside" if inside else "outside"
        text += f" The published {claim.published:+.2f} lies {side} the interval."
    return text


def _of_epochs(rows: Sequence[Mapping[str, Any]]) -> str:
    first, last = rows[0], rows[-1]
    return (
        f"From {first['epochs']} to {last['epochs']} epochs accuracy on train goes from "
        f"{first['train']:.3f} to {last['train']:.3f}, on test from {first['test']:.3f} to "
        f"{last['test']:.3f}. Choosing the epoch by test reports {interval(last, 'difference')} "
        "more than choosing it by validation."
    )


def _row(claim: Claim, result: Result | None) -> list[str]:
    published = "not stated" if claim.published is None else f"{claim.published:+.2f}"
    if claim is EPOCHS or claim is LEAK:
        published = "0.998"
    cells = [
        f"**{claim.name}**: {claim.text} ({claim.source})",
        "-" if claim.n is None else str(claim.n),
    ]
    if claim is LEAK and result is None and LEAKAGE.is_file():
        return [*cells, published, *_leakage()]
    if result is None:
        return [*cells, published, "-", "-", NOT_RUN]
    if claim is EPOCHS:
        last = result["epochs"][-1]
        by_test, by_val = last["chosen by test"], last["chosen by validation"]
        ours = f"{by_test:.3f} by test, {by_val:.3f} by validation"
        gaps = interval(last, "difference")
    else:
        ours, gaps = (
            "<br>".join(map(_ours, result["metrics"])),
            "<br>".join(
                f"{row['name']}: {interval(row)}"
                for block in result["metrics"]
                for row in block["differences"]
            ),
        )
    n = result["images"]["test"]
    where = "phantoms" if result["phantoms"] else result["data"]
    return [*cells, published, f"{ours}<br>(n = {n}, {where})", gaps, sentence(claim, result)]


def _ours(block: Mapping[str, Any]) -> str:
    means = ", ".join(f"{name} {arm['mean']:.3f}" for name, arm in block["arms"].items())
    return f"{metric_name(block)}: {means}"


def _leakage() -> list[str]:
    """The leak on phantoms, as experiments/leakage has measured it."""
    content = json.loads(LEAKAGE.read_text())["summary"]
    reported, true = (content["copies"]["accuracy"][k][0] for k in ("reported", "true"))
    value, low, high = content["copies minus copies, by patient"]["accuracy"]
    return [
        f"reported {reported:.3f}, true {true:.3f}<br>(phantoms, [leakage](../../leakage))",
        "optimism, minus that of a split by patient: "
        + interval({"value": value, "low": low, "high": high}),
        f"Copies on both sides of the split {'flatter' if low > 0 else 'are not shown to flatter'} "
        f"a model. {PHANTOMS}",
    ]


def load(claim: Claim) -> Result | None:
    """The result on real data where there is one, else on phantoms, else None."""
    for kind in ("real", "phantoms"):
        path = RESULTS / f"{claim.name}_{kind}.json"
        if path.is_file():
            content: Result = json.loads(path.read_text())
            return content
    return None


def write_page() -> Path:
    """Write the page; its path."""
    found = {name: load(claim) for name, claim in ALL.items()}
    heads = ["claim", "n", "published", "ours", "difference (95 % CI)", "verdict"]
    lines = [
        "# Every claim, examined",
        "",
        "Written by `python -m experiments.published.page`; every figure and sentence comes from "
        "the JSON files beside it. " + _state(found),
        "",
        "An interval is that of one difference alone. The verdict corrects for the number of arms "
        "(Holm 1979), so it may claim no difference where an interval excludes 0. Times include "
        "what else the machine did.",
        "",
        f"| {' | '.join(heads)} |",
        "|" + "---|" * len(heads),
    ]
    lines += [f"| {' | '.join(_row(claim, found[name]))} |" for name, claim in ALL.items()]
    if found["epochs"]:
        lines += ["", "## Epochs", "", *_epochs_table(found["epochs"]["epochs"])]
    lines += ["", "## Single runs on the real six-class set", "", *_measured()]
    lines += ["", "## How each was measured", ""]
    for name, claim in ALL.items():
        result = found[name]
        if claim.remark:
            lines.append(f"- {name}: {claim.remark}")
        if result:
            kind = "phantoms" if result["phantoms"] else "real data"
            images = ", ".join(f"{n} {split}" for split, n in result["images"].items())
            lines += [
                f"- {name}: {kind}, size={result['size']}, {images}, "
                f"{counted(len(result['seeds']), 'seed')}, commit {result['commit']}, "
                f"{result['machine']}, {result['seconds']} s",
                "",
                f"  ```\n  {' '.join(map(_quoted, result['command']))}\n  ```",
            ]
    path = RESULTS / "README.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def _measured() -> list[str]:
    """The runs in measured/, each beside the published ResNet-18."""
    lines = []
    for path in sorted(MEASURED.glob("*/metrics.json")):
        test = json.loads(path.read_text())["test"]
        value, low, high = (test["metrics"]["accuracy"][end] for end in ("value", "low", "high"))
        inside = "inside" if low <= ACCURACY <= high else "outside"
        lines.append(
            f"- [{path.parent.name}](../measured): accuracy {value:.3f} ({low:.3f} to {high:.3f}), "
            f"n = {test['n']}, one seed. The published {ACCURACY:.2f} of ResNet-18 lies {inside} "
            "the interval."
        )
    return lines


def _quoted(word: str) -> str:
    return f"'{word}'" if set(word) & set("{}[] ") else word


def _state(found: Mapping[str, Result | None]) -> str:
    real = [name for name, result in found.items() if result and not result["phantoms"]]
    if real:
        return f"On real data: {', '.join(real)}."
    return "None of them has been run on real data yet."


def _epochs_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = [
        "epochs",
        "train",
        "val",
        "test",
        "chosen by test",
        "chosen by validation",
        "difference",
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        values = [f"{row[name]:.3f}" for name in heads[1:-1]]
        lines.append(
            f"| {' | '.join([str(row['epochs']), *values, interval(row, 'difference')])} |"
        )
    return lines


def main() -> None:
    """Write the page and print where it is."""
    print(write_page())


if __name__ == "__main__":
    main()
