"""Predict high water from two harmonic constituents."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Constituent:
    """One harmonic: amplitude in metres, period in hours, phase in radians."""

    amplitude_m: float
    period_h: float
    phase_rad: float

    def height(self, hour: float) -> float:
        return self.amplitude_m * math.cos(2 * math.pi * hour / self.period_h - self.phase_rad)


MOON = Constituent(1.9, 12.4206, 0.4)
SUN = Constituent(0.6, 12.0, 1.1)


def high_waters(hours: int) -> list[tuple[float, float]]:
    """Local maxima of the sum, sampled every six minutes."""
    heights = [MOON.height(i / 10) + SUN.height(i / 10) for i in range(hours * 10)]
    return [
        (i / 10, round(heights[i], 2))
        for i in range(1, len(heights) - 1)
        if heights[i - 1] < heights[i] >= heights[i + 1]
    ]


if __name__ == "__main__":
    for hour, height in high_waters(48):
        print(f"{hour:5.1f} h  {height:+.2f} m")
