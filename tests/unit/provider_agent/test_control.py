"""One agent per data folder."""

import os
from pathlib import Path

import pytest

from provider_agent.control import lock_folder
from provider_agent.errors import ConfigurationRefused


def test_a_second_agent_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    first = lock_folder(tmp_path)
    with pytest.raises(ConfigurationRefused, match="already"):
        lock_folder(tmp_path)
    os.close(first)
    os.close(lock_folder(tmp_path))
