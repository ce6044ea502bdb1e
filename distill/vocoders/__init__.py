"""Vocoders: codes -> sound. One file per kind; its name is the recipe's `kind`.

Every file has a frozen dataclass `Settings` with `load(codec) -> Vocoder`, where a Vocoder has

    sample_rate         Hz
    decode(codes_FS)    wave_CW of F * sample_rate / codec.format.frame_rate samples

A vocoder is made for one codec's codes and refuses another's (CodecError).
"""
