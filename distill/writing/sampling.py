"""How a singer samples unless asked otherwise.

How sharp a model of codes is, and how much of its tail is noise, depends on the codec above all. So
every codec brings values of its own (`CodecSettings.sampling`), which a recipe takes unless it says
others, and singer.json keeps what was used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from distill.config.ranges import Checked, at_least, share
from distill.errors import SettingsError


@dataclass(frozen=True)
class Sampling(Checked):
    """A temperature a level, coarse slots first (the last repeats; streams that share a frame have
    equal levels), and one for the score that the singer makes up.

    ties: whether a note that was drawn as long as a length symbol can say may go on in another.
    """

    temperatures: tuple[float, ...] = at_least(0)
    score_temperature: float = at_least(0, default=0.9)
    top_k: int | None = at_least(1, default=None)
    top_p: float | None = share(default=None, zero=False)
    ties: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures:
            raise SettingsError("temperatures are (); give at least one")

    def level(self, level: int) -> float:
        """The temperature of a level of slots, 0 the coarsest."""
        return self.temperatures[min(level, len(self.temperatures) - 1)]

    def at(self, temperature: float | None) -> Sampling:
        """The same with one temperature for all slots, which the score's does not pass."""
        if temperature is None:
            return self
        if not 0 <= temperature <= 10:
            raise SettingsError(
                f"temperature is {temperature}; give 0 (always the likeliest) to 10"
            )
        of_score = min(temperature, self.score_temperature)
        return replace(self, temperatures=(temperature,), score_temperature=of_score)
