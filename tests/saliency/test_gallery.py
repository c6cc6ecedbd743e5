"""Cases are of every kind, drawn at random; overlays show heat, outlines and the radiograph."""

import numpy as np
import pandas as pd
import pytest
from helpers.run_folders import table_of

from fracnet.config.schema import Evaluation
from fracnet.evaluation.decisions import calibrate, decide
from fracnet.evaluation.predictions import Predictions, classes_of
from fracnet.saliency.drawing import MIN_SIDE, draw_overlay, enlarge
from fracnet.saliency.gallery import KINDS, Case, case_entry, choose_cases

ERROR = 0.05


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return table_of(1.5, count=120)


def select(table: pd.DataFrame, each: int = 4, **options: int) -> list[Case]:
    decisions = decide(Predictions(table).split("val"), Evaluation())
    return choose_cases(
        Predictions(table), decisions, each, error=ERROR, seed=options.get("seed", 0)
    )[0]


def test_each_kind_has_the_requested_number_and_matches_its_name(table: pd.DataFrame) -> None:
    decisions = decide(Predictions(table).split("val"), Evaluation())
    threshold = decisions["operating_point"]["image"]["threshold"]
    prob = calibrate(Predictions(table), decisions["temperature"]).probabilities
    cases = select(table)
    assert [case.kind for case in cases] == [kind for kind in KINDS for _ in range(4)]
    for case in cases:
        row = table.iloc[case.row]
        assert row["split"] == "test"
        assert classes_of(table)[case.truth] == row["label"]
        assert case.predicted == int(prob[case.row, 1] > threshold)
        assert (case.truth == case.predicted) == case.kind.startswith("right")
        assert case.probability == prob[case.row, case.predicted]


def test_confident_cases_are_further_from_the_other_class(table: pd.DataFrame) -> None:
    """Of one predicted class: each confident case is more probable than each uncertain one."""
    cases = select(table, each=20)
    for predicted in (0, 1):
        of_class = [case for case in cases if case.predicted == predicted]
        confident = [c.probability for c in of_class if "uncertain" not in c.kind]
        uncertain = [c.probability for c in of_class if "uncertain" in c.kind]
        assert confident
        assert uncertain
        assert min(confident) > max(uncertain)


def test_no_patient_is_twice_in_a_kind_and_classes_take_turns(table: pd.DataFrame) -> None:
    cases = select(table, each=6)
    for kind in KINDS:
        rows = [case.row for case in cases if case.kind == kind]
        patients = table["patient"].iloc[rows]
        assert patients.is_unique
        assert set(table["label"].iloc[rows]) == {"normal", "abnormal"}


def test_images_without_a_known_patient_count_separately(table: pd.DataFrame) -> None:
    unknown = table.assign(patient=np.nan, study=np.nan)
    assert len(select(unknown, each=3)) == 3 * len(KINDS)
    assert "patient" not in case_entry(select(unknown, each=1)[0], unknown)


def test_the_draw_follows_the_seed_and_not_the_order_of_rows(table: pd.DataFrame) -> None:
    def paths(rows: pd.DataFrame, seed: int) -> list[str]:
        return [rows["path"].iloc[case.row] for case in select(rows, seed=seed)]

    turned = table.iloc[::-1].reset_index(drop=True)
    assert paths(table, 0) == paths(turned, 0)
    assert paths(table, 0) != paths(table, 1)


def test_zero_cases_choose_nothing(table: pd.DataFrame) -> None:
    decisions = decide(Predictions(table).split("val"), Evaluation())
    assert choose_cases(Predictions(table), decisions, 0, error=ERROR, seed=0) == ([], [])


def test_too_few_validation_images_guarantee_nothing(table: pd.DataFrame) -> None:
    decisions = decide(Predictions(table).split("val"), Evaluation())
    few = pd.concat([table[table["split"] == "val"].head(12), table[table["split"] == "test"]])
    predictions = Predictions(few.reset_index(drop=True))
    how = " ".join(choose_cases(predictions, decisions, 1, error=ERROR, seed=0)[1])
    assert "so no decision on an image can be confident; each class needs 9" in how
    assert "at most 5 %" not in how


