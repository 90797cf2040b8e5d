"""KEKs in a PKCS#11 token (an HSM, or SoftHSM2): made there, used there, and never outside.

One AES-256 key an epoch, labelled ``NAME-EPOCH``, sensitive and not extractable. A wrap is
``0x02 ‖ nonce[12] ‖ ciphertext ‖ tag[16]`` (:mod:`keyvault.providers.blobs`): CKM_AES_GCM with a random nonce and
SHA-256(AAD) as its AAD. The token must take the nonce that it is given; most do, some in their FIPS mode do not, and
the probe at the start finds out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import (
    AttributeTypeInvalid,
    MultipleTokensReturned,
    NoSuchToken,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
)
from pkcs11.mechanisms import GCMParams
from pkcs11.types import DecryptMixin, EncryptMixin

from keyvault import envelope
from keyvault.errors import NotAuthenticError, ProviderError
from keyvault.providers import blobs
from keyvault.providers.pkcs11_uri import TokenUri

T = TypeVar("T")

_TAG_BITS: Final = envelope.TAG_SIZE * 8
_LOCK_SECONDS: Final = 30.0

_TEMPLATE: Final = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: False,
    Attribute.ENCRYPT: True,
    Attribute.DECRYPT: True,
    # A key that wraps or derives others could be used to bring what it protects out of the token by another way.
    Attribute.WRAP: False,
    Attribute.UNWRAP: False,
    Attribute.SIGN: False,
    Attribute.VERIFY: False,
    Attribute.DERIVE: False,
}
_REQUIRED: Final = {
    Attribute.KEY_TYPE: KeyType.AES,
    Attribute.VALUE_LEN: envelope.KEY_SIZE,
    # "Always" and "never", set by the token itself: a key that was imported has copies that no destruction reaches.
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.NEVER_EXTRACTABLE: True,
}


class _NoKekError(ProviderError):
    """The token has no KEK of the epoch."""


class Pkcs11Provider:
    """A :class:`~keyvault.providers.KeyProvider` over a token.

    Looks the KEK up for every call, so that one that was destroyed, by whichever process, is out of use at once.
    """

    name = "pkcs11"
    place: Path | None = None

    def __init__(self, uri: TokenUri) -> None:
        self._uri = uri

    @classmethod
    def from_url(cls, url: str) -> Pkcs11Provider:
        """See :meth:`keyvault.providers.pkcs11_uri.TokenUri.parse`."""
        return cls(TokenUri.parse(url))

    def create(self, epoch: int) -> None:
        """See the contract. Two processes of one machine make one KEK. A token has no unique labels, so two machines
        that create at once may make two: then neither is ever used, and every call says so."""
        with self._alone_on_this_machine():
            self._use(lambda session: self._make_unless_there(session, epoch), anew=True)

    def wrap(self, epoch: int, plaintext: bytes, aad: bytes) -> bytes:
        """See the contract."""
        nonce, digest = os.urandom(envelope.NONCE_SIZE), blobs.digest_of(aad)
        sealed = self._use(lambda session: _encrypt(self._find(session, epoch), nonce, plaintext, digest))
        if len(sealed) != len(plaintext) + envelope.TAG_SIZE:
            raise ProviderError("the token's AES-GCM does not give ciphertext and tag alone; it cannot keep KEKs")
        return blobs.PKCS11 + nonce + sealed

    def unwrap(self, epoch: int, blob: bytes, aad: bytes) -> bytes:
        """See the contract."""
        body = blobs.body_of(blob, blobs.PKCS11, envelope.NONCE_SIZE + envelope.TAG_SIZE)
        nonce, sealed = body[: envelope.NONCE_SIZE], body[envelope.NONCE_SIZE :]
        digest = blobs.digest_of(aad)

        def decrypt(session: pkcs11.Session) -> bytes:
            key = self._find(session, epoch)
            try:
                return _decrypt(key, nonce, sealed, digest)
            except PKCS11Error:
                # I9: tokens disagree on what they return for a wrong tag (SoftHSM2: CKR_GENERAL_ERROR, which may mean
                # anything). So the blob is blamed only if the same key, just now, undoes what it made itself.
                if not _works(key):
                    raise
            raise NotAuthenticError("the wrap is not authentic")

        return self._use(decrypt)

    def epochs(self) -> frozenset[int]:
        """See the contract."""
        pattern = re.compile(re.escape(self._uri.name) + "-([1-9][0-9]*)")

        def look(session: pkcs11.Session) -> frozenset[int]:
            labels = [_label_of(key) for key in list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))]
            return frozenset(int(found[1]) for label in labels if (found := pattern.fullmatch(label)))

        return self._use(look, anew=True)

    def destroy(self, epoch: int) -> None:
        """See the contract. All objects with the label go, should there be more than one."""

        def destroy_all(session: pkcs11.Session) -> None:
            for key in self._with_label(session, epoch):
                key.destroy()
            if self._with_label(session, epoch):
                raise ProviderError(f"the token keeps the KEK {self._label(epoch)}, although it was told to destroy it")

        self._use(destroy_all, anew=True)

    def _label(self, epoch: int) -> str:
        return f"{self._uri.name}-{epoch}"

    def _with_label(self, session: pkcs11.Session, epoch: int) -> list[Any]:
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: self._label(epoch)}
        return list(session.get_objects(wanted))

    def _find(self, session: pkcs11.Session, epoch: int) -> Any:
        found = self._with_label(session, epoch)
        if len(found) > 1:
            raise ProviderError(
                f"{len(found)} keys in the token {self._uri.token} are labelled {self._label(epoch)}: two machines "
                "made them at once. Destroy the one that nothing was wrapped under, and run `init` from one machine"
            )
        if not found:
            raise _NoKekError(
                f"there is no KEK {self._label(epoch)} in the token {self._uri.token}; put it back from the token's "
                "backup, unless it was destroyed on purpose: then it is gone for good"
            )
        key = found[0]
        if not isinstance(key, EncryptMixin) or not isinstance(key, DecryptMixin):
            raise ProviderError(
                f"the key {self._label(epoch)} in the token {self._uri.token} may not encrypt and decrypt"
            )
        return key

    def _make_unless_there(self, session: pkcs11.Session, epoch: int) -> None:
        if not self._with_label(session, epoch):
            session.generate_key(
                KeyType.AES,
                envelope.KEY_SIZE * 8,
                # Only so that an operator can tell two keys of one label apart.
                id=os.urandom(16),
                label=self._label(epoch),
                store=True,
                template=dict(_TEMPLATE),
            )
        key = self._find(session, epoch)
        wrong = [attribute.name for attribute, value in _REQUIRED.items() if key[attribute] != value]
        if wrong:
            raise ProviderError(
                f"the key {self._label(epoch)} was not made in the token as a KEK has to be ({', '.join(wrong)}): "
                "copies of it may exist elsewhere. Give the setting another object=NAME"
            )

    @contextmanager
    def _alone_on_this_machine(self) -> Iterator[None]:
        # The module's file is the one thing that all processes here share with whoever reaches the token from here.
        try:
            fd = os.open(self._uri.module, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ProviderError(f"cannot open the PKCS#11 module {self._uri.module} ({error.strerror})") from error
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while not _locked(fd):
                if time.monotonic() > deadline:
                    raise ProviderError(f"another process keeps {self._uri.module} locked; look what it is waiting for")
                time.sleep(0.02)
            yield
        finally:
            os.close(fd)

    def _use(self, work: Callable[[pkcs11.Session], T], *, anew: bool = False) -> T:
        """Do ``work`` in the session, and once more in a new one if it fails: the session may be from before the token
        was restarted. ``anew``: in a new one at once, where finding nothing would be believed."""
        module = _module_of(self._uri.module)
        with module.lock:
            if anew:
                module.restart()
            with contextlib.suppress(PKCS11Error, _NoKekError):
                return work(module.session(self._uri))
            module.restart()
            try:
                return work(module.session(self._uri))
            except PKCS11Error as error:
                module.restart()
                raise ProviderError(
                    f"the token {self._uri.token} cannot be used ({type(error).__name__}); is the HSM reachable, and "
                    "does the service's user have access to it?"
                ) from error


class _Module:
    """A PKCS#11 module as this process has loaded it: initialised, logged in and finalised for the whole process, so
    all providers share it. One call at a time, by ``lock``: python-pkcs11 initialises it without promising it any locks
    (``C_Initialize(NULL)``), and then no two threads may be inside."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._library: Any = None
        self._sessions: dict[tuple[str, str | None], pkcs11.Session] = {}
        self._refused_pins: dict[tuple[str, str | None], str] = {}

    def restart(self) -> None:
        """Take every session for lost. The next one initialises the module anew, as after a fork or a restart of the
        token; without that, SoftHSM2 goes on not seeing a token that was away for a moment."""
        self._sessions.clear()
        self._library = None

    def session(self, uri: TokenUri) -> pkcs11.Session:
        """The session with the token, logged in."""
        name = (uri.token, uri.serial)
        if name not in self._sessions:
            try:
                self._sessions[name] = self._log_in(uri)
            except ProviderError:
                # A module that found no token goes on finding none until it is initialised anew.
                self.restart()
                raise
        return self._sessions[name]

    def _log_in(self, uri: TokenUri) -> pkcs11.Session:
        name, pin = (uri.token, uri.serial), uri.pin()
        if self._refused_pins.get(name) == pin:
            # Tokens count wrong PINs and lock themselves: one is never tried twice.
            raise ProviderError(f"the token {uri.token} has refused this PIN: correct it, or restart the service")
        try:
            return self._token(uri).open(rw=True, user_pin=pin)
        except (PinIncorrect, PinInvalid, PinLenRange, PinLocked, PinExpired) as error:
            self._refused_pins[name] = pin
            raise ProviderError(
                f"the token {uri.token} refuses the PIN ({type(error).__name__}); correct it before the token is locked"
            ) from None
        except NoSuchToken:
            raise ProviderError(f"{uri.module} knows no token labelled {uri.token}; is the HSM attached?") from None
        except MultipleTokensReturned:
            raise ProviderError(
                f"several tokens are labelled {uri.token}: add serial=… behind token=… to say which"
            ) from None

    def _token(self, uri: TokenUri) -> pkcs11.Token:
        if self._library is None:
            if not os.path.exists(self._path):
                raise ProviderError(f"there is no PKCS#11 module {self._path}; install it, or correct module-path")
            library = pkcs11.lib(str(self._path))
            with contextlib.suppress(PKCS11Error):
                library.finalize()
            library.initialize()
            self._library = library
        wanted: dict[str, str | bytes] = {"token_label": uri.token}
        if uri.serial is not None:
            wanted["token_serial"] = uri.serial.encode()
        token: pkcs11.Token = self._library.get_token(**wanted)
        return token


