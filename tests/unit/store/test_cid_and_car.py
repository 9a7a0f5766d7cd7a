from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlease.store.car import CarReader, car_header, write_car
from everlease.store.cid import cid_of, digest_of, from_binary, parse_cid, to_binary
from everlease.store.errors import InvalidCar, InvalidCid


def test_cids_are_those_of_ipfs() -> None:
    assert cid_of(b"hello world") == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    assert cid_of(b"") == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnsu8",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5f",
        "BAFKREIFZJUT3TE2NHYEKKLSS27NH3K72YSCO7Y32KOAO5EEI66WOF36N5E",
        "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5A",
        "b../../../../../../../../../../../../../../../../etc/passwd",
        "bé" * 30,
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidCid):
        parse_cid(text)


@given(st.binary(max_size=50))
def test_cids_read_back(data: bytes) -> None:
    cid = cid_of(data)
    assert parse_cid(cid) == from_binary(to_binary(cid)) == cid
    assert len(digest_of(cid)) == 32


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 97), st.integers(0, 3))
def test_a_car_reads_back_from_chunks_of_any_size(items: list[bytes], step: int, roots: int) -> None:
    blocks = [(cid_of(item), item) for item in items]
    names = [cid for cid, _ in blocks[:roots]]
    stream = b"".join(write_car(blocks, names))
    reader = CarReader()
    got = [pair for start in range(0, len(stream), step) for pair in reader.feed(stream[start : start + step])]
    reader.finish()
    assert got == blocks
    assert reader.roots == tuple(names)
    if len(stream) > 1:
        torn = CarReader()
        list(torn.feed(stream[:-1]))
        with pytest.raises(InvalidCar):
            torn.finish()


def test_the_header_is_the_one_of_the_specification() -> None:
    assert car_header().hex() == "11" + "a265726f6f7473806776657273696f6e01"


@given(st.binary(max_size=120))
def test_hostile_cars_are_refused_or_wait_for_more(data: bytes) -> None:
    for stream in (data, car_header() + data):
        reader = CarReader()
        try:
            list(reader.feed(stream))
            reader.finish()
        except (InvalidCar, InvalidCid):
            pass


def test_a_section_above_the_limit_is_refused_at_its_length() -> None:
    with pytest.raises(InvalidCar):
        list(CarReader().feed(car_header() + b"\xff\xff\xff\xff\x7f"))