def test_an_entry_is_plain_and_complete(table: pd.DataFrame) -> None:
    case = select(table)[0]
    entry = case_entry(case, table)
    assert entry["path"] == table["path"].iloc[case.row]
    assert {type(value) for value in entry.values()} == {str, int, float}
    assert entry["truth"] != entry["predicted"]
    assert entry["patient"] == table["patient"].iloc[case.row]


def test_the_note_counts_the_images_of_each_kind(table: pd.DataFrame) -> None:
    decisions = decide(Predictions(table).split("val"), Evaluation())
    _, (how,) = choose_cases(Predictions(table), decisions, 2, error=ERROR, seed=0)
    counts = [int(how.split(f"{kind} ")[1].split(",")[0].split(".")[0]) for kind in KINDS]
    assert sum(counts) == (table["split"] == "test").sum()
    assert "chosen at random, at most 2 of each kind" in how


SIDE = 64
SQUARE = np.array([[16.0, 16.0], [48.0, 16.0], [48.0, 48.0], [16.0, 48.0]])


def radiograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)


def lightness(picture: np.ndarray) -> np.ndarray:
    """Luma of RGB, float64 [H, W]."""
    return np.asarray(picture @ np.array([0.299, 0.587, 0.114]))


def test_without_heat_it_is_the_radiograph() -> None:
    image = radiograph()
    plain = np.repeat(image[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(draw_overlay(image), plain)
    np.testing.assert_array_equal(draw_overlay(image, np.zeros(image.shape, np.float32)), plain)


def test_color_is_where_the_heat_is_and_the_radiograph_shows_through() -> None:
    image, heat = radiograph(), np.zeros((SIDE, SIDE), np.float32)
    heat[:, SIDE // 2 :] = 1
    picture = draw_overlay(image, heat)
    colored = np.ptp(picture.astype(int), axis=2) > 0
    assert not colored[:, : SIDE // 2].any()
    assert colored[:, SIDE // 2 :].all()
    brightness = lightness(picture)[:, SIDE // 2 :].ravel()
    assert np.corrcoef(brightness, image[:, SIDE // 2 :].ravel())[0, 1] > 0.99


def test_more_heat_is_lighter_on_dark_ground() -> None:
    heat = np.linspace(0, 1, SIDE, dtype=np.float32)[None].repeat(SIDE, axis=0)
    brightness = lightness(draw_overlay(np.zeros((SIDE, SIDE), np.uint8), heat))[0]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[-1] > 100


def test_outlines_lie_exactly_at_their_pixels() -> None:
    picture = draw_overlay(np.zeros((SIDE, SIDE), np.uint8), None, [SQUARE])
    rows, columns = np.nonzero(lightness(picture) > 50)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max())
    assert abs(int(rows.min()) + 0.5 - 16) <= 1
    assert abs(int(rows.max()) + 0.5 - 48) <= 1
    assert not picture[20:44, 20:44].any()


def test_small_pictures_are_enlarged_with_all_that_is_in_them() -> None:
    image, heat = radiograph(), np.zeros((SIDE, SIDE), np.float32)
    heat[20:30, 40:50] = 1
    large, heat_large, (outline,) = enlarge(image, heat, [SQUARE])
    times = large.shape[0] // SIDE
    assert large.shape == heat_large.shape == (SIDE * times, SIDE * times)
    assert MIN_SIDE <= large.shape[0] < MIN_SIDE + SIDE
    np.testing.assert_array_equal(outline, SQUARE * times)
    assert heat_large[25 * times, 45 * times] == 1
    assert heat_large[10 * times, 10 * times] == 0


def test_large_pictures_stay_as_they_are() -> None:
    image = np.zeros((MIN_SIDE, MIN_SIDE), np.uint8)
    assert enlarge(image, np.zeros((MIN_SIDE, MIN_SIDE), np.float32), [])[0] is image
