import platform
import subprocess
import sys

import pytest

CODE = """
import sys
import numpy as np
from edgeseg.backends.denormals import flush_denormals
tiny = np.full(8, 1e-20, np.float32)
before = (tiny * tiny).any()
with flush_denormals():
    inside = (tiny * tiny).any()
after = (tiny * tiny).any()
print(before, inside, after)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the switch of this processor is not known")
def test_denormals_are_flushed_inside_the_block_and_only_there():
    made = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert made.stdout.split() == ["True", "False", "True"]
