"""The parts of the songbook: a voice, a way of singing, tunes, verses, and traditional songs."""
