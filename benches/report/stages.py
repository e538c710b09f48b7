"""Stages of a latency in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..latency.effort import TOTALS


def stage_words(stage: Mapping[str, Any]) -> str:
    """Its name for people."""
    return TOTALS.get(stage["name"], str(stage["name"]))


def stage_level(stage: Mapping[str, Any]) -> int:
    """0 for a total, 1 for a stage, 2 for a part of one."""
    return 0 if stage["name"] in TOTALS else 1 if stage["part_of"] is None else 2
