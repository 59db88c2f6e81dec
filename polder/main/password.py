"""`polder password`: reads a password from standard input and prints the line's first column for a password file."""

from __future__ import annotations

import argparse
import getpass
import sys

from polder.apiserver.authn_static import hash_password
from polder.base.errors import PermanentError
from polder.cli.output import Output


def command(args: argparse.Namespace) -> int:
    """Asks on a terminal, reads one line otherwise."""
    del args
    password = getpass.getpass("password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password:
        raise PermanentError("the password is empty")
    Output().line(hash_password(password))
    return 0
