"""What AWS KMS adds to the contract of key providers: key states, waiting times, and refusals of every kind."""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest

from keyvault.errors import NotAuthenticError, ProviderError
from keyvault.providers import awskms
from keyvault.providers.awskms import AwsKmsProvider
from tests.support.kms import REGION, KmsServer

DEK = bytes(range(32))


@pytest.fixture(scope="module")
def server() -> Iterator[KmsServer]:
    """One for all tests of this file; each has names of its own in it."""
    with KmsServer() as server:
        yield server


@pytest.fixture
def name() -> str:
    """A name of the test's own."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def provider(server: KmsServer, name: str, monkeypatch: pytest.MonkeyPatch) -> AwsKmsProvider:
    """With the KEK of epoch 1."""
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    provider = AwsKmsProvider.from_url(server.url_of(name))
    provider.create(1)
    return provider


@pytest.fixture(scope="module")
def hand(server: KmsServer) -> Any:
    """A hand that reaches into KMS."""
    key = {"aws_access_key_id": "AKIAHAND", "aws_secret_access_key": "made-up"}
    return boto3.client("kms", region_name=REGION, endpoint_url=server.endpoint, **key)


def key_of(hand: Any, name: str, epoch: int) -> Any:
    return hand.describe_key(KeyId=f"alias/{name}-{epoch}")["KeyMetadata"]


REFUSALS = (
    "AccessDeniedException",
    "DisabledException",
    "ExpiredTokenException",
    "InternalFailure",
    "KMSInternalException",
    "KMSInvalidStateException",
    "KeyUnavailableException",
    "NotFoundException",
    "ThrottlingException",
    "made-up",
)


@pytest.mark.usefixtures("provider")
def test_a_refusal_is_unavailable_and_never_damage(
    server: KmsServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9: whatever KMS says of itself, of the key or of our credentials says nothing of the blob. And I5: its text,
    which may name a person, goes nowhere."""
    # Some of them are tried again after a moment, which the test need not wait for.
    monkeypatch.setattr(awskms, "_ATTEMPTS", 1)
    provider = AwsKmsProvider.from_url(server.url_of(name))
    blob = provider.wrap(1, DEK, b"")
    for code in REFUSALS:
        with server.refusing(code, "Encrypt", "Decrypt", "ListAliases", "ScheduleKeyDeletion", "CreateKey"):
            for attempt in (
                lambda: provider.wrap(1, DEK, b""),
                lambda: provider.unwrap(1, blob, b""),
                provider.epochs,
                lambda: provider.create(2),
            ):
                with pytest.raises(ProviderError) as refused:
                    attempt()
                assert "anna" not in f"{refused.value}{refused.value.__cause__}"
        if code != "NotFoundException":
            # "There is none" would be believed.
            with server.refusing(code, "DescribeKey"), pytest.raises(ProviderError):
                provider.destroy(1)
    assert provider.unwrap(1, blob, b"") == DEK


@pytest.mark.parametrize("code", ["InvalidCiphertextException", "IncorrectKeyException"])
def test_the_blob_is_blamed_only_while_the_key_is_there(
    server: KmsServer, provider: AwsKmsProvider, hand: Any, name: str, code: str
) -> None:
    """I9: of a key that is disabled, waits for its deletion or is gone, nothing is called damaged."""
    blob = provider.wrap(1, DEK, b"")
    key_id = key_of(hand, name, 1)["KeyId"]
    with server.refusing(code, "Decrypt"):
        with pytest.raises(NotAuthenticError):
            provider.unwrap(1, blob, b"")
        hand.disable_key(KeyId=key_id)
        with pytest.raises(ProviderError, match="disabled"):
            provider.unwrap(1, blob, b"")
        hand.enable_key(KeyId=key_id)
        hand.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
        with pytest.raises(ProviderError, match="waits for its deletion"):
            provider.unwrap(1, blob, b"")
        hand.delete_alias(AliasName=f"alias/{name}-1")
        with pytest.raises(ProviderError, match="there is no KEK"):
            provider.unwrap(1, blob, b"")


