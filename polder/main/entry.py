"""The command line of `polder`: parses, and hands over to the command's own module (imported only then)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from polder.base.errors import PolderError
from polder.client.errors import UnreachableError
from polder.main.cluster import DEFAULT_STATE

Command = Callable[[argparse.Namespace], int]


class _WithState(argparse.ArgumentParser):
    """A command's parser: --state may stand behind the command too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_argument("--state", type=Path, default=argparse.SUPPRESS, help="as before the command")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="polder", description="A multi-tenant Kubernetes on this machine.")
    top.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("POLDER_STATE", DEFAULT_STATE)),
        help="the cluster's state directory (default: $POLDER_STATE or %(default)s)",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_WithState)
    _cluster_commands(commands)
    _tenant_commands(commands)
    _storage_commands(commands)
    _credential_commands(commands)
    _daemons(commands)
    return top


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", choices=["table", "json"], default="table")


def _cluster_commands(commands: argparse._SubParsersAction[_WithState]) -> None:
    up = commands.add_parser("up", help="start a cluster on this machine")
    up.add_argument("--nodes", type=int, metavar="N", help="how many nodes (default: 2)")
    up.add_argument("--name", help="prefix of what is made on the host (default: polder)")
    up.add_argument("--subnet", help="the underlay, an IPv4 /24 (default: 172.30.0.0/24)")
    up.add_argument("--port", type=int, help="the API server's port (default: 6443)")
    up.set_defaults(module="polder.main.up")
    down = commands.add_parser("down", help="stop the cluster and undo what it changed on the host")
    down.add_argument("--wipe", action="store_true", help="also delete the state directory: objects, keys, images")
    down.set_defaults(module="polder.main.down")
    status = commands.add_parser("status", help="what runs, and how it is")
    _output(status)
    status.set_defaults(module="polder.main.status")
    demo = commands.add_parser("demo", help="two tenants with equal names and addresses; shows what reaches what")
    _output(demo)
    demo.set_defaults(module="polder.main.demo")
    image = commands.add_parser("image", help="images of the nodes").add_subparsers(required=True, metavar="ACTION")
    load = image.add_parser("import", help="import an OCI or docker archive into every node")
    load.add_argument("file", type=Path)
    load.add_argument("--node", default="", help="one node only")
    load.set_defaults(module="polder.main.image")


def _tenant_commands(commands: argparse._SubParsersAction[_WithState]) -> None:
    kubeconfig = commands.add_parser("kubeconfig", help="write the kubeconfig of an administrator or a user")
    kubeconfig.add_argument("tenant", nargs="?", default="", help="the tenant's name, or root for the platform")
    kubeconfig.add_argument(
        "--user", default="", help="a user of the platform instead: a context for each of its tenants"
    )
    kubeconfig.add_argument("--group", action="append", default=[], help="a group of that user; may be repeated")
    kubeconfig.add_argument("--file", type=Path, default=None, help="where to write it (default: standard output)")
    kubeconfig.set_defaults(module="polder.main.kubeconfig")
    audit = commands.add_parser("audit", help="who did what in a tenant")
    audit.add_argument("tenant", help="the tenant's name, or root for the platform")
    audit.add_argument("--user", default="", help="only what this user did, or what was done in its name")
    audit.add_argument("--verb", default="", help="only this verb: create, patch, delete …")
    _output(audit)
    audit.set_defaults(module="polder.main.audit")
    inspect = commands.add_parser("inspect", help="look into the network").add_subparsers(required=True, metavar="WHAT")
    tenant = inspect.add_parser("tenant", help="topology, desired kernel state, and what differs")
    tenant.add_argument("name")
    tenant.add_argument("--node", default="", help="one node only")
    _output(tenant)
    tenant.set_defaults(module="polder.main.inspect")
    trace = commands.add_parser("trace", help="which policy's rule decides about a packet")
    trace.add_argument(
        "question", nargs="+", help="TENANT/NAMESPACE/POD → [pod/|service/]TARGET[:PORT][/PROTOCOL] (also -> or to)"
    )
    _output(trace)
    trace.set_defaults(module="polder.main.trace")


def _storage_commands(commands: argparse._SubParsersAction[_WithState]) -> None:
    backup = commands.add_parser("backup", help="save all objects, or one tenant's, at one moment")
    backup.add_argument("file", type=Path)
    backup.add_argument("--tenant", default="", metavar="NAME")
    backup.add_argument("--force", action="store_true", help="replace the file")
    backup.add_argument("--config", type=Path, metavar="FILE", help="a stopped server's configuration")
    backup.set_defaults(module="polder.main.backup")
    restore = commands.add_parser("restore", help="everything into a stopped server, or one tenant into a running one")
    restore.add_argument("file", type=Path)
    restore.add_argument("--tenant", default="", metavar="NAME[=NEWNAME]")
    restore.add_argument("--force", action="store_true", help="delete what a store that is not empty has")
    restore.add_argument("--config", type=Path, metavar="FILE", help="the stopped server's configuration")
    restore.set_defaults(module="polder.main.restore")
    secrets = commands.add_parser("secrets", help="the keys that seal secrets at rest").add_subparsers(
        required=True, metavar="ACTION"
    )
    for action, text in (
        ("add-key", "add a key that only reads for now: where several servers have copies of the keyring"),
        ("rotate", "seal with a new key, and everything that is stored anew"),
        ("prune", "forget the keys that do not seal any more"),
    ):
        secrets.add_parser(action, help=text).set_defaults(module="polder.main.secrets", action=action)


