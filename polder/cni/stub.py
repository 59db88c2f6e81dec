"""polder-cni where there is no C compiler: the same as stub.c, with the fewest imports that do it.

It is copied beside the runtime's other plugins and stands alone, so it imports nothing of Polder.
The line that names the interpreter is put before it when it is installed.
"""

import posix
import sys

LIMIT = 1 << 20


def main() -> int:
    """Pass one call to the agent; the exit code."""
    folder, _, name = sys.argv[0].rpartition("/")
    environment = {key: value for key, value in posix.environ.items() if key.startswith(b"CNI_")}
    if name == "loopback":
        return loopback(environment)
    try:
        code, output = call(folder or ".", environment)
    except OSError as error:
        detail = f"the node's Polder agent does not answer, the call changed nothing ({error.strerror or error})"
        output = b'{"cniVersion":"1.0.0","code":11,"msg":"try again later","details":"%b"}\n' % detail.encode()
        code = 1
    posix.write(1, output)
    return code


def call(folder: str, environment: dict[bytes, bytes]) -> tuple[int, bytes]:
    """Exit code and output of the agent. Raises OSError."""
    import _socket

    posix.chdir(folder)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.connect("polder-cni.sock")
    head = b"".join(key + b"=" + value + b"\0" for key, value in environment.items())
    sock.sendall(b"polder-cni 1\n" + (head or b"\0") + b"\0" + read(lambda: posix.read(0, 65536)))
    sock.shutdown(_socket.SHUT_WR)
    code, newline, output = read(lambda: sock.recv(65536)).partition(b"\n")
    if not newline:
        raise OSError("the answer broke off")
    return int(code), output


def read(more) -> bytes:  # type: ignore[no-untyped-def]  # importing typing costs more than the call
    """Everything up to the end."""
    data = b""
    while len(data) < LIMIT:
        piece = more()
        if not piece:
            break
        data += piece
    return data


def loopback(environment: dict[bytes, bytes]) -> int:
    """Bring lo up in the sandbox, as containerd expects of the plugin of that name."""
    import re

    config = read(lambda: posix.read(0, 65536)).decode(errors="replace")
    found = re.search(r'"cniVersion"\s*:\s*"([0-9.]+)"', config)
    version = found.group(1) if found else "1.0.0"
    command, netns = environment.get(b"CNI_COMMAND", b""), environment.get(b"CNI_NETNS", b"").decode()
    if command == b"VERSION":
        text = f'{{"cniVersion":"{version}","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}}'
    elif command == b"ADD":
        import subprocess

        done = subprocess.run(["nsenter", f"--net={netns}", "ip", "link", "set", "lo", "up"], check=False)
        if done.returncode:
            return 1
        old = '"version":"4",' if version.startswith("0") else ""
        text = (
            f'{{"cniVersion":"{version}","interfaces":[{{"name":"lo","mac":"00:00:00:00:00:00","sandbox":"{netns}"}}],'
            f'"ips":[{{{old}"address":"127.0.0.1/8","interface":0}}],"dns":{{}}}}'
        )
    else:
        return 0
    posix.write(1, text.encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
