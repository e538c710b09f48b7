"""Where and under which conditions something was measured, in words that can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .result import Result

NOTHING = "(nothing)"

_MACHINE = ("machine", "board", "cpu", "cores", "platform")


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same; the values are words."""

    what: str
    a: str
    b: str

    @property
    def words(self) -> str:
        """`cpu is X and Y`."""
        return f"{self.what} is {self.a} in A and {self.b} in B"


def differences(a: Result, b: Result) -> tuple[Difference, ...]:
    """What differs between the surroundings of two results: machine, device, versions, power mode."""
    return between(surroundings(a.body), surroundings(b.body))


def settings(a: Result, b: Result) -> tuple[Difference, ...]:
    """What was asked differently: image, canvas, classes, threads, threshold, settings, classes left early."""
    return between(_settings(a.body), _settings(b.body))


def between(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[Difference, ...]:
    """Entries that are not alike, in the order of the first mapping."""
    names = [*a, *(name for name in b if name not in a)]
    pairs = [(name, a.get(name, NOTHING), b.get(name, NOTHING)) for name in names]
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def surroundings(body: Mapping[str, Any]) -> dict[str, str]:
    """Machine, device, versions, and for a latency the power mode and governors."""
    environment = body["environment"]
    found = {name: environment[name] for name in _MACHINE}
    found |= {name: body[name] for name in ("device", "device_name") if name in body}
    found |= {name: environment[name] for name in ("edgeseg", "python")}
    found |= {f"version of {name}": version for name, version in environment["packages"].items()}
    found |= {f"version of the SDK {name}": version for name, version in body.get("sdk", {}).items()}
    if "measurements" in body and "conditions" in body["measurements"][0]:
        found |= _power(body["measurements"][0]["conditions"])
    return {name: NOTHING if value is None else str(value) for name, value in found.items()}


def _settings(body: Mapping[str, Any]) -> dict[str, str]:
    asked = "threads", "in_order", "canvas", "threshold", "top_k", "resize"
    found = {name: body[name] for name in asked if name in body}
    found |= {f"setting {name}": value for name, value in body.get("settings", {}).items()}
    found |= {"class lists": body["class_lists"]} if "class_lists" in body else {}
    found |= {f"image {name}": body["image"][name] for name in ("size", "resized", "canvas") if "image" in body}
    found |= {"prompts": f"a list of {len(body['prompts'])} {_digest(body['prompts'])}"} if "prompts" in body else {}
    return {name: NOTHING if value is None else str(value) for name, value in found.items()}


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode("utf-8", "replace")).hexdigest()[:12]


def _power(conditions: Mapping[str, Any]) -> dict[str, Any]:
    governors = " and ".join(conditions["governors"]) or None
    limit = (conditions["gpu"] or {}).get("power_limit_w")
    return {"power mode": conditions["power_mode"], "frequency governor": governors, "power limit in W": limit}
