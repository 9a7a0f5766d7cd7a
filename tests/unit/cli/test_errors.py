"""Errors that nobody calls their own: one sentence and an exit code."""

import errno
import os

import pytest
from eth_abi import encode
from eth_abi.exceptions import EncodingError

from everlease.chain.errors import NonceHeld, TooDear
from everlease.cli.errors import ExitCode, explain


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.ENOLCK, errno.EIO])
@pytest.mark.parametrize("file", [None, "/state/sent.json"])
def test_trouble_with_the_machine_is_one_sentence(number: int, file: str | None) -> None:
    told = explain(OSError(number, os.strerror(number), file))
    assert told is not None
    assert told.code == ExitCode.UNAVAILABLE
    assert str(told) == (f"{file}: " if file else "") + os.strerror(number)


def test_a_file_that_is_not_there_is_a_mistake() -> None:
    told = explain(FileNotFoundError(errno.ENOENT, "No such file or directory", "job.yaml"))
    assert told is not None
    assert told.code == ExitCode.INVALID


def test_an_os_error_without_a_number_is_unexpected() -> None:
    assert explain(OSError("what is this")) is None


def test_a_value_that_no_contract_takes_is_a_mistake() -> None:
    with pytest.raises(EncodingError) as refused:
        encode(["uint32"], [2**32])
    told = explain(refused.value)
    assert told is not None
    assert told.code == ExitCode.INVALID


@pytest.mark.parametrize("error", [NonceHeld("pay", 1), TooDear("pay", 10**12, 10**11)])
def test_what_may_work_later_is_unavailable(error: Exception) -> None:
    told = explain(error)
    assert told is not None
    assert told.code == ExitCode.UNAVAILABLE
