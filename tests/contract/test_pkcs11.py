"""What a token adds to the contract of key providers: labels that are not unique, PINs that are counted, sessions that
are lost."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.attributes import AttributeMapper
from pkcs11.exceptions import AttributeSensitive

from keyvault.errors import NotAuthenticError, ProviderError
from keyvault.providers import pkcs11 as module
from keyvault.providers.pkcs11 import Pkcs11Provider
from tests.support.softhsm import SoftHsm

DEK = bytes(range(32))
KEK = bytes(range(100, 132))


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A token of the test's own."""
    made = SoftHsm(tmp_path / "hsm")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.config))
    Pkcs11Provider.from_url(made.url).epochs()
    return made


@pytest.fixture
def provider(hsm: SoftHsm) -> Pkcs11Provider:
    """With the KEK of epoch 1."""
    provider = Pkcs11Provider.from_url(hsm.url)
    provider.create(1)
    return provider


@contextlib.contextmanager
def session_of(hsm: SoftHsm, *, labels_are_bytes: bool = False) -> Iterator[Any]:
    """A hand that reaches into the token: in the provider's own process, where it ends the provider's session."""
    path = str(hsm.module)
    with contextlib.suppress(pkcs11.PKCS11Error):
        pkcs11.lib(path).finalize()
    mapper = AttributeMapper()
    if labels_are_bytes:
        mapper.attribute_types[Attribute.LABEL] = mapper.attribute_types[Attribute.ID]
    token = pkcs11.lib(path).get_token(token_label="audit-ledger")
    yield token.open(rw=True, user_pin=hsm.pin, attribute_mapper=mapper)


def label_of(epoch: int) -> dict[Attribute, Any]:
    return {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: f"kek-{epoch}"}


def test_a_kek_never_leaves_the_token(hsm: SoftHsm, provider: Pkcs11Provider) -> None:
    """Made in it, sensitive, not extractable, of 256 bits, private, and good for nothing but wrapping."""
    provider.create(1)
    with session_of(hsm) as session:
        [key] = session.get_objects(label_of(1))
        yes = {"TOKEN", "PRIVATE", "SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL", "ENCRYPT", "DECRYPT"}
        no = {"EXTRACTABLE", "MODIFIABLE", "WRAP", "UNWRAP", "SIGN", "VERIFY", "DERIVE"}
        assert {name: key[Attribute[name]] for name in yes | no} == {name: name in yes for name in yes | no}
        assert (key[Attribute.KEY_TYPE], key[Attribute.VALUE_LEN]) == (KeyType.AES, 32)
        with pytest.raises(AttributeSensitive):
            key[Attribute.VALUE]


def test_the_format_of_a_wrap(hsm: SoftHsm) -> None:
    """0x02, nonce, AES-256-GCM with SHA-256(AAD): recomputed with general tools under a KEK that the test knows."""
    import_key(hsm, 1)
    provider = Pkcs11Provider.from_url(hsm.url)
    nonce = bytes(range(12))
    made = b"\x02" + nonce + AESGCM(KEK).encrypt(nonce, DEK, hashlib.sha256(b"aad").digest())
    assert provider.unwrap(1, made, b"aad") == DEK
    blob = provider.wrap(1, DEK, b"aad")
    assert AESGCM(KEK).decrypt(blob[1:13], blob[13:], hashlib.sha256(b"aad").digest()) == DEK
    assert (blob[0], len(blob)) == (2, 1 + 12 + 32 + 16)


def test_a_blob_is_blamed_only_while_the_kek_works(hsm: SoftHsm) -> None:
    """I9: tokens have no error of their own for a wrong tag. What a KEK that is out of order cannot open is not
    damaged."""
    import_key(hsm, 1, kind=KeyType.GENERIC_SECRET)
    import_key(hsm, 2, decrypts=False)
    nonce = bytes(12)
    sealed = AESGCM(KEK).encrypt(nonce, DEK, hashlib.sha256(b"").digest())
    provider = Pkcs11Provider.from_url(hsm.url)
    for blob in (b"\x02" + nonce + sealed, b"\x02" + nonce + bytes(len(sealed))):
        with pytest.raises(ProviderError, match="cannot be used"):
            provider.unwrap(1, blob, b"")
        with pytest.raises(ProviderError, match=r"kek-2 .* may not encrypt and decrypt"):
            provider.unwrap(2, blob, b"")