def _credential_commands(commands: argparse._SubParsersAction[_WithState]) -> None:
    tokens = commands.add_parser("token", help="tokens that machines join with").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = tokens.add_parser("create", help="print a new one, with the pin of the server's authority")
    create.add_argument("--ttl", default="24h", help="how long it is good: 30m, 24h, 7d (default: %(default)s)")
    create.add_argument("--node", default="", help="the only node that may join with it")
    listing = tokens.add_parser("list", help="those that there are, without their secrets")
    _output(listing)
    delete = tokens.add_parser("delete", help="take one back")
    delete.add_argument("id")
    for action, parser_ in (("create", create), ("list", listing), ("delete", delete)):
        parser_.set_defaults(module="polder.main.token", action=action)
    password = commands.add_parser("password", help="hash a password, read from standard input, for a password file")
    password.set_defaults(module="polder.main.password")
    certificates = commands.add_parser("certificates", help="the cluster's authorities").add_subparsers(
        required=True, metavar="ACTION"
    )
    certificates.add_parser("list", help="how they stand").set_defaults(
        module="polder.main.certificates", action="list"
    )
    rotate = certificates.add_parser("rotate", help="the next step of replacing one while everything runs")
    rotate.add_argument("name", help="serving, clients, agents or front-proxy")
    rotate.set_defaults(module="polder.main.certificates", action="rotate")
    keys = commands.add_parser(
        "signing-keys", help="what tenants' service-account tokens are signed with"
    ).add_subparsers(required=True, metavar="ACTION")
    for action, text in (
        ("list", "how they stand"),
        ("rotate", "the next step of replacing one while its tokens live on"),
    ):
        step = keys.add_parser(action, help=text)
        step.add_argument("tenant", nargs="*" if action == "list" else "+", help="root for the platform's own")
        step.set_defaults(module="polder.main.signing_keys", action=action, force=False)
    step.add_argument("--force", action="store_true", help="drop a key though Secrets hold tokens of it: they end")
    revoke = certificates.add_parser("revoke", help="take a node's certificates back")
    revoke.add_argument("node")
    revoke.set_defaults(module="polder.main.certificates", action="revoke")


def _daemons(commands: argparse._SubParsersAction[_WithState]) -> None:
    server = commands.add_parser("server", help="run API server, controllers, scheduler in the foreground")
    server.add_argument("--config", type=Path, required=True, metavar="FILE")
    server.set_defaults(module="polder.main.server")
    agent = commands.add_parser(
        "agent", help="run the agent of one node in the foreground; join a cluster with --server"
    )
    which = agent.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, metavar="FILE")
    which.add_argument("--server", default="", metavar="URL", help="join the cluster of this server first")
    token = agent.add_mutually_exclusive_group()
    token.add_argument("--token-file", type=Path, metavar="FILE", help="holds what `polder token create` printed")
    token.add_argument("--token", default="", help="the same in the clear: other users of this machine may see it")
    agent.add_argument("--node", default="", help="the node's name (default: the machine's)")
    agent.add_argument("--other-server", action="append", default=[], metavar="URL", help="a further server; repeated")
    agent.add_argument("--address", default="", help="this machine's address on the nodes' network")
    agent.set_defaults(module="polder.main.agent")


def _load(module: str) -> Command:
    """The command's module. When it is imported, aiohttp reads the system's authorities into a context that Polder never uses:
    each of its connections has its own. Without them a daemon starts 50 ms earlier and holds 2 MB less.
    """
    variables = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(variables, os.devnull))
    try:
        import_module("aiohttp.connector")
    finally:
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    command: Command = import_module(module).command
    return command


def main(argv: list[str] | None = None) -> int:
    """Runs one command; the exit code is 0, 1 for a failure that was explained, 130 when interrupted."""
    given = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(
        ["→" if word == "->" else word for word in given]
    )  # argparse takes the other for an option
    args.state = args.state.absolute()
    try:
        return _load(args.module)(args)
    except UnreachableError:
        print(
            f"polder: the API server of the cluster in {args.state} does not answer; see `polder status`",
            file=sys.stderr,
        )
        return 1
    except PolderError as error:
        print(f"polder: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("polder: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, as `| head` does; there is nobody to tell
        return 0
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        print(f"polder: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
