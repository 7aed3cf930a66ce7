"""The protocol between launcher and agent: frames are decoded from any pieces of the byte stream."""

from hypothesis import given
from hypothesis import strategies as st

from vscsihba.sandbox import frames


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40))), st.integers(1, 9))
def test_frames_are_found_in_pieces_of_any_length(sent: list[tuple[int, bytes]], step: int) -> None:
    stream = b"".join(frames.frame(kind, data) for kind, data in sent)
    decoder = frames.Decoder()
    pieces = (stream[at : at + step] for at in range(0, len(stream), step))
    assert [found for piece in pieces for found in decoder.feed(piece)] == sent


def test_long_data_are_several_frames() -> None:
    data = bytes(frames.MOST + 1)
    found = list(frames.Decoder().feed(frames.frames(frames.OUTPUT, data)))
    assert [len(part) for _, part in found] == [frames.MOST, 1]


def test_the_credit_fits_into_the_buffer_of_a_terminal() -> None:
    """N_TTY_BUF_SIZE less TTY_THRESHOLD_THROTTLE, with room for signals and sizes."""
    assert frames.CREDIT < 4096 - 128 - 256
