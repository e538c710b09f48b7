"""Masks that are dropped before they are brought to the photo's size are those that would be dropped after it."""

import numpy as np
import pytest

from edgeseg.placement import place
from edgeseg.segments import candidates
from edgeseg.segments.candidates import Answer, Rules, kept, scaled
from edgeseg.segments.nms import suppress
from edgeseg.segments.scaling import MaskScaler

RECIPE = {"divisor": 256, "resize": {"mode": "long-side", "long": 256}}
RULES = Rules(stability=0.8, offset=1.0, box_nms=0.7)
CELLS = 64


def scaler(height, width):
    return MaskScaler(place((height, width), [(256, 256)], RECIPE), CELLS)


def answers(scale, seed):
    """Blobs, many of them alike, some soft, some with a part of their own far away."""
    random = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[:CELLS, :CELLS]
    made = []
    for number in range(60):
        centre, radius = random.choice([12, 25, 40], 2) + random.normal(0, 1, 2), random.choice([2, 8, 20])
        logits = (radius - np.hypot(y - centre[0], x - centre[1])) * random.choice([0.3, 2.0])
        logits = (logits + random.normal(0, 0.3, logits.shape)).astype(np.float32)
        if number % 10 == 0:
            logits[-2, 3] = 4.0
        outer, inner = scale.bounds(logits)
        iou = float(random.choice([0.9, 0.95, 1.0]))
        made.append(Answer(scale.part(logits, -1.0), outer, inner, iou, (0.0, number), 1))
    return made


@pytest.mark.parametrize("size", [(200, 300), (700, 500), (40, 64)])
@pytest.mark.parametrize("seed", range(4))
def test_what_stays_is_what_stays_of_all_masks(size, seed, monkeypatch):
    scale = scaler(*size)
    some, calls = answers(scale, seed), []

    def counted(*words):
        calls.append(words)
        return scaled(*words)

    monkeypatch.setattr(candidates, "scaled", counted)
    found = kept(some, scale, RULES, lambda box: box[0] > 5)
    every = [one for one in (scaled(answer, scale, RULES) for answer in some) if one is not None and one.box[0] > 5]
    boxes, scores = np.array([one.box for one in every], np.float32), np.array([one.answer.iou for one in every])
    expected = [every[i].answer.point[1] for i in suppress(boxes, scores, RULES.box_nms)]
    assert [one.answer.point[1] for one in found] == expected
    assert 0 < len(found) < len(calls)
    assert len(calls) < len(some) or size[0] < CELLS  # of a photo smaller than the mask no pixel is certain


@pytest.mark.parametrize("size", [(200, 300), (700, 500), (40, 64), (9, 60)])
@pytest.mark.parametrize("seed", range(3))
def test_the_box_of_a_mask_lies_between_its_bounds(size, seed):
    scale, met = scaler(*size), 0
    everything = Rules(stability=0.0, offset=1.0, box_nms=0.7)
    for answer in answers(scale, seed):
        found = scaled(answer, scale, everything)
        if answer.inner is not None and found is not None:
            box, met = np.array(found.box), met + 1
            assert (box[:2] >= answer.outer[:2]).all()
            assert (box[2:] <= answer.outer[2:]).all()
            assert (box[:2] <= answer.inner[:2]).all()
            assert (box[2:] >= answer.inner[2:]).all()
    assert met > 0 or size[0] < 10


def test_no_answer_gives_no_mask():
    assert kept([], scaler(20, 30), RULES, lambda box: True) == []
