from pathlib import Path

import pytest

from edgeseg.backends import host


@pytest.mark.parametrize(
    ("allowed", "siblings", "quota", "cores"),
    [
        ([0, 1, 2, 3], {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, "max 100000", 2),
        ([0, 1, 2, 3], {}, "max 100000", 4),
        ([1, 3], {1: "1,3", 3: "1,3"}, "max 100000", 1),
        ([0, 1, 2, 3], {}, "250000 100000", 3),
        ([0, 1, 2, 3], {}, "50000 100000", 1),
    ],
)
def test_cores_are_physical_allowed_and_granted(monkeypatch, tmp_path, allowed, siblings, quota, cores):
    files = {f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": s for cpu, s in siblings.items()}
    files["/sys/fs/cgroup/cpu.max"] = quota

    def path(text: str) -> Path:
        place = tmp_path / text.replace("/", "_")
        if text in files:
            place.write_text(files[text] + "\n")
        return place

    monkeypatch.setattr(host, "Path", path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(allowed), raising=False)
    assert host.physical_cores() == cores


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "sse avx2 avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("x86_64", "avx2 avx512f", True),
        ("aarch64", "", False),
    ],
)
def test_only_an_x86_without_vnni_overflows(monkeypatch, machine, flags, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda _self: flags)
    assert host.overflows() == expected
