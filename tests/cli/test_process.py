"""How the process behaves: exit status, signals, streams that are full or closed. Real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

import sporeprint
from sporeprint.cli.process import Interrupts

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
posix = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")


def command(*words):
    return [sys.executable, "-m", "sporeprint", *map(str, words)]


def ended(*words, shell=""):
    """Exit status, stdout and stderr of a command; shell: redirections."""
    line = " ".join(command(*words)) + f" {shell}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    return done.returncode, done.stdout, done.stderr


# A command of our own that waits in Python code, as the long ones do.
WAITING = """
import sys, time
import sporeprint.cli.info_command
from sporeprint.store.reader import Store
def wait(folder):
    print("waiting", file=sys.__stderr__, flush=True)
    {body}
Store.open = wait
sys.argv = ["sporeprint", "info", "x"]
from sporeprint.cli import main
main()
"""


def interrupted(body, number=signal.SIGINT):
    """Exit status and stderr of a command that is sent a signal where it waits."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a job may ignore
    with subprocess.Popen(
        [sys.executable, "-c", code + WAITING.format(body=body)], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        while process.stderr.readline() != "waiting\n":
            assert process.poll() is None
        time.sleep(0.5)  # until it sleeps
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
    return process.returncode, err


@posix
@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(60)",
        "exec('try:\\n time.sleep(60)\\nexcept KeyboardInterrupt:\\n raise ImportError(\"half a module\")')",
        "exec('class Late:\\n def __del__(self): time.sleep(60)\\nLate()\\ntime.sleep(60)')",
    ],
)
def test_ctrl_c_is_130_and_one_line_wherever_it_falls(body):
    assert interrupted(body) == (130, "interrupted\n")


@posix
def test_a_second_ctrl_c_ends_the_process_at_once():
    again = "import os; os.kill(os.getpid(), 2); time.sleep(60)"
    body = f"exec('try:\\n time.sleep(60)\\nexcept KeyboardInterrupt:\\n {again}')"
    assert interrupted(body) == (130, "")


@posix
def test_ctrl_c_before_anything_is_imported_is_130():
    code = "import sys, signal\nsys.modules['sporeprint.cli.process'] = None\n"
    code += "class Finder:\n    def find_spec(self, name, *_):\n        if name == 'sporeprint.cli.process':\n"
    code += "            raise KeyboardInterrupt\n"
    code += "del sys.modules['sporeprint.cli.process']\nsys.meta_path.insert(0, Finder())\n"
    code += "from sporeprint.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (130, "")


@posix
def test_a_termination_is_left_to_the_system():
    assert interrupted("time.sleep(60)", signal.SIGTERM)[0] == -signal.SIGTERM


@posix
def test_a_job_that_ignores_ctrl_c_goes_on_doing_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with Interrupts():
        pass
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


@posix
@pytest.mark.parametrize("words", [("--version",), ("--help",), ("backbones", "--help"), ("backbones", "--json")])
@pytest.mark.parametrize("shell", [">/dev/full", ">&-"])
def test_an_answer_that_is_lost_is_one_line_and_status_1(words, shell):
    status, out, err = ended(*words, shell=shell)
    assert (status, out, len(err.splitlines())) == (1, "", 1), err
    assert err.startswith("error: stdout took no more (")


@posix
def test_a_reader_that_goes_away_is_one_line_and_status_1():
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(command("--help"), stdout=writes, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    os.close(writes)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


@posix
@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "<&-"])
def test_other_streams_may_be_lost(shell):
    status, out, _ = ended("--version", shell=shell)
    assert (status, out) == (0, f"sporeprint {sporeprint.__version__}\n")
    assert ended("info", "nowhere", shell=shell)[0] == 1


@posix
def test_a_closed_stream_is_not_taken_by_a_file(tmp_path):
    code = f"open({str(tmp_path / 'store')!r}, 'w').write('rows'); import os; os.write(1, b'from a library')"
    line = f'{sys.executable} -c "from sporeprint.cli.process import _open_missing; _open_missing(); {code}" >&- 2>&-'
    assert subprocess.run(line, shell=True, env=ENVIRONMENT).returncode == 0
    assert (tmp_path / "store").read_text() == "rows"


def test_the_module_is_the_command_line_under_its_own_name():
    status, out, _ = ended("--help")
    assert status == 0
    assert "Usage: python -m sporeprint [OPTIONS] COMMAND" in out


def completed(words, shell="bash"):
    """What a shell is offered for the last of the words."""
    environment = {
        "_SPOREPRINT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    environment |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    code = "import sys; sys.argv = ['sporeprint']; from sporeprint.cli import main\ntry:\n    main()\nfinally:\n"
    code += "    assert not {'torch', 'numpy'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**ENVIRONMENT, **environment}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_shells_complete_commands_options_and_values():
    assert completed("sporeprint pro") == ["probe", "propagate"]
    assert completed("sporeprint knn --met") == ["--metric"]
    assert completed("sporeprint knn --metric ") == ["euclidean", "cosine"]
    lines = completed("sporeprint knn --", shell="fish")
    assert len(lines) > 10
    assert all(line.startswith("--") for line in lines)
