"""What every key provider promises: one suite for a folder, a PKCS#11 token (SoftHSM2) and AWS KMS (moto's server)."""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyvault.errors import NotAuthenticError, ProviderError, UnknownFormatError
from keyvault.providers import KeyProvider, provider_from_url
from tests.support.keepers import KINDS, Keeper, make_keeper
from tests.support.kms import KmsServer

DEK = bytes(range(32))
AAD = b"what the wrap is bound to"
ROUNDS = int(os.environ.get("AUDIT_LEDGER_TEST_ROUNDS", "2"))


def start(keeper: Keeper, script: str) -> subprocess.Popen[str]:
    """Python in a process of its own; ``url`` is there."""
    prelude = f"from keyvault.providers import provider_from_url\nurl = {keeper.url!r}\n"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", prelude + script],
        env={**os.environ, **keeper.environment},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def kms() -> Iterator[KmsServer]:
    """One KMS for all tests of this file; each has names of its own in it."""
    with KmsServer() as server:
        yield server


@pytest.fixture(params=KINDS)
def keeper(request: pytest.FixtureRequest, kms: KmsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """An empty keeper of each kind."""
    made = make_keeper(request.param, tmp_path, kms)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    if made.kind == "pkcs11":
        # The module reads its configuration when it is initialised, and may be using the last test's still.
        provider_from_url(made.url).epochs()
    return made


@pytest.fixture
def provider(keeper: Keeper) -> KeyProvider:
    """A provider with the KEK of epoch 1."""
    provider = provider_from_url(keeper.url)
    provider.create(1)
    return provider


def test_what_is_wrapped_unwraps_for_whoever_has_the_same_keeper(keeper: Keeper, provider: KeyProvider) -> None:
    """The KEK is with its keeper and nowhere else: a provider opened later unwraps it, and knows the epochs."""
    blob = provider.wrap(1, DEK, AAD)
    assert DEK not in blob
    other = provider_from_url(keeper.url)
    assert other.unwrap(1, blob, AAD) == DEK
    assert other.epochs() == frozenset({1})
    assert provider.unwrap(1, other.wrap(1, DEK, AAD), AAD) == DEK


def test_a_provider_has_the_name_of_its_setting(keeper: Keeper, provider: KeyProvider) -> None:
    """And only files have a place."""
    scheme, _, rest = keeper.url.partition(":")
    assert provider.name == scheme
    assert provider.place == (Path(rest) if scheme == "file" else None)


def test_opening_connects_to_nothing(keeper: Keeper) -> None:
    """A keeper that is down does not keep a service from starting: readiness tells."""
    provider_from_url(keeper.url).create(1)
    with keeper.away():
        provider_from_url(keeper.url)


def test_a_kek_is_made_once(keeper: Keeper, provider: KeyProvider) -> None:
    """Creating an epoch again, here or elsewhere, keeps its KEK: keys are wrapped under it."""
    blob = provider.wrap(1, DEK, AAD)
    provider.create(1)
    provider_from_url(keeper.url).create(1)
    assert provider.unwrap(1, blob, AAD) == DEK
    assert provider.epochs() == frozenset({1})


def test_threads_that_create_at_once_make_one_kek(keeper: Keeper) -> None:
    """Whoever creates at the same time ends up with the same KEK."""
    providers = [provider_from_url(keeper.url) for _ in range(4)]
    for epoch in range(1, ROUNDS + 1):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda provider, epoch=epoch: provider.create(epoch), providers))
        blobs = [provider.wrap(epoch, DEK, AAD) for provider in providers]
        opened = [provider.unwrap(epoch, blob, AAD) for provider, blob in zip(reversed(providers), blobs, strict=True)]
        assert opened == [DEK] * 4
    assert providers[0].epochs() == frozenset(range(1, ROUNDS + 1))


