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
