"""Money is integers of base units of the settlement asset; rates are base units per hour, times are seconds."""

from decimal import Context, Decimal, InvalidOperation

SECONDS_PER_HOUR = 3600
ASSET_DECIMALS = 6
_EXACT = Context(prec=120)
"""Enough digits for any EVM word and its decimals."""


class InvalidAmount(ValueError):
    """An amount that is not a non-negative number with at most ``ASSET_DECIMALS`` decimals."""

    def __init__(self, text: object) -> None:
        super().__init__(f"{text!r} is not an amount: give a positive number with at most {ASSET_DECIMALS} decimals")
        self.text = text


def to_units(amount: str | int | float | Decimal, decimals: int = ASSET_DECIMALS) -> int:
    """Turn a human amount ("0.50") into base units; raises InvalidAmount where it does not fit exactly."""
    try:
        scaled = Decimal(str(amount)).scaleb(decimals, _EXACT)
    except InvalidOperation as error:
        raise InvalidAmount(amount) from error
    if not scaled.is_finite() or scaled < 0 or scaled != scaled.to_integral_value(context=_EXACT):
        raise InvalidAmount(amount)
    return int(scaled)


def from_units(units: int, decimals: int = ASSET_DECIMALS) -> str:
    """Base units as a decimal string with at least two decimals, exactly, for people."""
    whole, part = divmod(abs(units), 10**decimals)
    fraction = f"{part:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{'-' if units < 0 else ''}{whole}.{fraction:0<2}"


def pay_for(rate_per_hour: int, seconds: int) -> int:
    """Base units owed for whole seconds of service: floor(rate × seconds / 3600), as LeaseEscrow computes it."""
    return rate_per_hour * max(seconds, 0) // SECONDS_PER_HOUR


def affordable_seconds(balance: int, rate_per_hour: int) -> int:
    """The longest whole number of seconds that ``balance`` pays for at ``rate_per_hour``."""
    if rate_per_hour <= 0:
        return 2**63 - 1
    return ((balance + 1) * SECONDS_PER_HOUR - 1) // rate_per_hour
