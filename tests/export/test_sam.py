"""SAM against segment-anything itself: the networks, the exported graphs, the masks of prompts on photos."""

import numpy as np
import pytest
import torch

from edgeseg.errors import CheckpointError, InputError
from edgeseg.export import sam
from edgeseg.export.bundle import Checkpoint, export_bundle
from edgeseg.export.recipe import preset, preset_names
from tests.export.small_sam import CANVAS, RECIPE, authors, load
from tests.reference.mobile_sam import TinyEncoder, fill_sam, mobile_sam, parts
from tests.reference.sam_masks import photo

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

IOU = 0.995  # the issue's


def iou(ours, theirs):
    """Of two stacks of masks (N, H, W), the mean; two empty masks are equal."""
    both, either = (ours & theirs).sum(axis=(1, 2)), (ours | theirs).sum(axis=(1, 2))
    return float(np.where(either, both / np.maximum(either, 1), 1.0).mean())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Ours and the authors' small SAM, in float64 so that rewrites can be told from rounding."""
    theirs = authors().requires_grad_(False)
    ours = load(tmp_path_factory.mktemp("small-sam"), theirs)
    theirs = theirs.double()
    theirs.prompt_encoder.float()  # it casts points to float32, whatever it is
    return ours.double(), theirs


def prompts(kind):
    random = np.random.Generator(np.random.PCG64(3))
    points = torch.from_numpy(random.uniform(0, CANVAS, (5, 2, 2)))
    if kind == "box":
        return points.sort(dim=1).values, torch.tensor([[2.0, 3.0]] * 5).double()
    labels = {"object": [1.0, -1.0], "background": [0.0, -1.0], "two points": [1.0, 0.0]}[kind]
    return points, torch.tensor([labels] * 5).double()


def their_masks(model, embedding, points, labels):
    """The authors' masks of one prompt after the other; their encoder pads points by itself."""
    found, encoder = [], model.prompt_encoder
    for place, label in zip(points.float(), labels.float(), strict=True):
        real = label >= 0
        if label[0] == 2:
            sparse, dense = encoder(None, place.reshape(1, 4), None)
        else:
            sparse, dense = encoder((place[None, real], label[None, real]), None, None)
        if bool(real.all()) and label[0] < 2:
            sparse = sparse[:, :2]  # two points of two: the padding behind them goes
        inputs = (tensor.double() for tensor in (embedding, encoder.get_dense_pe(), sparse, dense))
        found.append(model.mask_decoder.predict_masks(*inputs))
    return torch.cat([masks for masks, _ in found]), torch.cat([iou for _, iou in found])


