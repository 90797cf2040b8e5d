"""The page on key providers: its commands are run as they stand, its policies allow what is used and nothing else."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyvault.errors import NotAuthenticError
from keyvault.providers.awskms import AwsKmsProvider
from tests.e2e.cli_support import ROOT
from tests.e2e.test_docs_commands import own_environment, run_steps, steps_of
from tests.support.kms import REGION, KmsServer
from tests.support.softhsm import SoftHsm, find_softhsm

PAGE = (ROOT / "docs" / "how-to" / "key-providers.md").read_text()
_JSON = re.compile(r"^```json\n(?P<text>.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def kms() -> Iterator[KmsServer]:
    """A KMS."""
    with KmsServer() as server:
        yield server


def section(title: str) -> str:
    """The text under a heading, without its policies."""
    [text] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    return _JSON.sub("", text)


def test_a_folder(tmp_path: Path) -> None:
    """The KEK is where the page says, and in its copy."""
    here = {"/var/lib/audit-ledger": f"{tmp_path}/var", "/mnt/apart": f"{tmp_path}/apart"}
    run_steps(steps_of(section("A folder")), own_environment(tmp_path), here, tmp_path)
    kek = tmp_path / "var" / "kek" / "epoch-1.kek"
    assert kek.read_bytes() == (tmp_path / "apart" / "kek" / "epoch-1.kek").read_bytes()


def test_a_token(tmp_path: Path) -> None:
    """From the empty token to the prepared service."""
    found = find_softhsm()
    assert found is not None
    hsm = SoftHsm(tmp_path / "hsm", label="another")
    here = {
        "/etc/audit-ledger": f"{tmp_path}/etc",
        "softhsm2-util ": f"{found[1]} --module {found[0]} ",
        "/usr/lib/softhsm/libsofthsm2.so": str(found[0]),
    }
    environment = {**own_environment(tmp_path), **hsm.environment}
    run_steps(steps_of(section(r"A PKCS#11 token")), environment, here, tmp_path)
    assert not (tmp_path / "home" / "kek").exists()


def test_kms(kms: KmsServer, tmp_path: Path) -> None:
    """With the credentials of the environment."""
    environment = {**own_environment(tmp_path), **kms.environment}
    here = {f"region={REGION}": f"region={REGION}&endpoint={kms.endpoint}"}
    run_steps(steps_of(section("AWS KMS")), environment, here, tmp_path)
    assert not (tmp_path / "home" / "kek").exists()


def test_the_policies_allow_what_is_used_and_nothing_else(kms: KmsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Least rights: the service wraps, unwraps and looks; who makes and destroys KEKs needs the rest."""
    for name, value in kms.environment.items():
        monkeypatch.setenv(name, value)
    service, operator = [actions(json.loads(found["text"])) for found in _JSON.finditer(PAGE)]
    provider = AwsKmsProvider.from_url(kms.url_of("policies"))
    kms.operations.clear()
    provider.create(1)
    provider.create(2)
    provider.destroy(2)
    assert {f"kms:{name}" for name in kms.operations} - service == operator
    kms.operations.clear()
    blob = provider.wrap(1, b"d" * 32, b"")
    provider.unwrap(1, blob, b"")
    with pytest.raises(NotAuthenticError):
        provider.unwrap(1, blob, b"other")
    provider.epochs()
    assert {f"kms:{name}" for name in kms.operations} == service


def actions(policy: Any) -> set[str]:
    """Everything that a policy allows."""
    allowed = [statement["Action"] for statement in policy["Statement"]]
    return {action for each in allowed for action in ([each] if isinstance(each, str) else each)}


def test_the_extras_of_the_page_exist() -> None:
    """What the page says to install is what the project offers."""
    extras = set(re.findall(r"gdpr-audit-ledger\[(\w+)\]", PAGE))
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras == offered.keys() - {"dev"}
