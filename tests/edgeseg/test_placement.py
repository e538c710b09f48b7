import pytest

from edgeseg.errors import BundleError, InputError
from edgeseg.placement import place, resized

CANVASES = ((640, 640), (640, 864), (640, 960), (864, 640), (960, 640))
RECIPE = {"resize": {"mode": "short-side", "short": 640, "long": 2560}, "divisor": 32}


@pytest.mark.parametrize(
    ("original", "wanted"),
    [
        ((480, 640), (640, 853)),
        ((640, 480), (853, 640)),
        ((500, 375), (853, 640)),
        ((333, 500), (640, 961)),
        ((1, 1), (640, 640)),
        ((100, 1000), (256, 2560)),
        ((1000, 100), (2560, 256)),
        ((1, 100000), (1, 2560)),
        ((427, 640), (640, 959)),
        ((256, 257), (640, 643)),  # 642.5 goes up
    ],
)
def test_resized_size_is_detectron2s(original, wanted):
    assert resized(original, 640, 2560) == wanted


@pytest.mark.parametrize(
    ("original", "valid", "canvas", "exact"),
    [
        ((480, 640), (640, 853), (640, 864), True),  # 853 rounds up to 864
        ((427, 640), (640, 959), (640, 960), True),
        ((600, 640), (640, 683), (640, 864), False),  # the authors' would be 640x704
        ((640, 640), (640, 640), (640, 640), True),
        ((864, 640), (864, 640), (864, 640), True),  # a canvas's size, and the authors' size as well
        ((320, 320), (640, 640), (640, 640), True),
        ((333, 500), (639, 960), (640, 960), False),  # 640x961 fits nowhere
        ((100, 1000), (96, 960), (640, 960), False),
        ((1000, 100), (960, 96), (960, 640), False),
        ((1, 100000), (1, 960), (640, 960), False),
    ],
)
def test_image_takes_the_smallest_canvas_that_holds_it(original, valid, canvas, exact):
    placement = place(original, CANVASES, RECIPE)
    assert (placement.original, placement.valid, placement.canvas) == (original, valid, canvas)
    assert placement.exact is exact
    assert (placement.reason is None) is exact


def test_image_of_a_canvas_size_goes_in_as_it_is_and_says_so():
    placement = place((320, 448), ((640, 640), (320, 448)), RECIPE)
    assert placement.valid == placement.canvas == (320, 448)
    assert not placement.exact
    assert "640x896" in str(placement.reason)


def test_smallest_canvas_wins_whatever_the_order():
    canvases = ((1280, 1280), (640, 960), (640, 864))
    assert place((480, 640), canvases, RECIPE).canvas == (640, 864)


NONE = {"resize": {"mode": "none"}, "divisor": 32}


@pytest.mark.parametrize(
    ("original", "canvas", "exact"),
    [
        ((640, 864), (640, 864), True),
        ((640, 700), (640, 864), False),  # the authors' would be 640x704
        ((630, 850), (640, 864), True),
        ((100, 100), (640, 640), False),
    ],
)
def test_mode_none_pads_the_image_as_it_is(original, canvas, exact):
    placement = place(original, CANVASES, NONE)
    assert placement.valid == original
    assert (placement.canvas, placement.exact, placement.reason is None) == (canvas, exact, exact)


def test_mode_none_takes_an_image_of_a_canvas_that_is_no_multiple():
    assert place((100, 100), ((100, 100), (128, 128)), NONE).exact


def test_mode_none_refuses_what_no_canvas_holds():
    with pytest.raises(InputError, match="641x640, is not to be resized, and the canvases are 640x640, 640x864"):
        place((641, 640), CANVASES[:2], NONE)


def test_resizing_can_be_turned_off_whatever_the_recipe_says():
    placement = place((360, 480), ((384, 480), (640, 864)), RECIPE, resize="none")
    assert (placement.valid, placement.canvas, placement.exact) == ((360, 480), (384, 480), False)
    assert "as was asked" in str(placement.reason)
    with pytest.raises(InputError, match="'stretch' is unknown"):
        place((360, 480), CANVASES, RECIPE, resize="stretch")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"divisor": 0}, "its divisor is 0"),
        ({"divisor": "32"}, "its divisor is '32'"),
        ({"resize": {"mode": "short-side", "short": 640}}, "its long is None"),
        ({"resize": {"mode": "short-side", "short": -1, "long": 2560}}, "its short is -1"),
        ({"resize": {"mode": "short-side", "short": 640, "long": 1e9}}, "its long is 1000000000.0"),
        ({"resize": {"mode": "x" * 10_000}}, "its resize rule is"),
    ],
)
def test_recipe_that_holds_no_sizes_is_refused_in_one_short_line(changes, found):
    with pytest.raises(BundleError, match=f"cannot read the bundle's recipe: {found}") as caught:
        place((640, 640), CANVASES, RECIPE | changes)
    assert len(str(caught.value)) < 400


def test_mode_stretch_leaves_the_image_to_the_pipeline_on_the_largest_canvas():
    placement = place((300, 700), ((384, 384), (640, 640)), {"resize": {"mode": "stretch"}})
    assert (placement.valid, placement.canvas, placement.exact) == ((300, 700), (640, 640), True)
    with pytest.raises(InputError, match="stretches every image"):
        place((300, 700), ((384, 384),), {"resize": {"mode": "stretch"}}, resize="none")


@pytest.mark.parametrize("rule", [None, {"mode": "squeeze"}, "none"])
def test_unknown_rule_is_refused(rule):
    with pytest.raises(BundleError, match="resize rule"):
        place((640, 640), CANVASES, {"resize": rule})
