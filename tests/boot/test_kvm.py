"""Linux's own hypervisor, `kvm-amd`, in the machine where the sidecar's CPUs run virtual processors too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_driver import states
from tests.support.shared_linux import AS_BOOTED

pytestmark = pytest.mark.timeout(300)

API_VERSION = "import fcntl, os; print(fcntl.ioctl(os.open('/dev/kvm', os.O_RDWR), 0xAE00))"


@pytest.fixture
def kvm(driven: LinuxSession) -> Iterator[LinuxSession]:
    """The shared machine with /dev/kvm."""
    driven.load_kvm()
    yield driven
    driven.unload_kvm()


def test_kvm_opens_beside_the_sidecar(kvm: LinuxSession) -> None:
    """Ref: Linux Documentation/virt/kvm/api.rst, 4.1 KVM_GET_API_VERSION."""
    assert kvm.guest.run(["python3", "-c", API_VERSION]).check().stdout == "12\n"
    assert states(kvm) == AS_BOOTED
