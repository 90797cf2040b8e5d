"""KEKs in AWS KMS: one customer-managed symmetric key an epoch, which never leaves KMS.

The key of epoch 7 is the one that the alias ``alias/NAME-7`` leads to. A wrap is ``0x03`` and the blob that KMS gave
(:mod:`keyvault.providers.blobs`), bound to SHA-256(AAD) by the encryption context; what CloudTrail keeps of a call is
that digest, the key and the time.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from keyvault.errors import NotAuthenticError, ProviderError
from keyvault.providers import blobs

_FORM: Final = "awskms:alias/NAME?region=eu-central-1[&deletion-days=7…30][&endpoint=https://…]"
_NAME: Final = re.compile(r"alias/(?!aws/)[A-Za-z0-9/_-]{1,200}", re.ASCII)
_REGION: Final = re.compile(r"[a-z0-9-]{4,40}", re.ASCII)
_DAYS: Final = range(7, 31)
_DEFAULT_DAYS: Final = 30
_CONTEXT: Final = "audit-ledger"
_MOST_BLOB_BYTES: Final = 6144

# A request of the service waits for these: at most some ten seconds before it is told 503.
_CONNECT_SECONDS: Final = 2
_READ_SECONDS: Final = 3
_ATTEMPTS: Final = 2
_SETTLE_SECONDS: Final = 60.0
"""How long a new alias or a new key state may take until KMS shows it: it is eventually consistent."""

# A client keeps the credentials that it was made with: for others, a new one has to look for them.
_WRONG_CREDENTIALS: Final = (
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "UnrecognizedClientException",
)

_EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DYING: Final = ("PendingDeletion", "PendingReplicaDeletion")


@dataclass(frozen=True, slots=True)
class KmsSetting:
    """Which keys of which region. Credentials come from where AWS clients look for them, never from the setting."""

    name: str
    """The key of epoch 7 is ``NAME-7``, with ``alias/`` in front."""
    region: str
    endpoint: str | None
    deletion_days: int
    """How long KMS keeps a key that is to be deleted, 7 to 30 days."""

    @classmethod
    def parse(cls, url: str) -> KmsSetting:
        """Read the setting. Raises :class:`ProviderError`."""
        name, _, query = url.removeprefix("awskms:").partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        options = dict(pairs)
        if (
            _NAME.fullmatch(name) is None
            or len(options) != len(pairs)
            or not options.keys() <= {"region", "endpoint", "deletion-days"}
            or _REGION.fullmatch(options.get("region", "")) is None
        ):
            raise ProviderError(f"the setting is not of the form {_FORM}")
        days = options.get("deletion-days", str(_DEFAULT_DAYS))
        if days not in map(str, _DAYS):
            raise ProviderError("deletion-days must be a whole number from 7 to 30: KMS allows no other waiting time")
        endpoint = options.get("endpoint")
        if endpoint is not None and not _is_safe(endpoint):
            raise ProviderError("endpoint must be https://HOST: what is wrapped goes there in clear")
        return cls(name, options["region"], endpoint, int(days))


class _KmsError(ProviderError):
    """KMS answered, and refused. ``code``: AWS's name for why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class AwsKmsProvider:
    """A :class:`~keyvault.providers.KeyProvider` over KMS.

    Names the key at every call, and never lets KMS choose one from a blob: a blob of another key is not authentic.
    """

    name = "awskms"
    place: Path | None = None

    def __init__(self, setting: KmsSetting) -> None:
        self._setting = setting
        self._lock = threading.Lock()
        self._connected: tuple[int, Any] | None = None

    @classmethod
    def from_url(cls, url: str) -> AwsKmsProvider:
        """See :meth:`KmsSetting.parse`."""
        return cls(KmsSetting.parse(url))

    def create(self, epoch: int) -> None:
        """See the contract. The alias decides: KMS gives it to one key only, and whoever comes second takes that one. A
        crash in between leaves a key without alias that nothing was ever wrapped under."""
        if self._describe(epoch) is None:
            made = self._call(
                "create_key",
                epoch,
                Description=f"audit-ledger KEK {self._setting.name}-{epoch}",
                KeyUsage="ENCRYPT_DECRYPT",
                KeySpec="SYMMETRIC_DEFAULT",
            )["KeyMetadata"]["KeyId"]
            try:
                self._call("create_alias", epoch, AliasName=self._alias(epoch), TargetKeyId=made)
            except _KmsError as error:
                if error.code != "AlreadyExistsException":
                    self._discard(made, epoch)
                    raise
                # By another process, or by this one: an answer that was lost on the way is asked for again by itself.
                if self._settled(epoch, "Enabled")["KeyId"] != made:
                    self._discard(made, epoch)
        key = self._settled(epoch, "Enabled")
        is_ours = key["KeyManager"] == "CUSTOMER" and key["KeySpec"] == "SYMMETRIC_DEFAULT"
        # Copies that no destruction reaches: in other regions, and with whoever imported the key.
        has_copies = key.get("MultiRegion") or key.get("Origin") == "EXTERNAL"
        if not is_ours or has_copies:
            raise ProviderError(
                f"{self._alias(epoch)} leads to a key that cannot be a KEK: it must be a symmetric, customer-managed "
                "key of one region, with key material that KMS made"
            )

    def wrap(self, epoch: int, plaintext: bytes, aad: bytes) -> bytes:
        """See the contract."""
        answer = self._call(
            "encrypt", epoch, KeyId=self._alias(epoch), Plaintext=plaintext, EncryptionContext=_context(aad)
        )
        sealed: bytes = answer["CiphertextBlob"]
        return blobs.AWSKMS + sealed

    def unwrap(self, epoch: int, blob: bytes, aad: bytes) -> bytes:
        """See the contract."""
        sealed = blobs.body_of(blob, blobs.AWSKMS, 1)
        if len(sealed) > _MOST_BLOB_BYTES:
            raise NotAuthenticError("the wrap is longer than any that KMS makes")
        try:
            answer = self._call(
                "decrypt", epoch, KeyId=self._alias(epoch), CiphertextBlob=sealed, EncryptionContext=_context(aad)
            )
        except _KmsError as error:
            if error.code not in ("InvalidCiphertextException", "IncorrectKeyException"):
                raise
            # I9: the blob is blamed only while its key is there and in order.
            key = self._describe(epoch)
            if key is None or key["KeyState"] != "Enabled":
                code = "NotFoundException" if key is None else "KMSInvalidStateException"
                raise self._refusal(epoch, code) from error
            raise NotAuthenticError("the wrap is not authentic") from None
        plaintext: bytes = answer["Plaintext"]
        return plaintext

    def epochs(self) -> frozenset[int]:
        """See the contract. A key that is disabled could be enabled again, so its epoch is among them."""
        pattern = re.compile(re.escape(self._setting.name) + "-([1-9][0-9]*)")
        found = set()
        marker: dict[str, str] = {}
        while True:
            page = self._call("list_aliases", None, **marker)
            for alias in page["Aliases"]:
                match = pattern.fullmatch(alias["AliasName"])
                if match is not None and "TargetKeyId" in alias:
                    key = self._describe(int(match[1]))
                    if key is not None and key["KeyState"] not in _DYING:
                        found.add(int(match[1]))
            if not page.get("Truncated"):
                return frozenset(found)
            marker = {"Marker": page["NextMarker"]}

    def destroy(self, epoch: int) -> int | None:
        """See the contract. Gives the end of KMS's waiting time.

        The alias stays until KMS takes it away together with the key: it is what a repeated call finds the date by.
        """
        key = self._describe(epoch)
        if key is None:
            return None
        if key["KeyState"] not in _DYING:
            try:
                self._call(
                    "schedule_key_deletion",
                    epoch,
                    KeyId=key["KeyId"],
                    PendingWindowInDays=self._setting.deletion_days,
                )
            except _KmsError as error:
                # Somebody else was quicker; the state tells.
                if error.code != "KMSInvalidStateException":
                    raise
        # Not the date of the answer: KMS may take up to a day longer, and says here how long.
        deletion: datetime = self._settled(epoch, "PendingDeletion")["DeletionDate"]
        return (deletion - _EPOCH_START) // timedelta(microseconds=1)

    def _alias(self, epoch: int) -> str:
        return f"{self._setting.name}-{epoch}"

    def _describe(self, epoch: int) -> Mapping[str, Any] | None:
        """What KMS says of the key, or None if there is none (any more)."""
        try:
            answer = self._call("describe_key", epoch, KeyId=self._alias(epoch))
        except _KmsError as error:
            if error.code != "NotFoundException":
                raise
            return None
        metadata: Mapping[str, Any] = answer["KeyMetadata"]
        return metadata

    def _settled(self, epoch: int, wanted: str) -> Mapping[str, Any]:
        """The key once it has the state ``wanted``."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            key = self._describe(epoch)
            state = "NotFound" if key is None else key["KeyState"]
            if key is not None and state == wanted:
                return key
            # A state that does not become another one by itself is not waited for.
            waits = ("NotFound", "Creating") if wanted == "Enabled" else ("Enabled", "Disabled")
            if state not in waits or time.monotonic() > deadline:
                raise ProviderError(
                    f"the key of {self._alias(epoch)} has the state {state} and not {wanted}; look at it in KMS. A key "
                    "whose deletion was scheduled for an epoch is never used again"
                )
            time.sleep(0.5)

    def _discard(self, key_id: str, epoch: int) -> None:
        """Nothing was ever wrapped under this key. If it cannot be deleted, it costs a little and does no harm."""
        try:
            self._call("schedule_key_deletion", epoch, KeyId=key_id, PendingWindowInDays=_DAYS[0])
        except ProviderError:
            return

    def _call(self, operation: str, epoch: int | None, **parameters: Any) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = getattr(self._client(), operation)(**parameters)
        except ClientError as error:
            # The code and not the message, which may name the person whose credentials these are (I5).
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in _WRONG_CREDENTIALS:
                self._connected = None
            raise self._refusal(epoch, code) from None
        except BotoCoreError as error:
            if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
                self._connected = None
            raise ProviderError(
                f"AWS KMS in {self._setting.region} cannot be reached ({type(error).__name__}): look at the network, "
                "the region and where the service's credentials come from"
            ) from None
        return answer

    def _refusal(self, epoch: int | None, code: str) -> _KmsError:
        what = "AWS KMS" if epoch is None else f"the KEK {self._alias(epoch)} in AWS KMS ({self._setting.region})"
        if code == "NotFoundException":
            message = (
                f"there is no {what.removeprefix('the ')}; look at the setting and at whose credentials these are, "
                "unless the epoch was destroyed on purpose: then it is gone for good"
            )
        elif code in ("KMSInvalidStateException", "DisabledException", "KeyUnavailableException"):
            message = (
                f"{what} is disabled or waits for its deletion ({code}): enable it again, unless the epoch was "
                "destroyed on purpose: then it is gone for good"
            )
        elif code == "AccessDeniedException":
            message = f"the service's credentials may not use {what}: look at the policies of its role and of the key"
        else:
            message = f"{what} cannot be used now ({code})"
        return _KmsError(message, code)

    def _client(self) -> Any:
        with self._lock:
            # After a fork the connections are the parent's.
            if self._connected is None or self._connected[0] != os.getpid():
                for library in ("boto3", "botocore", "urllib3"):
                    # I5: at the level debug they log requests and answers, which hold DEKs in clear.
                    logging.getLogger(library).setLevel(logging.WARNING)
                config = Config(
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                    max_pool_connections=20,
                )
                client = Session().client(
                    "kms", region_name=self._setting.region, endpoint_url=self._setting.endpoint, config=config
                )
                self._connected = (os.getpid(), client)
            return self._connected[1]


def _context(aad: bytes) -> dict[str, str]:
    return {_CONTEXT: blobs.digest_of(aad).hex()}


def _is_safe(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return False
    # Within one machine there is nobody to listen, and a test's server speaks no TLS.
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    return (parts.scheme == "https" or local) and bool(parts.hostname) and parts.username is None
