"""Two hosts on one machine: network namespaces with names and addresses of their own, and a cable that can be pulled.

    python tests/launch/hosts.py run COMMAND...     # the same command on both hosts, of which nothing is left
    python tests/launch/hosts.py up                    # two hosts that stay until `down`
    python tests/launch/hosts.py exec 1 COMMAND...     # on one of them
    python tests/launch/hosts.py cut                   # pull the cable
    python tests/launch/hosts.py mend                  # plug it in again
    python tests/launch/hosts.py down                  # end what runs on them, and remove them

For example: ``python tests/launch/hosts.py run torchrun --nnodes 2 --nproc-per-node 1 --rdzv-endpoint host0:29500
examples/train.py --cpu``. (``run`` tells torchrun its node rank; by hand, add ``--node-rank``.)

Guarantee: nothing of the machine's own network is touched. Both ends of the cable are made inside the two namespaces,
and no route leads out of them. Names hold the process that made them; whatever ends that process, the next set-up
recognises what it left, ends what still runs there, and removes it.

Needs Linux, iproute2's ``ip``, and root (CAP_NET_ADMIN and CAP_SYS_ADMIN); without, :class:`NoHosts` says what lacks.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PREFIX = "epoch-host"
KEPT = "kept"  # what `up` makes belongs to no process
LINK = "eth0"
NAMES = ("host0", "host1")
ADDRESSES = ("10.0.0.1", "10.0.0.2")
ENTER = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
CLONE_NEWNET = 0x40000000
SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # Python has made SIGINT an exception already


class NoHosts(RuntimeError):
    """No hosts can be made here; the message says why."""


class Ended(KeyboardInterrupt):
    """A signal that ends the process; cleaning up comes first. (pytest takes it as it takes Ctrl-C.)"""


@dataclass(frozen=True)
class Hosts:
    """Two hosts, joined by a cable; ``owner`` is the process that they belong to, or ``kept``."""

    owner: str

    def namespace(self, host: int) -> str:
        """What ``ip netns`` calls a host."""
        return f"{PREFIX}-{self.owner}-{host}"

    @property
    def names_file(self) -> Path:
        """The hosts' /etc/hosts."""
        return Path(tempfile.gettempdir(), f"{PREFIX}-{self.owner}.hosts")

    def cut(self, host: int = 1) -> None:
        """Pull the cable out of a host."""
        _ip("-n", self.namespace(host), "link", "set", LINK, "down")

    def mend(self, host: int = 1) -> None:
        """Plug it in again."""
        _ip("-n", self.namespace(host), "link", "set", LINK, "up")

    def command(self, host: int, command: list[str]) -> list[str]:
        """``command`` on a host, under the host's name."""
        entered = ["unshare", "--uts", "sh", "-c", ENTER, "sh", NAMES[host], str(self.names_file)]
        return ["ip", "netns", "exec", self.namespace(host), *entered, *command]

    def enter(self, host: int) -> None:
        """Take this process to a host's network, for good. It keeps the machine's name."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self.namespace(host)).open() as file:
            if libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.namespace(host)}")

    def set_up(self) -> None:
        """Make the hosts, and the cable between them."""
        for host in (0, 1):
            _ip("netns", "add", self.namespace(host))
        ends = (["netns", self.namespace(host)] for host in (0, 1))
        _ip("link", "add", LINK, *next(ends), "type", "veth", "peer", "name", LINK, *next(ends))
        for host, address in enumerate(ADDRESSES):
            on_host = ("-n", self.namespace(host))
            _ip(*on_host, "link", "set", LINK, "addrgenmode", "none")  # no address but the one given
            _ip(*on_host, "address", "add", f"{address}/30", "dev", LINK)
            for link in ("lo", LINK):
                _ip(*on_host, "link", "set", link, "up")
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for address, name in zip(ADDRESSES, NAMES))]
        self.names_file.write_text("\n".join(lines) + "\n")

    def clear(self) -> None:
        """End every process on the hosts, and remove them."""
        for host in (0, 1):
            if self.namespace(host) in _namespaces():
                _end_processes(self.namespace(host))
                _ip("netns", "delete", self.namespace(host))
        self.names_file.unlink(missing_ok=True)


def on_host(hosts: Hosts, ranks_per_host: int, function: Callable[..., Any], *args: Any) -> Any:
    """In a forked rank of ``run_ranks``: call ``function(*args)`` on the rank's host, with the ranks of the other."""
    host, local_rank = divmod(int(os.environ["RANK"]), ranks_per_host)
    hosts.enter(host)
    os.environ.update(
        MASTER_ADDR=ADDRESSES[0],
        GLOO_SOCKET_IFNAME=LINK,
        LOCAL_RANK=str(local_rank),
        LOCAL_WORLD_SIZE=str(ranks_per_host),
    )
    return function(*args)


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """
    Two hosts for as long as the context lasts, whatever ends it: success, failure, Ctrl-C, SIGTERM or SIGHUP.

    Raises:
        NoHosts: If they cannot be made here.
        Ended: In the place of a SIGTERM or SIGHUP.
    """
    hosts = Hosts(_owner(os.getpid()))
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores one
    before = {number: signal.signal(number, _end) for number in heeded}
    try:
        clear_leftovers()
        hosts.set_up()
        yield hosts
    finally:
        with _undisturbed():
            hosts.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def clear_leftovers() -> None:
    """Remove hosts whose process is gone."""
    check_possible()
    owners = {name[len(PREFIX) + 1 : -2] for name in _namespaces() if name.startswith(f"{PREFIX}-")}
    for owner in sorted(owners - {KEPT}):
        if not _lives(owner):
            print(f"removing the hosts that process {owner.split('.')[0]} left behind", file=sys.stderr)
            Hosts(owner).clear()


