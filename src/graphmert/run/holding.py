"""Which documents of a corpus train nothing, so that held-out heads are measured in unseen text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence


def hold_out_documents(
    mentions: Iterable[tuple[int, int]],
    documents: Sequence[str],
    part_of: Mapping[int, str],
    *,
    measured: Collection[int] = (),
    ids: Sequence[str] = (),
    share: float = 0.0,
) -> dict[str, str]:
    """Choose the documents that train nothing.

    The document in which a held-out head is named first always is one. Then come others that name
    a measured head, one a head and round, by SHA-256(document, head), until their number reaches
    the share of all documents. Where the share suffices no document that names such a head trains.

    Args:
        mentions: (chain, entity) of every place where an entity is named, in order of place.
        documents: document of each chain.
        part_of: the part of each held-out head.
        measured: held-out heads of which training knows no triple; for further documents.
        ids: of the entities.
        share: of the documents, those that may be held out beyond the first of each head.

    Returns:
        Document -> the part of the head for which it was held out.
    """
    found: dict[int, dict[str, None]] = {}
    for chain, entity in mentions:
        if entity in part_of:
            found.setdefault(entity, {})[documents[chain]] = None
    held = {next(iter(own)): part_of[entity] for entity, own in found.items()}
    room = int(share * len(set(documents)))
    queues = {
        entity: sorted((one for one in found[entity] if one not in held), key=_draw(ids[entity]))
        for entity in sorted(set(found).intersection(measured))
    }
    n_more = turn = 0
    while n_more < room and any(turn < len(own) for own in queues.values()):
        for entity, own in queues.items():
            if turn < len(own) and own[turn] not in held and n_more < room:
                held[own[turn]] = part_of[entity]
                n_more += 1
        turn += 1
    return held


def _draw(entity_id: str) -> Callable[[str], bytes]:
    def key(document: str) -> bytes:
        return hashlib.sha256(f"{document} {entity_id}".encode()).digest()

    return key
