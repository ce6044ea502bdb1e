"""Every number that a song can become: blocks, the bijection, and what is refused."""

from __future__ import annotations

import random

import pytest
import torch

from distill.audio.codec_format import CodecFormat
from distill.errors import CodecError, VocabularyError
from distill.writing.vocabulary import AudioVocabulary


def ragged(seed: int) -> AudioVocabulary:
    generator = random.Random(seed)
    sizes = tuple(generator.randint(1, 90) for _ in range(generator.randint(1, 6)))
    format = CodecFormat(
        generator.choice([16_000, 44_100]),
        generator.choice([25.0, 86.13]),
        sizes,
        generator.choice([1, 2]),
    )
    lowest = generator.randint(0, 60)
    return AudioVocabulary(
        generator.randint(1, 999),
        format,
        lowest,
        lowest + generator.randint(0, 60),
        generator.randint(1, 99),
    )


def blocks(words: AudioVocabulary) -> list[range]:
    control = range(words.sing, words.end + 1)
    spans = [
        words.pitch_span,
        words.length_span,
        *(words.span(s) for s in range(words.format.slots)),
    ]
    return [range(words.base_rows), control, *(range(span.start, span.stop) for span in spans)]


@pytest.mark.parametrize("seed", range(12))
def test_blocks_lie_end_to_end_and_padding_is_in_none_of_them(seed):
    words = ragged(seed)
    every = [id for block in blocks(words) for id in block]
    assert every == list(range(words.used_rows))
    assert words.rows % 64 == 0 and 0 <= words.rows - words.used_rows < 64
    assert words.size == words.rows - words.base_rows
    sizes = tuple(len(words.span(slot)) for slot in range(words.format.slots))
    assert sizes == words.format.slot_sizes and len(words.audio_span) == sum(sizes)
    for padding in range(words.used_rows, words.rows):
        spans = [words.text_span, words.pitch_span, words.length_span, words.audio_span]
        assert not any(
            padding in span for span in [*spans, *map(words.span, range(words.format.slots))]
        )


@pytest.mark.parametrize("seed", range(12))
def test_spell_and_read_are_a_bijection(seed):
    words = ragged(seed)
    generator = torch.Generator().manual_seed(seed)
    frames = max(words.format.slot_sizes) * 2
    codes_FS = torch.stack([torch.arange(frames) % size for size in words.format.slot_sizes], 1)
    codes_FS = codes_FS[torch.randperm(frames, generator=generator)]
    ids_N = words.spell(codes_FS)
    assert torch.equal(words.read(ids_N), codes_FS)
    assert sorted(set(ids_N.tolist())) == list(range(words.audio_span.start, words.audio_span.stop))
    for position, id in enumerate(ids_N.tolist()):  # frame-major, and the slot is in the id
        frame, slot = divmod(position, words.format.slots)
        assert id == words.span(slot).start + int(codes_FS[frame, slot])
        assert id in words.span(slot)
    assert words.read(words.spell(codes_FS[:0])).shape == (0, words.format.slots)


def test_a_lost_or_foreign_id_is_noticed_by_name():
    words = AudioVocabulary(300, CodecFormat(16_000, 25.0, (40, 24)))
    codes_FS = torch.tensor([[3, 4], [39, 23], [0, 0]])
    ids_N = words.spell(codes_FS)
    with pytest.raises(VocabularyError, match=r"frame 0.*slot 0"):
        words.read(torch.cat([ids_N[1:], ids_N[:1]]))
    with pytest.raises(VocabularyError, match="whole frames of 2"):
        words.read(ids_N[:-1])
    swapped = ids_N.clone()
    swapped[3] = words.span(0).start
    with pytest.raises(VocabularyError, match=rf"frame 1: id {words.span(0).start} .*slot 1"):
        words.read(swapped)
    for wrong in (words.rows - 1, words.length_span.start, 5):
        with pytest.raises(VocabularyError, match="slot 0"):
            words.read(torch.tensor([wrong, int(ids_N[1])]))


def test_codes_of_another_codec_are_refused_by_name():
    words = AudioVocabulary(300, CodecFormat(16_000, 25.0, (40, 24)))
    with pytest.raises(CodecError, match="slot 1: codes 0 to 24 do not fit 0 to 23"):
        words.spell(torch.tensor([[0, 0], [0, 24]]))
    with pytest.raises(CodecError, match="slot 0: codes -1"):
        words.spell(torch.tensor([[-1, 0]]))
    for shape in [(2, 3), (2, 1), (6,)]:
        with pytest.raises(CodecError, match="2 slots"):
            words.spell(torch.zeros(shape, dtype=torch.int64))


def test_score_symbols_come_back_and_what_is_out_of_range_is_refused():
    words = AudioVocabulary(300, CodecFormat(16_000, 25.0, (40, 24)), 45, 72, 16)
    symbols = [words.pitch(midi) for midi in range(45, 73)] + [
        words.pitch(None),
        words.pitch(None, known=False),
    ]
    assert sorted(symbols) == list(range(words.pitch_span.start, words.pitch_span.stop))
    assert [words.midi(words.pitch(midi)) for midi in range(45, 73)] == list(range(45, 73))
    assert words.midi(words.pitch(None)) is None
    assert words.midi(words.pitch(60, known=False)) is None
    assert words.midi(words.pitch(60.4)) == 60 and words.midi(words.pitch(59.6)) == 60
    lengths = [words.length(frames) for frames in [None, *range(1, 17)]]
    assert lengths == list(range(words.length_span.start, words.length_span.stop))
    assert [words.frames(id) for id in lengths] == [None, *range(1, 17)]
    for midi in (44, 44.4, 73):
        with pytest.raises(VocabularyError, match="transpose"):
            words.pitch(midi)
    for frames in (0, 17, -1):
        with pytest.raises(VocabularyError, match="1 to 16"):
            words.length(frames)
    with pytest.raises(VocabularyError, match="no pitch"):
        words.midi(words.length_span.start)
    with pytest.raises(VocabularyError, match="no length"):
        words.frames(words.pitch_span.start)


@pytest.mark.parametrize("seed", range(6))
def test_json_and_names(seed):
    words = ragged(seed)
    again = AudioVocabulary.from_json(words.to_json())
    assert again == words and again.format.slot_sizes == words.format.slot_sizes
    names = [words.name(id) for id in range(words.base_rows, words.rows)]
    assert names == [f"<custom_token_{n}>" for n in range(words.size)]


def test_tokens_per_second():
    assert CodecFormat(16_000, 25.0, (512, 512)).tokens_per_second == 50