def test_a_key_that_was_not_made_in_the_token_becomes_no_kek(hsm: SoftHsm) -> None:
    """Whoever imported it has a copy that no destruction reaches."""
    import_key(hsm, 1)
    with pytest.raises(ProviderError, match="NEVER_EXTRACTABLE"):
        Pkcs11Provider.from_url(hsm.url).create(1)


def test_of_two_keys_with_one_label_neither_is_used(hsm: SoftHsm, provider: Pkcs11Provider) -> None:
    """A wrong guess would make keys that nobody can open. Destroying destroys both."""
    blob = provider.wrap(1, DEK, b"")
    import_key(hsm, 1)
    for attempt in (
        lambda: provider.wrap(1, DEK, b""),
        lambda: provider.unwrap(1, blob, b""),
        lambda: provider.create(1),
    ):
        with pytest.raises(ProviderError, match="2 keys in the token audit-ledger are labelled kek-1"):
            attempt()
    assert provider.epochs() == frozenset({1})
    provider.destroy(1)
    assert provider.epochs() == frozenset()


def test_labels_of_others_are_left_alone(hsm: SoftHsm, provider: Pkcs11Provider) -> None:
    """A token may hold keys of other services, and epochs are counted exactly."""
    with session_of(hsm) as session:
        for label in ("kek", "kek-01", "kek-1x", "kek-x", "other-2", "my-kek-3", ""):
            session.generate_key(KeyType.AES, 256, label=label, store=True)
    with session_of(hsm, labels_are_bytes=True) as session:
        session.generate_key(KeyType.AES, 256, label=b"\xff", store=True)
    provider.create(12)
    assert provider.epochs() == frozenset({1, 12})
    provider.destroy(1)
    assert provider.epochs() == frozenset({12})
    with session_of(hsm) as session:
        assert len(list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))) == 9


@pytest.mark.filterwarnings(
    # python-pkcs11 ends the search that could not begin once more, when it is collected.
    "ignore:Exception ignored in.*OperationContext:pytest.PytestUnraisableExceptionWarning"
)
def test_a_lost_session_is_opened_again(hsm: SoftHsm, provider: Pkcs11Provider) -> None:
    """A token that was restarted knows its sessions no more."""
    blob = provider.wrap(1, DEK, b"")
    with session_of(hsm):
        assert provider.unwrap(1, blob, b"") == DEK
    pkcs11.lib(str(hsm.module)).finalize()
    assert provider.unwrap(1, blob, b"") == DEK
    with pytest.raises(NotAuthenticError):
        provider.unwrap(1, blob, b"other")


def test_a_token_that_was_unplugged_is_found_again(hsm: SoftHsm, provider: Pkcs11Provider) -> None:
    """The module works all the time, and says that there is no such token."""
    blob = provider.wrap(1, DEK, b"")
    [token] = hsm.tokens.iterdir()
    token.rename(hsm.folder / "unplugged")
    for attempt in (provider.epochs, lambda: provider.unwrap(1, blob, b""), lambda: provider.destroy(1)):
        with pytest.raises(ProviderError, match="no token labelled audit-ledger"):
            attempt()
    (hsm.folder / "unplugged").rename(token)
    assert provider.unwrap(1, blob, b"") == DEK