def check_possible() -> None:
    """Raise :class:`NoHosts`, with what lacks, where no hosts can be made."""
    missing = [command for command in ("ip", "unshare") if shutil.which(command) is None]
    if missing:
        raise NoHosts(f"two hosts need {' and '.join(missing)}, which is not here; install iproute2 and util-linux")
    if os.geteuid() != 0:
        raise NoHosts("two hosts need network namespaces, which only root may make; run this as root")


def _owner(pid: int) -> str:
    """A process, told from a later one of the same number by when it started."""
    return f"{pid}.{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"


def _lives(owner: str) -> bool:
    try:
        return _owner(int(owner.split(".")[0])) == owner
    except (FileNotFoundError, ProcessLookupError):
        return False


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise NoHosts(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout


def _namespaces() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]


def _end_processes(namespace: str, patience: float = 10.0) -> None:
    """Kill what runs in a namespace, by pid, until nothing does: a launcher may just be starting a rank."""
    deadline = time.monotonic() + patience
    while pids := _ip("netns", "pids", namespace).split():
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise NoHosts(f"processes {', '.join(pids)} in {namespace} do not end")
        time.sleep(0.05)


def _end(number: int, frame: Any) -> NoReturn:
    raise Ended(number)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No signal comes between; one that came meanwhile counts afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *SIGNALS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(hosts: Hosts, command: list[str]) -> int:
    """The command on both hosts, torchrun's node rank in its environment; the first exit status that is not 0."""
    ranks = [{**os.environ, "PET_NODE_RANK": str(host)} for host in (0, 1)]
    both = [subprocess.Popen(hosts.command(host, command), env=ranks[host]) for host in (0, 1)]
    return next(filter(None, [process.wait() for process in both]), 0)


def main(action: str = "", *arguments: str) -> int:
    """The command line."""
    kept = Hosts(KEPT)
    if action == "run" and arguments:
        with two_hosts() as hosts:
            return run(hosts, list(arguments))
    if action == "exec" and arguments[:1] in (("0",), ("1",)) and arguments[1:]:
        return subprocess.run(kept.command(int(arguments[0]), list(arguments[1:]))).returncode
    actions = {"up": kept.set_up, "down": kept.clear, "cut": kept.cut, "mend": kept.mend}
    if action not in actions or arguments:
        print(__doc__)
        return 2
    clear_leftovers()
    actions[action]()
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(*sys.argv[1:]))
    except NoHosts as reason:
        raise SystemExit(str(reason)) from None
    except KeyboardInterrupt as ended:
        raise SystemExit(128 + (ended.args[0] if ended.args else signal.SIGINT)) from None
