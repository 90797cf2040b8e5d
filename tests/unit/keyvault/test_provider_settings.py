"""The settings of key providers: what is accepted, and that nothing of a refused one is repeated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from keyvault.errors import ProviderError
from keyvault.providers import provider_from_url
from keyvault.providers.awskms import KmsSetting
from keyvault.providers.pkcs11_uri import TokenUri

PIN = "canary-4711"
TOKEN = "pkcs11:token=audit-ledger;object=kek?module-path=/usr/lib/softhsm/libsofthsm2.so"
KMS = "awskms:alias/audit-ledger?region=eu-central-1"


def test_a_token_is_named_by_a_uri() -> None:
    """RFC 7512, with what is not a plain character percent-encoded."""
    uri = TokenUri.parse(
        "pkcs11:object=kek%20of%20ours;serial=12ab;token=our%3Btoken?pin-source=file:/etc/pin&module-path=/opt/hsm%26.so"
    )
    assert uri == TokenUri(Path("/opt/hsm&.so"), "our;token", "12ab", "kek of ours", Path("/etc/pin"), None)
    assert TokenUri.parse(f"{TOKEN}&pin-source=file:///etc/pin").pin_file == Path("/etc/pin")
    assert TokenUri.parse(f"{TOKEN}&pin-source=/etc/pin").pin_file == Path("/etc/pin")


def test_a_pin_in_the_uri_works_and_is_not_shown() -> None:
    """Percent-encoded like the rest."""
    uri = TokenUri.parse(f"{TOKEN}&pin-value=canary%26{PIN}")
    assert uri.pin() == f"canary&{PIN}"
    assert "canary" not in repr(uri)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"pkcs11:object=kek?module-path=/m.so&pin-value={PIN}", "lacks token="),
        (f"pkcs11:token=t?module-path=/m.so&pin-value={PIN}", "lacks object="),
        (f"pkcs11:token=t;object=?module-path=/m.so&pin-value={PIN}", "lacks object="),
        (f"pkcs11:token=t;object=kek?pin-value={PIN}", "lacks module-path="),
        (f"pkcs11:token=t;object=kek?module-path=m.so&pin-value={PIN}", "absolute path"),
        (f"pkcs11:token=t;object=kek;pin-value={PIN}?module-path=/m.so", "none of token, serial, object"),
        (f"{TOKEN}&pin-value=a&{PIN}", "none of module-path, pin-source, pin-value"),
        (f"{TOKEN}&pin-value={PIN}&pin-value={PIN}", "twice"),
        (f"{TOKEN}&pin-value={PIN}&pin-source=file:/etc/pin", "either"),
        (f"{TOKEN}&pin-source={PIN}", "absolute path"),
        (f"{TOKEN}&pin-source=%7C/bin/{PIN}", "absolute path"),
        (f"{TOKEN}&pin-value=%ff{PIN}", "not UTF-8"),
        (TOKEN, "either"),
        ("pkcs11:", "lacks token="),
    ],
)
def test_a_uri_that_cannot_be_meant_is_refused_without_repeating_it(url: str, told: str) -> None:
    """With what is wrong, and never the PIN."""
    with pytest.raises(ProviderError, match=told) as refused:
        provider_from_url(url)
    assert PIN not in f"{refused.value}{refused.value.__cause__}"


def test_kms_is_named_by_alias_and_region() -> None:
    """Waiting time and endpoint if need be."""
    assert KmsSetting.parse(KMS) == KmsSetting("alias/audit-ledger", "eu-central-1", None, 30)
    all_set = f"{KMS}&endpoint=https://vpce-1.kms.eu-central-1.vpce.amazonaws.com&deletion-days=7"
    endpoint = "https://vpce-1.kms.eu-central-1.vpce.amazonaws.com"
    assert KmsSetting.parse(all_set) == KmsSetting("alias/audit-ledger", "eu-central-1", endpoint, 7)


@pytest.mark.parametrize(
    "url",
    [
        "awskms:",
        "awskms:alias/audit-ledger",
        "awskms:audit-ledger?region=eu-central-1",
        "awskms:alias/aws/ebs?region=eu-central-1",
        "awskms:alias/audit ledger?region=eu-central-1",
        "awskms:alias/audit-ledger?region=EU",
        f"{KMS}&region=eu-west-1",
        f"{KMS}&deletion-days=6",
        f"{KMS}&deletion-days=31",
        f"{KMS}&deletion-days=soon",
        f"{KMS}&endpoint=http://kms.example",
        f"{KMS}&endpoint=https://user:canary@kms.example",
        f"{KMS}&endpoint=https://[",
        f"{KMS}&secret=canary",
    ],
)
def test_a_kms_setting_that_cannot_be_meant_is_refused(url: str) -> None:
    """Plain HTTP to another machine among them: DEKs would travel in clear."""
    with pytest.raises(ProviderError) as refused:
        provider_from_url(url)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(("url", "package"), [(f"{TOKEN}&pin-value={PIN}", "pkcs11"), (KMS, "boto3")])
def test_a_package_that_is_not_installed_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extras are optional: without one, the error says how to get it."""
    scheme = url.partition(":")[0]
    monkeypatch.delitem(sys.modules, f"keyvault.providers.{scheme}", raising=False)
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ProviderError) as refused:
        provider_from_url(url)
    assert f"pip install 'gdpr-audit-ledger[{scheme}]'" in str(refused.value)
    assert package in str(refused.value)
    assert PIN not in str(refused.value)


def test_a_folder_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default runs without either package."""
    for package in ("boto3", "pkcs11"):
        monkeypatch.setitem(sys.modules, package, None)
    assert provider_from_url(f"file:{tmp_path}").name == "file"


@pytest.mark.parametrize("url", ["vault:canary", "file:", "/var/canary", ""])
def test_other_settings_are_refused_without_repeating_them(url: str) -> None:
    """The error names what is supported."""
    with pytest.raises(ProviderError, match="file:FOLDER, pkcs11:… or awskms:…") as refused:
        provider_from_url(url)
    assert "canary" not in str(refused.value)
