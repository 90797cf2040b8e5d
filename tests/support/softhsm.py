"""A SoftHSM2 token of a test's own: a PKCS#11 module as every HSM has one, with its objects in a temporary folder."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MODULE = "libsofthsm2.so"
TOOL = "softhsm2-util"
_LIBRARIES = ("/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/lib/aarch64-linux-gnu/softhsm")
_MORE_LIBRARIES = ("/usr/lib64/pkcs11", "/usr/local/lib/softhsm", "/opt/homebrew/lib/softhsm")


class SoftHsmError(Exception):
    """SoftHSM2 is missing, or made no token; the message says what to do."""


def find_softhsm() -> tuple[Path, Path] | None:
    """Module and tool: where SOFTHSM2_MODULE says, else where it is installed or where scripts/test unpacks it."""
    unpacked = Path(sys.prefix, "softhsm")
    chosen = os.environ.get("SOFTHSM2_MODULE")
    folders = [Path(folder) for folder in (*_LIBRARIES, *_MORE_LIBRARIES)] + [unpacked / "lib"]
    modules = [Path(chosen)] if chosen else [folder / MODULE for folder in folders]
    module = next((path for path in modules if path.exists()), None)
    tool = shutil.which(TOOL, path=f"{os.environ.get('PATH', '')}{os.pathsep}{unpacked / 'bin'}")
    return (module, Path(tool)) if module is not None and tool is not None else None


@dataclass
class SoftHsm:
    """One token at first. Programs reach it with ``environment``; moving its folder away takes it away."""

    folder: Path
    label: str = "audit-ledger"
    pin: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)

    def __post_init__(self) -> None:
        found = find_softhsm()
        if found is None:
            raise SoftHsmError(
                f"SoftHSM2 ({MODULE}, {TOOL}) is missing. On Debian: apt-get install softhsm2; elsewhere: put {TOOL} "
                "on the PATH and set SOFTHSM2_MODULE to the module"
            )
        self.module, self._tool = found
        self.folder.mkdir(mode=0o700, parents=True)
        self.tokens = self.folder / "tokens"
        self.tokens.mkdir()
        self.config = self.folder / "softhsm2.conf"
        self.config.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.pin_file = self.folder / "pin"
        self.pin_file.touch(0o600)
        self.pin_file.write_text(f"{self.pin}\n")
        self.make_token(self.label)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs so that the module finds the token."""
        return {"SOFTHSM2_CONF": str(self.config)}

    @property
    def url(self) -> str:
        """The setting."""
        return self.url_of(self.label)

    def url_of(self, token: str) -> str:
        """The setting for another token."""
        return f"pkcs11:token={token};object=kek?module-path={self.module}&pin-source=file:{self.pin_file}"

    def make_token(self, label: str) -> None:
        """Another token with the same PIN."""
        command = [str(self._tool), "--module", str(self.module), "--init-token", "--free", "--label", label]
        command += ["--pin", self.pin, "--so-pin", "0" * 8]
        made = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise SoftHsmError(f"{TOOL} made no token:\n{made.stdout}{made.stderr}")

    def take_away(self) -> None:
        """As if the HSM were switched off."""
        self.tokens.rename(self.folder / "away")

    def bring_back(self) -> None:
        """Switched on again."""
        (self.folder / "away").rename(self.tokens)
