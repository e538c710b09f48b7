"""What may be set for PnP-OVSS, as Python values and as a command line's texts."""

import pytest

from edgeseg.errors import InputError
from edgeseg.pipelines.pnp_settings import Settings, settings


def test_defaults_are_the_released_ones():
    assert settings({}) == Settings()
    assert (Settings().rounds, Settings().patches, Settings().weights) == (4, 10, (2, 1, 1, 1))
    assert (Settings().cells, Settings().blur, Settings().last, Settings().background) == (0.15, 0.05, "sum", "always")
    assert (Settings().early_stop, Settings().crf) == (0, False)  # off: not theirs, and slow


def test_texts_are_read_as_what_the_setting_holds():
    given = {"rounds": "2", "weights": "1, 0.5", "crf": "yes", "blur": "0", "only": "cat, wooden table"}
    assert settings(given) == Settings(2, (1.0, 0.5), crf=True, blur=0.0, only=("cat", "wooden table"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("round", "4"),
        ("rounds", "0"),
        ("rounds", 2.5),
        ("rounds", "5"),  # there are four weights
        ("weights", "1,nan,1,1"),
        ("weights", "1,-1,1,1"),
        ("crf", "perhaps"),
        ("filter", "gpt"),
        ("match", "1.5"),
        ("background", "sometimes"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(InputError, match="round" if name == "rounds" else name):
        settings({name: value})
