"""The load generator of `make bench`: its statistics, its table, and that it measures right answers only."""

import asyncio

import pytest

from bench.rivals import contest
from bench.rivals.contest import LARGE, SMALL, NoRival
from bench.rivals.load import Figures, Load, WrongAnswer, drive, figures, request_bytes
from bench.rivals.run import told


def test_figures_are_rate_median_and_99th_percentile_by_nearest_rank():
    found = figures([n * 1_000_000 for n in range(200, 0, -1)], span_ns=2_000_000_000)
    assert found == Figures(100.0, 100.0, 198.0)
    assert figures([5_000_000], 1_000_000_000) == Figures(1.0, 5.0, 5.0)


def test_figures_of_nothing_are_an_error_and_not_a_zero():
    with pytest.raises(WrongAnswer, match=r"within 4\.0 s"):
        figures([], 4_000_000_000)


def test_a_line_of_the_table_says_who_what_and_how_many_at_a_time():
    row = told("LitServe", SMALL, "64 at a time", Figures(1_220.4, 52.4321, 71.0))
    assert (row.what, row.value) == ("LitServe, 1 KiB, 64 at a time", "  1,220/s    52.432    71.000 ms")


def test_payloads_are_what_their_names_say_and_no_echo_is_an_answer():
    assert [payload.x(0).nbytes for payload in (SMALL, LARGE)] == [1 << 10, 1 << 22]
    assert SMALL.answer(0) != SMALL.x(0).tobytes() and min(SMALL.x(0)[0]) == -1
    for payload in (SMALL, LARGE):
        assert len({payload.x(turn).tobytes() for turn in range(payload.variants)}) == payload.variants


@pytest.mark.parametrize("rival", contest.rivals(), ids=lambda rival: rival.name)
def test_every_rival_gets_the_same_tensor(rival):
    for turn in (0, 1):
        head, _, body = rival.request(SMALL, turn).partition(b"\r\n\r\n")
        assert body.endswith(SMALL.x(turn).tobytes()) and f"content-length: {len(body)}".encode() in head


def test_a_rival_that_is_not_installed_is_named_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(contest, "PYTHON", tmp_path / "python")
    with pytest.raises(NoRival, match=r"no \.venv-bench"):
        next(contest.measure(contest.rivals()[0]))


def answered(answers, at_a_time=1):
    """How many requests a load counts at a real server that gives these, in pieces, the last one for ever."""
    given = iter(answers)
    state = {"answer": next(given)}

    async def serve(reader, writer):
        try:
            while await reader.readexactly(len(REQUEST)) == REQUEST:
                writer.write(state["answer"][:30])
                await writer.drain()
                writer.write(state["answer"][30:])
                state["answer"] = next(given, state["answer"])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await drive(Load(port, [REQUEST], [b"right"], at_a_time, 0, 0.3))

    return asyncio.run(main())


REQUEST = request_bytes("/relu", {"content-type": "x/y"}, b"body")
RIGHT = b"HTTP/1.1 200 OK\r\nServer: none\r\nContent-Length: 5\r\n\r\nright"


@pytest.mark.parametrize("at_a_time", [1, 8])
def test_answers_that_come_in_pieces_are_counted_on_every_connection(at_a_time):
    took_ns = answered([RIGHT], at_a_time)
    assert len(took_ns) >= at_a_time and min(took_ns) > 0


@pytest.mark.parametrize(
    "wrong",
    [RIGHT.replace(*pair) for pair in ((b"right", b"wrong"), (b"200 OK", b"500 Oh"), (b"Content-Length", b"Other"))],
    ids=["bytes", "status", "length"],
)
def test_one_wrong_answer_spoils_the_figure(wrong):
    with pytest.raises(WrongAnswer):
        answered([RIGHT, wrong, RIGHT])