def test_processes_that_create_at_once_make_one_kek(keeper: Keeper) -> None:
    """The same among processes, each of which wraps at once."""
    script = f"""
import sys, time
provider = provider_from_url(url)
time.sleep(max(0.0, {time.time() + 0.8} - time.time()))
provider.create(1)
print(provider.wrap(1, {DEK!r}, {AAD!r}).hex())
"""
    processes = [start(keeper, script) for _ in range(3)]
    blobs = [bytes.fromhex(process.communicate(timeout=60)[0]) for process in processes]
    provider = provider_from_url(keeper.url)
    assert [provider.unwrap(1, blob, AAD) for blob in blobs] == [DEK] * 3
    assert provider.epochs() == frozenset({1})


def test_a_wrap_is_bound_to_its_aad_and_its_epoch(provider: KeyProvider) -> None:
    """Another AAD, another epoch: not authentic."""
    provider.create(2)
    blob = provider.wrap(1, DEK, AAD)
    for epoch, aad in ((1, AAD + b"x"), (1, b""), (2, AAD)):
        with pytest.raises(NotAuthenticError):
            provider.unwrap(epoch, blob, aad)
    assert provider.unwrap(1, blob, AAD) == DEK


def test_every_changed_bit_is_noticed(provider: KeyProvider) -> None:
    """I9: whatever byte of a blob is changed, cut off or added, the blob is blamed, and never the keeper."""
    blob = provider.wrap(1, DEK, AAD)
    flipped = [blob[:at] + bytes([blob[at] ^ 1 << at % 8]) + blob[at + 1 :] for at in range(len(blob))]
    cut = [blob[:size] for size in (0, 1, 2, 13, 28, 29, len(blob) - 1)]
    longer = [blob + b"\x00", blob + bytes(8000)]
    for wrong in (*flipped, *cut, *longer):
        with pytest.raises(NotAuthenticError):
            provider.unwrap(1, wrong, AAD)
    assert provider.unwrap(1, blob, AAD) == DEK


def test_blobs_of_other_layouts_are_refused(provider: KeyProvider) -> None:
    """The first byte fixes the layout; nothing is tried in two ways."""
    blob = provider.wrap(1, DEK, AAD)
    assert blob[0] == {"file": 1, "pkcs11": 2, "awskms": 3}[provider.name]
    for first in {0, 1, 2, 3, 4, 255} - {blob[0]}:
        with pytest.raises(UnknownFormatError):
            provider.unwrap(1, bytes([first]) + blob[1:], AAD)


def test_no_wrap_is_like_another(provider: KeyProvider) -> None:
    """A nonce is never used twice."""
    assert len({provider.wrap(1, DEK, AAD) for _ in range(20)}) == 20


def test_a_destroyed_kek_is_gone_for_everybody_at_once(keeper: Keeper, provider: KeyProvider) -> None:
    """What was wrapped under it is unreachable, not damaged; other epochs go on, further ones can be made."""
    other = provider_from_url(keeper.url)
    provider.create(2)
    blobs = {epoch: provider.wrap(epoch, DEK, AAD) for epoch in (1, 2)}
    assert other.unwrap(1, blobs[1], AAD) == DEK
    assert provider.epochs() == frozenset({1, 2})

    provider.destroy(1)

    for each in (provider, other, provider_from_url(keeper.url)):
        assert each.epochs() == frozenset({2})
        with pytest.raises(ProviderError, match="gone for good"):
            each.unwrap(1, blobs[1], AAD)
        with pytest.raises(ProviderError, match="gone for good"):
            each.wrap(1, DEK, AAD)
        assert each.unwrap(2, blobs[2], AAD) == DEK
    provider.create(3)
    assert other.epochs() == frozenset({2, 3})


def test_destroying_again_changes_nothing(keeper: Keeper, provider: KeyProvider) -> None:
    """I12: a crash after it loses nothing, not even the time: the second answer is the first."""
    before = time.time_ns() // 1000
    first = provider.destroy(1)
    assert provider.destroy(1) == first
    assert provider_from_url(keeper.url).destroy(1) == first
    if provider.name == "awskms":
        assert first is not None
        assert 6.9 < (first - before) / 86_400_000_000 < 8.1
    else:
        assert first is None