def test_a_disabled_key_can_come_back(provider: AwsKmsProvider, hand: Any, name: str) -> None:
    """So its epoch counts, and what is under it is unreachable until then."""
    blob = provider.wrap(1, DEK, b"")
    key_id = key_of(hand, name, 1)["KeyId"]
    hand.disable_key(KeyId=key_id)
    assert provider.epochs() == frozenset({1})
    with pytest.raises(ProviderError, match="enable it again"):
        provider.unwrap(1, blob, b"")
    hand.enable_key(KeyId=key_id)
    assert provider.unwrap(1, blob, b"") == DEK


def test_a_blob_of_another_key_is_not_authentic(provider: AwsKmsProvider) -> None:
    """KMS could find the key of a blob by itself. It is not let."""
    provider.create(2)
    with pytest.raises(NotAuthenticError):
        provider.unwrap(2, provider.wrap(1, DEK, b""), b"")


def test_a_destroyed_key_waits_for_its_deletion(provider: AwsKmsProvider, hand: Any, name: str) -> None:
    """For as long as the setting says; the alias stays, so that the date is found again. It is never used again, not
    even by making the epoch anew."""
    told = provider.destroy(1)
    key = key_of(hand, name, 1)
    assert key["KeyState"] == "PendingDeletion"
    assert told == round(key["DeletionDate"].timestamp() * 1_000_000)
    with pytest.raises(ProviderError, match="never used again"):
        provider.create(1)


def test_a_deletion_that_was_cut_short_is_completed(provider: AwsKmsProvider, hand: Any, name: str) -> None:
    """I12: a deletion that somebody else has begun keeps its date; a key that is gone with its alias is gone now."""
    key_id = key_of(hand, name, 1)["KeyId"]
    date = hand.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=30)["DeletionDate"]
    assert provider.destroy(1) == round(date.timestamp() * 1_000_000)
    assert provider.epochs() == frozenset()
    hand.delete_alias(AliasName=f"alias/{name}-1")
    assert provider.destroy(1) is None
    assert provider.epochs() == frozenset()


def test_who_comes_second_deletes_its_own_key(
    server: KmsServer, provider: AwsKmsProvider, hand: Any, name: str
) -> None:
    """Of many that create at once one gets the alias, and the keys of the others are not left to cost money."""
    providers = [AwsKmsProvider.from_url(server.url_of(name)) for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda each: each.create(2), providers))
    keys = [hand.describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in hand.list_keys(Limit=1000)["Keys"]]
    ours = [key for key in keys if key["Description"] == f"audit-ledger KEK alias/{name}-2"]
    assert [key["KeyId"] for key in ours if key["KeyState"] == "Enabled"] == [key_of(hand, name, 2)["KeyId"]]


def test_a_key_without_its_alias_is_no_kek(server: KmsServer, provider: AwsKmsProvider, hand: Any, name: str) -> None:
    """I12: a creation that was cut short is done anew, and its key is deleted where that is allowed."""
    with server.refusing("AccessDeniedException", "CreateAlias"), pytest.raises(ProviderError, match="credentials"):
        provider.create(2)
    with server.refusing("AccessDeniedException", "CreateAlias", "ScheduleKeyDeletion"), pytest.raises(ProviderError):
        provider.create(2)
    assert provider.epochs() == frozenset({1})
    provider.create(2)
    keys = [hand.describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in hand.list_keys(Limit=1000)["Keys"]]
    states = [key["KeyState"] for key in keys if key["Description"] == f"audit-ledger KEK alias/{name}-2"]
    assert sorted(states) == ["Enabled", "Enabled", "PendingDeletion"]
    assert provider.unwrap(2, provider.wrap(2, DEK, b""), b"") == DEK


@pytest.mark.parametrize("operation", ["CreateKey", "CreateAlias", "ScheduleKeyDeletion"])
def test_an_answer_that_is_lost_changes_nothing(
    server: KmsServer, provider: AwsKmsProvider, hand: Any, name: str, operation: str
) -> None:
    """I12: what was done and not told of is found done; above all, no process deletes its own KEK for another's."""
    server.lose_answer(operation)
    provider.create(2)
    blob = provider.wrap(2, DEK, b"")
    assert key_of(hand, name, 2)["KeyState"] == "Enabled"
    assert AwsKmsProvider.from_url(server.url_of(name)).unwrap(2, blob, b"") == DEK
    told = provider.destroy(2)
    assert told == round(key_of(hand, name, 2)["DeletionDate"].timestamp() * 1_000_000)
    assert provider.epochs() == frozenset({1})


