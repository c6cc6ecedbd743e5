"""The tables of figures on a run's page, each with intervals."""

from collections.abc import Iterator, Sequence

from fracnet.evaluation.aggregation import OVERALL
from fracnet.evaluation.assessment import CALIBRATION, Stratum
from fracnet.evaluation.summary import Estimate
from fracnet.report.console import FURTHER, METRICS
from fracnet.report.plots import in_words
from fracnet.report.run_console import SEVERAL, cut, threshold_notes
from fracnet.report.run_content import IMAGE, RunContent
from fracnet.report.tables import Axis, Table, common_scale, drawn, figure_cell
from fracnet.utils.text import counted

TWO = ("auc", "sensitivity", "specificity", "precision", "npv")
HEADS = {"auc": "AUC", "npv": "NPV", "precision": "precision (PPV)"}
NAMES = {"majority": "always the commonest class", "shortcut": "shortcut baseline"}

# Columns of people: their values are ids.
PEOPLE = ("patient", "study", "path")


def operating_point(content: RunContent) -> Table | None:
    """Two classes: the frozen threshold of each level, what it gave on validation, and now."""
    if not content.binary:
        return None
    decisions = content.assessment.decisions or {}
    points = decisions.get("operating_point") or {}
    rows = []
    for level, stratum in content.overall.items():
        of = stratum.summary.per_class[1]
        point = points.get(level) or {}
        chosen = [point.get("sensitivity"), point.get("specificity")]
        there = " / ".join("n/a" if rate is None else f"{rate:.3f}" for rate in chosen)
        figures = [figure_cell(getattr(of, name)) for name in TWO]
        threshold = 0.5 if stratum.threshold is None else stratum.threshold
        count = f"{of.n}/{stratum.summary.n}"
        rows.append([level, count, cut(threshold), *figures, there if point else "-"])
    how = "above 0.5, as there is no validation to choose by"
    if points:
        how = f"above the threshold that validation chose ({in_words(decisions['rule'])})"
    heads = ["level", "cases/n", "above", *(HEADS.get(name, name) for name in TWO)]
    return Table(
        f"Called {content.classes[1]} {how}; 95 % intervals",
        [*heads, "on validation"],
        rows,
        note=" ".join(
            [
                "Sensitivity / specificity on validation are those of the rows that chose the "
                "threshold, so on average too good.",
                f"Precision and NPV hold for the share of {content.classes[1]} here, and not where "
                "it is rarer.",
                *threshold_notes(content.assessment.decisions),
            ]
        ),
    )


def all_figures(content: RunContent) -> Table:
    """Every overall figure beside the baselines."""
    found, shown = content.assessment, content.shown
    beside = {name: found.baselines[name] for name in NAMES if name in found.baselines}
    rows = []
    for name, title in (METRICS | FURTHER).items():
        cells = [figure_cell(of.metrics[name]) for of in beside.values()]
        rows.append([title, figure_cell(shown.metrics[name]), *cells])
    rule = f", {content.classes[1]} above 0.5" if content.binary else ", the likeliest class"
    return Table(
        f"{counted(shown.n, f'{shown.split} image')}{rule}; raw probabilities, 95 % intervals",
        ["figure", "model", *(NAMES[name] for name in beside)],
        rows,
        note=" ".join(
            ["For Brier score, log loss and calibration error less is better.", *_tied(content)]
        ),
    )


def _tied(content: RunContent) -> list[str]:
    """Why the macro AUC of two classes is not that of the positive class, where it shows."""
    if not content.binary:
        return []
    here = [f"{one.auc.value:.3f} ({one.name})" for one in content.shown.per_class]
    if len({words.partition(" ")[0] for words in here}) == 1:
        return []
    return [
        f"Macro AUC is the mean of {' and '.join(here)}. They differ since probabilities that "
        "round to 1 tie in one class, while the rest of the other still tells the rows apart."
    ]


def per_class(content: RunContent) -> Table:
    """Each class against the rest, its AUC drawn."""
    classes = content.shown.per_class
    scale = common_scale([one.auc for one in classes], also=[0.5, 1.0])
    rows = [
        [
            one.name,
            str(one.n),
            figure_cell(one.sensitivity),
            figure_cell(one.specificity),
            figure_cell(one.precision),
            figure_cell(one.auc),
            drawn(one.auc, scale, 0.5),
        ]
        for one in classes
    ]
    heads = ["class", "n", "sensitivity", "specificity", "precision", "AUC", _ends("AUC", scale)]
    return Table("Each class against the rest, by the likeliest class", heads, rows, wide=[6])


