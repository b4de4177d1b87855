"""95 % intervals of shares and means."""

from collections.abc import Sequence
from statistics import NormalDist

NORMAL = NormalDist().inv_cdf(0.975)


def student(degrees: int) -> float:
    """How many standard errors a 95 % interval reaches either way, by Student's t with so many degrees of freedom.

    Exact for one and two, and for more by its expansion in 1 / degrees (Abramowitz and Stegun, 1964, 26.7.5), which is
    right to a part in five hundred.
    """
    if degrees < 3:
        return {1: 12.706205, 2: 4.302653}[degrees]
    z = NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))


def wilson(share: float, judgements: float, reach: float = NORMAL) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share, between 0 and 1; the whole range without judgements.

    Args:
        share: that was found.
        judgements: independent ones that it was found among.
        reach: standard errors either way.
    """
    if not judgements:
        return 0.0, 1.0
    z, n = reach, judgements
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def among_people(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The 95 % interval of a share, between 0 and 1, where each person judges several times and people's tastes differ.

    Judgements of one person are no independent ones: by how much people differ, all are worth fewer (Kish, 1965), at
    most as many as there are, and as many as there are people where all judge alike.

    Args:
        counts: for each person, how often something was chosen, and of how many judgements.
    """
    people, total = len(counts), sum(of for _, of in counts)
    if people < 2:  # of whom nothing tells how others differ
        return 0.0, 1.0
    share = sum(chosen for chosen, _ in counts) / total
    variance = sum((chosen - share * of) ** 2 for chosen, of in counts) * people / (people - 1) / total**2
    worth = min(total, share * (1 - share) / variance) if variance else people
    return wilson(share, worth, student(people - 1))