def test_destroying_an_epoch_without_a_kek_changes_nothing(provider: KeyProvider) -> None:
    """There is nothing to wait for."""
    assert provider.destroy(7) is None
    assert provider.epochs() == frozenset({1})


def test_processes_that_destroy_at_once_destroy_once(keeper: Keeper, provider: KeyProvider) -> None:
    """All are told the same."""
    provider.create(2)
    providers = [provider_from_url(keeper.url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda each: each.destroy(1), providers))) == 1
    assert provider.epochs() == frozenset({2})


def test_a_keeper_that_is_down_is_unavailable_and_comes_back(keeper: Keeper, provider: KeyProvider) -> None:
    """I9: nothing is called damaged, nothing is called gone, and the provider works again by itself."""
    blob = provider.wrap(1, DEK, AAD)
    with keeper.away():
        for attempt in (
            lambda: provider.wrap(1, DEK, AAD),
            lambda: provider.unwrap(1, blob, AAD),
            lambda: provider.unwrap(1, blob[:-1] + bytes([blob[-1] ^ 1]), AAD),
            # "None" or "no epochs" would be believed.
            lambda: provider.destroy(1),
            provider.epochs,
        ):
            with pytest.raises(ProviderError):
                attempt()
    assert provider.unwrap(1, blob, AAD) == DEK
    assert provider.epochs() == frozenset({1})
    assert provider.unwrap(1, provider.wrap(1, DEK, AAD), AAD) == DEK


def test_many_threads_share_a_provider(provider: KeyProvider) -> None:
    """Each gets what is its own, good and bad blobs mixed."""

    def work(number: int) -> bool:
        plaintext, aad = number.to_bytes(32), number.to_bytes(2)
        blob = provider.wrap(1, plaintext, aad)
        with pytest.raises(NotAuthenticError):
            provider.unwrap(1, blob[:-1] + bytes([blob[-1] ^ 1]), aad)
        return provider.unwrap(1, blob, aad) == plaintext

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


def test_a_provider_survives_a_fork(keeper: Keeper, provider: KeyProvider) -> None:
    """Parent and child go on, each on its own."""
    script = f"""
import os
provider = provider_from_url(url)
blob = provider.wrap(1, {DEK!r}, {AAD!r})
child = os.fork()
opened = provider.unwrap(1, provider.wrap(1, provider.unwrap(1, blob, {AAD!r}), {AAD!r}), {AAD!r})
if child == 0:
    os._exit(0 if opened == {DEK!r} else 1)
status = os.waitpid(child, 0)[1]
opened = provider.unwrap(1, blob, {AAD!r})
print(status, opened == {DEK!r})
"""
    process = start(keeper, script)
    assert process.communicate(timeout=60)[0] == "0 True\n"


def test_no_secret_is_ever_shown(keeper: Keeper, provider: KeyProvider, caplog: pytest.LogCaptureFixture) -> None:
    """I5: neither PIN nor credentials nor what is wrapped, in representation, errors or logs of every level."""
    shown = [repr(provider), str(provider), str(vars(provider))]
    with caplog.at_level(logging.DEBUG):
        fresh = provider_from_url(keeper.url)
        blob = fresh.wrap(1, DEK, AAD)
        fresh.unwrap(1, blob, AAD)
        with keeper.away():
            for attempt in (lambda: fresh.wrap(1, DEK, AAD), fresh.epochs, lambda: fresh.destroy(1)):
                with pytest.raises(ProviderError) as refused:
                    attempt()
                shown += [str(refused.value), repr(refused.value), repr(refused.value.__cause__)]
    shown.append(caplog.text)
    for secret in (*keeper.secrets, DEK.hex(), base64.b64encode(DEK).decode(), str(DEK)):
        assert not any(secret in text for text in shown)