def test_image_encoder_is_the_authors(small):
    ours, theirs = small
    image = torch.randn(1, 3, CANVAS, CANVAS, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(ours.image_encoder(image), theirs.image_encoder(image), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["object", "background", "two points", "box"])
def test_decoder_is_the_authors(small, kind):
    ours, theirs = small
    embedding = torch.randn(1, 64, CANVAS // 16, CANVAS // 16, generator=torch.Generator().manual_seed(1)).double()
    points, labels = prompts(kind)
    graph = sam.SamDecoderGraph(ours).double()
    masks, estimates, _, _ = graph(embedding, points, labels, torch.tensor([256.0, 256.0]).double())
    expected = their_masks(theirs, embedding, points, labels)
    # Their frequencies and positions are float32, whatever the model is.
    torch.testing.assert_close(masks, expected[0], rtol=1e-4, atol=1e-4 * float(expected[0].std()))
    torch.testing.assert_close(estimates, expected[1], rtol=1e-4, atol=1e-5)


def test_measures_are_of_the_valid_cells():
    from edgeseg.export.nets.segment_anything import Measures

    masks = torch.full((1, 2, 8, 8), -3.0)
    masks[0, 0, 2:5, 1:4] = 2.0
    masks[0, 0, 2, 1] = 0.5  # inside the mask, not sure
    masks[0, 0, 6, 6] = 9.0  # on padding
    stability, boxes = Measures()(masks, torch.tensor([6.0, 8.0]))
    torch.testing.assert_close(stability, torch.tensor([[8 / 9, 0.0]]))
    assert boxes.tolist() == [[[1, 2, 3, 4], [-1, -1, -1, -1]]]


def test_missing_tensors_are_named(tmp_path):
    state = dict(authors().state_dict())
    del state["mask_decoder.transformer.layers.1.norm4.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: mask_decoder\.transformer\.layers\.1\.norm4\.bias"):
        sam.load(tmp_path / "a.pth", state, RECIPE)


def test_a_sam_of_no_known_size_is_refused_and_presets_are_named(tmp_path):
    torch.save(authors().state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"no preset has a SAM of width 64 .*mobile-sam"):
        export_bundle(Checkpoint(tmp_path / "a.pth"), [], tmp_path / "a.bundle")
    with pytest.raises(CheckpointError, match="those of the family sam; leave --family out"):
        export_bundle(Checkpoint(tmp_path / "a.pth", "ebseg-b"), [], tmp_path / "a.bundle")


def test_options_that_sam_does_not_take_are_refused(tmp_path):
    torch.save(authors().state_dict(), tmp_path / "a.pth")
    file = tmp_path / "a.pth"
    with pytest.raises(InputError, match="family sam embeds no masks of another's SAM; leave --sam out"):
        export_bundle(Checkpoint(file, "sam-b", sam=file), [], tmp_path / "a.bundle")
    with pytest.raises(InputError, match=r"SAM was trained for 1024x1024, .*; leave --size out"):
        export_bundle(Checkpoint(file, "sam-b"), [(512, 512)], tmp_path / "a.bundle")


def test_every_preset_has_the_authors_thresholds():
    from edgeseg.segments.automatic import AutomaticOptions

    found = [recipe for recipe in map(preset, preset_names()) if recipe.family == "sam"]
    assert {recipe.name for recipe in found} == {"sam-b", "sam-l", "sam-h", "mobile-sam"}
    assert all(AutomaticOptions.of(recipe.options["automatic"], {}) == AutomaticOptions() for recipe in found)


def predictions(model, rgb, points, boxes):
    """The authors' masks at points (all three) and in boxes (the single one), (N, H, W) bool."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(model)
    predictor.set_image(rgb)
    at = [predictor.predict(point[None], np.ones(1), multimask_output=True)[0] for point in points]
    within = [predictor.predict(box=box, multimask_output=False)[0] for box in boxes]
    return np.concatenate(at), np.concatenate(within)


def ours(bundle, rgb, points, boxes):
    from tests.edgeseg.segments.opened import runner

    sam_runner = runner(bundle)
    sam_runner.embed(rgb)

    def full(prompted, masks):
        scaler = sam_runner.scaler()
        for prompt in prompted.masks:
            for logits in prompt[masks]:
                picture, window = np.zeros(rgb.shape[:2], bool), scaler.window(scaler.part(logits, 0.0))
                height, width = window.values.shape
                picture[window.top : window.top + height, window.left : window.left + width] = window.values > 0
                yield picture

    at = [mask for part in sam_runner.at_points(points) for mask in full(part, slice(1, 4))]
    within = [mask for part in sam_runner.in_boxes(boxes) for mask in full(part, slice(0, 1))]
    return np.stack(at), np.stack(within)


def prompts_on(rgb):
    """Points on a grid that is not symmetric, and boxes around them."""
    height, width = rgb.shape[:2]
    points = np.array([(0.13, 0.2), (0.5, 0.52), (0.81, 0.33), (0.4, 0.9)]) * (width, height)
    half = np.array([width, height]) * 0.12
    low, high = (points - half).clip(min=0), np.minimum(points + half, (width - 1, height - 1))
    return points, np.concatenate((low, high), axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["china", "astronaut"])
def test_prompts_with_published_weights_give_the_authors_masks(mobile_bundle, shared, name):
    rgb = photo(name)
    points, boxes = prompts_on(rgb)
    theirs = predictions(mobile_sam(shared / "data/mobile_sam.pt"), rgb, points, boxes)
    found = ours(mobile_bundle, rgb, points, boxes)
    assert iou(found[0], theirs[0]) >= IOU
    assert iou(found[1], theirs[1]) >= IOU


@pytest.mark.slow
def test_prompts_of_a_stand_in_vit_b_give_the_authors_masks(tmp_path):
    from segment_anything import sam_model_registry

    model = fill_sam(sam_model_registry["vit_b"]())
    torch.save(model.state_dict(), tmp_path / "b.pth")
    bundle = export_bundle(Checkpoint(tmp_path / "b.pth"), [], tmp_path / "b.bundle")
    assert bundle.manifest.name == "sam-b"
    rgb = photo("coffee")
    points, boxes = prompts_on(rgb)
    theirs, found = predictions(model, rgb, points, boxes), ours(bundle, rgb, points, boxes)
    assert 0.02 < theirs[0].mean() < 0.98
    assert iou(found[0], theirs[0]) >= IOU
    assert iou(found[1], theirs[1]) >= IOU


@pytest.mark.slow
def test_tiny_vit_is_timms(shared):
    model = mobile_sam(shared / "data/mobile_sam.pt")
    state = torch.load(shared / "data/mobile_sam.pt", weights_only=True)
    mine = sam.load(shared / "data/mobile_sam.pt", state, preset("mobile-sam"))
    assert isinstance(model.image_encoder, TinyEncoder)
    assert parts()[0].image_embedding_size == (64, 64)
    image = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(mine.image_encoder(image), model.image_encoder(image), rtol=1e-4, atol=1e-5)
