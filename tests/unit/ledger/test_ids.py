"""Ids and refs: UUIDs that nobody can guess back, and refs that say of what kind they are."""

from __future__ import annotations

import uuid
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.ids import client_id_fault, correlation_id_fault, format_ref, parse_ref, parse_uuid, uuid7


@given(st.integers(0, 2**48 * 1000 - 1), st.binary(min_size=10, max_size=10))
def test_uuid7_has_the_bits_of_rfc_9562(microseconds: int, random: bytes) -> None:
    """48 bits of milliseconds, version 7, 12 random bits, variant 10, 62 random bits."""
    value = uuid7(microseconds, random)
    bits = f"{value.int:0128b}"
    drawn = f"{int.from_bytes(random, 'big'):080b}"
    assert int(bits[:48], 2) == microseconds // 1000
    assert (bits[48:52], bits[64:66]) == ("0111", "10")
    assert (bits[52:64], bits[66:]) == (drawn[4:16], drawn[18:])
    assert (value.version, value.variant) == (7, uuid.RFC_4122)


@given(st.integers(0, 2**50), st.integers(1000, 2**50), st.binary(min_size=10, max_size=10))
def test_uuid7_sorts_by_time(earlier: int, step: int, random: bytes) -> None:
    """An id of a later millisecond sorts behind."""
    assert uuid7(earlier, b"\xff" * 10) < uuid7(earlier + step, random)


@given(st.uuids())
def test_the_canonical_form_is_read_in_either_case(value: UUID) -> None:
    """A UUID is read from its canonical text, small or large letters."""
    assert parse_uuid(str(value)) == value
    assert parse_uuid(str(value).upper()) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0193a5e07c0070008000000000000001",
        "{0193a5e0-7c00-7000-8000-000000000001}",
        "urn:uuid:0193a5e0-7c00-7000-8000-000000000001",
        "0193a5e0-7c00-7000-8000-00000000000",
        "0193a5e0-7c00-7000-8000-000000000001\n",
        "0193a5e0-7c00-7000-8000-00000000000g",
        "0193a5e-07c00-7000-8000-000000000001",
        "\u0660193a5e0-7c00-7000-8000-000000000001",
        None,
        1,
        UUID(int=1),
    ],
)
def test_no_other_form_of_a_uuid_is_read(text: object) -> None:
    """Two texts of one id would be two ids to a client that compares texts."""
    assert parse_uuid(text) is None


def test_hashed_ids_are_refused() -> None:
    """Versions 3 and 5 can be guessed back to what was hashed; so can nothing of the other versions."""
    for hashed in (uuid.uuid3(uuid.NAMESPACE_DNS, "patient:A"), uuid.uuid5(uuid.NAMESPACE_DNS, "patient:A")):
        assert client_id_fault(hashed) is not None
    for good in (uuid.uuid1(), uuid.uuid4(), uuid7(0, bytes(10)), UUID("26bd7af2-7521-8dc3-bd48-33bb0906f95e")):
        assert client_id_fault(good) is None
    for special in (UUID(int=0), UUID(int=2**128 - 1), UUID("0193a5e0-7c00-7000-0000-000000000001")):
        assert client_id_fault(special) is not None


def test_a_trace_id_is_a_correlation_id() -> None:
    """Random in every bit, as a tracer makes it; what can be guessed back stays refused, and so does no id at all."""
    assert correlation_id_fault(UUID("0af76519-16cd-43dd-0448-eb211c80319c")) is None
    for refused in (uuid.uuid5(uuid.NAMESPACE_DNS, "patient:A"), uuid.uuid3(uuid.NAMESPACE_DNS, "x"), UUID(int=0)):
        assert correlation_id_fault(refused) == client_id_fault(refused) is not None


@given(st.binary(min_size=16, max_size=16))
def test_refs_round_trip(ref: bytes) -> None:
    """A ref is its kind and 32 hexadecimal digits; a ref of one kind is none of the other."""
    assert (format_ref("str", ref), format_ref("sub", ref)) == (f"str_{ref.hex()}", f"sub_{ref.hex()}")
    assert parse_ref("str", f"str_{ref.hex()}") == parse_ref("sub", f"sub_{ref.hex()}") == ref
    assert parse_ref("sub", f"str_{ref.hex()}") is parse_ref("str", f"sub_{ref.hex()}") is None


@pytest.mark.parametrize(
    "text",
    ["", "sub_", "sub_" + "0" * 31, "sub_" + "0" * 33, "sub_" + "A" * 32, "sub_" + "0" * 32 + "\n", None, 5, b"x"],
)
def test_no_refs(text: object) -> None:
    """Anything else is no ref."""
    assert parse_ref("sub", text) is None
