import numpy as np
import pytest

from edgeseg.benches.compare import compare
from edgeseg.benches.compare.accuracies import MISSING, OTHERS, Images, difference_of_miou
from edgeseg.benches.report import read_results
from edgeseg.errors import InputError
from tests.benches.made import ENVIRONMENT, accuracy, agreement, class_row, latency, measurement, model, write

STEADY = [10.0 + 0.01 * (i % 7) for i in range(40)]


@pytest.fixture
def compared(tmp_path):
    return lambda a, b, **options: compare(*read_results(write(tmp_path, a, b)), **options)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.8, "B is faster"), (1.25, "B is slower"), (1.0, "no difference shown")]
)
def test_every_stage_has_its_ratio_and_verdict(compared, factor, verdict):
    (row,) = compared(latency("a", STEADY), latency("b", [x * factor for x in STEADY]))["measurements"]
    assert [stage["name"] for stage in row["stages"]] == ["end_to_end", "read", "graphs", "sam", "compose"]
    for stage in row["stages"]:
        assert stage["ratio"] == pytest.approx(factor, rel=1e-3)
        assert stage["ratio_low"] <= stage["ratio"] <= stage["ratio_high"]
        assert stage["verdict"] == verdict


def test_noise_is_no_difference(compared):
    noise = np.random.default_rng(0).normal(10, 2, (2, 12)).tolist()
    (row,) = compared(latency("a", noise[0]), latency("b", noise[1]))["measurements"]
    assert row["stages"][0]["verdict"] == "no difference shown"


def test_measurements_of_as_many_classes_belong_together_and_the_rest_is_named(compared):
    one = latency("a", measurements=[measurement(STEADY, 3), measurement(STEADY, 150, reasons=["it drifted"])])
    two = latency("b", measurements=[measurement(STEADY, 150), measurement(STEADY, 150, batch=2)])
    body = compared(one, two)
    assert [row["classes"] for row in body["measurements"]] == [150]
    assert body["notes"] == [
        "A with 150 classes is not to be trusted because it drifted",
        "only A was measured with 3 classes",
        "only B was measured with 150 classes and 2 images at once",
    ]
    with pytest.raises(InputError, match="only A was measured with 3 classes"):
        compared(latency("a"), latency("b", measurements=[measurement(STEADY, 7)]))


def changed_power(mode):
    body = latency("b", STEADY)
    body["measurements"][0]["conditions"]["power_mode"] = mode
    return body


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (latency("b", environment=ENVIRONMENT | {"board": "AGX"}), "board is Orin Nano in A and AGX in B"),
        (latency("b", environment=ENVIRONMENT | {"edgeseg": "0.2.0"}), "edgeseg is 0.1.0 in A and 0.2.0 in B"),
        (
            latency("b", environment=ENVIRONMENT | {"packages": {}}),
            r"version of numpy is 2.0.0 in A and \(nothing\) in B",
        ),
        (latency("b", sdk={"tensorrt": "8.6"}), "SDK tensorrt is 10.3.0 in A and 8.6 in B"),
        (latency("b", device="sm72"), "device is sm87-trt10.3.0 in A and sm72 in B"),
        (changed_power("7W"), "power mode is 15W in A and 7W in B"),
    ],
)
def test_other_surroundings_are_refused_unless_told_to_and_then_said(compared, other, words):
    with pytest.raises(InputError, match=words + ".*give --across"):
        compared(latency("a", STEADY), other)
    body = compared(latency("a", STEADY), other, across=True)
    assert body["across"]
    assert len(body["differences"]) == 1
    assert compared(latency("a"), latency("b"))["differences"] == []


def test_what_was_asked_differently_is_said(compared):
    body = compared(latency("a"), latency("b", canvas="384x480"))
    assert body["settings"] == [{"what": "image canvas", "a": "480x640", "b": "384x480"}]


