"""Who sings: five voices made of one speaker.

A voice is a range, a length of the vocal tract (formants read at frequency / warp), a breathiness,
a ring near 2.9 kHz (the singer's formant; Sundberg, 1974, doi:10.1121/1.1914609) and a vibrato.
"low voice" is the speaker as he is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Singer:
    """Range in MIDI pitches; vibrato in Hz and cents (peak), on notes longer than 0.45 s."""

    name: str
    lowest: int
    highest: int
    warp: float = 1.0
    breath: float = 0.0  # aperiodicity added at the top of the spectrum, where it is most
    ring_db: float = 0.0
    tilt_db: float = 0.0  # by octave above 500 Hz
    vibrato_hertz: float = 5.5
    vibrato_cents: float = 35.0
    speaker: str = ""  # a voice of Kokoro's; "": espeak-ng


SINGERS = {
    singer.name: singer
    for singer in (
        Singer("low voice", 46, 62),
        Singer("bass", 40, 57, 0.93, 0.0, 0.0, -0.5, 5.0, 30.0),
        Singer("tenor", 50, 69, 1.03, 0.03, 2.0, 0.0, 5.8, 45.0),
        Singer("alto", 55, 74, 1.12, 0.06, 0.0, -0.5, 5.4, 30.0),
        Singer("soprano", 59, 78, 1.15, 0.12, 0.0, 0.0, 6.2, 50.0),
    )
}
MANNERS = {"": 6, "breathy": 1, "straight": 1, "wide vibrato": 1}  # how often of 9
_VIBRATO_CENTS = {"straight": 0.0, "wide vibrato": 70.0}


def in_manner(singer: Singer, manner: str) -> Singer:
    """The singer singing so; "" is as usual."""
    if manner == "breathy":
        return replace(singer, breath=singer.breath + 0.2)
    if manner in _VIBRATO_CENTS:
        return replace(singer, vibrato_cents=_VIBRATO_CENTS[manner])
    return singer
