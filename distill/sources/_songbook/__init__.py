"""The parts of the songbook: a voice, a way of singing, melodies, verses, and traditional songs."""
