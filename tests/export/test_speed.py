"""A loose floor under the figures of `benches/peers`, which measures and says what it includes."""

import pytest

from benches.peers.comparisons import COMPARISONS
from benches.peers.made import BUNDLE, CHECKPOINT
from benches.peers.run import select
from benches.peers.turns import take_turns

pytestmark = [pytest.mark.torch, pytest.mark.slow]

ROUNDS = 2
OURS, THEIRS = "ebseg/edgeseg", "ebseg/torch"


@pytest.fixture(scope="module")
def turns(full_bundle, tmp_path_factory):
    """The chain and the authors' formulation in turn, on the checkpoint and the bundle of the other tests."""
    from tests.export.full_size import write_checkpoint

    folder = tmp_path_factory.mktemp("speed")
    (folder / BUNDLE).symlink_to(full_bundle("b")[0].path)
    write_checkpoint(folder, "b").rename(folder / CHECKPOINT)
    (chosen,) = select(COMPARISONS, [THEIRS])
    return take_turns(folder, chosen.sides, ROUNDS, print)


def test_chain_takes_less_than_half_the_time_of_the_authors_formulation(turns):
    assert min(turns.seconds(OURS)) < min(turns.seconds(THEIRS)) / 2


def test_chain_needs_at_most_half_the_memory_of_the_authors_formulation(turns):
    assert turns.ended[OURS]["peak_bytes"] <= turns.ended[THEIRS]["peak_bytes"] / 2