def test_a_kms_that_hangs_is_given_up(provider: AwsKmsProvider, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts a connection and never answers. A request waits some ten seconds, and no longer."""
    attempts, connect, read = awskms._ATTEMPTS, awskms._CONNECT_SECONDS, awskms._READ_SECONDS
    assert attempts * (connect + read) <= 10
    monkeypatch.setattr(awskms, "_READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"awskms:alias/{name}?region={REGION}&endpoint=http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ProviderError, match="cannot be reached"):
            AwsKmsProvider.from_url(url).wrap(1, DEK, b"")
        assert time.monotonic() - started < 5


def test_a_key_that_was_made_beforehand_is_taken(provider: AwsKmsProvider, hand: Any, name: str) -> None:
    """So that the service needs no right to make keys. One that cannot be a KEK is refused."""
    made = hand.create_key()["KeyMetadata"]["KeyId"]
    hand.create_alias(AliasName=f"alias/{name}-2", TargetKeyId=made)
    provider.create(2)
    assert key_of(hand, name, 2)["KeyId"] == made
    assert provider.unwrap(2, provider.wrap(2, DEK, b""), b"") == DEK
    others: list[dict[str, Any]] = [
        {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"},
        {"MultiRegion": True},
        {"Origin": "EXTERNAL"},
    ]
    for epoch, kind in enumerate(others, start=3):
        other = hand.create_key(**kind)["KeyMetadata"]["KeyId"]
        hand.create_alias(AliasName=f"alias/{name}-{epoch}", TargetKeyId=other)
        with pytest.raises(ProviderError, match="cannot be a KEK"):
            provider.create(epoch)


def test_aliases_of_others_are_left_alone(provider: AwsKmsProvider, hand: Any, name: str) -> None:
    """Epochs are counted exactly, over as many pages of aliases as there are."""
    made = hand.create_key()["KeyMetadata"]["KeyId"]
    for alias in (name, f"{name}-01", f"{name}-x", f"{name}-2-old", f"my-{name}-3"):
        hand.create_alias(AliasName=f"alias/{alias}", TargetKeyId=made)
    for number in range(60):
        hand.create_alias(AliasName=f"alias/a-{name}-z{number}", TargetKeyId=made)
    provider.create(12)
    assert provider.epochs() == frozenset({1, 12})


def test_what_is_waited_for_has_an_end(
    provider: AwsKmsProvider, hand: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that never becomes usable is an error that names its state."""
    monkeypatch.setattr(awskms, "_SETTLE_SECONDS", 0.1)
    hand.disable_key(KeyId=key_of(hand, name, 1)["KeyId"])
    with pytest.raises(ProviderError, match="state Disabled and not Enabled"):
        provider.create(1)


def test_credentials_may_come_later(
    server: KmsServer, provider: AwsKmsProvider, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any it says where to look, and when there are some it works by itself."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    waiting = AwsKmsProvider.from_url(server.url_of(name))
    with pytest.raises(ProviderError, match="credentials"):
        waiting.epochs()
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    assert waiting.epochs() == frozenset({1})


def test_credentials_that_are_no_longer_taken_are_looked_for_anew(
    server: KmsServer, provider: AwsKmsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes them need not restart the service."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACHANGED")
    provider.wrap(1, DEK, b"")
    assert server.credentials[-1] == "AKIAMADEUP"
    with server.refusing("ExpiredTokenException", "Encrypt"), pytest.raises(ProviderError):
        provider.wrap(1, DEK, b"")
    provider.wrap(1, DEK, b"")
    assert server.credentials[-1] == "AKIACHANGED"


def test_requests_are_not_logged(provider: AwsKmsProvider, server: KmsServer, name: str) -> None:
    """I5: AWS's libraries log requests and answers with the DEKs in them, if they are let."""
    logging.getLogger("botocore").setLevel(logging.DEBUG)
    AwsKmsProvider.from_url(server.url_of(name)).wrap(1, DEK, b"")
    for library in ("boto3", "botocore.endpoint", "botocore.parsers", "urllib3.connectionpool"):
        assert not logging.getLogger(library).isEnabledFor(logging.INFO)