_modules: dict[Path, _Module] = {}
_modules_lock = threading.Lock()


def _module_of(path: Path) -> _Module:
    with _modules_lock:
        return _modules.setdefault(path, _Module(path))


def _forget_modules() -> None:
    """In a forked child: its parent's sessions are not its own, and its parent's locks may be held by nobody here."""
    global _modules_lock  # noqa: PLW0603 - a lock that another thread held at the fork is never released in the child
    _modules_lock = threading.Lock()
    _modules.clear()


os.register_at_fork(after_in_child=_forget_modules)


def _label_of(key: Any) -> str:
    try:
        return str(key[Attribute.LABEL])
    except (AttributeTypeInvalid, UnicodeDecodeError):
        # Somebody else's key, with no label or one that is no text.
        return ""


def _encrypt(key: Any, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    parameters = GCMParams(nonce, aad, _TAG_BITS)
    sealed: bytes = key.encrypt(plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
    return sealed


def _decrypt(key: Any, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    parameters = GCMParams(nonce, aad, _TAG_BITS)
    plaintext: bytes = key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
    return plaintext


def _works(key: Any) -> bool:
    """Whether the key undoes what it does now."""
    sample, nonce, aad = os.urandom(32), os.urandom(envelope.NONCE_SIZE), b"audit-ledger v1 probe"
    try:
        return _decrypt(key, nonce, _encrypt(key, nonce, sample, aad), aad) == sample
    except PKCS11Error:
        return False


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
