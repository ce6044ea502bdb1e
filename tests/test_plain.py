"""eval/plain.py: what a client without a grammar makes of a song's ids, in every layout."""

from __future__ import annotations

import plain
import pytest
from test_layouts import EVERY, SHAPES, coded, encode, words

from distill.writing.prompts import write


@EVERY
@pytest.mark.parametrize(("slots", "streams"), [shape for shape in SHAPES if shape[0] > 1])
def test_a_whole_song_is_heard_whole_and_a_lost_id_costs_the_frames_of_its_step(
    layout, slots, streams
):
    v = words(layout, slots, streams)
    item = coded(v, "notes", seed=3)[0]
    ids = write(item.passage, item.codes_FS, encode, v).ids_T.tolist()
    ids = ids[ids.index(v.sing) + 1 :]

    def decode(text: list[int]) -> str:
        return "".join(map(chr, text))

    heard = plain.hear(ids, v, decode)
    assert heard.ended and heard.frames(slots) == item.codes_FS.tolist()
    texts = [piece.text.split(",")[0].strip() for piece in item.passage.pieces]
    assert heard.pieces == [text for text in texts if text]
    audio = [position for position, id in enumerate(ids) if id in v.audio_span]
    # not the very first: it would make the second frame the first; not at the end, where a slot
    # may stand twice in a row
    for lost in audio[1 : v.order.starts(len(item.codes_FS))[-2]]:
        broken = plain.hear(ids[:lost] + ids[lost + 1 :], v, decode)
        kept = [n for n, frame in enumerate(broken.codes) if len(frame) == slots]
        assert len(item.codes_FS) - 1 - v.order.depth <= len(kept) < len(item.codes_FS)
        for n in kept:
            assert [broken.codes[n][s] for s in range(slots)] == item.codes_FS[n].tolist()
