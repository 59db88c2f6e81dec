"""Connects the CNI protocol with what attachments mean: siblings that do not know each other."""

from __future__ import annotations

from polder.base.errors import PermanentError, RetryableError
from polder.cni.types import CniAddress, CniError, CniInterface, CniRequest, CniResult, CniRoute, Code
from polder.node.attach import Attached, Attachments, Sandbox


class CniAttachments:
    """A CniHandler."""

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments

    async def add(self, request: CniRequest) -> CniResult:
        """ADD."""
        return _result(await self._attachments.add(_sandbox(request)))

    async def delete(self, request: CniRequest) -> None:
        """DEL."""
        await self._attachments.delete(_sandbox(request))

    async def check(self, request: CniRequest) -> None:
        """CHECK: the datapath as ADD left it, and the result that the runtime kept."""
        sandbox = _sandbox(request)
        await self._attachments.check(sandbox)
        if request.previous is not None:
            now = self._attachments.addresses(sandbox)
            then = {address.address for address in request.previous.addresses}
            if then != set(now):
                raise PermanentError(f"prevResult: ips are {sorted(then)}, the attachment has {sorted(now)}")

    async def collect(self, request: CniRequest) -> None:
        """GC."""
        await self._attachments.collect({(one.container, one.interface) for one in request.valid})

    async def status(self) -> None:
        """STATUS."""
        try:
            self._attachments.status()
        except RetryableError as error:
            raise CniError(Code.NOT_AVAILABLE, "not available", str(error)) from error


def _sandbox(request: CniRequest) -> Sandbox:
    name = f"{request.pod_namespace}/{request.pod_name}".strip("/") or request.pod_uid
    return Sandbox(request.container, request.interface, request.netns, request.pod_uid, name)


def _result(attached: Attached) -> CniResult:
    there = CniInterface(attached.interface, attached.mac, attached.mtu, attached.netns)
    here = CniInterface(attached.link, mtu=attached.mtu)
    routes = tuple(CniRoute("::/0" if ":" in gateway else "0.0.0.0/0", gateway) for gateway in attached.gateways)
    gateways = {":" in gateway: gateway for gateway in attached.gateways}
    addresses = tuple(CniAddress(address, gateways.get(":" in address, ""), 0) for address in attached.addresses)
    return CniResult((there, here), addresses, routes)
