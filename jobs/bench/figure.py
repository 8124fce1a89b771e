"""What one benchmark found, as `make bench` prints and stores it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    name: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    """Ours over the peer's."""
    unit: str

    @classmethod
    def of(cls, name: str, ours: float, peer: float, peer_name: str, unit: str) -> "Figure":
        """Rounded to three decimals; the ratio is of the whole numbers."""
        return cls(
            name=name,
            ours=round(ours, 3),
            peer=round(peer, 3),
            peer_name=peer_name,
            ratio=round(ours / peer, 3),
            unit=unit,
        )
