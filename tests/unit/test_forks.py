"""Processes that are forked are as if they had been started."""

import signal

import psutil
import pytest

from tests.forks import Forks

KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """Of a module that runs code and knows nothing of the tests."""
    opened = Forks(["timeit", "json.decoder"], tmp_path_factory.mktemp("forks"))
    yield opened
    opened.close()


async def python(forks, code, **options):
    return await forks.run("timeit", ["-n1", "-r1", code], **options)


async def test_its_exit_code_and_output_are_told(forks):
    code, said = await python(forks, "print('to', 'stdout')")
    assert code == 0
    assert said.startswith("to stdout\n1 loop")
    code, said = await python(forks, "import os; os.write(2, b'error\\n'); os._exit(7)")
    assert (code, said) == (7, "error\n")
    code, said = await python(forks, "1/0")
    assert code == 1
    assert "ZeroDivisionError" in said
    code, said = await python(forks, KILLED)
    assert (code, said) == (-signal.SIGKILL, "")


def test_both_outputs_are_told_apart(forks):
    code = "import os; os.write(1, b'one'); os.write(2, b'other'); os._exit(3)"
    done = forks.call("timeit", ["-n1", "-r1", code])
    assert (done.returncode, done.stdout, done.stderr) == (3, "one", "other")


async def test_nothing_of_one_is_in_the_next(forks):
    look = "import os, sys; print(os.getpid(), hasattr(sys, 'mark'), 'json.decoder' in sys.modules)"
    _, first = await python(forks, f"{look}; sys.mark = 1")
    _, second = await python(forks, look)
    (one, *facts), (other, *same) = (text.split("\n")[0].split() for text in (first, second))
    assert one != other
    assert facts == same == ["False", "True"]


async def test_one_that_takes_too_long_is_killed(forks):
    with pytest.raises(TimeoutError):
        await python(forks, "import time; time.sleep(60)", timeout_s=0.2)
    assert psutil.Process(forks._parent.pid).children() == []
    assert (await python(forks, "pass"))[0] == 0
