"""What a measurement was made on."""

import platform

import torch

from utils.core.environment import cores, describe_device, processor, versions


def test_the_machine_has_a_name_and_cores():
    assert processor() and cores() >= 1
    shown = describe_device(torch.device("cpu"))
    assert shown.startswith(processor()) and shown.endswith(f"{torch.get_num_threads()} threads")


def test_versions_are_those_that_run():
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
