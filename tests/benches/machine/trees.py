"""Made-up `/sys` and `/proc` trees, written file by file."""

from pathlib import Path

CPUS = [0, 1]

LAPTOP = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "3100000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone0/temp": "61000",
    "sys/class/thermal/thermal_zone1/type": "off",
    "sys/class/thermal/thermal_zone1/temp": "-274000",
    "sys/class/thermal/cooling_device0/type": "Processor",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/class/thermal/cooling_device1/type": "pwm-fan",
    "sys/class/thermal/cooling_device1/cur_state": "3",
    "sys/class/powercap/intel-rapl:0/name": "package-0",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000",
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "500000",
    "sys/firmware/acpi/platform_profile": "balanced",
    "sys/fs/cgroup/cpu.stat": "usage_usec 10\nnr_periods 8\nnr_throttled 5\nthrottled_usec 9",
    "proc/stat": "cpu  1 1 1 1\ncpu0 100 0 100 700 0 0 0 50 0 0\ncpu1 200 100 0 700 0 0 0 0 0 0\ncpu2 9 9 9 9 9 9 9 9",
}

ORIN = {
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000",
    "sys/class/devfreq/154c0000.nvenc/cur_freq": "200000000",
    "sys/class/hwmon/hwmon3/name": "ina3221",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon3/in1_input": "5000",
    "sys/class/hwmon/hwmon3/curr1_input": "2400",
    "sys/class/hwmon/hwmon3/in2_label": "NC",
    "sys/class/hwmon/hwmon3/in2_input": "1",
    "sys/class/hwmon/hwmon3/curr2_input": "1",
    "sys/class/hwmon/hwmon3/in7_label": "sum of shunt voltages",
    "sys/class/hwmon/hwmon3/in7_input": "9",
    "sys/class/hwmon/hwmon4/name": "ina238",
    "sys/class/hwmon/hwmon4/power1_input": "17500000",
    "sys/class/hwmon/hwmon5/name": "nvme",
    "sys/class/hwmon/hwmon5/in1_label": "other",
    "sys/class/hwmon/hwmon5/in1_input": "5000",
    "sys/class/hwmon/hwmon5/curr1_input": "2400",
    "sys/class/hwmon/hwmon6/name": "soctherm_oc",
    "sys/class/hwmon/hwmon6/oc1_event_cnt": "2",
    "sys/class/thermal/cooling_device8/type": "gpu-throttle-alert",
    "sys/class/thermal/cooling_device8/cur_state": "1",
    "sys/class/thermal/cooling_device9/type": "cpu-throttle-alert",
    "sys/class/thermal/cooling_device9/cur_state": "0",
}


def write(root: Path, files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root
