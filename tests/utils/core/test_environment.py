"""What a measurement was made on."""

import platform

import torch

from utils.core.environment import cpu_count, cpu_name, describe_device, library_versions


def test_the_machine_has_a_name_and_cores():
    assert cpu_name() and cpu_count() >= 1
    shown = describe_device(torch.device("cpu"))
    assert shown.startswith(cpu_name()) and shown.endswith(", 1 thread")


def test_versions_are_those_that_run():
    found = library_versions()
    assert found["python"] == platform.python_version()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