def test_a_wrong_pin_is_tried_once(hsm: SoftHsm, provider: Pkcs11Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens lock themselves after a few wrong PINs, and a service asks often. A corrected PIN works at once."""
    blob = provider.wrap(1, DEK, b"")
    hsm.pin_file.write_text("wrong-4711\n")
    with pytest.raises(ProviderError, match="refuses the PIN") as refused:
        provider.epochs()
    with pytest.raises(ProviderError, match="has refused this PIN") as again:
        provider.unwrap(1, blob, b"")
    assert "4711" not in str(refused.value) + str(again.value) + repr(refused.value.__cause__)
    hsm.pin_file.write_text(hsm.pin)
    assert provider.unwrap(1, blob, b"") == DEK


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o660, 0o644])
def test_a_pin_that_others_can_read_is_refused(hsm: SoftHsm, provider: Pkcs11Provider, mode: int) -> None:
    """With what to do."""
    hsm.pin_file.chmod(mode)
    with pytest.raises(ProviderError, match="chmod 600"):
        provider.epochs()
    hsm.pin_file.chmod(0o640)
    assert provider.epochs() == frozenset({1})


def test_what_is_missing_is_named(hsm: SoftHsm, tmp_path: Path) -> None:
    """The token, the module, the file of the PIN; the file's content."""
    for url, missing in (
        (hsm.url_of("another"), "no token labelled another"),
        (hsm.url.replace(str(hsm.module), "/nowhere/module.so"), "/nowhere/module.so"),
        (hsm.url.replace(str(hsm.pin_file), "/nowhere/pin"), "cannot read the PIN from /nowhere/pin"),
    ):
        for attempt in (Pkcs11Provider.from_url(url).epochs, lambda url=url: Pkcs11Provider.from_url(url).create(1)):
            with pytest.raises(ProviderError, match=missing):
                attempt()
    hsm.pin_file.write_text("\n")
    with pytest.raises(ProviderError, match="holds no PIN"):
        Pkcs11Provider.from_url(hsm.url).epochs()
    hsm.pin_file.write_text(hsm.pin)
    not_a_module = tmp_path / "module.so"
    not_a_module.write_text("no library")
    with pytest.raises(ProviderError, match="cannot be used"):
        Pkcs11Provider.from_url(hsm.url.replace(str(hsm.module), str(not_a_module))).epochs()


def test_of_two_tokens_with_one_label_the_serial_number_says_which(hsm: SoftHsm, provider: Pkcs11Provider) -> None:
    """Without it neither is used."""
    blob = provider.wrap(1, DEK, b"")
    with session_of(hsm) as session:
        serial = session.token.serial.decode()
    hsm.make_token("audit-ledger")
    with pytest.raises(ProviderError, match="add serial="):
        provider.epochs()
    exact = Pkcs11Provider.from_url(hsm.url.replace("token=audit-ledger", f"token=audit-ledger;serial={serial}"))
    assert exact.unwrap(1, blob, b"") == DEK


def test_a_fork_in_the_middle_of_a_call_hangs_nobody(hsm: SoftHsm, provider: Pkcs11Provider) -> None:
    """The child has the module's lock as its parent held it, and nobody there who would ever give it back."""
    script = f"""
import os, signal
from pathlib import Path
from keyvault.providers.pkcs11 import Pkcs11Provider, _module_of
provider = Pkcs11Provider.from_url({hsm.url!r})
blob = provider.wrap(1, {DEK!r}, b"")
with _module_of(Path({str(hsm.module)!r})).lock:
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if provider.unwrap(1, blob, b"") == {DEK!r} else 1)
print(os.waitpid(child, 0)[1], provider.unwrap(1, blob, b"") == {DEK!r})
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0 True\n", "")


def test_a_process_that_hangs_in_the_lock_is_told_of(
    hsm: SoftHsm, provider: Pkcs11Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it gives up at last, and says what holds it up."""
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.1)
    fd = os.open(hsm.module, os.O_RDONLY)
    try:
        assert module._locked(fd)
        with pytest.raises(ProviderError, match=r"keeps .* locked"):
            provider.create(2)
    finally:
        os.close(fd)
    provider.create(2)
    assert provider.epochs() == frozenset({1, 2})


def import_key(hsm: SoftHsm, epoch: int, *, kind: KeyType = KeyType.AES, decrypts: bool = True) -> None:
    """Put a key that the test knows into the token."""
    with session_of(hsm) as session:
        session.create_object(
            {
                **label_of(epoch),
                Attribute.KEY_TYPE: kind,
                Attribute.VALUE: KEK,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                Attribute.ENCRYPT: True,
                Attribute.DECRYPT: decrypts,
            }
        )
