"""Money is integers of base units of the settlement asset; rates are base units per hour, times are seconds."""

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

SECONDS_PER_HOUR = 3600
ASSET_DECIMALS = 6


class InvalidAmount(ValueError):
    """An amount that is not a non-negative number with at most ``ASSET_DECIMALS`` decimals."""

    def __init__(self, text: object) -> None:
        super().__init__(f"{text!r} is not an amount: give a positive number with at most {ASSET_DECIMALS} decimals")
        self.text = text


def to_units(amount: str | int | float | Decimal, decimals: int = ASSET_DECIMALS) -> int:
    """Turn a human amount ("0.50") into base units; raises InvalidAmount where it does not fit exactly."""
    try:
        scaled = Decimal(str(amount)).scaleb(decimals)
    except InvalidOperation as error:
        raise InvalidAmount(amount) from error
    if not scaled.is_finite() or scaled < 0 or scaled != scaled.to_integral_value():
        raise InvalidAmount(amount)
    return int(scaled)


def from_units(units: int, decimals: int = ASSET_DECIMALS) -> str:
    """Base units as a decimal string with at least two decimals, for people."""
    value = Decimal(units).scaleb(-decimals).normalize()
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent > -2:
        value = value.quantize(Decimal("0.01"), rounding=ROUND_HALF_EVEN)
    return f"{value:f}"


def pay_for(rate_per_hour: int, seconds: int) -> int:
    """Base units owed for whole seconds of service: floor(rate × seconds / 3600), as LeaseEscrow computes it."""
    return rate_per_hour * max(seconds, 0) // SECONDS_PER_HOUR


def affordable_seconds(balance: int, rate_per_hour: int) -> int:
    """The longest whole number of seconds that ``balance`` pays for at ``rate_per_hour``."""
    if rate_per_hour <= 0:
        return 2**63 - 1
    return ((balance + 1) * SECONDS_PER_HOUR - 1) // rate_per_hour
