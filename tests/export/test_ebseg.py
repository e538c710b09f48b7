import json
import re
from dataclasses import replace

import pytest
import torch

from edgeseg.errors import CheckpointError, InputError
from edgeseg.export import ebseg
from edgeseg.export.bundle import Checkpoint, choose_recipe
from edgeseg.export.nets.clip import ClipConfig
from edgeseg.export.nets.ebseg import EBSegConfig, Ensemble, TextConfig
from edgeseg.export.nets.pixel_decoder import DecoderConfig
from edgeseg.export.recipe import preset
from tests.export.small import shapes, small_config, small_state

pytestmark = pytest.mark.torch

B = EBSegConfig()
L = EBSegConfig(
    clip=ClipConfig(1024, 16, 14, 24, 18, 6, 4, 4096, 768),
    decoder=DecoderConfig(clip=1024, embedding=768, bias_heads=16),
    text=TextConfig(768, 12),
    ensemble=Ensemble(0.12, 0.4, 0.6),
)


def empty(named):
    """Tensors of these shapes that hold nothing."""
    return {name: torch.empty(shape, device="meta") for name, shape in named.items()}


def published(shared, variant):
    """Names and shapes of the published file, with what inference never reads."""
    keys = json.loads((shared / f"oracle/ebseg/ebseg_{variant}.keys.json").read_text())
    return empty({name: shape for name, (shape, _) in keys.items()})


def load(tmp_path, state, recipe="ebseg-b"):
    return ebseg.load(tmp_path / "a.pth", state, preset(recipe))


@pytest.mark.parametrize(("variant", "config"), [("b", B), ("l", L)])
def test_the_published_key_lists_are_detected_and_fit_exactly(shared, tmp_path, variant, config):
    state = published(shared, variant)
    recipe = choose_recipe(Checkpoint(tmp_path / "a.pth"), state)
    assert recipe.name == f"ebseg-{variant}"
    assert ebseg.detect(state, recipe) == config
    assert ebseg.load(tmp_path / "a.pth", state, recipe).config == config


def test_a_file_without_causal_mask_and_training_loss_loads_too(shared, tmp_path):
    state = {name: value for name, value in published(shared, "b").items() if not ebseg.IGNORED.fullmatch(name)}
    assert load(tmp_path, state).config == B


@pytest.mark.parametrize("like", ["b", "l"])
def test_a_small_model_gets_back_the_sizes_it_was_made_with(tmp_path, like):
    config = replace(small_config(like), ensemble=Ensemble(**preset(f"ebseg-{like}").options["ensemble"]))
    assert load(tmp_path, small_state(config), f"ebseg-{like}").config == config


@pytest.mark.parametrize("sizes", [{"queries": 7}, {"width": 96}, {"queries": 37, "width": 64}, {"text": False}])
def test_fine_tuned_sizes_load_when_the_tensors_agree(tmp_path, sizes):
    config = small_config(**sizes)
    model = load(tmp_path, empty(shapes(config)))
    assert (model.config.decoder, model.config.text) == (config.decoder, config.text)


def test_loaded_weights_are_the_files_and_want_no_gradient(tmp_path):
    state = small_state(small_config())
    model = load(tmp_path, dict(state))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def cut(name):
    return lambda state: state.pop(name)


def add(state):
    state["surprise.weight"] = torch.empty(1, device="meta")


def reshape(name, *shape):
    return lambda state: state.update({name: torch.empty(shape, device="meta")})


def rename(old, new):
    """Renumber blocks: `old` and `new` are the two sides of a regular expression."""

    def change(state):
        for name in [name for name in state if re.match(old, name)]:
            state[re.sub(old, new, name)] = state.pop(name)

    return change


def more_queries(state):
    reshape("sem_seg_head.predictor.query_feat.weight", 11, 128)(state)


