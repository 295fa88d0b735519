"""Stopping a platform while it starts."""

import time

import pytest

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.local.platform import Platform
from fulcrum.local.services import Addresses
from fulcrum.local.settings import Settings


def test_a_stopped_platform_waits_for_nothing_any_more(tmp_path):
    platform = Platform(Settings(data_dir=tmp_path / "data", client_file=tmp_path / "client.json"), {})
    platform.stop()
    began = time.monotonic()
    # Nobody listens there; without the stop this would be asked for a minute, and Ctrl-C would seem not to work.
    with pytest.raises(ServiceUnavailable, match="was stopped"):
        platform._wait_for_all(Addresses("redis://", "unix:/nowhere", "127.0.0.1", 9, 10))
    assert time.monotonic() - began < 10
