import pytest

from edgeseg.benches.machine.readings import Reading
from edgeseg.benches.machine.sysfs import Sysfs, governors, power_mode, slow_downs
from tests.benches.machine.trees import CPUS, LAPTOP, ORIN, write


@pytest.fixture
def laptop(tmp_path):
    return write(tmp_path, LAPTOP)


@pytest.fixture
def orin(tmp_path):
    return write(tmp_path, ORIN)


def test_clock_is_that_of_the_fastest_allowed_cpu(laptop):
    assert Reading("clock_mhz", "cpu", 3100.0) in list(Sysfs(laptop, CPUS).readings())
    assert Reading("clock_mhz", "cpu", 2400.0) in list(Sysfs(laptop, [0]).readings())


def test_zones_that_are_off_are_left_out(laptop):
    found = [reading for reading in Sysfs(laptop, CPUS).readings() if reading.kind == "temperature_c"]
    assert found == [Reading("temperature_c", "x86_pkg_temp", 61.0)]


def test_power_of_a_package_is_energy_between_two_readings(laptop, monkeypatch):
    clock = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr("edgeseg.benches.machine.sysfs.time.monotonic", lambda: next(clock))
    source = Sysfs(laptop, CPUS)
    assert not [reading for reading in source.readings() if reading.kind == "power_w"]
    energy = laptop / "sys/class/powercap/intel-rapl:0/energy_uj"
    energy.write_text("31000000")
    assert Reading("power_w", "package-0", 15.0) in list(source.readings())
    energy.write_text("5")  # the counter began again
    assert not [reading for reading in source.readings() if reading.kind == "power_w"]


def test_fan_is_no_throttle_and_a_hot_processor_is(laptop):
    assert list(Sysfs(laptop, CPUS).throttles()) == []
    (laptop / "sys/class/thermal/cooling_device0/cur_state").write_text("2")
    assert list(Sysfs(laptop, CPUS).throttles()) == ["the cooling device Processor is on"]


def test_modes_and_governors(laptop):
    assert governors(laptop, CPUS) == ("powersave",)
    assert power_mode(laptop) == "balanced"


def test_counters_of_a_laptop(laptop):
    assert slow_downs(laptop, CPUS) == {
        "CPU thermal throttling": 7,
        "over-current events": 0,
        "stops by the container's CPU quota": 5,
    }


def test_board_with_rails_clock_mode_and_alerts(orin):
    assert list(Sysfs(orin, CPUS).readings()) == [
        Reading("clock_mhz", "gpu", 1020.0),
        Reading("power_w", "VDD_IN", 12.0),
        Reading("power_w", "hwmon4", 17.5),
    ]
    assert list(Sysfs(orin, CPUS).throttles()) == ["the cooling device gpu-throttle-alert is on"]
    assert power_mode(orin) == "MAXN_SUPER"
    assert slow_downs(orin, CPUS)["over-current events"] == 2


def test_mode_without_its_table_is_a_number(orin):
    (orin / "etc/nvpmodel.conf").unlink()
    assert power_mode(orin) == "2"


def test_machine_that_tells_nothing(tmp_path):
    source = Sysfs(tmp_path, CPUS)
    assert (list(source.readings()), list(source.throttles())) == ([], [])
    assert (governors(tmp_path, CPUS), power_mode(tmp_path)) == ((), None)
    assert set(slow_downs(tmp_path, CPUS).values()) == {0}


def test_sensor_that_gives_an_error_is_left_out(laptop):
    zone = laptop / "sys/class/thermal/thermal_zone0/temp"
    zone.unlink()
    zone.mkdir()  # reading it raises an OSError, as a sensor that is asleep does
    assert not [reading for reading in Sysfs(laptop, CPUS).readings() if reading.kind == "temperature_c"]


def test_this_machine_can_be_asked():
    for reading in Sysfs().readings():
        assert reading.value > 0
    assert isinstance(slow_downs(), dict)
