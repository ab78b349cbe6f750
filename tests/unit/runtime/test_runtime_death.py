"""RUN-14 to RUN-16: why a worker died."""

import signal

import pytest

from cocoon.core.errors import MemoryExceeded, RunTimeout, WorkerLost
from cocoon.runtime.death import LOADING, RUNNING, STARTING, classify


@pytest.mark.parametrize(
    "words",
    [
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc",
        "MemoryError",
        "[libprotobuf FATAL] Out of memory",
        "Failed to allocate memory for requested buffer of size 10737418240",
        "mmap: Cannot allocate memory",
        "what():  Resource temporarily unavailable",
    ],
)
def test_a_death_by_allocation_is_the_models_appetite(words):
    assert isinstance(classify(-signal.SIGABRT, words, RUNNING), MemoryExceeded)


def test_a_crash_names_its_signal():
    error = classify(-signal.SIGSEGV, "", LOADING)
    assert isinstance(error, WorkerLost)
    assert error.text == "the worker died of SIGSEGV while loading the model"


def test_used_up_cpu_time_is_a_timeout():
    assert isinstance(classify(-signal.SIGXCPU, "", RUNNING), RunTimeout)


def test_a_forbidden_system_call_is_told_whatever_the_last_words():
    error = classify(-signal.SIGSYS, "out of memory", RUNNING)
    assert isinstance(error, WorkerLost) and "forbidden system call" in error.text


def test_last_words_are_quoted_only_before_there_is_data_to_quote():
    assert classify(1, "secret 42", RUNNING).text == "the worker exited with status 1 while running the model"
    assert classify(1, "no such module", STARTING).text.endswith("while starting: no such module")


def test_unknown_endings_have_words_too():
    assert "broke its connection" in classify(None, "", RUNNING).text
    assert "signal 63" in classify(-63, "", RUNNING).text
