"""Names of what a shared library for a GPU holds."""


def cubin_symbol(entry: str) -> str:
    """Symbol of a program's machine code."""
    return f"{entry}_cubin"


def ptx_symbol(entry: str) -> str:
    """Symbol of a program's PTX, which ends with a zero byte."""
    return f"{entry}_ptx"


def section_of(symbol: str) -> str:
    """Section that a symbol has to itself, by which it is found without loading the library."""
    return f".{symbol}"