CLIP, HEAD = "clip_visual_extractor", "sem_seg_head.predictor"
BROKEN = {
    "a missing key": (cut(f"{HEAD}.decoder_norm.bias"), f"1 missing: {HEAD}.decoder_norm.bias"),
    "a key too many": (add, "1 unexpected: surprise.weight"),
    "a mis-shaped tensor": (reshape(f"{HEAD}.decoder_norm.bias", 65), "decoder_norm.bias (65,) instead of (128,)"),
    "queries that disagree": (more_queries, "1 mis-shaped: sem_seg_head.predictor.query_embed.weight"),
    "positions not square": (reshape(f"{CLIP}.positional_embedding", 51, 64), "50 rows is not square"),
    "no positions": (reshape(f"{CLIP}.positional_embedding", 0, 64), "missing or odd"),
    "a trunk of two": (rename(rf"{CLIP}\.resblocks\.2\.", "elsewhere."), "no multiple of three"),
    "no trunk": (rename(rf"{CLIP}\.resblocks\.", "elsewhere."), "missing or odd"),
    "a gap in the blocks": (rename(r"backbone\.blocks\.3\.", "backbone.blocks.999999999999."), "missing or odd"),
    "heads that do not divide": (reshape(f"{HEAD}.attn_proj.layers.2.weight", 3 * 128, 128), "3 heads"),
    "no heads": (reshape(f"{HEAD}.attn_proj.layers.2.weight", 0, 128), "missing or odd"),
    "a decoder width without groups": (reshape("sem_seg_head.predictor.query_feat.weight", 10, 48), "48"),
    "a patch of nothing": (reshape(f"{CLIP}.conv1.weight", 64, 3, 0, 0), "missing or odd"),
    "a scalar for a matrix": (reshape("backbone.patch_embed.proj.weight"), "missing or odd"),
    "a huge claim": (reshape(f"{CLIP}.conv1.weight", 1 << 40, 3, 16, 16), "missing or odd"),
    "five global blocks": (reshape("backbone.blocks.0.attn.rel_pos_h", 127, 32), "5 global blocks"),
    "no position grid": (reshape("backbone.pos_embed", 1), "missing or odd"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_tensors_that_disagree_are_refused_and_named(tmp_path, name):
    change, expected = BROKEN[name]
    state = empty(shapes(small_config()))
    change(state)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, state)
    assert expected in caught.value.found


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    state = empty({"image_encoder.pos_embed": (1, 64, 64, 768), "neck.weight": (1,)})
    with pytest.raises(CheckpointError, match=r"no family that edgeseg knows \(image_encoder.pos_embed"):
        choose_recipe(Checkpoint(tmp_path / "a.pth"), state)


@pytest.mark.parametrize("change", [cut(f"{CLIP}.conv1.weight"), reshape(f"{CLIP}.conv1.weight")])
def test_a_checkpoint_without_clips_first_layer_is_of_no_known_family(tmp_path, change):
    state = empty(shapes(small_config()))
    change(state)
    with pytest.raises(CheckpointError, match="no family"):
        choose_recipe(Checkpoint(tmp_path / "a.pth", "ebseg-b"), state)


def test_the_family_option_chooses_where_the_tensors_do_not(tmp_path):
    state = empty(shapes(small_config()))
    with pytest.raises(CheckpointError, match=r"width 64 and patch 16.*--family ebseg-b or ebseg-l"):
        choose_recipe(Checkpoint(tmp_path / "a.pth"), state)
    with pytest.raises(CheckpointError, match="width 64 and patch 16"):
        choose_recipe(Checkpoint(tmp_path / "a.pth", "ebseg"), state)
    assert choose_recipe(Checkpoint(tmp_path / "a.pth", "ebseg-l"), state).name == "ebseg-l"


def test_an_unknown_family_is_refused_with_the_choices(tmp_path):
    with pytest.raises(InputError, match=r"use --family sed.*ebseg-b, ebseg-l"):
        choose_recipe(Checkpoint(tmp_path / "a.pth", "sed"), empty(shapes(small_config())))


def test_the_family_name_alone_leaves_the_choice_to_the_tensors(shared, tmp_path):
    assert choose_recipe(Checkpoint(tmp_path / "a.pth", "ebseg"), published(shared, "l")).name == "ebseg-l"


def test_a_preset_that_contradicts_the_tensors_is_refused(shared, tmp_path):
    with pytest.raises(CheckpointError, match="patch 16, which is ebseg-b, not ebseg-l; leave --family out"):
        choose_recipe(Checkpoint(tmp_path / "a.pth", "ebseg-l"), published(shared, "b"))


@pytest.mark.parametrize("canvas", [(640, 650), (650, 640), (1, 32), (16, 16)])
def test_a_canvas_that_is_no_multiple_of_32_is_refused_with_the_nearest(canvas):
    with pytest.raises(InputError, match=r"use --size \d+x\d+") as caught:
        ebseg.check_canvas(canvas)
    nearest = tuple(map(int, re.findall(r"\d+", caught.value.todo)))
    ebseg.check_canvas(nearest)
    assert max(abs(a - b) for a, b in zip(nearest, canvas, strict=True)) <= 31


def test_clips_input_is_the_floor_of_the_scaled_canvas():
    assert ebseg.clip_input((640, 864), 0.7) == (448, 604)
    assert ebseg.clip_input((32, 160), 0.5) == (16, 80)
