"""The loop over rounds, with a backend that gives what the tests say and records what it was asked for."""

import numpy as np
import pytest

from edgeseg.backends.fake import FakeBackend
from edgeseg.chain import Chain, Link
from edgeseg.errors import BackendError, InputError
from edgeseg.pipelines.pnp_captions import Words
from edgeseg.pipelines.pnp_rounds import Rounds
from edgeseg.pipelines.pnp_settings import settings
from edgeseg.schema import GraphSpec, TensorSpec

IMAGE = {"pixels": np.zeros((1, 3, 32, 48), np.float32), "keep": np.ones((1, 1, 2, 3), np.float32)}
NAMES = ("a", "b", "c")
F, I32 = "float32", "int32"
GRAPHS = {
    "blip_vit": (
        {"pixels": (F, 1, 3, 32, 48), "keep": (F, 1, 1, 2, 3)},
        {"image_embeds": (F, 1, 7, 4)},
    ),
    "blip_itm_cam": (
        {"image_embeds": (F, 1, 7, 4), "input_ids": (I32, "B", "T"), "attn_mask": (I32, "B", "T")},
        {"cam": (F, "B", "T", 6), "itm_logits": (F, "B", 2)},
    ),
    "score": (
        {
            "cam": (F, "B", "T", 6),
            "pieces": (F, "B", "C", "T"),
            "keep": (F, 1, 1, 2, 3),
            "weight": (F, 1),
            "patches": (F, 1),
            "class_maps": (F, "C", 6),
        },
        {"keep_next": (F, 1, 1, 2, 3), "class_maps_next": (F, "C", 6)},
    ),
}
AXES = {"B": (1, 1, 2), "T": (3, 16, 9), "C": (1, 2, 4)}


def words(*names):
    ones = np.ones((len(names), 1), np.float32)
    return Words(
        names, ones, ones[:, 0], pieces={name: (i + 10,) for i, name in enumerate(names)}, frame=((9, 1), (8,))
    )


def score(inputs):
    """Each round leaves out one patch more, and adds its weight to one cell more."""
    keep = inputs["keep"].copy()
    keep.ravel()[int(keep.sum()) - 1] = 0
    maps = inputs["class_maps"].copy()
    maps[0, int(keep.sum())] += inputs["weight"][0]
    return {"keep_next": keep, "class_maps_next": maps}


def specs(tensors):
    return tuple(TensorSpec(name, kind, tuple(shape)) for name, (kind, *shape) in tensors.items())


def look(names=NAMES, outputs=None, **given):
    """What the rounds give, and the backend's calls."""
    backend = FakeBackend({"score": score, **(outputs or {})})
    links = []
    for name, (inputs, made) in GRAPHS.items():
        graph = GraphSpec(name, "fp32", (32, 48), f"{name}.onnx", (), specs(inputs), specs(made), axes=AXES)
        links.append(Link(graph, backend.open(None, graph)))
    looked = Rounds(Chain(links).steps(), IMAGE, words(*names), settings({"filter": "none", **given})).run()
    return looked, [name for name, _ in backend.calls]


def test_rounds_run_the_graphs_and_carry_patches_and_maps():
    looked, calls = look()
    assert calls == ["blip_vit", "blip_itm_cam", "score"] * 4
    np.testing.assert_array_equal(looked.maps[0], [0, 0, 1, 1, 1, 2])
    assert looked.kept.tolist() == [0, 1, 2]


def test_fewer_rounds_take_the_first_weights():
    looked, calls = look(rounds=2, weights="3,5,7")
    assert calls.count("score") == looked.rounds == 2
    np.testing.assert_array_equal(looked.maps[0], [0, 0, 0, 0, 5, 3])


def test_rounds_stop_when_the_labels_do():
    def same(inputs):
        return {"keep_next": inputs["keep"], "class_maps_next": np.eye(3, 6, dtype=np.float32)}

    assert look(outputs={"score": same}, early_stop=1.0)[0].rounds == 2
    assert look(outputs={"score": same})[0].rounds == 4


def test_filter_takes_the_first_image_that_the_rounds_take_too():
    def match(inputs):
        good = (inputs["input_ids"][:, 2] == 11).astype(np.float32) * 4 - 2
        cam = np.zeros((*inputs["input_ids"].shape, 6), np.float32)
        return {"cam": cam, "itm_logits": np.stack([-good, good], 1)}

    looked, calls = look(outputs={"blip_itm_cam": match}, filter="match", rounds=1)
    assert calls == ["blip_vit", "blip_itm_cam", "blip_itm_cam", "blip_itm_cam", "score"]  # three names in twos
    assert looked.kept.tolist() == [1]
    assert looked.maps.shape == (1, 6)


def test_list_of_an_image_takes_the_filters_place():
    looked, calls = look(only=("b",), filter="match")
    assert looked.kept.tolist() == [1]
    assert calls.count("blip_itm_cam") == 4  # nothing is asked of the filter


@pytest.mark.parametrize(("given", "found"), [({"only": ("dog",)}, "dog"), ({"only": ()}, "no class")])
def test_list_that_does_not_fit_is_refused(given, found):
    with pytest.raises(InputError, match=found):
        look(**given)


def test_more_classes_than_the_graphs_take_are_refused():
    with pytest.raises(InputError, match="5 classes, and the graphs take 4"):
        look(("a", "b", "c", "d", "e"))
    with pytest.raises(InputError, match="3 captions, and the graphs take 2"):
        look(tokens=4)


def test_maps_that_are_no_numbers_are_refused():
    def broken(inputs):
        return {"keep_next": inputs["keep"], "class_maps_next": inputs["class_maps"] * np.nan}

    with pytest.raises(BackendError, match="not finite"):
        look(outputs={"score": broken})
