"""A torch and a torchvision that do not fit are found before they fail, with the way to fix it."""

from vertebra._torch import check_torch_and_torchvision, find_mismatch


def test_what_is_installed_here_fits():
    check_torch_and_torchvision()


def test_matching_builds_fit():
    assert find_mismatch("2.14.1", "0.29.1", "torch==2.14.1") is None
    assert find_mismatch("2.14.1+cpu", "0.29.1+cpu", "torch==2.14.1") is None
    assert find_mismatch("2.14.1+cu130", "0.29.1+cu130", "torch (>=2.14.0)") is None


def test_cpu_torch_beside_pypi_torchvision_is_explained():
    reason = find_mismatch("2.14.1+cpu", "0.29.1", "torch==2.14.1")
    assert "CPU-only build" in reason
    assert "pip install --force-reinstall 'torch==2.14.1'" in reason


def test_torchvision_made_for_another_torch_is_explained():
    reason = find_mismatch("2.13.0", "0.29.1", "torch==2.14.1")
    assert "needs torch==2.14.1, but torch 2.13.0 is installed" in reason
    assert "Fix it" in reason


def test_missing_torchvision_is_named():
    assert "torchvision is not installed" in find_mismatch("2.14.1", None)
