"""A loose floor under the figures of `benches/peers/int8_cpu.py`, which measures and says what it includes."""

import pytest

from benches.peers.int8_cpu import COMPARISONS
from benches.peers.made import BUNDLE
from benches.peers.result import summarise
from benches.peers.turns import take_turns
from edgeseg.backends.host import overflows
from tests.conftest import NO_VNNI
from tests.export.test_fusion_int8 import quantized

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(overflows(), reason=NO_VNNI),
]

ROUNDS = 2
LEAST = {"chain": 1.2, "encoders": 1.4}


@pytest.fixture(scope="module")
def against(full_bundle, tmp_path_factory):
    """How fp32 stands to int8, for the chain and for the encoders; on the bundle of the other tests."""
    folder = tmp_path_factory.mktemp("speed-int8")
    (folder / BUNDLE).symlink_to(quantized(full_bundle("b")[0], "int8").path)
    done = [summarise(each, take_turns(folder, each.sides, ROUNDS, print), folder) for each in COMPARISONS]
    assert [each["left_out"] for each in done] == [[], []]
    return {each["name"]: each["sides"][1]["against"] for each in done}


@pytest.mark.parametrize("name", ["chain", "encoders"])
def test_int8_is_faster_than_fp32_on_a_processor_with_vnni(against, name):
    assert against[name]["time_ratio"]["median"] > LEAST[name]


@pytest.mark.parametrize("name", ["chain", "encoders"])
def test_int8_needs_less_memory_than_fp32(against, name):
    assert against[name]["memory_ratio"] > 1
