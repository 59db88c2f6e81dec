"""The nouns of the Container Network Interface, versions 0.3.1 to 1.1.0 (CNI specification, sections 2, 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from polder.base.errors import PolderError

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""What is spoken, oldest first."""


class Command(Enum):
    """CNI_COMMAND."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


class Code(IntEnum):
    """Error codes of the specification (section 5, "Error"), and those from 100 on, which are the plugin's own."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED = 51
    REFUSED = 100


class CniError(PolderError):
    """What the runtime is told: a code, a short message, and the sentence that names object and field."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(f"{message}: {details}" if details else message)
        self.code = code
        self.message = message
        self.details = details


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of one sandbox, as the runtime names it."""

    container: str
    interface: str


@dataclass(frozen=True, slots=True)
class CniRequest:
    """One call. ``pod_uid``, ``pod_namespace`` and ``pod_name`` are the runtime's K8S_POD_* arguments (the names are for
    messages only). ``netns`` is empty where the runtime gave none (DEL). ``valid`` is for GC. ``previous`` tells whether
    CHECK brought the result of ADD.
    """

    command: Command
    version: str
    network: str = ""
    container: str = ""
    netns: str = ""
    interface: str = ""
    pod_uid: str = ""
    pod_namespace: str = ""
    pod_name: str = ""
    valid: tuple[Attachment, ...] = ()
    previous: CniResult | None = None


@dataclass(frozen=True, slots=True)
class CniInterface:
    """A link that ADD made; ``sandbox`` is empty for the host's end."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""


@dataclass(frozen=True, slots=True)
class CniAddress:
    """An address with prefix length on the interface of that index."""

    address: str
    gateway: str = ""
    interface: int = 0


@dataclass(frozen=True, slots=True)
class CniRoute:
    """A route inside the sandbox."""

    destination: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class CniResult:
    """What ADD answers."""

    interfaces: tuple[CniInterface, ...] = ()
    addresses: tuple[CniAddress, ...] = ()
    routes: tuple[CniRoute, ...] = ()
