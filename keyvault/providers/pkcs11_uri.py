"""Which token keeps the KEKs: a PKCS#11 URI (RFC 7512) and the PIN that it leads to."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from keyvault.errors import ProviderError

_FORM: Final = "pkcs11:token=LABEL;object=NAME?module-path=/PATH/OF/MODULE.so&pin-source=file:/PATH/OF/PIN"
_MOST_PIN_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class TokenUri:
    """A token, the module that leads to it, and the name of the KEKs in it."""

    module: Path
    token: str
    serial: str | None
    name: str
    """The KEK of epoch 7 is labelled ``NAME-7``."""
    pin_file: Path | None
    pin_value: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> TokenUri:
        """Read the setting. Raises :class:`ProviderError`, which never repeats a value: one of them may be the PIN."""
        path, _, query = url.removeprefix("pkcs11:").partition("?")
        parts = _attributes(path, ";", ("token", "serial", "object"))
        options = _attributes(query, "&", ("module-path", "pin-source", "pin-value"))
        for name, given in (("token", parts), ("object", parts), ("module-path", options)):
            if not given.get(name):
                raise ProviderError(f"the PKCS#11 URI lacks {name}=…; its form is {_FORM}")
        if not options["module-path"].startswith("/"):
            raise ProviderError("module-path of the PKCS#11 URI must be an absolute path")
        if ("pin-source" in options) == ("pin-value" in options):
            raise ProviderError("the PKCS#11 URI needs either pin-source=file:/PATH or pin-value=…")
        source = options.get("pin-source")
        return cls(
            module=Path(options["module-path"]),
            token=parts["token"],
            serial=parts.get("serial"),
            name=parts["object"],
            pin_file=None if source is None else _pin_path(source),
            pin_value=options.get("pin-value"),
        )

    def pin(self) -> str:
        """The PIN, read anew. Raises :class:`ProviderError` when it cannot be read, or others can."""
        if self.pin_file is None:
            return self.pin_value or ""
        try:
            fd = os.open(self.pin_file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                content = os.read(fd, _MOST_PIN_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            raise ProviderError(f"cannot read the PIN from {self.pin_file} ({error.strerror})") from error
        # A group may read it: secrets are often handed to a service that way. Nobody else, and nobody may put another.
        if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o027:
            raise ProviderError(
                f"{self.pin_file}, which holds the PIN, is open to other users: chmod 600 it, and change the PIN"
            )
        try:
            pin = content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ProviderError(f"the PIN in {self.pin_file} is not UTF-8 text") from None
        if not pin:
            raise ProviderError(f"{self.pin_file} holds no PIN: write it there, on one line")
        return pin


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for attribute in filter(None, text.split(separator)):
        name, equals, value = attribute.partition("=")
        if name not in known or not equals:
            # Not the name as it stands there: a PIN with a separator in it would be taken for one.
            raise ProviderError(
                f"the PKCS#11 URI has an attribute that is none of {', '.join(known)}; its form is {_FORM}, "
                "with other characters than letters, digits and -._~/: written as %40 and so on"
            )
        if name in found:
            raise ProviderError(f"the PKCS#11 URI has {name}=… twice")
        try:
            found[name] = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise ProviderError(f"{name} of the PKCS#11 URI is not UTF-8") from None
    return found


def _pin_path(source: str) -> Path:
    path = source.removeprefix("file:")
    if path.startswith("//"):
        path = path.removeprefix("//")
    if not path.startswith("/"):
        raise ProviderError("pin-source of the PKCS#11 URI must be file:/PATH, an absolute path")
    return Path(path)