def test_other_settings_and_lists_of_classes_are_said(compared):
    body = compared(latency("a", settings={"rounds": "2"}), latency("b", class_lists="lists.json"))
    assert body["settings"] == [
        {"what": "setting rounds", "a": "2", "b": "(nothing)"},
        {"what": "class lists", "a": "(nothing)", "b": "lists.json"},
    ]


@pytest.mark.parametrize(
    ("a", "b"), [(latency(), accuracy()), (model(), model()), (agreement(), agreement()), (accuracy(), agreement())]
)
def test_results_that_cannot_be_compared_are_refused(compared, a, b):
    with pytest.raises(InputError, match="give two of bench latency, or two of bench accuracy with labels"):
        compared(a, b)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (accuracy("b", dataset={"images": 3}), "not the same images"),
        (accuracy("b", dataset={"name": "voc-20"}), "not the same name"),
        (accuracy("b", classes=[class_row("road", 40.0, labelled=99)]), "not the same classes and labelled pixels"),
    ],
)
def test_accuracies_of_other_data_sets_are_refused_in_any_case(compared, other, words):
    with pytest.raises(InputError, match=words):
        compared(accuracy("a"), other, across=True)


def test_without_each_image_s_counts_there_is_no_interval(compared):
    body = compared(accuracy("a", 40.0), accuracy("b", 41.25))
    found = body["miou"]["detectron2"]
    assert (found["difference_percent"], found["low_percent"], found["verdict"]) == (1.25, None, "no interval")
    assert body["notes"] == [MISSING]


def counts(correct, labelled=100, keys="abcd"):
    """Of each image: one class, so many pixels of it, all predicted where they are right."""
    rows = []
    for key, right in zip(keys, correct, strict=True):
        pixels = {"labelled_pixels": [labelled], "predicted_pixels": [right], "correct_pixels": [right]}
        rows.append({"key": key, "classes": [0], **pixels})
    return rows


def test_interval_comes_from_the_same_images_drawn_for_both(compared):
    """Images that differ much from each other, but are each a little better in B: paired, the gain is certain."""
    one = accuracy("a", 50.0, per_image=counts([10, 40, 60, 90]))
    two = accuracy("b", 52.0, per_image=counts([12, 42, 62, 92]))
    body = compared(one, two)
    found = body["miou"]["detectron2"]
    assert found["verdict"] == "B is better"
    assert [found[f"{key}_percent"] for key in ("low", "difference", "high")] == pytest.approx([2, 2, 2])
    assert compared(two, one)["miou"]["mmseg"]["verdict"] == "B is worse"
    assert body["notes"] == []


def test_images_of_other_names_give_no_interval(compared):
    one, two = (
        accuracy(name, per_image=counts([1, 2, 3, 4], keys=keys)) for name, keys in (("a", "abcd"), ("b", "abce"))
    )
    assert compared(one, two)["notes"] == [OTHERS]


def images(labelled, predicted, correct):
    return Images(*(np.array(table, np.float64) for table in (labelled, predicted, correct)))


def test_miou_of_a_resample_is_that_of_its_images():
    """Class 1 is never labelled: left out by one convention, 0 by the other; class 2 never occurs."""
    found = images([[10, 0, 0], [30, 0, 0]], [[8, 2, 0], [10, 0, 0]], [[8, 0, 0], [10, 0, 0]])
    weights = np.array([[1, 1], [2, 0]], np.float64)
    assert found.miou(weights, "detectron2").tolist() == [100 * 18 / 40, 100 * 16 / 20]
    assert found.miou(weights, "mmseg").tolist() == [50 * 18 / 40, 50 * 16 / 20]


def test_interval_of_the_difference_covers_the_truth():
    """60 times, 50 images are drawn from a population whose difference is known."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        hard = random.uniform(0.2, 0.9, (50, 1))
        right = [np.clip(hard + gain + random.normal(0, 0.1, (50, 1)), 0, 1) * 1000 for gain in (0.0, 0.02)]
        a, b = (images(np.full((50, 1), 1000), part, part) for part in right)
        covered += difference_of_miou(a, b, "detectron2").holds(2.0)
    assert covered >= 52
