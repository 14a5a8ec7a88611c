"""The two hosts of ``hosts.py``: what they reach, and that nothing of them stays, whatever ends them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from launch import hosts
from launch.hosts import NoHosts, two_hosts

COMMAND = [sys.executable, hosts.__file__]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


pytestmark = [pytest.mark.wide, pytest.mark.xdist_group("nodes")]


@pytest.fixture(autouse=True)
def possible() -> None:
    """Where no hosts can be made, the tests are skipped, but on CI as root, where they must run."""
    try:
        with two_hosts():
            pass
    except NoHosts as reason:
        if os.environ.get("CI") and os.geteuid() == 0:
            raise
        pytest.skip(str(reason))


def left_of(pid: int) -> list[str]:
    """What there is of the hosts of a process: namespaces, and the file with their names."""
    of_it = f"{hosts.PREFIX}-{pid}."
    names = [path.name for folder in ("/run/netns", "/tmp") for path in Path(folder).glob(f"{of_it}*")]
    return sorted(names)


def heed() -> None:
    """Take the signals as a command in the foreground does, though the tests may run under ``nohup``."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def running() -> Iterator[subprocess.Popen[str]]:
    """Hosts on which a command runs that does not end by itself."""
    command = [*COMMAND, "run", "sh", "-c", "echo up; sleep 300"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True, "preexec_fn": heed}
    with subprocess.Popen(command, **options) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in (0, 1)] == ["up\n", "up\n"]
        try:
            yield process
        finally:
            process.kill()


def test_hosts_reach_each_other_and_nothing_else(tmp_path: Path) -> None:
    """Each host knows both names, and has no way out but the cable; cut, there is none at all."""
    show = 'echo "$(hostname) $(getent hosts host0 host1 | tr -s " " | tr "\\n" " ")"; ip route'
    with two_hosts() as pair:
        said = [
            subprocess.run(pair.command(host, ["sh", "-c", show]), capture_output=True, text=True) for host in (0, 1)
        ]
        lines = [one.stdout.splitlines() for one in said]
        pair.cut()
        cut = subprocess.run(pair.command(1, ["ip", "route"]), capture_output=True, text=True)
    names = "10.0.0.1 host0 10.0.0.2 host1"
    assert [one[0].strip() for one in lines] == [f"host{host} {names}" for host in (0, 1)]
    assert all(len(one) == 2 and one[1].startswith("10.0.0.0/30 dev eth0") for one in lines)
    assert cut.stdout == ""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_leaves_nothing_behind(number: signal.Signals) -> None:
    """The hosts and all that runs on them are gone when their process has ended, with the signal's status."""
    with running() as process:
        assert len(left_of(process.pid)) == 3
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
        assert left_of(process.pid) == []


def test_the_next_hosts_clear_what_a_killed_process_left() -> None:
    """After SIGKILL the next set-up says whose hosts it removes, and ends what runs on them."""
    with running() as process:
        process.kill()
        process.wait()
        assert len(left_of(process.pid)) == 3
        done = subprocess.run([*COMMAND, "run", "true"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        assert f"removing the hosts that process {process.pid} left behind" in done.stderr
        assert left_of(process.pid) == []


def test_an_exit_status_is_passed_on() -> None:
    """``run`` ends with the status of a command that failed on one host."""
    failing = [*COMMAND, "run", "sh", "-c", "test $(hostname) = host0"]
    assert subprocess.run(failing, timeout=30).returncode == 1


def test_hosts_that_stay_are_cut_mended_and_taken_down() -> None:
    """``up`` makes hosts that outlive it; ``down`` removes them."""
    states = []
    try:
        subprocess.run([*COMMAND, "up"], check=True, timeout=30)
        for action in ("cut", "mend"):
            subprocess.run([*COMMAND, action], check=True, timeout=30)
            time.sleep(0.2)
            command = [*COMMAND, "exec", "1", "ip", "route"]
            states.append(subprocess.run(command, capture_output=True, text=True, timeout=30).stdout)
    finally:
        subprocess.run([*COMMAND, "down"], check=True, timeout=30)
    assert states[0] == "" and states[1].startswith("10.0.0.0/30")
    assert not Path("/run/netns", f"{hosts.PREFIX}-{hosts.KEPT}-0").exists()


@pytest.mark.parametrize(("lacking", "reason"), [("ip", "install iproute2"), ("root", "run this as root")])
def test_what_lacks_is_said(lacking: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``ip``, or without root, the message says so."""
    if lacking == "ip":
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "ip" else name)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoHosts, match=reason), two_hosts():
        pass
