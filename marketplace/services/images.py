"""An order's image before it is taken: a list of blocks that are all in the store."""

from everlease.domain.manifest import CID
from everlease.store.errors import BlockCorrupt, BlockNotFound, ManifestInvalid
from marketplace.problems import ProblemError
from marketplace.services.store import StoreGate


def is_kept(store: StoreGate, cid: CID) -> bool:
    """Whether the store has an image that was checked once; then it stays as after ``check_image``.

    Raises StoreUnavailable.
    """
    try:
        plain = store.plain(cid)
    except (BlockNotFound, BlockCorrupt, ManifestInvalid):
        return False
    return store.hold([cid, *(block for block, _ in plain.blocks)])


def check_image(store: StoreGate, cid: CID, size: int) -> None:
    """Raises ProblemError unless ``cid`` names an image of ``size`` bytes whose blocks the store has; StoreError.

    What was seen stays for as long as the order may be paid, whenever the upload was.
    """
    try:
        plain = store.plain(cid)
    except BlockNotFound:
        raise ProblemError(422, "image-not-stored", f"image {cid} is not in the store: upload it first") from None
    except (ManifestInvalid, BlockCorrupt) as error:
        raise ProblemError(422, "image-invalid", f"image_manifest names no image: {error}") from error
    if plain.size != size:
        raise ProblemError(422, "image-invalid", f"image_bytes is {size}, image {cid} has {plain.size}")
    if not store.hold([cid, *(block for block, _ in plain.blocks)]):
        raise ProblemError(422, "image-not-stored", f"blocks of image {cid} are not in the store: upload it again")