def official(content: RunContent) -> Table | None:
    """MURA's official figure, where there are two classes."""
    rows_of = content.assessment.official
    if not rows_of:
        return None
    levels = list(dict.fromkeys(row.level for row in rows_of))
    rows = []
    for region in dict.fromkeys(row.region for row in rows_of):
        cells = []
        for level in levels:
            row = next((r for r in rows_of if (r.level, r.region) == (level, region)), None)
            cells += [f"{row.positives}/{row.n}", figure_cell(row.kappa)] if row else ["-", "-"]
        rows.append([region, *cells])
    heads = ["region"]
    for level in levels:
        heads += ["cases/n", f"kappa by {level}"]
    caption = f"Cohen's kappa: {content.classes[1]} where the raw mean is above 0.5, as in MURA"
    return Table(caption, heads, rows, strong=True)


def strata(content: RunContent) -> Iterator[tuple[str, Table, bool]]:
    """A forest plot for each column and level, and whether it is at the page's first level."""
    groups: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in content.assessment.strata:
        if stratum.by != OVERALL and (content.images or stratum.by not in PEOPLE):
            groups.setdefault((stratum.by, stratum.level), []).append(stratum)
    for (by, level), members in groups.items():
        whole = content.overall[level]
        first = level == content.level or (by, content.level) not in groups
        yield f"By {by}, {level} level", _forest(content, by, [whole, *members]), first


def _forest(content: RunContent, by: str, members: Sequence[Stratum]) -> Table:
    if content.binary:
        names = ["AUC", "sensitivity", "specificity"]
    else:
        names = [SEVERAL[key] for key in ("accuracy", "macro_sensitivity", "macro_auc")]
    figures = [_figures(content, member) for member in members]
    guide = figures[0][0].value
    scale = common_scale([one[0] for one in figures], also=[1.0])
    rows = []
    for member, values in zip(members, figures, strict=True):
        name = "all" if member.by == OVERALL else member.value
        n = member.summary.n
        count = f"{member.summary.per_class[1].n}/{n}" if content.binary else f"{n}"
        first, *others = [figure_cell(value) for value in values]
        rows.append([name, count, first, drawn(values[0], scale, guide), *others])
    heads = [by, "cases/n" if content.binary else "n", names[0], _ends(names[0], scale), *names[1:]]
    return Table(
        f"Groups below all rows; the dashed line is the {names[0]} of all",
        heads,
        rows,
        strong=True,
        wide=[3],
    )


def _figures(content: RunContent, member: Stratum) -> list[Estimate]:
    if content.binary:
        one = member.summary.per_class[1]
        return [one.auc, one.sensitivity, one.specificity]
    keys = ("accuracy", "macro_sensitivity", "macro_auc")
    return [member.summary.metrics[key] for key in keys]


def calibration(content: RunContent) -> Table | None:
    """How sure the model sounds, before and after temperature scaling."""
    moments = content.assessment.calibration.get(content.shown.split)
    if not moments:
        return None
    rows = [
        [FURTHER[name], *(figure_cell(figures[name]) for figures in moments.values())]
        for name in CALIBRATION
    ]
    decisions = content.assessment.decisions or {}
    note = decisions.get("temperature_note")
    if note:
        told = f"Temperature scaling: {note}."
    elif "after" in moments:
        n = decisions["validation"]["n"]
        told = f"Temperature {decisions['temperature']:.3f}, fitted on {n} validation images."
    else:
        told = "No temperature was fitted."
    heads = ["less is better", *(f"{moment} scaling" for moment in moments)]
    return Table(f"Probabilities of the {content.shown.split} rows", heads, rows, note=told)


def _ends(name: str, scale: Axis) -> str:
    """The name with the ends of the scale that its bars stand on."""
    return f"{name}, {scale.low:g} to {scale.high:g}"


def level_of(content: RunContent) -> str:
    """`studies` or `images`, as the page's first figures are."""
    return "images" if content.level == IMAGE else "studies"
