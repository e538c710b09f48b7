import pytest

from edgeseg.engines.picking import Candidate, explain, pick


def candidate(precision, *seconds, passes=True, **fields):
    return Candidate("sam", precision, "sam_2 of sam: cosine 0.9", passes, 0.9, seconds or (1.0, 1.0, 1.0), **fields)


FP32 = candidate("fp32", 4.0, 4.0, 4.0, 4.0, 4.0)
FP16 = candidate("fp16", 2.0, 2.0, 2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        (candidate("int8", 1.0, 1.0, 1.0), "int8"),
        (candidate("int8", 1.0, 1.0, 1.0, passes=False), "fp16"),
        (candidate("int8", 2.0, 2.0, 2.0), "fp16"),
        (candidate("int8", 2.2, 2.1, 2.2), "fp16"),
        (candidate("int8", 1.0, 3.0, 1.0, 3.0, 1.0), "fp16"),  # half as slow, half as fast: a tie
        (candidate("int8", 1.99, 1.99, 1.99), "fp16"),  # faster for sure, by too little
        (candidate("int8", 1.0, 1.0, 1.0, same_as="fp16"), "fp16"),
    ],
)
def test_the_fastest_that_passes_is_taken_and_a_tie_goes_to_the_more_exact(other, taken):
    best = pick([FP32, FP16, other])
    assert best is not None
    assert best.precision == taken


def test_nothing_is_taken_if_nothing_passes():
    assert pick([candidate("fp32", passes=False)]) is None


def test_what_is_barred_is_not_taken():
    best = pick([FP32, FP16], frozenset({"fp16"}))
    assert best is FP32


def reasons(*candidates, barred=None):
    best = pick(candidates, frozenset(barred or {}))
    assert best is not None
    return [row.reason for row in explain(candidates, best, barred or {})]


def test_every_row_says_why():
    found = reasons(
        FP32,
        FP16,
        candidate("mixed", passes=False),
        candidate("int8", 2.0 / 0.97, 2.0 / 0.97, 2.0 / 0.97),
        candidate("fp8", same_as="fp16"),
    )
    assert found == [
        "fp32 0.50x of fp16: slower",
        "taken: 2.00x (2.00 to 2.00) of fp32",
        "fails: sam_2 of sam: cosine 0.9",
        "int8 0.97x of fp16: does not pay",
        "the same graph as fp16",
    ]


def test_the_exact_one_is_taken_with_its_reason():
    assert reasons(FP16, candidate("int8", 3.0, 3.0, 3.0))[0] == "taken: none that passes is faster"
    assert reasons(FP32)[0] == "taken: the only one that passes"


def test_what_passes_only_alone_says_what_the_chain_gave():
    assert reasons(FP32, FP16, barred={"fp16": "labels at 32x32: 90% equal"})[1] == (
        "passes alone, but not with the other graphs: labels at 32x32: 90% equal"
    )
