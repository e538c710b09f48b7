"""What the machine was like while something was measured on it: clocks, power, temperature, other load, memory.

Everything comes from files of the Linux kernel and, for a GPU, from the driver's own library through ctypes; nothing
has to be installed for it. What a platform does not tell is left out, never guessed.
"""

from .conditions import Conditions, Machine
from .memory import DeviceMemory, HostMemory
from .nvml import Nvml
from .readings import Range, Reading, Source

__all__ = ["Conditions", "DeviceMemory", "HostMemory", "Machine", "Nvml", "Range", "Reading", "Source"]
