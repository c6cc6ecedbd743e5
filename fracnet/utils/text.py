"""Numbers in sentences."""


def counted(n: int, noun: str) -> str:
    """`1 image`, `2 images`, `3 studies`, `4 classes`; thousands are not set apart."""
    if n == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{n} {noun[:-1]}ies"
    return f"{n} {noun}es" if noun.endswith(("s", "x", "ch")) else f"{n} {noun}s"


def are(n: int) -> str:
    """The verb that goes with it."""
    return "is" if n == 1 else "are"


def limits(low: float, high: float, digits: int = 3) -> str:
    """`0.81-0.93`; with a limit below 0 the word `to`, as a hyphen would read as a sign."""
    return f"{low:.{digits}f}{'-' if low >= 0 else ' to '}{high:.{digits}f}"
