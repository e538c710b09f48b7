"""Which query is whose, and that a right answer costs less than any wrong one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from training.matching import assign, dice, matching_loss

pytestmark = pytest.mark.torch

CLASSES = 3


def prediction(masks, classes):
    """One image: for each query its mask of 16 cells, 0 or 1, and its class (CLASSES: none)."""
    logits = torch.full((1, len(classes), CLASSES + 1), -4.0)
    logits[0, range(len(classes)), classes] = 4.0
    wide = torch.tensor([masks]).float().reshape(1, len(classes), 4, 4) * 16 - 8
    others = logits[..., :CLASSES]
    return SimpleNamespace(masks=wide, logits_a=logits, logits_b=others, logits_d=others)


LEFT, RIGHT = [1, 1, 0, 0] * 4, [0, 0, 1, 1] * 4
LABELS = torch.stack([torch.tensor(LEFT), torch.tensor([0] * 16), torch.tensor(RIGHT)]).float().reshape(1, 3, 4, 4)
RIGHT_ANSWER = [LEFT, RIGHT, [0] * 16], [0, 2, CLASSES]


def test_each_column_gets_the_cheapest_query_that_is_left():
    cost = torch.tensor([[5.0, 1.0], [2.0, 0.0], [3.0, 9.0]])
    assert assign(cost).tolist() == [2, 1]
    assert assign(torch.zeros(3, 3)).tolist() == [0, 1, 2]


def test_dice_by_hand():
    masks = torch.tensor([[1.0, 1, 0, 0]])
    wanted = torch.tensor([[1.0, 0, 0, 0]])
    known = torch.tensor([1.0, 1, 1, 0])
    assert float(dice(masks, wanted, known)) == pytest.approx((2 * 1 + 1) / (2 + 1 + 1))


@pytest.mark.parametrize(
    ("masks", "classes"),
    [
        ([LEFT, RIGHT, [0] * 16], [2, 0, CLASSES]),
        ([LEFT, LEFT, [0] * 16], [0, 2, CLASSES]),
        ([LEFT, RIGHT, [0] * 16], [0, CLASSES, CLASSES]),
        ([LEFT, RIGHT, LEFT], [0, 2, 0]),
        ([[1] * 16, RIGHT, [0] * 16], [0, 2, CLASSES]),
    ],
    ids=["classes swapped", "a mask in the wrong place", "a class not found", "found twice", "a mask too large"],
)
def test_a_wrong_answer_costs_more_than_the_right_one(masks, classes):
    assert matching_loss(prediction(masks, classes), LABELS) > matching_loss(prediction(*RIGHT_ANSWER), LABELS) + 0.01


def test_the_order_of_the_queries_does_not_matter():
    masks, classes = RIGHT_ANSWER
    turned = prediction(masks[::-1], classes[::-1])
    assert float(matching_loss(turned, LABELS)) == pytest.approx(
        float(matching_loss(prediction(*RIGHT_ANSWER), LABELS))
    )


def test_cells_without_a_label_do_not_count():
    labels = LABELS.clone()
    labels[..., 1] = 0
    masks, classes = RIGHT_ANSWER
    other = [[1, 0, 0, 0] * 4, *masks[1:]]
    both = [float(matching_loss(prediction(one, classes), labels)) for one in (masks, other)]
    assert both[0] == pytest.approx(both[1], abs=1e-4)


def test_an_image_without_labels_asks_for_nothing():
    labels = torch.zeros_like(LABELS)
    nothing = matching_loss(prediction([LEFT, RIGHT, LEFT], [CLASSES] * 3), labels)
    something = matching_loss(prediction([LEFT, RIGHT, LEFT], [0, 1, 2]), labels)
    assert nothing < something
